/* A small heap made by hand, for the tests of the graph: memory, regions, roots, and what they
 * should mean. */
#ifndef TESTS_UNIT_GRAPH_WORLD_H
#define TESTS_UNIT_GRAPH_WORLD_H

#include "graph/graph.h"
#include "unit/tap.h"

#include <stdlib.h>

enum { WORLD_SEGMENTS = 16 };

struct world {
    struct target_segment segments[WORLD_SEGMENTS];
    size_t segment_count;
    struct heaps *heaps;
    struct roots roots;
    struct target *target;
    struct graph *graph;
    struct graph_options options;
};

static inline void world_require(bool fine, const char *what)
{
    if (fine)
        return;
    printf("Bail out! the test itself failed: %s\n", what);
    exit(2);
}

static inline void world_new(struct world *w)
{
    *w = (struct world){.options = {.jobs = 1}};
    w->heaps = calloc(1, sizeof *w->heaps);
    world_require(blocks_new(&w->heaps->blocks, NULL) == HI_OK, "blocks_new");
}

static inline void world_free(struct world *w)
{
    graph_free(w->graph);
    target_close(w->target);
    blocks_free(w->heaps->blocks);
    VECTOR_FREE(&w->heaps->metadata);
    VECTOR_FREE(&w->heaps->kept);
    VECTOR_FREE(&w->heaps->suspect);
    VECTOR_FREE(&w->heaps->held);
    free(w->heaps);
    VECTOR_FREE(&w->roots.ranges);
    VECTOR_FREE(&w->roots.words);
    for (size_t i = 0; i < w->segment_count; i++)
        free((void *)(uintptr_t)w->segments[i].bytes);
}

static inline void world_memory(struct world *w, hi_addr address, size_t bytes)
{
    w->segments[w->segment_count++] = (struct target_segment){
        .address = address,
        .bytes = calloc(1, bytes),
        .size = bytes,
        .protection = MAPPING_READ | MAPPING_WRITE,
    };
}

static inline void world_put(struct world *w, hi_addr at, uint64_t value)
{
    for (size_t i = 0; i < w->segment_count; i++) {
        const struct target_segment *s = &w->segments[i];
        if (at >= s->address && at + 8 <= s->address + s->size) {
            memcpy((char *)(uintptr_t)s->bytes + (at - s->address), &value, 8);
            return;
        }
    }
    world_require(false, "no memory at that address");
}

static inline void world_region(struct world *w, const struct region *region, const uint64_t *live)
{
    world_require(blocks_add(w->heaps->blocks, region, live, NULL) == HI_OK, "blocks_add");
}

static inline void world_root_range(struct world *w, enum root_class class, hi_addr start,
                                    hi_addr end)
{
    struct root_range *range = VECTOR_PUSH(&w->roots.ranges);
    *range = (struct root_range){.class = class, .start = start, .end = end};
}

static inline void world_root_word(struct world *w, enum root_class class, uint64_t value)
{
    struct root_word *word = VECTOR_PUSH(&w->roots.words);
    *word = (struct root_word){.class = class, .value = value, .name = "word"};
}

static inline void world_metadata(struct world *w, hi_addr start, hi_addr end)
{
    struct hi_range *range = VECTOR_PUSH(&w->heaps->metadata);
    *range = (struct hi_range){start, end};
}

/* A damaged part of a heap, which blocks_add() was told is not live. */
/* The program says that [start, end) holds. */
static inline void world_held(struct world *w, hi_addr start, hi_addr end)
{
    struct heap_held *held = VECTOR_PUSH(&w->heaps->held);
    world_require(held != NULL, "memory");
    *held = (struct heap_held){start, end, "root region"};
}

static inline void world_suspect(struct world *w, hi_addr start, hi_addr end)
{
    struct hi_range *range = VECTOR_PUSH(&w->heaps->suspect);
    *range = (struct hi_range){start, end};
}

static inline void world_finish(struct world *w)
{
    world_require(blocks_finish(w->heaps->blocks, NULL) == HI_OK, "blocks_finish");
    world_require(target_open_bytes(&w->target, w->segments, w->segment_count, NULL) == HI_OK,
                  "target_open_bytes");
}

static inline void world_read(struct world *w)
{
    graph_free(w->graph);
    world_require(graph_build(&w->graph, w->target, w->heaps, &w->roots, &w->options, NULL) ==
                      HI_OK,
                  "graph_build");
}

static inline void world_build(struct world *w, graph_judge judge, void *context)
{
    world_read(w);
    world_require(graph_mark(w->graph, judge, context, NULL) == HI_OK, "graph_mark");
}

static inline hi_block world_block(const struct world *w, hi_addr address)
{
    struct block_place place;
    world_require(blocks_at(w->heaps->blocks, address, &place), "no block there");
    return place.block;
}

static inline enum mark world_mark(const struct world *w, hi_addr address)
{
    return graph_mark_of(w->graph, world_block(w, address));
}

#endif
