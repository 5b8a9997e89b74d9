/* span: runs of whole units, see span.c. Everything here wants the span lock held unless it says
 * otherwise. */
#ifndef HIMALLOC_SPAN_H
#define HIMALLOC_SPAN_H

#include "state.h"

enum {
    SPAN_DIRTY_LEAST = (1 << 20) / UNIT_BYTES, /* dirty units that never matter */
    GROWTH_ROOM = 4, /* times its length: what a block that grows wants to lie in */
};

struct span {
    struct hm_range *range;
    uint32_t range_index;
    uint32_t unit;
    uint32_t count;
    bool zero; /* its pages are known to read as zero */
};

/* The entry of lists for a unit: never 0. */
static inline uint64_t span_reference(uint32_t range_index, uint32_t unit)
{
    return ((uint64_t)range_index << 32 | unit) + 1;
}

static inline struct hm_unit *span_referred(uint64_t reference)
{
    return range_units(range_at((uint32_t)((reference - 1) >> 32))) + (uint32_t)(reference - 1);
}

bool span_lock(uint32_t tid); /* false: this thread is inside already (a signal handler) */
void span_unlock(void);

/* Takes `count` units at a multiple of `align` units; they stay code_free until the caller, still
 * under the lock, has written record and codes. false: no memory. */
bool span_take(uint32_t count, uint32_t align, struct span *span);
/* The same for a block that is growing: where there is room behind it, if there is such a place. */
bool span_take_to_grow(uint32_t count, struct span *span);
/* Codes of the first and then of the others become free, and the units available. */
void span_give(struct hm_range *r, uint32_t unit, uint32_t count);
/* Takes the units [end, end + extra) behind one in use, if they are free. */
bool span_extend(struct hm_range *r, uint32_t end, uint32_t extra, bool *zero);
/* The pages of free units behind `unit` are known to be zero (they were moved away). */
void span_note_zero(struct hm_range *r, uint32_t unit, uint32_t count);
/* In a forked child whose parent had a thread inside: lists anew, from the class map alone. With
 * `in_hand` the calling thread was interrupted with units in its hands: those stay out. */
void span_rebuild(bool in_hand);

/* Without the lock: gives pages back until dirty memory is within its budget (or gone: all). */
/* Units that are slabs or blocks; without the lock about so many. */
uint64_t span_used_units(void);
bool span_over_budget(void);
void span_trim(uint32_t tid, bool all);
/* Without the lock: no huge pages where there are holes, as far as the ranges are in use. */
void span_keep_holes(void);
/* One tick of age; gives back what has been free for `age` ticks. False when nothing is dirty. */
bool span_age(uint32_t tid, uint32_t age);

#endif
