/* note: who allocated a block, and who freed it; see note.c. */
#ifndef HIMALLOC_NOTE_H
#define HIMALLOC_NOTE_H

#include "size_class.h"
#include "state.h"

enum {
    NOTE_STRIDE = (UNIT_BYTES / 16 * sizeof(struct hm_note) + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1),
};

/* What malloc knows of a block. stack 0: nothing. */
struct block_note {
    uint32_t stack;
    uint32_t bytes;
};

/* Makes notes possible, in all ranges. False: no memory, or this thread is inside the spans. */
bool note_start(uint32_t tid);
/* With the span lock held: notes of units below `end` can be written to. */
bool note_commit(struct hm_range *r, uint64_t end);
/* A new range, not yet in the table: has notes when the others do, and there is room for them. */
void note_add_range(struct hm_range *r, uint32_t range_index);

/* Of block `index` of the slab, or 0 of the large block, that begins with `unit`. */
static inline struct hm_note *note_at(const struct hm_range *r, uint32_t unit, uint32_t index)
{
    return (struct hm_note *)(uintptr_t)(r->notes + unit * r->note_stride) + index;
}

/* The same by the offset in range 0 of an address in a slab's block, when hm_hot.notes is there. */
static inline struct hm_note *note_near(uint64_t offset, uint32_t class_index)
{
    const struct hm_class *class = &size_class_list[class_index];
    uint64_t unit = (offset >> UNIT_SHIFT) & ~(uint64_t)(class->slab_units - 1);
    return (struct hm_note *)(hm_hot.notes + unit * NOTE_STRIDE) +
           size_class_block_index(class_index, offset - (unit << UNIT_SHIFT));
}

/* stack first: a note without one says nothing, whatever else is written or not. */
static inline void note_set(struct hm_note *note, const struct block_note *values)
{
    note->stack = values->stack;
    STORE_ORDER();
    note->requested = values->bytes;
    note->freed = 0;
}

/* Of the block of a slab of that class at p: before it is live; before it is free (freed 0: nothing
 * is known, nothing is done). */
void note_write(const void *p, uint32_t class_index, const struct block_note *values);
void note_free(const void *p, uint32_t class_index, uint32_t freed);
bool note_is_freed(const void *p, uint32_t class_index);
/* The block stays where it is and is now somebody else's. */
void note_change(const void *p, uint32_t class_index, const struct block_note *values);

/* Of a large block: set, or forgotten when `values` is NULL. The stack that was there. */
uint32_t note_set_large(const struct hm_range *r, uint32_t unit, const struct block_note *values);
/* The slab is going. */
void note_forget_slab(const struct hm_range *r, const struct hm_unit *slab);
/* Memory of the notes of units that are nobody's. */
void note_discard(const struct hm_range *r, uint32_t unit, uint32_t count);
/* All notes but those of samples that have an arena of their own. */
void note_forget_all(uint32_t tid);

#endif
