/*
 * The rows; see jemalloc_layout.h. Versions are those whose sources and DWARF were read:
 * 5.0.1, 5.1.0, 5.2.1, 5.3.0, 5.3.1 on x86-64.
 */
#include "heap/jemalloc_layout.h"

/* configure probes the machine that builds: both address widths are in the field. */
const struct page_tree_shape jemalloc_trees[] = {
    {2, {18, 18, 0}, 48, 12, 8, false},
    {2, {18, 18, 0}, 48, 12, 16, false},
    {3, {15, 15, 15}, 57, 12, 16, false},
};
const size_t jemalloc_tree_count = sizeof jemalloc_trees / sizeof *jemalloc_trees;

const struct jemalloc_extent_layout jemalloc_extents[] = {
    {"5.3", 17, 3, 20, 28, 0x7f},
    {"5.1-5.2", 16, 2, 18, 26, 0x1},
    {"5.0", 15, 2, 17, 25, 0x1},
};
const size_t jemalloc_extent_count = sizeof jemalloc_extents / sizeof *jemalloc_extents;

const struct jemalloc_cache_layout jemalloc_caches[] = {
    {"5.3.0", JEMALLOC_CACHE_SLOW, 168, 8, 73, 0, 0, 0, 0, 160, 856, 2632, 40, 0},
    {"5.3.1", JEMALLOC_CACHE_SLOW, 232, 8, 41, 0, 0, 0, 0, 224, 960, 1968, 40, 0},
    {"5.2", JEMALLOC_CACHE_DESCRIPTOR, 936, 16, 36, 1000, 196, 4, 16, 0, 496, 6216, 952, 48},
    {"5.1", JEMALLOC_CACHE_DESCRIPTOR, 912, 16, 36, 976, 196, 4, 16, 0, 448, 6144, 928, 8},
    {"5.0", JEMALLOC_CACHE_RING, 880, 16, 36, 944, 196, 4, 16, 0, 440, 6104, 896, 8},
};
const size_t jemalloc_cache_count = sizeof jemalloc_caches / sizeof *jemalloc_caches;

uint64_t jemalloc_class_bytes(unsigned size_class)
{
    if (size_class == 0)
        return 8;
    if (size_class <= 4)
        return 16 * (uint64_t)size_class;
    unsigned group = (size_class - 5) / 4, step = (size_class - 5) % 4 + 1;
    if (group > 50)
        return 0;
    return (UINT64_C(64) << group) + (UINT64_C(16) << group) * step;
}
