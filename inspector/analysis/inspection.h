/*
 * inspection: what was opened and read, in one hand. main.c fills it in the order of the layers;
 * analyses and reports only look. Parts that a command does not need stay NULL.
 */
#ifndef ANALYSIS_INSPECTION_H
#define ANALYSIS_INSPECTION_H

#include "graph/graph.h"

struct inspection {
    struct target *target;
    struct symbols *symbols;
    struct roots roots;
    struct heaps *heaps;
    struct graph *graph;
    bool is_marked;
    bool interrupted; /* the user stopped it: what stands is what was read until then */
};

/* Was everything read that the answer rests on? */
bool inspection_complete(const struct inspection *in);
/* Bytes that the answer rests on and that are not there: of the target, of live blocks and roots.
 */
uint64_t inspection_missing_bytes(const struct inspection *in);
size_t inspection_missing_ranges(const struct inspection *in);
/* Why it is not complete, one sentence; "" when it is. */
void inspection_gap(const struct inspection *in, char *buffer, size_t size);

/* What readers want to know of the target, for heaps_detail(). */
struct heap_context inspection_context(const struct inspection *in);
/* What the allocator knows of a block beyond its place: zeros where it knows nothing. A requested
 * size that the block could not hold is none. */
struct heap_detail inspection_detail(const struct inspection *in, hi_block block);
/* A live block's size for people: requested bytes where the allocator knows them, else usable. */
uint64_t inspection_size(const struct inspection *in, hi_block block);

#endif
