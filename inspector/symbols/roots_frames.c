/*
 * Two frames that change what part of a stack counts: a signal's, and the one that called exit().
 *
 * A signal on an alternate stack leaves a frame there, made by the kernel: the address of the
 * restorer (code that only does the system call rt_sigreturn), then struct ucontext with the
 * interrupted registers and the alternate stack's bounds. The restorer is known by its bytes, not
 * by its name. Interrupted registers lie in the frame, so they are scanned with the stack.
 *
 * exit() never returns, and runs handlers in frames below its own. What its caller's callees had
 * left there is stale. So from a return address into exit() (behind a call instruction, whose frame
 * has a sane caller) only what lies above exit's frame is live. Without unwind information the
 * frame is taken to end at its return address slot: too much rather than too little.
 */
#include "symbols/roots_collect.h"

enum {
    UCONTEXT_STACK_START = 0x10,
    UCONTEXT_STACK_BYTES = 0x20,
    UCONTEXT_RSP = 0xa0,
    UCONTEXT_RIP = 0xa8,
    SIGNAL_SCAN_BYTES = 1 << 20,
};

struct signal_search {
    struct collector *c;
    struct signal_frame *frame;
    uint64_t not_restorers[16]; /* code addresses that were looked at lately */
    bool found;
};

static bool is_code(struct collector *c, hi_addr address)
{
    const struct mapping *mapping = target_mapping_at(c->target, address);
    return mapping && mapping->protection & MAPPING_EXECUTE;
}

static bool is_writable(struct collector *c, hi_addr address)
{
    const struct mapping *mapping = target_mapping_at(c->target, address);
    return mapping && mapping->protection & MAPPING_WRITE;
}

static bool is_restorer(struct signal_search *search, hi_addr address)
{
    /* mov $15, %rax; syscall, with the 32-bit immediate sign extended or not */
    static const unsigned char wide[] = {0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05};
    static const unsigned char narrow[] = {0xb8, 15, 0, 0, 0, 0x0f, 0x05};
    unsigned char code[sizeof wide];
    uint64_t *known = &search->not_restorers[(address >> 4 ^ address >> 12) % 16];
    if (address == *known || !is_code(search->c, address))
        return false;
    if (target_read(search->c->target, address, code, sizeof code, NULL) == HI_OK &&
        (memcmp(code, wide, sizeof wide) == 0 || memcmp(code, narrow, sizeof narrow) == 0))
        return true;
    *known = address;
    return false;
}

static bool see_signal_word(void *context, hi_addr address, uint64_t value)
{
    struct signal_search *search = context;
    struct collector *c = search->c;
    uint64_t ucontext[(UCONTEXT_RIP + 8) / 8];
    if (value < 4096 || address % 16 != 8 || !is_restorer(search, value) ||
        target_read(c->target, address + 8, ucontext, sizeof ucontext, NULL) != HI_OK)
        return true;
    hi_addr sp = ucontext[UCONTEXT_RSP / 8];
    if (!is_writable(c, sp) || !is_code(c, ucontext[UCONTEXT_RIP / 8]))
        return true;
    search->frame->sp = sp;
    hi_addr start = ucontext[UCONTEXT_STACK_START / 8];
    uint64_t bytes = ucontext[UCONTEXT_STACK_BYTES / 8];
    if (address >= start && address - start < bytes && bytes < UINT64_MAX - start)
        search->frame->stack = (struct hi_range){start, start + bytes};
    search->found = true;
    return false;
}

bool find_signal_frame(struct collector *c, struct hi_range stack, struct signal_frame *frame)
{
    struct signal_search search = {.c = c, .frame = frame};
    memset(frame, 0, sizeof *frame);
    if (stack.end - stack.start > SIGNAL_SCAN_BYTES)
        stack.end = stack.start + SIGNAL_SCAN_BYTES;
    collect_words_of(c, stack, see_signal_word, &search);
    return search.found;
}

/* -- exit() ------------------------------------------------------------------------------------*/

struct exit_search {
    struct collector *c;
    struct hi_range stack;
    hi_addr caller;
};

/* Does a call instruction end right before address? */
static bool follows_call(struct collector *c, hi_addr address)
{
    unsigned char code[8];
    if (address < 8 || target_read(c->target, address - 7, code, 7, NULL) != HI_OK)
        return false;
    if (code[2] == 0xe8) /* call rel32 */
        return true;
    for (size_t at = 0; at <= 5; at++) /* call *r/m: ff /2, two to seven bytes */
        if (code[at] == 0xff && (code[at + 1] & 0x38) == 0x10)
            return true;
    return false;
}

static bool see_exit_word(void *context, hi_addr address, uint64_t value)
{
    struct exit_search *search = context;
    struct collector *c = search->c;
    uint64_t caller;
    hi_addr cfa;
    /* the call is the function's last instruction: the return address may lie behind its end */
    if (value - 1 < c->exit_start || value - 1 >= c->exit_end || !follows_call(c, value))
        return true;
    if (symbols_frame_cfa(c->symbols, value, address + 8, &cfa, NULL) != HI_OK) {
        if (value == c->exit_end)
            return true; /* or the function behind it: AT_ENTRY stands on the first stack */
        search->caller = address + 8;
        return false;
    }
    if (cfa > search->stack.end || target_read_u64(c->target, cfa - 8, &caller, NULL) != HI_OK ||
        !is_code(c, caller) || !follows_call(c, caller))
        return true;
    search->caller = cfa;
    return false;
}

hi_addr find_exit_caller(struct collector *c, struct hi_range stack)
{
    struct exit_search search = {c, stack, stack.start};
    if (c->exit_end)
        collect_words_of(c, stack, see_exit_word, &search);
    return search.caller;
}
