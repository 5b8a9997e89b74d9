/*
 * window: a piece of target memory, at most 256 KiB, brought near; and the words in it that may be
 * references. One a worker.
 *
 * Windows on small slabs follow each other closely: a read goes on to the end of the buffer, as far
 * as `ahead` allows, and those that come next find their memory there. (Slabs of 8 KiB: a third of
 * the system calls' time saved.)
 *
 * Where the target is a mapped file nothing is copied. Else only ranges with content are read;
 * what was never touched counts as zeros. Holes (metadata of allocators, dead parts of a stack that
 * lies in a block) hold no references wherever they lie: they are blanked.
 */
#ifndef GRAPH_WINDOW_H
#define GRAPH_WINDOW_H

#include "base/vector.h"
#include "graph/filter.h"
#include "target/target.h"

enum { WINDOW_BYTES = 256 << 10 };

typedef VECTOR(struct hi_range) hole_list; /* sorted, disjoint */

struct window {
    struct target *target;
    const hole_list *holes;
    struct filter_rule rule;
    filter_function filter; /* NULL: a word at every byte */
    uint8_t *buffer;
    struct hi_range near; /* what the buffer holds */
    hi_addr ahead;        /* a window may read up to here, beyond its end; 0: it may not */
    uint64_t missing_bytes;
    hole_list unread; /* of those: what should have been there; neighbours joined */
    /* after window_open: kept words, in order */
    uint32_t *offsets; /* from the window's start */
    uint64_t *values;
    size_t count;
};

bool window_new(struct window *window, struct target *target, const hole_list *holes,
                const struct filter_rule *rule, bool unaligned); /* false: out of memory */
void window_free(struct window *window);
/* Does a hole reach into [start, end)? */
bool window_has_hole(const struct window *window, hi_addr start, hi_addr end);
/* Read [start, end), start 8-aligned, end - start <= WINDOW_BYTES. NULL: there is nothing; else
 * until the next look. */
const void *window_look(struct window *window, hi_addr start, hi_addr end);
/* Filter what was looked at. */
void window_filter(struct window *window, const void *memory, hi_addr start, hi_addr end);
/* Both. */
void window_open(struct window *window, hi_addr start, hi_addr end);
/* Words that window_open looks at between two addresses. */
static inline uint64_t window_words(const struct window *window, hi_addr start, hi_addr end)
{
    if (!window->filter)
        return end - start < 8 ? 0 : end - start - 7;
    hi_addr low = (start + 7) / 8, high = end / 8;
    return high > low ? high - low : 0;
}

#endif
