/*
 * leaks: lost blocks as a person wants them: grouped, largest first.
 *
 * A group is direct (or possible) leaks of one kind that share a call stack, or, without stacks, a
 * heap and a size; with what hangs off them counted as indirect. What hangs off is grouped in the
 * same way, each group's for itself. Plain structs; nothing is printed.
 */
#ifndef ANALYSIS_LEAKS_H
#define ANALYSIS_LEAKS_H

#include "analysis/inspection.h"

enum { LEAK_EXAMPLES = 5 };

struct leak_group {
    enum mark kind;  /* MARK_DIRECT or MARK_POSSIBLE; of hanging ones MARK_INDIRECT */
    uint32_t number; /* not 0 */
    uint32_t holder; /* hanging: the number of the group that holds them; else 0 */
    uint16_t heap;
    uint64_t stack_id; /* 0: none known */
    struct blocks_total own, indirect;
    uint64_t size_min, size_max;
    hi_addr examples[LEAK_EXAMPLES]; /* lowest addresses */
    size_t example_count;
};

struct leak_totals {
    struct blocks_total live, reachable, direct, indirect, possible;
};

struct leaks {
    VECTOR(struct leak_group)
    groups; /* direct before possible; by own + indirect bytes, falling;
               then by address */
    VECTOR(struct leak_group)
    hanging; /* what is indirect, by stack or size; by holder, then by
                bytes, falling */
    struct leak_totals totals;
};

/* in->graph must be marked. */
HI_MUST_USE enum hi_code leaks_find(struct leaks *leaks, const struct inspection *in,
                                    struct hi_err *err);
void leaks_free(struct leaks *leaks);
/* Where in leaks->hanging those of group begin. */
size_t leaks_hanging_of(const struct leaks *leaks, const struct leak_group *group);

#endif
