/*
 * Registers as roots.
 *
 * General: all that may hold an address. Left out are the system call's number, flags and segment
 * selectors. rsp, rip, fs_base and gs_base stay: a coroutine's stack, just-in-time code and a
 * thread control block may lie in heap blocks.
 *
 * Vector: the kernel gives the XSAVE area (512 bytes of FXSAVE, a header of 64, then extended
 * parts), older cores only FXSAVE. Where the extended parts lie depends on the processor that made
 * them, and that is not always told. But which 8 bytes belong to which part does not matter here:
 * each is a lane or none, so each is taken. In FXSAVE the lanes are known: 8 x 16 bytes of x87/MMX
 * from 32 on, of which the first 8 are the register, and 16 x 16 bytes of xmm from 160 on. Parts
 * that the header (xstate_bv at 512) says are in their initial state are zeros in standard form and
 * absent in compacted form, so they need no care either.
 */
#include "symbols/roots_collect.h"

enum {
    FXSAVE_MMX = 32,
    FXSAVE_XMM = 160,
    FXSAVE_XMM_END = 416,
    FXSAVE_BYTES = 512,
    XSAVE_EXTENDED = 576,
    XSAVE_YMM_END = 832,
};

static const char *const register_names[THREAD_REGISTER_COUNT] = {
    "r15", "r14", "r13", "r12",     "rbp",     "rbx", "r11", "r10", "r9",
    "r8",  "rax", "rcx", "rdx",     "rsi",     "rdi", NULL,  "rip", NULL,
    NULL,  "rsp", NULL,  "fs_base", "gs_base", NULL,  NULL,  NULL,  NULL,
};

static void collect_lanes(struct collector *c, const struct thread *thread, size_t start,
                          size_t end, size_t step, const char *name)
{
    const unsigned char *state = thread->vector_state;
    for (size_t at = start; at + 8 <= end && at + 8 <= thread->vector_state_bytes; at += step) {
        uint64_t value;
        memcpy(&value, state + at, sizeof value);
        collect_word(c, ROOT_VECTOR, value, thread->tid, name);
    }
}

void collect_registers(struct collector *c)
{
    for (size_t i = 0; i < target_thread_count(c->target); i++) {
        const struct thread *thread = target_thread(c->target, i);
        for (int k = 0; thread->has_registers && k < THREAD_REGISTER_COUNT; k++)
            if (register_names[k])
                collect_word(c, ROOT_REGISTER, thread->registers[k], thread->tid,
                             register_names[k]);
        if (!thread->vector_state || thread->vector_state_bytes < FXSAVE_BYTES)
            continue;
        collect_lanes(c, thread, FXSAVE_MMX, FXSAVE_XMM, 16, "mm");
        collect_lanes(c, thread, FXSAVE_XMM, FXSAVE_XMM_END, 8, "xmm");
        collect_lanes(c, thread, XSAVE_EXTENDED, XSAVE_YMM_END, 8, "ymm");
        collect_lanes(c, thread, XSAVE_YMM_END, thread->vector_state_bytes, 8, "zmm");
    }
}
