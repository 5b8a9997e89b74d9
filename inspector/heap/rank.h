/*
 * rank: which 16-byte granules of a region start a block, and how many start before each.
 *
 * A line is one cache line: the number of starts before it (32 bits) and 480 bits of granules. The
 * ordinal of the block around an address takes one line; no start array and no search. Where the
 * answer lies in another line (a block larger than 7680 bytes) the counts are galloped over, so a
 * block of gigabytes costs a logarithm and not a scan.
 *
 * Built in rising order by rank_push(); rank_seal() writes the sentinel line. Memory: 0.83% of the
 * extent, touched only as far as the last start.
 */
#ifndef HEAP_RANK_H
#define HEAP_RANK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RANK_GRANULE_BYTES = 16, RANK_LINE_BITS = 480, RANK_FIRST_BIT = 32 };
#define RANK_NONE UINT64_MAX

struct rank_line {
    uint64_t words[8]; /* low half of words[0]: starts before this line */
} __attribute__((aligned(64)));

struct rank {
    struct rank_line *lines; /* line_count used ones and the sentinel */
    size_t line_count;       /* lines up to the last start */
    size_t mapped_bytes;     /* 0: from the heap */
    uint64_t granule_count;  /* extent */
    uint64_t last;           /* granule of the last start, or RANK_NONE */
    uint32_t start_count;
};

bool rank_new(struct rank *rank, uint64_t extent_bytes); /* false: out of memory */
void rank_free(struct rank *rank);
/* granule must lie in the extent and after the last one; false otherwise. */
bool rank_push(struct rank *rank, uint64_t granule);
void rank_seal(struct rank *rank);

/* Starts at or before granule (any value). */
uint32_t rank_until(const struct rank *rank, uint64_t granule);
/* Granule of the first start after granule, or RANK_NONE. */
uint64_t rank_next(const struct rank *rank, uint64_t granule);
/* Granule of the last start at or before granule, or RANK_NONE. */
uint64_t rank_previous(const struct rank *rank, uint64_t granule);
/* Granule of start number ordinal (0-based), or RANK_NONE. */
uint64_t rank_select(const struct rank *rank, uint32_t ordinal);

static inline uint32_t rank_line_count(const struct rank_line *line)
{
    return (uint32_t)line->words[0];
}

static inline uint64_t rank_line_word(const struct rank_line *line, unsigned i)
{
    return i ? line->words[i] : line->words[0] & ~UINT64_C(0xffffffff);
}

#endif
