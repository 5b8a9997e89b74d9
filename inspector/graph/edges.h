/*
 * edges: the references of every block, about 4 bytes each and 1.2 a block.
 *
 * An edge is a 32-bit word: target block << 2 | kind. The edges of 64 consecutive blocks
 * (a cluster) lie together, block after block; a cluster has one 64-bit base and a block one byte
 * of degree, so the place of a block's edges is base + the sum of the degrees before it in its
 * cluster: one cache line, four instructions of a kind that every x86-64 has.
 *
 * A block of more than 254 edges, and every large one, is fat: its degree byte says 255, counts
 * nothing in that sum, and its edges lie elsewhere, in parts (struct fat_part) that are kept sorted
 * by block. Parts let several threads read one large block.
 *
 * All edges live in one reservation of address space, as large as the words that will be read
 * allow; threads take what they need from its front, so it fills without holes or copies and
 * costs memory only as far as it is used.
 *
 * Building: edges_take and the writing of clusters from any thread, each cluster by one; fat parts
 * are handed over by edges_add_fat from one thread, then edges_seal. Afterwards read-only.
 */
#ifndef GRAPH_EDGES_H
#define GRAPH_EDGES_H

#include "base/vector.h"
#include "heap/blocks.h"

enum { EDGES_CLUSTER = 64, EDGES_FAT = 255 };
#define EDGE_NONE UINT32_MAX
/* Edges behind any block's that may be read (for prefetching): nonsense, but mapped. */
enum { EDGES_AHEAD = 16 };

struct fat_part {
    hi_block block;
    uint32_t count;
    uint64_t offset; /* of the part in the block, bytes: the order */
    uint64_t base;   /* first edge */
    uint64_t before; /* edges of the block's earlier parts; set by edges_seal */
};

struct edges {
    uint32_t *words;
    uint64_t reserved, used; /* edges; used is shared by threads while building */
    uint8_t *degrees;        /* of whole clusters */
    uint64_t *bases;         /* one a cluster */
    uint32_t block_count;
    VECTOR(struct fat_part) fat;
};

/* most: no more edges than that will come. */
HI_MUST_USE enum hi_code edges_new(struct edges *edges, uint32_t block_count, uint64_t most,
                                   struct hi_err *err);
/* Where the first `used` words are there already: memory is taken over, also when this fails. */
HI_MUST_USE enum hi_code edges_new_in(struct edges *edges, uint32_t block_count, uint32_t *memory,
                                      uint64_t reserved, uint64_t used, struct hi_err *err);
void edges_free(struct edges *edges);
/* Room for count edges; UINT64_MAX: none left. */
uint64_t edges_take(struct edges *edges, uint64_t count);
bool edges_add_fat(struct edges *edges, const struct fat_part *parts, size_t count);
/* Again after parts have shrunk. */
void edges_seal(struct edges *edges);

/* Index of the first fat part of block (its parts follow each other). */
size_t edges_fat_first(const struct edges *edges, hi_block block);
uint32_t edges_count(const struct edges *edges, hi_block block);
uint32_t edges_word(const struct edges *edges, hi_block block, uint32_t i); /* i < edges_count */

/* Sum of the degrees of the first k (0..64) blocks of a cluster, fat ones counting 0. */
#ifdef __SSE2__
#include <emmintrin.h>
static inline uint32_t edges_degree_sum(const uint8_t *degrees, unsigned k)
{
    const __m128i fat = _mm_set1_epi8((char)EDGES_FAT), zero = _mm_setzero_si128();
    const __m128i index = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m128i sum = zero;
    for (unsigned i = 0; i < EDGES_CLUSTER; i += 16) {
        __m128i part = _mm_load_si128((const __m128i *)(const void *)(degrees + i));
        __m128i before =
            _mm_cmplt_epi8(_mm_add_epi8(index, _mm_set1_epi8((char)i)), _mm_set1_epi8((char)k));
        part = _mm_and_si128(_mm_andnot_si128(_mm_cmpeq_epi8(part, fat), part), before);
        sum = _mm_add_epi64(sum, _mm_sad_epu8(part, zero));
    }
    return (uint32_t)_mm_cvtsi128_si32(sum) +
           (uint32_t)_mm_cvtsi128_si32(_mm_unpackhi_epi64(sum, sum));
}

/* All those sums, before[0..64], at the price of two. */
static inline void edges_degree_sums(const uint8_t *degrees, uint16_t *before)
{
    const __m128i fat = _mm_set1_epi8((char)EDGES_FAT), zero = _mm_setzero_si128();
    __m128i all = zero; /* the sum so far, in each of eight */
    before[0] = 0;
    for (unsigned i = 0; i < EDGES_CLUSTER; i += 8) {
        __m128i part = _mm_loadl_epi64((const __m128i *)(const void *)(degrees + i));
        __m128i sums = _mm_unpacklo_epi8(_mm_andnot_si128(_mm_cmpeq_epi8(part, fat), part), zero);
        sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 2));
        sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 4));
        sums = _mm_add_epi16(sums, _mm_slli_si128(sums, 8));
        sums = _mm_add_epi16(sums, all);
        all = _mm_shufflehi_epi16(sums, 0xff);
        all = _mm_unpackhi_epi64(all, all);
        _mm_storeu_si128((__m128i *)(void *)(before + 1 + i), sums);
    }
}

/* Which blocks of a cluster are fat, a bit each. */
static inline uint64_t edges_fat_of(const uint8_t *degrees)
{
    const __m128i fat = _mm_set1_epi8((char)EDGES_FAT);
    uint64_t found = 0;
    for (unsigned i = 0; i < EDGES_CLUSTER; i += 16) {
        __m128i part = _mm_load_si128((const __m128i *)(const void *)(degrees + i));
        found |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(part, fat)) << i;
    }
    return found;
}
#else
static inline uint32_t edges_degree_sum(const uint8_t *degrees, unsigned k)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < k; i++)
        sum += degrees[i] == EDGES_FAT ? 0 : degrees[i];
    return sum;
}

static inline void edges_degree_sums(const uint8_t *degrees, uint16_t *before)
{
    before[0] = 0;
    for (unsigned i = 0; i < EDGES_CLUSTER; i++)
        before[i + 1] = (uint16_t)(before[i] + (degrees[i] == EDGES_FAT ? 0 : degrees[i]));
}

static inline uint64_t edges_fat_of(const uint8_t *degrees)
{
    uint64_t found = 0;
    for (unsigned i = 0; i < EDGES_CLUSTER; i++)
        found |= (uint64_t)(degrees[i] == EDGES_FAT) << i;
    return found;
}
#endif

/* A block's edges as pieces of memory: for (struct edge_run r = edges_first(e, b); r.count;
 * edges_next(e, &r)). A block has one run unless it is fat. */
struct edge_run {
    const uint32_t *words;
    uint32_t count;
    hi_block block;
    size_t part; /* SIZE_MAX: not fat */
};

struct edge_run edges_first_fat(const struct edges *edges, hi_block block);
void edges_next_fat(const struct edges *edges, struct edge_run *run);

/* Index of the first edge of a block that is not fat. */
static inline uint64_t edges_place(const struct edges *edges, hi_block block)
{
    const uint8_t *degrees = &edges->degrees[block - block % EDGES_CLUSTER];
    return edges->bases[block / EDGES_CLUSTER] + edges_degree_sum(degrees, block % EDGES_CLUSTER);
}

static inline struct edge_run edges_first(const struct edges *edges, hi_block block)
{
    uint32_t degree = edges->degrees[block];
    if (degree == EDGES_FAT)
        return edges_first_fat(edges, block);
    const uint32_t *words = &edges->words[edges_place(edges, block)];
    return (struct edge_run){words, degree, block, SIZE_MAX};
}

static inline void edges_next(const struct edges *edges, struct edge_run *run)
{
    if (run->part == SIZE_MAX)
        run->count = 0;
    else
        edges_next_fat(edges, run);
}

#endif
