/*
 * What all parts of the allocator share: the structures of the format, the constants of this
 * build, the few words that the fast paths read, and the barrier that the order of stores rests on.
 */
#ifndef HIMALLOC_STATE_H
#define HIMALLOC_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HM_DEFINE_STRUCTURES
#include "himalloc_format.h"

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define COLD        __attribute__((noinline, cold))
#define NOINLINE    __attribute__((noinline))
/* Each page that a program's start touches is 0.5 us of it: large variables lie behind all others,
 * constructors among the code that runs next. */
#define LARGE_VARIABLE __attribute__((section(".bss.large")))
#define CONSTRUCTOR    __attribute__((constructor, section(".text")))
/* Of a declaration: no way through the table of addresses, which the linker cannot always undo. */
#define HIDDEN __attribute__((visibility("hidden")))
/* The compiler keeps stores on their side of it; a stopped thread's stores are seen in order. */
#define STORE_ORDER() __asm__ volatile("" ::: "memory")

enum {
    UNIT_SHIFT = 16,
    UNIT_BYTES = 1 << UNIT_SHIFT,
    CLASS_COUNT = HM_CLASS_SLOTS - 1,
    SMALL_MAX = 65536,
    GROWN_SMALL_MAX = 32768, /* beyond it realloc makes large blocks, which grow in place */
    LONG_BITMAP_BYTES = UNIT_BYTES / 16 / 8,  /* of a slab of the smallest class */
    SHORT_BITMAP_BYTES = UNIT_BYTES / 64 / 8, /* of slabs of 64 bytes and more */
    UNIT_BITMAP_BYTES = LONG_BITMAP_BYTES + SHORT_BITMAP_BYTES,
    PAGE_BYTES = 4096,
    CODE_FREE = 0,
    CODE_SLAB = 1, /* + class - 1 */
    CODE_NAMED = 129,
    CODE_LARGE_HEAD = 250,
    CODE_LARGE_REST = 251,
    CODE_PURGING = 252,
    UNIT_REMARKED = 1, /* unit.marks */
    UNIT_NOTED = 2,
};

enum check_mode { CHECK_OFF = 0, CHECK_FAST = 1, CHECK_FULL = 2 };

/* The words that malloc and free read; all 0 until the first allocation. */
struct hm_hot {
    uintptr_t base;       /* of range 0 */
    size_t fast_bytes;    /* of range 0; 0 while every free is to be noted */
    const uint8_t *codes; /* of range 0 */
    size_t bytes;         /* of range 0 */
    struct hm_root *root;
    uintptr_t notes;       /* of range 0, or 0 */
    uint64_t sample_bytes; /* mean distance of samples */
    uint32_t auto_arena_count;
    uint32_t stacks_turn; /* counts changes of what follows */
    uint8_t stacks_mode;  /* enum hm_stacks_mode */
    uint8_t tracing;      /* every allocation and free is noted */
    uint8_t check_mode;
    uint8_t fork_pending; /* child: caches of threads that are gone still hold blocks */
};
HIDDEN extern struct hm_hot hm_hot;

static inline struct hm_range *range_at(uint32_t index)
{
    return (struct hm_range *)(uintptr_t)hm_hot.root->ranges + index;
}

static inline struct hm_unit *range_units(const struct hm_range *r)
{
    return (struct hm_unit *)(uintptr_t)r->units;
}

static inline uint8_t *range_codes(const struct hm_range *r)
{
    return (uint8_t *)(uintptr_t)r->codes;
}

static inline uint8_t *range_ages(const struct hm_range *r)
{
    return (uint8_t *)(uintptr_t)r->ages;
}

static inline struct hm_arena *arena_at(uint32_t index)
{
    return (struct hm_arena *)((uint64_t *)(uintptr_t)hm_hot.root->arenas)[index];
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

enum { RANGE_FIRST_UNITS = 64 };
extern uintptr_t root_first_bitmaps; /* of the first units of range 0 */

/* Where the bitmap of a slab lies that begins at that unit. Each unit has two places, a long one
 * and, behind all long ones, a short one: most slabs have a quarter of the smallest class's blocks
 * or less, and 32 of their bitmaps share a page where otherwise 8 would (0.8 % of the heap). */
static inline uintptr_t range_bitmap(const struct hm_range *r, uint32_t unit, uint32_t block_count)
{
    bool first = unit < RANGE_FIRST_UNITS && r == range_at(0);
    uintptr_t start = first ? root_first_bitmaps : r->bitmaps;
    uint64_t units = first ? RANGE_FIRST_UNITS : r->unit_count;
    if (block_count > SHORT_BITMAP_BYTES * 8)
        return start + (uintptr_t)unit * LONG_BITMAP_BYTES;
    return start + units * LONG_BITMAP_BYTES + (uintptr_t)unit * SHORT_BITMAP_BYTES;
}

/* The range that holds an address, or NULL. */
struct hm_range *range_find(const void *p);

/* Makes the heap; true when it is there. Cheap when it already is. */
bool root_start(void);
/* Another range of at least `units` units; with the span lock held. */
struct hm_range *root_add_range(uint64_t units);
/* Makes the records of units below `end` writable (and their bitmaps). */
bool root_describe_units(struct hm_range *r, uint64_t end);

#endif
