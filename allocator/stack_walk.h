/* stack_walk: from one frame to the next; see stack_walk.c. */
#ifndef HIMALLOC_STACK_WALK_H
#define HIMALLOC_STACK_WALK_H

#include "cfi_rows.h"

/* Where a walk is. [low, high) of the stack is known to be readable. */
struct walk {
    uintptr_t pc, sp, bp;
    uint32_t flags; /* HM_FRAME_EXACT, HM_FRAME_GUESSED: of the frame that it is at */
    uintptr_t low, high;
    uintptr_t other_low, other_high; /* as known before, when sp was not in it */
};

/* How a step was made, and so which words of the stack it rests on. */
enum walk_how {
    WALK_ROW,    /* by a row of kind ROW_SP or ROW_BP */
    WALK_DRAP,   /* ROW_DRAP */
    WALK_SIGNAL, /* ROW_SIGNAL */
    WALK_GUESS,  /* return address at rbp + 8, caller's rbp at rbp */
    WALK_OPAQUE, /* by more than can be said */
    WALK_END,    /* no step: the outermost frame */
    WALK_ZERO,   /* no step: by a row as above, but the return address is 0 */
    WALK_CUT,    /* no step: nothing known of the caller */
    WALK_BLIND,  /* no step: by more registers than the walk has */
};

enum walk_how walk_step_rare(struct walk *w, uint32_t row);
/* Makes sure that the word below cfa can be read. */
bool walk_reach(struct walk *w, uintptr_t cfa);

/* A frame of a whole walk. */
struct walk_step {
    uintptr_t pc, sp, bp;
    uint32_t row;
    uint8_t flags, how;
};
/* Walks with all registers, from the caller of this function out to the frame at (pc, sp), and
 * writes down that frame and all further ones. How many; the last one's how is WALK_END or
 * WALK_CUT. */
uint32_t walk_with_all_registers(uintptr_t pc, uintptr_t sp, struct walk_step *steps,
                                 uint32_t capacity);

/* To the caller's frame. *used is the row; epochs are in it. */
static inline enum walk_how walk_step(struct walk *w, uint32_t *used)
{
    uint32_t row = UNLIKELY(w->flags & HM_FRAME_EXACT) ? cfi_row_exact(w->pc) : cfi_row_find(w->pc);
    uint32_t kind = row & ROW_KIND_MASK;
    *used = row;
    if (UNLIKELY(kind - ROW_SP > ROW_BP - ROW_SP)) {
        if (kind == ROW_NONE)
            *used = row = cfi_row_fill(w->pc);
        if (kind != ROW_NONE || (row & ROW_KIND_MASK) > ROW_BP)
            return walk_step_rare(w, row);
        kind = row & ROW_KIND_MASK;
    }
    uintptr_t cfa = (kind == ROW_SP ? w->sp : w->bp) + row_number(row);
    if (UNLIKELY(cfa <= w->sp || cfa > w->high || cfa % 8 != 0) && !walk_reach(w, cfa))
        return WALK_CUT;
    uintptr_t pc = *(const uintptr_t *)(cfa - 8);
    uint32_t slot = row_slot(row);
    if (UNLIKELY((pc - 1) >> ROW_PC_BITS))
        return pc == 0 ? WALK_ZERO : WALK_CUT;
    w->bp = slot ? *(const uintptr_t *)(cfa - 8 * (uintptr_t)slot) : w->bp;
    w->pc = pc;
    w->sp = cfa;
    w->flags = 0;
    return WALK_ROW;
}

#endif
