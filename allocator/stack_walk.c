/*
 * stack_walk: from one frame to the next.
 *
 * A walk is at a frame: its pc, and the stack and frame pointer as they are there. A step reads the
 * frame's row and the two words that it names, and is then at the caller's frame. What is known of
 * the code is believed; the stack is not: a CFA must be aligned and above the stack pointer, and
 * where it leaves the part of the stack that is known to be readable, the kernel is asked about
 * that page first (pages_readable, some 100 ns, once a page and thread). So nothing needs to be
 * known of where stacks lie, which of them is the thread's own, a coroutine's or a signal
 * handler's, and a walk that goes astray ends.
 *
 * Code that nobody describes (made at run time, or assembly) mostly keeps frame pointers. The word
 * behind the one at rbp is then a return address, which is believed if code that is described
 * returns there, or a call instruction stands before it. Such frames are marked HM_FRAME_GUESSED;
 * where there is none, the walk is cut.
 *
 * Rows that need other registers than rsp and rbp (none in most programs, a few in assembly) are
 * done by walking once more, with all registers from here on.
 */
#include "stack_walk.h"

#include "cfi_step.h"
#include "pages.h"

enum {
    FRAME_BYTES_MAX = 256 << 20,
    OWN_FRAMES_MAX = 16,
    UCONTEXT_BP = 120,
    UCONTEXT_SP = 160,
    UCONTEXT_PC = 168,
};

static bool address_is_code(uintptr_t pc)
{
    return (pc - 1) >> ROW_PC_BITS == 0;
}

/* Readable, and not across the end of a page unless both are. */
static bool word_read(uint64_t address, uint64_t *word)
{
    if (address < PAGE_BYTES || address >> ROW_PC_BITS || !pages_readable(address))
        return false;
    if (address % 8 != 0 && !pages_readable(address + 7))
        return false;
    __builtin_memcpy(word, (const void *)(uintptr_t)address, sizeof *word);
    return true;
}

bool walk_reach(struct walk *w, uintptr_t cfa)
{
    if (cfa <= w->sp || cfa % 8 != 0 || cfa - w->sp > FRAME_BYTES_MAX)
        return false;
    if (cfa <= w->high)
        return true;
    if (cfa > w->other_low && cfa <= w->other_high) { /* back on what was known before */
        w->high = w->other_high;
        return true;
    }
    if (cfa >> ROW_PC_BITS || !pages_readable(cfa - 8))
        return false;
    w->high = ((cfa - 8) | (PAGE_BYTES - 1)) + 1;
    return true;
}

/* To a stack pointer that may be on another stack. */
static void walk_move(struct walk *w, uintptr_t sp)
{
    w->sp = sp;
    if (sp - w->low >= w->high - w->low)
        w->low = w->high = sp;
}

/* The bytes before a return address: a call. */
static bool call_stands_before(uintptr_t pc)
{
    uint64_t word;
    uint8_t b[8];
    if (!word_read(pc - 8, &word))
        return false;
    __builtin_memcpy(b, &word, sizeof b);
    if (b[3] == 0xe8)
        return true;
    /* ff /2 with a register, with memory at a register, and with distances of 1 and 4 bytes */
    return (b[6] == 0xff && ((b[7] & 0xf8) == 0xd0 || (b[7] & 0xf8) == 0x10)) ||
           (b[5] == 0xff && ((b[6] & 0xf8) == 0x50 || b[6] == 0x14)) ||
           (b[4] == 0xff && b[5] == 0x54) ||
           (b[2] == 0xff && ((b[3] & 0xf8) == 0x90 || b[3] == 0x15)) ||
           (b[1] == 0xff && b[2] == 0x94);
}

static bool is_return_address(uintptr_t pc)
{
    if (!address_is_code(pc))
        return false;
    return (cfi_row_find(pc) & ROW_KIND_MASK) != ROW_BARE || call_stands_before(pc);
}

static enum walk_how step_guess(struct walk *w)
{
    uint64_t bp, pc;
    uintptr_t at = w->bp;
    if (at % 8 != 0 || at < w->sp || at - w->sp > FRAME_BYTES_MAX || !word_read(at, &bp) ||
        !word_read(at + 8, &pc) || !is_return_address(pc))
        return WALK_CUT;
    w->pc = pc;
    w->bp = bp;
    walk_move(w, at + 16);
    w->flags = HM_FRAME_GUESSED;
    return WALK_GUESS;
}

static enum walk_how step_drap(struct walk *w, uint32_t row)
{
    uint64_t cfa, pc, bp;
    uintptr_t at = w->bp - row_number(row);
    if (!word_read(at, &cfa) || !walk_reach(w, cfa) || !word_read(cfa - 8, &pc) ||
        !word_read(w->bp, &bp))
        return WALK_CUT;
    if (!address_is_code(pc))
        return WALK_CUT;
    w->pc = pc;
    w->bp = bp;
    w->sp = cfa;
    w->flags = 0;
    return WALK_DRAP;
}

static enum walk_how step_signal(struct walk *w)
{
    uint64_t pc, bp, sp;
    if (!word_read(w->sp + UCONTEXT_PC, &pc) || !word_read(w->sp + UCONTEXT_SP, &sp) ||
        !word_read(w->sp + UCONTEXT_BP, &bp))
        return WALK_CUT;
    if (pc == 0 || pc >> ROW_PC_BITS)
        return WALK_CUT;
    w->pc = pc;
    w->bp = bp;
    walk_move(w, sp);
    w->flags = HM_FRAME_EXACT;
    return WALK_SIGNAL;
}

/* One step with what registers there are. */
static enum walk_how step_registers(struct cfi_registers *registers, uint32_t *flags)
{
    struct cfi_image image;
    struct cfi_row row;
    bool signal;
    uintptr_t pc = registers->value[CFI_RA], sp = registers->value[CFI_SP];
    if (!cfi_row_full(pc, *flags & HM_FRAME_EXACT, &image, &row, &signal))
        return WALK_CUT;
    switch (cfi_step(&image, &row, word_read, registers)) {
    case CFI_STEPPED:
        break;
    case CFI_OUTERMOST:
        return WALK_END;
    case CFI_UNKNOWN:
        return WALK_BLIND;
    default:
        return WALK_CUT;
    }
    if (!signal && registers->value[CFI_SP] <= sp)
        return WALK_CUT;
    if (!address_is_code(registers->value[CFI_RA]))
        return registers->value[CFI_RA] == 0 ? WALK_END : WALK_CUT;
    *flags = signal ? HM_FRAME_EXACT : 0;
    return WALK_OPAQUE;
}

static enum walk_how step_slow(struct walk *w)
{
    struct cfi_registers registers = {.known = 1u << CFI_SP | 1u << CFI_BP | 1u << CFI_RA};
    uint32_t flags = w->flags;
    registers.value[CFI_SP] = w->sp;
    registers.value[CFI_BP] = w->bp;
    registers.value[CFI_RA] = w->pc;
    enum walk_how how = step_registers(&registers, &flags);
    if (how != WALK_OPAQUE)
        return how;
    if (!(registers.known >> CFI_BP & 1))
        return WALK_BLIND;
    w->pc = registers.value[CFI_RA];
    w->bp = registers.value[CFI_BP];
    w->flags = flags;
    walk_move(w, registers.value[CFI_SP]);
    return WALK_OPAQUE;
}

NOINLINE enum walk_how walk_step_rare(struct walk *w, uint32_t row)
{
    switch (row & ROW_KIND_MASK) {
    case ROW_DRAP:
        return step_drap(w, row);
    case ROW_SIGNAL:
        return step_signal(w);
    case ROW_END:
        return WALK_END;
    case ROW_BARE:
        return step_guess(w);
    default:
        return step_slow(w);
    }
}

/* ---- with all registers ---- */

/* A guess for code that nobody describes leaves the other registers unknown. */
static enum walk_how step_all(struct cfi_registers *registers, uint32_t *flags)
{
    const struct cfi_registers before = *registers;
    enum walk_how how = step_registers(registers, flags);
    uintptr_t pc = before.value[CFI_RA] - !(*flags & HM_FRAME_EXACT);
    if (how != WALK_CUT || (cfi_row_exact(pc) & ROW_KIND_MASK) != ROW_BARE)
        return how;
    struct walk w = {.pc = before.value[CFI_RA],
                     .sp = before.value[CFI_SP],
                     .bp = before.value[CFI_BP],
                     .flags = *flags};
    how = step_guess(&w);
    registers->known = 1u << CFI_SP | 1u << CFI_BP | 1u << CFI_RA;
    registers->value[CFI_RA] = w.pc;
    registers->value[CFI_SP] = w.sp;
    registers->value[CFI_BP] = w.bp;
    *flags = w.flags;
    return how;
}

/* Those that a function keeps for its caller, by their DWARF numbers. */
static inline __attribute__((always_inline)) void registers_here(struct cfi_registers *r)
{
#if defined(__x86_64__)
    __asm__ volatile("movq %%rbx, 24(%0)\n"
                     "movq %%rbp, 48(%0)\n"
                     "movq %%rsp, 56(%0)\n"
                     "movq %%r12, 96(%0)\n"
                     "movq %%r13, 104(%0)\n"
                     "movq %%r14, 112(%0)\n"
                     "movq %%r15, 120(%0)\n"
                     "leaq 0(%%rip), %%rax\n"
                     "movq %%rax, 128(%0)\n"
                     :
                     : "r"(r->value)
                     : "rax", "memory");
    r->known = 1u << 3 | 1u << CFI_BP | 1u << CFI_SP | 0xfu << 12 | 1u << CFI_RA;
#else
    r->known = 0;
#endif
}

NOINLINE uint32_t walk_with_all_registers(uintptr_t pc, uintptr_t sp, struct walk_step *steps,
                                          uint32_t capacity)
{
    struct cfi_registers registers = {0};
    uint32_t flags = 0, count = 0;
    registers_here(&registers);
    for (uint32_t own = 0; registers.value[CFI_RA] != pc || registers.value[CFI_SP] != sp; own++)
        if (own == OWN_FRAMES_MAX || step_registers(&registers, &flags) != WALK_OPAQUE)
            return 0;
    while (count < capacity) {
        struct walk_step *step = &steps[count++];
        *step = (struct walk_step){
            .pc = registers.value[CFI_RA],
            .sp = registers.value[CFI_SP],
            .bp = registers.value[CFI_BP],
            .row = stack_table_epoch(registers.value[CFI_RA] - 1) ? ROW_EPOCHED : 0,
            .flags = (uint8_t)flags};
        enum walk_how how = step_all(&registers, &flags);
        step->how = how == WALK_END ? WALK_END : WALK_OPAQUE;
        if (how >= WALK_END) {
            step->how = how == WALK_END ? WALK_END : WALK_CUT;
            return count;
        }
    }
    steps[count - 1].how = WALK_CUT;
    return count;
}
