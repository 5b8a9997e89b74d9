/*
 * Breadth first where little is waiting, sweeps in address order where much is.
 *
 * Sparse: a queue of the blocks of this level and one of the next. Below 2048 blocks one thread
 * does it (a list has a level a node: starting threads would cost more than the node), above it
 * workers take pieces of the queue. Degrees and edges of blocks further on are fetched ahead.
 *
 * Dense: when a level outgrows the queue (1/256 of all blocks), the queue is dropped: what waits
 * is what is marked and not done, and the planes know it. Workers take ranges of the planes and
 * follow what waits there, in address order, so that degrees and edges stream; neighbours that
 * wait together have their edges together, and nothing is asked between one block and the next.
 * When little is left waiting, it is gathered into the queue again.
 *
 * Marks of a sweep: each worker marks in a plane of its own, which stays in its processor's cache,
 * with plain stores, asking neither whether a bit is set already nor who else sets it; after the
 * sweep the planes are joined and empty again. What others mark in a worker's range it meets in the
 * next sweep, what it marks itself in this one. (10 million blocks at random, 47 million edges, 2
 * processors: 0.08 s, where one plane with atomic operations takes 0.24 s.)
 *
 * So memory is two bits a block, one more for each worker but the first (at most 8 sweep), and the
 * small queue. In a sweep a word of done is written by the worker alone that has the range; in the
 * sparse mode bits are raised atomically. Order never shows in the result.
 */
#include "graph/flood.h"

#include "base/parallel.h"

enum {
    SERIAL_BELOW = 2048,
    QUEUE_PIECE = 256,
    SWEEP_WORDS = 64,
    AHEAD_DEGREES = 16,
    AHEAD_EDGES = 8,
};

/* What one worker adds up. */
struct tally {
    uint64_t followed, repeated, done;
    uint64_t edges; /* of a sweep: followed or repeated, nobody asked which */
};

bool flood_new(struct flood *flood)
{
    flood->queue_capacity = flood->count / 256 + 2 * SERIAL_BELOW;
    for (int i = 0; i < 2; i++)
        flood->queue[i] = malloc(flood->queue_capacity * sizeof *flood->queue[i]);
    if (flood->queue[0] && flood->queue[1])
        return true;
    flood_free(flood);
    return false;
}

void flood_free(struct flood *flood)
{
    free(flood->queue[0]);
    free(flood->queue[1]);
    flood->queue[0] = flood->queue[1] = NULL;
    for (int i = 0; i < FLOOD_SWEEPERS; i++)
        free(flood->own[i]);
    memset(flood->own, 0, sizeof flood->own);
}

bool flood_seed(struct flood *flood, hi_block block)
{
    if (bits_get(flood->mark, block) || (flood->stop && bits_get(flood->stop, block))) {
        flood->repeated++;
        return false;
    }
    bits_set(flood->mark, block);
    flood->followed++;
    flood->pending++;
    if (flood->queue_count < flood->queue_capacity)
        flood->queue[0][flood->queue_count++] = block;
    else
        flood->queue_full = true;
    return true;
}

/* A block that was just marked goes to the next level; when that is full, the planes know it. */
static inline void queue_push(struct flood *flood, uint32_t *queue, hi_block block)
{
    uint32_t at = __atomic_fetch_add(&flood->next_count, 1, __ATOMIC_RELAXED);
    if (at < flood->queue_capacity)
        queue[at] = block;
}

static inline void edge_follow(struct flood *flood, uint32_t edge, uint32_t *queue,
                               struct tally *tally)
{
    hi_block target = edge >> 2;
    size_t word = target / 64;
    uint64_t bit = UINT64_C(1) << target % 64, marked = bits_load(flood->mark, word);
    if (flood->record[EDGE_COOKIE] && (edge & 3) != EDGE_START) {
        uint64_t *record = flood->record[edge & 3];
        if (!(marked & bit) && !(bits_load(record, word) & bit))
            bits_raise(record, target);
        return;
    }
    if (flood->stop)
        marked |= flood->stop[word];
    if ((marked & bit) || !bits_raise(flood->mark, target)) {
        tally->repeated++;
        return;
    }
    tally->followed++;
    queue_push(flood, queue, target);
}

static inline void block_follow(struct flood *flood, hi_block block, uint32_t *queue,
                                struct tally *tally)
{
    for (struct edge_run r = edges_first(flood->edges, block); r.count;
         edges_next(flood->edges, &r))
        for (uint32_t i = 0; i < r.count; i++)
            edge_follow(flood, r.words[i], queue, tally);
    tally->done++;
}

static void tally_add(struct flood *flood, const struct tally *tally)
{
    __atomic_fetch_add(&flood->followed, tally->followed, __ATOMIC_RELAXED);
    __atomic_fetch_add(&flood->repeated, tally->repeated, __ATOMIC_RELAXED);
    /* unsigned wrap is meant: what is marked comes in, what is done goes out */
    __atomic_fetch_add(&flood->pending, tally->followed - tally->done, __ATOMIC_RELAXED);
}

/* -- sparse ------------------------------------------------------------------------------------ */

static void level_piece(struct flood *flood, uint32_t from, uint32_t to, struct tally *tally)
{
    const struct edges *edges = flood->edges;
    const uint32_t *queue = flood->queue[0];
    for (uint32_t i = from; i < to; i++) {
        if (i + AHEAD_DEGREES < to) {
            hi_block far = queue[i + AHEAD_DEGREES];
            __builtin_prefetch(&edges->degrees[far]);
            __builtin_prefetch(&edges->bases[far / EDGES_CLUSTER]);
        }
        if (i + AHEAD_EDGES < to && edges->degrees[queue[i + AHEAD_EDGES]] != EDGES_FAT)
            __builtin_prefetch(edges_first(edges, queue[i + AHEAD_EDGES]).words);
        bits_raise(flood->done, queue[i]);
        block_follow(flood, queue[i], flood->queue[1], tally);
    }
}

static void level_work(void *context, int worker)
{
    struct flood *flood = context;
    struct tally tally = {0};
    uint64_t from;
    (void)worker;
    while ((from = __atomic_fetch_add(&flood->next, QUEUE_PIECE, __ATOMIC_RELAXED)) <
           flood->queue_count) {
        uint64_t to = from + QUEUE_PIECE;
        to = to < flood->queue_count ? to : flood->queue_count;
        level_piece(flood, (uint32_t)from, (uint32_t)to, &tally);
    }
    tally_add(flood, &tally);
}

static void level_run(struct flood *flood)
{
    flood->next = 0;
    flood->next_count = 0;
    if (flood->queue_count < SERIAL_BELOW)
        level_work(flood, 0);
    else
        parallel_run(flood->jobs, level_work, flood);
    flood->queue_full = flood->next_count > flood->queue_capacity;
    flood->queue_count = flood->queue_full ? 0 : flood->next_count;
    uint32_t *next = flood->queue[1];
    flood->queue[1] = flood->queue[0];
    flood->queue[0] = next;
}

/* -- dense ------------------------------------------------------------------------------------- */

/* A worker's part in a sweep. */
struct sweep {
    struct flood *flood;
    uint64_t *own; /* the plane that it marks in */
    struct tally tally;
};

/* A pointer to elsewhere than the start: it is noted, not followed. */
static void edge_note(const struct sweep *sweep, uint32_t edge)
{
    hi_block target = edge >> 2;
    uint64_t *record = sweep->flood->record[edge & 3];
    if (!bits_get(sweep->own, target) && !(bits_load(record, target / 64) >> target % 64 & 1))
        bits_raise(record, target);
}

static void starts_follow(const struct sweep *sweep, const uint32_t *edges, size_t count)
{
    uint64_t *own = sweep->own;
    for (size_t i = 0; i < count; i++) {
        uint32_t edge = edges[i];
        /* beyond the end there are the next block's edges, or nonsense that does not matter */
        __builtin_prefetch(&own[edges[i + EDGES_AHEAD] >> 8]);
        if (__builtin_expect((edge & 3) == EDGE_START, 1))
            own[edge >> 8] |= UINT64_C(1) << (edge >> 2) % 64;
        else
            edge_note(sweep, edge);
    }
}

static void all_follow(const struct sweep *sweep, const uint32_t *edges, size_t count)
{
    uint64_t *own = sweep->own;
    const uint64_t *stop = sweep->flood->stop;
    for (size_t i = 0; i < count; i++) {
        uint64_t bit = UINT64_C(1) << (edges[i] >> 2) % 64;
        size_t word = edges[i] >> 8;
        own[word] |= stop ? bit & ~stop[word] : bit;
    }
}

static void edges_follow(struct sweep *sweep, const uint32_t *edges, size_t count)
{
    if (sweep->flood->record[EDGE_COOKIE])
        starts_follow(sweep, edges, count);
    else
        all_follow(sweep, edges, count);
    sweep->tally.edges += count;
}

/* The waiting blocks of a cluster, runs of neighbours at a time; of fat ones the sums know
 * nothing. */
static void cluster_follow(struct sweep *sweep, size_t cluster, uint64_t waiting)
{
    const struct edges *edges = sweep->flood->edges;
    const uint8_t *degrees = &edges->degrees[cluster * EDGES_CLUSTER];
    const uint32_t *words = &edges->words[edges->bases[cluster]];
    uint64_t fat = edges_fat_of(degrees) & waiting;
    uint16_t before[EDGES_CLUSTER + 1];
    edges_degree_sums(degrees, before);
    while (waiting) {
        unsigned from = (unsigned)__builtin_ctzll(waiting);
        uint64_t behind =
            ~(waiting >> from); /* the shift brings zeros: only a whole run has none */
        unsigned to = behind ? from + (unsigned)__builtin_ctzll(behind) : EDGES_CLUSTER;
        edges_follow(sweep, words + before[from], before[to] - before[from]);
        waiting = to < EDGES_CLUSTER ? waiting >> to << to : 0;
    }
    for (; fat; fat &= fat - 1) {
        hi_block block = (hi_block)(cluster * EDGES_CLUSTER + (unsigned)__builtin_ctzll(fat));
        for (struct edge_run r = edges_first_fat(edges, block); r.count; edges_next_fat(edges, &r))
            edges_follow(sweep, r.words, r.count);
    }
}

/* Words of planes are clusters. */
_Static_assert(EDGES_CLUSTER == 64, "a word of a plane is a cluster");
static void sweep_word(struct sweep *sweep, size_t word)
{
    struct flood *flood = sweep->flood;
    uint64_t waiting;
    while ((waiting = (bits_load(flood->mark, word) | sweep->own[word]) & ~flood->done[word])) {
        flood->done[word] |= waiting;
        sweep->tally.done += (unsigned)__builtin_popcountll(waiting);
        cluster_follow(sweep, word, waiting);
    }
}

static void sweep_work(void *context, int worker)
{
    struct flood *flood = context;
    struct sweep sweep = {.flood = flood, .own = worker ? flood->own[worker] : flood->mark};
    size_t words = bits_words(flood->count), from;
    while ((from = __atomic_fetch_add(&flood->next, SWEEP_WORDS, __ATOMIC_RELAXED)) < words) {
        size_t to = from + SWEEP_WORDS < words ? from + SWEEP_WORDS : words;
        for (size_t word = from; word < to; word++)
            sweep_word(&sweep, word);
    }
    __atomic_fetch_add(&flood->swept_edges, sweep.tally.edges, __ATOMIC_RELAXED);
    __atomic_fetch_add(&flood->swept_done, sweep.tally.done, __ATOMIC_RELAXED);
}

/* How many may sweep: all that get a plane of their own. */
static int sweepers(struct flood *flood)
{
    int jobs = flood->jobs < FLOOD_SWEEPERS ? flood->jobs : FLOOD_SWEEPERS;
    for (int i = 1; i < jobs; i++) {
        flood->own[i] = flood->own[i] ? flood->own[i] : bits_new(flood->count);
        if (!flood->own[i])
            return i;
    }
    return jobs;
}

/* All workers' marks into one plane; returns how many blocks wait. */
static uint64_t planes_join(struct flood *flood, int jobs)
{
    uint64_t waiting = 0;
    for (size_t word = 0; word < bits_words(flood->count); word++) {
        uint64_t marks = flood->mark[word];
        for (int i = 1; i < jobs; i++) {
            marks |= flood->own[i][word];
            flood->own[i][word] = 0; /* the next flood marks in another plane */
        }
        flood->mark[word] = marks;
        waiting += (unsigned)__builtin_popcountll(marks & ~flood->done[word]);
    }
    return waiting;
}

/* What waits, from the planes into the queue. */
static void gather(struct flood *flood)
{
    flood->queue_count = 0;
    for (size_t word = 0; word < bits_words(flood->count); word++) {
        uint64_t waiting = flood->mark[word] & ~flood->done[word];
        for (; waiting; waiting &= waiting - 1)
            flood->queue[0][flood->queue_count++] =
                (hi_block)(word * 64 + (unsigned)__builtin_ctzll(waiting));
    }
    flood->queue_full = false;
}

static void sweep_run(struct flood *flood)
{
    int jobs = sweepers(flood);
    flood->next = flood->swept_edges = flood->swept_done = 0;
    parallel_run(jobs, sweep_work, flood);
    uint64_t waiting = planes_join(flood, jobs);
    uint64_t marked = waiting + flood->swept_done - flood->pending;
    flood->followed += marked;
    flood->repeated += flood->swept_edges - marked;
    flood->pending = waiting;
    if (flood->pending <= flood->queue_capacity / 2)
        gather(flood);
}

bool flood_run(struct flood *flood)
{
    while (flood->pending) {
        if (!progress_step(flood->progress, "marking", flood->followed, flood->count))
            return false;
        if (flood->queue_full)
            sweep_run(flood);
        else
            level_run(flood);
    }
    return true;
}
