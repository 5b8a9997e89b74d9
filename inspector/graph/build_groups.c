/*
 * Edges of ordinary blocks, group by group.
 *
 * A group is 2048 consecutive block numbers. Its live blocks are collected into runs: neighbours in
 * one region that fit a window together, with little between them, so that one read and one pass
 * of the filter serve many blocks. The kept words come back in address order, and so do the
 * blocks: one merge deals them out, and drops those that lie between blocks or in dead ones. What
 * resolves to an edge is gathered for the group and goes to its final place in one piece.
 */
#include "graph/build.h"

enum { RUN_GAP_BYTES = 4096 }; /* a larger stretch without live blocks is not read */

/* How many of the rising offsets, at most DEAL_STEP, are below limit: without a branch for each,
 * since nobody can foresee where a block's words end: dealing takes half the time. */
enum { DEAL_STEP = FILTER_SLACK };
#ifdef __SSE2__
static inline unsigned offsets_below(const uint32_t *offsets, uint32_t limit)
{
    const __m128i *at = (const __m128i *)(const void *)offsets, top = _mm_set1_epi32((int)limit);
    __m128i a = _mm_cmplt_epi32(_mm_loadu_si128(at), top);
    __m128i b = _mm_cmplt_epi32(_mm_loadu_si128(at + 1), top);
    __m128i c = _mm_cmplt_epi32(_mm_loadu_si128(at + 2), top);
    __m128i d = _mm_cmplt_epi32(_mm_loadu_si128(at + 3), top);
    __m128i below = _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
    return (unsigned)__builtin_ctz(~(unsigned)_mm_movemask_epi8(below));
}
#else
static inline unsigned offsets_below(const uint32_t *offsets, uint32_t limit)
{
    unsigned count = 0;
    while (count < DEAL_STEP && offsets[count] < limit)
        count++;
    return count;
}
#endif

/* The first offset at or after index from that is not below limit. */
static inline size_t offset_after(const uint32_t *offsets, size_t from, uint32_t limit)
{
    unsigned step;
    do
        from += step = offsets_below(offsets + from, limit);
    while (step == DEAL_STEP);
    return from;
}

/* Deal the window's kept words out to the blocks of the run; returns how many belong to one. */
static size_t deal(struct build_worker *w, hi_addr start)
{
    const struct window *window = &w->window;
    size_t at = 0, to = 0;
    w->most_kept = 0;
    for (size_t i = 0; i < DEAL_STEP; i++) /* in the slack: an end that is never below */
        window->offsets[window->count + i] = INT32_MAX;
    for (size_t i = 0; i < w->list_count; i++) {
        struct build_block *b = &w->list[i];
        uint32_t low = (uint32_t)(b->address - start), high = low + (uint32_t)b->usable;
        size_t first = offset_after(window->offsets, at, low);
        at = offset_after(window->offsets, first, high - 7); /* whole words only */
        b->kept = (uint32_t)(at - first);
        if (to != first)
            memmove(window->values + to, window->values + first, b->kept * sizeof *window->values);
        to += b->kept;
        w->most_kept = b->kept > w->most_kept ? b->kept : w->most_kept;
        w->words += window_words(window, b->address, b->address + b->usable);
    }
    return to;
}

static bool fat_push(struct build *build, struct build_worker *w, hi_block block,
                     const uint32_t *edges, uint32_t count)
{
    struct fat_part *part = VECTOR_PUSH(&w->fat);
    uint64_t base = edges_take(&build->graph->edges, count);
    if (!part || base == UINT64_MAX)
        return false;
    memcpy(&build->graph->edges.words[base], edges, count * sizeof *edges);
    *part = (struct fat_part){.block = block, .count = count, .base = base};
    return true;
}

/* Results of the run -> degrees, and edges behind those of the group so far. */
static bool gather(struct build *build, struct build_worker *w)
{
    const uint32_t *result = w->results;
    uint8_t *degrees = build->graph->edges.degrees;
    for (size_t i = 0; i < w->list_count; i++) {
        const struct build_block *b = &w->list[i];
        size_t first = w->group_count;
        for (const uint32_t *end = result + b->kept; result < end; result++) {
            w->group[w->group_count] = *result;
            w->group_count += *result != EDGE_NONE;
        }
        size_t degree = w->group_count - first;
        w->resolved += degree;
        if (degree < EDGES_FAT) {
            degrees[b->block] = (uint8_t)degree;
            continue;
        }
        if (!fat_push(build, w, b->block, w->group + first, (uint32_t)degree))
            return false;
        w->group_count = first;
    }
    return true;
}

/* gather() where every word is an edge (or a code): they go over in one piece, and no loop ends
 * after a number of steps that cannot be foreseen. */
static void gather_whole(struct build *build, struct build_worker *w, size_t count)
{
    uint8_t *degrees = build->graph->edges.degrees;
    memcpy(w->group + w->group_count, w->results, count * sizeof *w->results);
    for (size_t i = 0; i < w->list_count; i++)
        degrees[w->list[i].block] = (uint8_t)w->list[i].kept;
    w->resolved += count;
    w->group_count += count;
}

static bool run_read(struct build *build, struct build_worker *w)
{
    if (!w->list_count)
        return true;
    const struct build_block *last = &w->list[w->list_count - 1];
    hi_addr start = w->list[0].address & ~(hi_addr)7;
    window_open(&w->window, start, last->address + last->usable);
    size_t count = deal(w, start);
    w->kept += count;
    size_t none = build_resolve(build, w, count);
    bool fine = true;
    if (none == 0 && w->most_kept < EDGES_FAT)
        gather_whole(build, w, count);
    else
        fine = gather(build, w);
    w->list_count = 0;
    return fine;
}

static bool joins_run(const struct build_worker *w, const struct block_cursor *cursor)
{
    if (!w->list_count)
        return true;
    const struct build_block *last = &w->list[w->list_count - 1];
    return cursor->address - (last->address + last->usable) <= RUN_GAP_BYTES &&
           cursor->address + cursor->usable - w->list[0].address <= WINDOW_BYTES - 16;
}

static bool large_push(struct build_worker *w, const struct block_cursor *cursor)
{
    struct build_extent *extent = VECTOR_PUSH(&w->large);
    if (!extent)
        return false;
    *extent = (struct build_extent){
        .start = cursor->address,
        .end = cursor->address + cursor->usable,
        .owner = cursor->block,
    };
    return true;
}

static bool block_take(struct build *build, struct build_worker *w,
                       const struct block_cursor *cursor)
{
    if (cursor->usable < 8)
        return true;
    if (cursor->usable > BUILD_LARGE_BYTES)
        return large_push(w, cursor);
    if (!joins_run(w, cursor) && !run_read(build, w))
        return false;
    w->list[w->list_count++] = (struct build_block){
        .block = cursor->block,
        .address = cursor->address,
        .usable = cursor->usable,
    };
    return true;
}

/* Live blocks [block, end) of the cursor's region, one by one. */
static bool blocks_take(struct build *build, struct build_worker *w, struct block_cursor *cursor,
                        hi_block end)
{
    const uint64_t *live = build->resolve.live;
    bool more = true;
    for (; more && cursor->block < end; more = blocks_next(build->graph->blocks, cursor))
        if (bits_get(live, cursor->block) && !block_take(build, w, cursor))
            return false;
    return run_read(build, w);
}

/* The same, where words of chunks were kept: those clusters are done that can be done without
 * reading. */
static bool chunks_take(struct build *build, struct build_worker *w, struct block_cursor *cursor,
                        hi_block end)
{
    while (cursor->block < end) {
        hi_block cluster_end = (cursor->block | (EDGES_CLUSTER - 1)) + 1;
        hi_block stop = cluster_end < end ? cluster_end : end, first = cursor->block;
        bool fine = true, whole = first % EDGES_CLUSTER == 0 && stop == cluster_end;
        if (!whole || !build_harvested(build, w, cursor, &fine))
            fine = blocks_take(build, w, cursor, stop);
        else
            w->harvested |= UINT32_C(1) << first % BUILD_GROUP / EDGES_CLUSTER;
        if (!fine)
            return false;
    }
    return true;
}

/* The cursor on the first block of block's cluster, if that is of the same region: kept words are
 * taken by whole clusters, also where the first blocks are not live. */
static struct block_cursor *cluster_begin(const struct build *build, hi_block block,
                                          struct block_cursor *cursor)
{
    hi_block first = block & ~(hi_block)(EDGES_CLUSTER - 1);
    if (first != block && first >= cursor->region->base)
        blocks_cursor_at(build->graph->blocks, first, cursor);
    return cursor;
}

static bool regions_take(struct build *build, struct build_worker *w, hi_block block, hi_block end)
{
    struct block_cursor cursor;
    while ((block = bits_from(build->resolve.live, block, end)) < end) {
        if (!blocks_cursor_at(build->graph->blocks, block, &cursor))
            return true;
        const struct region *region = cursor.region;
        hi_block stop = region->base + region->count < end ? region->base + region->count : end;
        bool slab = build_slab_fits(build, region);
        w->window.ahead = slab ? w->group_end : 0;
        if (slab) {
            build_slab(build, w, region, block, stop);
        } else if (build->harvest && region->shape == REGION_CHUNKS) {
            if (!chunks_take(build, w, cluster_begin(build, block, &cursor), stop))
                return false;
        } else if (!blocks_take(build, w, &cursor, stop)) {
            return false;
        }
        block = stop;
    }
    return true;
}

/* Past the caches: nobody asks for them until all is read, and what a cache would take in first is
 * a fifteenth of what the stop may read. */
static void edges_stream(uint32_t *to, const uint32_t *from, size_t count)
{
    size_t i = 0;
#ifdef __SSE2__
    for (; i < count && (uintptr_t)(to + i) % 16; i++)
        to[i] = from[i];
    for (; i + 4 <= count; i += 4)
        _mm_stream_si128((__m128i *)(void *)(to + i),
                         _mm_loadu_si128((const __m128i *)(const void *)(from + i)));
    _mm_sfence();
#endif
    memcpy(to + i, from + i, (count - i) * sizeof *to);
}

/* The group's edges to their place, and the clusters' bases. */
static bool group_store(struct build *build, struct build_worker *w, hi_block block, hi_block end)
{
    struct edges *edges = &build->graph->edges;
    uint64_t base = edges_take(edges, w->group_count);
    if (base == UINT64_MAX)
        return false;
    edges_stream(&edges->words[base], w->group, w->group_count);
    for (; block < end; block += EDGES_CLUSTER) {
        const uint8_t *degrees = &edges->degrees[block];
        if (w->harvested >> block % BUILD_GROUP / EDGES_CLUSTER & 1)
            continue;
        edges->bases[block / EDGES_CLUSTER] = base;
        base += edges_degree_sum(degrees, EDGES_CLUSTER - 1);
        base += degrees[EDGES_CLUSTER - 1] == EDGES_FAT ? 0 : degrees[EDGES_CLUSTER - 1];
    }
    return true;
}

static void group_do(struct build *build, struct build_worker *w, hi_block first, hi_block end)
{
    w->group_count = w->list_count = 0;
    w->harvested = 0;
    w->group_end = blocks_address(build->graph->blocks, end - 1);
    if (!regions_take(build, w, first, end) || !group_store(build, w, first, end))
        __atomic_store_n(&build->no_memory, true, __ATOMIC_RELAXED);
}

void build_groups(void *context, int number)
{
    struct build *build = context;
    struct build_worker *w = &build->workers[number];
    uint32_t count = blocks_count(build->graph->blocks);
    uint64_t groups = count / BUILD_GROUP + 1, group;
    while ((group = __atomic_fetch_add(&build->next, 1, __ATOMIC_RELAXED)) < groups) {
        if (build_ended(build, "reading", group, groups))
            return;
        hi_block first = (hi_block)(group * BUILD_GROUP);
        hi_block end = count - first < BUILD_GROUP ? count : first + BUILD_GROUP;
        bool waits = build_may_wait(build, first, end);
        if (build->waiting)
            build->waiting[group] = waits;
        if (!waits)
            group_do(build, w, first, end);
    }
}

void build_waiting_groups(void *context, int number)
{
    struct build *build = context;
    struct build_worker *w = &build->workers[number];
    uint64_t groups = blocks_count(build->graph->blocks) / BUILD_GROUP + 1, group;
    w->counter.piece = NULL; /* it may stand further up by now */
    while ((group = __atomic_fetch_add(&build->next, 1, __ATOMIC_RELAXED)) < groups) {
        if (build_ended(build, "reading", group, groups))
            return;
        hi_block first = (hi_block)(group * BUILD_GROUP);
        if (build->waiting[group])
            group_do(build, w, first, first + BUILD_GROUP);
    }
}
