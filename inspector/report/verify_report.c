/* verify: each rule of a heap's format that does not hold, with the address and what was seen. */
#include "report/reports.h"

enum { FINDING_ROWS = 100 };

static void say_finding(const struct report *report, const struct finding *finding)
{
    struct writer *w = report->writer;
    const struct heaps *heaps = report->in->heaps;
    writer_object_begin(w, NULL);
    writer_style(w, STYLE_BAD);
    writer_address(w, "address", "  {:-16}", finding->address);
    writer_style(w, STYLE_PLAIN);
    writer_string(w, "allocator", " {}:",
                  finding->heap < heaps->count ? heaps->heaps[finding->heap].reader->name : NULL);
    writer_string(w, "rule", " {}", finding->rule);
    writer_string(w, "detail", ": {}\n", finding->detail);
    writer_object_end(w);
}

static uint64_t count_disagreements(const struct heaps *heaps)
{
    uint64_t count = 0;
    for (size_t h = 0; h < heaps->count; h++)
        for (size_t i = 0; i < heaps->heaps[h].check_count; i++)
            count += !heaps->heaps[h].checks[i].agree;
    return count;
}

uint64_t report_verify(const struct report *report)
{
    struct writer *w = report->writer;
    const struct heaps *heaps = report->in->heaps;
    uint64_t found = heaps->findings.count + heaps->findings_dropped;
    uint64_t broken = found + count_disagreements(heaps);
    uint64_t rows = report_rows(report, heaps->findings.count, FINDING_ROWS);
    report_begin(report, "heapinspect.verify.v1");
    report_heaps(report);
    writer_text(w, "\n");
    writer_number(w, "broken",
                  broken == 0   ? "No damage: every rule of the format holds.\n"
                  : broken == 1 ? "{} rule is broken:\n"
                                : "{} rules are broken:\n",
                  broken);
    writer_list_begin(w, "findings");
    for (uint64_t i = 0; i < rows; i++)
        say_finding(report, &heaps->findings.items[i]);
    writer_list_end(w);
    writer_number(w, "findings_dropped",
                  heaps->findings_dropped ? "  and {} that were not kept\n" : "",
                  heaps->findings_dropped);
    report_more(report, heaps->findings.count - rows);
    report_end(report);
    return broken;
}
