/*
 * stacks: whether and of which blocks it is kept who allocated them.
 *
 * off      nobody asks.
 * sampled  some allocations are picked (sampler.c). Small ones come from an arena of their own
 * then, whose slabs have codes that send free the slow way; so nothing else of the program's frees
 * has to be looked at. Large blocks, and those of named arenas, stay what they are. full tracing:
 * every allocation and every free goes the slow way and is noted. malloc, as each thread's `self`
 * stays the empty record (thread_leave); free, as hm_hot.fast_bytes is 0. The slow way uses the
 * caches all the same.
 *
 * The tables are made when the first stack is taken: a program that never gets that far has none.
 *
 * Beginning to trace, other threads go on with the fast path for a while: malloc until their next
 * slow call, free at once. What they get so is out of caches that were filled before, so its notes
 * are 0, since all are forgotten after `tracing` is stored and before a reader is told of the mode.
 * Whoever sees a block that was traced sees `tracing` (stores are seen in order), notes its free,
 * and leaves the fast path at that. Ending, the reader is told first.
 */
#include "stacks.h"

#include "arena.h"
#include "lock.h"
#include "note.h"
#include "sampler.h"
#include "thread_cache.h"

static uint32_t stacks_lock;
static uint8_t ready, refused;
static uint32_t arenas[HM_ARENA_IGNORED + 1]; /* by kind */

static bool tables_make(void)
{
    if (!ready && !refused) {
        if (note_start(thread_id()) && call_stack_start(hm_hot.stacks_mode, hm_hot.sample_bytes))
            __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
        else
            refused = 1;
    }
    return ready;
}

static bool stacks_ready(void)
{
    if (LIKELY(__atomic_load_n(&ready, __ATOMIC_ACQUIRE)))
        return true;
    if (refused || !lock_acquire(&stacks_lock, thread_id()))
        return false;
    bool made = tables_make();
    lock_release(&stacks_lock);
    return made;
}

uint32_t stacks_capture(const struct call_site *site)
{
    return stacks_ready() ? call_stack_capture(site) : 0;
}

uint32_t stacks_take(size_t bytes, const struct call_site *site)
{
    return hm_hot.tracing || sampler_take(bytes) ? stacks_capture(site) : 0;
}

uint32_t stacks_arena(enum hm_arena_kind kind)
{
    uint32_t made = __atomic_load_n(&arenas[kind], __ATOMIC_ACQUIRE);
    if (LIKELY(made != 0))
        return made;
    bool ok = false;
    uint32_t tid = thread_id();
    if (!lock_acquire(&stacks_lock, tid))
        return 0;
    if (!arenas[kind]) {
        made = arena_create(kind, kind == HM_ARENA_SAMPLED ? "sampled" : "ignored", tid, &ok);
        if (ok)
            __atomic_store_n(&arenas[kind], made, __ATOMIC_RELEASE);
    }
    made = arenas[kind];
    lock_release(&stacks_lock);
    return made;
}

/* ---- modes ---- */

static void trace_begin(void)
{
    __atomic_store_n(&hm_hot.tracing, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&hm_hot.fast_bytes, 0, __ATOMIC_SEQ_CST);
    note_forget_all(thread_id());
}

static void trace_end(void)
{
    __atomic_store_n(&hm_hot.tracing, 0, __ATOMIC_SEQ_CST);
    note_forget_all(thread_id());
    __atomic_store_n(&hm_hot.fast_bytes, hm_hot.bytes, __ATOMIC_RELEASE);
}

static bool mode_store(uint32_t mode, uint64_t sample_bytes)
{
    if (mode == HM_STACKS_FULL && !tables_make())
        return false;
    if (mode == HM_STACKS_FULL && !hm_hot.tracing)
        trace_begin();
    if (sample_bytes)
        hm_hot.sample_bytes = min_u64(sample_bytes, SAMPLE_BYTES_MOST);
    hm_hot.stacks_mode = (uint8_t)mode;
    __atomic_store_n(&hm_hot.stacks_turn, hm_hot.stacks_turn + 1, __ATOMIC_RELEASE);
    if (ready && !call_stack_start(mode, hm_hot.sample_bytes))
        return false;
    if (mode != HM_STACKS_FULL && hm_hot.tracing)
        trace_end();
    return true;
}

bool stacks_set(uint32_t mode, uint64_t sample_bytes)
{
    if (!lock_acquire(&stacks_lock, thread_id()))
        return false;
    bool stored = mode_store(mode, sample_bytes);
    lock_release(&stacks_lock);
    thread_cache_look();
    return stored;
}

void stacks_forked(uint32_t old_tid, uint32_t tid)
{
    uint32_t owner = stacks_lock & LOCK_OWNER_MASK;
    stacks_lock = owner == old_tid && owner != 0 ? tid : 0;
}
