/*
 * blocks: every block of every heap of a target, in a few bits each.
 *
 * Readers push regions (heap.h); this table stores them and numbers all blocks 0..count-1 in
 * address order once blocks_finish() is called. A block is named by its index (u32) from then on:
 * graph, analyses and reports know nothing else.
 *
 *   shape   what it is                                stored
 *   SLAB    count slots of stride bytes from first    one record + 2 bits a slot
 *   CHUNKS  variable blocks on a 16-byte grid, each   start bits with rank (64-byte line: u32 count
 *           followed by gap bytes of header of the    + 448 granule bits) + 2 bits a block; the
 *           next; free chunks are blocks too          size is the distance to the next start - gap,
 *                                                     of the last one to the region's end
 *   SINGLE  one block (large, mmapped)                one record
 *   NODE    an anonymous mapping of no allocator:     one record; a node of the graph, not a block
 *           never counted, never reported             of a heap (heap == BLOCKS_NO_HEAP)
 *
 * State planes: LIVE and CACHED, one bit a block (blocks.c says which pair means what).
 *
 * Look-up (blocks_at) costs a few loads: a table by page gives the first region that reaches into
 * the page, then slab arithmetic (multiply-shift) or rank. Regions never overlap: one that overlaps
 * an earlier one is refused. At most BLOCKS_MAX blocks; more is an error said aloud.
 *
 * Memory: SLAB 2 bits a slot + 128 bytes a region; CHUNKS 0.89% of the region + 2 bits a block.
 */
#ifndef HEAP_BLOCKS_H
#define HEAP_BLOCKS_H

#include "base/error.h"
#include "heap/rank.h"

typedef uint32_t hi_block;
#define BLOCK_NONE UINT32_MAX
#define BLOCKS_MAX (UINT32_C(1) << 30) /* an edge word keeps two bits for its kind */

enum block_state { BLOCK_FREE, BLOCK_LIVE, BLOCK_CACHED, BLOCK_IN_FLIGHT, BLOCK_SUSPECT };
const char *block_state_name(enum block_state state); /* as in the JSON: "in flight" ... */

enum region_shape { REGION_SLAB, REGION_CHUNKS, REGION_SINGLE, REGION_NODE };
#define BLOCKS_NO_HEAP UINT16_MAX

struct region {
    hi_addr start, end; /* every address that is classified by this region */
    hi_addr first;      /* SLAB, SINGLE: address of the first block (what malloc returned) */
    uint32_t stride;    /* SLAB: bytes from block to block */
    uint32_t count;     /* blocks in it */
    uint64_t usable;    /* SLAB, SINGLE, NODE: usable bytes of a block */
    uint32_t gap;       /* CHUNKS: bytes at a block's end that belong to the next one's header */
    uint32_t slack;     /* largest (usable - requested) that the allocator gives: an address in the
                           last slack bytes of a block may be one past the end of what was asked */
    bool end_unasked;   /* SINGLE: its last byte was not asked for; the address behind it, often the
                           start of another mapping, is no end of what was */
    bool interior_ok;   /* what malloc returned may lie inside the block (mimalloc, aligned) */
    uint16_t heap;      /* index of the heap in struct heaps; set by the sink */
    uint32_t arena;     /* index of the arena within the heap */
    enum region_shape shape;
    hi_block base; /* index of the first block; set by blocks_finish */
};

struct blocks;

/* What an address is. */
struct block_place {
    hi_block block;
    uint32_t region; /* index of its region */
    uint64_t offset; /* bytes from the block's start */
};

/* -- reading (after blocks_finish) ------------------------------------------------------------ */
uint32_t blocks_count(const struct blocks *blocks);
size_t blocks_region_count(const struct blocks *blocks);
const struct region *blocks_region(const struct blocks *blocks, size_t index); /* address order */
/* The block (live or not, also NODEs) that covers address: inside [start, start + usable]; the byte
 * one past the end belongs to it only when no other block, live or not, covers or starts there: the
 * start of a slot is that slot's alone. */
bool blocks_at(const struct blocks *blocks, hi_addr address, struct block_place *place);
/* The same for several addresses at once, at most BLOCKS_AT_MANY; place.block is BLOCK_NONE where
 * there is none. */
enum { BLOCKS_AT_MANY = 64 };
void blocks_at_many(const struct blocks *blocks, const hi_addr *addresses, size_t count,
                    struct block_place *places);
/* Usable bytes of the block that blocks_at() found at address: cheaper than blocks_usable(). */
uint64_t blocks_place_usable(const struct blocks *blocks, hi_addr address,
                             const struct block_place *place);
/* The region that classifies address, or NULL. */
const struct region *blocks_region_at(const struct blocks *blocks, hi_addr address);
/* Index of the first region that ends after address; blocks_region_count() when none does. */
size_t blocks_region_from(const struct blocks *blocks, hi_addr address);
const struct region *blocks_region_of(const struct blocks *blocks, hi_block block);
hi_addr blocks_address(const struct blocks *blocks, hi_block block);
uint64_t blocks_usable(const struct blocks *blocks, hi_block block);
enum block_state blocks_state(const struct blocks *blocks, hi_block block);
bool blocks_is_live(const struct blocks *blocks, hi_block block); /* LIVE, IN_FLIGHT; NODE too */
/* Bit planes for loops over everything: bit (block & 63) of word (block >> 6). */
const uint64_t *blocks_live_plane(const struct blocks *blocks);
/* Blocks in state SUSPECT; NULL: none is. */
const uint64_t *blocks_suspect_plane(const struct blocks *blocks);
/* Lowest and highest classified address: a quick filter for candidate words. */
struct hi_range blocks_span(const struct blocks *blocks);
/* Walk the blocks of one region in address order without a look-up each. */
struct block_cursor {
    const struct region *region;
    hi_block block;
    hi_addr address;
    uint64_t usable;
    uint32_t region_index;
    /* private to CHUNKS: the starts behind this one */
    uint64_t next_granule;
    struct rank_scan scan;
};
bool blocks_first(const struct blocks *blocks, const struct region *region,
                  struct block_cursor *cursor);
/* The same from the first block on that ends after address or starts at or after it. region must
 * be one that blocks_region() gave. */
bool blocks_from(const struct blocks *blocks, const struct region *region, hi_addr address,
                 struct block_cursor *cursor);
/* Set the cursor on a block; false: there is none of that number. */
bool blocks_cursor_at(const struct blocks *blocks, hi_block block, struct block_cursor *cursor);
bool blocks_next(const struct blocks *blocks, struct block_cursor *cursor);

/* -- building (the sink of heap.h does this) ----------------------------------------------------
 */
HI_MUST_USE enum hi_code blocks_new(struct blocks **blocks, struct hi_err *err);
void blocks_free(struct blocks *blocks);
/* SLAB, SINGLE, NODE: live bits, one a slot (NULL: all live). Returns HI_BAD_INPUT, with
 * err->address, and stores nothing when the region contradicts itself (stride 0, end before start,
 * blocks outside) or overlaps one already stored. Regions may come in any order. HI_UNSUPPORTED:
 * more than BLOCKS_MAX blocks. The last slot of a slab may be cut short to its usable bytes. */
HI_MUST_USE enum hi_code blocks_add(struct blocks *blocks, const struct region *region,
                                    const uint64_t *live_bits, struct hi_err *err);
/* NODEs for those parts of range that no region classifies yet: push all heaps first. */
HI_MUST_USE enum hi_code blocks_add_node(struct blocks *blocks, struct hi_range range,
                                         struct hi_err *err);
/* CHUNKS: begin, then starts in rising address order, then end. An address out of order, off the
 * 16-byte grid or outside is left out (HI_BAD_INPUT, err->address: the first such), the others of
 * the call are stored, and the rest may go on. */
struct block_chunk {
    hi_addr address; /* what malloc returned (or would) */
    enum block_state state;
};
HI_MUST_USE enum hi_code blocks_chunks_begin(struct blocks *blocks, const struct region *region,
                                             struct hi_err *err);
HI_MUST_USE enum hi_code blocks_chunks_add(struct blocks *blocks, const struct block_chunk *chunks,
                                           size_t count, struct hi_err *err);
HI_MUST_USE enum hi_code blocks_chunks_end(struct blocks *blocks, struct hi_err *err);
/* The same, when the region turned out to end earlier (a fencepost): end after the last block's
 * start and not after the region's. */
HI_MUST_USE enum hi_code blocks_chunks_end_at(struct blocks *blocks, hi_addr end,
                                              struct hi_err *err);
HI_MUST_USE enum hi_code blocks_finish(struct blocks *blocks, struct hi_err *err);
/* Overlay after finish: HI_NOT_FOUND when address is not a block's start. *before: old state. */
HI_MUST_USE enum hi_code blocks_set_state(struct blocks *blocks, hi_addr address,
                                          enum block_state state, enum block_state *before,
                                          struct hi_err *err);

#endif
