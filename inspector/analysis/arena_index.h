/* arena_index: from a region to its arena. Regions carry the arena's position among those of its
 * heap; the table of arenas is one for all heaps. */
#ifndef ANALYSIS_ARENA_INDEX_H
#define ANALYSIS_ARENA_INDEX_H

#include "heap/heap.h"

struct arena_index {
    const struct heaps *heaps;
    uint32_t *positions;         /* of arenas, heap by heap */
    size_t first[HEAPS_MAX + 1]; /* where a heap's positions begin */
};

HI_MUST_USE enum hi_code arena_index_make(struct arena_index *index, const struct heaps *heaps,
                                          struct hi_err *err);
void arena_index_free(struct arena_index *index);
/* NULL: the region names no arena that there is (or it is a NODE). */
const struct arena *arena_index_find(const struct arena_index *index, const struct region *region);

#endif
