/*
 * The flat tables of starts; see starts.h.
 *
 * Slabs: an entry for each page that lies in one region. Pages are as large as the heaps allow (4
 * to 64 KiB), and all that slabs have in common is said once, in a kind: entries are asked for all
 * over the heap and are to stay in the second-level cache, kinds stay in the first. The slot of a
 * word is distance * magic >> 32, with distance in words from the first slot and magic = ceil(2^32
 * / stride): exact while distance * stride < 2^32, which is asked when the entry is made. A place
 * before the first slot wraps to a distance above 2^31, and to a slot that is above any count that
 * was let in. Where all slots are live the entry says so, and the plane of live blocks is not asked
 * (with entries of 16 bytes and the plane asked each time 48 million look-ups took 0.07 s longer).
 *
 * Chunks: an entry for each 2 MiB that lie in one region, with the granule that they start with.
 * Where start bits are looked up all over tens of megabytes, nothing else stays in the second-level
 * cache: a table for them as fine as that of slabs made it slower than blocks_at_many().
 *
 * An entry of zeros answers nothing. Read only, any number of threads; every place is answered,
 * also those in no GiB of the list.
 */
#include "heap/starts.h"

#include "heap/blocks_table.h"

enum {
    GIB_BITS = 30,
    WORD_BITS = 3,
    SLAB_BITS_LEAST = 12,
    SLAB_BITS_MOST = 16,
    CHUNKS_BITS = 21,
    GIB_CHUNKS = 1 << (GIB_BITS - CHUNKS_BITS),
    CHUNKS_PLACES = 1 << (CHUNKS_BITS - WORD_BITS),
    HEADER_MOST = 1 << 20, /* bytes before a slab's first slot */
    KINDS_MOST = 1 << 12,
    KIND_SLOTS = 2 * KINDS_MOST,
};

struct slab_entry {
    uint32_t base; /* number of the first block */
    uint16_t kind; /* 0: no entry */
    uint16_t full; /* 1: all slots are live */
};

/* What pages have in common that lie alike in slabs of one size. */
struct slab_kind {
    uint32_t magic;
    uint32_t before; /* words from the first slot to the page's start */
    uint16_t stride; /* words */
    uint16_t count;  /* slots; 0: of no entry */
};

struct chunks_entry {
    uint32_t chunks;  /* index, and 1; 0: no entry */
    uint32_t granule; /* of the region, where the 2 MiB start */
};

struct chunks {
    const struct rank_line *lines;
    hi_block base;
};

struct starts {
    const struct blocks *blocks;
    uint32_t gib_count;
    unsigned slab_bits;                  /* of a page */
    struct slab_entry *slabs;            /* of all GiBs, and an empty one */
    struct chunks_entry *chunks_entries; /* likewise */
    struct chunks *chunks;
    struct slab_kind kinds[KINDS_MOST];
    uint32_t kind_count;
};

/* -- making ------------------------------------------------------------------------------------ */

static bool slab_fits(const struct region *region)
{
    uint64_t stride = region->stride / 8, words = (region->end - region->first) / 8 + 1;
    return region->shape == REGION_SLAB && region->stride % 8 == 0 && region->first % 8 == 0 &&
           region->usable && stride > 1 && stride <= UINT16_MAX && region->count <= UINT16_MAX &&
           words <= UINT32_MAX / stride && region->first - region->start <= HEADER_MOST;
}

/* The largest pages that nearly all blocks of slabs lie in: as few entries as can be. */
static unsigned slab_bits(const struct blocks *blocks)
{
    uint64_t counts[SLAB_BITS_MOST + 1] = {0}, all = 0, fit = 0;
    for (size_t i = 0; i < blocks->region_count; i++) {
        const struct region *region = &blocks->regions[i];
        if (region->shape != REGION_SLAB)
            continue;
        unsigned bits =
            (unsigned)__builtin_ctzll(region->start | region->end | UINT64_C(1) << SLAB_BITS_MOST);
        counts[bits] += region->count;
        all += region->count;
    }
    for (unsigned bits = SLAB_BITS_MOST; bits > SLAB_BITS_LEAST; bits--)
        if ((fit += counts[bits]) >= all - all / 16)
            return bits;
    return SLAB_BITS_LEAST;
}

/* Kinds while they are made: their numbers by hash. */
struct kind_finder {
    struct starts *starts;
    uint16_t slots[KIND_SLOTS]; /* 0: none */
};

/* The number of a kind like that; 0: there are too many. */
static uint16_t kind_at(struct kind_finder *finder, const struct slab_kind *kind)
{
    struct starts *starts = finder->starts;
    uint32_t hash = (kind->before * 31 + kind->magic + kind->count) * UINT32_C(0x9e3779b1) >> 8;
    for (;; hash++) {
        uint16_t *slot = &finder->slots[hash % KIND_SLOTS];
        if (*slot && memcmp(&starts->kinds[*slot], kind, sizeof *kind) == 0)
            return *slot;
        if (*slot)
            continue;
        if (starts->kind_count == KINDS_MOST)
            return 0;
        starts->kinds[starts->kind_count] = *kind;
        return *slot = (uint16_t)starts->kind_count++;
    }
}

static bool all_live(const struct blocks *blocks, const struct region *region)
{
    const uint64_t *live = blocks->live;
    hi_block from = region->base, end = from + region->count;
    if (from == end)
        return false;
    for (size_t word = from / 64; word <= (end - 1) / 64; word++) {
        uint64_t dead = ~live[word];
        if (word == from / 64)
            dead &= ~UINT64_C(0) << from % 64;
        if (word == (end - 1) / 64)
            dead &= ~UINT64_C(0) >> (63 - (end - 1) % 64);
        if (dead)
            return false;
    }
    return true;
}

/* The pages of 2^bits bytes that lie wholly in the region and in the GiB: numbers in the GiB. */
static struct hi_range pages_in(const struct region *region, hi_addr gib, unsigned bits)
{
    hi_addr gib_end = gib + (UINT64_C(1) << GIB_BITS);
    hi_addr start = region->start > gib ? region->start : gib;
    hi_addr end = region->end < gib_end ? region->end : gib_end;
    return (struct hi_range){(start - gib + (UINT64_C(1) << bits) - 1) >> bits,
                             (end - gib) >> bits};
}

static void slab_add(struct kind_finder *finder, const struct region *region, hi_addr gib,
                     uint32_t g)
{
    struct starts *starts = finder->starts;
    unsigned bits = starts->slab_bits;
    struct slab_entry *entries = starts->slabs + ((size_t)g << (GIB_BITS - bits));
    struct hi_range pages = pages_in(region, gib, bits);
    if (!slab_fits(region) || pages.start >= pages.end)
        return;
    uint32_t stride = region->stride / 8;
    struct slab_kind kind = {
        .magic = (uint32_t)(((UINT64_C(1) << 32) + stride - 1) / stride),
        .stride = (uint16_t)stride,
        .count = (uint16_t)region->count,
    };
    struct slab_entry entry = {.base = region->base, .full = all_live(starts->blocks, region)};
    for (uint64_t page = pages.start; page < pages.end; page++) {
        kind.before = (uint32_t)((int64_t)(gib + (page << bits) - region->first) / 8);
        entry.kind = kind_at(finder, &kind);
        if (entry.kind)
            entries[page] = entry;
    }
}

static void chunks_add(struct starts *starts, const struct region *region, uint32_t index,
                       hi_addr gib, uint32_t g)
{
    struct chunks_entry *entries = starts->chunks_entries + (size_t)g * GIB_CHUNKS;
    struct hi_range pages = pages_in(region, gib, CHUNKS_BITS);
    const struct rank *rank = &starts->blocks->ranks.items[index];
    starts->chunks[index] = (struct chunks){.lines = rank->lines, .base = region->base};
    for (uint64_t page = pages.start; page < pages.end; page++) {
        hi_addr start = gib + (page << CHUNKS_BITS);
        uint64_t granule = (start - blocks_grid(region)) / RANK_GRANULE_BYTES;
        uint64_t last = granule + (1 << CHUNKS_BITS) / RANK_GRANULE_BYTES - 1;
        if (last <= UINT32_MAX && last / RANK_LINE_BITS < rank->line_count)
            entries[page] = (struct chunks_entry){index + 1, (uint32_t)granule};
    }
}

static void gib_add(struct kind_finder *finder, hi_addr gib, uint32_t g)
{
    struct starts *starts = finder->starts;
    const struct blocks *blocks = starts->blocks;
    for (size_t i = blocks_region_from(blocks, gib); i < blocks->region_count; i++) {
        const struct region *region = &blocks->regions[i];
        if (region->start >= gib && (region->start - gib) >> GIB_BITS)
            break;
        if (region->shape == REGION_SLAB)
            slab_add(finder, region, gib, g);
        else if (region->shape == REGION_CHUNKS)
            chunks_add(starts, region, blocks->region_rank[i], gib, g);
    }
}

struct starts *starts_new(const struct blocks *blocks, const hi_addr *gibs, uint32_t gib_count)
{
    struct starts *starts = calloc(1, sizeof *starts);
    struct kind_finder finder = {.starts = starts};
    if (!starts)
        return NULL;
    starts->blocks = blocks;
    starts->kind_count = 1; /* the first is that of no entry */
    starts->slab_bits = slab_bits(blocks);
    starts->gib_count = gib_count = gib_count < STARTS_GIBS ? gib_count : STARTS_GIBS;
    starts->slabs =
        calloc(((size_t)gib_count << (GIB_BITS - starts->slab_bits)) + 1, sizeof *starts->slabs);
    starts->chunks_entries =
        calloc((size_t)gib_count * GIB_CHUNKS + 1, sizeof *starts->chunks_entries);
    starts->chunks = calloc(blocks->ranks.count + 1, sizeof *starts->chunks);
    if (!starts->slabs || !starts->chunks_entries || !starts->chunks) {
        starts_free(starts);
        return NULL;
    }
    for (uint32_t g = 0; g < gib_count; g++)
        gib_add(&finder, gibs[g], g);
    return starts;
}

void starts_free(struct starts *starts)
{
    if (!starts)
        return;
    free(starts->slabs);
    free(starts->chunks_entries);
    free(starts->chunks);
    free(starts);
}

/* -- asking ------------------------------------------------------------------------------------ */

/* Of a place in no GiB the empty entries know. */
static inline uint32_t known_place(const struct starts *starts, uint32_t place)
{
    uint32_t end = starts->gib_count << STARTS_PLACE_BITS;
    return place < end ? place : end;
}

/* True: a slot starts there. No branch. */
static inline bool slab_find(const struct starts *starts, uint32_t place, hi_block *block,
                             bool *full)
{
    unsigned bits = starts->slab_bits - WORD_BITS;
    const struct slab_entry *entry = &starts->slabs[place >> bits];
    const struct slab_kind *kind = &starts->kinds[entry->kind];
    uint32_t distance = kind->before + (place & ((UINT32_C(1) << bits) - 1));
    uint32_t slot = (uint32_t)((uint64_t)distance * kind->magic >> 32);
    bool is_start = (slot * kind->stride == distance) & (slot < kind->count);
    *block = is_start ? entry->base + slot : 0;
    *full = entry->full;
    return is_start;
}

struct spot {
    const struct rank_line *line;
    uint32_t bit;
    hi_block base;
};

static inline struct spot spot_of(const struct starts *starts, const struct chunks_entry *entry,
                                  uint32_t place)
{
    const struct chunks *chunks = &starts->chunks[entry->chunks - 1];
    uint64_t granule = (uint64_t)entry->granule + place % CHUNKS_PLACES / 2;
    uint64_t index = granule / RANK_LINE_BITS;
    uint32_t bit = (uint32_t)(granule - index * RANK_LINE_BITS) + RANK_FIRST_BIT;
    return (struct spot){&chunks->lines[index], bit, chunks->base};
}

/* True: a chunk starts there. */
static inline __attribute__((always_inline)) bool chunk_find(const struct spot *spot,
                                                             uint32_t place, hi_block *block)
{
    uint64_t word = spot->line->words[spot->bit >> 6];
    uint64_t below = word & ((UINT64_C(1) << spot->bit % 64) - 1);
    bool is_start = word >> spot->bit % 64 & ~place & 1;
    hi_block found = spot->base + rank_line_count(spot->line) +
                     rank_line_before(spot->line, spot->bit >> 6) +
                     (uint32_t)__builtin_popcountll(below);
    *block = is_start ? found : 0;
    return is_start;
}

/* Lines of start bits are far away: they are asked for before any of them is needed. */
static inline void spots_find(const struct starts *starts, const uint32_t *places, size_t count,
                              struct spot *spots)
{
    for (size_t i = 0; i < count; i++) {
        const struct chunks_entry *entry =
            &starts->chunks_entries[known_place(starts, places[i]) / CHUNKS_PLACES];
        spots[i].line = NULL;
        if (!entry->chunks)
            continue;
        spots[i] = spot_of(starts, entry, places[i]);
        __builtin_prefetch(spots[i].line);
    }
}

/* One place in a slab: is it a start, and which block, if that is live. No branch. */
static inline bool slab_answer(const struct starts *starts, const uint64_t *live, uint32_t place,
                               hi_block *found)
{
    hi_block block;
    bool full, is_start = slab_find(starts, place, &block, &full);
    size_t word = full ? 0 : block / 64; /* one that is near */
    *found = (live[word] >> block % 64 & 1) | full ? block : BLOCK_NONE;
    return is_start;
}

/* Where there are no chunks. */
static size_t find_slabs(const struct starts *starts, const uint32_t *places, size_t count,
                         hi_block *found, uint16_t *others)
{
    const uint64_t *live = starts->blocks->live;
    size_t other_count = 0;
    for (size_t i = 0; i < count; i++) {
        bool is_start = slab_answer(starts, live, known_place(starts, places[i]), &found[i]);
        others[other_count] = (uint16_t)i;
        other_count += !is_start;
    }
    return other_count;
}

/* Compiled twice, with and without the processor's own population count. */
static inline __attribute__((always_inline)) size_t find(const struct starts *starts,
                                                         const uint32_t *places, size_t count,
                                                         hi_block *found, uint16_t *others)
{
    const uint64_t *live = starts->blocks->live;
    struct spot spots[STARTS_MANY];
    bool full;
    size_t other_count = 0;
    spots_find(starts, places, count, spots);
    for (size_t i = 0; i < count; i++) {
        bool is_start;
        if (spots[i].line)
            is_start = chunk_find(&spots[i], places[i], &found[i]);
        else
            is_start = slab_find(starts, known_place(starts, places[i]), &found[i], &full);
        __builtin_prefetch(&live[found[i] / 64]);
        others[other_count] = (uint16_t)i;
        other_count += !is_start;
    }
    for (size_t i = 0; i < count; i++)
        found[i] = live[found[i] / 64] >> found[i] % 64 & 1 ? found[i] : BLOCK_NONE;
    return other_count;
}

#ifdef __x86_64__
__attribute__((target("popcnt"))) static size_t find_popcount(const struct starts *starts,
                                                              const uint32_t *places, size_t count,
                                                              hi_block *found, uint16_t *others)
{
    return find(starts, places, count, found, others);
}
#endif

size_t starts_find(const struct starts *starts, const uint32_t *places, size_t count,
                   hi_block *found, uint16_t *others)
{
    count = count < STARTS_MANY ? count : STARTS_MANY;
    if (!starts->blocks->has_chunks)
        return find_slabs(starts, places, count, found, others);
#ifdef __x86_64__
    if (starts->blocks->has_popcount)
        return find_popcount(starts, places, count, found, others);
#endif
    return find(starts, places, count, found, others);
}
