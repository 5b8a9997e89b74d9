/* Overlap test for ranges in any order; see span_set.h. */
#include "heap/span_set.h"

void span_set_free(struct span_set *set)
{
    VECTOR_FREE(&set->spans);
    free(set->scratch);
    *set = (struct span_set){0};
}

/* First span of a sorted run that ends after address; count when none. */
static size_t run_find(const struct span *run, size_t count, hi_addr address)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (run[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct span *span_set_overlap(const struct span_set *set, hi_addr start, hi_addr end)
{
    if (start >= set->highest_end)
        return NULL;
    const struct span *lowest = NULL, *run = set->spans.items;
    size_t left = set->spans.count;
    while (left) {
        size_t length = (size_t)1 << (63 - __builtin_clzll(left));
        size_t i = run_find(run, length, start);
        if (i < length && run[i].start < end && (!lowest || run[i].start < lowest->start))
            lowest = &run[i];
        run += length;
        left -= length;
    }
    return lowest;
}

/* Merge the adjacent runs [0, first) and [first, count) of items. */
static bool merge(struct span_set *set, struct span *items, size_t first, size_t count)
{
    if (items[first - 1].start <= items[first].start)
        return true;
    if (set->scratch_capacity < first) {
        struct span *grown = realloc(set->scratch, first * 2 * sizeof *grown);
        if (!grown)
            return false;
        set->scratch = grown;
        set->scratch_capacity = first * 2;
    }
    memcpy(set->scratch, items, first * sizeof *items);
    size_t a = 0, b = first, out = 0;
    while (a < first) {
        if (b < count && items[b].start < set->scratch[a].start)
            items[out++] = items[b++];
        else
            items[out++] = set->scratch[a++];
    }
    return true;
}

bool span_set_add(struct span_set *set, struct span span)
{
    struct span *pushed = VECTOR_PUSH(&set->spans);
    if (!pushed)
        return false;
    *pushed = span;
    if (span.end > set->highest_end)
        set->highest_end = span.end;
    size_t count = set->spans.count;
    for (size_t length = 1; !(count & length); length *= 2) {
        struct span *items = set->spans.items + count - 2 * length;
        if (!merge(set, items, length, 2 * length))
            return false;
    }
    return true;
}

void span_set_trim(struct span_set *set, hi_addr start, hi_addr end)
{
    const struct span *span = span_set_overlap(set, start, start + 1);
    if (span && span->start == start && end > start && end < span->end)
        set->spans.items[span - set->spans.items].end = end;
}

bool span_set_sort(struct span_set *set)
{
    /* from the small runs at the end towards the large one at the front */
    size_t count = set->spans.count, sorted = 0;
    for (size_t length = 1; length && length <= count; length *= 2) {
        if (!(count & length))
            continue;
        if (sorted) {
            struct span *items = set->spans.items + count - sorted - length;
            if (!merge(set, items, length, length + sorted))
                return false;
        }
        sorted += length;
    }
    return true;
}
