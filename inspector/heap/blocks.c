/*
 * Every block of every heap: from an address to a block and back.
 *
 * Terms. A region classifies [start, end); regions are disjoint and kept in address order. Blocks
 * are numbered through all regions in address order; region.base is the number of its first one.
 *
 * State of a block, two bits (and a third plane that exists only while something is suspect):
 *   live cached
 *     1    0    LIVE
 *     1    1    IN_FLIGHT  (counts as live: a thread is just handing it out or taking it back)
 *     0    1    CACHED, or SUSPECT when its bit in the suspect plane is set
 *     0    0    FREE
 *
 * From an address: the page table (blocks_page.c) gives the first region that reaches into the
 * page; a slab answers by one multiplication (slot = offset * ceil(2^64 / stride) >> 64), chunks by
 * rank (rank.h). Where several small regions share a page the following ones are tried, at most as
 * many as fit in a page. What no region covers may still be the byte one past the end of the block
 * that ends the region before.
 *
 * Damage: regions were checked when added (blocks_build.c); every function here answers for every
 * 64-bit address and, but for blocks_set_state, changes nothing: any number of threads may ask.
 */
#include "heap/blocks_table.h"

const char *block_state_name(enum block_state state)
{
    static const char *const names[] = {"free", "live", "cached", "in flight", "suspect"};
    return (unsigned)state <= BLOCK_SUSPECT ? names[state] : "?";
}

uint32_t blocks_count(const struct blocks *blocks)
{
    return blocks->count;
}

size_t blocks_region_count(const struct blocks *blocks)
{
    return blocks->region_count;
}

const struct region *blocks_region(const struct blocks *blocks, size_t index)
{
    return &blocks->regions[index];
}

const uint64_t *blocks_live_plane(const struct blocks *blocks)
{
    return blocks->live;
}

const uint64_t *blocks_suspect_plane(const struct blocks *blocks)
{
    return blocks->suspect;
}

struct hi_range blocks_span(const struct blocks *blocks)
{
    return blocks->span;
}

static const struct rank *rank_of(const struct blocks *blocks, size_t index)
{
    return &blocks->ranks.items[blocks->region_rank[index]];
}

/* -- from an address --------------------------------------------------------------------------- */

/* First region that ends after address. */
static size_t region_after(const struct blocks *blocks, hi_addr address)
{
    size_t i = blocks_page_region(blocks, address);
    while (i < blocks->region_count && blocks->regions[i].end <= address)
        i++;
    return i;
}

size_t blocks_region_from(const struct blocks *blocks, hi_addr address)
{
    return address < blocks->span.start ? 0 : region_after(blocks, address);
}

const struct region *blocks_region_at(const struct blocks *blocks, hi_addr address)
{
    size_t i = region_after(blocks, address);
    if (i < blocks->region_count && blocks->regions[i].start <= address)
        return &blocks->regions[i];
    return NULL;
}

/* End of the usable bytes of the chunk that starts at granule. */
static hi_addr chunk_end(const struct region *region, const struct rank *rank, uint64_t granule)
{
    uint64_t next = rank_next(rank, granule);
    if (next == RANK_NONE)
        return region->end;
    hi_addr start = blocks_grid(region) + granule * RANK_GRANULE_BYTES;
    hi_addr end = blocks_grid(region) + next * RANK_GRANULE_BYTES;
    return end - start < region->gap ? start : end - region->gap;
}

uint64_t blocks_place_usable(const struct blocks *blocks, hi_addr address,
                             const struct block_place *place)
{
    const struct region *region = &blocks->regions[place->region];
    if (region->shape != REGION_CHUNKS)
        return region->usable;
    hi_addr start = address - place->offset;
    uint64_t granule = (start - blocks_grid(region)) / RANK_GRANULE_BYTES;
    return chunk_end(region, rank_of(blocks, place->region), granule) - start;
}

static bool slab_at(const struct region *region, hi_addr address, struct block_place *place)
{
    if (address < region->first || !region->count)
        return false;
    uint64_t offset = address - region->first, slot = offset / region->stride;
    if (slot >= region->count)
        slot = region->count - 1;
    place->block = region->base + (hi_block)slot;
    place->offset = offset - slot * region->stride;
    return place->offset <= region->usable;
}

static bool chunk_at(const struct blocks *blocks, size_t index, hi_addr address,
                     struct block_place *place)
{
    const struct region *region = &blocks->regions[index];
    const struct rank *rank = rank_of(blocks, index);
    uint64_t granule = (address - blocks_grid(region)) / RANK_GRANULE_BYTES;
    uint32_t until = rank_until(rank, granule);
    if (until == 0)
        return false;
    uint64_t start = rank_previous(rank, granule);
    place->block = region->base + until - 1;
    place->offset = address - blocks_grid(region) - start * RANK_GRANULE_BYTES;
    return region->gap == 0 || address <= chunk_end(region, rank, start);
}

/* region index covers address, or ends at it. */
static bool region_place(const struct blocks *blocks, size_t index, hi_addr address,
                         struct block_place *place)
{
    const struct region *region = &blocks->regions[index];
    place->region = (uint32_t)index;
    switch (region->shape) {
    case REGION_SLAB:
        return slab_at(region, address, place);
    case REGION_CHUNKS:
        return chunk_at(blocks, index, address, place);
    case REGION_SINGLE:
    case REGION_NODE:
        place->block = region->base;
        place->offset = address - region->first;
        if (place->offset == region->usable && region->usable)
            return !region->end_unasked;
        return address >= region->first && place->offset <= region->usable;
    }
    return false;
}

/* The general case, from region i of the page on. */
static bool place_slow(const struct blocks *blocks, size_t i, hi_addr address,
                       struct block_place *place)
{
    while (i < blocks->region_count && blocks->regions[i].end <= address)
        i++;
    if (i < blocks->region_count && blocks->regions[i].start <= address &&
        region_place(blocks, i, address, place))
        return true;
    if (i > 0 && blocks->regions[i - 1].end == address &&
        region_place(blocks, i - 1, address, place))
        return true;
    *place = (struct block_place){.block = BLOCK_NONE};
    return false;
}

static inline bool place_fast(const struct blocks *blocks, size_t i, hi_addr address,
                              struct block_place *place)
{
    const struct block_hot *hot = &blocks->hot[i];
    uint64_t offset = address - hot->first;
    uint64_t slot = (uint64_t)(((unsigned __int128)offset * hot->magic) >> 64);
    uint64_t inside = offset - slot * hot->stride;
    /* inside == usable: the next region may start there; the slow road knows */
    if (address < hot->first || offset >> 32 || slot >= hot->count || inside >= hot->usable)
        return false;
    place->block = hot->base + (hi_block)slot;
    place->region = (uint32_t)i;
    place->offset = inside;
    return true;
}

bool blocks_at(const struct blocks *blocks, hi_addr address, struct block_place *place)
{
    size_t i = blocks_page_region(blocks, address);
    if (i < blocks->region_count && blocks->hot[i].magic && place_fast(blocks, i, address, place))
        return true;
    return place_slow(blocks, i, address, place);
}

/* -- many at once ------------------------------------------------------------------------------ */

/* A region of chunks, at hand: neighbours mostly point into the same. */
struct chunk_region {
    hi_addr start, grid;
    uint64_t bytes; /* 0: none yet */
    const struct rank_line *lines;
    size_t line_count;
    uint32_t index, gap;
};

/* Where an address in a region of chunks has its start bit. */
struct chunk_spot {
    const struct rank_line *line; /* NULL: for the slow road */
    uint16_t bit;                 /* of the line */
    uint16_t inside;              /* bytes from the granule on */
};

static void chunk_region_take(const struct blocks *blocks, uint32_t index,
                              struct chunk_region *chunks)
{
    const struct region *region = &blocks->regions[index];
    const struct rank *rank = rank_of(blocks, index);
    *chunks = (struct chunk_region){
        .start = region->start,
        .grid = blocks_grid(region),
        .bytes = region->end - region->start,
        .lines = rank->lines,
        .line_count = rank->line_count,
        .index = index,
        .gap = region->gap,
    };
}

/* The address lies in the region. */
static inline struct chunk_spot chunk_spot_find(const struct chunk_region *chunks, hi_addr address)
{
    uint64_t granule = (address - chunks->grid) / RANK_GRANULE_BYTES;
    size_t index = granule / RANK_LINE_BITS;
    struct chunk_spot spot = {.inside = address % RANK_GRANULE_BYTES}; /* a grid of granules */
    /* the header of a next chunk must not reach the address */
    if (index >= chunks->line_count || spot.inside + chunks->gap > RANK_GRANULE_BYTES)
        return spot;
    spot.bit = (uint16_t)(granule - index * RANK_LINE_BITS + RANK_FIRST_BIT);
    spot.line = &chunks->lines[index];
    __builtin_prefetch(spot.line);
    return spot;
}

/* First region of each address's page, and its spot in a region of chunks. */
static inline void spots_find(const struct blocks *blocks, const hi_addr *addresses, size_t count,
                              uint32_t *regions, struct chunk_spot *spots)
{
    struct chunk_region chunks = {0};
    for (size_t i = 0; i < count; i++) {
        if (addresses[i] - chunks.start >= chunks.bytes) {
            uint32_t region = (uint32_t)blocks_page_region(blocks, addresses[i]);
            regions[i] = region;
            spots[i].line = NULL;
            if (blocks->hot[region].stride != HOT_CHUNKS)
                continue;
            chunk_region_take(blocks, region, &chunks);
            if (addresses[i] - chunks.start >= chunks.bytes)
                continue;
        }
        regions[i] = chunks.index;
        spots[i] = chunk_spot_find(&chunks, addresses[i]);
    }
}

/* chunk_at() for the usual case, that the start lies in the line. No branch but for what is rare;
 * compiled twice, with and without the processor's own population count. */
static inline __attribute__((always_inline)) bool chunk_fast(const struct blocks *blocks,
                                                             uint32_t region,
                                                             const struct chunk_spot *spot,
                                                             struct block_place *place)
{
    const struct rank_line *line = spot->line;
    unsigned bit = spot->bit, at = bit >> 6;
    uint64_t mask = ~UINT64_C(0) >> (63 - (bit & 63)), word = line->words[at] & mask;
    uint32_t count =
        rank_line_count(line) + rank_line_before(line, at) + (uint32_t)__builtin_popcountll(word);
    if (!word)
        word = rank_line_word(line, --at);
    if (!word)
        return false;
    unsigned start = (at << 6) + 63 - (unsigned)__builtin_clzll(word);
    place->block = blocks->hot[region].base + count - 1;
    place->region = region;
    place->offset = spot->inside + (uint64_t)(bit - start) * RANK_GRANULE_BYTES;
    return true;
}

static inline __attribute__((always_inline)) void places_find(const struct blocks *blocks,
                                                              const hi_addr *addresses,
                                                              size_t count,
                                                              struct block_place *places)
{
    uint32_t regions[BLOCKS_AT_MANY];
    struct chunk_spot spots[BLOCKS_AT_MANY] = {0};
    /* loop after loop, so that the loads of one address wait for nothing of another */
    for (size_t i = 0; !blocks->has_chunks && i < count; i++) {
        regions[i] = (uint32_t)blocks_page_region(blocks, addresses[i]);
        __builtin_prefetch(&blocks->hot[regions[i]]);
    }
    if (blocks->has_chunks)
        spots_find(blocks, addresses, count, regions, spots);
    for (size_t i = 0; i < count; i++) {
        const struct block_hot *hot = &blocks->hot[regions[i]];
        bool found = false;
        if (hot->magic)
            found = place_fast(blocks, regions[i], addresses[i], &places[i]);
        else if (hot->stride == HOT_CHUNKS && spots[i].line)
            found = chunk_fast(blocks, regions[i], &spots[i], &places[i]);
        if (!found)
            place_slow(blocks, regions[i], addresses[i], &places[i]);
        /* the state is what callers ask for next */
        if (places[i].block != BLOCK_NONE)
            __builtin_prefetch(&blocks->live[places[i].block / 64]);
    }
}

#ifdef __x86_64__
__attribute__((target("popcnt"))) static void places_find_popcount(const struct blocks *blocks,
                                                                   const hi_addr *addresses,
                                                                   size_t count,
                                                                   struct block_place *places)
{
    places_find(blocks, addresses, count, places);
}
#endif

void blocks_at_many(const struct blocks *blocks, const hi_addr *addresses, size_t count,
                    struct block_place *places)
{
    count = count < BLOCKS_AT_MANY ? count : BLOCKS_AT_MANY;
#ifdef __x86_64__
    if (blocks->has_popcount) {
        places_find_popcount(blocks, addresses, count, places);
        return;
    }
#endif
    places_find(blocks, addresses, count, places);
}

/* -- from a block ------------------------------------------------------------------------------ */

static size_t region_index_of(const struct blocks *blocks, hi_block block)
{
    const uint32_t *near = &blocks->region_at[block >> REGION_AT_BITS];
    size_t low = near[0], high = near[1] + (size_t)1; /* first region with base > block */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (blocks->hot[middle].base <= block)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

const struct region *blocks_region_of(const struct blocks *blocks, hi_block block)
{
    return block < blocks->count ? &blocks->regions[region_index_of(blocks, block)] : NULL;
}

static uint64_t granule_of(const struct blocks *blocks, size_t index, hi_block block)
{
    return rank_select(rank_of(blocks, index), block - blocks->regions[index].base);
}

hi_addr blocks_address(const struct blocks *blocks, hi_block block)
{
    if (block >= blocks->count)
        return 0;
    size_t index = region_index_of(blocks, block);
    const struct region *region = &blocks->regions[index];
    if (region->shape == REGION_CHUNKS)
        return blocks_grid(region) + granule_of(blocks, index, block) * RANK_GRANULE_BYTES;
    return region->first + (uint64_t)(block - region->base) * region->stride;
}

uint64_t blocks_usable(const struct blocks *blocks, hi_block block)
{
    if (block >= blocks->count)
        return 0;
    size_t index = region_index_of(blocks, block);
    const struct region *region = &blocks->regions[index];
    if (region->shape != REGION_CHUNKS)
        return region->usable;
    uint64_t granule = granule_of(blocks, index, block);
    hi_addr start = blocks_grid(region) + granule * RANK_GRANULE_BYTES;
    return chunk_end(region, rank_of(blocks, index), granule) - start;
}

static bool plane_bit(const uint64_t *plane, hi_block block)
{
    return plane && plane[block / 64] >> block % 64 & 1;
}

enum block_state blocks_state(const struct blocks *blocks, hi_block block)
{
    if (block >= blocks->count)
        return BLOCK_FREE;
    bool cached = plane_bit(blocks->cached, block);
    if (plane_bit(blocks->live, block))
        return cached ? BLOCK_IN_FLIGHT : BLOCK_LIVE;
    if (!cached)
        return BLOCK_FREE;
    return plane_bit(blocks->suspect, block) ? BLOCK_SUSPECT : BLOCK_CACHED;
}

bool blocks_is_live(const struct blocks *blocks, hi_block block)
{
    return block < blocks->count && plane_bit(blocks->live, block);
}

/* -- walking a region -------------------------------------------------------------------------- */

/* On the chunk at granule; the scan stands behind it. */
static inline bool cursor_chunk(struct block_cursor *cursor, uint64_t granule)
{
    const struct region *region = cursor->region;
    hi_addr grid = blocks_grid(region);
    if (granule == RANK_NONE)
        return false;
    cursor->address = grid + granule * RANK_GRANULE_BYTES;
    cursor->next_granule = rank_scan_next(&cursor->scan);
    hi_addr end = region->end;
    if (cursor->next_granule != RANK_NONE) {
        end = grid + cursor->next_granule * RANK_GRANULE_BYTES;
        end = end - cursor->address < region->gap ? cursor->address : end - region->gap;
    }
    cursor->usable = end - cursor->address;
    return true;
}

static bool cursor_chunk_at(const struct blocks *blocks, struct block_cursor *cursor,
                            uint64_t granule)
{
    if (granule == RANK_NONE)
        return false;
    rank_scan_after(&cursor->scan, rank_of(blocks, cursor->region_index), granule);
    return cursor_chunk(cursor, granule);
}

bool blocks_from(const struct blocks *blocks, const struct region *region, hi_addr address,
                 struct block_cursor *cursor)
{
    *cursor = (struct block_cursor){
        .region = region,
        .region_index = (uint32_t)(region - blocks->regions),
        .block = region->base,
        .address = region->first,
        .usable = region->usable,
    };
    if (!region->count)
        return false;
    if (region->shape == REGION_CHUNKS) {
        const struct rank *rank = rank_of(blocks, cursor->region_index);
        uint64_t granule = 0;
        if (address > blocks_grid(region))
            granule = (address - blocks_grid(region)) / RANK_GRANULE_BYTES;
        uint32_t until = rank_until(rank, granule);
        cursor->block += until ? until - 1 : 0;
        if (!cursor_chunk_at(blocks, cursor, rank_select(rank, until ? until - 1 : 0)))
            return false;
    } else if (address > region->first && region->count > 1) {
        uint64_t slot = (address - region->first) / region->stride;
        slot = slot < region->count ? slot : region->count - 1;
        cursor->block += (hi_block)slot;
        cursor->address += slot * region->stride;
    }
    if (cursor->address + cursor->usable > address || cursor->address >= address)
        return true;
    return blocks_next(blocks, cursor);
}

bool blocks_cursor_at(const struct blocks *blocks, hi_block block, struct block_cursor *cursor)
{
    if (block >= blocks->count)
        return false;
    size_t index = region_index_of(blocks, block);
    const struct region *region = &blocks->regions[index];
    *cursor = (struct block_cursor){
        .region = region,
        .region_index = (uint32_t)index,
        .block = block,
        .address = region->first + (uint64_t)(block - region->base) * region->stride,
        .usable = region->usable,
    };
    return region->shape != REGION_CHUNKS ||
           cursor_chunk_at(blocks, cursor, granule_of(blocks, index, block));
}

bool blocks_first(const struct blocks *blocks, const struct region *region,
                  struct block_cursor *cursor)
{
    return blocks_from(blocks, region, 0, cursor);
}

bool blocks_next(const struct blocks *blocks, struct block_cursor *cursor)
{
    (void)blocks;
    if (++cursor->block - cursor->region->base >= cursor->region->count)
        return false;
    if (cursor->region->shape == REGION_CHUNKS)
        return cursor_chunk(cursor, cursor->next_granule);
    cursor->address += cursor->region->stride;
    return true;
}

/* -- overlay ----------------------------------------------------------------------------------- */

static void plane_set(uint64_t *plane, hi_block block, bool value)
{
    uint64_t bit = UINT64_C(1) << block % 64;
    if (value)
        plane[block / 64] |= bit;
    else
        plane[block / 64] &= ~bit;
}

enum hi_code blocks_set_state(struct blocks *blocks, hi_addr address, enum block_state state,
                              enum block_state *before, struct hi_err *err)
{
    struct block_place place;
    if (!blocks_at(blocks, address, &place) || place.offset != 0) {
        hi_fault(err, address, "no block starts here");
        if (err)
            err->code = HI_NOT_FOUND;
        return HI_NOT_FOUND;
    }
    if (before)
        *before = blocks_state(blocks, place.block);
    if (state == BLOCK_SUSPECT && !blocks->suspect) {
        blocks->suspect = calloc((size_t)blocks->count / 64 + 2, sizeof *blocks->suspect);
        if (!blocks->suspect)
            return hi_no_memory(err);
    }
    plane_set(blocks->live, place.block, state == BLOCK_LIVE || state == BLOCK_IN_FLIGHT);
    plane_set(blocks->cached, place.block, state != BLOCK_LIVE && state != BLOCK_FREE);
    if (blocks->suspect)
        plane_set(blocks->suspect, place.block, state == BLOCK_SUSPECT);
    return HI_OK;
}
