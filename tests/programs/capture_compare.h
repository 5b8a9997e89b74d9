/* A captured stack beside what backtrace() says at the same place. */
#ifndef CAPTURE_COMPARE_H
#define CAPTURE_COMPARE_H

#include "allocator/call_stack.h"
#include "allocator/stack_table.h"

#include <execinfo.h>

enum { COMPARE_FRAMES_MAX = 1100, COMPARE_DEPTH_MAX = 1024 };

struct compared_stack {
    uint64_t ours[COMPARE_FRAMES_MAX]; /* frame words, innermost first */
    void *theirs[COMPARE_FRAMES_MAX + 16];
    uint32_t our_count, described_count; /* described: before the first guessed one */
    uint32_t their_first, their_count;
    bool equal, cut;
};

static inline uintptr_t frame_address(uint64_t frame)
{
    return frame & ((1ULL << HM_FRAME_ADDRESS_BITS) - 1);
}

static inline uint32_t frame_flags(uint64_t frame)
{
    return frame >> HM_FRAME_ADDRESS_BITS & ((1u << HM_FRAME_FLAG_BITS) - 1);
}

static inline uint32_t frame_epoch(uint64_t frame)
{
    return (uint32_t)(frame >> (HM_FRAME_ADDRESS_BITS + HM_FRAME_FLAG_BITS));
}

static inline uint32_t stack_frames(uint32_t id, uint64_t *frames, uint32_t capacity)
{
    uint32_t count = 0;
    for (; id && count < capacity; id = stack_hot.nodes[id].parent)
        frames[count++] = stack_hot.nodes[id].frame;
    return count;
}

/* To be called further inside than the site is, on the same stack. */
static __attribute__((noinline, unused)) bool compare_stack(struct compared_stack *s, uint32_t id,
                                                            const struct call_site *site)
{
    uint32_t raw = (uint32_t)backtrace(s->theirs, COMPARE_FRAMES_MAX + 16);
    s->their_first = s->described_count = 0;
    while (s->their_first < raw && (uintptr_t)s->theirs[s->their_first] != site->pc)
        s->their_first++;
    s->their_count = raw - s->their_first;
    s->our_count = stack_frames(id, s->ours, COMPARE_FRAMES_MAX);
    while (s->described_count < s->our_count &&
           !(frame_flags(s->ours[s->described_count]) & HM_FRAME_GUESSED))
        s->described_count++;
    s->cut = s->our_count == 0 || frame_flags(s->ours[s->our_count - 1]) & HM_FRAME_CUT;
    s->equal = s->described_count ==
               (s->their_count < COMPARE_DEPTH_MAX ? s->their_count : COMPARE_DEPTH_MAX);
    for (uint32_t i = 0; s->equal && i < s->described_count; i++)
        s->equal = frame_address(s->ours[i]) == (uintptr_t)s->theirs[s->their_first + i];
    return s->equal;
}

#endif
