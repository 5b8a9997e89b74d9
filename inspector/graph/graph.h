/*
 * graph: which block points to which, and what the roots hold.
 *
 * Built in one pass over the target's memory, in address order, through buffers that stay in cache:
 * no copy of the heap, no chasing of pointers in target memory. Each buffer is filtered for words
 * that could be addresses of blocks (vector code chosen at run time, plain fallback), each such
 * word is resolved to a block, and what remains is 4 bytes an edge in a CSR. After graph_build()
 * the target's memory is not needed any more and a live target can be let go.
 *
 * An edge has a kind: what part of the block the word points to.
 *   EDGE_START     its start, one past its end (see blocks.h), inside where interior_ok, or
 *                  anywhere in a NODE
 *   EDGE_COOKIE    8 or 16 bytes in: new T[n] keeps its count there
 *   EDGE_TAGGED    1 to 7 bytes in: a flag in the low bits of a pointer (colours of tree nodes)
 *   EDGE_INTERIOR  elsewhere
 * With --interior=reachable all count as START. --unaligned also reads words at every byte.
 *
 * Sources: live blocks and NODEs (free and cached blocks never hold references). Root ranges less
 * heap blocks and nodes go to root edges, kept with their place, so that "who holds this" can be
 * answered. Metadata ranges hold no references, also where they lie in a block. A stack range that
 * starts in a block or NODE (SP less the red zone) holds that block; what the block holds are its
 * own edges, in a block of a heap only from there on.
 *
 * Suspect parts of damaged heaps (heaps.suspect) are doubtful roots: what is there may be live.
 *
 * Marks: graph_mark() finds
 *   reachable  from roots by START edges
 *   possible   reached only with an edge of another kind (or from a doubtful root) on the way
 *   direct     unreachable; one for each source strongly connected component of the lost graph
 *              (lowest address in a ring), over edges of any kind
 *   indirect   unreachable, held by other lost blocks; belongs to the direct one that reached it
 *              first in address order
 * A NODE is none of these: what only an unreachable NODE holds is direct, unless lost blocks hold
 * the NODE, which then passes their hold on.
 * Before that settles, blocks that are held, but by START edges nowhere, are shown to a judge
 * (language rules: array cookies, multiple inheritance, exception objects, tree nodes); what it
 * accepts counts as held by its start.
 *
 * Memory: 4 bytes an edge + 1.2 a block, under a byte a block for marks, 12 bytes a lost block.
 * Interrupted or missing input gives a graph of what was read, and says so (graph_stats.complete);
 * verdicts from it are not to be trusted, for what was not read holds nothing.
 *
 * heaps and roots must outlive the graph.
 */
#ifndef GRAPH_GRAPH_H
#define GRAPH_GRAPH_H

#include "heap/heap.h"
#include "symbols/roots.h"

enum edge_kind { EDGE_START, EDGE_COOKIE, EDGE_TAGGED, EDGE_INTERIOR, EDGE_KINDS };

struct graph_options {
    int jobs;                /* 0: all processors */
    bool interior_reachable; /* --interior=reachable */
    bool unaligned;
    uint64_t tag_mask; /* bits cleared in every word before it is looked up */
    bool deferred;     /* words are only collected, and looked up by graph_mark(): the target need
                          not stand still for that. Until then edges can't be asked for. */
    struct harvest *harvest; /* words kept while the heaps were walked (harvest.h), with deferred;
                                graph_build() takes it over; NULL: none */
    const struct progress *progress;
};

struct graph_stats {
    uint64_t words;        /* aligned words looked at */
    uint64_t outside_heap; /* filtered out */
    uint64_t not_a_block;  /* in the heaps' span but no live block there */
    uint64_t repeated;     /* of roots and what they hold: to a block that was marked already */
    uint64_t followed;     /* marked a block */
    uint64_t edges, root_edges;
    uint64_t missing_bytes; /* of live blocks, nodes and root ranges: not in the dump */
    /* of those: not known to be missing before they were read (a file that is gone) */
    uint64_t unread_ranges, unread_bytes;
    uint64_t possible_near_start; /* possible blocks that something reachable holds by a pointer 1
                                     to 8 or 16 bytes behind their start */
    double read_seconds, mark_seconds;
    bool complete; /* not interrupted */
};

struct graph;

HI_MUST_USE enum hi_code graph_build(struct graph **graph, struct target *target,
                                     const struct heaps *heaps, const struct roots *roots,
                                     const struct graph_options *options, struct hi_err *err);
void graph_free(struct graph *graph);
const struct graph_stats *graph_stats(const struct graph *graph);

/* Edges out of a block: target block and kind of edge i in [0, count). */
struct graph_edge {
    hi_block block;
    enum edge_kind kind;
};
uint32_t graph_edge_count(const struct graph *graph, hi_block block);
struct graph_edge graph_edge(const struct graph *graph, hi_block block, uint32_t i);

/* A word outside of heaps that points to a block. */
struct root_edge {
    enum root_class class;
    enum edge_kind kind;
    hi_block block;
    uint32_t source;  /* index into roots.ranges or, where name is given, roots.words; behind those
                         into heaps.suspect; or into heaps.kept, then heaps.held */
    hi_addr place;    /* where the word lies; 0: a register, a kept word, a stack in the block */
    const char *name; /* of a word: "rbx", "dtv", "tcache"; NULL: a range */
};
size_t graph_root_edge_count(const struct graph *graph);
struct root_edge graph_root_edge(const struct graph *graph, size_t i);

/* NOT_LIVE also for a NODE that nothing reaches. */
enum mark { MARK_REACHABLE, MARK_POSSIBLE, MARK_DIRECT, MARK_INDIRECT, MARK_NOT_LIVE };

/* Is what points into block (kind: any but START) a thing that the language does? Asked from one
 * thread, once for each block and kind, while a live target may already be released. NULL: nothing
 * is accepted. */
typedef bool (*graph_judge)(void *context, hi_block block, enum edge_kind kind);

/* HI_STOPPED: interrupted; then nothing is marked. */
HI_MUST_USE enum hi_code graph_mark(struct graph *graph, graph_judge judge, void *context,
                                    struct hi_err *err);
enum mark graph_mark_of(const struct graph *graph, hi_block block);
/* For INDIRECT: the direct block that it hangs off. DIRECT: itself. else BLOCK_NONE. */
hi_block graph_leader(const struct graph *graph, hi_block block);
/* All lost (DIRECT, INDIRECT) and POSSIBLE blocks, in address order. */
struct lost_block {
    hi_block block, leader;
    enum mark mark;
};
size_t graph_lost_count(const struct graph *graph);
struct lost_block graph_lost(const struct graph *graph, size_t i);

/* Blocks and roots that point to block: calls visit for each until it returns false. One pass over
 * the edges. from == BLOCK_NONE: a root edge, *root is set. */
void graph_referrers(const struct graph *graph, hi_block block,
                     bool (*visit)(void *context, hi_block from, enum edge_kind kind,
                                   const struct root_edge *root),
                     void *context);

#endif
