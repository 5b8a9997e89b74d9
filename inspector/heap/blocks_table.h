/*
 * blocks_table: what blocks.c (look-up), blocks_build.c (adding) and blocks_page.c (the page table)
 * share; nobody else includes it. Theory in blocks.c.
 */
#ifndef HEAP_BLOCKS_TABLE_H
#define HEAP_BLOCKS_TABLE_H

#include "base/vector.h"
#include "heap/blocks.h"
#include "heap/rank.h"
#include "heap/span_set.h"

#define BLOCKS_ADDRESS_LIMIT (UINT64_C(1) << 48) /* user addresses end below */

/* The 32 bytes that a look-up in a slab needs. magic 0: not a slab, or one for the slow road; with
 * stride HOT_CHUNKS: chunks, first is their grid. */
#define HOT_CHUNKS UINT32_MAX
enum { REGION_AT_BITS = 8 };
struct block_hot {
    hi_addr first;
    uint64_t magic; /* ceil(2^64 / stride), or 0 */
    uint32_t stride, usable, count, base;
};

/* A region while building: where its bits lie in the pools. */
struct block_source {
    struct region region;
    uint64_t live_bit; /* SLAB: first bit in the pool; CHUNKS: of pairs of words (live, cached) */
    uint32_t rank;     /* CHUNKS: index into ranks */
    bool all_live, has_cached;
};

struct block_suspect {
    uint32_t source, ordinal;
};

struct blocks {
    /* after blocks_finish */
    bool finished;
    struct region *regions;
    struct block_hot *hot;
    uint32_t *region_rank; /* CHUNKS: index into ranks */
    uint32_t *region_at;   /* of every 256th block: index of its region; and the last region */
    size_t region_count;
    uint32_t count;
    uint64_t *live, *cached, *suspect; /* suspect: NULL while there is none */
    struct hi_range span;
    uint32_t *root; /* page table: see blocks_page.c */
    uint64_t root_base, root_count;
    bool has_popcount; /* the processor's */
    bool has_chunks;
    VECTOR(uint32_t) tables;
    VECTOR(struct rank) ranks;
    /* while building */
    VECTOR(struct block_source) sources;
    VECTOR(struct block_suspect) suspects;
    VECTOR(uint64_t) pool;
    struct span_set spans;
    uint64_t total;
    bool open;         /* between blocks_chunks_begin and _end: the last source */
    uint64_t open_bit; /* blocks of it so far */
};

HI_MUST_USE enum hi_code blocks_page_build(struct blocks *blocks, struct hi_err *err);
/* An entry of the page table that is the index of a table and not of a region. */
#define BLOCKS_PAGE_TABLE (UINT32_C(1) << 31)

/* First region that ends after the start of address's page; region_count: none. The levels are
 * those of blocks_page.c. */
static inline size_t blocks_page_region(const struct blocks *blocks, hi_addr address)
{
    uint64_t slot = (address >> 30) - blocks->root_base;
    if (slot >= blocks->root_count)
        return blocks->region_count;
    uint32_t entry = blocks->root[slot];
    const uint32_t *tables = blocks->tables.items;
    if (entry & BLOCKS_PAGE_TABLE) {
        entry = tables[(entry & ~BLOCKS_PAGE_TABLE) + (address >> 21 & 511)];
        if (entry & BLOCKS_PAGE_TABLE) {
            entry = tables[(entry & ~BLOCKS_PAGE_TABLE) + (address >> 14 & 127)];
            if (entry & BLOCKS_PAGE_TABLE)
                entry = tables[(entry & ~BLOCKS_PAGE_TABLE) + (address >> 12 & 3)];
        }
    }
    return entry;
}

static inline hi_addr blocks_grid(const struct region *region)
{
    return region->start & ~(hi_addr)(RANK_GRANULE_BYTES - 1);
}

#endif
