/*
 * flood: mark everything that can be reached from seeds.
 *
 * mark grows: a block is marked once, then its edges are followed once (done). With record, only
 * START edges are followed, and targets of the other kinds are noted in record[kind]; without, all
 * kinds are followed. Blocks in stop are never marked.
 */
#ifndef GRAPH_FLOOD_H
#define GRAPH_FLOOD_H

#include "graph/bits.h"
#include "graph/edges.h"
#include "graph/graph.h"

enum { FLOOD_SWEEPERS = 8 };

struct flood {
    const struct edges *edges;
    uint32_t count; /* blocks */
    int jobs;
    const struct progress *progress;
    uint64_t *mark, *done;
    const uint64_t *stop;         /* or NULL */
    uint64_t *record[EDGE_KINDS]; /* by edge kind; [EDGE_COOKIE] NULL: follow all */
    uint64_t followed, repeated;
    /* private */
    uint32_t *queue[2];
    uint32_t queue_capacity, queue_count;
    bool queue_full;  /* marked blocks are missing in the queue: only planes know them all */
    uint64_t pending; /* marked and not done */
    uint64_t next, swept_edges, swept_done;
    uint32_t next_count;
    uint64_t *own[FLOOD_SWEEPERS]; /* by worker; [0] is never there */
};

/* mark, done, stop and record are set by the caller (done: zeroed, or of a flood before whose marks
 * are in stop). false: out of memory. */
bool flood_new(struct flood *flood);
void flood_free(struct flood *flood);
bool flood_seed(struct flood *flood, hi_block block); /* false: was marked or is in stop */
HI_MUST_USE bool flood_run(struct flood *flood);      /* false: interrupted */

#endif
