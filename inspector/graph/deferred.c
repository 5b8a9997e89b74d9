/*
 * Looking up what was only collected while the target stood still.
 *
 * The graph is whole already but for one thing: where edges should stand there are codes. They are
 * resolved where they lie, cluster by cluster and fat part by fat part; where some come to nothing
 * the others move together, degrees shrink, and what is left over at the end of a cluster is never
 * asked for. Clusters and parts share nothing, so workers take them in groups from a counter.
 */
#include "graph/build.h"

enum { DEFERRED_CLUSTERS = 64 }; /* that a worker takes at a time */

struct deferred {
    struct graph *graph;
    uint64_t next; /* shared, as are the others */
    uint64_t none;
    bool stopped;
};

/* The edges that there are, to the front; how many. */
static uint32_t close_up(uint32_t *edges, uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        edges[kept] = edges[i];
        kept += edges[i] != EDGE_NONE;
    }
    return kept;
}

static size_t cluster_resolve(struct graph *graph, size_t cluster)
{
    struct edges *edges = &graph->edges;
    uint8_t *degrees = &edges->degrees[cluster * EDGES_CLUSTER];
    uint32_t *from = &edges->words[edges->bases[cluster]], *to = from;
    uint32_t last = degrees[EDGES_CLUSTER - 1];
    uint32_t count = edges_degree_sum(degrees, EDGES_CLUSTER - 1) + (last == EDGES_FAT ? 0 : last);
    size_t none = codes_resolve(&graph->codes, &graph->resolve, from, count);
    for (unsigned i = 0; none && i < EDGES_CLUSTER; i++) {
        uint32_t degree = degrees[i] == EDGES_FAT ? 0 : degrees[i];
        uint32_t kept = close_up(from, degree);
        memmove(to, from, kept * sizeof *to);
        degrees[i] = degrees[i] == EDGES_FAT ? EDGES_FAT : (uint8_t)kept;
        from += degree;
        to += kept;
    }
    return none;
}

static size_t part_resolve(struct graph *graph, struct fat_part *part)
{
    uint32_t *words = &graph->edges.words[part->base];
    size_t none = codes_resolve(&graph->codes, &graph->resolve, words, part->count);
    if (none)
        part->count = close_up(words, part->count);
    return none;
}

static void deferred_work(void *context, int worker)
{
    struct deferred *d = context;
    struct graph *graph = d->graph;
    const struct edges *edges = &graph->edges;
    uint64_t clusters = blocks_count(graph->blocks) / EDGES_CLUSTER + 1;
    uint64_t total = clusters + edges->fat.count, from, none = 0;
    (void)worker;
    while ((from = __atomic_fetch_add(&d->next, DEFERRED_CLUSTERS, __ATOMIC_RELAXED)) < total) {
        if (!progress_step(graph->progress, "looking up", from, total))
            __atomic_store_n(&d->stopped, true, __ATOMIC_RELAXED);
        if (__atomic_load_n(&d->stopped, __ATOMIC_RELAXED))
            break;
        for (uint64_t i = from; i < from + DEFERRED_CLUSTERS && i < total; i++)
            if (i < clusters)
                none += cluster_resolve(graph, i);
            else
                none += part_resolve(graph, &edges->fat.items[i - clusters]);
    }
    __atomic_fetch_add(&d->none, none, __ATOMIC_RELAXED);
}

enum hi_code graph_resolve(struct graph *graph, struct hi_err *err)
{
    struct deferred d = {.graph = graph};
    if (!graph->is_deferred)
        return HI_OK;
    struct build *build = graph->build;
    graph->build = NULL;
    enum hi_code code = build ? build_finish(build, err) : HI_OK;
    if (code != HI_OK)
        return code;
    if (!codes_ready(&graph->codes, graph->blocks))
        return hi_no_memory(err);
    parallel_run(graph->jobs, deferred_work, &d);
    graph->is_deferred = false;
    codes_free(&graph->codes);
    if (d.stopped) {
        graph->stats.complete = false;
        return hi_fail(err, HI_STOPPED, "interrupted while looking up references");
    }
    edges_seal(&graph->edges);
    graph->stats.edges -= d.none;
    graph->stats.not_a_block += d.none;
    return HI_OK;
}
