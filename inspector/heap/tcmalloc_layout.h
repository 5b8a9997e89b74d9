/*
 * gperftools tcmalloc layouts: data, no code. Read from the sources and the DWARF of builds of 2.7,
 * 2.9.1, 2.10, 2.13, 2.15, 2.16 and 2.18.1 on x86-64; what is not named here did not change in
 * them.
 */
#ifndef HEAP_TCMALLOC_LAYOUT_H
#define HEAP_TCMALLOC_LAYOUT_H

#include "heap/page_tree.h"

/* pagemap.h: TCMalloc_PageMap2<48 - page shift>; the shift is 13 unless configured otherwise. */
extern const struct page_tree_shape tcmalloc_trees[];
extern const size_t tcmalloc_tree_count;

enum {
    /* span.h: struct Span */
    TCMALLOC_SPAN_BYTES = 48,
    TCMALLOC_SPAN_START = 0,      /* page number */
    TCMALLOC_SPAN_LENGTH = 8,     /* pages */
    TCMALLOC_SPAN_OBJECTS = 32,   /* free objects, linked through their first words; or, when
                                     sampled, a StackTrace {size, depth, stack[]} */
    TCMALLOC_SPAN_REFCOUNT = 40,  /* u16: objects not in the list above */
    TCMALLOC_SPAN_SIZECLASS = 42, /* u8; 0: one large block */
    TCMALLOC_SPAN_BITS = 43,      /* location:2 (0 in use, 1 free, 2 free and returned), sample:1 */
    TCMALLOC_LOCATION_MASK = 3,
    TCMALLOC_SAMPLE_BIT = 4,

    /* common.h: StackTrace */
    TCMALLOC_TRACE_DEPTH = 8, /* words; the size asked for is before it */
    TCMALLOC_TRACE_FRAMES = 16,
    TCMALLOC_TRACE_FRAMES_MOST = 31,

    /* common.h: SizeMap.class_to_size_, int32 each, to kMaxSize */
    TCMALLOC_CLASSES_MAX = 128,
    TCMALLOC_CLASSES_MIN = 40,
    TCMALLOC_LARGEST_SMALL = 256 * 1024,

    /* central_freelist.h: CentralFreeList, one a class, padded to cache lines */
    TCMALLOC_CENTRAL_CLASS = 8,   /* size_class_ */
    TCMALLOC_CENTRAL_SLOTS = 128, /* tc_slots_[64] {head, tail} */
    TCMALLOC_CENTRAL_USED = 1152, /* int32 used_slots_ */
    TCMALLOC_CENTRAL_SLOT_COUNT = 64,
    TCMALLOC_CENTRAL_STRIDE_MIN = 1168,
    TCMALLOC_CENTRAL_STRIDE_MAX = 2048,

    /* thread_cache.h: ThreadCache.list_[96 or 128]; FreeList {list_, length_, ..., size_} */
    TCMALLOC_LIST_BYTES = 32,
    TCMALLOC_LIST_LENGTH = 8,  /* u32 */
    TCMALLOC_LIST_SIZE = 24,   /* int32: bytes of an object: what makes a cache recognisable */
    TCMALLOC_LINKS_BYTES = 96, /* behind list_: next_ and prev_ are somewhere in here */
    TCMALLOC_BATCH_MAX = 65536,
};

/* How many lists there are: kClassSizesMax, 96 to 2.7, 128 since. */
extern const unsigned tcmalloc_list_counts[2];

#endif
