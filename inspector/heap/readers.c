/* The table of readers, in the order in which a report names their heaps. */
#include "heap/heap.h"

const struct heap_reader *const heap_readers[] = {
    &jemalloc_reader, &tcmalloc_reader, &mimalloc_reader, &himalloc_reader, &ptmalloc_reader, NULL,
};
