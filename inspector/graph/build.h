/* Shared by the parts of building: build.c (driver), build_groups.c, build_slab.c,
 * build_harvest.c, build_large.c, build_roots.c.
 * Theory in build.c. */
#ifndef GRAPH_BUILD_H
#define GRAPH_BUILD_H

#include "base/parallel.h"
#include "graph/deal.h"
#include "graph/graph_table.h"
#include "graph/harvest.h"
#include "graph/resolve.h"
#include "graph/sieve.h"
#include "graph/window.h"

enum {
    BUILD_GROUP = 2048,           /* blocks that a worker takes at a time; whole clusters */
    BUILD_LARGE_BYTES = 64 << 10, /* larger blocks are read in parts */
    BUILD_PART_BYTES = 16 << 20,
};

/* A live block in the window. */
struct build_block {
    hi_block block;
    hi_addr address;
    uint64_t usable;
    uint32_t kept; /* words of it that passed the filter */
};

/* Something to be read in parts: a large block or NODE, or a piece of a root range. */
struct build_extent {
    hi_addr start, end;
    uint32_t owner; /* block, or index into roots.ranges */
    uint64_t parts; /* of all extents before this one */
};
typedef VECTOR(struct build_extent) build_extents;

/* A place in a piece of a harvest, and the codes before it. */
struct build_counter {
    const struct harvest_piece *piece; /* NULL: nowhere */
    const uint64_t *bits;
    uint64_t word, before;
};

struct build_worker {
    struct window window;
    struct build_counter counter;
    uint32_t *results; /* one a kept word of the window */
    uint32_t *group;   /* edges of the group at hand */
    size_t group_count;
    hi_addr group_end;  /* start of its last block */
    uint32_t harvested; /* clusters of the group whose edges are in place: a bit each */
    struct build_block *list;
    size_t list_count;
    uint32_t most_kept;        /* by one block of the list */
    uint16_t *slots;           /* of the kept words, in a slab */
    uint16_t *ends;            /* of each slot's words, in a window */
    uint64_t *bits;            /* of the words that the sieve kept */
    uint32_t sieved, unsieved; /* slabs that were for the sieve, and that were not */
    build_extents large;
    VECTOR(struct fat_part) fat;
    root_holds holds;
    uint64_t words, kept, resolved;
};

struct build {
    struct graph *graph;
    struct target *target;
    const struct graph_options *options;
    struct harvest *harvest; /* or NULL */
    uint64_t words_touched;  /* of the first edges, beforehand */
    uint8_t *waiting;        /* groups for when the target runs again; NULL: none can wait */
    bool target_is_gone;
    bool has_popcount; /* the processor's */
    struct resolve resolve;
    struct filter_rule rule;
    deal_function deal;
    struct sieve sieve;
    sieve_function sieve_words; /* NULL: it must be the long way, as for counting */
    sieve_count_function sieve_count;
    hole_list holes;
    build_extents large, roots;
    struct build_worker workers[PARALLEL_MAX_JOBS];
    /* shared by threads */
    uint64_t next;
    bool no_memory, stopped;
    bool deferred; /* build_resolve() gives codes */
};

/* Work of one worker: pass to parallel_run with struct build. */
void build_groups(void *build, int worker);
void build_waiting_groups(void *build, int worker);
void build_large(void *build, int worker);
void build_roots(void *build, int worker);

/* results[i] = edge of values[i], or its code, for the first count of the window. How many are
 * none.
 */
size_t build_resolve(struct build *build, struct build_worker *worker, size_t count);
/* build_slab.c: the short way for slabs of small blocks; their edges -> the group, degrees. */
bool build_slab_fits(const struct build *build, const struct region *region);
void build_slab(struct build *build, struct build_worker *w, const struct region *region,
                hi_block block, hi_block end);
/* build_harvest.c: the cluster that the cursor stands on the first block of, all of one region.
 * true: done, the cursor is behind it, or *fine is false: out of memory. */
bool build_harvested(struct build *build, struct build_worker *w, struct block_cursor *cursor,
                     bool *fine);
/* Need the edges of a whole group nothing of the target but what was kept? */
bool build_may_wait(const struct build *build, hi_block first, hi_block end);
/* What waited, and the sums: all that is left of building. The target may run. Frees build. */
HI_MUST_USE enum hi_code build_finish(struct build *build, struct hi_err *err);
void build_free(struct build *build);
/* true: give up (memory out, interrupt); shared by all workers. */
bool build_ended(struct build *build, const char *phase, uint64_t done, uint64_t total);
/* Number the parts of extents; returns how many. */
uint64_t build_number_parts(build_extents *extents);
/* The extent that part lies in, and its range. */
const struct build_extent *build_part(const build_extents *extents, uint64_t part,
                                      struct hi_range *range);
/* roots less heaps and metadata -> build->roots, build->holes; words -> root holds. */
bool build_roots_prepare(struct build *build);

#endif
