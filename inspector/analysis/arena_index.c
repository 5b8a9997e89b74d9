/* A counting sort of arenas by heap; see arena_index.h. */
#include "analysis/arena_index.h"

enum hi_code arena_index_make(struct arena_index *index, const struct heaps *heaps,
                              struct hi_err *err)
{
    size_t count = heaps->arenas.count, next[HEAPS_MAX];
    memset(index, 0, sizeof *index);
    index->heaps = heaps;
    index->positions = calloc(count + 1, sizeof *index->positions);
    if (!index->positions)
        return hi_no_memory(err);
    for (size_t i = 0; i < count; i++)
        if (heaps->arenas.items[i].heap < HEAPS_MAX)
            index->first[heaps->arenas.items[i].heap + 1]++;
    for (size_t h = 0; h < HEAPS_MAX; h++) {
        index->first[h + 1] += index->first[h];
        next[h] = index->first[h];
    }
    for (size_t i = 0; i < count; i++)
        if (heaps->arenas.items[i].heap < HEAPS_MAX)
            index->positions[next[heaps->arenas.items[i].heap]++] = (uint32_t)i;
    return HI_OK;
}

void arena_index_free(struct arena_index *index)
{
    free(index->positions);
    index->positions = NULL;
}

const struct arena *arena_index_find(const struct arena_index *index, const struct region *region)
{
    if (region->heap >= HEAPS_MAX)
        return NULL;
    size_t first = index->first[region->heap], count = index->first[region->heap + 1] - first;
    if (region->arena >= count)
        return NULL;
    return &index->heaps->arenas.items[index->positions[first + region->arena]];
}
