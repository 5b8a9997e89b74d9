/*
 * call_stacks: the stacks that an answer shows, with names. First all of them are added, then they
 * are named at once (one batch costs far less than many), then each is looked up. An allocator's
 * number of a stack means something in its heap only, so a stack is a heap and a number.
 */
#ifndef ANALYSIS_CALL_STACKS_H
#define ANALYSIS_CALL_STACKS_H

#include "analysis/inspection.h"

struct call_frame {
    hi_addr address;
    bool exact;     /* the instruction itself; else a return address */
    bool guessed;   /* found without unwind information */
    bool cut;       /* the last one that is known, not the outermost one */
    uint32_t place; /* index of its names */
};

struct call_stack {
    uint16_t heap;
    uint64_t id;
    uint32_t first, count; /* of the frames */
};

struct call_stacks {
    const struct inspection *in;
    VECTOR(struct call_stack) stacks;
    VECTOR(struct call_frame) frames;
    VECTOR(struct frame_place) places; /* what has to be named, each once */
    uint32_t *stack_slots, *place_slots;
    size_t stack_slot_count, place_slot_count;
    struct names names;
    bool is_named;
};

void call_stacks_begin(struct call_stacks *stacks, const struct inspection *in);
/* 0 and what is known already are passed over. Not after naming. */
HI_MUST_USE enum hi_code call_stacks_add(struct call_stacks *stacks, uint16_t heap, uint64_t id,
                                         struct hi_err *err);
HI_MUST_USE enum hi_code call_stacks_name(struct call_stacks *stacks, struct hi_err *err);
void call_stacks_free(struct call_stacks *stacks);

/* NULL: not added, or without frames. */
const struct call_stack *call_stacks_find(const struct call_stacks *stacks, uint16_t heap,
                                          uint64_t id);
/* Frame i of a stack, innermost first. */
const struct call_frame *call_stack_frame(const struct call_stacks *stacks,
                                          const struct call_stack *stack, uint32_t i);
/* Its names: of inlined calls first, the function whose code it is last; one at least. */
const struct frame_name *call_frame_names(const struct call_stacks *stacks,
                                          const struct call_frame *frame, size_t *count);

#endif
