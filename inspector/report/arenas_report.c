/* arenas: one a row, largest first is no use here: in the allocator's own order. */
#include "report/reports.h"

enum { ARENA_ROWS = 64, THREAD_COLUMNS = 4 };

static void say_threads(const struct report *report, const struct arena *arena)
{
    struct writer *w = report->writer;
    uint32_t known = arena->tid_count < ARENA_MAX_TIDS ? arena->tid_count : ARENA_MAX_TIDS;
    writer_list_begin(w, "threads");
    for (uint32_t i = 0; i < known; i++) {
        bool shown = i < THREAD_COLUMNS;
        writer_plain(w, NULL, !shown ? NULL : i ? ",{}" : " {}", (uint64_t)arena->tids[i]);
    }
    writer_list_end(w);
    uint32_t shown = known < THREAD_COLUMNS ? known : THREAD_COLUMNS;
    bool more = arena->tid_count > shown;
    writer_number(w, "thread_count", more ? (shown ? " of {}" : " {} threads") : "",
                  arena->tid_count);
}

static void say_arena(const struct report *report, size_t index)
{
    struct writer *w = report->writer;
    const struct arena *arena = &report->in->heaps->arenas.items[index];
    struct heap_totals totals;
    arena_totals(report->in->heaps, index, &totals);
    writer_object_begin(w, NULL);
    writer_plain(w, "id", "{:4}", arena->id);
    writer_string(w, "allocator", " {:-9}", report->in->heaps->heaps[arena->heap].reader->name);
    writer_address(w, "address", " {:-14}", arena->address);
    writer_bytes(w, "system_bytes", " {:10}", arena->system_bytes);
    report_total(report, "live", " {:11}", " {:10}", &totals.live);
    report_total(report, "cached", " {:9}", " {:10}", &totals.cached);
    report_total(report, "free", " {:9}", " {:10}", &totals.free);
    writer_style(w, arena->state == ARENA_DAMAGED ? STYLE_BAD : STYLE_PLAIN);
    writer_string(w, "state", "  {:-7}", arena_state_name(arena->state));
    writer_style(w, STYLE_PLAIN);
    writer_string(w, "name", arena->name[0] ? " \"{}\"" : "", arena->name[0] ? arena->name : NULL);
    say_threads(report, arena);
    writer_text(w, "\n");
    writer_object_end(w);
}

void report_arenas(const struct report *report)
{
    const struct heaps *heaps = report->in->heaps;
    uint64_t rows = report_rows(report, heaps->arenas.count, ARENA_ROWS);
    report_begin(report, "heapinspect.arenas.v1");
    report_heaps(report);
    writer_style(report->writer, STYLE_TITLE);
    writer_text(report->writer, "\n  id allocator address            system        live blocks and "
                                "bytes    cached blocks, bytes      free blocks, bytes  state   "
                                "threads\n");
    writer_style(report->writer, STYLE_PLAIN);
    writer_list_begin(report->writer, "arenas");
    for (uint64_t i = 0; i < rows; i++)
        say_arena(report, (size_t)i);
    writer_list_end(report->writer);
    report_more(report, heaps->arenas.count - rows);
    report_end(report);
}
