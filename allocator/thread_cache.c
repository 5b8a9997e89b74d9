/*
 * thread_cache: blocks that a thread keeps at hand.
 *
 * Terms. A bin is the cache of one class: a stack of block addresses in slots of the thread's own
 * mapping, growing downward from `empty` to `head`, which may come down to `full`; empty - full is
 * its capacity. The fast paths (malloc_entry.c) pop and push. When a bin is empty it is filled from
 * the stash of the thread's arena, or from slabs; when it is full, it grows, and when it may grow
 * no more, the older half is flushed: to the stash if that has room, else home to the bitmaps. When
 * it runs over again before it was ever filled, all of it is.
 *
 * Growth. A bin begins with no slots; a fill or overflow doubles its capacity, up to a limit of
 * bytes, so that a short program touches one page of slots. All bins of a thread together grow to
 * 256 KiB and a sixteenth of the heap; beyond that only those grow where an eighth of the thread's
 * misses are: a program that uses every size a little would keep more cached than live. Places are
 * cut from the mapping and not used again until the thread ends.
 *
 * Instant truth. Free are the slots [min(head, pend), empty), and the block in `hand`; the order of
 * the stores is in the format, section 5. Nothing here is done twice: while a slow path runs,
 * `self` is the empty record, so that a signal handler that allocates finds empty and full bins at
 * once, comes to thread_begin, sees BUSY and goes past the cache.
 *
 * Locks. One central's at a time. A flush to slabs of several arenas (when threads have moved, or
 * free each other's blocks) brings the blocks of one arena after the other to the old end of the
 * bin, through the hand.
 *
 * Thread end: a pthread key's destructor flushes, in the last of its rounds, so that later
 * destructors mostly still have a cache; what is freed after that goes straight to the bitmaps.
 */
#define _GNU_SOURCE
#include "thread_cache.h"

#include "arena.h"
#include "background.h"
#include "call_stack.h"
#include "die.h"
#include "lock.h"
#include "pages.h"
#include "pocket.h"
#include "remark.h"
#include "sampler.h"
#include "size_class.h"
#include "slab.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

enum {
    CACHE_BYTES = 64 << 10, /* of one class */
    CACHE_LEAST = 8,
    CACHE_MOST = 512,
    CACHE_FIRST = 4,
    CACHE_FREELY = 8 << 10,
    CACHE_ALL = 256 << 10, /* of all classes, and a sixteenth of the heap */
    MISS_WINDOW = 128,
    MISSES_LEAST = 8,
    MEETS_TO_MOVE = 4,
    END_ROUNDS = 3,
    LINE_BYTES = 64,
    SLOTS_CAPACITY = THREAD_MAPPING_BYTES / 8,
};

/* Never written: every path that would write to it finds it empty and full first. */
const struct hm_thread hm_no_thread;
__thread struct hm_tls hm_tls = {.self = (struct hm_thread *)&hm_no_thread};

static uint32_t *spare_threads; /* indices of records in no use, HM_THREAD_CAPACITY at most */
static uint32_t spare_count;
static bool first_is_spare;
static pthread_key_t end_key;
static uint8_t end_key_state; /* 0 not made, 1 made, 2 refused */

uint32_t thread_id(void)
{
    if (UNLIKELY(hm_tls.tid == 0))
        hm_tls.tid = pages_thread_id();
    return hm_tls.tid;
}

/* ---- records ---- */

static void bin_set_head(struct hm_bin *bin, uint32_t head)
{
    uint32_t word = window_word(&bin->window);
    window_set_word(&bin->window, word - (uint16_t)word + head);
}

/* Both ends in one store; in a build with another layout of the window, at least in order. */
static void window_store(struct hm_bin *bin, uint32_t head, uint32_t empty)
{
    struct hm_window window = {.head = (uint16_t)head, .ticks = bin->window.ticks, .empty = empty};
    STORE_ORDER();
    if (sizeof(window) == sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, &window, sizeof(word));
        __atomic_store_n((uint64_t *)(void *)&bin->window, word, __ATOMIC_RELAXED);
    } else {
        bin->window = window;
    }
    STORE_ORDER();
}

static void record_reset(struct hm_thread *t)
{
    for (uint32_t c = 0; c < HM_CLASS_SLOTS; c++) {
        window_store(&t->bins[c], 0, 0);
        t->bins[c].full = t->bins[c].pend = 0;
        t->bins[c].window.ticks = 0;
        t->sampled_at[c] = 0;
    }
    t->slots_used = (uint32_t)((sizeof(struct hm_thread) + 7) / 8);
    t->meets = t->miss_count = 0;
    t->capacity_bytes = 0;
    memset(t->misses, 0, sizeof(t->misses));
    memset(t->flushed, 0, sizeof(t->flushed));
    t->hand = 0;
}

static void table_add(struct hm_thread *t)
{
    struct hm_root *root = hm_hot.root;
    t->index = root->thread_count;
    ((uint64_t *)(uintptr_t)root->threads)[t->index] = (uintptr_t)t;
    __atomic_store_n(&root->thread_count, t->index + 1, __ATOMIC_RELEASE);
}

void thread_cache_start(char *memory, uint32_t *spare)
{
    spare_threads = spare;
    struct hm_thread *t = (struct hm_thread *)memory;
    t->mapping_bytes = THREAD_MAPPING_BYTES;
    record_reset(t);
    table_add(t);
    first_is_spare = true; /* without touching the list */
}

/* NULL: no room, or this thread is inside the registry already. */
static struct hm_thread *record_take(uint32_t tid)
{
    struct hm_root *root = hm_hot.root;
    struct hm_thread *t = NULL;
    if (!lock_acquire(&root->registry_lock, tid))
        return NULL;
    if (first_is_spare) {
        t = thread_at(0);
        first_is_spare = false;
    } else if (spare_count > 0) {
        t = thread_at(spare_threads[--spare_count]);
    } else if (root->thread_count < HM_THREAD_CAPACITY &&
               (t = pages_map(THREAD_MAPPING_BYTES)) != NULL) {
        t->mapping_bytes = THREAD_MAPPING_BYTES;
        record_reset(t);
        table_add(t);
    }
    if (t)
        t->tid = tid;
    lock_release(&root->registry_lock);
    return t;
}

static void record_give(struct hm_thread *t, uint32_t tid)
{
    if (!lock_acquire(&hm_hot.root->registry_lock, tid))
        return;
    record_reset(t);
    t->tid = 0;
    spare_threads[spare_count++] = t->index;
    lock_release(&hm_hot.root->registry_lock);
}

/* ---- thread start and end ---- */

static void thread_ended(void *value)
{
    static __thread uint32_t rounds;
    if (++rounds < END_ROUNDS && pthread_setspecific(end_key, value) == 0)
        return;
    thread_cache_flush(true);
}

static void end_key_make(void)
{
    uint8_t none = 0;
    if (!__atomic_compare_exchange_n(&end_key_state, &none, 3, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        return;
    int refused = pthread_key_create(&end_key, thread_ended);
    __atomic_store_n(&end_key_state, refused ? 2 : 1, __ATOMIC_RELEASE);
}

static bool thread_join_heap(void)
{
    uint32_t tid = thread_id();
    hm_tls.state = THREAD_BUSY; /* setspecific may allocate */
    struct hm_thread *t = hm_hot.check_mode == CHECK_FULL ? NULL : record_take(tid);
    if (!t) {
        hm_tls.state = THREAD_NONE;
        return false;
    }
    t->arena = arena_least_used();
    end_key_make();
    if (end_key_state == 1)
        pthread_setspecific(end_key, t);
    hm_tls.record = t;
    hm_tls.state = THREAD_LIVE;
    return true;
}

struct hm_thread *thread_record_new(void)
{
    if (root_start() && !hm_hot.fork_pending)
        thread_join_heap();
    return hm_tls.record;
}

/* The record, for this slow path alone; NULL: do without. Pairs with thread_leave. */
static struct hm_thread *thread_begin(void)
{
    if (UNLIKELY(hm_hot.fork_pending))
        thread_cache_recover();
    if (UNLIKELY(hm_tls.state != THREAD_LIVE)) {
        if (hm_tls.state != THREAD_NEW || !thread_join_heap())
            return NULL;
    }
    if (UNLIKELY(hm_tls.turn != hm_hot.stacks_turn))
        sampler_turn(hm_tls.record);
    hm_tls.state = THREAD_BUSY;
    STORE_ORDER();
    hm_tls.self = (struct hm_thread *)&hm_no_thread;
    STORE_ORDER();
    return hm_tls.record;
}

static void thread_leave(void)
{
    STORE_ORDER();
    hm_tls.state = THREAD_LIVE;
    STORE_ORDER();
    if (LIKELY(!thread_is_traced()))
        hm_tls.self = hm_tls.record;
}

void thread_cache_look(void)
{
    if (hm_tls.state != THREAD_LIVE)
        return;
    hm_tls.self = thread_is_traced() ? (struct hm_thread *)&hm_no_thread : hm_tls.record;
    if (hm_tls.turn != hm_hot.stacks_turn)
        sampler_turn(hm_tls.record);
}

/* ---- central state, locked ---- */

/* Locks the central of a class in the thread's arena, or, when this very thread is inside it
 * already, in another one. NULL: nowhere. */
static struct hm_central *central_lock(uint32_t *arena, uint32_t class_index, uint32_t tid)
{
    uint32_t count = hm_hot.root->arena_count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = (*arena + i) % count;
        if (arena_at(index)->kind != HM_ARENA_AUTOMATIC)
            continue;
        struct hm_central *central = slab_central(index, class_index);
        if (lock_acquire(&central->lock, tid)) {
            *arena = index;
            return central;
        }
    }
    bool ok;
    uint32_t made = arena_create(HM_ARENA_AUTOMATIC, "", tid, &ok);
    if (!ok || !lock_acquire(&slab_central(made, class_index)->lock, tid))
        return NULL;
    *arena = made;
    return slab_central(made, class_index);
}

/* The same for a thread with a record, which moves on when it meets others too often. */
static struct hm_central *thread_central_lock(struct hm_thread *t, uint32_t class_index,
                                              uint32_t *arena)
{
    uint32_t tid = hm_tls.tid;
    struct hm_central *central = slab_central(t->arena, class_index);
    *arena = t->arena;
    if (LIKELY(lock_try(&central->lock, tid)))
        return central;
    if (++t->meets >= MEETS_TO_MOVE) {
        t->meets = 0;
        t->arena = arena_next(t->arena, tid);
        *arena = t->arena;
    }
    return central_lock(arena, class_index, tid);
}

/* ---- bins ---- */

static uint32_t bin_limit(uint32_t class_index)
{
    size_t n = CACHE_BYTES / size_class_bytes(class_index);
    return (uint32_t)(n < CACHE_LEAST ? CACHE_LEAST : n > CACHE_MOST ? CACHE_MOST : n);
}

static uint32_t bin_first(uint64_t bytes)
{
    uint64_t n = CACHE_FREELY / bytes;
    return n < 1 ? 1 : n > CACHE_FIRST ? CACHE_FIRST : (uint32_t)n;
}

/* A bin was empty or full. Is it worth its memory to have more slots? Up to FREELY always, as long
 * as the thread's bins are few; else where an eighth of what the thread misses is in this bin. */
static bool bin_wants_more(struct hm_thread *t, uint32_t class_index, uint64_t bytes, uint64_t more)
{
    uint8_t *misses = t->misses;
    if (++t->miss_count > MISS_WINDOW) {
        t->miss_count = 1;
        memset(misses, 0, sizeof(t->misses));
    }
    misses[class_index]++;
    uint64_t all = CACHE_ALL + (span_used_units() << UNIT_SHIFT) / 16;
    return bytes + more <= CACHE_FREELY || t->capacity_bytes + more <= all ||
           (misses[class_index] >= MISSES_LEAST && misses[class_index] * 8 >= t->miss_count);
}

/* Twice as many slots, at a new place, with the same blocks. */
static void bin_grow(struct hm_thread *t, struct hm_bin *bin, uint32_t class_index)
{
    uint32_t capacity = bin->window.empty - bin->full, limit = bin_limit(class_index);
    if (capacity >= limit)
        return;
    if (capacity == 0)
        sampler_arm(t, class_index);
    uint64_t bytes = size_class_bytes(class_index);
    uint32_t grown = capacity ? capacity * 2 : bin_first(bytes);
    grown = grown > limit ? limit : grown;
    uint64_t more = (grown - capacity) * bytes;
    if (t->slots_used + grown > SLOTS_CAPACITY ||
        !bin_wants_more(t, class_index, capacity * bytes, more))
        return;
    t->capacity_bytes += more;
    uint64_t *slots = thread_slots(t);
    uint32_t start = t->slots_used, end = start + grown;
    uint32_t held = bin->window.empty - bin->window.head;
    t->slots_used = end;
    for (uint32_t i = 0; i < held; i++)
        slots[end - held + i] = slots[bin->window.head + i];
    window_store(bin, end - held, end);
    bin->full = start;
}

/* ---- fill ---- */

static uint32_t fill_from_stash(struct hm_central *central, uint64_t *slots, uint32_t low,
                                uint32_t want, uint32_t *pend)
{
    uint32_t n = (uint32_t)min_u64(want, central->stash_count);
    const uint64_t *stash = stash_of(central) + central->stash_count - n;
    for (uint32_t i = 0; i < n; i++)
        slots[low - n + i] = stash[i];
    STORE_ORDER();
    *pend = low - n;
    STORE_ORDER();
    central->stash_count -= n;
    STORE_ORDER();
    if (central->stash_count < central->stash_low)
        central->stash_low = central->stash_count;
    return n;
}

/* Before the block is live. When all are noted, one of which nothing is known shows nothing. */
static void note_block(const void *p, uint32_t class_index, const struct block_note *note)
{
    static const struct block_note nothing;
    if (UNLIKELY(note || hm_hot.tracing)) {
        note_write(p, class_index, note ? note : &nothing);
        STORE_ORDER();
    }
}

/* How many blocks make up a line of memory. Threads that write to one line wait for each other (two
 * with blocks of 16 bytes: 1.7 times as long), so small blocks come a line at a time. */
static uint32_t line_blocks(uint32_t class_index)
{
    return (uint32_t)(LINE_BYTES / size_class_bytes(class_index));
}

/* Below the bin's head, and `pend` says so until the caller has moved the head. */
static uint32_t fill_below(struct hm_thread *t, uint32_t class_index, struct hm_central *central,
                           uint32_t arena, uint32_t want)
{
    struct hm_bin *bin = &t->bins[class_index];
    uint64_t *slots = thread_slots(t);
    uint32_t low = bin->window.head;
    return central->stash_count > 0
               ? fill_from_stash(central, slots, low, want, &bin->pend)
               : slab_fill(arena, class_index, slots, low, want, &bin->pend, hm_tls.tid);
}

/* The bin is empty: some blocks into it, the first of them for the caller. */
static void *bin_fill(struct hm_thread *t, uint32_t class_index, const struct block_note *note)
{
    struct hm_bin *bin = &t->bins[class_index];
    uint32_t arena, line = line_blocks(class_index);
    t->flushed[class_index] = 0;
    bin_grow(t, bin, class_index);
    uint32_t low = bin->window.head, want = (low - bin->full + 1) / 2;
    if (want == 0)
        return central_malloc(t->arena, class_index, note);
    if (want < line && line <= low - bin->full)
        want = line;
    struct hm_central *central = thread_central_lock(t, class_index, &arena);
    if (!central)
        return NULL;
    uint32_t n = fill_below(t, class_index, central, arena, want);
    void *p = NULL;
    if (n > 0) {
        p = (void *)(uintptr_t)thread_slots(t)[low - n];
        note_block(p, class_index, note);
        STORE_ORDER();
        bin_set_head(bin, low - n + 1);
        STORE_ORDER();
    }
    bin->pend = 0;
    lock_release(&central->lock);
    return p;
}

/* The bin's first block is one that the thread has freed: perhaps another's, in whose line others
 * still write. A line of its own comes on top. */
static void bin_top_up(struct hm_thread *t, uint32_t class_index)
{
    struct hm_bin *bin = &t->bins[class_index];
    uint32_t arena, line = line_blocks(class_index);
    if (line < 2)
        return;
    bin_grow(t, bin, class_index);
    uint32_t low = bin->window.head;
    if (line > low - bin->full)
        return;
    struct hm_central *central = thread_central_lock(t, class_index, &arena);
    if (!central)
        return;
    uint32_t n = fill_below(t, class_index, central, arena, line);
    bin_set_head(bin, low - n);
    STORE_ORDER();
    bin->pend = 0;
    lock_release(&central->lock);
}

static void *bin_pop(struct hm_thread *t, uint32_t class_index, const struct block_note *note)
{
    struct hm_bin *bin = &t->bins[class_index];
    void *p = (void *)(uintptr_t)thread_slots(t)[bin->window.head];
    note_block(p, class_index, note);
    STORE_ORDER();
    bin_set_head(bin, bin->window.head + 1u);
    return p;
}

void *thread_cache_malloc(uint32_t class_index, const struct block_note *note)
{
    struct hm_thread *t = thread_begin();
    if (UNLIKELY(!t))
        return central_malloc(0, class_index, note);
    const struct hm_bin *bin = &t->bins[class_index];
    void *p = bin->window.head == bin->window.empty ? bin_fill(t, class_index, note)
                                                    : bin_pop(t, class_index, note);
    thread_leave();
    background_settle(); /* a new slab empties the pocket */
    return p;
}

/* ---- flush ---- */

/* The n oldest slots are elsewhere by now: the others move up, the last first, then head. */
static void bin_drop_oldest(struct hm_thread *t, struct hm_bin *bin, uint32_t n)
{
    uint32_t head = bin->window.head;
    volatile uint64_t *first = thread_slots(t) + head, *to = thread_slots(t) + bin->window.empty;
    STORE_ORDER();
    for (volatile uint64_t *from = to - n; from > first;)
        *--to = *--from;
    STORE_ORDER();
    bin_set_head(bin, head + n);
    STORE_ORDER();
}

static bool flush_to_stash(struct hm_thread *t, struct hm_bin *bin, struct hm_central *central,
                           uint32_t n)
{
    uint64_t *slots = thread_slots(t);
    uint64_t *stash = stash_of(central) + central->stash_count;
    if (central->stash_capacity - central->stash_count < n)
        return false;
    for (uint32_t i = 0; i < n; i++)
        stash[i] = slots[bin->window.empty - n + i];
    STORE_ORDER();
    central->stash_count += n;
    STORE_ORDER();
    bin_drop_oldest(t, bin, n);
    return true;
}

/* Brings the blocks of one arena among the n oldest to the old end; how many those are. */
static uint32_t bin_gather(struct hm_thread *t, struct hm_bin *bin, uint32_t n, uint32_t arena)
{
    volatile uint64_t *slots = thread_slots(t);
    volatile uint64_t *hand = &t->hand;
    uint32_t end = bin->window.empty, to = end;
    for (uint32_t i = end; i-- > end - n;) {
        if (slab_home((void *)(uintptr_t)slots[i]) != arena)
            continue;
        if (i != --to) {
            *hand = slots[to];
            slots[to] = slots[i];
            slots[i] = *hand;
            *hand = 0;
        }
    }
    return end - to;
}

/* The n oldest blocks go home, one arena after the other. */
static void flush_to_slabs(struct hm_thread *t, struct hm_bin *bin, uint32_t class_index,
                           uint32_t n)
{
    uint64_t *slots = thread_slots(t);
    while (n > 0) {
        uint32_t end = bin->window.empty, mine = n;
        uint32_t arena = slab_home((void *)(uintptr_t)slots[end - 1]);
        if (hm_hot.auto_arena_count > 1)
            mine = bin_gather(t, bin, n, arena);
        struct hm_central *central = slab_central(arena, class_index);
        if (!lock_acquire(&central->lock, hm_tls.tid))
            return;
        const void *bad = slab_give(central, slots + end - mine, mine);
        if (UNLIKELY(bad)) {
            lock_release(&central->lock);
            die_double_free(bad);
        } else {
            bin_drop_oldest(t, bin, mine);
            slab_release_spare(central, hm_tls.tid, false);
            lock_release(&central->lock);
        }
        if (bad)
            bin_drop_oldest(t, bin, mine);
        n -= mine;
    }
}

static void bin_flush(struct hm_thread *t, uint32_t class_index, uint32_t n)
{
    struct hm_bin *bin = &t->bins[class_index];
    uint32_t arena;
    struct hm_central *central = thread_central_lock(t, class_index, &arena);
    if (central) {
        bool done = flush_to_stash(t, bin, central, n);
        lock_release(&central->lock);
        if (done)
            return;
    }
    flush_to_slabs(t, bin, class_index, n);
}

/* Is it one of the two freed last? The fast path asks the same of two slots, which may be unused.
 */
static bool bin_has_on_top(struct hm_thread *t, const struct hm_bin *bin, const void *p)
{
    const uint64_t *slots = thread_slots(t);
    uint32_t head = bin->window.head, held = bin->window.empty - head;
    return (held > 0 && slots[head] == (uintptr_t)p) ||
           (held > 1 && slots[head + 1] == (uintptr_t)p);
}

/* A thread that frees and frees keeps nothing back: what lies in its bins when it goes to sleep
 * keeps a page each, and half as many of them are two thirds of what an idle heap keeps. */
static void bin_overflow(struct hm_thread *t, uint32_t class_index)
{
    const struct hm_bin *bin = &t->bins[class_index];
    uint32_t capacity = bin->window.empty - bin->full;
    bin_flush(t, class_index, t->flushed[class_index] ? capacity : (capacity + 1) / 2);
    t->flushed[class_index] = 1;
}

/* Makes room where there is none, then takes the block. */
static void bin_push_slow(struct hm_thread *t, uint32_t class_index, void *p)
{
    struct hm_bin *bin = &t->bins[class_index];
    bool first = bin->window.empty == bin->full;
    if (bin->window.head == bin->full)
        bin_grow(t, bin, class_index);
    if (bin->window.head == bin->full)
        bin_overflow(t, class_index);
    if (bin->window.head == bin->full) {
        central_free(p, 0);
        return;
    }
    thread_slots(t)[bin->window.head - 1u] = (uintptr_t)p;
    STORE_ORDER();
    bin_set_head(bin, bin->window.head - 1u);
    if (first)
        bin_top_up(t, class_index);
}

/* With notes every block says whether it is free. */
static bool is_free_already(struct hm_thread *t, uint32_t class_index, const void *p)
{
    if (hm_hot.check_mode == CHECK_OFF)
        return false;
    return hm_hot.tracing ? note_is_freed(p, class_index)
                          : bin_has_on_top(t, &t->bins[class_index], p);
}

void thread_cache_free(void *p, uint32_t class_index, uint32_t freed)
{
    struct hm_thread *t = thread_begin();
    if (UNLIKELY(!t)) {
        central_free(p, freed);
        return;
    }
    bool twice = is_free_already(t, class_index, p);
    if (LIKELY(!twice)) {
        note_free(p, class_index, freed);
        STORE_ORDER();
        bin_push_slow(t, class_index, p);
    }
    thread_leave();
    if (UNLIKELY(twice))
        die_double_free(p);
    background_settle();
}

/* ---- without a cache ---- */

void *central_malloc(uint32_t arena, uint32_t class_index, const struct block_note *note)
{
    uint32_t tid = thread_id();
    if (UNLIKELY(hm_hot.fork_pending))
        thread_cache_recover();
    struct hm_central *central;
    if (arena_at(arena)->kind != HM_ARENA_AUTOMATIC)
        central = lock_acquire(&slab_central(arena, class_index)->lock, tid)
                      ? slab_central(arena, class_index)
                      : NULL;
    else
        central = central_lock(&arena, class_index, tid);
    if (!central)
        return NULL;
    void *p;
    if (central->stash_count > 0) {
        p = (void *)(uintptr_t)stash_of(central)[central->stash_count - 1];
        note_block(p, class_index, note);
        STORE_ORDER();
        central->stash_count--;
    } else {
        p = slab_take_one(arena, class_index, tid, note);
    }
    lock_release(&central->lock);
    return p;
}

void central_free(void *p, uint32_t freed)
{
    uint32_t tid = thread_id();
    if (UNLIKELY(hm_hot.fork_pending))
        thread_cache_recover();
    struct slab_place place = slab_locate(range_find(p), p);
    struct hm_central *central = slab_central(slab_record(&place)->arena, place.class_index);
    if (UNLIKELY(slab_record(&place)->marks & UNIT_REMARKED))
        remark_forget(p);
    if (!lock_acquire(&central->lock, tid))
        return; /* a signal handler inside malloc: lost rather than damaged */
    if (!slab_is_free(p)) {
        note_free(p, place.class_index, freed);
        STORE_ORDER();
    }
    uint64_t block = (uintptr_t)p;
    const void *bad = slab_give(central, &block, 1);
    if (!bad)
        slab_release_spare(central, tid, false);
    lock_release(&central->lock);
    if (UNLIKELY(bad))
        die_double_free(bad);
    background_settle();
}

/* ---- all of it ---- */

static void bins_flush(struct hm_thread *t)
{
    for (uint32_t c = 1; c <= CLASS_COUNT; c++) {
        uint32_t held = t->bins[c].window.empty - t->bins[c].window.head;
        if (held)
            bin_flush(t, c, held);
    }
}

void thread_cache_flush(bool end)
{
    struct hm_thread *t = hm_tls.state == THREAD_LIVE ? thread_begin() : NULL;
    if (!t)
        return;
    bins_flush(t);
    pocket_return(t, hm_tls.tid);
    if (!end) {
        thread_leave();
        return;
    }
    hm_tls.state = THREAD_NONE;
    hm_tls.record = NULL;
    pocket_return(t, hm_tls.tid);
    record_give(t, hm_tls.tid);
    call_stack_thread_end();
}

void thread_cache_disable(void)
{
    if (hm_tls.state == THREAD_LIVE)
        thread_cache_flush(true);
}

/* ---- fork ---- */

static void record_recover(struct hm_thread *t)
{
    const uint64_t *slots = thread_slots(t);
    pocket_return(t, thread_id());
    t->pocket_open = t->pocket_claim = t->pocket_count = t->pocket_held = 0;
    if (t->hand)
        slab_recover((void *)(uintptr_t)t->hand);
    for (uint32_t c = 1; c <= CLASS_COUNT; c++) {
        struct hm_bin *bin = &t->bins[c];
        uint32_t from = bin->window.head, end = bin->window.empty;
        if (bin->pend && bin->pend < from)
            from = bin->pend;
        for (uint32_t i = from; i < end && i < SLOTS_CAPACITY; i++)
            slab_recover((void *)(uintptr_t)slots[i]);
    }
}

/* Nobody else is here: the child has one thread, and it comes here before it takes any lock. */
void thread_cache_recover(void)
{
    struct hm_root *root = hm_hot.root;
    bool found = false;
    hm_hot.fork_pending = 0;
    spare_count = 0;
    first_is_spare = false;
    for (uint32_t i = 0; i < root->thread_count; i++) {
        struct hm_thread *t = thread_at(i);
        if (t == hm_tls.record)
            continue;
        if (t->tid) {
            record_recover(t);
            found = true;
        }
        record_reset(t);
        t->tid = 0;
        spare_threads[spare_count++] = i;
    }
    if (found)
        slab_rebuild();
}
