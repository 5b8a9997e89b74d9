/* top: groups of live blocks, largest first. */
#include "report/reports.h"

static void say_key(const struct report *report, const struct census_group *group,
                    enum census_by by)
{
    struct writer *w = report->writer;
    if (by == CENSUS_SIZE)
        writer_exact_bytes(w, "size", "  size {}\n", group->key);
    else if (by == CENSUS_THREAD && !group->key)
        writer_null(w, "thread", "  thread unknown\n");
    else if (by == CENSUS_THREAD)
        writer_plain(w, "thread", "  thread {}\n", group->key);
    else if (group->arena)
        writer_plain(w, "arena", "  arena {}\n", group->arena->id);
    else
        writer_null(w, "arena", "  no arena\n");
}

void report_top(const struct report *report, const struct census *census, enum census_by by)
{
    static const char *const names[] = {"size", "arena", "thread"};
    struct writer *w = report->writer;
    uint64_t rows = report_rows(report, census->groups.count, TOP_ROWS);
    report_begin(report, "heapinspect.top.v1");
    report_heaps(report);
    writer_string(w, "by", "\nlive blocks by {}\n", names[by]);
    if (census->no_threads)
        writer_text(w, "(this allocator does not remember which thread allocated a block)\n");
    writer_list_begin(w, "groups");
    for (uint64_t i = 0; i < rows; i++) {
        const struct census_group *group = &census->groups.items[i];
        writer_object_begin(w, NULL);
        writer_bytes(w, "bytes", "  {:10}", group->total.bytes);
        writer_number(w, "blocks", " in {:11} blocks", group->total.blocks);
        say_key(report, group, by);
        writer_object_end(w);
    }
    writer_list_end(w);
    report_more(report, census->groups.count - rows);
    report_end(report);
}

/* -- by call stack ---------------------------------------------------------------------------- */

static uint64_t rounded(double value)
{
    return value < 0x1p63 ? (uint64_t)(value + 0.5) : UINT64_MAX;
}

static void say_basis(const struct report *report, const struct allocations *all)
{
    struct writer *w = report->writer;
    bool scaled = all->sampled.blocks > 0;
    writer_object_begin(w, "basis");
    writer_bool(w, "estimated", NULL, NULL, scaled); /* a sentence in text */
    writer_number(w, "sampled_blocks", scaled ? "  estimated from {} sampled blocks" : "",
                  all->sampled.blocks);
    writer_bytes(w, "sampled_bytes", scaled ? " ({})" : "", all->sampled.bytes);
    writer_bytes(w, "sample_bytes",
                 scaled ? ", one in {} on average; each stands for others\n" : "",
                 scaled ? all->sample_bytes : 0);
    writer_number(w, "exact_blocks", NULL, all->exact.blocks);
    writer_number(w, "unknown_blocks",
                  scaled || !all->unknown.blocks || !all->exact.blocks ? ""
                  : all->unknown.blocks == 1
                      ? "  of {} block it is not known who allocated it\n"
                      : "  of {} blocks it is not known who allocated them\n",
                  all->unknown.blocks);
    writer_object_end(w);
    if (!all->exact.blocks && !scaled)
        writer_text(w, "  no call stacks are kept in this heap: a program that is started with\n"
                       "  LD_PRELOAD=libhimalloc.so and HIMALLOC=stacks:full remembers all\n");
}

static void say_allocation(const struct report *report, const struct allocation *item)
{
    struct writer *w = report->writer;
    writer_object_begin(w, NULL);
    writer_bytes(w, "bytes", "  {:10}", rounded(item->bytes));
    writer_number(w, "blocks", " in {:11} blocks", rounded(item->blocks));
    writer_number(w, "counted_blocks", item->is_sampled ? ", from {} seen" : "",
                  item->counted.blocks);
    writer_bytes(w, "counted_bytes", item->is_sampled ? " ({})" : "", item->counted.bytes);
    writer_text(w, item->stack_id ? "\n" : ", call stack not known\n");
    report_stack_id(report, item->stack_id);
    report_stack(report, "stack", item->heap, item->stack_id, NULL);
    writer_object_end(w);
}

void report_top_stacks(const struct report *report, const struct allocations *all)
{
    struct writer *w = report->writer;
    uint64_t rows = report_rows(report, all->items.count, TOP_ROWS);
    report_begin(report, "heapinspect.top.v1");
    report_heaps(report);
    writer_string(w, "by", "\nlive blocks by {}\n", "stack");
    say_basis(report, all);
    writer_list_begin(w, "groups");
    for (uint64_t i = 0; i < rows; i++)
        say_allocation(report, &all->items.items[i]);
    writer_list_end(w);
    report_more(report, all->items.count - rows);
    report_end(report);
}
