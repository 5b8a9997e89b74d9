/* The graph's inside, for the files of this folder; see graph.h and the theory in each. */
#ifndef GRAPH_GRAPH_TABLE_H
#define GRAPH_GRAPH_TABLE_H

#include "graph/bits.h"
#include "graph/codes.h"
#include "graph/edges.h"
#include "graph/graph.h"
#include "graph/resolve.h"

/* A root's reference. source: index into roots.ranges, and behind those into heaps.suspect; with
 * ROOT_WORD into roots.words, behind those into heaps.kept, then heaps.held. */
#define ROOT_WORD (UINT32_C(1) << 31)
struct root_hold {
    uint32_t edge;
    uint32_t source;
    hi_addr place;
};
typedef VECTOR(struct root_hold) root_holds;

struct graph {
    const struct heaps *heaps;
    const struct blocks *blocks;
    const struct roots *roots;
    int jobs;
    const struct progress *progress;
    struct graph_stats stats;
    struct edges edges;
    struct resolve resolve;
    struct codes codes; /* while is_deferred: codes stand in edges, and must be resolved */
    bool is_deferred;
    struct build *build;   /* while groups wait for the target to be let go */
    root_holds root_holds; /* by source, then place */
    /* after graph_mark */
    uint64_t *reachable, *possible;
    struct bit_rank listed; /* the blocks in lost, over a plane of its own */
    VECTOR(struct lost_block) lost;
};

/* From a part of a heap that damage made doubtful. */
static inline bool hold_is_doubtful(const struct graph *graph, const struct root_hold *hold)
{
    size_t ranges = graph->roots ? graph->roots->ranges.count : 0;
    return !(hold->source & ROOT_WORD) && hold->source >= ranges;
}

static inline enum edge_kind edge_kind_of(uint32_t edge)
{
    return (enum edge_kind)(edge & 3);
}

static inline hi_block edge_block_of(uint32_t edge)
{
    return edge >> 2;
}

/* deferred.c: codes become edges; nothing to do where none are. */
HI_MUST_USE enum hi_code graph_resolve(struct graph *graph, struct hi_err *err);
/* mark.c: interrupted, or out of memory: no marks are left. */
HI_MUST_USE enum hi_code mark_failed(struct graph *graph, struct hi_err *err);
/* lost.c: direct and indirect, after the marks are final. */
HI_MUST_USE enum hi_code lost_find(struct graph *graph, struct hi_err *err);

#endif
