/*
 * jemalloc 5: what its reader's parts share.
 *
 * The page tree (rtree) maps every page of an extent to its record; it is the only complete list
 * of extents and the way in. A record says: active, dirty, muzzy or retained; slab or large. A slab
 * has its blocks' state in a bitmap beside the record (a set bit is a free region); blocks in
 * thread caches keep the bit clear and lie on stacks of pointers.
 */
#ifndef HEAP_JEMALLOC_H
#define HEAP_JEMALLOC_H

#include "heap/heap.h"
#include "heap/jemalloc_layout.h"

struct jemalloc_extent {
    hi_addr record;  /* where the record is */
    hi_addr address; /* e_addr: large blocks may start inside their first page */
    uint64_t bytes;
    unsigned arena, state, size_class, free_count;
    bool slab;
    bool in_transit; /* active, and of no size class: on its way to be given back */
    uint64_t bitmap[JEMALLOC_BITMAP_WORDS];
};

/* A thread's cache: of one that runs, or of one that a fork did not take along. */
struct jemalloc_cache {
    const struct jemalloc_cache_layout *row;
    hi_addr place;
    bool thread_gone;
    size_t thread; /* else: its index among the target's */
};

struct jemalloc {
    struct page_tree tree;
    const struct jemalloc_extent_layout *extent;
    VECTOR(hi_addr) records;        /* all extent records, rising, no doubles */
    struct page_tree_tables tables; /* the tree's own: metadata */
    VECTOR(struct jemalloc_cache) caches;
    uint32_t arena_index[JEMALLOC_ARENAS_MAX]; /* ours + 1; 0: not seen */
};

/* -- jemalloc_tree.c ----------------------------------------------------------------------------
 */
/* Look for the tree in the modules' data, from heap->tree.module on. HI_NOT_FOUND. */
HI_MUST_USE enum hi_code jemalloc_tree_find(struct jemalloc *heap,
                                            const struct heap_context *context, struct hi_err *err);
/* Fill heap->records and heap->tables. */
HI_MUST_USE enum hi_code jemalloc_tree_walk(struct jemalloc *heap,
                                            const struct heap_context *context, struct hi_err *err);
/* Take a record apart. false: it contradicts itself. */
bool jemalloc_extent_decode(const struct jemalloc *heap, const unsigned char *record,
                            struct jemalloc_extent *extent);

/* -- jemalloc_arena.c ---------------------------------------------------------------------------
 */
/* Where the arenas that the walk saw are, and which threads use them; after the caches were found.
 * What is not found out stays 0. false: no memory. */
bool jemalloc_arenas_find(const struct jemalloc *heap, const struct heap_context *context,
                          struct heap_sink *sink);

/* -- jemalloc_cache.c ---------------------------------------------------------------------------
 */
/* Fill heap->caches; the records that they are part of are metadata. For walk(). */
HI_MUST_USE enum hi_code jemalloc_caches_find(struct jemalloc *heap,
                                              const struct heap_context *context,
                                              struct heap_sink *sink, struct hi_err *err);
HI_MUST_USE enum hi_code jemalloc_caches_overlay(const struct jemalloc *heap,
                                                 const struct heap_context *context,
                                                 struct heap_sink *sink, struct hi_err *err);

#endif
