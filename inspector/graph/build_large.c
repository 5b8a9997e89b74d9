/*
 * What is read in parts: blocks above 64 KiB, NODEs, and root ranges.
 *
 * A part is 16 MiB of an extent, so that a block of gigabytes occupies all workers. Within a part
 * only ranges with content are visited, a window at a time: a reserved but untouched terabyte costs
 * one question a part. Each window of a block that has edges becomes a fat part.
 */
#include "graph/build.h"

uint64_t build_number_parts(build_extents *extents)
{
    uint64_t parts = 0;
    for (size_t i = 0; i < extents->count; i++) {
        struct build_extent *extent = &extents->items[i];
        extent->parts = parts;
        parts += (extent->end - extent->start - 1) / BUILD_PART_BYTES + 1;
    }
    return parts;
}

const struct build_extent *build_part(const build_extents *extents, uint64_t part,
                                      struct hi_range *range)
{
    size_t low = 0, high = extents->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (extents->items[middle].parts <= part)
            low = middle;
        else
            high = middle;
    }
    const struct build_extent *extent = &extents->items[low];
    range->start = extent->start + (part - extent->parts) * BUILD_PART_BYTES;
    uint64_t left = extent->end - range->start;
    range->end = range->start + (left < BUILD_PART_BYTES ? left : BUILD_PART_BYTES);
    return extent;
}

typedef bool (*window_use)(struct build *build, struct build_worker *w,
                           const struct build_extent *extent, hi_addr start);

/* Kept words of the window that lie wholly in the extent and start in [low, high). */
static size_t clip(struct build_worker *w, const struct build_extent *extent, hi_addr start,
                   hi_addr low, hi_addr high)
{
    struct window *window = &w->window;
    size_t kept = 0;
    for (size_t i = 0; i < window->count; i++) {
        hi_addr at = start + window->offsets[i];
        if (at < low || at >= high || extent->end - at < 8)
            continue;
        window->values[kept] = window->values[i];
        window->offsets[kept++] = window->offsets[i];
    }
    return kept;
}

/* One window's worth of the part, [low, high): words that start there. An unaligned word may reach
 * 7 bytes further. */
static bool window_do(struct build *build, struct build_worker *w,
                      const struct build_extent *extent, hi_addr low, hi_addr high, window_use use)
{
    hi_addr start = low & ~(hi_addr)7, end = high;
    if (!w->window.filter && extent->end - end >= 8)
        end += 7;
    window_open(&w->window, start, end);
    w->words += window_words(&w->window, low, end);
    w->window.count = clip(w, extent, start, low, high);
    if (!w->window.count)
        return true;
    w->kept += w->window.count;
    build_resolve(build, w, w->window.count);
    return use(build, w, extent, start);
}

static bool part_do(struct build *build, struct build_worker *w, const struct build_extent *extent,
                    struct hi_range part, window_use use)
{
    struct hi_range content;
    const hi_addr step = WINDOW_BYTES - 64;
    w->window.missing_bytes +=
        target_complete(build->target) ? 0 : target_missing_in(build->target, part.start, part.end);
    while (part.start < part.end &&
           target_next_content(build->target, part.start, part.end, &content)) {
        if (content.start < part.start || content.end > part.end || content.start >= content.end)
            return true;
        hi_addr high = content.end - content.start < step ? content.end : content.start + step;
        if (high < content.end)
            high &= ~(hi_addr)7;
        if (!window_do(build, w, extent, content.start, high, use))
            return false;
        part.start = high;
    }
    return true;
}

static void parts_do(struct build *build, struct build_worker *w, const build_extents *extents,
                     const char *phase, window_use use)
{
    const struct build_extent *last = extents->count ? &extents->items[extents->count - 1] : NULL;
    uint64_t parts = last ? last->parts + (last->end - last->start - 1) / BUILD_PART_BYTES + 1 : 0,
             part;
    w->window.ahead = 0;
    while ((part = __atomic_fetch_add(&build->next, 1, __ATOMIC_RELAXED)) < parts) {
        struct hi_range range;
        if (build_ended(build, phase, part, parts))
            return;
        const struct build_extent *extent = build_part(extents, part, &range);
        if (!part_do(build, w, extent, range, use))
            __atomic_store_n(&build->no_memory, true, __ATOMIC_RELAXED);
    }
}

/* -- large blocks ------------------------------------------------------------------------------ */

static bool fat_store(struct build *build, struct build_worker *w,
                      const struct build_extent *extent, hi_addr start)
{
    struct edges *edges = &build->graph->edges;
    size_t count = 0;
    for (size_t i = 0; i < w->window.count; i++)
        if (w->results[i] != EDGE_NONE)
            w->results[count++] = w->results[i];
    w->resolved += count;
    if (!count)
        return true;
    struct fat_part *part = VECTOR_PUSH(&w->fat);
    uint64_t base = edges_take(edges, count);
    if (!part || base == UINT64_MAX)
        return false;
    memcpy(&edges->words[base], w->results, count * sizeof *w->results);
    *part = (struct fat_part){
        .block = extent->owner,
        .count = (uint32_t)count,
        .offset = start > extent->start ? start - extent->start : 0,
        .base = base,
    };
    return true;
}

void build_large(void *context, int number)
{
    struct build *build = context;
    parts_do(build, &build->workers[number], &build->large, "reading large blocks", fat_store);
}

/* -- root ranges ------------------------------------------------------------------------------- */

static bool holds_store(struct build *build, struct build_worker *w,
                        const struct build_extent *extent, hi_addr start)
{
    (void)build;
    for (size_t i = 0; i < w->window.count; i++) {
        if (w->results[i] == EDGE_NONE)
            continue;
        struct root_hold *hold = VECTOR_PUSH(&w->holds);
        if (!hold)
            return false;
        *hold = (struct root_hold){w->results[i], extent->owner, start + w->window.offsets[i]};
        w->resolved++;
    }
    return true;
}

void build_roots(void *context, int number)
{
    struct build *build = context;
    parts_do(build, &build->workers[number], &build->roots, "reading roots", holds_store);
}
