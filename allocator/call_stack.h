/* call_stack: which calls led here, as one number; see call_stack.c. */
#ifndef HIMALLOC_CALL_STACK_H
#define HIMALLOC_CALL_STACK_H

#include <stdbool.h>
#include <stdint.h>

/* Where a caller goes on: its instruction, and stack and frame pointer as they will be there. */
struct call_site {
    uintptr_t pc, sp, bp;
};

/*
 * The call of the function that it stands in: that function's caller is the innermost frame. For
 * functions that the program calls, and those that these jump to (their frames, where a compiler
 * left one, are skipped). It makes the function keep a frame pointer, so it belongs in one that the
 * fast paths do not pass through; and not in one that is inlined.
 */
#define CALL_SITE()                                                                                \
    (__extension__({                                                                               \
        const uintptr_t *frame_ = __builtin_frame_address(0);                                      \
        (struct call_site){.pc = frame_[1], .sp = (uintptr_t)(frame_ + 2), .bp = frame_[0]};       \
    }))

/*
 * The stack of calls down to the site: the index of its innermost frame's node in the stack table,
 * never 0. Equal stacks have equal numbers. To be called on the stack of the site's function or
 * further inside, before any lock of the allocator is taken. It takes no lock, allocates nothing,
 * leaves errno alone and may be called in signal handlers. Before call_stack_start it says 1, the
 * stack of which nothing is known.
 */
uint32_t call_stack_capture(const struct call_site *site);

/* Makes the stack table (root.stacks), when there is none yet; the mode (enum hm_stacks_mode) and
 * sample_bytes are only written down for the reader. Not on two threads at once. False: no memory.
 */
bool call_stack_start(uint32_t mode, uint64_t sample_bytes);

/* A thread ends: what captures kept for it goes to the next one. Captures may still follow. */
void call_stack_thread_end(void);
/* In the child, on its only thread. */
void call_stack_forked(void);
/* Some library may be gone from memory, and another one may come to its place. */
void call_stack_unloaded(void);

#endif
