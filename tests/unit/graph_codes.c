/*
 * Words put into codes and looked up later are what they would have been at once: over heaps in
 * more GiBs than are numbered, words off the grid, words that are nowhere, and a NODE of many GiB.
 */
#include "graph/codes.h"
#include "unit/tap.h"

#include <stdlib.h>

enum { REGIONS = 60, WORDS = 200000 };

static uint64_t state = 88172645463325252;

static uint64_t random_below(uint64_t limit)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % limit;
}

static void fill(struct blocks *blocks, unsigned regions)
{
    struct hi_err err;
    uint64_t live[4] = {0x5555555555555555, ~UINT64_C(0), 0, 0xff00ff00ff00ff00};
    for (unsigned i = 0; i < regions; i++) {
        struct region slab = {.shape = REGION_SLAB, .stride = 48, .usable = 40, .count = 256};
        slab.start = slab.first =
            ((hi_addr)(1 + 2 * i) << 30) - (i % 3 ? random_below(256) * 48 : 256 * 48);
        slab.end = slab.start + UINT64_C(48) * 256;
        if (blocks_add(blocks, &slab, live, &err) != HI_OK)
            exit(99);
    }
    struct hi_range node = {(hi_addr)(2 * REGIONS + 4) << 30, (hi_addr)(2 * REGIONS + 90) << 30};
    if (regions % 2 && blocks_add_node(blocks, node, &err) != HI_OK)
        exit(99);
    if (blocks_finish(blocks, &err) != HI_OK)
        exit(99);
}

static uint64_t random_word(const struct blocks *blocks)
{
    struct hi_range span = blocks_span(blocks);
    const struct region *region = blocks_region(blocks, random_below(blocks_region_count(blocks)));
    uint64_t bytes = region->end - region->start;
    switch (random_below(8)) {
    case 0:
        return span.start + random_below(span.end - span.start + 1);
    case 1:
        return region->start + random_below(bytes + 1);
    case 2:
        return random_below(2) ? span.end : region->end;
    default:
        return region->start + random_below(bytes) / 8 * 8;
    }
}

static void compare(unsigned regions)
{
    static uint64_t words[WORDS];
    static uint32_t at_once[WORDS], later[WORDS];
    struct blocks *blocks;
    struct codes codes;
    struct hi_err err;
    if (blocks_new(&blocks, &err) != HI_OK)
        exit(99);
    fill(blocks, regions);
    struct resolve resolve = {.blocks = blocks, .live = blocks_live_plane(blocks)};
    size_t none = 0, wrong = 0, left = 0, dropped = 0;
    for (size_t i = 0; i < WORDS; i++)
        words[i] = random_word(blocks);
    resolve_words(&resolve, words, WORDS, at_once);
    ok(codes_new_of(&codes, blocks, WORDS) && codes_put(&codes, words, WORDS, later, &dropped),
       "%u GiBs: words are put away", regions);
    /* what is dropped at once is none of the graph's */
    for (size_t i = 0; i < WORDS; i++) {
        wrong += later[i] == EDGE_NONE && at_once[i] != EDGE_NONE;
        if (later[i] != EDGE_NONE) {
            at_once[left] = at_once[i];
            later[left++] = later[i];
        }
    }
    is_u64(WORDS - left, dropped, "as many are dropped as it says");
    ok(codes_ready(&codes, blocks), "the blocks are known");
    size_t said = codes_resolve(&codes, &resolve, later, left);
    for (size_t i = 0; i < left; i++) {
        wrong += later[i] != at_once[i];
        none += at_once[i] == EDGE_NONE;
    }
    is_u64(wrong, 0, "each is what it would have been at once");
    ok(said == none && none > 100 && left - none > 1000, "%zu of %zu are none", none, left);
    codes_free(&codes);
    ok(codes_new_of(&codes, blocks, 10) && !codes_put(&codes, words, WORDS, later, &dropped),
       "no room for odd words is said");
    codes_free(&codes);
    blocks_free(blocks);
}

int main(void)
{
    for (unsigned regions = 1; regions <= REGIONS; regions += 1 + regions / 2)
        compare(regions);
    return done();
}
