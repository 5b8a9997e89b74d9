/* fragmentation: free memory that can't go back to the system, since live blocks share its slab. */
#ifndef ANALYSIS_FRAGMENTATION_H
#define ANALYSIS_FRAGMENTATION_H

#include "analysis/inspection.h"

struct fragmentation {
    uint64_t slabs, partial_slabs; /* regions of several blocks; with live and other ones */
    uint64_t partial_free_bytes;   /* free or cached, in those */
    uint64_t slab_bytes;           /* live, free and cached: all blocks of slabs */
};

void fragmentation_measure(struct fragmentation *f, const struct heaps *heaps);

#endif
