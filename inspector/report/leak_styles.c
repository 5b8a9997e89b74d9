/*
 * leak_styles: lost blocks in the words of other tools, so that what reads those goes on reading.
 *
 * LeakSanitizer: a banner, each group by itself, direct before indirect, and a summary that counts
 * both; nothing at all when nothing is lost. gperftools: one line of totals, then the largest
 * groups, where a block that hangs off a lost one is a leak like any other; one line when nothing
 * is lost. Neither knows "possible": it is left out, as LeakSanitizer takes such blocks as held.
 *
 * Differences that cannot be helped: a block's size is what the allocator can use of it where the
 * requested size is not kept, which a line says; and there are frames only where stacks are kept.
 */
#include "report/reports.h"

enum { GPERFTOOLS_ROWS = 20 };

/* What hangs off direct leaks is counted with the group that holds it. */
static struct blocks_total lost_of(const struct leaks *leaks)
{
    return (struct blocks_total){leaks->totals.direct.blocks + leaks->totals.indirect.blocks,
                                 leaks->totals.direct.bytes + leaks->totals.indirect.bytes};
}

static bool sizes_are_usable(const struct report *report)
{
    const struct heaps *heaps = report->in->heaps;
    bool usable = false;
    for (size_t i = 0; i < heaps->count; i++)
        usable |= heaps->heaps[i].active && !heaps->heaps[i].bytes_are_requested;
    return usable;
}

static void say_gap(const struct report *report)
{
    char gap[400];
    if (inspection_complete(report->in))
        return;
    inspection_gap(report->in, gap, sizeof gap);
    writer_string(report->writer, NULL, "INCOMPLETE: {}\n", gap);
}

/* -- LeakSanitizer ---------------------------------------------------------------------------- */

static void lsan_group(struct writer *w, const char *kind, const struct blocks_total *total)
{
    writer_string(w, NULL, "{}", kind);
    writer_plain(w, NULL, " leak of {} byte(s)", total->bytes);
    writer_plain(w, NULL, " in {} object(s) allocated from:\n", total->blocks);
    writer_text(w, "    <empty stack>\n\n");
}

static void lsan_groups(const struct report *report, const struct leaks *leaks, bool direct)
{
    uint64_t rows = report_rows(report, leaks->groups.count, 0);
    for (uint64_t i = 0; i < rows; i++) {
        const struct leak_group *group = &leaks->groups.items[i];
        if (group->kind == MARK_DIRECT && direct)
            lsan_group(report->writer, "Direct", &group->own);
        else if (group->kind == MARK_DIRECT && group->indirect.blocks)
            lsan_group(report->writer, "Indirect", &group->indirect);
    }
}

void report_leaks_lsan(const struct report *report, const struct leaks *leaks)
{
    struct writer *w = report->writer;
    struct blocks_total lost = lost_of(leaks);
    say_gap(report);
    if (!lost.blocks)
        return;
    writer_text(w, "\n=================================================================\n");
    writer_plain(w, NULL, "=={}==ERROR: LeakSanitizer: detected memory leaks\n",
                 (uint64_t)target_pid(report->in->target));
    if (sizes_are_usable(report))
        writer_text(w, "(sizes are usable bytes: what was requested is not known)\n");
    writer_text(w, "\n");
    lsan_groups(report, leaks, true);
    lsan_groups(report, leaks, false);
    writer_plain(w, NULL, "SUMMARY: LeakSanitizer: {} byte(s) leaked", lost.bytes);
    writer_plain(w, NULL, " in {} allocation(s).\n", lost.blocks);
}

/* -- gperftools ------------------------------------------------------------------------------- */

struct gperftools_leak {
    const struct blocks_total *total;
};

static int compare_leaks(const void *a, const void *b)
{
    const struct gperftools_leak *x = a, *y = b;
    return x->total->bytes < y->total->bytes ? 1 : x->total->bytes > y->total->bytes ? -1 : 0;
}

static size_t gperftools_collect(struct gperftools_leak *list, const struct leaks *leaks)
{
    size_t count = 0;
    for (size_t i = 0; i < leaks->groups.count; i++) {
        const struct leak_group *group = &leaks->groups.items[i];
        if (group->kind == MARK_DIRECT)
            list[count++].total = &group->own;
        if (group->kind == MARK_DIRECT && group->indirect.blocks)
            list[count++].total = &group->indirect;
    }
    qsort(list, count, sizeof *list, compare_leaks);
    return count;
}

static void gperftools_clean(const struct report *report, const struct leaks *leaks)
{
    struct writer *w = report->writer;
    writer_text(w, "No leaks found for check \"_main_\" (but no 100% guarantee that there aren't "
                   "any): found ");
    writer_plain(w, NULL, "{} reachable heap objects", leaks->totals.reachable.blocks);
    writer_plain(w, NULL, " of {} bytes\n", leaks->totals.reachable.bytes);
}

enum hi_code report_leaks_gperftools(const struct report *report, const struct leaks *leaks,
                                     struct hi_err *err)
{
    struct writer *w = report->writer;
    struct blocks_total lost = lost_of(leaks);
    say_gap(report);
    if (!lost.blocks) {
        gperftools_clean(report, leaks);
        return HI_OK;
    }
    struct gperftools_leak *list = calloc(2 * leaks->groups.count + 1, sizeof *list);
    if (!list)
        return hi_no_memory(err);
    size_t count = gperftools_collect(list, leaks);
    uint64_t rows = report_rows(report, count, GPERFTOOLS_ROWS);
    writer_plain(w, NULL, "Leak check _main_ detected leaks of {} bytes", lost.bytes);
    writer_plain(w, NULL, " in {} objects\n", lost.blocks);
    if (sizes_are_usable(report))
        writer_text(w, "(sizes are usable bytes: what was requested is not known)\n");
    writer_plain(w, NULL, "The {} largest leaks:\n", rows);
    for (uint64_t i = 0; i < rows; i++) {
        writer_plain(w, NULL, "Leak of {} bytes", list[i].total->bytes);
        writer_plain(w, NULL, " in {} objects allocated from:\n", list[i].total->blocks);
    }
    free(list);
    return HI_OK;
}
