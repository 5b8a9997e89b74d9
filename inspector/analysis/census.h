/* census: what the heap is made of: live blocks by size, arena or thread. */
#ifndef ANALYSIS_CENSUS_H
#define ANALYSIS_CENSUS_H

#include "analysis/chunk_list.h"

enum census_by { CENSUS_SIZE, CENSUS_ARENA, CENSUS_THREAD };

struct census_group {
    uint64_t key;              /* size in bytes; thread id */
    const struct arena *arena; /* CENSUS_ARENA */
    const struct heap *heap;   /* of the first block in it */
    struct blocks_total total;
};

struct census {
    VECTOR(struct census_group) groups; /* by bytes, falling */
    struct blocks_total all;
    bool no_threads; /* by thread: no block says which one allocated it */
};

HI_MUST_USE enum hi_code census_take(struct census *census, const struct inspection *in,
                                     enum census_by by, struct hi_err *err);
void census_free(struct census *census);

#endif
