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

/* Deal the window's kept words out to the blocks of the run; returns how many belong to one. */
static size_t deal(struct build_worker *w, hi_addr start)
{
    const struct window *window = &w->window;
    size_t from = 0, to = 0;
    for (size_t i = 0; i < w->list_count; i++) {
        struct build_block *b = &w->list[i];
        uint64_t low = b->address - start, high = low + b->usable;
        size_t first = to;
        while (from < window->count && window->offsets[from] < low)
            from++;
        for (; from < window->count && window->offsets[from] + UINT64_C(8) <= high; from++)
            window->values[to++] = window->values[from];
        b->kept = (uint32_t)(to - first);
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

static bool run_read(struct build *build, struct build_worker *w)
{
    if (!w->list_count)
        return true;
    const struct build_block *last = &w->list[w->list_count - 1];
    hi_addr start = w->list[0].address & ~(hi_addr)7;
    window_open(&w->window, start, last->address + last->usable);
    size_t count = deal(w, start);
    w->kept += count;
    build_resolve(build, w, count);
    bool fine = gather(build, w);
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

static bool regions_take(struct build *build, struct build_worker *w, hi_block block, hi_block end)
{
    struct block_cursor cursor;
    while ((block = bits_from(build->resolve.live, block, end)) < end) {
        if (!blocks_cursor_at(build->graph->blocks, block, &cursor))
            return true;
        const struct region *region = cursor.region;
        hi_block stop = region->base + region->count < end ? region->base + region->count : end;
        if (build_slab_fits(build, region)) {
            build_slab(build, w, region, block, stop);
        } else if (!blocks_take(build, w, &cursor, stop)) {
            return false;
        }
        block = stop;
    }
    return true;
}

/* The group's edges to their place, and the clusters' bases. */
static bool group_store(struct build *build, struct build_worker *w, hi_block block, hi_block end)
{
    struct edges *edges = &build->graph->edges;
    uint64_t base = edges_take(edges, w->group_count);
    if (base == UINT64_MAX)
        return false;
    memcpy(&edges->words[base], w->group, w->group_count * sizeof *w->group);
    for (; block < end; block += EDGES_CLUSTER) {
        const uint8_t *degrees = &edges->degrees[block];
        edges->bases[block / EDGES_CLUSTER] = base;
        base += edges_degree_sum(degrees, EDGES_CLUSTER - 1);
        base += degrees[EDGES_CLUSTER - 1] == EDGES_FAT ? 0 : degrees[EDGES_CLUSTER - 1];
    }
    return true;
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
        w->group_count = w->list_count = 0;
        if (!regions_take(build, w, first, end) || !group_store(build, w, first, end))
            __atomic_store_n(&build->no_memory, true, __ATOMIC_RELAXED);
    }
}
