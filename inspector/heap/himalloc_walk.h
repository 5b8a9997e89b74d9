/* The walk of a himalloc heap, between himalloc_reader.c (tables) and himalloc_walk.c (ranges). */
#ifndef HEAP_HIMALLOC_WALK_H
#define HEAP_HIMALLOC_WALK_H

#include "heap/himalloc_heap.h"

#define HIMALLOC_ADDRESS_END (UINT64_C(1) << 47)

struct walk {
    struct himalloc *heap;
    struct heap *shown;
    struct heap_sink *sink;
    struct target *target;
    struct window codes_window, units_window, bitmaps_window;
    uint64_t *live;      /* bits of one slab */
    uint64_t units_left; /* that may be in use: as many as fit into readable memory */
    /* of the range that is walked */
    hi_addr base, codes, units;
    uint64_t end;       /* units of the extent that is walked */
    hi_addr free_start; /* a run of free units began here; 0: none */
    uint64_t free_bytes;
};

/* Push one range. *covered: its addresses; empty when the record makes no sense. */
bool himalloc_walk_range(struct walk *walk, hi_addr record_address, const void *record,
                         struct hi_range *covered);
/* Fill in the rest of a region of one block and push it. */
bool himalloc_push_large(struct himalloc *heap, struct heap_sink *sink, struct region *region,
                         uint64_t requested);
/* The next run of mappings without a gap, each with all bits of protection, cut to [from, end). */
bool himalloc_extent(const struct target *target, hi_addr from, hi_addr end, unsigned protection,
                     struct hi_range *extent);

#endif
