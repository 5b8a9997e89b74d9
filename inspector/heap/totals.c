/*
 * Totals: every block counted once, per arena, after the overlay.
 *
 * An arena's index in a region is its place among the arenas of its heap; arenas of one heap stand
 * together in heaps->arenas, so a table of first indexes leads from one to the other. In flight
 * counts as live (it is reachable and never a leak); suspect counts as nothing.
 */
#include "heap/sink.h"

static void count_block(struct heap_totals *totals, enum block_state state, uint64_t usable)
{
    struct blocks_total *total;
    switch (state) {
    case BLOCK_LIVE:
    case BLOCK_IN_FLIGHT:
        total = &totals->live;
        break;
    case BLOCK_CACHED:
        total = &totals->cached;
        break;
    case BLOCK_FREE:
        total = &totals->free;
        break;
    default:
        return;
    }
    total->blocks++;
    total->bytes += usable;
}

/* Blocks of one size: live ones a word at a time, the others one by one. */
static void count_slots(const struct blocks *blocks, const struct region *region,
                        struct heap_totals *totals)
{
    const uint64_t *plane = blocks_live_plane(blocks);
    uint64_t end = (uint64_t)region->base + region->count, live = 0;
    for (uint64_t at = region->base; at < end; at = (at / 64 + 1) * 64) {
        uint64_t mask = ~UINT64_C(0) << at % 64;
        if (end - at / 64 * 64 < 64)
            mask &= (UINT64_C(1) << end % 64) - 1;
        live += (uint64_t)__builtin_popcountll(plane[at / 64] & mask);
        for (uint64_t others = ~plane[at / 64] & mask; others; others &= others - 1) {
            hi_block block = (hi_block)(at / 64 * 64 + (uint64_t)__builtin_ctzll(others));
            count_block(totals, blocks_state(blocks, block), region->usable);
        }
    }
    totals->live.blocks += live;
    totals->live.bytes += live * region->usable;
}

static void count_region(const struct blocks *blocks, const struct region *region,
                         struct heap_totals *totals)
{
    if (region->shape == REGION_CHUNKS) {
        struct block_cursor cursor;
        for (bool more = blocks_first(blocks, region, &cursor); more;
             more = blocks_next(blocks, &cursor))
            count_block(totals, blocks_state(blocks, cursor.block), cursor.usable);
        return;
    }
    count_slots(blocks, region, totals);
}

/* Bytes of live blocks are requested ones where the allocator knows them. */
static void count_in_heap(const struct heaps *heaps, const struct region *region,
                          struct heap_totals *totals)
{
    const struct heap *heap = &heaps->heaps[region->heap];
    count_region(heaps->blocks, region, totals);
    uint64_t spare = heap->reader->spare ? heap->reader->spare(heap, heaps->blocks, region) : 0;
    totals->live.bytes -= spare < totals->live.bytes ? spare : totals->live.bytes;
}

enum hi_code heaps_totals_count(struct heaps *heaps, struct hi_err *err)
{
    size_t first[HEAPS_MAX] = {0};
    for (size_t i = heaps->arenas.count; i-- > 0;)
        first[heaps->arenas.items[i].heap] = i;
    free(heaps->totals);
    heaps->totals = calloc(heaps->arenas.count + 1, sizeof *heaps->totals);
    if (!heaps->totals)
        return hi_no_memory(err);
    for (size_t i = 0; i < blocks_region_count(heaps->blocks); i++) {
        const struct region *region = blocks_region(heaps->blocks, i);
        if (region->shape == REGION_NODE || region->heap >= heaps->count)
            continue;
        size_t arena = first[region->heap] + region->arena;
        if (arena < heaps->arenas.count)
            count_in_heap(heaps, region, &heaps->totals[arena]);
    }
    return HI_OK;
}

static void add_total(struct blocks_total *sum, const struct blocks_total *part)
{
    sum->blocks += part->blocks;
    sum->bytes += part->bytes;
}

void heap_totals(const struct heaps *heaps, size_t heap, struct heap_totals *totals)
{
    *totals = (struct heap_totals){0};
    for (size_t i = 0; heaps->totals && i < heaps->arenas.count; i++)
        if (heaps->arenas.items[i].heap == heap) {
            add_total(&totals->live, &heaps->totals[i].live);
            add_total(&totals->free, &heaps->totals[i].free);
            add_total(&totals->cached, &heaps->totals[i].cached);
        }
}

void arena_totals(const struct heaps *heaps, size_t arena, struct heap_totals *totals)
{
    *totals = (struct heap_totals){0};
    if (heaps->totals && arena < heaps->arenas.count)
        *totals = heaps->totals[arena];
}
