/*
 * Breadth first where little is waiting, sweeps in address order where much is.
 *
 * Sparse: a queue of the blocks of this level and one of the next. Below 2048 blocks one thread
 * does it (a list has a level a node: starting threads would cost more than the node), above it
 * workers take pieces of the queue. Degrees and edges of blocks further on are fetched ahead.
 *
 * Dense: when a level outgrows the queue (1/256 of all blocks), the queue is dropped: what waits
 * is what is marked and not done, and the planes know it. Workers take ranges of the planes and
 * follow what waits there, in address order, so that degrees and edges stream; what they mark
 * further on in the same sweep is met in the same sweep. A heap of ten million blocks at random
 * takes a few sweeps. When little is left waiting, it is gathered into the queue again.
 *
 * So memory is two bits a block and the small queue. In a sweep a word of done is written by the
 * worker alone that has the range; in the sparse mode, and for mark at all times, bits are raised
 * atomically. Order never shows in the result.
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
    if (queue)
        queue_push(flood, queue, target);
}

static inline void block_follow(struct flood *flood, hi_block block, uint32_t *queue,
                                struct tally *tally)
{
    for (struct edge_run r = edges_first(flood->edges, block); r.count;
         edges_next(flood->edges, &r))
        for (uint32_t i = 0; i < r.count; i++) {
            /* in a sweep the next block's edges follow: look beyond the end */
            hi_block ahead = r.words[i + EDGES_AHEAD] >> 2;
            __builtin_prefetch(&flood->mark[ahead / 64]);
            edge_follow(flood, r.words[i], queue, tally);
        }
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

static void sweep_word(struct flood *flood, size_t word, struct tally *tally)
{
    uint64_t waiting;
    while ((waiting = bits_load(flood->mark, word) & ~flood->done[word])) {
        flood->done[word] |= waiting;
        for (; waiting; waiting &= waiting - 1) {
            hi_block block = (hi_block)(word * 64 + (unsigned)__builtin_ctzll(waiting));
            block_follow(flood, block, NULL, tally);
        }
    }
}

static void sweep_work(void *context, int worker)
{
    struct flood *flood = context;
    struct tally tally = {0};
    size_t words = bits_words(flood->count), from;
    (void)worker;
    while ((from = __atomic_fetch_add(&flood->next, SWEEP_WORDS, __ATOMIC_RELAXED)) < words) {
        size_t to = from + SWEEP_WORDS < words ? from + SWEEP_WORDS : words;
        for (size_t word = from; word < to; word++)
            sweep_word(flood, word, &tally);
    }
    tally_add(flood, &tally);
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
    flood->next = 0;
    parallel_run(flood->jobs, sweep_work, flood);
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
