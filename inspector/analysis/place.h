/*
 * place: what lies at an address, and what a referrer is called. Described while a live target is
 * stopped (stack frames, first words of blocks), reported later.
 */
#ifndef ANALYSIS_PLACE_H
#define ANALYSIS_PLACE_H

#include "analysis/chunk_list.h"
#include "analysis/stack_frames.h"

enum place_kind { PLACE_BLOCK, PLACE_STACK, PLACE_TLS, PLACE_DATA, PLACE_MAPPING, PLACE_NOTHING };
const char *place_kind_name(enum place_kind kind); /* as in the JSON */

enum { PLACE_NAME_SIZE = 320 };

struct place {
    hi_addr address;
    enum place_kind where;
    bool has_chunk;
    struct chunk chunk;
    uint64_t offset;            /* in the chunk */
    char name[PLACE_NAME_SIZE]; /* "": none */
};

/* What place_describe needs besides the inspection; made while the target is stopped. */
struct place_finder {
    const struct inspection *in;
    struct arena_index arenas;
    struct stack_frames frames;
};

HI_MUST_USE enum hi_code place_finder_make(struct place_finder *finder, const struct inspection *in,
                                           struct hi_err *err);
void place_finder_free(struct place_finder *finder);

void place_describe(const struct place_finder *finder, hi_addr address, struct place *place);
/* "rbx of thread 12", "server (demo)", "main's frame, thread 12 at 0x7ffd..." */
void place_root_name(const struct place_finder *finder, const struct root_edge *edge, char *buffer,
                     size_t size);

/* One thing that points to a block. */
struct referrer {
    hi_block from; /* BLOCK_NONE: a root */
    struct root_edge root;
    enum edge_kind kind;
};

/* The first most referrers (roots before blocks as they come) and the number of all. */
struct referrers {
    VECTOR(struct referrer) first;
    uint64_t count;
    size_t most;
    bool out_of_memory;
};
HI_MUST_USE enum hi_code referrers_find(struct referrers *referrers, const struct graph *graph,
                                        hi_block block, size_t most, struct hi_err *err);
void referrers_free(struct referrers *referrers);

#endif
