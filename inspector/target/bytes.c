/*
 * A target made of bytes in an array: what heap readers and graphs are tested with.
 *
 * Segments are copied, each becomes a mapping, and they must not overlap. It has no view: every
 * access of the code under test goes through a read, so that target_bytes_fail_read() can make
 * each of them fail in turn.
 */
#include "target/backend.h"

#include <inttypes.h>
#include <stdatomic.h>

struct bytes_segment {
    hi_addr start, end;
    unsigned char *bytes; /* NULL: absent */
};

struct bytes_state {
    VECTOR(struct bytes_segment) segments; /* in address order */
    _Atomic uint64_t reads_until_failure;  /* 0: none will fail */
};

static bool this_read_fails(struct bytes_state *state)
{
    uint64_t left = atomic_load(&state->reads_until_failure);
    while (left)
        if (atomic_compare_exchange_weak(&state->reads_until_failure, &left, left - 1))
            return left == 1;
    return false;
}

static const struct bytes_segment *segment_at(const struct bytes_state *state, hi_addr address)
{
    for (size_t i = 0; i < state->segments.count; i++) {
        const struct bytes_segment *segment = &state->segments.items[i];
        if (address >= segment->start && address < segment->end)
            return segment;
    }
    return NULL;
}

static size_t bytes_read_some(struct target *target, hi_addr address, void *buffer, size_t bytes)
{
    struct bytes_state *state = target->state;
    size_t got = 0;
    if (this_read_fails(state))
        return 0;
    while (got < bytes) {
        const struct bytes_segment *segment = segment_at(state, address + got);
        if (!segment)
            break;
        size_t offset = address + got - segment->start;
        size_t step = segment->end - segment->start - offset;
        if (step > bytes - got)
            step = bytes - got;
        if (segment->bytes)
            memcpy((char *)buffer + got, segment->bytes + offset, step);
        else
            memset((char *)buffer + got, 0, step);
        got += step;
    }
    return got;
}

static size_t bytes_contents(struct target *target, hi_addr from, hi_addr end,
                             struct hi_range *ranges, size_t capacity)
{
    struct bytes_state *state = target->state;
    size_t count = 0;
    for (size_t i = 0; i < state->segments.count && count < capacity; i++) {
        const struct bytes_segment *segment = &state->segments.items[i];
        hi_addr low = segment->start > from ? segment->start : from;
        hi_addr high = segment->end < end ? segment->end : end;
        if (segment->bytes && low < high)
            ranges[count++] = (struct hi_range){low, high};
    }
    return count;
}

static void bytes_close(struct target *target)
{
    struct bytes_state *state = target->state;
    for (size_t i = 0; i < state->segments.count; i++)
        free(state->segments.items[i].bytes);
    VECTOR_FREE(&state->segments);
    free(state);
}

static const struct target_backend bytes_backend = {
    .kind = TARGET_BYTES,
    .read_some = bytes_read_some,
    .contents = bytes_contents,
    .close = bytes_close,
};

static int compare_segments(const void *left, const void *right)
{
    const struct bytes_segment *a = left, *b = right;
    return a->start < b->start ? -1 : a->start > b->start;
}

static enum hi_code add_segment(struct target *target, const struct target_segment *given,
                                struct hi_err *err)
{
    struct bytes_state *state = target->state;
    hi_addr end = target_add_bytes(given->address, given->size);
    if (!given->size || end - given->address != given->size)
        return hi_fail(err, HI_BAD_INPUT, "the segment at 0x%" PRIx64 " is empty or too long",
                       given->address);
    struct bytes_segment *segment = VECTOR_PUSH(&state->segments);
    if (!segment)
        return hi_no_memory(err);
    segment->start = given->address;
    segment->end = end;
    if (given->bytes && !(segment->bytes = malloc(given->size)))
        return hi_no_memory(err);
    if (given->bytes)
        memcpy(segment->bytes, given->bytes, given->size);
    struct mapping *mapping = target_push_mapping(target, segment->start, end, given->path);
    if (!mapping)
        return hi_no_memory(err);
    mapping->protection = given->protection;
    mapping->dumped = given->bytes != NULL;
    return HI_OK;
}

static enum hi_code fill(struct target *target, const struct target_segment *segments, size_t count,
                         struct hi_err *err)
{
    struct bytes_state *state = target->state;
    for (size_t i = 0; i < count; i++) {
        enum hi_code code = add_segment(target, &segments[i], err);
        if (code != HI_OK)
            return code;
    }
    if (count)
        qsort(state->segments.items, count, sizeof *state->segments.items, compare_segments);
    for (size_t i = 1; i < count; i++)
        if (state->segments.items[i].start < state->segments.items[i - 1].end)
            return hi_fail(err, HI_BAD_INPUT, "two segments overlap at 0x%" PRIx64,
                           state->segments.items[i].start);
    return target_seal(target, err);
}

enum hi_code target_open_bytes(struct target **target, const struct target_segment *segments,
                               size_t count, struct hi_err *err)
{
    struct bytes_state *state = calloc(1, sizeof *state);
    struct target *made = state ? target_new(&bytes_backend, state, NULL) : NULL;
    *target = NULL;
    if (!made) {
        free(state);
        return hi_no_memory(err);
    }
    enum hi_code code = fill(made, segments, count, err);
    if (code == HI_OK)
        *target = made;
    else
        target_close(made);
    return code;
}

void target_bytes_fail_read(struct target *target, uint64_t nth)
{
    if (target->backend == &bytes_backend) {
        struct bytes_state *state = target->state;
        atomic_store(&state->reads_until_failure, nth);
    }
}
