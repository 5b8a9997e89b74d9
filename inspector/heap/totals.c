/*
 * Totals: every block counted once, per arena, after the overlay.
 *
 * An arena's index in a region is its place among the arenas of its heap; arenas of one heap stand
 * together in heaps->arenas, so a table of first indexes leads from one to the other. In flight
 * counts as live (it is reachable and never a leak); suspect counts as nothing.
 *
 * The sizes of chunks are asked one by one, so where there are millions several threads count, each
 * for itself, a piece of a region at a time.
 */
#include "base/parallel.h"
#include "heap/sink.h"

enum {
    PIECE_BLOCKS = 1 << 16,
    MANY_BLOCKS = 1 << 20,
    MANY_ARENAS = 1 << 12,
    MANY_REGIONS = 1 << 10
};

struct count {
    struct heap_totals totals;
    uint64_t spare; /* bytes of live blocks that nobody asked for, where the allocator knows them */
};

struct counting {
    const struct heaps *heaps;
    size_t first[HEAPS_MAX]; /* index of each heap's first arena */
    struct count *counts;    /* of all arenas, once a worker */
    uint64_t next;           /* piece: shared, atomic */
};

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

/* Blocks [base, end) of one size: live ones a word at a time, the others one by one. */
static void count_slots(const struct blocks *blocks, const struct region *region, hi_block base,
                        uint64_t end, struct heap_totals *totals)
{
    const uint64_t *plane = blocks_live_plane(blocks);
    uint64_t live = 0;
    for (uint64_t at = base; at < end; at = (at / 64 + 1) * 64) {
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

static void count_piece(const struct blocks *blocks, const struct region *region, uint64_t piece,
                        struct heap_totals *totals)
{
    uint64_t from = region->base + piece * PIECE_BLOCKS, end = from + PIECE_BLOCKS;
    uint64_t region_end = (uint64_t)region->base + region->count;
    end = end < region_end ? end : region_end;
    if (region->shape != REGION_CHUNKS) {
        count_slots(blocks, region, (hi_block)from, end, totals);
        return;
    }
    struct block_cursor cursor;
    bool more = from < end && blocks_cursor_at(blocks, (hi_block)from, &cursor);
    for (; more && cursor.block < end; more = blocks_next(blocks, &cursor))
        count_block(totals, blocks_state(blocks, cursor.block), cursor.usable);
}

static uint64_t spare_of(const struct heaps *heaps, const struct region *region)
{
    const struct heap *heap = &heaps->heaps[region->heap];
    return heap->reader->spare ? heap->reader->spare(heap, heaps->blocks, region) : 0;
}

/* The count of a region's arena; NULL: it has none. */
static struct count *count_of(const struct counting *counting, const struct region *region,
                              int worker)
{
    const struct heaps *heaps = counting->heaps;
    if (region->shape == REGION_NODE || region->heap >= heaps->count)
        return NULL;
    size_t arena = counting->first[region->heap] + region->arena;
    size_t before = (size_t)worker * (heaps->arenas.count + 1);
    return arena < heaps->arenas.count ? &counting->counts[before + arena] : NULL;
}

/* Pieces are numbered through all regions; each worker counts along to find those it took: some
 * together, where there are many regions. */
static void count_work(void *context, int worker)
{
    struct counting *counting = context;
    const struct blocks *blocks = counting->heaps->blocks;
    uint64_t before = 0, step = 1 + blocks_region_count(blocks) / MANY_REGIONS;
    uint64_t piece = __atomic_fetch_add(&counting->next, step, __ATOMIC_RELAXED);
    uint64_t end = piece + step;
    for (size_t i = 0; i < blocks_region_count(blocks); i++) {
        const struct region *region = blocks_region(blocks, i);
        struct count *count = count_of(counting, region, worker);
        uint64_t pieces = region->count / PIECE_BLOCKS + 1;
        while (piece - before < pieces) {
            if (count)
                count_piece(blocks, region, piece - before, &count->totals);
            if (count && piece == before)
                count->spare += spare_of(counting->heaps, region);
            if (++piece < end)
                continue;
            piece = __atomic_fetch_add(&counting->next, step, __ATOMIC_RELAXED);
            end = piece + step;
        }
        before += pieces;
    }
}

static void add_total(struct blocks_total *sum, const struct blocks_total *part)
{
    sum->blocks += part->blocks;
    sum->bytes += part->bytes;
}

static void add_totals(struct heap_totals *sum, const struct heap_totals *part)
{
    add_total(&sum->live, &part->live);
    add_total(&sum->free, &part->free);
    add_total(&sum->cached, &part->cached);
}

static void counts_sum(struct counting *counting, int jobs)
{
    size_t arenas = counting->heaps->arenas.count;
    for (size_t i = 0; i < arenas; i++) {
        struct heap_totals *sum = &counting->heaps->totals[i];
        uint64_t spare = 0;
        for (size_t j = 0; j < (size_t)jobs; j++) {
            const struct count *count = &counting->counts[j * (arenas + 1) + i];
            add_totals(sum, &count->totals);
            spare += count->spare;
        }
        sum->live.bytes -= spare < sum->live.bytes ? spare : sum->live.bytes;
    }
}

enum hi_code heaps_count(struct heaps *heaps, int jobs, struct hi_err *err)
{
    struct counting counting = {.heaps = heaps};
    size_t arenas = heaps->arenas.count;
    for (size_t i = arenas; i-- > 0;)
        counting.first[heaps->arenas.items[i].heap] = i;
    jobs = jobs > 0 ? jobs : parallel_default_jobs();
    if (jobs > PARALLEL_MAX_JOBS)
        jobs = PARALLEL_MAX_JOBS;
    if (blocks_count(heaps->blocks) < MANY_BLOCKS || arenas > MANY_ARENAS)
        jobs = 1;
    counting.counts = calloc((arenas + 1) * (size_t)jobs, sizeof *counting.counts);
    free(heaps->totals);
    heaps->totals = calloc(arenas + 1, sizeof *heaps->totals);
    if (!counting.counts || !heaps->totals) {
        free(counting.counts);
        return hi_no_memory(err);
    }
    parallel_run(jobs, count_work, &counting);
    counts_sum(&counting, jobs);
    free(counting.counts);
    return HI_OK;
}

void heap_totals(const struct heaps *heaps, size_t heap, struct heap_totals *totals)
{
    *totals = (struct heap_totals){0};
    for (size_t i = 0; heaps->totals && i < heaps->arenas.count; i++)
        if (heaps->arenas.items[i].heap == heap)
            add_totals(totals, &heaps->totals[i]);
}

void arena_totals(const struct heaps *heaps, size_t arena, struct heap_totals *totals)
{
    *totals = (struct heap_totals){0};
    if (heaps->totals && arena < heaps->arenas.count)
        *totals = heaps->totals[arena];
}
