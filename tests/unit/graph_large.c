/* graph: what only shows at size: blocks read in parts, many edges in one block, wide and deep
 * shapes, lost lists and rings of 300000 blocks, reads that fail. */
#include "unit/graph_world.h"

enum { DATA = 0x10000, COUNT = 300000, STRIDE = 48 };
static const hi_addr SLOTS = 0x10000000, LARGE = 0x40000000;

static hi_addr slot(uint32_t i)
{
    return SLOTS + (hi_addr)i * STRIDE;
}

/* Slots and, when large_bytes, one large block behind them (number COUNT). */
static void open_world(struct world *w, uint64_t large_bytes)
{
    world_new(w);
    world_memory(w, DATA, 4096);
    world_root_range(w, ROOT_DATA, DATA, DATA + 4096);
    struct region slab = {.start = SLOTS, .first = SLOTS, .stride = STRIDE, .usable = STRIDE};
    slab.count = COUNT;
    slab.end = SLOTS + (hi_addr)COUNT * STRIDE;
    slab.shape = REGION_SLAB;
    world_memory(w, SLOTS, slab.end - SLOTS);
    world_region(w, &slab, NULL);
    if (!large_bytes)
        return;
    struct region one = {.start = LARGE, .first = LARGE, .usable = large_bytes};
    one.end = LARGE + large_bytes;
    one.shape = REGION_SINGLE;
    world_memory(w, LARGE, large_bytes);
    world_region(w, &one, NULL);
}

static uint64_t count_marks(const struct world *w, enum mark mark)
{
    uint64_t count = 0;
    for (hi_block b = 0; b < blocks_count(w->heaps->blocks); b++)
        count += graph_mark_of(w->graph, b) == mark;
    return count;
}

/* One array that holds every slot: wide at once, the dense way. */
static void star(int jobs)
{
    struct world w;
    open_world(&w, COUNT * 8);
    for (uint32_t i = 0; i < COUNT; i++)
        world_put(&w, LARGE + (hi_addr)i * 8, slot((uint32_t)((uint64_t)i * 7919 % COUNT)));
    world_put(&w, DATA, LARGE);
    world_finish(&w);
    w.options.jobs = jobs;
    w.options.deferred = jobs > 1;
    world_build(&w, NULL, NULL);
    ok(count_marks(&w, MARK_REACHABLE) == COUNT + 1, "an array that holds all (%d workers)", jobs);
    is_u64(graph_edge_count(w.graph, COUNT), COUNT, "all of its edges are there");
    bool same = true;
    for (uint32_t i = 0; i < COUNT; i++)
        same &= graph_edge(w.graph, COUNT, i).block == (uint64_t)i * 7919 % COUNT;
    ok(same, "in the order of its words");
    is_u64(graph_stats(w.graph)->followed, COUNT + 1, "each was followed once");
    is_u64(graph_stats(w.graph)->repeated, 0, "and none met twice");
    world_free(&w);
}

/* A tree from slot 0, two below each; a second tree of a third of the slots is lost. */
static void trees(int jobs)
{
    struct world w;
    open_world(&w, 0);
    const uint32_t split = COUNT / 3 * 2;
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t first = i < split ? 0 : split, last = i < split ? split : COUNT;
        for (uint32_t k = 1; k <= 2; k++)
            if (2 * (i - first) + k < last - first)
                world_put(&w, slot(i) + 8 * k, slot(first + 2 * (i - first) + k));
    }
    world_put(&w, DATA + 32, slot(0));
    world_finish(&w);
    w.options.jobs = jobs;
    w.options.deferred = jobs > 1;
    world_build(&w, NULL, NULL);
    is_u64(count_marks(&w, MARK_REACHABLE), split, "a tree is reached");
    ok(count_marks(&w, MARK_DIRECT) == 1 && graph_mark_of(w.graph, split) == MARK_DIRECT,
       "another is lost and its root is direct (%d workers)", jobs);
    is_u64(count_marks(&w, MARK_INDIRECT), COUNT - split - 1, "the rest of it is indirect");
    world_free(&w);
}

static void list(bool held, bool ring)
{
    struct world w;
    open_world(&w, 0);
    for (uint32_t i = 0; i < (uint32_t)COUNT - !ring; i++)
        world_put(&w, slot((uint32_t)((uint64_t)i * 7919 % COUNT)),
                  slot((uint32_t)((uint64_t)(i + 1) * 7919 % COUNT)));
    if (held)
        world_put(&w, DATA, slot(0));
    world_finish(&w);
    world_build(&w, NULL, NULL);
    if (held) {
        is_u64(count_marks(&w, MARK_REACHABLE), COUNT, "a list that is held");
    } else {
        ok(graph_mark_of(w.graph, 0) == MARK_DIRECT && count_marks(&w, MARK_DIRECT) == 1 &&
               count_marks(&w, MARK_INDIRECT) == COUNT - 1 && graph_leader(w.graph, COUNT - 1) == 0,
           "a lost %s has one direct block", ring ? "ring" : "list");
    }
    world_free(&w);
}

/* Words at every seam of a block of 40 MiB: windows, parts, both ends. */
static void seams(int jobs)
{
    struct world w;
    const uint64_t bytes = (UINT64_C(40) << 20) + 24;
    open_world(&w, bytes);
    uint32_t planted = 0;
    for (uint64_t at = 0; at + 8 <= bytes; at += planted % 2 ? 8 : (64 << 10) - 8)
        world_put(&w, LARGE + at, slot(planted++));
    world_put(&w, LARGE + bytes - 8, slot(planted++));
    world_put(&w, DATA, LARGE);
    world_finish(&w);
    w.options.jobs = jobs;
    w.options.deferred = jobs > 1;
    world_build(&w, NULL, NULL);
    is_u64(graph_edge_count(w.graph, COUNT), planted, "a block in parts: every edge is found");
    bool same = true;
    for (uint32_t i = 0; i < planted; i++)
        same &= graph_edge(w.graph, COUNT, i).block == i;
    ok(same, "in order (%d workers)", jobs);
    is_u64(count_marks(&w, MARK_REACHABLE), planted + 1, "and followed");
    is_u64(graph_stats(w.graph)->words, bytes / 8 + COUNT * STRIDE / 8 + 512, "no word twice");
    world_free(&w);
}

/* Blocks of 251 to 258 edges: round the largest degree that fits a byte. */
static void fat_edges(void)
{
    struct world w;
    open_world(&w, 0);
    struct region slab = {.start = LARGE, .first = LARGE, .stride = 4096, .usable = 4096};
    slab.count = 8;
    slab.end = LARGE + 8 * 4096;
    slab.shape = REGION_SLAB;
    world_memory(&w, LARGE, 8 * 4096);
    world_region(&w, &slab, NULL);
    for (uint32_t b = 0; b < 8; b++)
        for (uint32_t i = 0; i < 251 + b; i++)
            world_put(&w, LARGE + b * 4096 + i * 8, slot(1000 * b + i));
    world_finish(&w);
    world_build(&w, NULL, NULL);
    bool same = true;
    for (uint32_t b = 0; b < 8; b++) {
        same &= graph_edge_count(w.graph, COUNT + b) == 251 + b;
        for (uint32_t i = 0; same && i < 251 + b; i++)
            same = graph_edge(w.graph, COUNT + b, i).block == 1000 * b + i;
    }
    ok(same, "251 to 258 edges in a block");
    world_free(&w);
}

/* Each read in turn fails: no crash, the loss is counted, and what was read still counts. */
static void failing_reads(void)
{
    struct world w;
    open_world(&w, 1 << 20);
    world_put(&w, DATA, slot(5));
    world_put(&w, LARGE + 1000 * 8, slot(6));
    world_finish(&w);
    world_build(&w, NULL, NULL);
    bool counted = true, ended = false;
    for (uint64_t nth = 1; nth < 500 && !ended; nth++) {
        graph_free(w.graph);
        target_bytes_fail_read(w.target, nth);
        world_require(graph_build(&w.graph, w.target, w.heaps, &w.roots, &w.options, NULL) == HI_OK,
                      "graph_build");
        ended = graph_stats(w.graph)->missing_bytes == 0;
        world_require(graph_mark(w.graph, NULL, NULL, NULL) == HI_OK, "graph_mark");
        if (!ended)
            counted &= graph_stats(w.graph)->edges + graph_stats(w.graph)->root_edges <= 2;
    }
    ok(counted && ended, "any read may fail, and is counted");
    target_bytes_fail_read(w.target, 0);
    world_free(&w);
}

int main(void)
{
    star(1);
    star(3);
    trees(1);
    trees(3);
    list(true, false);
    list(false, false);
    list(false, true);
    seams(1);
    seams(3);
    fat_edges();
    failing_reads();
    return done();
}
