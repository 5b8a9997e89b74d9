/*
 * rank: which 16-byte granules of a region start a block, and how many start before each.
 *
 * A line is one cache line: a head word and seven words of granule bits. The head has the number of
 * starts before the line (32 bits) and, 9 bits each, how many are in the line's first two, four and
 * six words, so that the ordinal of the block around an address takes one line and two population
 * counts; no start array and no search. Where the answer lies in another line (a block larger than
 * 7168 bytes) the counts are galloped over, so a block of gigabytes costs a logarithm and not a
 * scan.
 *
 * Built in rising order by rank_push(); rank_seal() writes the sentinel line. Memory: 0.89% of the
 * extent, touched only as far as the last start.
 */
#ifndef HEAP_RANK_H
#define HEAP_RANK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RANK_GRANULE_BYTES = 16, RANK_LINE_BITS = 448, RANK_FIRST_BIT = 64 };
#define RANK_NONE UINT64_MAX

struct rank_line {
    uint64_t words[8]; /* words[0]: the head */
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

/* Starts one after the other, 1 ns each. */
struct rank_scan {
    const struct rank *rank;
    uint64_t granule; /* of the lowest bit of the word at hand: a multiple of 64, as lines are */
    uint64_t left;    /* its starts that were not given yet */
};
/* The first that it gives is the first start after granule. */
void rank_scan_after(struct rank_scan *scan, const struct rank *rank, uint64_t granule);
bool rank_scan_word(struct rank_scan *scan); /* on to the next word with starts; false: none */

static inline uint64_t rank_scan_next(struct rank_scan *scan)
{
    if (!scan->left && !rank_scan_word(scan))
        return RANK_NONE;
    uint64_t found = scan->granule + (unsigned)__builtin_ctzll(scan->left);
    scan->left &= scan->left - 1;
    return found;
}

static inline uint32_t rank_line_count(const struct rank_line *line)
{
    return (uint32_t)line->words[0];
}

/* i: 1 to 7 for granule bits; 0 has none. */
static inline uint64_t rank_line_word(const struct rank_line *line, unsigned i)
{
    return i ? line->words[i] : 0;
}

enum { RANK_PAIR_BITS = 9 };

/* Starts in the line's words before word i, 1 to 7. */
static inline uint32_t rank_line_before(const struct rank_line *line, unsigned i)
{
    unsigned pair = (i - 1) / 2;
    uint64_t pairs = line->words[0] >> 32 << RANK_PAIR_BITS; /* none before the first pair */
    uint32_t count = (uint32_t)(pairs >> pair * RANK_PAIR_BITS) & ((1 << RANK_PAIR_BITS) - 1);
    uint64_t other = i % 2 ? 0 : line->words[i - 1]; /* the pair's first word */
    return count + (uint32_t)__builtin_popcountll(other);
}

#endif
