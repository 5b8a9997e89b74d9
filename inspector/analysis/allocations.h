/*
 * allocations: who holds the memory: live (or lost) blocks by the call stack that allocated them.
 *
 * Where an allocator keeps the stack of every block, the sums are exact. Where it keeps those of a
 * sample, one of `sample_bytes` on average, a block of s bytes was picked with probability
 * 1 - exp(-s / sample_bytes), so each stands for 1 / that many of its size: estimated sums. Blocks
 * without a stack are not estimated twice: beside samples they are what samples stand for.
 */
#ifndef ANALYSIS_ALLOCATIONS_H
#define ANALYSIS_ALLOCATIONS_H

#include "analysis/leaks.h"

struct allocation {
    uint16_t heap;
    uint64_t stack_id; /* 0: not known */
    enum mark kind;    /* MARK_NOT_LIVE: not asked; else MARK_DIRECT or MARK_INDIRECT */
    uint64_t size;     /* of each block; lost ones: on average; 0 after allocations_by_stack() */
    bool is_sampled;
    struct blocks_total counted; /* blocks that there are */
    double blocks, bytes;        /* what they stand for */
};

struct allocations {
    VECTOR(struct allocation) items;
    struct blocks_total exact, sampled, unknown; /* counted: with a stack; samples; without one */
    double blocks, bytes;                        /* of all items */
    uint64_t sample_bytes;                       /* of the first heap that samples; 0: none does */
};

/* Live blocks; when some are samples, those without a stack are left out of the items. */
HI_MUST_USE enum hi_code allocations_live(struct allocations *all, const struct inspection *in,
                                          struct hi_err *err);
/* Lost blocks, direct and indirect, each as itself. */
HI_MUST_USE enum hi_code allocations_lost(struct allocations *all, const struct leaks *leaks,
                                          struct hi_err *err);
/* Join what differs in size (and kind) only; by bytes, falling. */
void allocations_by_stack(struct allocations *all);
/* Nothing but samples: their numbers may be passed on as they are, to be scaled by the reader. */
bool allocations_are_samples(const struct allocations *all);
void allocations_free(struct allocations *all);

#endif
