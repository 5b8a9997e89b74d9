/*
 * From roots to verdicts.
 *
 * 0. Blocks that an allocator keeps for itself are reachable and not followed.
 * 1. Seeds are the blocks that roots hold by START; the flood follows START edges and notes what
 *    reached blocks hold otherwise (a plane for each of the other kinds). Roots' own such edges are
 * noted too.
 * 2. What is noted and not reached is shown to the judge, each block once for each kind. What it
 *    accepts becomes a seed; flooding from it may note more, so this goes round until nothing new
 *    is accepted: at most once for each block and kind.
 * 3. What is noted, or held by a doubtful root, and still not reached is possible, and so is all
 * that it holds by any kind of edge and that is not reachable.
 * 4. The rest is lost: lost.c.
 *
 * Marks are final whatever the order of work was. A graph of an interrupted reading is marked like
 * any other; graph_stats.complete says what that is worth. An interrupt is heard between rounds,
 * and leaves no marks at all: a part of them would call the rest lost.
 */
#include "graph/flood.h"
#include "graph/graph_table.h"

#include <time.h>

struct marking {
    struct graph *graph;
    struct flood flood;
    uint64_t *done;
    uint64_t *noted[EDGE_KINDS]; /* by kind; START: by a doubtful root */
    uint64_t *asked[EDGE_KINDS];
    graph_judge judge;
    void *context;
};

static bool marking_new(struct marking *m, struct graph *graph)
{
    uint32_t count = blocks_count(graph->blocks);
    free(graph->reachable);
    free(graph->possible);
    graph->reachable = bits_new(count);
    graph->possible = bits_new(count);
    m->done = bits_new(count);
    bool fine = graph->reachable && graph->possible && m->done;
    for (int kind = EDGE_START; kind < EDGE_KINDS; kind++) {
        bool asks = m->judge && kind != EDGE_START;
        m->noted[kind] = bits_new(count);
        m->asked[kind] = asks ? bits_new(count) : NULL;
        fine = fine && m->noted[kind] && (m->asked[kind] || !asks);
    }
    m->flood = (struct flood){
        .edges = &graph->edges,
        .count = count,
        .jobs = graph->jobs,
        .progress = graph->progress,
        .mark = graph->reachable,
        .done = m->done,
        .record = {NULL, m->noted[EDGE_COOKIE], m->noted[EDGE_TAGGED], m->noted[EDGE_INTERIOR]},
    };
    return fine && flood_new(&m->flood);
}

static void marking_free(struct marking *m)
{
    flood_free(&m->flood);
    free(m->done);
    for (int kind = EDGE_START; kind < EDGE_KINDS; kind++) {
        free(m->noted[kind]);
        free(m->asked[kind]);
    }
}

/* What an allocator keeps for itself (stacks of cached blocks, ...) is reachable, but old pointers
 * in it hold nothing: marked and done before the flood begins. */
static void mark_kept(struct marking *m)
{
    const struct heaps *heaps = m->graph->heaps;
    struct block_place place;
    for (size_t i = 0; i < heaps->kept.count; i++) {
        if (!blocks_at(m->graph->blocks, heaps->kept.items[i].address, &place))
            continue;
        bits_set(m->graph->reachable, place.block);
        bits_set(m->done, place.block);
    }
}

static void seed_roots(struct marking *m)
{
    const struct graph *graph = m->graph;
    mark_kept(m);
    for (size_t i = 0; i < graph->root_holds.count; i++) {
        uint32_t edge = graph->root_holds.items[i].edge;
        if (hold_is_doubtful(graph, &graph->root_holds.items[i]))
            bits_set(m->noted[EDGE_START], edge_block_of(edge));
        else if (edge_kind_of(edge) == EDGE_START)
            flood_seed(&m->flood, edge_block_of(edge));
        else
            bits_set(m->noted[edge_kind_of(edge)], edge_block_of(edge));
    }
}

/* One round with the judge; true: something was accepted. */
static bool judge_round(struct marking *m)
{
    const uint64_t *reachable = m->graph->reachable;
    bool accepted = false;
    for (int kind = EDGE_COOKIE; kind < EDGE_KINDS; kind++) {
        for (size_t w = 0; w < bits_words(m->flood.count); w++) {
            uint64_t fresh = m->noted[kind][w] & ~reachable[w] & ~m->asked[kind][w];
            m->asked[kind][w] |= fresh;
            for (; fresh; fresh &= fresh - 1) {
                hi_block block = (hi_block)(w * 64 + (unsigned)__builtin_ctzll(fresh));
                if (m->judge(m->context, block, (enum edge_kind)kind))
                    accepted |= flood_seed(&m->flood, block);
            }
        }
    }
    return accepted;
}

static bool flood_reachable(struct marking *m)
{
    seed_roots(m);
    bool fine = flood_run(&m->flood);
    while (fine && m->judge && judge_round(m))
        fine = flood_run(&m->flood);
    m->graph->stats.followed = m->flood.followed;
    m->graph->stats.repeated = m->flood.repeated;
    return fine;
}

/* How many possible blocks look like what has its header before the pointer. */
static void near_count(struct marking *m)
{
    uint64_t count = 0;
    for (size_t w = 0; w < bits_words(m->flood.count); w++) {
        uint64_t near = m->noted[EDGE_COOKIE][w] | m->noted[EDGE_TAGGED][w];
        count += (uint64_t)__builtin_popcountll(near & ~m->graph->reachable[w]);
    }
    m->graph->stats.possible_near_start = count;
}

static bool flood_possible(struct marking *m)
{
    m->flood.mark = m->graph->possible;
    m->flood.stop = m->graph->reachable;
    memset(m->flood.record, 0, sizeof m->flood.record);
    for (size_t w = 0; w < bits_words(m->flood.count); w++) {
        uint64_t held = 0;
        for (int kind = EDGE_START; kind < EDGE_KINDS; kind++)
            held |= m->noted[kind][w];
        for (held &= ~m->graph->reachable[w]; held; held &= held - 1)
            flood_seed(&m->flood, (hi_block)(w * 64 + (unsigned)__builtin_ctzll(held)));
    }
    return flood_run(&m->flood);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

enum hi_code mark_failed(struct graph *graph, struct hi_err *err)
{
    free(graph->reachable);
    free(graph->possible);
    graph->reachable = graph->possible = NULL;
    graph->lost.count = 0;
    bit_rank_free(&graph->listed);
    if (progress_stopped(graph->progress))
        return hi_fail(err, HI_STOPPED, "interrupted while marking");
    return hi_no_memory(err);
}

enum hi_code graph_mark(struct graph *graph, graph_judge judge, void *context, struct hi_err *err)
{
    struct marking m = {.graph = graph, .judge = judge, .context = context};
    double start = seconds_now();
    enum hi_code code = graph_resolve(graph, err);
    if (code != HI_OK)
        return code;
    bool fine = marking_new(&m, graph) && flood_reachable(&m) && flood_possible(&m);
    if (fine)
        near_count(&m);
    marking_free(&m);
    code = fine ? lost_find(graph, err) : mark_failed(graph, err);
    graph->stats.mark_seconds = seconds_now() - start;
    return code;
}
