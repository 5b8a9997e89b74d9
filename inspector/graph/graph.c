/* What can be asked of a graph; see graph.h. */
#include "graph/build.h"

void graph_free(struct graph *graph)
{
    if (!graph)
        return;
    build_free(graph->build);
    edges_free(&graph->edges);
    codes_free(&graph->codes);
    VECTOR_FREE(&graph->root_holds);
    free(graph->reachable);
    free(graph->possible);
    bit_rank_free(&graph->listed);
    VECTOR_FREE(&graph->lost);
    free(graph);
}

const struct graph_stats *graph_stats(const struct graph *graph)
{
    return &graph->stats;
}

uint32_t graph_edge_count(const struct graph *graph, hi_block block)
{
    return block < blocks_count(graph->blocks) ? edges_count(&graph->edges, block) : 0;
}

struct graph_edge graph_edge(const struct graph *graph, hi_block block, uint32_t i)
{
    uint32_t edge = edges_word(&graph->edges, block, i);
    return (struct graph_edge){edge_block_of(edge), edge_kind_of(edge)};
}

size_t graph_root_edge_count(const struct graph *graph)
{
    return graph->root_holds.count;
}

struct root_edge graph_root_edge(const struct graph *graph, size_t i)
{
    const struct root_hold *hold = &graph->root_holds.items[i];
    struct root_edge edge = {
        .kind = edge_kind_of(hold->edge),
        .block = edge_block_of(hold->edge),
        .source = hold->source & ~ROOT_WORD,
        .place = hold->place,
    };
    const struct heaps *heaps = graph->heaps;
    size_t words = graph->roots ? graph->roots->words.count : 0;
    if (hold->source & ROOT_WORD && edge.source >= words) {
        size_t own = edge.source - words;
        edge.class = ROOT_KEPT;
        edge.name = own < heaps->kept.count ? heaps->kept.items[own].name
                                            : heaps->held.items[own - heaps->kept.count].name;
        return edge;
    }
    if (hold_is_doubtful(graph, hold)) {
        edge.class = ROOT_SUSPECT;
        return edge;
    }
    if (!graph->roots) /* then there are no others */
        return edge;
    if (hold->source & ROOT_WORD) {
        edge.class = graph->roots->words.items[edge.source].class;
        edge.name = graph->roots->words.items[edge.source].name;
    } else {
        edge.class = graph->roots->ranges.items[edge.source].class;
    }
    return edge;
}

/* The entry of a lost or possible block, or NULL. */
static const struct lost_block *lost_of(const struct graph *graph, hi_block block)
{
    if (!graph->listed.plane || block >= blocks_count(graph->blocks) ||
        !bits_get(graph->listed.plane, block))
        return NULL;
    return &graph->lost.items[bit_rank_of(&graph->listed, block)];
}

enum mark graph_mark_of(const struct graph *graph, hi_block block)
{
    if (!graph->reachable || block >= blocks_count(graph->blocks))
        return MARK_NOT_LIVE;
    if (bits_get(graph->reachable, block))
        return MARK_REACHABLE;
    if (bits_get(graph->possible, block))
        return MARK_POSSIBLE;
    const struct lost_block *lost = lost_of(graph, block);
    return lost ? lost->mark : MARK_NOT_LIVE;
}

hi_block graph_leader(const struct graph *graph, hi_block block)
{
    const struct lost_block *lost = lost_of(graph, block);
    return lost ? lost->leader : BLOCK_NONE;
}

size_t graph_lost_count(const struct graph *graph)
{
    return graph->lost.count;
}

struct lost_block graph_lost(const struct graph *graph, size_t i)
{
    return graph->lost.items[i];
}
