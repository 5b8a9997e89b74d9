/*
 * size_class: 16-byte steps to 128, then eight classes a doubling to 64 KiB: 80 in all. At most
 * 12.5 % of a block is lost to rounding. Slabs are one unit, above 8 KiB four units, aligned to
 * their size so that the offset of a block in its slab is a mask away.
 */
#ifndef HIMALLOC_SIZE_CLASS_H
#define HIMALLOC_SIZE_CLASS_H

#include "state.h"

enum { RECIPROCAL_SHIFT = 35 };

HIDDEN extern const uint8_t size_class_table[SMALL_MAX / 16 + 1];
HIDDEN extern struct hm_class size_class_list[HM_CLASS_SLOTS];

/* Offset of a pointer in a slab -> is it the start of a block? offset * inverse < inverse. */
struct class_check {
    uint64_t inverse; /* ceil(2^64 / block_bytes) */
    uint64_t mask;    /* bytes of a slab - 1 */
};
HIDDEN extern const struct class_check size_class_checks[HM_CLASS_SLOTS];

static inline uint32_t size_class_of(size_t bytes)
{
    return size_class_table[(bytes + 15) >> 4];
}

static inline size_t size_class_bytes(uint32_t class_index)
{
    return size_class_list[class_index].block_bytes;
}

static inline uint32_t size_class_block_index(uint32_t class_index, size_t offset)
{
    return (uint32_t)((offset * (uint64_t)size_class_list[class_index].reciprocal) >>
                      RECIPROCAL_SHIFT);
}

/* The smallest class whose blocks are aligned to `alignment` (a power of 2) and hold `bytes`; 0 if
 * there is none. */
uint32_t size_class_aligned(size_t bytes, size_t alignment);

#endif
