/*
 * The table from a page to the first region that reaches into it.
 *
 * f(page) = number of regions that end at or before the page's start; it never falls with rising
 * address. An entry of a level is f itself where f is the same all over the entry's extent, else
 * (top bit set) the index of a table one level down: 1 GiB -> 2 MiB -> 16 KiB -> 4 KiB. So a
 * terabyte in one region costs one entry a GiB, a heap of slabs on a grid of 16 KiB three loads
 * from tables near by, and only odd boundaries reach the last level. Each region adds at most two
 * tables a level (5 KiB): bounded by the number of regions, not by the span.
 */
#include "heap/blocks_table.h"

enum { LEVELS = 4 };
static const unsigned level_shift[LEVELS] = {30, 21, 14, 12};
#define IS_TABLE BLOCKS_PAGE_TABLE

/* f(address), known to be at least from: gallop, then halve. */
static size_t ended_by(const struct blocks *blocks, size_t from, hi_addr address)
{
    size_t step = 1, low = from, high = from; /* regions before low have ended */
    while (high < blocks->region_count && blocks->regions[high].end <= address) {
        low = high + 1;
        high += step;
        step *= 2;
    }
    if (high > blocks->region_count)
        high = blocks->region_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (blocks->regions[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool table_new(struct blocks *blocks, size_t entries, uint32_t *index)
{
    *index = (uint32_t)blocks->tables.count;
    if (blocks->tables.count + entries >= IS_TABLE)
        return false;
    for (size_t i = 0; i < entries; i++) {
        const uint32_t *entry = VECTOR_PUSH(&blocks->tables);
        if (!entry)
            return false;
    }
    return true;
}

/* The entry of the slot at start on a level; at is f(start). Recursion as deep as there are levels.
 */
static bool entry_build(struct blocks *blocks, unsigned level, hi_addr start, size_t at,
                        uint32_t *entry)
{
    hi_addr last_page = start + (UINT64_C(1) << level_shift[level]) - 4096;
    *entry = (uint32_t)at;
    if (level == LEVELS - 1 || ended_by(blocks, at, last_page) == at)
        return true;
    size_t entries = (size_t)1 << (level_shift[level] - level_shift[level + 1]);
    uint32_t table;
    if (!table_new(blocks, entries, &table))
        return false;
    for (size_t i = 0; i < entries; i++) {
        hi_addr below = start + ((hi_addr)i << level_shift[level + 1]);
        uint32_t value;
        at = ended_by(blocks, at, below);
        if (!entry_build(blocks, level + 1, below, at, &value))
            return false;
        blocks->tables.items[table + i] = value;
    }
    *entry = table | IS_TABLE;
    return true;
}

enum hi_code blocks_page_build(struct blocks *blocks, struct hi_err *err)
{
    if (!blocks->region_count)
        return HI_OK;
    blocks->root_base = blocks->span.start >> 30;
    uint64_t count = ((blocks->span.end - 1) >> 30) - blocks->root_base + 1;
    blocks->root = calloc(count, sizeof *blocks->root);
    if (!blocks->root)
        return hi_no_memory(err);
    size_t at = 0;
    for (uint64_t i = 0; i < count; i++) {
        hi_addr start = (blocks->root_base + i) << 30;
        at = ended_by(blocks, at, start);
        if (!entry_build(blocks, 0, start, at, &blocks->root[i]))
            return hi_no_memory(err);
    }
    blocks->root_count = count;
    return HI_OK;
}
