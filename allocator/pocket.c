/*
 * pocket: runs of units that a thread keeps for large blocks, without a lock.
 *
 * Most large blocks are buffers: freed, and soon asked for again by the same thread in much the
 * same size. A thread puts the units of a freed large block into its pocket, joined with a run that
 * they touch, and takes the next block from the shortest run that is long enough; what is left of
 * the run stays. The spans want two locks and some thirty stores to their lists for the same.
 *
 * Terms. A pocket is up to HM_POCKET_ENTRIES runs: pocket_start says range index << 32 | first
 * unit, pocket_length how many units, pocket_held their sum. It is "open" while its thread is at
 * it.
 *
 * Whose it is. Only the thread itself touches its pocket: plain loads and stores. A signal handler
 * on that thread finds it open and does without. The helper empties pockets that were not used for
 * a tick: it sets pocket_claim, has the kernel run a barrier on all threads (membarrier), and goes
 * on only if the pocket is not open then; its owner, having set pocket_open, looks at pocket_claim.
 * One of the two sees the other's word. Without that system call pockets are not emptied by age.
 *
 * Instant truth. Units in a pocket have code_large_rest and no head that covers them: free (format,
 * section 3). The spans take them for units in use. Nothing of a pocket matters to a reader. In a
 * forked child a pocket that was open is forgotten: its units are lost to the child.
 *
 * What a pocket holds is dirty memory outside of the budget of span.c, so it is little: 1.5 MiB for
 * the first thread, 256 KiB for others. A thread that must take units from the spans, for
 * a slab or for a block that no run of its pocket can hold, empties its pocket first: its units may
 * be what is missed, with their neighbours.
 */
#include "pocket.h"

#include "background.h"
#include "lock.h"
#include "pages.h"
#include "thread_cache.h"

enum {
    POCKET_UNITS = 24,
    POCKET_UNITS_LATER = 4, /* of all threads but the first */
    CUT_FROM = 4,           /* units: shorter blocks take a run of their own length, or none */
    HELPER_FROM = 32,       /* threads: their pockets may hold more than is left alone elsewhere */
};

static uint64_t start_of(const struct hm_range *r, uint32_t unit)
{
    return (uint64_t)(r - range_at(0)) << 32 | unit;
}

static void entry_cut(struct hm_thread *t, uint32_t entry, uint32_t units)
{
    uint32_t last = t->pocket_count - 1;
    t->pocket_held -= units;
    t->pocket_start[entry] += units;
    t->pocket_length[entry] -= units;
    if (t->pocket_length[entry] == 0) {
        t->pocket_start[entry] = t->pocket_start[last];
        t->pocket_length[entry] = t->pocket_length[last];
        t->pocket_count = last;
    }
}

/* ---- the thread's own ---- */

bool pocket_open(struct hm_thread *t)
{
    if (UNLIKELY(t->pocket_open))
        return false;
    t->pocket_open = 1;
    STORE_ORDER();
    if (UNLIKELY(__atomic_load_n(&t->pocket_claim, __ATOMIC_ACQUIRE))) {
        t->pocket_open = 0;
        return false;
    }
    t->pocket_uses++;
    return true;
}

void pocket_close(struct hm_thread *t)
{
    __atomic_store_n(&t->pocket_open, 0, __ATOMIC_RELEASE);
}

bool pocket_take(struct hm_thread *t, uint32_t units, uint32_t least, struct span *span)
{
    uint32_t best = 0, best_length = UINT32_MAX;
    for (uint32_t i = 0; i < t->pocket_count; i++)
        if (t->pocket_length[i] >= least && t->pocket_length[i] < best_length &&
            (units >= CUT_FROM || t->pocket_length[i] == units || least > units)) {
            best = i;
            best_length = t->pocket_length[i];
        }
    if (best_length == UINT32_MAX)
        return false;
    span->range_index = (uint32_t)(t->pocket_start[best] >> 32);
    span->range = range_at(span->range_index);
    span->unit = (uint32_t)t->pocket_start[best];
    span->count = units;
    span->zero = false;
    entry_cut(t, best, units);
    return true;
}

bool pocket_extend(struct hm_thread *t, const struct hm_range *r, uint32_t end, uint32_t extra)
{
    uint64_t start = start_of(r, end);
    for (uint32_t i = 0; i < t->pocket_count; i++)
        if (t->pocket_start[i] == start && t->pocket_length[i] >= extra) {
            entry_cut(t, i, extra);
            return true;
        }
    return false;
}

/* The entry that the units touch, or the next new one. */
static uint32_t entry_touched(const struct hm_thread *t, uint64_t start, uint32_t count)
{
    for (uint32_t i = 0; i < t->pocket_count; i++)
        if (t->pocket_start[i] == start + count ||
            t->pocket_start[i] + t->pocket_length[i] == start)
            return i;
    return t->pocket_count;
}

bool pocket_put(struct hm_thread *t, const struct hm_range *r, uint32_t unit, uint32_t count)
{
    uint32_t most = t->index == 0 ? POCKET_UNITS : POCKET_UNITS_LATER;
    uint64_t start = start_of(r, unit);
    uint32_t entry = entry_touched(t, start, count);
    if (t->pocket_held + count > most || entry == HM_POCKET_ENTRIES)
        return false;
    if (entry == t->pocket_count) {
        t->pocket_count++;
        t->pocket_start[entry] = start;
        t->pocket_length[entry] = 0;
    } else if (start < t->pocket_start[entry]) {
        t->pocket_start[entry] = start;
    }
    t->pocket_length[entry] += count;
    t->pocket_held += count;
    if (UNLIKELY(hm_hot.root->thread_count > HELPER_FROM))
        background_want();
    return true;
}

/* ---- back to the spans ---- */

static void runs_give(struct hm_thread *t)
{
    for (uint32_t i = 0; i < t->pocket_count; i++)
        span_give(range_at((uint32_t)(t->pocket_start[i] >> 32)), (uint32_t)t->pocket_start[i],
                  t->pocket_length[i]);
    t->pocket_count = t->pocket_held = 0;
}

void pocket_empty(void)
{
    struct hm_thread *t = hm_tls.record;
    if (!t || t->pocket_count == 0 || !pocket_open(t))
        return;
    runs_give(t);
    pocket_close(t);
}

void pocket_return(struct hm_thread *t, uint32_t tid)
{
    if (t->pocket_count == 0 || t->pocket_open || !span_lock(tid))
        return;
    if (pocket_open(t)) {
        runs_give(t);
        pocket_close(t);
    }
    span_unlock();
}

void pocket_forget_all(void)
{
    for (uint32_t i = 0; i < hm_hot.root->thread_count; i++) {
        struct hm_thread *t = thread_at(i);
        t->pocket_count = t->pocket_held = t->pocket_claim = 0;
    }
}

/* With the span lock held. */
static void pocket_claim(struct hm_thread *t)
{
    __atomic_store_n(&t->pocket_claim, 1, __ATOMIC_RELEASE);
    if (pages_barrier() && !__atomic_load_n(&t->pocket_open, __ATOMIC_ACQUIRE))
        runs_give(t);
    __atomic_store_n(&t->pocket_claim, 0, __ATOMIC_RELEASE);
}

bool pocket_age(uint32_t tid)
{
    bool left = false;
    for (uint32_t i = 0; i < hm_hot.root->thread_count; i++) {
        struct hm_thread *t = thread_at(i);
        if (t->pocket_count != 0 && t->pocket_uses == t->pocket_seen &&
            lock_try(&hm_hot.root->span_lock, tid)) {
            pocket_claim(t);
            span_unlock();
        }
        t->pocket_seen = t->pocket_uses;
        left |= t->pocket_count != 0;
    }
    return left;
}
