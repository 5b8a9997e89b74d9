/*
 * A walk by canonical frame addresses, from each thread's pc and sp: CFA of the frame, the return
 * address just below it, and on. Where the tables say nothing (no .eh_frame, damaged), the next
 * word that looks like a return address (into a function, behind a call instruction) is taken: the
 * frame then may be one too long, never an invention. Bounded by frames a thread and words a gap.
 */
#include "analysis/stack_frames.h"

enum { FRAMES_MOST = 256, GAP_WORDS = 2048, CALL_BYTES_MOST = 7 };

static bool is_executable(struct target *target, hi_addr pc)
{
    const struct mapping *mapping = target_mapping_at(target, pc);
    return mapping && mapping->protection & MAPPING_EXECUTE;
}

/* Do the bytes before pc end in a call? E8 rel32, or FF /2 in 2..7 bytes. */
static bool follows_call(struct target *target, hi_addr pc)
{
    unsigned char bytes[CALL_BYTES_MOST];
    struct hi_err err;
    if (pc < CALL_BYTES_MOST ||
        target_read(target, pc - CALL_BYTES_MOST, bytes, sizeof bytes, &err) != HI_OK)
        return false;
    if (bytes[CALL_BYTES_MOST - 5] == 0xe8)
        return true;
    for (unsigned length = 2; length <= CALL_BYTES_MOST; length++) {
        const unsigned char *op = bytes + CALL_BYTES_MOST - length;
        if (op[0] == 0xff && (op[1] & 0x38) == 0x10)
            return true;
    }
    return false;
}

static bool search_return(struct target *target, hi_addr from, hi_addr *slot)
{
    uint64_t words[GAP_WORDS];
    size_t count = target_read_some(target, from, words, sizeof words) / sizeof words[0];
    for (size_t i = 0; i < count; i++)
        if (is_executable(target, words[i]) && follows_call(target, words[i])) {
            *slot = from + i * sizeof words[0];
            return true;
        }
    return false;
}

/* The slot of the return address of the frame at (pc, sp). */
static bool find_slot(struct target *target, struct symbols *symbols, hi_addr pc, hi_addr sp,
                      hi_addr *slot)
{
    hi_addr cfa;
    uint64_t word;
    struct hi_err err;
    if (symbols_frame_cfa(symbols, pc, sp, &cfa, &err) == HI_OK && cfa > sp &&
        cfa - sp < UINT64_C(1) << 30 && cfa % 8 == 0 &&
        target_read_u64(target, cfa - 8, &word, &err) == HI_OK && is_executable(target, word)) {
        *slot = cfa - 8;
        return true;
    }
    return search_return(target, sp & ~(hi_addr)7, slot);
}

static enum hi_code walk(struct stack_frames *frames, struct target *target,
                         struct symbols *symbols, const struct thread *thread, struct hi_err *err)
{
    hi_addr pc = thread->pc, sp = thread->sp, slot;
    for (unsigned i = 0; i < FRAMES_MOST; i++) {
        bool more = find_slot(target, symbols, pc, sp, &slot);
        if (!more)
            return HI_OK;
        struct stack_frame *frame = VECTOR_PUSH(&frames->frames);
        if (!frame)
            return hi_no_memory(err);
        *frame = (struct stack_frame){.start = sp, .end = slot + 8, .pc = pc, .tid = thread->tid};
        if (target_read_u64(target, slot, &pc, err) != HI_OK)
            return HI_OK;
        sp = slot + 8;
    }
    return HI_OK;
}

static int compare(const void *a, const void *b)
{
    const struct stack_frame *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

enum hi_code stack_frames_collect(struct stack_frames *frames, struct target *target,
                                  struct symbols *symbols, struct hi_err *err)
{
    enum hi_code code = HI_OK;
    memset(frames, 0, sizeof *frames);
    for (size_t i = 0; i < target_thread_count(target) && code == HI_OK; i++) {
        const struct thread *thread = target_thread(target, i);
        if (thread->has_registers && thread->sp)
            code = walk(frames, target, symbols, thread, err);
    }
    if (frames->frames.count)
        qsort(frames->frames.items, frames->frames.count, sizeof *frames->frames.items, compare);
    return code;
}

void stack_frames_free(struct stack_frames *frames)
{
    VECTOR_FREE(&frames->frames);
}

const struct stack_frame *stack_frames_at(const struct stack_frames *frames, hi_addr address)
{
    size_t low = 0, high = frames->frames.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (frames->frames.items[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || address >= frames->frames.items[low - 1].end)
        return NULL;
    return &frames->frames.items[low - 1];
}
