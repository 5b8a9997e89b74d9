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

/* A slab whose bitmap is not written yet: jemalloc_unmade.c. */
struct jemalloc_unmade {
    hi_addr first;
    uint32_t stride, count;
};

struct jemalloc {
    struct page_tree tree;
    const struct jemalloc_extent_layout *extent;
    VECTOR(hi_addr) records;        /* all extent records, rising, no doubles */
    struct page_tree_tables tables; /* the tree's own: metadata */
    VECTOR(struct jemalloc_cache) caches;
    VECTOR(struct jemalloc_unmade) unmade;
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
/* The record that an entry of a leaf names; 0: none. */
hi_addr jemalloc_leaf_record(const struct jemalloc *heap, uint64_t entry);

/* -- jemalloc_unmade.c --------------------------------------------------------------------------
 */
struct jemalloc_words {
    VECTOR(uint64_t) items; /* rising */
};
/* What the threads inside the allocator have in their hands. */
struct jemalloc_hands {
    unsigned inside;                 /* threads */
    struct jemalloc_words near, far; /* registers and innermost frames; further up the stack */
};
HI_MUST_USE bool jemalloc_hands_read(struct jemalloc_hands *hands, const struct jemalloc *heap,
                                     const struct heap_context *context); /* false: memory */
void jemalloc_hands_free(struct jemalloc_hands *hands);
/* Is a thread making this slab of `regions`, `set` of them free by its bitmap? */
bool jemalloc_slab_is_unmade(const struct jemalloc *heap, const struct heap_context *context,
                             const struct jemalloc_hands *hands,
                             const struct jemalloc_extent *extent, unsigned regions, unsigned set);
/* What heap->unmade has as live is in flight. HI_STOPPED: enough. */
HI_MUST_USE enum hi_code jemalloc_unmade_overlay(const struct jemalloc *heap,
                                                 struct heap_sink *sink);

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
