/* The rows; see mimalloc_layout.h. */
#include "heap/mimalloc_layout.h"

#define NONE MIMALLOC_NO_FIELD

static const struct mimalloc_page_layout page_2_0 = {.versions = "2.0",
                                                     .bytes = 80,
                                                     .capacity = 10,
                                                     .reserved = 12,
                                                     .used = 24,
                                                     .used_bytes = 4,
                                                     .free = 16,
                                                     .local_free = 32,
                                                     .thread_free = 40,
                                                     .block_size = 28,
                                                     .block_size_bytes = 4,
                                                     .start = NONE,
                                                     .flags = 14,
                                                     .heap = 48,
                                                     .heap_delayed = 2840};

static const struct mimalloc_page_layout page_2_1 = {.versions = "2.1-2.4",
                                                     .bytes = 96,
                                                     .capacity = 10,
                                                     .reserved = 12,
                                                     .used = 32,
                                                     .used_bytes = 2,
                                                     .free = 16,
                                                     .local_free = 24,
                                                     .thread_free = 56,
                                                     .block_size = 40,
                                                     .block_size_bytes = 8,
                                                     .start = 48,
                                                     .start_bytes = 8,
                                                     .flags = 14,
                                                     .heap = 64,
                                                     .heap_delayed = 8};

const struct mimalloc_segment_layout mimalloc_segments[] = {
    {&page_2_0, 216, 224, 232, 248, 264},
    {&page_2_1, 216, 224, 232, 248, 264}, /* 2.1.7 */
    {&page_2_1, 224, 248, 256, 272, 288}, /* 2.2 to 2.4 */
};
const size_t mimalloc_segment_count = sizeof mimalloc_segments / sizeof *mimalloc_segments;

const struct page_tree_shape mimalloc_tree = {.levels = 2,
                                              .bits = {18, 13},
                                              .address_bits = 47,
                                              .page_shift = 16,
                                              .leaf_entry_bytes = 8,
                                              .indirect = true};

const struct mimalloc_page_layout mimalloc_pages_v3[] = {
    {.versions = "3.1-3.3",
     .bytes = 120,
     .capacity = 18,
     .reserved = 20,
     .used = 16,
     .used_bytes = 2,
     .free = 8,
     .local_free = 24,
     .thread_free = 32,
     .block_size = 40,
     .block_size_bytes = 8,
     .start = 48,
     .start_bytes = 8,
     .flags = 0,
     .heap = NONE,
     .heap_delayed = NONE},
    {.versions = "3.4",
     .bytes = 112,
     .capacity = 18,
     .reserved = 20,
     .used = 16,
     .used_bytes = 2,
     .free = 8,
     .local_free = 24,
     .thread_free = 32,
     .block_size = 40,
     .block_size_bytes = 8,
     .start = 48,
     .start_bytes = 4,
     .flags = 0,
     .heap = NONE,
     .heap_delayed = NONE},
};
const size_t mimalloc_page_v3_count = sizeof mimalloc_pages_v3 / sizeof *mimalloc_pages_v3;
