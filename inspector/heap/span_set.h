/*
 * span_set: disjoint ranges that come in any order; says at once whether a new one overlaps.
 *
 * One array of sorted runs, their lengths the set bits of the count (as in a binary counter):
 * adding merges the equal ones at the end, which is no work at all when ranges come in rising
 * order. Adding costs O(log n) amortised, asking O(log^2 n), and O(1) above everything so far.
 */
#ifndef HEAP_SPAN_SET_H
#define HEAP_SPAN_SET_H

#include "base/error.h"
#include "base/vector.h"

struct span {
    hi_addr start, end;
    uint32_t owner;
};

struct span_set {
    VECTOR(struct span) spans;
    struct span *scratch;
    size_t scratch_capacity;
    hi_addr highest_end;
};

void span_set_free(struct span_set *set);
/* The lowest stored span that overlaps [start, end), or NULL. */
const struct span *span_set_overlap(const struct span_set *set, hi_addr start, hi_addr end);
bool span_set_add(struct span_set *set, struct span span); /* false: out of memory */
/* End the span that starts at start earlier: end <= its end. */
void span_set_trim(struct span_set *set, hi_addr start, hi_addr end);
bool span_set_sort(struct span_set *set); /* one run; then only read */

#endif
