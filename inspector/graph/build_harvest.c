/*
 * Edges of chunks whose words were kept while their heap was walked; see harvest.h.
 *
 * Cluster by cluster. How many words of a block were kept is the number of bits between its first
 * and its last word, and the first one's code is as far behind the piece's first code as there are
 * bits before it: counted upwards, a word of bits at a time, never back. Codes of dead blocks and
 * of headers stand between those of live ones at times; then the latter move together. That happens
 * where they are: each cluster's codes are its own, and they only move down. A cluster that lies in
 * more than one piece, and a fat block, get a place of their own.
 *
 * false for a cluster means: do it the usual way. That is so where a part of it lies in no piece
 * (unreadable, or not of this heap), where holes lie in it, and for large blocks, whose parts are
 * dealt out later.
 */
#include "graph/build.h"

enum { GROUP_PIECES = 64, SPANS_MOST = EDGES_CLUSTER + GROUP_PIECES };

/* Codes of a block, or of a part of it that lies in one piece. */
struct span {
    uint64_t at;
    uint32_t count;
    uint8_t block; /* of the cluster */
};

static inline void counter_start(struct build_counter *counter, const struct harvest *harvest,
                                 const struct harvest_piece *piece)
{
    *counter = (struct build_counter){piece, harvest->bits + piece->bits, 0, piece->words};
}

/* Index of the first code at or after address, which never falls and lies in the piece. */
static inline __attribute__((always_inline)) uint64_t counter_to(struct build_counter *counter,
                                                                 hi_addr address)
{
    uint64_t place = (address - counter->piece->start) / 8;
    for (; counter->word < place / 64; counter->word++)
        counter->before += (unsigned)__builtin_popcountll(counter->bits[counter->word]);
    uint64_t below = (UINT64_C(1) << place % 64) - 1;
    return counter->before + (unsigned)__builtin_popcountll(counter->bits[place / 64] & below);
}

struct cluster {
    struct span spans[SPANS_MOST];
    unsigned span_count, fat_count;
    bool in_place; /* all of one piece */
    uint64_t words, kept;
    hi_addr end; /* of its last live block */
    uint32_t degrees[EDGES_CLUSTER];
};

/* [start, end), whole words of a block, piece by piece. */
static inline __attribute__((always_inline)) bool
block_spans(const struct harvest *harvest, struct build_counter *counter, struct cluster *cluster,
            hi_addr start, hi_addr end, unsigned number)
{
    const struct harvest_piece *stop = harvest->pieces.items + harvest->pieces.count;
    while (start < end) {
        while (start >= counter->piece->end) {
            if (counter->piece + 1 == stop)
                return false;
            counter_start(counter, harvest, counter->piece + 1);
            cluster->in_place &= cluster->span_count == 0;
        }
        hi_addr until = end < counter->piece->end ? end : counter->piece->end;
        if (start < counter->piece->start || cluster->span_count == SPANS_MOST)
            return false;
        uint64_t at = counter_to(counter, start);
        uint32_t count = (uint32_t)(counter_to(counter, until) - at);
        cluster->spans[cluster->span_count++] = (struct span){at, count, (uint8_t)number};
        cluster->degrees[number] += count;
        start = until;
    }
    return true;
}

/* The spans of the cursor's cluster, all of one region. */
static inline __attribute__((always_inline)) bool cluster_spans(struct build *build,
                                                                struct build_counter *counter,
                                                                struct cluster *cluster,
                                                                struct block_cursor *cursor)
{
    const struct harvest *harvest = build->harvest;
    uint64_t live = build->resolve.live[cursor->block / EDGES_CLUSTER];
    for (unsigned i = 0; i < EDGES_CLUSTER; i++, blocks_next(build->graph->blocks, cursor)) {
        if (!(live >> i & 1) || cursor->usable < 8)
            continue;
        if (cursor->usable > BUILD_LARGE_BYTES && !build->target_is_gone)
            return false;
        hi_addr start = (cursor->address + 7) & ~(hi_addr)7;
        hi_addr end = (cursor->address + cursor->usable) & ~(hi_addr)7;
        if (!block_spans(harvest, counter, cluster, start, end, i))
            return false;
        cluster->end = end;
        cluster->words += start < end ? (end - start) / 8 : 0;
        cluster->kept += cluster->degrees[i];
        cluster->fat_count += cluster->degrees[i] >= EDGES_FAT;
    }
    return true;
}

#ifdef __x86_64__
__attribute__((target("popcnt"))) static bool cluster_spans_popcount(struct build *build,
                                                                     struct build_counter *counter,
                                                                     struct cluster *cluster,
                                                                     struct block_cursor *cursor)
{
    return cluster_spans(build, counter, cluster, cursor);
}
#endif

static bool cluster_find(struct build *build, struct build_counter *counter,
                         struct cluster *cluster, struct block_cursor *cursor)
{
#ifdef __x86_64__
    if (build->has_popcount)
        return cluster_spans_popcount(build, counter, cluster, cursor);
#endif
    return cluster_spans(build, counter, cluster, cursor);
}

/* -- to their places --------------------------------------------------------------------------- */

/* A fat block's codes go away first: in their place others may come to stand. */
static bool fat_out(struct build *build, struct build_worker *w, const struct cluster *cluster,
                    hi_block first, unsigned number)
{
    struct edges *edges = &build->graph->edges;
    uint32_t count = cluster->degrees[number];
    uint64_t to = edges_take(edges, count);
    struct fat_part *part = VECTOR_PUSH(&w->fat);
    if (!part || to == UINT64_MAX)
        return false;
    *part = (struct fat_part){.block = first + number, .count = count, .base = to};
    for (unsigned i = 0; i < cluster->span_count; i++) {
        const struct span *span = &cluster->spans[i];
        if (span->block != number)
            continue;
        memcpy(&edges->words[to], &edges->words[span->at], span->count * sizeof *edges->words);
        to += span->count;
    }
    return true;
}

/* All but fat blocks' codes, one behind the other. */
static void spans_move(struct edges *edges, const struct cluster *cluster, uint64_t to)
{
    for (unsigned i = 0; i < cluster->span_count; i++) {
        const struct span *span = &cluster->spans[i];
        if (cluster->fat_count && cluster->degrees[span->block] >= EDGES_FAT)
            continue;
        if (to != span->at)
            memmove(&edges->words[to], &edges->words[span->at], span->count * sizeof *edges->words);
        to += span->count;
    }
}

static bool cluster_store(struct build *build, struct build_worker *w,
                          const struct cluster *cluster, hi_block first)
{
    struct edges *edges = &build->graph->edges;
    uint64_t total = 0, base = cluster->span_count ? cluster->spans[0].at : 0;
    for (unsigned i = 0; i < EDGES_CLUSTER; i++) {
        bool is_fat = cluster->degrees[i] >= EDGES_FAT;
        edges->degrees[first + i] = is_fat ? 0 : (uint8_t)cluster->degrees[i];
        total += is_fat ? 0 : cluster->degrees[i];
        if (is_fat && !fat_out(build, w, cluster, first, i))
            return false;
    }
    if (!cluster->in_place)
        base = edges_take(edges, total);
    if (base == UINT64_MAX)
        return false;
    spans_move(edges, cluster, base);
    edges->bases[first / EDGES_CLUSTER] = base;
    w->words += cluster->words;
    w->kept += cluster->kept;
    w->resolved += cluster->kept;
    return true;
}

/* Set the worker's counter on the piece that address lies in; it mostly is on it. */
static bool counter_move(struct build *build, struct build_worker *w, hi_addr address)
{
    const struct harvest *harvest = build->harvest;
    if (w->counter.piece && address >= w->counter.piece->start && address < w->counter.piece->end)
        return true;
    size_t i = harvest_piece_after(harvest, address);
    if (i == harvest->pieces.count)
        return false;
    counter_start(&w->counter, harvest, &harvest->pieces.items[i]);
    return true;
}

bool build_harvested(struct build *build, struct build_worker *w, struct block_cursor *cursor,
                     bool *fine)
{
    struct block_cursor ahead = *cursor;
    struct cluster cluster;
    cluster.span_count = cluster.fat_count = 0;
    cluster.in_place = true;
    cluster.words = cluster.kept = cluster.end = 0;
    memset(cluster.degrees, 0, sizeof cluster.degrees);
    if (!counter_move(build, w, cursor->address) ||
        !cluster_find(build, &w->counter, &cluster, &ahead) ||
        window_has_hole(&w->window, cursor->address, cluster.end))
        return false;
    *fine = cluster_store(build, w, &cluster, cursor->block);
    *cursor = ahead;
    return true;
}

/* -- later ------------------------------------------------------------------------------------- */

/* All of [start, end) in pieces that follow each other? */
static bool is_covered(const struct harvest *harvest, hi_addr start, hi_addr end)
{
    size_t first = harvest_piece_after(harvest, start), stop = harvest->pieces.count;
    const struct harvest_piece *pieces = harvest->pieces.items;
    if (first == stop || pieces[first].start > start)
        return false;
    for (size_t i = first; i < stop && i - first < GROUP_PIECES; i++) {
        if (pieces[i].end >= end)
            return true;
        if (i + 1 == stop || pieces[i + 1].start != pieces[i].end)
            return false;
    }
    return false;
}

bool build_may_wait(const struct build *build, hi_block first, hi_block end)
{
    struct block_cursor low, high;
    const struct blocks *blocks = build->graph->blocks;
    if (!build->waiting || end - first != BUILD_GROUP || !blocks_cursor_at(blocks, first, &low) ||
        !blocks_cursor_at(blocks, end - 1, &high) || low.region != high.region ||
        low.region->shape != REGION_CHUNKS)
        return false;
    hi_addr stop = high.address + high.usable;
    return is_covered(build->harvest, low.address, stop) &&
           !window_has_hole(&build->workers[0].window, low.address, stop);
}
