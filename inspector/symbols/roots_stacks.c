/*
 * Stacks and TLS.
 *
 * A thread's own stack: what struct pthread says (stackblock), for the main thread the mapping that
 * holds what the kernel put there (AT_RANDOM), else the mapping of its SP, cut where the record
 * ends. In it:
 *
 *     low  | guard | dead .......... | live .......... | static TLS | struct pthread | end
 *                               SP - 128 ^         TLS start ^
 *
 * The dead part is claimed (no root, no node). A thread of a bare clone has only what
 * lies between its SP and its TLS; when more follows than a TLS needs, that is a node, held by the
 * TLS. SP elsewhere: a signal handler on an alternate stack, or a coroutine. That foreign stack
 * counts from SP to its end. Its signal frame, when it has one, leads to the interrupted SP and so
 * back to the own stack (or to another foreign one: at most eight times). A coroutine leads
 * nowhere: nobody knows where the own stack was left, so all of it counts. A foreign stack may lie
 * in a heap block, which is then held by SP, wherever that points inside.
 *
 * TLS of the main thread lies in memory that the dynamic linker (or sbrk, when static) gave, beside
 * other things of theirs; it reaches from the lowest static block to the end of the record.
 */
#include "symbols/roots_collect.h"

#include <elf.h>

enum {
    RED_ZONE_BYTES = 128,
    FOREIGN_MAX_DEPTH = 8,
    FOREIGN_MAX_BYTES = 8 << 20,
    TOP_MAX_BYTES = 0x4000,
    TLS_SURPLUS_BYTES = 4096, /* for libraries loaded later that ask for static TLS */
};

static bool holds(struct hi_range range, hi_addr address)
{
    return address >= range.start && address < range.end;
}

static struct hi_range mapping_range(struct collector *c, hi_addr address)
{
    const struct mapping *mapping = target_mapping_at(c->target, address);
    return mapping ? (struct hi_range){mapping->start, mapping->end} : (struct hi_range){0, 0};
}

static struct hi_range own_stack(struct collector *c, const struct thread *thread,
                                 const struct pthread *record)
{
    uint64_t random;
    struct hi_range range = {0, 0};
    if (record && record->stack.start < record->stack.end)
        return record->stack;
    if (thread->tid == target_pid(c->target) && target_auxv(c->target, AT_RANDOM, &random))
        range = mapping_range(c, random);
    if (range.start < range.end)
        return range;
    range = mapping_range(c, thread->sp);
    /* neighbours may have been merged into one mapping: the record is the stack's end */
    if (record && record->address > thread->sp && holds(range, record->address) &&
        record->address + c->layout.size < range.end) {
        hi_addr end = (record->address + c->layout.size + 0xfff) & ~0xfffull;
        range.end = end < range.end ? end : range.end;
    }
    return range;
}

/* -- TLS ---------------------------------------------------------------------------------------*/

static struct hi_range tls_range(struct collector *c, const struct thread *thread,
                                 const struct pthread *record)
{
    hi_addr at = thread->fs_base;
    struct hi_range all = mapping_range(c, at), tls;
    tls.start = at - c->static_tls_bytes - TLS_SURPLUS_BYTES;
    tls.end = at + c->layout.size;
    if (record && record->stack.start < record->stack.end) {
        all = record->stack;
        tls.start = record->tls_start;
        tls.end = all.end;
    } else if (thread->sp > all.start && thread->sp < at) {
        /* a thread's TLS lies above its stack; what modules ask for says how far down at most */
        tls.start = at - c->static_tls_bytes > thread->sp ? at - c->static_tls_bytes : thread->sp;
        tls.end = at + TOP_MAX_BYTES; /* other C libraries keep more above their record */
    }
    if (tls.start < all.start || tls.start > at)
        tls.start = all.start;
    if (tls.end > all.end)
        tls.end = all.end;
    return tls;
}

static void collect_tls(struct collector *c, const struct thread *thread,
                        const struct pthread *record)
{
    if (!thread->fs_base)
        return;
    struct hi_range tls = tls_range(c, thread, record);
    collect_range(c, ROOT_TLS, tls.start, tls.end, thread->tid, NULL);
    collect_claim(c, tls.start, tls.end);
    collect_word(c, ROOT_KEPT, thread->fs_base, thread->tid, "thread control block");
}

/* -- stacks ------------------------------------------------------------------------------------*/

static void collect_own(struct collector *c, const struct thread *thread, struct hi_range own,
                        hi_addr sp, hi_addr tls_start)
{
    struct hi_range live = {sp - RED_ZONE_BYTES, own.end};
    if (live.start < own.start)
        live.start = own.start;
    if (holds(live, tls_start))
        live.end = tls_start;
    live.start = find_exit_caller(c, live);
    collect_range(c, ROOT_STACK, live.start, live.end, thread->tid, NULL);
}

/* From SP to the end of a stack that is not the thread's own; *sp becomes what a signal had
 * interrupted, or 0. */
static void collect_foreign(struct collector *c, const struct thread *thread, hi_addr *sp)
{
    struct signal_frame frame;
    struct hi_range all = mapping_range(c, *sp);
    struct hi_range live = {*sp - RED_ZONE_BYTES, all.end};
    if (live.start < all.start)
        live.start = all.start;
    if (live.end - live.start > FOREIGN_MAX_BYTES)
        live.end = live.start + FOREIGN_MAX_BYTES;
    bool interrupted = all.end && find_signal_frame(c, live, &frame);
    if (interrupted && holds(frame.stack, *sp)) {
        live.end = frame.stack.end < live.end ? frame.stack.end : live.end;
        collect_claim(c, frame.stack.start, live.end);
    }
    collect_range(c, ROOT_STACK, live.start, live.end, thread->tid, NULL);
    collect_claim(c, live.start, live.end);
    collect_word(c, ROOT_KEPT, *sp, thread->tid, "stack in use");
    *sp = interrupted ? frame.sp : 0;
}

/* Of a thread whose stack no C library knows: the mapping around SP may be many, joined by the
 * kernel. What is neither below its TLS nor above SP stays a node. */
static struct hi_range unknown_stack(const struct thread *thread, struct hi_range mapping,
                                     hi_addr tls)
{
    struct hi_range own = {thread->sp - RED_ZONE_BYTES, mapping.end};
    if (own.start < mapping.start)
        own.start = mapping.start;
    if (holds(mapping, tls) && tls >= thread->sp)
        own.end = tls;
    else if (own.end - own.start > FOREIGN_MAX_BYTES)
        own.end = own.start + FOREIGN_MAX_BYTES;
    return own;
}

static void collect_thread(struct collector *c, const struct thread *thread)
{
    const struct pthread *record = pthread_at(c, thread->fs_base);
    struct hi_range own = own_stack(c, thread, record);
    hi_addr sp = thread->sp, tls = tls_range(c, thread, record).start;
    bool known = record && record->stack.start < record->stack.end;
    bool bare = !known && thread->tid != target_pid(c->target) && holds(own, sp);
    if (bare)
        own = unknown_stack(thread, own, tls);
    for (int depth = 0; sp && !holds(own, sp) && depth < FOREIGN_MAX_DEPTH; depth++)
        collect_foreign(c, thread, &sp);
    if (holds(own, sp))
        collect_own(c, thread, own, sp, tls);
    else
        collect_range(c, ROOT_STACK, own.start, holds(own, tls) ? tls : own.end, thread->tid, NULL);
    collect_claim(c, own.start, own.end);
    hi_addr end = mapping_range(c, thread->fs_base).end;
    if (bare && end > thread->fs_base && end - thread->fs_base > TOP_MAX_BYTES)
        collect_word(c, ROOT_KEPT, thread->fs_base, thread->tid, "thread control block");
    else
        collect_tls(c, thread, record);
    if (known)
        collect_word(c, ROOT_KEPT, thread->sp, thread->tid, "stack in use");
}

/* -- threads that are not there ----------------------------------------------------------------*/

/* Without a known stack (the main thread has none of its own) only TLS and record are anybody's. */
static void collect_other_stack(struct collector *c, const struct pthread *record)
{
    struct hi_range range = record->stack;
    bool has_stack = range.start < range.end, lives = record->state == PTHREAD_UNKNOWN;
    if (!has_stack)
        range = (struct hi_range){lives ? record->tls_start : record->address,
                                  record->address + c->layout.size};
    if (!lives)
        return collect_dead(c, range.start, range.end);
    collect_range(c, has_stack ? ROOT_STACK : ROOT_TLS, range.start, range.end, record->tid, NULL);
    collect_claim(c, range.start, range.end);
}

/* It is there, as a thread or by its record, and no record without a stack says that it ended. */
static bool main_is_unknown(const struct collector *c)
{
    bool listed = false;
    for (size_t i = 0; i < target_thread_count(c->target); i++)
        listed |= target_thread(c->target, i)->tid == target_pid(c->target);
    for (size_t i = 0; i < c->pthreads.count; i++) {
        const struct pthread *record = &c->pthreads.items[i];
        if (record->stack.start < record->stack.end || record->state == PTHREAD_LIVE)
            continue;
        if (record->state == PTHREAD_UNKNOWN)
            return true;
        listed = false;
    }
    return listed;
}

/* The main thread has no registers. When its record says that it lives, all of its stack counts.
 * Else it has ended while others live on; what the kernel and setenv put at the stack's top is
 * still in use: from environ on. */
static void collect_orphaned_main(struct collector *c)
{
    uint64_t random, environ_address;
    struct symbol symbol;
    if (!target_auxv(c->target, AT_RANDOM, &random))
        return;
    struct hi_range stack = mapping_range(c, random);
    bool known = symbols_find(c->symbols, SYMBOLS_ANY_MODULE, "environ", &symbol, NULL) == HI_OK &&
                 target_read_u64(c->target, symbol.address, &environ_address, NULL) == HI_OK &&
                 holds(stack, environ_address);
    hi_addr start = main_is_unknown(c) ? stack.start : known ? environ_address : random;
    collect_range(c, ROOT_STACK, start, stack.end, target_pid(c->target), NULL);
    collect_claim(c, stack.start, stack.end);
}

void collect_stacks(struct collector *c)
{
    bool main_lives = false;
    for (size_t i = 0; i < target_thread_count(c->target); i++) {
        const struct thread *thread = target_thread(c->target, i);
        if (!thread->has_registers)
            continue;
        collect_thread(c, thread);
        main_lives |= thread->tid == target_pid(c->target);
    }
    for (size_t i = 0; i < c->pthreads.count; i++)
        if (c->pthreads.items[i].state != PTHREAD_LIVE)
            collect_other_stack(c, &c->pthreads.items[i]);
    if (!main_lives)
        collect_orphaned_main(c);
}
