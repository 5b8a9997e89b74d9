/*
 * deal: the kept words of a slab's window to its blocks, as codes.
 *
 * Where all blocks of a region have one size, the block around a word is a multiplication away. A
 * word stays if its slot is live and it lies wholly in it; its code (codes.h) and its slot are put
 * down. One look at 48 million words in 10 million blocks, so there is vector code for it (AVX-512:
 * an eighth of the stop less than word by word), chosen by what the processor has. Both give the
 * same answer.
 */
#ifndef GRAPH_DEAL_H
#define GRAPH_DEAL_H

#include "graph/codes.h"

struct deal {
    const struct codes *codes;
    const uint64_t *live; /* plane */
    hi_block block;       /* slot 0: the window begins with it */
    uint32_t stride;      /* bytes, a multiple of 8, at most 32 KiB */
    uint32_t usable;      /* 8 to stride */
    bool all_live;        /* all slots that words lie in */
};

enum { DEAL_SLACK = 16 }; /* items that all arrays need beyond count */

/* offsets in bytes, below 2^18 and multiples of 8; both as filter.h gives them. Returns how many
 * stay; *unusual: one of them is not plain (codes.h), and the answer is worth nothing. */
typedef size_t (*deal_function)(const struct deal *deal, const uint32_t *offsets,
                                const uint64_t *values, size_t count, uint32_t *codes,
                                uint16_t *slots, bool *unusual);

enum deal_path { DEAL_PLAIN, DEAL_AVX512, DEAL_PATH_COUNT };
/* NULL: this machine can't. */
deal_function deal_by_path(enum deal_path path);
deal_function deal_best(void);

#endif
