/* background: memory goes back to the system, see background.c. */
#ifndef HIMALLOC_BACKGROUND_H
#define HIMALLOC_BACKGROUND_H

#include "sweep.h"

enum { BACKGROUND_FLOOR = (4 << 20) / UNIT_BYTES };

void background_want(void);   /* makes the helper, where there is none */
void background_work(void);   /* the slow half of background_settle */
void background_forked(void); /* the child has no helper */

/* Dirty ones, and slabs that hold free pages perhaps. */
static inline uint64_t background_units(void)
{
    int32_t stirred = sweep_stirred_count;
    return hm_hot.root->dirty_units + (stirred > 0 ? (uint32_t)stirred : 0);
}

/* At the end of slow paths that freed something, without locks. */
static inline void background_settle(void)
{
    const struct hm_root *root = hm_hot.root;
    uint64_t units = background_units();
    if (LIKELY(units <= SPAN_DIRTY_LEAST))
        return;
    if ((units > BACKGROUND_FLOOR && root->helper_tid == 0) || span_over_budget())
        background_work();
}

#endif
