/* slab: blocks of one size in one run of units, and the central state of a class, see slab.c. */
#ifndef HIMALLOC_SLAB_H
#define HIMALLOC_SLAB_H

#include "note.h"
#include "span.h"

/* Where a pointer into a slab points. */
struct slab_place {
    struct hm_range *range;
    uint32_t range_index;
    uint32_t unit; /* first unit of the slab */
    uint32_t class_index;
    uint32_t block_index;
    size_t offset; /* of the pointer in the block */
    bool is_block; /* it is the start of a block */
};

static inline struct hm_unit *slab_record(const struct slab_place *place)
{
    return range_units(place->range) + place->unit;
}

static inline struct hm_central *slab_central(uint32_t arena, uint32_t class_index)
{
    return &arena_at(arena)->centrals[class_index];
}

/* p lies in a unit of a slab of that range. */
struct slab_place slab_locate(struct hm_range *r, const void *p);
/* The arena that a block (of any slab) came from. */
uint32_t slab_home(const void *p);

/* Whether the bit of the block at p is set. */
bool slab_is_free(const void *p);

/* All below: with the lock of that central held. */

/* Takes up to `want` free blocks into slots[low - taken .. low), publishing *pend before each word
 * of the bitmap is cleared. Returns how many; 0: no memory. */
uint32_t slab_fill(uint32_t arena, uint32_t class_index, uint64_t *slots, uint32_t low,
                   uint32_t want, uint32_t *pend, uint32_t tid);
/* One block straight from a bitmap; NULL: no memory. note: as it will be, or NULL. */
void *slab_take_one(uint32_t arena, uint32_t class_index, uint32_t tid,
                    const struct block_note *note);
/* Blocks whose home is this central become free. One that is no block, or free already, stops it
 * and is returned; NULL: all well. The caller has the pointers still listed elsewhere; when it has
 * let go of them it calls slab_release_spare. */
const void *slab_give(struct hm_central *central, const uint64_t *blocks, uint32_t count);
/* Empty slabs go back to the spans, the last one of the class only if `last`. */
void slab_release_spare(struct hm_central *central, uint32_t tid, bool last);

/* As above for blocks of recovered caches: bits that are set already are right. */
void slab_recover(const void *p);
/* Nobody else is here: stashes go home; counts and lists of every central that is not locked anew
 * from class map and bitmaps. */
void slab_rebuild(void);

#endif
