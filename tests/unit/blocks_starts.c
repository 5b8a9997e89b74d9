/* starts: for every place of random heaps the same answer as blocks_at(), or "ask elsewhere"; and
 * what is simple is not asked elsewhere. */
#include "heap/starts.h"
#include "unit/tap.h"

#include <stdlib.h>

enum { GIB_PLACES = 1 << STARTS_PLACE_BITS, BITS_MOST = 70000 };
static const hi_addr FIRST = UINT64_C(0x7f0040000000), SECOND = UINT64_C(0x7f1000000000);

static uint64_t seed = 88172645463325252u;

static uint64_t random_below(uint64_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % limit;
}

static void must(enum hi_code code)
{
    if (code != HI_OK)
        abort();
}

/* A slab somewhere from `at` on, with odd strides and dead slots, and odd starts where it need not
 * lie on a grid of 2^grid_bits; where it ends. */
static hi_addr slab_push(struct blocks *blocks, hi_addr at, unsigned grid_bits)
{
    hi_addr grid = (UINT64_C(1) << grid_bits) - 1;
    static uint64_t bits[BITS_MOST / 64 + 1];
    struct region slab = {.shape = REGION_SLAB};
    bool is_full = random_below(4) == 0;
    at = (at + 15) & ~(hi_addr)15;
    slab.start = (at + random_below(3) * 4096 * random_below(20) + grid) & ~grid;
    slab.first = slab.start + random_below(2) * 64 * random_below(40) + random_below(20) / 19 * 3;
    slab.stride =
        (uint32_t)(random_below(10) ? 8 * (1 + random_below(600)) : random_below(999) + 1);
    slab.usable = slab.stride - random_below(2) * random_below(slab.stride);
    slab.count = (uint32_t)random_below(300000 / slab.stride + 2);
    slab.end = slab.first + (hi_addr)slab.count * slab.stride + random_below(2) * 70000 + 1;
    slab.end = (slab.end + grid) & ~grid;
    for (size_t i = 0; i <= slab.count / 64 && i < sizeof bits / sizeof *bits; i++)
        bits[i] = is_full || random_below(3) ? ~UINT64_C(0) : random_below(UINT64_MAX);
    if (slab.count < BITS_MOST)
        must(blocks_add(blocks, &slab, bits, NULL));
    return slab.end;
}

static hi_addr chunks_push(struct blocks *blocks, hi_addr at)
{
    struct region region = {.shape = REGION_CHUNKS, .gap = 8};
    region.start = at + random_below(3) * 4096 * random_below(600);
    region.end = region.start + random_below(9 << 20) + 64;
    must(blocks_chunks_begin(blocks, &region, NULL));
    hi_addr grid = (region.start + 15) & ~(hi_addr)15;
    while (grid + 16 < region.end) {
        struct block_chunk chunk = {grid, random_below(8) ? BLOCK_LIVE : BLOCK_FREE};
        must(blocks_chunks_add(blocks, &chunk, 1, NULL));
        grid += 16 * (2 + (random_below(50) ? random_below(40) : random_below(100000)));
    }
    must(blocks_chunks_end(blocks, NULL));
    return region.end;
}

static struct blocks *random_blocks(unsigned kinds)
{
    static const unsigned grids[] = {0, 12, 14, 16};
    struct blocks *blocks;
    unsigned grid_bits = grids[random_below(4)];
    must(blocks_new(&blocks, NULL));
    for (unsigned g = 0; g < 2; g++) {
        hi_addr at = (g ? SECOND : FIRST) + (random_below(2) ? 0 : (1 << 30) - (5 << 20));
        for (unsigned i = 0; i < 12; i++)
            at = kinds & 1 && (kinds == 1 || random_below(2)) ? slab_push(blocks, at, grid_bits)
                                                              : chunks_push(blocks, at);
    }
    must(blocks_finish(blocks, NULL));
    return blocks;
}

/* Like starts_find() by the long way: true when a block starts there. */
static bool start_at(const struct blocks *blocks, hi_addr address, hi_block *block)
{
    struct block_place place;
    if (!blocks_at(blocks, address, &place) || place.offset)
        return false;
    *block = blocks_is_live(blocks, place.block) ? place.block : BLOCK_NONE;
    return true;
}

struct outcome {
    uint64_t wrong, simple, others;
};

static void compare(const struct blocks *blocks, const struct starts *starts, const hi_addr *gibs,
                    const uint32_t *places, size_t count, struct outcome *outcome)
{
    hi_block found[STARTS_MANY], truth;
    uint16_t others[STARTS_MANY];
    size_t other_count = starts_find(starts, places, count, found, others), at = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t gib = places[i] >> STARTS_PLACE_BITS;
        hi_addr address = gib < 3 ? gibs[gib] + (hi_addr)(places[i] % GIB_PLACES) * 8 : 0;
        bool is_other = at < other_count && others[at] == i;
        at += is_other;
        outcome->others += is_other;
        outcome->simple += !is_other;
        outcome->wrong += !is_other && (!start_at(blocks, address, &truth) || truth != found[i]);
    }
    outcome->wrong += at != other_count;
}

/* Starts of blocks, their neighbours and anything; some in no GiB. */
static uint32_t random_place(const struct blocks *blocks, const hi_addr *gibs)
{
    const struct region *region = blocks_region(blocks, random_below(blocks_region_count(blocks)));
    hi_block block = region->base + (hi_block)random_below(region->count + UINT64_C(1));
    hi_addr address = blocks_address(blocks, block);
    uint64_t kind = random_below(20);
    if (kind == 0)
        return (uint32_t)random_below(UINT64_C(1) << 32);
    if (kind < 4)
        address += 8 * random_below(64);
    for (uint32_t g = 0; g < 3; g++)
        if (address >= gibs[g] && address - gibs[g] < UINT64_C(1) << 30)
            return g << STARTS_PLACE_BITS | (uint32_t)((address - gibs[g]) / 8);
    return UINT32_MAX;
}

static void test_random(unsigned kinds, const char *name)
{
    struct outcome outcome = {0};
    for (unsigned round = 0; round < 40; round++) {
        struct blocks *blocks = random_blocks(kinds);
        hi_addr gibs[3] = {FIRST, SECOND, FIRST + (UINT64_C(1) << 30)};
        struct starts *starts = starts_new(blocks, gibs, 3);
        uint32_t places[STARTS_MANY];
        for (unsigned turn = 0; turn < 200; turn++) {
            size_t count = random_below(STARTS_MANY + 1);
            for (size_t i = 0; i < count; i++)
                places[i] = random_place(blocks, gibs);
            for (int path = 0; path < STARTS_PATH_COUNT; path++)
                if (starts_take_path(starts, (enum starts_path)path))
                    compare(blocks, starts, gibs, places, count, &outcome);
        }
        starts_free(starts);
        blocks_free(blocks);
    }
    ok(outcome.wrong == 0, "%s: the answers are those of blocks_at()", name);
    ok(outcome.simple > outcome.others / 4 && outcome.others > 0, "%s: both roads were taken",
       name);
}

int main(void)
{
    test_random(1, "slabs");
    test_random(2, "chunks");
    test_random(3, "both");
    return done();
}
