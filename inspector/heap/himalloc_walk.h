/* The walk of a himalloc heap, between himalloc_reader.c (tables) and himalloc_walk.c (ranges). */
#ifndef HEAP_HIMALLOC_WALK_H
#define HEAP_HIMALLOC_WALK_H

#include "heap/himalloc_heap.h"

#define HIMALLOC_ADDRESS_END (UINT64_C(1) << 47)

/* Notes of one range, read forward, where they were ever written: what a thread never touched must
 * not be read, and holds nothing. */
struct note_window {
    struct target *target;
    hi_addr start, end; /* of the range's notes; start 0: there are none */
    hi_addr used_end;   /* behind it nothing may be readable */
    uint64_t unit_bytes;
    struct hi_range contents[64]; /* touched, known so far */
    size_t content_count, content;
    hi_addr asked; /* contents are known up to here */
    unsigned char *buffer;
    hi_addr buffer_start;
    size_t buffer_bytes;
    uint64_t read_bytes, missing_bytes;
};

struct walk {
    struct himalloc *heap;
    struct heap *shown;
    struct heap_sink *sink;
    struct target *target;
    struct window codes_window, units_window;
    struct window bitmaps_windows[2]; /* short and long ones: himalloc keeps them in two places */
    struct note_window notes;
    uint64_t *live;      /* bits of one slab */
    uint64_t units_left; /* that may be in use: as many as fit into readable memory */
    /* of the range that is walked */
    hi_addr base, codes, units;
    uint64_t end;       /* units of the extent that is walked */
    hi_addr free_start; /* a run of free units began here; 0: none */
    uint64_t free_bytes;
};

/* Push one range. *covered: its addresses; empty when the record makes no sense. */
bool himalloc_walk_range(struct walk *walk, hi_addr record_address, const void *record,
                         struct hi_range *covered);
/* Fill in the rest of a region of one block and push it. stack: who allocated it, 0: not known. */
bool himalloc_push_large(struct walk *walk, struct region *region, uint64_t requested,
                         uint32_t stack, uint64_t arena);
/* Begin with the notes of a range. */
bool himalloc_notes_begin(struct walk *walk, hi_addr record_address, const void *record,
                          uint64_t units, uint64_t top);
/* Take the notes of a slab at unit. false: stop. */
bool himalloc_notes_take(struct walk *walk, uint64_t unit, const struct himalloc_class *class,
                         uint64_t arena);
/* The stack of the large block at unit; 0: not known. */
uint32_t himalloc_note_large(struct walk *walk, uint64_t unit);
/* Is that arena of that kind? */
bool himalloc_arena_is(const struct himalloc *heap, uint64_t arena, uint64_t kind);
/* Does a block with a stack stand for others that have none? Where not all are noted it does. */
bool himalloc_is_sample(const struct walk *walk, uint64_t arena);
/* The next run of mappings without a gap, each with all bits of protection, cut to [from, end). */
bool himalloc_extent(const struct target *target, hi_addr from, hi_addr end, unsigned protection,
                     struct hi_range *extent);

#endif
