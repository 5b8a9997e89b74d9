/* Counts live bits region by region; see fragmentation.h. */
#include "analysis/fragmentation.h"

static uint64_t count_live(const uint64_t *plane, uint64_t from, uint64_t to)
{
    uint64_t live = 0;
    while (from < to) {
        uint64_t shift = from & 63, bits = to - from < 64 - shift ? to - from : 64 - shift;
        uint64_t mask = bits == 64 ? ~UINT64_C(0) : (UINT64_C(1) << bits) - 1;
        live += (uint64_t)__builtin_popcountll(plane[from >> 6] >> shift & mask);
        from += bits;
    }
    return live;
}

static void add_chunks(struct fragmentation *f, const struct blocks *blocks,
                       const struct region *region)
{
    struct block_cursor cursor;
    uint64_t live = 0, other = 0;
    for (bool more = blocks_first(blocks, region, &cursor); more;
         more = blocks_next(blocks, &cursor)) {
        if (blocks_is_live(blocks, cursor.block))
            live += cursor.usable;
        else
            other += cursor.usable;
    }
    f->slab_bytes += live + other;
    if (live && other) {
        f->partial_slabs++;
        f->partial_free_bytes += other;
    }
}

static void add_slab(struct fragmentation *f, const struct blocks *blocks,
                     const struct region *region)
{
    uint64_t end = (uint64_t)region->base + region->count;
    uint64_t live = count_live(blocks_live_plane(blocks), region->base, end);
    f->slab_bytes += (uint64_t)region->count * region->stride;
    if (live && live < region->count) {
        f->partial_slabs++;
        f->partial_free_bytes += (region->count - live) * region->stride;
    }
}

void fragmentation_measure(struct fragmentation *f, const struct heaps *heaps)
{
    *f = (struct fragmentation){0};
    for (size_t i = 0; i < blocks_region_count(heaps->blocks); i++) {
        const struct region *region = blocks_region(heaps->blocks, i);
        if (region->heap == BLOCKS_NO_HEAP || region->count < 2)
            continue;
        f->slabs++;
        if (region->shape == REGION_SLAB)
            add_slab(f, heaps->blocks, region);
        else if (region->shape == REGION_CHUNKS)
            add_chunks(f, heaps->blocks, region);
    }
}
