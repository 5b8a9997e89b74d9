/* Bringing target memory near, and filtering it; see window.h. */
#include "graph/window.h"

bool window_new(struct window *window, struct target *target, const hole_list *holes,
                const struct filter_rule *rule, bool unaligned)
{
    *window = (struct window){.target = target, .holes = holes, .rule = *rule};
    size_t places = unaligned ? WINDOW_BYTES : WINDOW_BYTES / 8;
    window->filter = unaligned ? NULL : filter_best();
    window->buffer = malloc(WINDOW_BYTES + 8);
    window->offsets = malloc((places + FILTER_SLACK) * sizeof *window->offsets);
    window->values = malloc((places + FILTER_SLACK) * sizeof *window->values);
    if (window->buffer && window->offsets && window->values)
        return true;
    window_free(window);
    return false;
}

void window_free(struct window *window)
{
    free(window->buffer);
    free(window->offsets);
    free(window->values);
    VECTOR_FREE(&window->unread);
    *window = (struct window){0};
}

/* First hole that ends after address. */
static size_t hole_after(const hole_list *holes, hi_addr address)
{
    size_t low = 0, high = holes->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (holes->items[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool window_has_hole(const struct window *window, hi_addr start, hi_addr end)
{
    size_t i = hole_after(window->holes, start);
    return i < window->holes->count && window->holes->items[i].start < end;
}

static void blank_holes(struct window *window, hi_addr start, hi_addr end)
{
    const hole_list *holes = window->holes;
    for (size_t i = hole_after(holes, start); i < holes->count && holes->items[i].start < end;
         i++) {
        hi_addr low = holes->items[i].start > start ? holes->items[i].start : start;
        hi_addr high = holes->items[i].end < end ? holes->items[i].end : end;
        memset(window->buffer + (low - window->near.start), 0, high - low);
    }
}

/* Out of memory: then only the bytes are counted. */
static void unread_add(struct window *window, hi_addr start, hi_addr end)
{
    window->missing_bytes += end - start;
    struct hi_range *last =
        window->unread.count ? &window->unread.items[window->unread.count - 1] : NULL;
    if (last && last->end == start) {
        last->end = end;
        return;
    }
    struct hi_range *range = VECTOR_PUSH(&window->unread);
    if (range)
        *range = (struct hi_range){start, end};
}

/* Fill the buffer with [start, end); false: nothing of it has content. What should be there and
 * can't be read is noted; or, where `whole` is given, the end of it: *whole becomes false. */
static bool read_content(struct window *window, hi_addr start, hi_addr end, bool *whole)
{
    struct hi_range range;
    hi_addr at = start;
    bool any = false;
    while (at < end && target_next_content(window->target, at, end, &range)) {
        if (range.start < at || range.end > end || range.start >= range.end)
            break;
        size_t bytes = range.end - range.start;
        memset(window->buffer + (at - start), 0, range.start - at);
        uint8_t *to = window->buffer + (range.start - start);
        size_t got = target_read_some(window->target, range.start, to, bytes);
        got = got < bytes ? got : bytes;
        memset(to + got, 0, bytes - got);
        if (got < bytes && whole)
            return *whole = false;
        if (got < bytes)
            unread_add(window, range.start + got, range.end);
        any |= got > 0;
        at = range.end;
    }
    memset(window->buffer + (at - start), 0, end - at);
    return any;
}

/* The same, with as much behind it as may be read, if all of that can be read. */
static const uint8_t *read_near(struct window *window, hi_addr start, hi_addr end)
{
    hi_addr until = start + WINDOW_BYTES;
    if (start >= window->near.start && end <= window->near.end)
        return window->buffer + (start - window->near.start);
    until = window->ahead < until ? window->ahead : until;
    bool whole = until > end, any = whole && read_content(window, start, until, &whole);
    window->near = (struct hi_range){start, until};
    if (!whole) {
        any = read_content(window, start, end, NULL);
        window->near.end = end;
    }
    return any ? window->buffer : NULL;
}

static const void *window_memory(struct window *window, hi_addr start, hi_addr end)
{
    size_t bytes = 0;
    if (!window_has_hole(window, start, end)) {
        const void *view = target_view(window->target, start, &bytes);
        if (view && bytes >= end - start)
            return view;
        return read_near(window, start, end);
    }
    const uint8_t *memory = read_near(window, start, end);
    if (memory)
        blank_holes(window, start, end);
    return memory;
}

const void *window_look(struct window *window, hi_addr start, hi_addr end)
{
    if (end - start < 8)
        return NULL;
    if (!target_complete(window->target))
        window->missing_bytes += target_missing_in(window->target, start, end);
    return window_memory(window, start, end);
}

void window_filter(struct window *window, const void *memory, hi_addr start, hi_addr end)
{
    window->count = 0;
    if (!memory)
        return;
    if (window->filter)
        window->count = window->filter(&window->rule, memory, (end - start) / 8, window->offsets,
                                       window->values);
    else
        window->count = filter_unaligned(&window->rule, memory, end - start - 7, window->offsets,
                                         window->values);
}

void window_open(struct window *window, hi_addr start, hi_addr end)
{
    window_filter(window, window_look(window, start, end), start, end);
}
