/* The table of suppressions below a leak report: what each of them has kept from being told. */
#include "report/reports.h"

static void say_why_none(struct writer *w, const struct suppressions *suppressions)
{
    uint64_t blocks = 0;
    for (size_t i = 0; i < suppressions->items.count; i++)
        blocks += suppressions->items.items[i].total.blocks;
    if (!blocks && suppressions->items.count)
        writer_text(w, "(none applied: a pattern is held against the call stack of a leak, and "
                       "matches none\nwhere no stack was kept)\n");
}

void report_suppressions(const struct report *report, const struct suppressions *suppressions)
{
    static const char rule[] = "-----------------------------------------------------\n";
    struct writer *w = report->writer;
    if (!suppressions->items.count && !writer_is_json(w))
        return;
    writer_text(w, rule);
    writer_text(w, "Suppressions used:\n  count      bytes template\n");
    writer_list_begin(w, "suppressions");
    for (size_t i = 0; i < suppressions->items.count; i++) {
        const struct suppression *s = &suppressions->items.items[i];
        writer_object_begin(w, NULL);
        writer_plain(w, "blocks", "{:7}", s->total.blocks);
        writer_plain(w, "bytes", " {:10}", s->total.bytes);
        writer_string(w, "pattern", " {}\n", s->pattern);
        writer_object_end(w);
    }
    writer_list_end(w);
    say_why_none(w, suppressions);
    writer_text(w, rule);
}
