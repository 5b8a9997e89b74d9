/*
 * bits: planes of one bit a block, and the rank of a bit in a plane.
 *
 * Marks are set by several threads at once; order does not matter (a bit only ever goes up while
 * threads run), so relaxed operations do. A plane has a spare word at its end.
 */
#ifndef GRAPH_BITS_H
#define GRAPH_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static inline size_t bits_words(uint32_t count)
{
    return (size_t)count / 64 + 1;
}

static inline uint64_t *bits_new(uint32_t count)
{
    return calloc(bits_words(count), sizeof(uint64_t));
}

static inline bool bits_get(const uint64_t *plane, uint32_t i)
{
    return plane[i / 64] >> i % 64 & 1;
}

static inline void bits_set(uint64_t *plane, uint32_t i)
{
    plane[i / 64] |= UINT64_C(1) << i % 64;
}

static inline void bits_clear(uint64_t *plane, uint32_t i)
{
    plane[i / 64] &= ~(UINT64_C(1) << i % 64);
}

static inline uint64_t bits_load(const uint64_t *plane, size_t word)
{
    return __atomic_load_n(&plane[word], __ATOMIC_RELAXED);
}

/* true: it was clear, and this call set it */
static inline bool bits_raise(uint64_t *plane, uint32_t i)
{
    uint64_t bit = UINT64_C(1) << i % 64;
    return !(__atomic_fetch_or(&plane[i / 64], bit, __ATOMIC_RELAXED) & bit);
}

static inline bool bits_any(const uint64_t *plane, uint32_t count)
{
    for (size_t w = 0; w < bits_words(count); w++)
        if (plane[w])
            return true;
    return false;
}

/* First set bit at or after i and below count; count: none. */
static inline uint32_t bits_from(const uint64_t *plane, uint32_t i, uint32_t count)
{
    if (i >= count)
        return count;
    size_t w = i / 64, words = bits_words(count);
    uint64_t word = plane[w] & ~UINT64_C(0) << i % 64;
    while (!word) {
        if (++w >= words)
            return count;
        word = plane[w];
    }
    uint64_t found = (uint64_t)w * 64 + (unsigned)__builtin_ctzll(word);
    return found < count ? (uint32_t)found : count;
}

/* Numbers the set bits of a plane 0.. in order: half a byte a hundred blocks more than the plane.
 */
struct bit_rank {
    uint64_t *plane;  /* owned */
    uint32_t *before; /* set bits before each word */
    uint32_t count;   /* set bits in all */
};

/* Takes plane over, also when it fails (out of memory). */
static inline bool bit_rank_new(struct bit_rank *rank, uint64_t *plane, uint32_t count)
{
    *rank = (struct bit_rank){.plane = plane};
    rank->before = calloc(bits_words(count), sizeof *rank->before);
    if (!rank->before)
        return false;
    for (size_t w = 0; w < bits_words(count); w++) {
        rank->before[w] = rank->count;
        rank->count += (uint32_t)__builtin_popcountll(plane[w]);
    }
    return true;
}

static inline void bit_rank_free(struct bit_rank *rank)
{
    free(rank->plane);
    free(rank->before);
    *rank = (struct bit_rank){0};
}

/* Ordinal of a bit that is set. */
static inline uint32_t bit_rank_of(const struct bit_rank *rank, uint32_t i)
{
    uint64_t below = rank->plane[i / 64] & ~(~UINT64_C(0) << i % 64);
    return rank->before[i / 64] + (uint32_t)__builtin_popcountll(below);
}

#endif
