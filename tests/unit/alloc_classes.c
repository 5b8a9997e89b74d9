/*
 * The size classes, as the heap describes them: no size loses more to rounding than is promised,
 * and the index of a block is found from every byte of its slab.
 */
#define _GNU_SOURCE
#include "tap.h"

#include "alloc_root.h"
#include "himalloc.h"

#include <malloc.h>
#include <stdlib.h>

enum { RECIPROCAL_SHIFT = 35 }; /* of hm_class.reciprocal, by the format */

static const struct hm_class *class_at(uint32_t index)
{
    return (const struct hm_class *)heap_root->classes + index;
}

/* The first offset in a slab whose block comes out wrong, or -1. */
static long wrong_offset(const struct hm_class *class)
{
    uint64_t end = (uint64_t) class->slab_units << heap_root->unit_shift;
    for (uint64_t offset = 0; offset < end; offset++)
        if (offset * class->reciprocal >> RECIPROCAL_SHIFT != offset / class->block_bytes)
            return (long)offset;
    return -1;
}

static void test_index(void)
{
    for (uint32_t c = 1; c < heap_root->class_count; c++) {
        long wrong = wrong_offset(class_at(c));
        if (wrong >= 0) {
            ok(false, "class %u: block of offset %ld", c, wrong);
            return;
        }
    }
    ok(true, "each byte of a slab leads to its block, in %u classes", heap_root->class_count - 1);
}

static void test_slabs(void)
{
    uint32_t bad = 0;
    for (uint32_t c = 1; c < heap_root->class_count; c++) {
        const struct hm_class *class = class_at(c);
        uint64_t bytes = (uint64_t) class->slab_units << heap_root->unit_shift;
        if (class->block_count != bytes / class->block_bytes || class->block_bytes % 16 != 0 ||
            (c > 1 && class->block_bytes <= class_at(c - 1)->block_bytes))
            bad++;
    }
    is_u64(bad, 0, "slabs hold as many blocks as fit; sizes rise by multiples of 16");
}

/* The first size to which more than `times` of `parts` of it (or 15 bytes) are added, or 0. */
static size_t rounded_more(size_t largest, size_t parts, size_t times)
{
    size_t wrong = 0;
    for (size_t bytes = 1; bytes <= largest; bytes++) {
        void *p = malloc(bytes);
        size_t usable = malloc_usable_size(p), slack = bytes * times / parts;
        if (usable < bytes || usable > bytes + (slack > 15 ? slack : 15))
            wrong = wrong ? wrong : bytes;
        free(p);
    }
    return wrong;
}

/* Samples have fewer classes; at a mean distance of one byte nearly all are samples. */
static void test_rounding(void)
{
    size_t largest = class_at(heap_root->class_count - 1)->block_bytes;
    himalloc_stacks(HIMALLOC_STACKS_OFF, 0);
    size_t wrong = rounded_more(largest, 8, 1);
    ok(wrong == 0, "no size up to %zu is rounded up by more than an eighth (%zu)", largest, wrong);
    himalloc_stacks(HIMALLOC_STACKS_SAMPLED, 1);
    wrong = rounded_more(largest, 1, 3);
    ok(wrong == 0, "nor that of a sample to more than four times (%zu)", wrong);
}

int main(void)
{
    free(malloc(1));
    if (!ok(root_find(), "the heap describes itself"))
        return done();
    test_index();
    test_slabs();
    test_rounding();
    return done();
}
