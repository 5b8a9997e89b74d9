/* summary: one screen. Allocators, totals, fragmentation, the largest leaks, what is doubtful. */
#include "report/reports.h"

#include <inttypes.h>

enum { LEAK_ROWS = 5, LEAK_FRAMES = 6, FINDING_ROWS = 3, DOUBT_SIZE = 400 };

static void say_fragmentation(const struct report *report, const struct fragmentation *f)
{
    struct writer *w = report->writer;
    writer_object_begin(w, "fragmentation");
    writer_text(w, f->slabs ? "\nfragmentation: " : "");
    writer_bytes(w, "partial_free_bytes", f->slabs ? "{}" : "", f->partial_free_bytes);
    writer_bytes(w, "slab_bytes", f->slabs ? " of {} are free" : "", f->slab_bytes);
    writer_number(w, "partial_slabs", f->slabs ? " beside live blocks, in {}" : "",
                  f->partial_slabs);
    writer_number(w, "slabs", f->slabs ? " of {} slabs\n" : "", f->slabs);
    writer_object_end(w);
}

static void say_doubt(const struct report *report, const char *text)
{
    writer_style(report->writer, STYLE_WARNING);
    writer_string(report->writer, NULL, "  doubtful: {}\n", text);
    writer_style(report->writer, STYLE_PLAIN);
}

static void doubt_arenas(const struct report *report)
{
    const struct heaps *heaps = report->in->heaps;
    char text[DOUBT_SIZE];
    size_t flux = 0, damaged = 0;
    for (size_t i = 0; i < heaps->arenas.count; i++) {
        flux += heaps->arenas.items[i].state == ARENA_IN_FLUX;
        damaged += heaps->arenas.items[i].state == ARENA_DAMAGED;
    }
    if (flux) {
        snprintf(text, sizeof text, "%zu arenas were being changed when the program stopped", flux);
        say_doubt(report, text);
    }
    if (damaged) {
        snprintf(text, sizeof text, "%zu arenas are damaged", damaged);
        say_doubt(report, text);
    }
}

static void doubt_findings(const struct report *report)
{
    const struct heaps *heaps = report->in->heaps;
    char text[DOUBT_SIZE];
    size_t shown = heaps->findings.count < FINDING_ROWS ? heaps->findings.count : FINDING_ROWS;
    for (size_t i = 0; i < shown; i++) {
        const struct finding *f = &heaps->findings.items[i];
        snprintf(text, sizeof text, "%s at 0x%" PRIx64 ": %s", f->rule, f->address, f->detail);
        say_doubt(report, text);
    }
    uint64_t left = heaps->findings.count - shown + heaps->findings_dropped;
    if (left) {
        snprintf(text, sizeof text, "%" PRIu64 " more findings; heapinspect verify lists them",
                 left);
        say_doubt(report, text);
    }
}

static void doubt_checks(const struct report *report)
{
    const struct heaps *heaps = report->in->heaps;
    char text[DOUBT_SIZE];
    for (size_t h = 0; h < heaps->count; h++)
        for (size_t i = 0; i < heaps->heaps[h].check_count; i++) {
            const struct check *check = &heaps->heaps[h].checks[i];
            if (check->agree)
                continue;
            snprintf(text, sizeof text, "%s says %s is %" PRIu64 ", the walk found %" PRIu64,
                     heaps->heaps[h].reader->name, check->name, check->reported, check->walked);
            say_doubt(report, text);
        }
}

static void say_doubts(const struct report *report, const struct leaks *leaks)
{
    char text[DOUBT_SIZE];
    writer_list_begin(report->writer, "doubtful");
    if (report->in->heaps->unknown[0])
        say_doubt(report, report->in->heaps->unknown);
    doubt_arenas(report);
    doubt_findings(report);
    doubt_checks(report);
    if (leaks && leaks->totals.possible.blocks) {
        snprintf(text, sizeof text,
                 "%" PRIu64 " blocks are held only by pointers into their middle",
                 leaks->totals.possible.blocks);
        say_doubt(report, text);
    }
    writer_list_end(report->writer);
}

static void say_no_heap(const struct report *report)
{
    const struct heaps *heaps = report->in->heaps;
    if (heaps->count || heaps->unknown[0])
        return;
    writer_style(report->writer, STYLE_TITLE);
    writer_text(report->writer, "\nNo heap found: none of the allocators that heapinspect knows "
                                "is in this target.\n");
    writer_style(report->writer, STYLE_PLAIN);
    writer_text(report->writer, "Known are:");
    for (size_t i = 0; !writer_is_json(report->writer) && heap_readers[i]; i++)
        writer_string(report->writer, NULL, i ? ", {}" : " {}", heap_readers[i]->name);
    writer_text(report->writer, "\n");
}

uint64_t report_summary_rows(const struct report *report, uint64_t count)
{
    struct report first = *report;
    first.has_limit = true;
    first.limit = report->has_limit ? report->limit : LEAK_ROWS;
    return report_rows(&first, count, LEAK_ROWS);
}

void report_summary(const struct report *report, const struct leaks *leaks,
                    const struct fragmentation *fragmentation)
{
    report_begin(report, "heapinspect.summary.v1");
    report_heaps(report);
    say_no_heap(report);
    if (report->in->heaps->count)
        say_fragmentation(report, fragmentation);
    report_totals(report, leaks ? &leaks->totals : NULL);
    if (leaks && leaks->groups.count)
        writer_text(report->writer, "\nlargest leaks (heapinspect leaks shows all)\n");
    struct report first = *report;
    first.has_limit = true;
    first.limit = report->has_limit ? report->limit : LEAK_ROWS;
    first.frames = LEAK_FRAMES;
    static const struct leaks none;
    report_leak_groups(&first, leaks ? leaks : &none, LEAK_ROWS);
    say_doubts(report, leaks);
    if (leaks)
        report_mark(report);
    else
        writer_null(report->writer, "mark", NULL);
    report_end(report);
}
