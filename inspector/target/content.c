/*
 * Which pages of an anonymous private mapping were ever written.
 *
 * Reading an untouched page gives zeros, costs a fault, and leaves page tables behind in the
 * target: so we ask first. A page counts when it is present or swapped and is not the shared page
 * of zeros (which a mere read of the target puts there).
 *
 * PAGEMAP_SCAN (Linux 6.7) gives runs of pages. Its walk_end is stale when the last call had to
 * flush the kernel's own buffer of 512 runs, so it is never used: fewer runs than asked for means
 * done, else the caller goes on from the end of the last one. Before 6.7 each page has 8 bytes in
 * the pagemap file (bit 63 present, bit 62 swapped), which can't tell the page of zeros apart.
 */
#include "target/content.h"

#include <sys/ioctl.h>
#include <unistd.h>

/* struct pm_scan_arg of linux/fs.h, which older headers don't have */
struct scan_argument {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct scan_region {
    uint64_t start, end, categories;
};

enum {
    PAGE_PRESENT = 1 << 3,
    PAGE_SWAPPED = 1 << 4,
    PAGE_OF_ZEROS = 1 << 5,
    SCAN_REGIONS = 128,
    PAGEMAP_ENTRIES = 512,
};

#define SCAN_REQUEST _IOWR('f', 16, struct scan_argument)
#define PAGEMAP_BITS (1ULL << 63 | 1ULL << 62)

/* Append a range, joined to the one before when they touch. False: no room. */
static bool append(struct hi_range *ranges, size_t capacity, size_t *count, hi_addr start,
                   hi_addr end)
{
    if (*count && ranges[*count - 1].end == start) {
        ranges[*count - 1].end = end;
        return true;
    }
    if (*count == capacity)
        return false;
    ranges[(*count)++] = (struct hi_range){start, end};
    return true;
}

bool content_by_ioctl(int pagemap, hi_addr from, hi_addr end, struct hi_range *ranges,
                      size_t capacity, size_t *count)
{
    struct scan_region regions[SCAN_REGIONS];
    *count = 0;
    while (from < end) {
        struct scan_argument argument = {
            .size = sizeof argument,
            .start = from,
            .end = end,
            .vec = (uintptr_t)regions,
            .vec_len = capacity < SCAN_REGIONS ? capacity : SCAN_REGIONS,
            .category_inverted = PAGE_OF_ZEROS,
            .category_mask = PAGE_OF_ZEROS,
            .category_anyof_mask = PAGE_PRESENT | PAGE_SWAPPED,
            .return_mask = PAGE_PRESENT,
        };
        int got = ioctl(pagemap, SCAN_REQUEST, &argument);
        if (got < 0)
            return false;
        for (int i = 0; i < got; i++)
            if (!append(ranges, capacity, count, regions[i].start, regions[i].end))
                return true;
        if ((uint64_t)got < argument.vec_len)
            return true;
        from = regions[got - 1].end;
        /* full, and the next run would not touch the last: no need to look for it */
        if (*count == capacity && capacity == 1)
            return true;
    }
    return true;
}

bool content_by_pagemap(int pagemap, hi_addr from, hi_addr end, unsigned page_bytes,
                        struct hi_range *ranges, size_t capacity, size_t *count)
{
    uint64_t entries[PAGEMAP_ENTRIES];
    *count = 0;
    for (hi_addr address = from; address < end;) {
        uint64_t wanted = (end - address + page_bytes - 1) / page_bytes;
        if (wanted > PAGEMAP_ENTRIES)
            wanted = PAGEMAP_ENTRIES;
        ssize_t got = pread(pagemap, entries, wanted * sizeof *entries,
                            (off_t)(address / page_bytes * sizeof *entries));
        if (got < (ssize_t)sizeof *entries)
            return false;
        for (size_t i = 0; i < (size_t)got / sizeof *entries; i++, address += page_bytes)
            if ((entries[i] & PAGEMAP_BITS) &&
                !append(ranges, capacity, count, address, address + page_bytes))
                return true;
    }
    return true;
}

bool content_scan(int pagemap, hi_addr from, hi_addr end, unsigned page_bytes,
                  struct hi_range *ranges, size_t capacity, size_t *count)
{
    from -= from % page_bytes;
    if (end % page_bytes)
        end = end - end % page_bytes + page_bytes;
    return content_by_ioctl(pagemap, from, end, ranges, capacity, count) ||
           content_by_pagemap(pagemap, from, end, page_bytes, ranges, capacity, count);
}
