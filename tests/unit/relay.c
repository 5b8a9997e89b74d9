/*
 * The relay alone: windows come in order and one at a time, with the target's bytes and a little of
 * the next; they end where there is no content; those that are not wanted are left out; and what
 * one step writes the next one sees, whatever thread makes it.
 */
#include "heap/relay.h"
#include "unit/tap.h"

#include <stdlib.h>

enum { BASE = 0x10000000, WINDOWS = 37, TAIL = 5000, HOLE = 4096 };
static const hi_addr hole = BASE + 9 * (hi_addr)RELAY_WINDOW_BYTES + 65536;

struct steps {
    unsigned count, in_order, right, overlapping;
    unsigned running; /* plain: two steps at once would show, also to a race detector */
    hi_addr last_end, skip_at, skip_to, stop_at;
};

static unsigned char byte_at(hi_addr address)
{
    return (unsigned char)(address * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static bool window_is_right(const struct relay_window *window, hi_addr range_end)
{
    uint64_t wanted = window->end - window->start + RELAY_OVERLAP_BYTES;
    if (wanted > range_end - window->start)
        wanted = range_end - window->start;
    if (hole >= window->start && hole - window->start < wanted)
        wanted = hole - window->start;
    if (window->start >= hole && window->start < hole + HOLE)
        wanted = 0;
    for (size_t i = 0; i < window->have; i += 61)
        if (window->bytes[i] != byte_at(window->start + i))
            return false;
    return window->have == wanted;
}

static hi_addr range_end;

static hi_addr step(void *context, const struct relay_window *window)
{
    struct steps *steps = context;
    steps->overlapping += steps->running++ != 0;
    steps->count++;
    steps->in_order += window->start >= steps->last_end;
    steps->right += window_is_right(window, range_end);
    steps->last_end = window->end;
    steps->running--;
    if (steps->stop_at && window->end > steps->stop_at)
        return RELAY_DONE;
    if (steps->skip_at && window->start <= steps->skip_at && steps->skip_at < window->end)
        return steps->skip_to;
    return window->end;
}

static void run(struct target *target, int jobs, struct steps *steps, unsigned wanted)
{
    bool ran = relay_run(target, (struct hi_range){BASE, range_end}, jobs, NULL, step, steps);
    ok(ran && steps->count == wanted && steps->in_order == wanted && steps->right == wanted &&
           !steps->overlapping,
       "%d jobs: %u windows in order, each right (%u, %u, %u)", jobs, wanted, steps->count,
       steps->in_order, steps->right);
}

int main(void)
{
    size_t before = hole - BASE, bytes = WINDOWS * (size_t)RELAY_WINDOW_BYTES + TAIL;
    unsigned char *memory = malloc(bytes);
    range_end = BASE + bytes;
    for (size_t i = 0; memory && i < bytes; i++)
        memory[i] = byte_at(BASE + i);
    const struct target_segment segments[] = {
        {.address = BASE, .bytes = memory, .size = before, .protection = MAPPING_READ},
        {.address = hole, .size = HOLE, .protection = MAPPING_READ},
        {.address = hole + HOLE,
         .bytes = memory + before + HOLE,
         .size = bytes - before - HOLE,
         .protection = MAPPING_READ},
    };
    struct target *target;
    struct hi_err err;
    if (!memory || target_open_bytes(&target, segments, 3, &err) != HI_OK)
        return 2;
    for (int jobs = 1; jobs <= 8; jobs += 1 + jobs / 2) {
        hi_addr third = BASE + 3 * (hi_addr)RELAY_WINDOW_BYTES;
        run(target, jobs, &(struct steps){0}, WINDOWS + 1);
        run(target, jobs, &(struct steps){.stop_at = third}, 4);
        run(target, jobs,
            &(struct steps){.skip_at = third, .skip_to = third + 10 * RELAY_WINDOW_BYTES + 1},
            WINDOWS + 1 - 9);
    }
    struct steps none = {0};
    ok(relay_run(target, (struct hi_range){BASE, BASE}, 3, NULL, step, &none) && !none.count,
       "an empty range has no windows");
    target_close(target);
    free(memory);
    return done();
}
