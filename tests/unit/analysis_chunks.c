/* Listing, drawing and counting blocks of a heap that is made here: slab, chunks, one large. */
#include "analysis/census.h"
#include "analysis/chunk_map.h"
#include "analysis/fragmentation.h"
#include "analysis/judge.h"
#include "unit/tap.h"

#define SLAB   UINT64_C(0x100000)
#define CHUNKS UINT64_C(0x200000)
#define LARGE  UINT64_C(0x40000000)

static struct heap_reader reader = {.name = "toy"};
static struct heaps heaps;
static struct inspection in;

static void add_arena(uint32_t id)
{
    struct arena *arena = VECTOR_PUSH(&heaps.arenas);
    *arena = (struct arena){.id = id};
}

/* 64 slots of 64 bytes, every other one live; four chunks; one block of a GiB. */
static bool make_heap(void)
{
    struct hi_err err;
    struct target_segment segment = {0x1000, "", 1, MAPPING_READ, NULL};
    uint64_t alternating = UINT64_C(0x5555555555555555);
    struct region slab = {.start = SLAB,
                          .end = SLAB + 4096,
                          .first = SLAB,
                          .stride = 64,
                          .count = 64,
                          .usable = 64,
                          .shape = REGION_SLAB,
                          .slack = 15};
    struct region chunks = {
        .start = CHUNKS, .end = CHUNKS + 1024, .gap = 8, .shape = REGION_CHUNKS, .arena = 1};
    struct region large = {.start = LARGE,
                           .end = LARGE + (1 << 30),
                           .first = LARGE,
                           .count = 1,
                           .usable = 1 << 30,
                           .shape = REGION_SINGLE,
                           .arena = 1};
    static const struct block_chunk list[] = {{CHUNKS + 16, BLOCK_LIVE},
                                              {CHUNKS + 64, BLOCK_CACHED},
                                              {CHUNKS + 256, BLOCK_FREE},
                                              {CHUNKS + 512, BLOCK_LIVE}};
    heaps.count = 1;
    heaps.heaps[0].reader = &reader;
    add_arena(7);
    add_arena(9);
    in.heaps = &heaps;
    return blocks_new(&heaps.blocks, &err) == HI_OK &&
           blocks_add(heaps.blocks, &slab, &alternating, &err) == HI_OK &&
           blocks_chunks_begin(heaps.blocks, &chunks, &err) == HI_OK &&
           blocks_chunks_add(heaps.blocks, list, 4, &err) == HI_OK &&
           blocks_chunks_end(heaps.blocks, &err) == HI_OK &&
           blocks_add(heaps.blocks, &large, NULL, &err) == HI_OK &&
           blocks_finish(heaps.blocks, &err) == HI_OK &&
           target_open_bytes(&in.target, &segment, 1, &err) == HI_OK;
}

/* -- the list --------------------------------------------------------------------------------- */

struct seen {
    uint64_t count, bytes;
    hi_addr last;
    bool rising;
};

static bool see(void *context, const struct chunk *chunk)
{
    struct seen *seen = context;
    seen->rising = seen->rising && chunk->address > seen->last;
    seen->last = chunk->address;
    seen->count++;
    seen->bytes += chunk->size;
    return true;
}

static struct seen list(struct chunk_filter filter, struct chunk_counts *counts)
{
    struct seen seen = {.rising = true};
    struct hi_err err;
    if (!filter.max_bytes)
        filter.max_bytes = UINT64_MAX;
    ok(chunk_list(&in, &filter, see, &seen, counts, &err) == HI_OK, "a list");
    return seen;
}

static void test_list(void)
{
    struct chunk_counts counts;
    struct seen all = list((struct chunk_filter){0}, &counts);
    is_u64(all.count, 64 + 4 + 1, "every block once");
    ok(all.rising, "in address order");
    is_u64(list((struct chunk_filter){.states = 1u << BLOCK_LIVE}, &counts).count, 32 + 2 + 1,
           "live ones");
    is_u64(list((struct chunk_filter){.states = 1u << BLOCK_CACHED}, &counts).last, CHUNKS + 64,
           "the cached one");
    is_u64(list((struct chunk_filter){.has_arena = true, .arena_id = 9}, &counts).count, 5,
           "an arena, by its own number");
    is_u64(list((struct chunk_filter){.has_arena = true, .arena_id = 1}, &counts).count, 0,
           "... not by its place");
    is_u64(list((struct chunk_filter){.min_bytes = 65, .max_bytes = 1 << 29}, &counts).count, 3,
           "between two sizes");
    struct seen some = list((struct chunk_filter){.limit = 10}, &counts);
    ok(some.count == 10 && counts.shown == 10 && counts.matched == 69, "a limit, and the rest");
}

/* -- the map ---------------------------------------------------------------------------------- */

static uint64_t sum(const struct chunk_map *map, enum block_state state)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < map->cell_count; i++)
        bytes += map->cells[i].bytes[state];
    return bytes;
}

static void test_whole_map(void)
{
    static const unsigned sizes[][2] = {{80, 20}, {20, 2}, {1, 1}, {1000, 1000}, {7, 3}};
    for (size_t i = 0; i < 5; i++) {
        struct map_request request = {.columns = sizes[i][0], .rows = sizes[i][1]};
        struct chunk_map map;
        struct hi_err err = {0};
        if (!ok(chunk_map_make(&map, &in, &request, &err) == HI_OK, "a map of %u x %u %s",
                sizes[i][0], sizes[i][1], err.message))
            continue;
        ok(map.cell_count <= (size_t)sizes[i][0] * sizes[i][1], "... fits");
        is_u64(sum(&map, BLOCK_LIVE), 32 * 64 + 48 + 512 + (1 << 30), "... has all live bytes");
        is_u64(sum(&map, BLOCK_CACHED), 192, "... and the cached ones");
        is_u64(sum(&map, BLOCK_FREE), 32 * 64 + 256, "... and the free ones");
        hi_addr address;
        ok(chunk_map_address(&map, 0, &address) && address == SLAB, "... and starts at the slab");
        chunk_map_free(&map);
    }
}

static void test_zoom(void)
{
    struct map_request request = {
        .columns = 80, .rows = 20, .has_address = true, .address = SLAB + 100};
    struct chunk_map map;
    struct hi_err err;
    if (ok(chunk_map_make(&map, &in, &request, &err) == HI_OK, "a slab from close by")) {
        ok(map.one_block_a_cell && map.cell_count == 64, "a cell a block");
        bool right = true;
        for (size_t i = 0; i < map.cell_count; i++)
            right = right && map.cells[i].starts == 1 &&
                    map.cells[i].bytes[i % 2 ? BLOCK_FREE : BLOCK_LIVE] == 64;
        ok(right, "each with its state");
        chunk_map_free(&map);
    }
    request.address = CHUNKS + 300;
    if (ok(chunk_map_make(&map, &in, &request, &err) == HI_OK, "chunks from close by")) {
        ok(map.cell_bytes == 16 && map.is_zoomed, "cells of 16 bytes");
        ok(map.cells[1].starts == 1 && map.cells[1].bytes[BLOCK_LIVE] == 16 &&
               map.cells[4].starts == 1 && map.cells[4].bytes[BLOCK_CACHED] == 16,
           "blocks begin where they do");
        chunk_map_free(&map);
    }
    request.address = LARGE + (1 << 29);
    if (ok(chunk_map_make(&map, &in, &request, &err) == HI_OK, "inside a large block")) {
        hi_addr address;
        ok(chunk_map_address(&map, map.cell_count / 2, &address) &&
               address >= request.address - 4096 && address <= request.address + 4096,
           "the window is around the address");
        is_u64(sum(&map, BLOCK_LIVE), map.cell_count * map.cell_bytes, "all of it is live");
        chunk_map_free(&map);
    }
    request.address = 0x1234;
    ok(chunk_map_make(&map, &in, &request, &err) == HI_NOT_FOUND, "no heap at the address");
    request = (struct map_request){.columns = 80, .rows = 20, .has_arena = true, .arena_id = 9};
    if (ok(chunk_map_make(&map, &in, &request, &err) == HI_OK, "one arena")) {
        is_u64(sum(&map, BLOCK_FREE), 256, "only its blocks");
        chunk_map_free(&map);
    }
    request.arena_id = 1;
    ok(chunk_map_make(&map, &in, &request, &err) == HI_NOT_FOUND, "no such arena");
}

/* -- counts ----------------------------------------------------------------------------------- */

static void test_counts(void)
{
    struct fragmentation f;
    fragmentation_measure(&f, &heaps);
    is_u64(f.slabs, 2, "two regions of several blocks");
    is_u64(f.partial_slabs, 2, "both partly used");
    is_u64(f.partial_free_bytes, 32 * 64 + (192 - 8) + (256 - 8), "what is free in them");
    struct census census;
    struct hi_err err;
    if (ok(census_take(&census, &in, CENSUS_SIZE, &err) == HI_OK, "a census by size")) {
        is_u64(census.groups.items[0].key, 1 << 30, "largest first");
        is_u64(census.groups.items[1].total.blocks, 32, "then the slab's");
        is_u64(census.all.blocks, 35, "all live blocks");
        census_free(&census);
    }
    if (ok(census_take(&census, &in, CENSUS_ARENA, &err) == HI_OK, "a census by arena")) {
        is_u64(census.groups.count, 2, "two arenas");
        is_u64(census.groups.items[0].arena->id, 9, "the larger one first");
        census_free(&census);
    }
    if (ok(census_take(&census, &in, CENSUS_THREAD, &err) == HI_OK, "a census by thread"))
        ok(census.no_threads, "says that nobody knows");
    census_free(&census);
}

/* -- the judge's rules that need the block only ------------------------------------------------ */

static void test_judge(void)
{
    struct judged block = {.usable = 112, .slack = 15, .head_count = 14};
    block.head[0] = 4; /* 4 * 26 + 8 = 112 */
    ok(judge_array_cookie(&block), "a count that fills the block");
    block.head[0] = 60; /* 60 * 1 + 8 = 68: 44 bytes short */
    ok(!judge_array_cookie(&block), "one that doesn't");
    block.head[0] = 105;
    ok(!judge_array_cookie(&block), "one that is too large for the block");
    block.head[0] = UINT64_MAX / 2;
    ok(!judge_array_cookie(&block), "one that would overflow");
    block.head[0] = 0;
    block.head[1] = 96; /* 96 * 1 + 16 = 112 */
    ok(judge_array_cookie(&block), "a cookie of 16 bytes");
    block.head[1] = 0;
    ok(!judge_array_cookie(&block), "zero elements in a large block");
    ok(!judge_exception(&block), "no exception");
    block.head[10] = UINT64_C(0x474e5543432b2b00);
    ok(judge_exception(&block), "an exception of GNU C++");
    block.head[10]++;
    ok(judge_exception(&block), "a dependent one");
    struct judged loaded = {.address = 0x10010, .usable = 312, .head_count = 39};
    loaded.head[15] = 0x10010; /* a segment 112 bytes in: 2 of 5 entries used */
    loaded.head[16] = 2, loaded.head[17] = 5;
    ok(judge_loaded_objects(&loaded), "the dynamic linker's segment");
    loaded.head[17] = 6;
    ok(!judge_loaded_objects(&loaded), "one whose entries would not fit");
    loaded.head[16] = 4, loaded.head[17] = 3;
    ok(!judge_loaded_objects(&loaded), "more used than there is room");
    loaded.head[15] = 0x10020, loaded.head[16] = 2;
    ok(!judge_loaded_objects(&loaded), "one that does not know its block");
    struct judged empty = {.usable = 16, .slack = 15};
    ok(!judge_array_cookie(&empty) && !judge_exception(&empty) && !judge_loaded_objects(&empty),
       "an unreadable block is no proof");
}

int main(void)
{
    if (ok(make_heap(), "a heap of three regions")) {
        test_list();
        test_whole_map();
        test_zoom();
        test_counts();
        test_judge();
    }
    blocks_free(heaps.blocks);
    VECTOR_FREE(&heaps.arenas);
    target_close(in.target);
    return done();
}
