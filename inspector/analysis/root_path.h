/* root_path: why a block is alive: a shortest chain of references from a root to it. */
#ifndef ANALYSIS_ROOT_PATH_H
#define ANALYSIS_ROOT_PATH_H

#include "analysis/inspection.h"

struct root_path {
    bool found;
    bool by_interior; /* only over pointers into the middle of blocks */
    struct root_edge root;
    VECTOR(hi_block) blocks; /* from the one that the root holds to the one asked for */
};

HI_MUST_USE enum hi_code root_path_find(struct root_path *path, const struct inspection *in,
                                        hi_block block, struct hi_err *err);
void root_path_free(struct root_path *path);

#endif
