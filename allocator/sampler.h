/* sampler: which allocations are samples; see sampler.c. */
#ifndef HIMALLOC_SAMPLER_H
#define HIMALLOC_SAMPLER_H

#include "state.h"

/* Is this allocation, which came out of no bin, a sample? Counts it. */
bool sampler_take(size_t bytes);
/* Draws which block of that class the next sample will be; sets the bin's ticks. */
void sampler_arm(struct hm_thread *t, uint32_t class_index);
/* The bin's ticks have overflowed with this allocation: is it a sample? Arms the bin anew. */
bool sampler_due(struct hm_thread *t, uint32_t class_index, size_t bytes);
/* The thread learns of another mode or distance: draws everything anew. t may be NULL. */
void sampler_turn(struct hm_thread *t);

#endif
