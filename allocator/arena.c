/*
 * arena: what slabs, central state and stashes belong to.
 *
 * Automatic arenas keep threads apart: a program starts with one, and a thread that has met others
 * a few times on a central's lock moves to one with fewer threads, which is made when there are
 * fewer than cores; a new thread begins where the fewest are. What that saves is less the waiting
 * than the lines of the cache that blocks of two threads share. Blocks of automatic arenas may lie
 * in any thread's cache and in any automatic arena's stash; when they go home to a bitmap it is
 * under the lock of their own arena.
 *
 * A named arena is the program's: its slabs have codes of their own in the class map, which send
 * free() the slow way, so no block of it is ever cached and its slabs hold nothing else. Destroying
 * it frees what is left, slab by slab.
 *
 * Records are never unmapped: a reader may hold their address. One of a destroyed arena serves the
 * next one that is made. The table is protected by the registry lock.
 */
#include "arena.h"

#include "background.h"
#include "large.h"
#include "lock.h"
#include "pages.h"
#include "remark.h"
#include "size_class.h"
#include "slab.h"
#include "sweep.h"
#include "thread_cache.h"

#include <string.h>
#include <sys/syscall.h>

enum { STASH_BYTES = 64 << 10, STASH_LEAST = 8, STASH_MOST = 4096, MOST_AUTOMATIC = 64 };

static uint32_t core_count;

static uint32_t stash_capacity(uint32_t class_index)
{
    size_t n = STASH_BYTES / size_class_bytes(class_index);
    return (uint32_t)(n < STASH_LEAST ? STASH_LEAST : n > STASH_MOST ? STASH_MOST : n);
}

size_t arena_bytes(void)
{
    size_t words = 0;
    for (uint32_t c = 1; c <= CLASS_COUNT; c++)
        words += stash_capacity(c);
    return round_up(sizeof(struct hm_arena), 64) + words * sizeof(uint64_t);
}

/* Memory is zero. Only the small part is written: stashes are touched when they are used. */
static void arena_prepare(struct hm_arena *arena, uint32_t index, enum hm_arena_kind kind,
                          const char *name)
{
    char *stash = (char *)arena + round_up(sizeof(struct hm_arena), 64);
    for (uint32_t c = 1; c <= CLASS_COUNT; c++) {
        struct hm_central *central = &arena->centrals[c];
        *central =
            (struct hm_central){.stash_capacity = stash_capacity(c), .stash = (uintptr_t)stash};
        stash += central->stash_capacity * sizeof(uint64_t);
    }
    arena->index = index;
    arena->large_units = 0;
    memset(arena->name, 0, sizeof(arena->name));
    for (size_t i = 0; name && name[i] && i < sizeof(arena->name) - 1; i++)
        arena->name[i] = name[i];
    STORE_ORDER();
    arena->kind = kind;
}

void arena_start(char *memory)
{
    struct hm_root *root = hm_hot.root;
    arena_prepare((struct hm_arena *)memory, 0, HM_ARENA_AUTOMATIC, "");
    ((uint64_t *)(uintptr_t)root->arenas)[0] = (uintptr_t)memory;
    STORE_ORDER();
    root->arena_count = 1;
    hm_hot.auto_arena_count = 1;
}

/* A record that is free, or a new entry; the registry lock is held. NULL: no room. */
static struct hm_arena *arena_record(uint32_t *index)
{
    struct hm_root *root = hm_hot.root;
    for (uint32_t i = 0; i < root->arena_count; i++)
        if (arena_at(i)->kind == HM_ARENA_GONE) {
            *index = i;
            return arena_at(i);
        }
    if (root->arena_count >= HM_ARENA_CAPACITY)
        return NULL;
    *index = root->arena_count;
    return pages_map(round_up(arena_bytes(), PAGE_BYTES));
}

uint32_t arena_create(enum hm_arena_kind kind, const char *name, uint32_t tid, bool *ok)
{
    struct hm_root *root = hm_hot.root;
    uint32_t index = 0;
    *ok = false;
    if (!lock_acquire(&root->registry_lock, tid))
        return 0;
    struct hm_arena *arena = arena_record(&index);
    if (arena) {
        arena_prepare(arena, index, kind, name);
        ((uint64_t *)(uintptr_t)root->arenas)[index] = (uintptr_t)arena;
        STORE_ORDER();
        if (index == root->arena_count)
            __atomic_store_n(&root->arena_count, index + 1, __ATOMIC_RELEASE);
        if (kind == HM_ARENA_AUTOMATIC)
            hm_hot.auto_arena_count++;
        *ok = true;
    }
    lock_release(&root->registry_lock);
    return index;
}

static uint32_t cores(void)
{
    if (!core_count) {
        uint64_t mask[128];
        long bytes = pages_syscall(SYS_sched_getaffinity, 0, sizeof(mask), (long)mask, 0, 0, 0);
        uint32_t n = 0;
        for (long i = 0; i < bytes / 8; i++)
            n += (uint32_t)__builtin_popcountll(mask[i]);
        core_count = n == 0 ? 1 : n > MOST_AUTOMATIC ? MOST_AUTOMATIC : n;
    }
    return core_count;
}

static uint32_t threads_in(uint32_t arena)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < hm_hot.root->thread_count; i++)
        n += thread_at(i)->tid != 0 && thread_at(i)->arena == arena;
    return n;
}

uint32_t arena_least_used(void)
{
    uint32_t best = 0, least = UINT32_MAX;
    for (uint32_t i = 0; i < hm_hot.root->arena_count && hm_hot.auto_arena_count > 1; i++) {
        uint32_t n = arena_at(i)->kind == HM_ARENA_AUTOMATIC ? threads_in(i) : UINT32_MAX;
        best = n < least ? i : best;
        least = n < least ? n : least;
    }
    return best;
}

uint32_t arena_next(uint32_t current, uint32_t tid)
{
    uint32_t here = threads_in(current), best = arena_least_used();
    bool ok = false;
    if (here > 1 && threads_in(best) > 0 && hm_hot.auto_arena_count < cores()) {
        uint32_t made = arena_create(HM_ARENA_AUTOMATIC, "", tid, &ok);
        if (ok)
            return made;
    }
    return threads_in(best) + 1 < here ? best : current;
}

/* Large blocks and slabs of the arena in one range become free, each by one store. */
static void arena_empty_range(struct hm_range *r, uint32_t arena)
{
    for (uint32_t u = 0; u < r->top_index; u++) {
        struct hm_unit *first = range_units(r) + u;
        uint8_t code = range_codes(r)[u];
        bool named_slab = code >= CODE_NAMED && code < CODE_NAMED + CLASS_COUNT && first->head == u;
        if ((named_slab || code == CODE_LARGE_HEAD) && first->arena == arena) {
            uint32_t count = first->unit_count;
            if (named_slab) {
                note_forget_slab(r, first);
                sweep_forget(first);
            } else {
                note_set_large(r, u, NULL);
            }
            span_give(r, u, count);
            u += count - 1;
        }
    }
}

/* What was said of its blocks. */
static void arena_forget_remarks(uint32_t arena)
{
    for (uint32_t i = 0; i < hm_hot.root->remark_count; i++) {
        const struct hm_remark *remark = (struct hm_remark *)(uintptr_t)hm_hot.root->remarks + i;
        const void *p = (const void *)(uintptr_t)remark->address;
        if (remark->kind == HM_REMARK_IGNORE || remark->kind == HM_REMARK_TAG) {
            struct block_place place = block_locate(p);
            if (place.state != BLOCK_NONE && place.arena == arena)
                remark_forget(p);
        }
    }
}

/* Nobody sweeps its slabs while they go. The program is elsewhere by now; a lock that this very
 * thread holds stays with whom a signal handler interrupted. */
static void centrals_lock(struct hm_arena *arena, uint32_t tid, bool held[HM_CLASS_SLOTS])
{
    for (uint32_t c = 1; c <= CLASS_COUNT; c++)
        held[c] = lock_acquire(&arena->centrals[c].lock, tid);
}

static void centrals_unlock(struct hm_arena *arena, const bool held[HM_CLASS_SLOTS])
{
    for (uint32_t c = 1; c <= CLASS_COUNT; c++)
        if (held[c])
            lock_release(&arena->centrals[c].lock);
}

void arena_destroy(uint32_t index, uint32_t tid)
{
    struct hm_arena *arena = arena_at(index);
    bool held[HM_CLASS_SLOTS];
    arena_forget_remarks(index);
    centrals_lock(arena, tid, held);
    if (span_lock(tid)) {
        for (uint32_t i = 0; i < hm_hot.root->range_count; i++)
            arena_empty_range(range_at(i), index);
        span_unlock();
    }
    centrals_unlock(arena, held);
    large_release_bigs(index, tid);
    if (lock_acquire(&hm_hot.root->registry_lock, tid)) {
        arena->kind = HM_ARENA_GONE;
        lock_release(&hm_hot.root->registry_lock);
    }
    background_settle();
}
