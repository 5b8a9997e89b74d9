/* Groups of lost blocks and a path from a root, on two slabs whose pointers are set here. */
#include "analysis/leaks.h"
#include "analysis/root_path.h"
#include "unit/tap.h"

enum { COUNT = 16, SMALL = 64, BIG = 256 };
#define SMALL_SLAB UINT64_C(0x10000)
#define BIG_SLAB   UINT64_C(0x20000)

static uint64_t small[COUNT][SMALL / 8], big[COUNT][BIG / 8];
static struct heap_reader reader = {.name = "toy"};
static struct heaps heaps;
static struct inspection in;

static hi_addr small_at(unsigned i)
{
    return SMALL_SLAB + i * SMALL;
}

static hi_addr big_at(unsigned i)
{
    return BIG_SLAB + i * BIG;
}

/* root -> small 0 -> small 1 -> big 0
 * lost: small 2, small 3 alone; small 4 -> small 5 -> big 1; big 2 <-> big 3 (a ring); big 4 alone
 * possible: big 5, by its middle (from small 0). All others are free. */
static void set_pointers(void)
{
    small[0][1] = small_at(1);
    small[0][2] = big_at(5) + 40;
    small[1][3] = big_at(0);
    small[4][0] = small_at(5);
    small[5][7] = big_at(1);
    big[2][9] = big_at(3);
    big[3][9] = big_at(2);
}

static bool add_slab(hi_addr start, uint32_t bytes, uint64_t live)
{
    struct hi_err err;
    struct region region = {.start = start,
                            .end = start + COUNT * bytes,
                            .first = start,
                            .stride = bytes,
                            .count = COUNT,
                            .usable = bytes,
                            .shape = REGION_SLAB};
    return blocks_add(heaps.blocks, &region, &live, &err) == HI_OK;
}

static bool prepare(void)
{
    struct hi_err err;
    struct target_segment segments[] = {
        {SMALL_SLAB, small, sizeof small, MAPPING_READ | MAPPING_WRITE, NULL},
        {BIG_SLAB, big, sizeof big, MAPPING_READ | MAPPING_WRITE, NULL}};
    struct graph_options options = {.jobs = 1};
    set_pointers();
    heaps.count = 1;
    heaps.heaps[0].reader = &reader;
    *VECTOR_PUSH(&heaps.arenas) = (struct arena){0};
    *VECTOR_PUSH(&in.roots.words) =
        (struct root_word){.class = ROOT_REGISTER, .tid = 1, .value = small_at(0), .name = "rbx"};
    in.heaps = &heaps;
    return blocks_new(&heaps.blocks, &err) == HI_OK && add_slab(SMALL_SLAB, SMALL, 0x3f) &&
           add_slab(BIG_SLAB, BIG, 0x3f) && blocks_finish(heaps.blocks, &err) == HI_OK &&
           target_open_bytes(&in.target, segments, 2, &err) == HI_OK &&
           graph_build(&in.graph, in.target, &heaps, &in.roots, &options, &err) == HI_OK &&
           graph_mark(in.graph, NULL, NULL, &err) == HI_OK;
}

static void test_groups(void)
{
    struct leaks leaks;
    struct hi_err err;
    if (!ok(leaks_find(&leaks, &in, &err) == HI_OK, "leaks are grouped"))
        return;
    is_u64(leaks.totals.direct.blocks, 5, "direct: 2, 3, 4, one of the ring, big 4");
    is_u64(leaks.totals.indirect.blocks, 3, "indirect: 5, big 1, the other of the ring");
    is_u64(leaks.totals.possible.blocks, 1, "possible: big 5");
    is_u64(leaks.totals.direct.bytes, 3 * SMALL + 2 * BIG, "bytes of the direct ones");
    is_u64(leaks.groups.count, 3, "a group a size and kind");
    const struct leak_group *first = &leaks.groups.items[0], *second = first + 1;
    const struct leak_group *last = first + 2;
    ok(first->kind == MARK_DIRECT && first->own.blocks == 2 && first->size_max == BIG &&
           first->indirect.blocks == 1 && first->indirect.bytes == BIG,
       "the big ones first, with the ring's other member");
    ok(second->kind == MARK_DIRECT && second->own.blocks == 3 && second->indirect.blocks == 2 &&
           second->indirect.bytes == SMALL + BIG,
       "then the small ones, with the chain");
    ok(second->example_count == 3 && second->examples[0] == small_at(2) &&
           second->examples[2] == small_at(4),
       "examples in address order");
    ok(last->kind == MARK_POSSIBLE && last->examples[0] == big_at(5), "possible ones last");
    leaks_free(&leaks);
}

static hi_block block_at(hi_addr address)
{
    struct block_place place = {.block = BLOCK_NONE};
    (void)blocks_at(heaps.blocks, address, &place);
    return place.block;
}

static void test_paths(void)
{
    struct root_path path;
    struct hi_err err;
    if (ok(root_path_find(&path, &in, block_at(big_at(0)), &err) == HI_OK && path.found,
           "a path to what is held")) {
        ok(path.blocks.count == 3 && path.blocks.items[0] == block_at(small_at(0)) &&
               path.blocks.items[1] == block_at(small_at(1)) && !path.by_interior,
           "... over the blocks between");
        ok(path.root.class == ROOT_REGISTER, "... from a register");
        root_path_free(&path);
    }
    if (ok(root_path_find(&path, &in, block_at(big_at(5)), &err) == HI_OK && path.found,
           "a path to what may be held")) {
        ok(path.by_interior && path.blocks.count == 2, "... over its middle, and says so");
        root_path_free(&path);
    }
    ok(root_path_find(&path, &in, block_at(small_at(5)), &err) == HI_OK && !path.found,
       "no path to what is lost");
    root_path_free(&path);
}

int main(void)
{
    if (ok(prepare(), "two slabs, read and marked")) {
        test_groups();
        test_paths();
    }
    graph_free(in.graph);
    blocks_free(heaps.blocks);
    target_close(in.target);
    VECTOR_FREE(&heaps.arenas);
    VECTOR_FREE(&in.roots.words);
    return done();
}
