/*
 * gperftools tcmalloc: what its reader's parts share.
 *
 * A page map (page_tree.h) leads from every page in use to its span: pages of one size class, or
 * one large block. Free objects of a class are in three places, all linked through the objects
 * themselves: the span's own list, batches in the central list's transfer slots, and the lists of
 * thread caches. Only the first are free; the others are cached.
 */
#ifndef HEAP_TCMALLOC_H
#define HEAP_TCMALLOC_H

#include "heap/block_list.h"
#include "heap/evidence.h"
#include "heap/heap.h"
#include "heap/tcmalloc_layout.h"

struct tcmalloc_sample { /* a sampled block, what was asked for, and by whom */
    hi_addr block;
    uint64_t requested;
    size_t first_frame, frame_count; /* in frames */
};

#define TCMALLOC_NO_THREAD SIZE_MAX
struct tcmalloc_cache {
    hi_addr place;
    size_t thread; /* index of its owner among the target's */
};

struct tcmalloc {
    struct page_tree tree;
    struct page_tree_tables tables;
    uint32_t class_bytes[TCMALLOC_CLASSES_MAX];
    unsigned class_count;
    size_t classes_module; /* whose data they were looked for in, plus 1 */
    hi_addr central;       /* CentralFreeList of class 0 */
    uint64_t central_stride;
    VECTOR(struct tcmalloc_cache) caches;   /* ThreadCache records */
    VECTOR(struct tcmalloc_sample) samples; /* by block */
    VECTOR(hi_addr) frames;
};

/* -- tcmalloc_find.c ----------------------------------------------------------------------------
 */
/* The page map and the size classes beside it, from heap->tree.module on; HI_NOT_FOUND: none. */
HI_MUST_USE enum hi_code tcmalloc_tree_find(struct tcmalloc *heap,
                                            const struct heap_context *context, struct hi_err *err);
/* Central lists and thread caches, in the data of the page map's module. What is missing after
 * HI_OK: central 0, no caches. */
HI_MUST_USE enum hi_code
tcmalloc_parts_find(struct tcmalloc *heap, const struct heap_context *context, struct hi_err *err);

/* -- tcmalloc_cache.c ---------------------------------------------------------------------------
 */
void tcmalloc_owners_find(struct tcmalloc *heap, const struct heap_context *context);
HI_MUST_USE enum hi_code tcmalloc_caches_overlay(const struct heap_context *context,
                                                 struct heap *heap, struct heap_sink *sink,
                                                 struct hi_err *err);

#endif
