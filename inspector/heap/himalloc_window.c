/* A window on a table in the target: small at first, so that a tiny heap costs little, and twice as
 * large each time that reading goes on where it ended, so that a big one costs few system calls. */
#include "heap/himalloc_heap.h"

enum { WINDOW_FIRST_STEP = 4096 };

enum hi_code himalloc_window_open(struct window *window, struct target *target, struct hi_err *err)
{
    *window = (struct window){.target = target, .step = WINDOW_FIRST_STEP};
    window->buffer = malloc(WINDOW_BYTES);
    return window->buffer ? HI_OK : hi_no_memory(err);
}

void himalloc_window_close(struct window *window)
{
    free(window->buffer);
    window->buffer = NULL;
}

const void *himalloc_window_at(struct window *window, hi_addr address, size_t count)
{
    uint64_t offset = address - window->start;
    if (address >= window->start && offset <= window->bytes && count <= window->bytes - offset)
        return window->buffer + offset;
    if (count > WINDOW_BYTES)
        return NULL;
    bool goes_on = window->bytes > 0 && address >= window->start && offset <= 2 * window->bytes;
    window->step = goes_on ? window->step * 2 : WINDOW_FIRST_STEP;
    if (window->step > WINDOW_BYTES)
        window->step = WINDOW_BYTES;
    size_t wanted = count > window->step ? count : window->step;
    window->start = address;
    window->bytes = target_read_some(window->target, address, window->buffer, wanted);
    return window->bytes >= count ? window->buffer : NULL;
}
