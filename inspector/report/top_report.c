/* top: groups of live blocks, largest first. */
#include "report/reports.h"

enum { TOP_ROWS = 25 };

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
