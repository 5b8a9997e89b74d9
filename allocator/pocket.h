/* pocket: runs of units that a thread keeps for large blocks, see pocket.c. */
#ifndef HIMALLOC_POCKET_H
#define HIMALLOC_POCKET_H

#include "span.h"

enum { POCKET_LONGEST = 24 }; /* units of a block that is put into a pocket at most */

/* A thread opens its own pocket for one of the three below, and closes it when the units that it
 * took are a block or those that it puts in are there. False: do without it. */
bool pocket_open(struct hm_thread *t);
void pocket_close(struct hm_thread *t);
/* `units` units for a large block, out of a run of `least` or more: their codes are
 * code_large_rest, covered by no head. false: no run is long enough. */
bool pocket_take(struct hm_thread *t, uint32_t units, uint32_t least, struct span *span);
/* Takes the units [end, end + extra) behind a block, if a run begins there. */
bool pocket_extend(struct hm_thread *t, const struct hm_range *r, uint32_t end, uint32_t extra);
/* Units of a block whose head's code is code_large_rest by now. false: they belong to the spans. */
bool pocket_put(struct hm_thread *t, const struct hm_range *r, uint32_t unit, uint32_t count);

/* With the span lock held: all of the calling thread's runs go to the spans. */
void pocket_empty(void);
/* Takes the span lock: the runs of a thread that is gone, or of the calling one, go to the spans.
 */
void pocket_return(struct hm_thread *t, uint32_t tid);
/* Nobody else is here, and the spans are made anew from the class map: pockets are forgotten. */
void pocket_forget_all(void);
/* One tick: pockets that nobody used since the last one are emptied. True: some hold anything. */
bool pocket_age(uint32_t tid);

#endif
