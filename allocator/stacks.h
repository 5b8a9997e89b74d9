/* stacks: whether and of which blocks it is kept who allocated them; see stacks.c. */
#ifndef HIMALLOC_STACKS_H
#define HIMALLOC_STACKS_H

#include "call_stack.h"
#include "state.h"

enum { SAMPLE_BYTES = 512 << 10, SAMPLE_BYTES_MOST = 1 << 30 };

/* From now on; sample_bytes 0: as before. False: no memory. */
bool stacks_set(uint32_t mode, uint64_t sample_bytes);
/* The stack of an allocation that did not come out of a bin by the fast path, or 0: this one is not
 * noted. Counts it. */
uint32_t stacks_take(size_t bytes, const struct call_site *site);
/* The same for one that is a sample; 0: it can't be noted. */
uint32_t stacks_capture(const struct call_site *site);
/* The one arena of that kind; 0: it can't be made. */
uint32_t stacks_arena(enum hm_arena_kind kind);
/* In a forked child. */
void stacks_forked(uint32_t old_tid, uint32_t tid);

#endif
