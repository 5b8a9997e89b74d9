/*
 * leak_styles: lost blocks in the words of other tools, so that what reads those goes on reading.
 *
 * LeakSanitizer: a banner, each group by itself, direct before indirect, and a summary that counts
 * both; nothing at all when nothing is lost. gperftools: one line of totals, then the largest
 * groups, where a block that hangs off a lost one is a leak like any other; one line when nothing
 * is lost. Neither knows "possible": it is left out, as LeakSanitizer takes such blocks as held.
 * In both a group is what one call stack allocated, whatever held it.
 *
 * Differences that cannot be helped: the first frame is malloc's caller, not malloc; a block's size
 * is what the allocator can use of it where the requested size is not kept, which a line says.
 */
#include "report/reports.h"

#include <inttypes.h>

enum { GPERFTOOLS_ROWS = 20, LINE_SIZE = 4200 };

/* A group by call stack; without one by size. */
struct entry {
    uint16_t heap;
    uint64_t stack_id, size;
    struct blocks_total total;
};

struct entries {
    struct entry *items;
    size_t count;
};

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

/* -- groups ----------------------------------------------------------------------------------- */

static int stack_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->heap != y->heap)
        return x->heap < y->heap ? -1 : 1;
    if (x->stack_id != y->stack_id)
        return x->stack_id < y->stack_id ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

static int bytes_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->total.bytes != y->total.bytes)
        return x->total.bytes < y->total.bytes ? 1 : -1;
    return stack_order(a, b);
}

static void entry_add(struct entries *entries, const struct leak_group *group)
{
    entries->items[entries->count++] = (struct entry){.heap = group->heap,
                                                      .stack_id = group->stack_id,
                                                      .size = group->stack_id ? 0 : group->size_min,
                                                      .total = group->own};
}

/* Join those of one stack; the largest first. */
static void entries_settle(struct entries *entries)
{
    struct entry *items = entries->items;
    size_t last = 0;
    if (!entries->count)
        return;
    qsort(items, entries->count, sizeof *items, stack_order);
    for (size_t i = 1; i < entries->count; i++) {
        if (stack_order(&items[i], &items[last]) != 0) {
            items[++last] = items[i];
            continue;
        }
        items[last].total.blocks += items[i].total.blocks;
        items[last].total.bytes += items[i].total.bytes;
    }
    entries->count = last + 1;
    qsort(items, entries->count, sizeof *items, bytes_order);
}

static enum hi_code entries_make(struct entries *entries, const struct leaks *leaks, bool direct,
                                 bool indirect, struct hi_err *err)
{
    size_t most = leaks->groups.count + leaks->hanging.count;
    *entries = (struct entries){.items = calloc(most + 1, sizeof *entries->items)};
    if (!entries->items)
        return hi_no_memory(err);
    for (size_t i = 0; direct && i < leaks->groups.count; i++)
        if (leaks->groups.items[i].kind == MARK_DIRECT)
            entry_add(entries, &leaks->groups.items[i]);
    for (size_t i = 0; indirect && i < leaks->hanging.count; i++)
        entry_add(entries, &leaks->hanging.items[i]);
    entries_settle(entries);
    return HI_OK;
}

/* -- LeakSanitizer ---------------------------------------------------------------------------- */

/* "    #0 0x55d04a0e120f in make_node /src/list.c:12", or "(/lib/libc.so.6+0x2724a)" at the end. */
static void lsan_frame(struct writer *w, unsigned number, hi_addr address,
                       const struct frame_name *name)
{
    char place[LINE_SIZE], line[LINE_SIZE * 2];
    if (name->file)
        snprintf(place, sizeof place, "%s:%" PRIu32, name->file, name->line);
    else if (name->module)
        snprintf(place, sizeof place, "(%s+0x%" PRIx64 ")", name->module, name->offset);
    else
        snprintf(place, sizeof place, "(<unknown module>)");
    snprintf(line, sizeof line, "    #%u 0x%012" PRIx64 " %s%s %s", number, address,
             name->function ? "in " : "", name->function ? name->function : "", place);
    writer_string(w, NULL, "{}\n", line);
}

static void lsan_stack(const struct report *report, const struct entry *entry)
{
    const struct call_stack *stack = call_stacks_find(report->stacks, entry->heap, entry->stack_id);
    unsigned number = 0;
    if (!stack)
        writer_text(report->writer, "    <empty stack>\n");
    for (uint32_t i = 0; stack && i < stack->count; i++) {
        const struct call_frame *frame = call_stack_frame(report->stacks, stack, i);
        size_t count;
        const struct frame_name *names = call_frame_names(report->stacks, frame, &count);
        for (size_t k = 0; k < count; k++)
            lsan_frame(report->writer, number++, frame->address - !frame->exact, &names[k]);
    }
    writer_text(report->writer, "\n");
}

static void lsan_entries(const struct report *report, const char *kind,
                         const struct entries *entries)
{
    struct writer *w = report->writer;
    uint64_t rows = report_rows(report, entries->count, 0);
    for (uint64_t i = 0; i < rows; i++) {
        writer_string(w, NULL, "{}", kind);
        writer_plain(w, NULL, " leak of {} byte(s)", entries->items[i].total.bytes);
        writer_plain(w, NULL, " in {} object(s) allocated from:\n", entries->items[i].total.blocks);
        lsan_stack(report, &entries->items[i]);
    }
}

static void lsan_whole(const struct report *report, const struct leaks *leaks,
                       const struct entries *direct, const struct entries *indirect)
{
    struct writer *w = report->writer;
    struct blocks_total lost = lost_of(leaks);
    writer_text(w, "\n=================================================================\n");
    writer_plain(w, NULL, "=={}==ERROR: LeakSanitizer: detected memory leaks\n",
                 (uint64_t)target_pid(report->in->target));
    if (sizes_are_usable(report))
        writer_text(w, "(sizes are usable bytes: what was requested is not known)\n");
    writer_text(w, "\n");
    lsan_entries(report, "Direct", direct);
    lsan_entries(report, "Indirect", indirect);
    writer_plain(w, NULL, "SUMMARY: LeakSanitizer: {} byte(s) leaked", lost.bytes);
    writer_plain(w, NULL, " in {} allocation(s).\n", lost.blocks);
}

enum hi_code report_leaks_lsan(const struct report *report, const struct leaks *leaks,
                               struct hi_err *err)
{
    struct entries direct, indirect = {0};
    say_gap(report);
    if (!lost_of(leaks).blocks)
        return HI_OK;
    enum hi_code code = entries_make(&direct, leaks, true, false, err);
    if (code == HI_OK)
        code = entries_make(&indirect, leaks, false, true, err);
    if (code == HI_OK)
        lsan_whole(report, leaks, &direct, &indirect);
    free(direct.items);
    free(indirect.items);
    return code;
}

/* -- gperftools ------------------------------------------------------------------------------- */

static void gperftools_clean(const struct report *report, const struct leaks *leaks)
{
    struct writer *w = report->writer;
    writer_text(w, "No leaks found for check \"_main_\" (but no 100% guarantee that there aren't "
                   "any): found ");
    writer_plain(w, NULL, "{} reachable heap objects", leaks->totals.reachable.blocks);
    writer_plain(w, NULL, " of {} bytes\n", leaks->totals.reachable.bytes);
}

/* Functions that are inlined at an address have one line, with -- between, as pprof has it. */
static void gperftools_frame(const struct report *report, const struct call_frame *frame)
{
    size_t count, used;
    const struct frame_name *names = call_frame_names(report->stacks, frame, &count);
    char line[LINE_SIZE];
    used = (size_t)snprintf(line, sizeof line, "\t@ %" PRIx64 " ", frame->address);
    for (size_t i = 0; i < count && names[i].function && used < sizeof line; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, "%s%s", i ? "--" : "",
                                 names[i].function);
    writer_text(report->writer, "\t");
    writer_string(report->writer, NULL, "{}\n", line + 1);
}

static void gperftools_entry(const struct report *report, const struct entry *entry)
{
    const struct call_stack *stack = call_stacks_find(report->stacks, entry->heap, entry->stack_id);
    writer_plain(report->writer, NULL, "Leak of {} bytes", entry->total.bytes);
    writer_plain(report->writer, NULL, " in {} objects allocated from:\n", entry->total.blocks);
    for (uint32_t i = 0; stack && i < stack->count; i++)
        gperftools_frame(report, call_stack_frame(report->stacks, stack, i));
}

/* The command that shows the leaks by stack, for the file that was written. */
static void gperftools_command(const struct report *report)
{
    struct writer *w = report->writer;
    const char *program = target_executable(report->in->target);
    if (!report->profile)
        return;
    writer_text(w, "\n\nIf the preceding stack traces are not enough to find the leaks, try "
                   "running THIS shell command:\n\n");
    writer_string(w, NULL, "pprof {}", program ? program : "PROGRAM");
    writer_string(w, NULL,
                  " \"{}\" --inuse_objects --lines --heapcheck  --edgefraction=1e-10 "
                  "--nodefraction=1e-10 --gv\n\n",
                  report->profile);
}

enum hi_code report_leaks_gperftools(const struct report *report, const struct leaks *leaks,
                                     struct hi_err *err)
{
    struct writer *w = report->writer;
    struct blocks_total lost = lost_of(leaks);
    struct entries entries;
    say_gap(report);
    if (!lost.blocks) {
        gperftools_clean(report, leaks);
        return HI_OK;
    }
    enum hi_code code = entries_make(&entries, leaks, true, true, err);
    if (code != HI_OK)
        return code;
    uint64_t rows = report_rows(report, entries.count, GPERFTOOLS_ROWS);
    writer_plain(w, NULL, "Leak check _main_ detected leaks of {} bytes", lost.bytes);
    writer_plain(w, NULL, " in {} objects\n", lost.blocks);
    if (sizes_are_usable(report))
        writer_text(w, "(sizes are usable bytes: what was requested is not known)\n");
    writer_plain(w, NULL, "The {} largest leaks:\n", rows);
    for (uint64_t i = 0; i < rows; i++)
        gperftools_entry(report, &entries.items[i]);
    gperftools_command(report);
    free(entries.items);
    return HI_OK;
}
