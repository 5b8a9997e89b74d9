/*
 * resolve: from a word to an edge: which live block, and which part of it.
 *
 *   START     its start; a place in it where the allocator may have put what it handed out
 *             (region.interior_ok); one past the end of what was asked, which lies in the last
 *             slack bytes or right behind them, but only where no other block starts, whatever
 *             its state; any place in a NODE (a mapping is held by its middle as well)
 *   COOKIE    8 or 16 bytes in
 *   TAGGED    1 to 7 bytes in
 *   INTERIOR  elsewhere
 */
#ifndef GRAPH_RESOLVE_H
#define GRAPH_RESOLVE_H

#include "graph/edges.h"
#include "graph/graph.h"

struct resolve {
    const struct blocks *blocks;
    const uint64_t *live;
    bool interior_reachable;
};

/* The edge word, or EDGE_NONE: no live block there. */
uint32_t resolve_word(const struct resolve *resolve, hi_addr word);
/* edges[i] = resolve_word(words[i]); how many are none. */
size_t resolve_words(const struct resolve *resolve, const uint64_t *words, size_t count,
                     uint32_t *edges);

#endif
