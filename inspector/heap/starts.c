/*
 * The flat tables of starts; see starts.h.
 *
 * Slabs: an entry for each page that lies in one region. Pages are as large as the heaps allow (4
 * to 64 KiB), and all that slabs have in common is said once, in a kind: entries are asked for all
 * over the heap and are to stay in the second-level cache, kinds stay in the first. The slot of a
 * word is distance * magic >> 32, with distance in words from the last slot that starts at or
 * before the page, and magic = ceil(2^32 / stride): exact, since distance and stride are below 2^17
 * and 2^15. A place before a slab's first slot wraps to a distance above 2^31, and to a slot that
 * is above any count. Where all slots are live the entry says so, and the plane of live blocks is
 * not asked (with entries of 16 bytes and the plane asked each time 48 million look-ups took 0.07 s
 * longer). Sixteen are looked up at a time where the processor can (AVX-512: a sixth of the time
 * less).
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
    STRIDE_MOST = 1 << 15, /* words */
    KINDS_MOST = 1 << 12,
    KIND_SLOTS = 2 * KINDS_MOST,
    KIND_FULL = 1 << 15,
};

/* Both are read as words of 64 bits, too. */
struct slab_entry {
    uint32_t base;  /* number of the block in the slot that distances count from */
    int16_t before; /* words from there to the page's start */
    uint16_t kind;  /* 0: no entry; with KIND_FULL where all slots are live */
};

/* What pages of slabs of one size have in common. */
struct slab_kind {
    uint32_t magic;
    uint16_t stride; /* words */
    uint16_t count;  /* slots that start in the page, and the one before it; 0: of no entry */
};

struct chunks_entry {
    uint32_t chunks;  /* index, and 1; 0: no entry */
    uint32_t granule; /* of the region, where the 2 MiB start */
};

struct chunks {
    const struct rank_line *lines;
    hi_block base;
};

typedef size_t (*slabs_finder)(const struct starts *starts, const uint32_t *places, size_t count,
                               hi_block *found, uint16_t *others);

struct starts {
    const struct blocks *blocks;
    uint32_t gib_count;
    unsigned slab_bits;                  /* of a page */
    struct slab_entry *slabs;            /* of all GiBs, and an empty one */
    struct chunks_entry *chunks_entries; /* likewise */
    struct chunks *chunks;
    struct slab_kind kinds[KINDS_MOST];
    uint32_t kind_count;
    slabs_finder find_slabs;
};

/* -- making ------------------------------------------------------------------------------------ */

static bool slab_fits(const struct region *region)
{
    uint32_t stride = region->stride / 8;
    return region->shape == REGION_SLAB && region->stride % 8 == 0 && region->first % 8 == 0 &&
           region->usable && stride > 1 && stride < STRIDE_MOST && region->count <= UINT16_MAX;
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
    uint32_t hash = (kind->magic + kind->count) * UINT32_C(0x9e3779b1) >> 8;
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

/* A page of 2^bits bytes that lies wholly in the region; false: no slot is near. */
static bool page_describe(const struct region *region, hi_addr page, unsigned bits,
                          struct slab_kind *kind, struct slab_entry *entry)
{
    uint32_t stride = region->stride / 8, places = UINT32_C(1) << (bits - WORD_BITS);
    int64_t before = (int64_t)(page - region->first) / 8, passed = before < 0 ? 0 : before / stride;
    if (before <= -(int64_t)places || passed >= region->count)
        return false;
    before -= passed * stride;
    uint64_t left = region->count - (uint64_t)passed;
    uint64_t reached = (uint64_t)(places + before + stride - 1) / stride;
    *kind = (struct slab_kind){
        .magic = (uint32_t)(((UINT64_C(1) << 32) + stride - 1) / stride),
        .stride = (uint16_t)stride,
        .count = (uint16_t)(left < reached ? left : reached),
    };
    *entry = (struct slab_entry){region->base + (uint32_t)passed, (int16_t)before, 0};
    return true;
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
    uint16_t full = all_live(starts->blocks, region) ? KIND_FULL : 0;
    for (uint64_t page = pages.start; page < pages.end; page++) {
        struct slab_kind kind;
        struct slab_entry entry;
        if (!page_describe(region, gib + (page << bits), bits, &kind, &entry))
            continue;
        entry.kind = kind_at(finder, &kind);
        if (entry.kind) {
            entry.kind |= full;
            entries[page] = entry;
        }
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
    if (!starts_take_path(starts, STARTS_AVX512))
        (void)starts_take_path(starts, STARTS_PLAIN);
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
    const struct slab_kind *kind = &starts->kinds[entry->kind & ~KIND_FULL];
    uint32_t distance = (uint32_t)entry->before + (place & ((UINT32_C(1) << bits) - 1));
    uint32_t slot = (uint32_t)((uint64_t)distance * kind->magic >> 32);
    bool is_start = (slot * kind->stride == distance) & (slot < kind->count);
    *block = is_start ? entry->base + slot : 0;
    *full = entry->kind & KIND_FULL;
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

/* Where there are no chunks; from places[i] on. */
static size_t find_slabs_from(const struct starts *starts, const uint32_t *places, size_t i,
                              size_t count, hi_block *found, uint16_t *others, size_t other_count)
{
    const uint64_t *live = starts->blocks->live;
    for (; i < count; i++) {
        bool is_start = slab_answer(starts, live, known_place(starts, places[i]), &found[i]);
        others[other_count] = (uint16_t)i;
        other_count += !is_start;
    }
    return other_count;
}

static size_t find_slabs_plain(const struct starts *starts, const uint32_t *places, size_t count,
                               hi_block *found, uint16_t *others)
{
    return find_slabs_from(starts, places, 0, count, found, others, 0);
}

#ifdef __x86_64__
#include <immintrin.h>

#define FIND_TARGET __attribute__((target("avx512f,avx512vl")))

/* Items of 64 bits by index: their halves. */
FIND_TARGET static inline void halves(const void *items, __m512i index, __m512i *low, __m512i *high)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    __m512i a = _mm512_i32gather_epi64(_mm512_castsi512_si256(index), items, 8);
    __m512i b = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(index, 1), items, 8);
    *low = _mm512_permutex2var_epi32(a, even, b);
    *high = _mm512_permutex2var_epi32(a, odd, b);
}

FIND_TARGET static inline __m512i multiply_high(__m512i a, __m512i b)
{
    __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(a, b), 32);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    return _mm512_mask_blend_epi32(0xaaaa, even, odd);
}

/* slab_answer() sixteen times: which are starts. */
FIND_TARGET static inline __mmask16 slab_answers(const struct starts *starts, __m512i place,
                                                 hi_block *found)
{
    unsigned bits = starts->slab_bits - WORD_BITS;
    const __m512i end = _mm512_set1_epi32((int)(starts->gib_count << STARTS_PLACE_BITS));
    __m512i base, entry, magic, sizes;
    place = _mm512_min_epu32(place, end);
    halves(starts->slabs, _mm512_srl_epi32(place, _mm_cvtsi32_si128((int)bits)), &base, &entry);
    halves(starts->kinds,
           _mm512_and_si512(_mm512_srli_epi32(entry, 16), _mm512_set1_epi32(KIND_FULL - 1)), &magic,
           &sizes);
    __m512i before = _mm512_srai_epi32(_mm512_slli_epi32(entry, 16), 16);
    __m512i inside = _mm512_and_si512(place, _mm512_set1_epi32((1 << bits) - 1));
    __m512i distance = _mm512_add_epi32(before, inside), slot = multiply_high(distance, magic);
    __m512i stride = _mm512_and_si512(sizes, _mm512_set1_epi32(UINT16_MAX));
    __mmask16 is_start = _mm512_cmplt_epu32_mask(slot, _mm512_srli_epi32(sizes, 16));
    is_start = _mm512_mask_cmpeq_epi32_mask(is_start, _mm512_mullo_epi32(slot, stride), distance);
    __m512i block = _mm512_add_epi32(base, slot);
    /* the uppermost bit is KIND_FULL */
    __mmask16 lives = _mm512_mask_cmplt_epi32_mask(is_start, entry, _mm512_setzero_si512());
    __mmask16 asked = is_start & (__mmask16)~lives;
    if (asked) {
        __m512i bit =
            _mm512_sllv_epi32(_mm512_set1_epi32(1), _mm512_and_si512(block, _mm512_set1_epi32(31)));
        __m512i word = _mm512_mask_i32gather_epi32(bit, asked, _mm512_srli_epi32(block, 5),
                                                   starts->blocks->live, 4);
        lives |= _mm512_mask_test_epi32_mask(asked, word, bit);
    }
    _mm512_storeu_si512(found,
                        _mm512_mask_mov_epi32(_mm512_set1_epi32((int)BLOCK_NONE), lives, block));
    return is_start;
}

FIND_TARGET static size_t find_slabs_avx512(const struct starts *starts, const uint32_t *places,
                                            size_t count, hi_block *found, uint16_t *others)
{
    size_t other_count = 0, i = 0;
    for (; i + 16 <= count; i += 16) {
        unsigned rest = slab_answers(starts, _mm512_loadu_si512(places + i), found + i) ^ 0xffffu;
        for (; rest; rest &= rest - 1)
            others[other_count++] = (uint16_t)(i + (unsigned)__builtin_ctz(rest));
    }
    return find_slabs_from(starts, places, i, count, found, others, other_count);
}
#endif

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

bool starts_take_path(struct starts *starts, enum starts_path path)
{
#ifdef __x86_64__
    if (path == STARTS_AVX512 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512vl")) {
        starts->find_slabs = find_slabs_avx512;
        return true;
    }
#endif
    if (path != STARTS_PLAIN)
        return false;
    starts->find_slabs = find_slabs_plain;
    return true;
}

size_t starts_find(const struct starts *starts, const uint32_t *places, size_t count,
                   hi_block *found, uint16_t *others)
{
    count = count < STARTS_MANY ? count : STARTS_MANY;
    if (!starts->blocks->has_chunks)
        return starts->find_slabs(starts, places, count, found, others);
#ifdef __x86_64__
    if (starts->blocks->has_popcount)
        return find_popcount(starts, places, count, found, others);
#endif
    return find(starts, places, count, found, others);
}
