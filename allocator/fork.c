/*
 * fork: a child of a threaded program goes on allocating.
 *
 * Nothing is done before fork: no lock is taken, so fork cannot wait, also not when a signal
 * handler that interrupted malloc calls it. The child's memory is what a stopped process would
 * show: while the kernel copies the page table, a thread that writes to a page already copied
 * either writes to the memory that both still share, or waits until the copying is over; so the
 * child sees each other thread's stores up to some instruction and none after it, and what one
 * thread saw of another is there as well. That is the very state which the format promises to be
 * readable.
 *
 * So the child looks at the locks. One held by its own thread (fork out of a signal handler) stays
 * held, under its new id: the interrupted call will go on. One held by a thread that did not come
 * along is opened, and what it protected is made anew from class map and bitmaps. The caches of
 * those threads are left alone until the child first takes a slow path: a child that only calls
 * exec never pays for them. A child of a signal handler inside malloc leaves them for good: their
 * blocks are lost to it, and nothing else is.
 */
#include "state.h"

#include "background.h"
#include "call_stack.h"
#include "lock.h"
#include "pages.h"
#include "pocket.h"
#include "slab.h"
#include "stacks.h"
#include "thread_cache.h"

#include <pthread.h>

/* True when it was held by a thread that is not here. */
static bool lock_inherit(uint32_t *lock, uint32_t old_tid, uint32_t tid)
{
    uint32_t owner = *lock & LOCK_OWNER_MASK;
    if (owner == 0)
        return false;
    *lock = owner == old_tid ? tid : 0;
    return owner != old_tid;
}

static bool centrals_inherit(uint32_t old_tid, uint32_t tid)
{
    bool gone = false;
    for (uint32_t a = 0; a < hm_hot.root->arena_count; a++)
        for (uint32_t c = 1; c <= CLASS_COUNT; c++)
            gone |= lock_inherit(&slab_central(a, c)->lock, old_tid, tid);
    return gone;
}

static void fork_child(void)
{
    struct hm_root *root = hm_hot.root;
    if (!root)
        return;
    uint32_t tid = pages_thread_id();
    uint32_t old_tid = hm_tls.tid ? hm_tls.tid : LOCK_OWNER_MASK; /* 0: it never allocated */
    hm_tls.tid = tid;
    if (hm_tls.record)
        hm_tls.record->tid = tid;
    call_stack_forked();
    stacks_forked(old_tid, tid);
    bool alone =
        root->thread_count <= 1 && root->helper_tid == 0 && hm_hot.check_mode != CHECK_FULL;
    if (alone && hm_tls.state != THREAD_BUSY)
        return;
    background_forked();
    lock_inherit(&root->registry_lock, old_tid, tid);
    if (lock_inherit(&root->span_lock, old_tid, tid)) {
        span_rebuild(hm_tls.record && hm_tls.record->pocket_open);
        pocket_forget_all();
    }
    if (centrals_inherit(old_tid, tid))
        slab_rebuild();
    hm_hot.fork_pending = root->thread_count > 1 && hm_tls.state != THREAD_BUSY;
}

CONSTRUCTOR static void fork_register(void)
{
    pthread_atfork(NULL, NULL, fork_child);
}
