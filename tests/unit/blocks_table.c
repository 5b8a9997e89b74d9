/* blocks: look-up, numbering, states and walks against a list that is searched from end to end;
 * contradictory and overlapping regions; odd sizes. */
#include "heap/blocks.h"
#include "unit/tap.h"

#include <stdlib.h>

static uint64_t seed = 88172645463325252u;

static uint64_t random_below(uint64_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % limit;
}

/* -- the naive model ----------------------------------------------------------------------------
 */
enum { MODEL_MAX = 20000, REGIONS_MAX = 64 };
struct model_block {
    hi_addr start;
    uint64_t usable;
    enum block_state state;
};
static struct model_block model[MODEL_MAX];
static size_t model_count;
struct model_region {
    struct region region;
    size_t first_block;
    struct block_chunk *chunks;
    uint64_t live[80];
};
static struct model_region layout[REGIONS_MAX];

static bool model_at(hi_addr address, struct block_place *place)
{
    size_t ends = SIZE_MAX;
    for (size_t i = 0; i < model_count; i++) {
        hi_addr start = model[i].start, end = start + model[i].usable;
        if (start == address || (start <= address && address < end)) {
            *place = (struct block_place){.block = (hi_block)i, .offset = address - start};
            return true;
        }
        if (end == address)
            ends = i;
    }
    if (ends == SIZE_MAX)
        return false;
    *place = (struct block_place){.block = (hi_block)ends, .offset = address - model[ends].start};
    return true;
}

static void model_push(hi_addr start, uint64_t usable, enum block_state state)
{
    model[model_count++] = (struct model_block){start, usable, state};
}

static hi_addr make_slab(struct model_region *made, hi_addr at)
{
    struct region *r = &made->region;
    r->shape = REGION_SLAB;
    r->stride = (uint32_t)(1 + random_below(random_below(4) ? 300 : 20000));
    r->usable = random_below(3) ? r->stride : random_below(r->stride + 1);
    r->count = (uint32_t)random_below(200);
    r->first = at + (random_below(2) ? 0 : random_below(100));
    hi_addr end = r->first + (uint64_t)r->stride * r->count;
    if (r->count && random_below(3) == 0)
        end -= r->stride - r->usable;
    r->end = end + random_below(2) * random_below(100);
    if (r->end <= at)
        r->end = at + 1;
    for (uint32_t i = 0; i < r->count; i++) {
        bool live = random_below(2);
        made->live[i / 64] |= (uint64_t)live << i % 64;
        model_push(r->first + (uint64_t)i * r->stride, r->usable, live ? BLOCK_LIVE : BLOCK_FREE);
    }
    return r->end;
}

static hi_addr make_chunks(struct model_region *made, hi_addr at)
{
    struct region *r = &made->region;
    r->shape = REGION_CHUNKS;
    r->gap = random_below(2) ? 8 : (uint32_t)random_below(200);
    uint32_t count = (uint32_t)random_below(300);
    made->chunks = calloc(count + 1, sizeof *made->chunks);
    hi_addr address = ((at + 15) & ~(hi_addr)15) + 16 * random_below(3);
    for (uint32_t i = 0; i < count; i++) {
        made->chunks[i] = (struct block_chunk){address, (enum block_state)random_below(5)};
        address += 16 * (1 + random_below(random_below(20) ? 30 : 200000));
    }
    r->end = address + random_below(2) * random_below(1000);
    if (r->end <= at)
        r->end = at + 1;
    for (uint32_t i = 0; i < count; i++) {
        hi_addr start = made->chunks[i].address, end = r->end;
        if (i + 1 < count)
            end = made->chunks[i + 1].address - start < r->gap
                      ? start
                      : made->chunks[i + 1].address - r->gap;
        model_push(start, end - start, made->chunks[i].state);
    }
    r->count = count;
    return r->end;
}

static hi_addr make_one(struct model_region *made, hi_addr at)
{
    struct region *r = &made->region;
    r->shape = random_below(2) ? REGION_SINGLE : REGION_NODE;
    r->first = at + (r->shape == REGION_SINGLE ? random_below(5000) : 0);
    uint64_t bytes = 1 + random_below(random_below(2) ? 100 : UINT64_C(5) << 30);
    r->end = r->first + bytes;
    r->usable = r->shape == REGION_NODE ? bytes : bytes - random_below(bytes);
    r->count = 1;
    model_push(r->first, r->usable, BLOCK_LIVE);
    return r->end;
}

static hi_addr make_region(struct model_region *made, hi_addr at)
{
    memset(made, 0, sizeof *made);
    made->region.start = at;
    made->first_block = model_count;
    switch (random_below(3)) {
    case 0:
        return make_slab(made, at);
    case 1:
        return make_chunks(made, at);
    default:
        return make_one(made, at);
    }
}

static hi_addr gap_between(void)
{
    switch (random_below(4)) {
    case 0:
        return 0;
    case 1:
        return random_below(64);
    case 2:
        return random_below(1 << 20);
    default:
        return random_below(UINT64_C(40) << 30);
    }
}

static bool push_region(struct blocks *blocks, const struct model_region *made)
{
    const struct region *r = &made->region;
    if (r->shape != REGION_CHUNKS)
        return blocks_add(blocks, r, r->shape == REGION_SLAB ? made->live : NULL, NULL) == HI_OK;
    if (blocks_chunks_begin(blocks, r, NULL) != HI_OK)
        return false;
    size_t half = r->count / 2;
    bool fine = blocks_chunks_add(blocks, made->chunks, half, NULL) == HI_OK;
    fine &= blocks_chunks_add(blocks, made->chunks + half, r->count - half, NULL) == HI_OK;
    return fine && blocks_chunks_end(blocks, NULL) == HI_OK;
}

static bool push_shuffled(struct blocks *blocks, size_t count)
{
    size_t order[REGIONS_MAX];
    bool fine = true;
    for (size_t i = 0; i < count; i++) {
        size_t j = random_below(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (size_t i = 0; i < count; i++)
        fine &= push_region(blocks, &layout[order[i]]);
    return fine;
}

static bool same_at(const struct blocks *blocks, hi_addr address)
{
    struct block_place got, wanted = {.block = BLOCK_NONE};
    bool found = blocks_at(blocks, address, &got), want = model_at(address, &wanted);
    if (found == want &&
        (!found || (got.block == wanted.block && got.offset == wanted.offset &&
                    blocks_place_usable(blocks, address, &got) == model[wanted.block].usable &&
                    blocks_region(blocks, got.region) == blocks_region_of(blocks, got.block))))
        return true;
    printf("# at 0x%" PRIx64 ": got %d block %u + %" PRIu64 ", wanted %d block %u + %" PRIu64 "\n",
           address, found, got.block, got.offset, want, wanted.block, wanted.offset);
    return false;
}

static bool same_look_ups(const struct blocks *blocks, size_t regions)
{
    bool same = true;
    for (size_t i = 0; i < model_count && same; i++) {
        hi_addr start = model[i].start, end = start + model[i].usable;
        hi_addr near[] = {start - 1, start, start + 1, start + 8, end - 1, end, end + 1};
        for (size_t k = 0; k < sizeof near / sizeof *near; k++)
            same &= same_at(blocks, near[k]);
        same &= same_at(blocks, start + random_below(model[i].usable + 1));
    }
    for (size_t i = 0; i < regions; i++) {
        hi_addr start = layout[i].region.start, end = layout[i].region.end;
        hi_addr near[] = {start - 1, start, start + 1, end - 1, end, end + 1, end | 4095};
        for (size_t k = 0; k < sizeof near / sizeof *near; k++)
            same &= same_at(blocks, near[k]);
        const struct region *at = blocks_region_at(blocks, start);
        same &= at && at->start == start && blocks_region_at(blocks, end - 1) == at &&
                blocks_region_from(blocks, start) == i;
    }
    hi_addr far[] = {0, 1, UINT64_MAX, UINT64_C(1) << 47, UINT64_C(1) << 48, INT64_MAX};
    for (size_t k = 0; k < sizeof far / sizeof *far; k++)
        same &= same_at(blocks, far[k]);
    return same;
}

static bool same_blocks(const struct blocks *blocks)
{
    bool same = blocks_count(blocks) == model_count;
    const uint64_t *live = blocks_live_plane(blocks);
    for (size_t i = 0; i < model_count && same; i++) {
        hi_block b = (hi_block)i;
        bool is_live = model[i].state == BLOCK_LIVE || model[i].state == BLOCK_IN_FLIGHT;
        struct block_cursor cursor;
        same = blocks_address(blocks, b) == model[i].start &&
               blocks_cursor_at(blocks, b, &cursor) && cursor.block == b &&
               cursor.address == model[i].start && cursor.usable == model[i].usable &&
               blocks_usable(blocks, b) == model[i].usable &&
               blocks_state(blocks, b) == model[i].state && blocks_is_live(blocks, b) == is_live &&
               (live[i / 64] >> i % 64 & 1) == is_live;
        if (!same)
            printf("# block %zu: 0x%" PRIx64 " + %" PRIu64 " %s\n", i, blocks_address(blocks, b),
                   blocks_usable(blocks, b), block_state_name(blocks_state(blocks, b)));
    }
    return same;
}

static bool same_walk(const struct blocks *blocks, size_t regions)
{
    size_t i = 0;
    for (size_t r = 0; r < regions; r++) {
        struct block_cursor cursor;
        const struct region *region = blocks_region(blocks, r);
        bool more = blocks_first(blocks, region, &cursor);
        for (; more; more = blocks_next(blocks, &cursor), i++)
            if (i >= model_count || cursor.block != i || cursor.address != model[i].start ||
                cursor.usable != model[i].usable || blocks_region_of(blocks, (hi_block)i) != region)
                return false;
    }
    return i == model_count;
}

/* blocks_from: the first block of the region that ends after address or starts at or after it. */
static bool same_from(const struct blocks *blocks, size_t r, hi_addr address)
{
    const struct model_region *made = &layout[r];
    struct block_cursor cursor;
    size_t i = made->first_block, end = i + made->region.count;
    while (i < end && model[i].start + model[i].usable <= address && model[i].start < address)
        i++;
    if (!blocks_from(blocks, blocks_region(blocks, r), address, &cursor))
        return i == end;
    return i < end && cursor.block == i && cursor.address == model[i].start &&
           cursor.usable == model[i].usable;
}

static bool same_froms(const struct blocks *blocks, size_t regions)
{
    bool same = true;
    for (size_t r = 0; r < regions; r++) {
        const struct model_region *made = &layout[r];
        for (size_t i = made->first_block; i < made->first_block + made->region.count; i++) {
            same &= same_from(blocks, r, model[i].start);
            same &= same_from(blocks, r, model[i].start + model[i].usable / 2);
            same &= same_from(blocks, r, model[i].start + model[i].usable);
        }
        same &= same_from(blocks, r, 0) && same_from(blocks, r, made->region.end);
    }
    return same;
}

static bool same_overlay(struct blocks *blocks)
{
    bool same = true;
    for (size_t n = 0; n < 200 && model_count; n++) {
        size_t i = random_below(model_count);
        enum block_state before, state = (enum block_state)random_below(5);
        struct hi_err err;
        same &= blocks_set_state(blocks, model[i].start, state, &before, &err) == HI_OK;
        same &= before == model[i].state;
        model[i].state = state;
        struct block_place place;
        hi_addr inside = model[i].start + 1 + random_below(64);
        if (model_at(inside, &place) && place.offset)
            same &= blocks_set_state(blocks, inside, state, NULL, &err) == HI_NOT_FOUND &&
                    err.address == inside;
    }
    return same;
}

static void random_layouts(void)
{
    bool pushed = true, look_ups = true, blocks_same = true, walks = true, froms = true;
    bool overlays = true;
    for (int round = 0; round < 60; round++) {
        struct blocks *blocks;
        size_t regions = random_below(round < 10 ? 4 : 24);
        hi_addr at = 0x10000 + random_below(UINT64_C(1) << 45);
        model_count = 0;
        for (size_t i = 0; i < regions; i++) {
            at += gap_between();
            at = make_region(&layout[i], at);
        }
        pushed &= blocks_new(&blocks, NULL) == HI_OK && push_shuffled(blocks, regions) &&
                  blocks_finish(blocks, NULL) == HI_OK && blocks_region_count(blocks) == regions;
        look_ups &= same_look_ups(blocks, regions);
        blocks_same &= same_blocks(blocks);
        walks &= same_walk(blocks, regions);
        froms &= same_froms(blocks, regions);
        overlays &= same_overlay(blocks) && same_blocks(blocks);
        blocks_free(blocks);
        for (size_t i = 0; i < regions; i++)
            free(layout[i].chunks);
    }
    ok(pushed, "random regions are taken in any order");
    ok(look_ups, "an address finds the block that the naive search finds");
    ok(blocks_same, "number, address, size and state of every block");
    ok(walks, "a walk of each region meets its blocks in order");
    ok(froms, "a walk can start at any address");
    ok(overlays, "overlay changes the state of block starts only");
}

/* -- contradictions -----------------------------------------------------------------------------
 */
static const struct region slab = {.start = 0x10000,
                                   .end = 0x20000,
                                   .first = 0x10000,
                                   .stride = 64,
                                   .usable = 64,
                                   .count = 1024,
                                   .shape = REGION_SLAB};

static void refused(struct region region, const char *what)
{
    struct blocks *blocks;
    struct hi_err err;
    ok(blocks_new(&blocks, NULL) == HI_OK &&
           blocks_add(blocks, &region, NULL, &err) == HI_BAD_INPUT && err.has_address &&
           blocks_finish(blocks, NULL) == HI_OK && blocks_count(blocks) == 0,
       "refused: %s (%s)", what, err.message);
    blocks_free(blocks);
}

#define WITH(...)                                                                                  \
    ({                                                                                             \
        struct region r = slab;                                                                    \
        __VA_ARGS__;                                                                               \
        r;                                                                                         \
    })

static void contradictions(void)
{
    refused(WITH(r.stride = 0), "stride 0");
    refused(WITH(r.count = 1025), "a slot too many");
    refused(WITH(r.count = UINT32_MAX; r.stride = UINT32_MAX), "a count that would overflow");
    refused(WITH(r.end = r.start), "empty");
    refused(WITH(r.end = 0x1000), "end before start");
    refused(WITH(r.first = 0x10001), "last slot sticks out");
    refused(WITH(r.first = 0xffff), "first slot before the region");
    refused(WITH(r.usable = 65), "usable above stride");
    refused(WITH(r.usable = UINT64_MAX), "usable of 2^64 - 1");
    refused(WITH(r.end = UINT64_MAX), "kernel addresses");
    refused(WITH(r.shape = REGION_SINGLE; r.usable = 0x10001), "a single block that sticks out");
    refused(WITH(r.shape = (enum region_shape)77), "an unknown shape");
    refused(WITH(r.shape = REGION_CHUNKS), "chunks by blocks_add");
}

static void overlaps(void)
{
    struct blocks *blocks;
    struct hi_err err;
    ok(blocks_new(&blocks, NULL) == HI_OK && blocks_add(blocks, &slab, NULL, NULL) == HI_OK,
       "a good region");
    ok(blocks_add(blocks, &slab, NULL, &err) == HI_BAD_INPUT, "the same again is refused");
    struct region low = WITH(r.start = r.first = 0x8000);
    ok(blocks_add(blocks, &low, NULL, &err) == HI_BAD_INPUT && err.address == 0x10000,
       "an overlap from below is refused, and said where");
    struct region inside = WITH(r.start = r.first = 0x18000; r.end = 0x18040; r.count = 1);
    ok(blocks_add(blocks, &inside, NULL, &err) == HI_BAD_INPUT && err.address == 0x18000,
       "one inside is refused");
    struct region chunks = WITH(r.start = 0x1ffff; r.end = 0x30000; r.shape = REGION_CHUNKS);
    ok(blocks_chunks_begin(blocks, &chunks, &err) == HI_BAD_INPUT,
       "overlapping chunks are refused");
    ok(blocks_add_node(blocks, (struct hi_range){0x8000, 0x28000}, NULL) == HI_OK &&
           blocks_finish(blocks, NULL) == HI_OK && blocks_region_count(blocks) == 3,
       "a node is cut round what is there");
    ok(blocks_region(blocks, 0)->shape == REGION_NODE && blocks_region(blocks, 0)->end == 0x10000 &&
           blocks_region(blocks, 2)->start == 0x20000 && blocks_region(blocks, 2)->end == 0x28000 &&
           blocks_region(blocks, 2)->heap == BLOCKS_NO_HEAP,
       "both parts of it");
    blocks_free(blocks);
}

static void chunk_order(void)
{
    struct blocks *blocks;
    struct hi_err err;
    struct region chunks = WITH(r.start = 0x10000; r.end = 0x11000; r.shape = REGION_CHUNKS);
    struct block_chunk list[] = {{0x10010, BLOCK_LIVE}, {0x10010, BLOCK_LIVE},
                                 {0x10048, BLOCK_LIVE}, {0x10050, BLOCK_CACHED},
                                 {0x10040, BLOCK_LIVE}, {0x11000, BLOCK_LIVE},
                                 {0xfff0, BLOCK_LIVE},  {0x10ff0, BLOCK_SUSPECT}};
    ok(blocks_new(&blocks, NULL) == HI_OK &&
           blocks_chunks_add(blocks, list, 1, &err) == HI_BAD_INPUT,
       "a chunk outside of a region is refused");
    ok(blocks_chunks_begin(blocks, &chunks, NULL) == HI_OK &&
           blocks_chunks_add(blocks, list, 8, &err) == HI_BAD_INPUT && err.address == 0x10010,
       "the first bad chunk is named");
    ok(blocks_finish(blocks, NULL) == HI_OK && blocks_count(blocks) == 3 &&
           blocks_address(blocks, 1) == 0x10050 && blocks_address(blocks, 2) == 0x10ff0 &&
           blocks_state(blocks, 2) == BLOCK_SUSPECT,
       "the good ones stand");
    ok(blocks_finish(blocks, &err) == HI_BAD_INPUT, "a second finish is refused");
    blocks_free(blocks);
}

static void too_many(void)
{
    struct blocks *blocks;
    struct hi_err err;
    struct region big =
        WITH(r.stride = r.usable = 16; r.end = r.start + (UINT64_C(1) << 34); r.count = BLOCKS_MAX);
    struct region one =
        WITH(r.start = r.first = 0x1000; r.end = 0x1010; r.count = 1; r.stride = r.usable = 16);
    ok(blocks_new(&blocks, NULL) == HI_OK && blocks_add(blocks, &big, NULL, NULL) == HI_OK,
       "2^30 blocks are taken");
    ok(blocks_add(blocks, &one, NULL, &err) == HI_UNSUPPORTED, "one more is not, and it is said");
    blocks_free(blocks);
}

/* A slab of many GiB leaves the range in which the multiplication is exact. */
static void wide_slab(void)
{
    struct blocks *blocks;
    struct region wide = WITH(r.stride = 4000000007u; r.usable = 4000000000u; r.count = 30000;
                              r.end = r.start + UINT64_C(4000000007) * 30000);
    bool same = blocks_new(&blocks, NULL) == HI_OK &&
                blocks_add(blocks, &wide, NULL, NULL) == HI_OK &&
                blocks_finish(blocks, NULL) == HI_OK;
    for (uint32_t i = 0; i < 30000 && same; i += 7) {
        struct block_place place;
        hi_addr start = wide.first + UINT64_C(4000000007) * i;
        same = blocks_at(blocks, start, &place) && place.block == i && place.offset == 0 &&
               blocks_at(blocks, start + 4000000000u, &place) && place.block == i &&
               !blocks_at(blocks, start + 4000000001u, &place);
    }
    ok(same, "slots of 4 GB over 120 TB");
    blocks_free(blocks);
}

static void nothing(void)
{
    struct blocks *blocks;
    struct block_place place;
    ok(blocks_new(&blocks, NULL) == HI_OK && blocks_finish(blocks, NULL) == HI_OK &&
           !blocks_at(blocks, 0x1234, &place) && place.block == BLOCK_NONE &&
           blocks_region_of(blocks, 0) == NULL && blocks_address(blocks, 7) == 0 &&
           blocks_region_from(blocks, 5) == 0,
       "an empty table answers nothing");
    blocks_free(blocks);
    blocks_free(NULL);
}

int main(void)
{
    random_layouts();
    contradictions();
    overlaps();
    chunk_order();
    too_many();
    wide_slab();
    nothing();
    return done();
}
