/* large: blocks of whole units, blocks in mappings of their own, and what any pointer is. */
#ifndef HIMALLOC_LARGE_H
#define HIMALLOC_LARGE_H

#include "note.h"
#include "state.h"

enum block_state { BLOCK_NONE, BLOCK_SLAB, BLOCK_LARGE, BLOCK_BIG };

struct block_place {
    enum block_state state;
    bool in_heap;    /* the address is in a range, whatever is there */
    uintptr_t start; /* of the block that the address is in */
    size_t bytes;    /* usable */
    uint32_t arena;
    uint32_t class_index; /* of a slab */
    bool named;           /* slab of a named arena */
};

/* What an address is in; for slabs not whether the block is live. */
struct block_place block_locate(const void *p);

/* NULL: no memory. *zero, if asked for: the block is known to read as zero. */
void *large_malloc(size_t bytes, size_t alignment, uint32_t arena, bool *zero);
/* For a block that grew out of its place: where it can go on growing, if it may. */
void *large_malloc_to_grow(size_t bytes, uint32_t arena);
/* Frees a block that goes into the thread's pocket, as most large ones do; false: p is none such.
 */
bool large_free_own(const void *p);
/* p is in no slab: frees it, or dies. */
void large_free(void *p);
/* In place or by moving pages; NULL: allocate, copy and free instead. p is no slab block. */
void *large_resize(void *p, size_t bytes);
/* Who has the block now; NULL: nobody any more. p is no slab block. The stack that was there. */
uint32_t large_set_note(const void *p, const struct block_note *values);
void large_release_bigs(uint32_t arena, uint32_t tid);

#endif
