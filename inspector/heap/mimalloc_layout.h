/*
 * mimalloc layouts: data, no code. Read from the sources and the DWARF of release builds of 2.0.9,
 * 2.1.7, 2.2.4, 2.4.1, 3.1.5, 3.3.2 and 3.4.3 on x86-64.
 */
#ifndef HEAP_MIMALLOC_LAYOUT_H
#define HEAP_MIMALLOC_LAYOUT_H

#include "heap/page_tree.h"

enum { MIMALLOC_NO_FIELD = -1 };

/* types.h: mi_page_t. Offsets in bytes. */
struct mimalloc_page_layout {
    const char *versions;
    unsigned bytes;
    int capacity, reserved; /* u16: blocks that were ever given out; that there is room for */
    int used, used_bytes;   /* blocks handed out, and in lists of other threads */
    int free, local_free, thread_free; /* list heads; the last with flags in its two low bits */
    int block_size, block_size_bytes;
    int start, start_bytes; /* 8: address; 4: words from the page record; NO_FIELD: computed */
    int flags;              /* its bit 1: blocks with pointers inside were given out */
    int heap;               /* v2: xheap; its list of blocks freed late is at heap_delayed */
    int heap_delayed;       /* in mi_heap_t: thread_delayed_free; NO_FIELD: there is none */
};

/* types.h: mi_segment_t of v2: 32 MiB, aligned, 64 KiB slices, each with a page record. */
struct mimalloc_segment_layout {
    const struct mimalloc_page_layout *page;
    int cookie; /* segment address ^ cookie of the process */
    int slice_count, info_slices, entries;
    int slices;
};

enum {
    MIMALLOC_SLICE_SHIFT = 16,
    MIMALLOC_SEGMENT_SHIFT = 25,
    MIMALLOC_SEGMENT_SLICES = 512,
    MIMALLOC_GUARD_SLICES = 1,      /* at a segment's end, in builds that guard their memory */
    MIMALLOC_PAGE_SLICES = 0,       /* v2: u32 slice_count, first in the record */
    MIMALLOC_PAGE_SLICE_OFFSET = 4, /* v2: u32 bytes back to the page's first record */
    MIMALLOC_SMALL_START = 384,     /* 2.0: where blocks of 8 to 1024 bytes start in their page */
    MIMALLOC_DELAY_MASK = 3,        /* v2: low bits of thread_free: where the next return goes to */
    MIMALLOC_DELAY_USE = 0,         /* to the heap's list */
    MIMALLOC_PAGE_BYTES_MAX = 128,
    MIMALLOC_SEGMENT_HEAD_BYTES = 512, /* all fields of a segment before slices are within */
};

extern const struct mimalloc_segment_layout mimalloc_segments[];
extern const size_t mimalloc_segment_count;

/* v3: page-map.c, address >> 16 -> mi_page_t. */
extern const struct page_tree_shape mimalloc_tree;
extern const struct mimalloc_page_layout mimalloc_pages_v3[];
extern const size_t mimalloc_page_v3_count;

#endif
