/* sweep: free pages inside of slabs go back to the system, see sweep.c. */
#ifndef HIMALLOC_SWEEP_H
#define HIMALLOC_SWEEP_H

#include "span.h"

/* Slabs that are stirred: they got blocks back since they were swept. A hint, near enough. */
extern int32_t sweep_stirred_count;
extern uint16_t sweep_tick; /* never 0 */

/* With the lock of the slab's central held. */
static inline void sweep_stir(struct hm_unit *slab)
{
    if (slab->stirred == 0)
        __atomic_fetch_add(&sweep_stirred_count, 1, __ATOMIC_RELAXED);
    slab->stirred = sweep_tick;
}

/* Blocks are taken from it: what is left of it will soon be wanted. */
static inline void sweep_postpone(struct hm_unit *slab)
{
    if (slab->stirred != 0)
        slab->stirred = sweep_tick;
}

static inline void sweep_forget(struct hm_unit *slab)
{
    if (slab->stirred != 0)
        __atomic_fetch_sub(&sweep_stirred_count, 1, __ATOMIC_RELAXED);
    slab->stirred = 0;
}

/* One tick: sweeps slabs that nobody touched for `age` ticks, `most` at most. True: enough are left
 * to be worth another. */
bool sweep_age(uint32_t tid, uint32_t age, uint32_t most);
/* All that are stirred; says whether any page went back. */
bool sweep_all(uint32_t tid);

#endif
