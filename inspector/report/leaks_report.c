/*
 * leaks: totals, then groups, largest first. The line of a group follows memcheck's habit, which
 * people know how to read: what the group holds in all, split into direct and indirect.
 */
#include "report/reports.h"

enum { LEAK_ROWS = 20 };

static void say_sizes(const struct report *report, const struct leak_group *group)
{
    struct writer *w = report->writer;
    bool same = group->size_min == group->size_max;
    writer_object_begin(w, "size");
    writer_number(w, "min", same ? "" : " of {}", group->size_min);
    writer_number(w, "max", same ? " of {} bytes" : " to {} bytes", group->size_max);
    writer_object_end(w);
}

static void say_examples(const struct report *report, const struct leak_group *group)
{
    writer_list_begin(report->writer, "examples");
    writer_text(report->writer, "        at");
    for (size_t i = 0; i < group->example_count; i++)
        writer_address(report->writer, NULL, " {}", group->examples[i]);
    if (group->own.blocks > group->example_count)
        writer_text(report->writer, " …");
    writer_text(report->writer, "\n");
    writer_list_end(report->writer);
}

static void say_held(const struct report *report, const struct leak_group *held)
{
    struct writer *w = report->writer;
    writer_object_begin(w, NULL);
    writer_bytes(w, "bytes", "      holds {}", held->own.bytes);
    writer_number(w, "blocks", held->own.blocks == 1 ? " in {} block" : " in {} blocks",
                  held->own.blocks);
    writer_address(w, "example", ", one at {}\n", held->examples[0]);
    report_stack_id(report, held->stack_id);
    report_stack(report, "stack", held->heap, held->stack_id, NULL);
    writer_object_end(w);
}

/* What hangs off a group, by who allocated it. In text with -v, and the largest only. */
static void say_hanging(const struct report *report, const struct leak_group *group,
                        const struct leaks *leaks)
{
    enum { TEXT_MOST = 16 };
    bool json = writer_is_json(report->writer);
    size_t first = leaks_hanging_of(leaks, group), count = 0;
    writer_list_begin(report->writer, "holds");
    for (size_t i = first; i < leaks->hanging.count; i++, count++) {
        if (leaks->hanging.items[i].holder != group->number)
            break;
        if (json || (report->verbose && count < TEXT_MOST))
            say_held(report, &leaks->hanging.items[i]);
    }
    writer_list_end(report->writer);
    if (!json && report->verbose && count > TEXT_MOST)
        writer_number(report->writer, NULL, "      … of {} call stacks in all\n", count);
}

static void say_group(const struct report *report, const struct leak_group *group,
                      const struct leaks *leaks)
{
    struct writer *w = report->writer;
    bool direct = group->kind == MARK_DIRECT, one = group->own.blocks == 1;
    const char *blocks = one ? " in {} block" : " in {} blocks";
    writer_object_begin(w, NULL);
    writer_style(w, direct ? STYLE_BAD : STYLE_WARNING);
    writer_bytes(w, "bytes", "  {:10}", group->own.bytes);
    writer_string(w, "kind", " {:-8}", direct ? "direct" : "possible");
    writer_style(w, STYLE_PLAIN);
    writer_number(w, "blocks", blocks, group->own.blocks);
    say_sizes(report, group);
    writer_object_begin(w, "indirect");
    writer_number(w, "blocks",
                  group->indirect.blocks == 0   ? ""
                  : group->indirect.blocks == 1 ? ", holding {} block"
                                                : ", holding {} blocks",
                  group->indirect.blocks);
    writer_bytes(w, "bytes", group->indirect.blocks ? " ({}) more" : "", group->indirect.bytes);
    writer_object_end(w);
    writer_text(w, "\n");
    report_stack_id(report, group->stack_id);
    report_stack(report, "stack", group->heap, group->stack_id, NULL);
    writer_null(w, "type", NULL);
    writer_string(w, "allocator", NULL, report->in->heaps->heaps[group->heap].reader->name);
    say_examples(report, group);
    say_hanging(report, group, leaks);
    writer_object_end(w);
}

void report_leak_groups(const struct report *report, const struct leaks *leaks, uint64_t most)
{
    uint64_t rows = report_rows(report, leaks->groups.count, most);
    writer_list_begin(report->writer, "leaks");
    for (uint64_t i = 0; i < rows; i++)
        say_group(report, &leaks->groups.items[i], leaks);
    writer_list_end(report->writer);
    report_more(report, leaks->groups.count - rows);
}

static void say_sums(struct writer *w, const struct leak_totals *totals)
{
    writer_number(w, NULL, totals->direct.blocks == 1 ? "{} leak" : "{} leaks",
                  totals->direct.blocks);
    writer_bytes(w, NULL, totals->direct.blocks == 1 ? " loses {}" : " lose {}",
                 totals->direct.bytes + totals->indirect.bytes);
    if (totals->indirect.blocks)
        writer_number(w, NULL, ", {} indirect ones included", totals->indirect.blocks);
}

static void say_verdict(const struct report *report, const struct leaks *leaks)
{
    struct writer *w = report->writer;
    const struct leak_totals *totals = &leaks->totals;
    if (writer_is_json(w))
        return;
    writer_text(w, "\n");
    writer_style(w, STYLE_TITLE);
    if (!leaks->groups.count && !inspection_complete(report->in))
        writer_text(w, "No leaks in what could be read; that is not all (see the first line).");
    else if (!leaks->groups.count)
        writer_text(w, "No leaks: each live block is held by a root or by a block that is.");
    else if (totals->direct.blocks)
        say_sums(w, totals);
    else
        writer_text(w, "No direct leak");
    if (totals->possible.blocks)
        writer_number(w, NULL, "; {} possible: held by pointers into their middle only",
                      totals->possible.blocks);
    writer_style(w, STYLE_PLAIN);
    writer_text(w, "\n");
}

/* Programs that point behind a header of their own (string libraries) make most of these. */
static void say_near(const struct report *report)
{
    uint64_t near = graph_stats(report->in->graph)->possible_near_start;
    if (!near || writer_is_json(report->writer))
        return;
    writer_number(report->writer, NULL,
                  near == 1
                      ? "{} of the possible is held by a pointer a few bytes behind its start"
                      : "{} of the possible are held by pointers a few bytes behind their start",
                  near);
    writer_text(report->writer, ", as strings\nare that have a header in front: "
                                "--interior=reachable counts such blocks as held.\n");
}

/* Stacks of samples only: said where a leak is shown without one. */
static void say_sampled(const struct report *report, const struct leaks *leaks)
{
    const struct heaps *heaps = report->in->heaps;
    bool missed = false;
    for (size_t i = 0; i < leaks->groups.count; i++) {
        const struct leak_group *group = &leaks->groups.items[i];
        const struct heap *heap = &heaps->heaps[group->heap];
        missed |= !group->stack_id && heap->stacks == HEAP_STACKS_SAMPLED &&
                  heap->found_by == FOUND_NATIVE;
    }
    if (missed)
        writer_text(report->writer,
                    "Call stacks are known for sampled blocks only; a program that is started "
                    "with\nHIMALLOC=stacks:full (or by heapinspect run) remembers all.\n");
}

void report_leaks(const struct report *report, const struct leaks *leaks,
                  const struct suppressions *suppressions)
{
    static const struct leaks none;
    report_begin(report, "heapinspect.leaks.v1");
    report_heaps(report);
    report_totals(report, leaks ? &leaks->totals : NULL);
    if (leaks)
        say_verdict(report, leaks);
    if (leaks)
        say_near(report);
    report_leak_groups(report, leaks ? leaks : &none, LEAK_ROWS);
    if (leaks)
        say_sampled(report, leaks);
    if (suppressions)
        report_suppressions(report, suppressions);
    if (leaks)
        report_mark(report);
    else
        writer_null(report->writer, "mark", "\nWhat is lost is not known: marking did not end.\n");
    report_end(report);
}
