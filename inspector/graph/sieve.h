/*
 * sieve: codes and degrees of a slab without free slots, in one go.
 *
 * Where all slots live and fill their stride every word belongs to a block, so it need not be known
 * where a kept word stood, only how many stood in each slot. So words go straight from the window
 * to codes (codes.h), and leave a bit each; degrees are counts of bits. That is the filter
 * (filter.h) and dealing (deal.h) without what lies between them: a tenth of the stop.
 *
 * Codes come from an addition, so the words must point into GiBs that have consecutive numbers, and
 * to the grid of 8 bytes. Where one does not, the long way is gone.
 */
#ifndef GRAPH_SIEVE_H
#define GRAPH_SIEVE_H

#include "graph/codes.h"
#include "graph/filter.h"

struct sieve {
    struct filter_rule rule;
    hi_addr start;  /* of the first of the GiBs, of the longest stretch that there is */
    uint64_t bytes; /* of all */
    uint32_t first; /* code of its first place */
};

enum { SIEVE_SLACK = 16, SIEVE_BITS_SLACK = 2 }; /* items that the output arrays need beyond */

/* codes: of all words that the rule keeps, in order; bits: one a word, in words of 64. Returns how
 * many were kept; *unusual: one of them has another code, and the answer is worth nothing. */
typedef size_t (*sieve_function)(const struct sieve *sieve, const void *bytes, size_t word_count,
                                 uint32_t *codes, uint64_t *bits, bool *unusual);

/* The bits of each slot of stride words, counted: at most 254. */
typedef void (*sieve_count_function)(const uint64_t *bits, uint32_t stride, uint32_t slots,
                                     uint8_t *degrees);

/* For these codes. */
struct sieve sieve_new(const struct filter_rule *rule, const struct codes *codes);
/* NULL: this machine can't (it needs AVX-512). */
sieve_function sieve_best(void);
sieve_count_function sieve_count_best(void);

#endif
