/* What stands at the top of every report: target, completeness, heaps, totals. */
#include "report/reports.h"

enum { ROW_SIZE = 400 };

uint64_t report_rows(const struct report *report, uint64_t count, uint64_t otherwise)
{
    uint64_t most = report->has_limit                ? report->limit
                    : writer_is_json(report->writer) ? 0
                                                     : otherwise;
    return most && most < count ? most : count;
}

void report_more(const struct report *report, uint64_t left_out)
{
    if (!left_out || writer_is_json(report->writer))
        return;
    writer_style(report->writer, STYLE_QUIET);
    writer_number(report->writer, NULL, "  … {} more (--limit=0 shows all)\n", left_out);
    writer_style(report->writer, STYLE_PLAIN);
}

/* "1 block ", as wide as "1 blocks". */
static const char *one_block(const char *pattern, char *buffer, size_t size)
{
    const char *plural = pattern ? strstr(pattern, " blocks") : NULL;
    if (!plural)
        return pattern;
    snprintf(buffer, size, "%.*s block %s", (int)(plural - pattern), pattern,
             plural + strlen(" blocks"));
    return buffer;
}

void report_total(const struct report *report, const char *key, const char *blocks_pattern,
                  const char *bytes_pattern, const struct blocks_total *total)
{
    writer_object_begin(report->writer, key);
    char one[80];
    if (total->blocks == 1)
        blocks_pattern = one_block(blocks_pattern, one, sizeof one);
    writer_number(report->writer, "blocks", blocks_pattern, total->blocks);
    writer_bytes(report->writer, "bytes", bytes_pattern, total->bytes);
    writer_object_end(report->writer);
}

static const char *kind_name(enum target_kind kind)
{
    static const char *const names[] = {"process", "core", "snapshot", "bytes"};
    return names[kind];
}

static void say_target(const struct report *report)
{
    struct writer *w = report->writer;
    const struct target *target = report->in->target;
    const char *file = target_file(target), *executable = target_executable(target);
    double stopped = target_stopped_seconds(target);
    writer_object_begin(w, "target");
    writer_style(w, STYLE_TITLE);
    writer_string(w, "kind", "{} ", kind_name(target_kind(target)));
    writer_string(w, "file", file ? "{} of process " : "", file);
    writer_plain(w, "pid", "{}", (uint64_t)target_pid(target));
    writer_string(w, "executable", executable ? " {}" : "", executable);
    writer_style(w, STYLE_PLAIN);
    bool one = target_thread_count(target) == 1;
    writer_number(w, "threads", one ? ", {} thread" : ", {} threads", target_thread_count(target));
    writer_seconds(w, "stopped_seconds", stopped > 0 ? ", stopped for {} s" : "", stopped);
    writer_object_end(w);
    writer_text(w, "\n");
}

/* The first line of a partial answer, before anything else. */
static void say_gap(const struct report *report)
{
    char gap[ROW_SIZE];
    if (writer_is_json(report->writer) || inspection_complete(report->in))
        return;
    inspection_gap(report->in, gap, sizeof gap);
    writer_style(report->writer, STYLE_BAD);
    writer_string(report->writer, NULL, "INCOMPLETE: {}\n", gap);
    writer_style(report->writer, STYLE_PLAIN);
}

static void say_notes(const struct report *report)
{
    struct writer *w = report->writer;
    const struct inspection *in = report->in;
    char gap[ROW_SIZE];
    writer_list_begin(w, "notes"); /* in text on standard error, by main */
    if (!inspection_complete(in)) {
        inspection_gap(in, gap, sizeof gap);
        writer_string(w, NULL, NULL, gap);
    }
    if (in->heaps && !in->heaps->count && !in->heaps->unknown[0])
        writer_string(w, NULL, NULL, "no allocator that is known was found in this target");
    for (size_t i = 0; i < target_note_count(in->target); i++)
        writer_string(w, NULL, NULL, target_note(in->target, i));
    writer_list_end(w);
}

void report_begin(const struct report *report, const char *schema)
{
    struct writer *w = report->writer;
    writer_object_begin(w, NULL);
    writer_string(w, "schema", NULL, schema); /* for programs */
    say_gap(report);
    say_target(report);
    writer_bool(w, "complete", NULL, NULL, inspection_complete(report->in)); /* text: say_gap */
    if (writer_is_json(w)) {
        writer_object_begin(w, "missing");
        writer_number(w, "ranges", NULL, inspection_missing_ranges(report->in));
        writer_number(w, "bytes", NULL, inspection_missing_bytes(report->in));
        writer_object_end(w);
    }
    say_notes(report);
}

void report_end(const struct report *report)
{
    writer_object_end(report->writer);
    writer_json_line(report->writer);
}

/* -- heaps ------------------------------------------------------------------------------------ */

static size_t arenas_of(const struct heaps *heaps, size_t heap)
{
    size_t count = 0;
    for (size_t i = 0; i < heaps->arenas.count; i++)
        count += heaps->arenas.items[i].heap == heap;
    return count;
}

static size_t disagreements(const struct heap *heap)
{
    size_t count = 0;
    for (size_t i = 0; i < heap->check_count; i++)
        count += !heap->checks[i].agree;
    return count;
}

static void say_check(const struct report *report, const struct check *check)
{
    struct writer *w = report->writer;
    bool shown = report->verbose || !check->agree;
    writer_object_begin(w, NULL);
    writer_style(w, shown && !check->agree ? STYLE_BAD : STYLE_PLAIN);
    writer_string(w, "name", shown ? "    {:-24} " : NULL, check->name);
    writer_number(w, "reported", shown ? "the allocator says {}, " : NULL, check->reported);
    writer_number(w, "walked", shown ? "the walk found {} " : NULL, check->walked);
    writer_bool(w, "agree", shown ? "(agree)\n" : NULL, shown ? "(they differ)\n" : NULL,
                check->agree);
    if (shown)
        writer_style(w, STYLE_PLAIN);
    writer_object_end(w);
}

static void say_checks(const struct report *report, const struct heap *heap)
{
    struct writer *w = report->writer;
    if (heap->check_count) {
        if (!writer_is_json(w))
            writer_number(w, NULL, "  {}", heap->check_count);
        writer_text(w, " checks of the allocator's own totals: ");
        writer_text(w, disagreements(heap) ? "they differ\n" : "all agree\n");
    }
    writer_list_begin(w, "checks");
    for (size_t i = 0; i < heap->check_count; i++)
        say_check(report, &heap->checks[i]);
    writer_list_end(w);
}

/* An unused heap is zeros all over: its headline does for a person. */
static void say_amounts(const struct report *report, size_t index)
{
    struct writer *w = report->writer;
    const struct heap *heap = &report->in->heaps->heaps[index];
    struct heap_totals totals;
    bool shown = heap->active || heap->system_bytes;
    size_t arenas = arenas_of(report->in->heaps, index);
    heap_totals(report->in->heaps, index, &totals);
    writer_number(w, "arenas", !shown ? "" : arenas == 1 ? ", {} arena" : ", {} arenas", arenas);
    writer_string(w, "bytes_are", shown ? "; sizes are {} bytes\n" : "\n",
                  heap->bytes_are_requested ? "requested" : "usable");
    report_total(report, "live", shown ? "  live     {:14} blocks" : "", shown ? " {:10}\n" : "",
                 &totals.live);
    report_total(report, "cached", shown ? "  cached   {:14} blocks" : "", shown ? " {:10}\n" : "",
                 &totals.cached);
    report_total(report, "free", shown ? "  free     {:14} blocks" : "", shown ? " {:10}\n" : "",
                 &totals.free);
    writer_bytes(w, "metadata_bytes", shown ? "  {} of records" : "", heap->metadata_bytes);
    writer_bytes(w, "system_bytes", shown ? ", {} from the system\n" : "", heap->system_bytes);
}

/* Where an allocator can remember who allocated. */
static void say_stacks(const struct report *report, const struct heap *heap)
{
    struct writer *w = report->writer;
    bool shown = heap->active, sampled = heap->stacks == HEAP_STACKS_SAMPLED;
    if (!heap->reader->stack)
        return;
    writer_object_begin(w, "stacks");
    writer_string(w, "mode", NULL, heap_stacks_name(heap->stacks)); /* a sentence in text */
    writer_text(w, !shown                             ? ""
                   : heap->stacks == HEAP_STACKS_NONE ? "  call stacks are not kept"
                   : heap->stacks == HEAP_STACKS_FULL ? "  call stacks of all allocations"
                                                      : "  call stacks of samples");
    writer_bytes(w, "sample_bytes",
                 shown && sampled && heap->sample_bytes ? ", one in {} on average" : "",
                 sampled ? heap->sample_bytes : 0);
    writer_number(w, "blocks", shown ? "; {} blocks have one" : "", heap->blocks_with_stack);
    writer_number(w, "lost", shown && heap->stacks_lost ? "; {} found no room" : "",
                  heap->stacks_lost);
    writer_text(w, shown ? "\n" : "");
    writer_object_end(w);
}

static void say_heap(const struct report *report, size_t index)
{
    struct writer *w = report->writer;
    const struct heap *heap = &report->in->heaps->heaps[index];
    writer_object_begin(w, NULL);
    writer_style(w, STYLE_TITLE);
    writer_text(w, "\n");
    writer_string(w, "allocator", "{}", heap->reader->name);
    writer_string(w, "version", " {}", heap->version);
    writer_style(w, STYLE_PLAIN);
    writer_string(w, "found_by", " (found by: {})", found_by_name(heap->found_by));
    writer_bool(w, "active", "", ", not used yet", heap->active);
    say_amounts(report, index);
    say_stacks(report, heap);
    say_checks(report, heap);
    writer_object_end(w);
}

void report_heaps(const struct report *report)
{
    const struct heaps *heaps = report->in->heaps;
    writer_list_begin(report->writer, "heaps");
    for (size_t i = 0; i < heaps->count; i++)
        say_heap(report, i);
    writer_list_end(report->writer);
    if (heaps->unknown[0] && !writer_is_json(report->writer)) {
        writer_style(report->writer, STYLE_BAD);
        writer_string(report->writer, NULL, "\nNOT UNDERSTOOD: {}\n", heaps->unknown);
        writer_style(report->writer, STYLE_PLAIN);
    }
}

/* -- totals ----------------------------------------------------------------------------------- */

void report_totals(const struct report *report, const struct leak_totals *totals)
{
    struct writer *w = report->writer;
    if (!totals) {
        writer_null(w, "totals", NULL); /* nothing was counted: said in the headline */
        return;
    }
    writer_text(w, "\n");
    writer_object_begin(w, "totals");
    report_total(report, "live", "  live       {:14} blocks", " {:10}\n", &totals->live);
    report_total(report, "reachable", "  reachable  {:14} blocks", " {:10}\n", &totals->reachable);
    writer_style(w, totals->direct.blocks ? STYLE_BAD : STYLE_PLAIN);
    report_total(report, "direct", "  direct     {:14} blocks", " {:10}\n", &totals->direct);
    writer_style(w, STYLE_PLAIN);
    report_total(report, "indirect", "  indirect   {:14} blocks", " {:10}\n", &totals->indirect);
    writer_style(w, totals->possible.blocks ? STYLE_WARNING : STYLE_PLAIN);
    report_total(report, "possible", "  possible   {:14} blocks", " {:10}\n", &totals->possible);
    writer_style(w, STYLE_PLAIN);
    writer_object_end(w);
}

void report_mark(const struct report *report)
{
    struct writer *w = report->writer;
    const struct graph_stats *stats = graph_stats(report->in->graph);
    writer_style(w, STYLE_QUIET);
    writer_text(w, "\n");
    writer_object_begin(w, "mark");
    writer_number(w, "words", "{} words looked at: ", stats->words);
    writer_number(w, "outside_heap", "{} point nowhere in a heap, ", stats->outside_heap);
    writer_number(w, "not_a_block", "{} to no live block, ", stats->not_a_block);
    writer_number(w, "repeated", "{} to one already seen, ", stats->repeated);
    writer_number(w, "followed", "{} followed; ", stats->followed);
    writer_number(w, "possible_near_start", NULL, stats->possible_near_start);
    writer_seconds(w, "seconds", "{} s\n", stats->read_seconds + stats->mark_seconds);
    writer_object_end(w);
    writer_style(w, STYLE_PLAIN);
}
