/* What the driver (heaps.c) sees of the sink; readers see heap.h only. */
#ifndef HEAP_SINK_H
#define HEAP_SINK_H

#include "heap/heap.h"

struct heap_sink {
    struct heaps *heaps;
    const struct progress *progress;
    size_t heap;          /* whose turn it is */
    size_t arenas_before; /* arenas of the heaps before it */
    struct region chunks; /* between chunks_begin and chunks_end */
    bool in_chunks;
    bool chunks_refused;            /* begin said no: chunks are swallowed until end */
    VECTOR(struct hi_range) claims; /* what regions cover, neighbours joined */
    enum hi_code code;              /* why readers were told to stop; HI_OK: they were not */
    struct hi_err *err;
};

/* Sort metadata and join what overlaps or touches. */
void heaps_metadata_merge(struct heaps *heaps);
/* Push the parts of nodes that neither regions nor metadata claim. */
HI_MUST_USE enum hi_code heaps_nodes_add(struct heap_sink *sink, const struct hi_range *nodes,
                                         size_t count, struct hi_err *err);

#endif
