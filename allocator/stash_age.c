/*
 * stash_age: what lies in stashes goes home to its slabs when it was not needed for a while.
 *
 * A stash (thread_cache.c) is a stack: fills take from its top, flushes put there. Its lowest level
 * since the last call, stash_low, says how many entries nobody needed meanwhile: those, at the
 * bottom, are the oldest. They go home run by run, each run to the arena that its blocks come from;
 * entries above move down. A block is set free in its slab before it leaves the stash, so that it
 * is free in one of the two at any instant.
 *
 * Locks. The stash's own, and in it that of the home, which is only tried: one that is busy is
 * asked again in the next call.
 */
#include "thread_cache.h"

#include "arena.h"
#include "lock.h"
#include "size_class.h"
#include "slab.h"

/* Of the n lowest entries of a stash, the first ones that have the same home go there. How many: 0
 * when that home is busy. */
static uint32_t stash_give_run(struct hm_central *central, uint32_t arena, uint32_t class_index,
                               uint32_t n, uint32_t tid)
{
    volatile uint64_t *stash = stash_of(central);
    uint32_t home = slab_home((void *)(uintptr_t)stash[0]), run = 1;
    struct hm_central *target = slab_central(home, class_index);
    while (run < n && slab_home((void *)(uintptr_t)stash[run]) == home)
        run++;
    if (home != arena && !lock_try(&target->lock, tid))
        return 0;
    bool given = slab_give(target, stash_of(central), run) == NULL;
    if (given) {
        for (uint32_t i = run; i < central->stash_count; i++)
            stash[i - run] = stash[i];
        STORE_ORDER();
        central->stash_count -= run;
        STORE_ORDER();
        slab_release_spare(target, tid, true);
    }
    if (home != arena)
        lock_release(&target->lock);
    return given ? run : 0;
}

static uint32_t stash_give(struct hm_central *central, uint32_t arena, uint32_t class_index,
                           uint32_t n, uint32_t tid)
{
    uint32_t given = 0, run = 1;
    while (given < n && run > 0) {
        run = stash_give_run(central, arena, class_index, n - given, tid);
        given += run;
    }
    return given;
}

static bool central_age(uint32_t arena, uint32_t class_index, uint32_t tid, bool all)
{
    struct hm_central *central = slab_central(arena, class_index);
    if (central->stash_count == 0 && central->slab_count == 0)
        return false;
    if (!lock_try(&central->lock, tid))
        return true;
    uint32_t n = all ? central->stash_count : central->stash_low;
    uint32_t given = n ? stash_give(central, arena, class_index, n, tid) : 0;
    if (n == 0)
        slab_release_spare(central, tid, true);
    central->stash_low = central->stash_count;
    lock_release(&central->lock);
    return given != 0;
}

bool stash_age(uint32_t tid, bool all)
{
    bool more = false;
    for (uint32_t a = 0; a < hm_hot.root->arena_count; a++)
        for (uint32_t c = 1; c <= CLASS_COUNT && arena_at(a)->kind == HM_ARENA_AUTOMATIC; c++)
            more |= central_age(a, c, tid, all);
    return more;
}
