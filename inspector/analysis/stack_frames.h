/*
 * stack_frames: which function's frame a stack word lies in. Collected while a live target is
 * stopped, since stacks change as soon as it runs on.
 */
#ifndef ANALYSIS_STACK_FRAMES_H
#define ANALYSIS_STACK_FRAMES_H

#include "symbols/roots.h"

struct stack_frame {
    hi_addr start, end; /* stack addresses, half open */
    hi_addr pc;         /* in the function whose frame it is */
    pid_t tid;
};

struct stack_frames {
    VECTOR(struct stack_frame) frames; /* rising */
};

HI_MUST_USE enum hi_code stack_frames_collect(struct stack_frames *frames, struct target *target,
                                              struct symbols *symbols, struct hi_err *err);
void stack_frames_free(struct stack_frames *frames);
const struct stack_frame *stack_frames_at(const struct stack_frames *frames, hi_addr address);

#endif
