/* heap_totals: sums over the heap, for mallinfo and its kin. */
#ifndef HIMALLOC_HEAP_TOTALS_H
#define HIMALLOC_HEAP_TOTALS_H

#include "state.h"

struct heap_totals {
    size_t system_bytes; /* units of ranges that were ever used */
    size_t live_bytes;   /* in ranges, usable bytes */
    size_t free_bytes;   /* in ranges: units and blocks of slabs */
    size_t cached_bytes; /* in stashes and thread caches */
    size_t cached_count;
    size_t free_count;  /* blocks of slabs and free units */
    size_t dirty_bytes; /* free units that still cost memory */
    size_t big_bytes;
    size_t big_count;
};

struct heap_totals heap_totals_now(void);

#endif
