/* chunk_list: every block of every heap, in address order, through a filter and one at a time. */
#ifndef ANALYSIS_CHUNK_LIST_H
#define ANALYSIS_CHUNK_LIST_H

#include "analysis/arena_index.h"
#include "analysis/inspection.h"

struct chunk {
    hi_block block;
    hi_addr address; /* what malloc returned */
    uint64_t size, usable;
    enum block_state state;
    const struct heap *heap;
    const struct arena *arena; /* NULL: unknown */
    pid_t thread;              /* 0: unknown */
    uint64_t stack_id;         /* who allocated it; 0: not known */
    uint64_t freed_stack_id;   /* not live: who freed it; 0: not known */
    bool is_sampled;           /* stands for others of its size */
    const char *tag;           /* the program's word for it; NULL: none */
};

struct chunk_filter {
    unsigned states; /* a bit each; 0: all */
    uint64_t min_bytes, max_bytes;
    bool has_arena;
    uint64_t arena_id;
    uint64_t limit; /* 0: all */
};

struct chunk_counts {
    uint64_t shown, matched;
};

/* One block in full. */
void chunk_describe(struct chunk *chunk, const struct inspection *in,
                    const struct arena_index *arenas, hi_block block);

/* Calls visit for each until it returns false; counts go on behind the limit. */
HI_MUST_USE enum hi_code chunk_list(const struct inspection *in, const struct chunk_filter *filter,
                                    bool (*visit)(void *context, const struct chunk *chunk),
                                    void *context, struct chunk_counts *counts, struct hi_err *err);

#endif
