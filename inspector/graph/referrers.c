/* Who points to a block: one pass over all edges, which stream; no reverse graph is kept. */
#include "graph/graph_table.h"

typedef bool (*referrer_visit)(void *context, hi_block from, enum edge_kind kind,
                               const struct root_edge *root);

static bool roots_visit(const struct graph *graph, hi_block block, referrer_visit visit,
                        void *context)
{
    for (size_t i = 0; i < graph->root_holds.count; i++) {
        if (edge_block_of(graph->root_holds.items[i].edge) != block)
            continue;
        struct root_edge root = graph_root_edge(graph, i);
        if (!visit(context, BLOCK_NONE, root.kind, &root))
            return false;
    }
    return true;
}

static bool block_visit(const struct graph *graph, hi_block from, hi_block block,
                        referrer_visit visit, void *context)
{
    for (struct edge_run r = edges_first(&graph->edges, from); r.count;
         edges_next(&graph->edges, &r))
        for (uint32_t i = 0; i < r.count; i++)
            if (edge_block_of(r.words[i]) == block &&
                !visit(context, from, edge_kind_of(r.words[i]), NULL))
                return false;
    return true;
}

void graph_referrers(const struct graph *graph, hi_block block, referrer_visit visit, void *context)
{
    uint32_t count = blocks_count(graph->blocks);
    if (!roots_visit(graph, block, visit, context))
        return;
    for (hi_block from = 0; from < count; from++)
        if (graph->edges.degrees[from] && !block_visit(graph, from, block, visit, context))
            return;
}
