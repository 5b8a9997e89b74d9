/*
 * reports: one function an answer. Each takes what was found and says it through the writer, once,
 * for text and JSON alike. Nothing is searched for here: that is done in analysis/.
 *
 * Every report opens the outermost object with report_begin() (schema, target, completeness, notes)
 * and ends it with report_end().
 */
#ifndef REPORT_REPORTS_H
#define REPORT_REPORTS_H

#include "analysis/allocations.h"
#include "analysis/call_stacks.h"
#include "analysis/census.h"
#include "analysis/chunk_map.h"
#include "analysis/fragmentation.h"
#include "analysis/leaks.h"
#include "analysis/place.h"
#include "analysis/root_path.h"
#include "analysis/suppressions.h"
#include "report/writer.h"

struct report {
    struct writer *writer;
    const struct inspection *in;
    const struct call_stacks *stacks; /* with the names of those that are shown; NULL: none */
    const char *profile;              /* leaks: a heap profile was written there; or NULL */
    unsigned frames;                  /* of a stack in text; 0: what fits most; all with verbose */
    bool verbose;
    bool has_limit;
    uint64_t limit; /* with has_limit; 0: all */
    unsigned columns, rows;
};

enum { TOP_ROWS = 25 }; /* groups of `top` in text, when --limit says nothing */

/* Rows to show of count: --limit, else otherwise in text, all in JSON. */
uint64_t report_rows(const struct report *report, uint64_t count, uint64_t otherwise);
/* "... N more (--limit=0 shows all)" */
void report_more(const struct report *report, uint64_t left_out);

/* schema: "heapinspect.leaks.v1" */
void report_begin(const struct report *report, const char *schema);
void report_end(const struct report *report);
void report_heaps(const struct report *report);
void report_totals(const struct report *report, const struct leak_totals *totals);
void report_mark(const struct report *report);
/* {"blocks": n, "bytes": n}; text by the two patterns. */
void report_total(const struct report *report, const char *key, const char *blocks_pattern,
                  const char *bytes_pattern, const struct blocks_total *total);
/* A list of frames. Without a title it is empty when the stack is not known, with one (text above
 * the frames) it is null then. true: there was a stack. */
bool report_stack(const struct report *report, const char *key, uint16_t heap, uint64_t id,
                  const char *title);
/* "stack_id": for programs, as `chunks` has it. */
void report_stack_id(const struct report *report, uint64_t id);
/* The list "leaks"; in text with a headline. most: rows in text when --limit says nothing. */
void report_leak_groups(const struct report *report, const struct leaks *leaks, uint64_t most);

/* Leaks that a summary shows, of count. */
uint64_t report_summary_rows(const struct report *report, uint64_t count);
void report_summary(const struct report *report, const struct leaks *leaks,
                    const struct fragmentation *fragmentation);
/* leaks: NULL when marking was interrupted: then nothing is known about them. */
/* suppressions: NULL when none were asked for. */
void report_leaks(const struct report *report, const struct leaks *leaks,
                  const struct suppressions *suppressions);
/* In other tools' words, text only. */
HI_MUST_USE enum hi_code report_leaks_lsan(const struct report *report, const struct leaks *leaks,
                                           struct hi_err *err);
HI_MUST_USE enum hi_code report_leaks_gperftools(const struct report *report,
                                                 const struct leaks *leaks, struct hi_err *err);
void report_suppressions(const struct report *report, const struct suppressions *suppressions);
void report_arenas(const struct report *report);
void report_map(const struct report *report, const struct chunk_map *map);
HI_MUST_USE enum hi_code report_chunks(const struct report *report,
                                       const struct chunk_filter *filter, struct hi_err *err);
struct answer {
    struct place place;
    struct referrers referrers;
};
void report_whatis(const struct report *report, const struct place_finder *finder,
                   const struct answer *answers, size_t count);
void report_refs(const struct report *report, const struct place_finder *finder,
                 const struct place *place, const struct referrers *referrers, bool to);
void report_path(const struct report *report, const struct place_finder *finder,
                 const struct place *place, const struct root_path *path);
void report_top(const struct report *report, const struct census *census, enum census_by by);
/* by call stack: all must have gone through allocations_by_stack(). */
void report_top_stacks(const struct report *report, const struct allocations *all);
/* Returns how many rules are broken. */
uint64_t report_verify(const struct report *report);

#endif
