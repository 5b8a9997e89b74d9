/*
 * intervals: ranges that nest (functions and what was inlined into them, units, line sequences),
 * flattened into a table that is searched in one step. Where several cover an address the innermost
 * wins: the one that starts last, then the deepest, then the shortest, then the last added. Ranges
 * that overlap without nesting, as only damaged files have them, follow the same rule.
 */
#ifndef SYMBOLS_INTERVALS_H
#define SYMBOLS_INTERVALS_H

#include "base/vector.h"

#include <stdbool.h>
#include <stdint.h>

enum { INTERVAL_NONE = UINT32_MAX };

struct interval {
    uint64_t start, end; /* half open, not empty */
    uint32_t value, depth;
};

/* starts[i] .. starts[i + 1] has values[i] (INTERVAL_NONE: nothing). */
struct interval_table {
    uint64_t *starts;
    uint32_t *values;
    size_t count;
};

typedef VECTOR(struct interval) interval_vector;

/* Sorts intervals. false: memory ran out; the table is empty then. */
bool intervals_flatten(interval_vector *intervals, struct interval_table *table);
uint32_t intervals_find(const struct interval_table *table, uint64_t address);
void intervals_free(struct interval_table *table);

#endif
