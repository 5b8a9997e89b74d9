/* thread_cache: blocks that a thread keeps at hand, see thread_cache.c. */
#ifndef HIMALLOC_THREAD_CACHE_H
#define HIMALLOC_THREAD_CACHE_H

#include "note.h"
#include "state.h"

enum {
    THREAD_MAPPING_BYTES = 256 << 10,
    WINDOW_TICK = 1 << 16, /* of the word {head, ticks} of a bin's window */
};
typedef uint32_t __attribute__((may_alias)) window_word_t;
#ifndef HM_LAYOUT_VARIANT
_Static_assert(offsetof(struct hm_window, head) == 0, "one word");
_Static_assert(offsetof(struct hm_window, ticks) == 2, "one word");
#endif

enum thread_state {
    THREAD_NEW,  /* no allocation yet */
    THREAD_LIVE, /* self is the record */
    THREAD_BUSY, /* inside a slow path: self is the empty record, so that a signal handler which
                    allocates goes past the cache */
    THREAD_NONE, /* ended, or without a cache: straight to central state */
};

struct hm_tls {
    struct hm_thread *self; /* what the fast paths use; never NULL */
    struct hm_thread *record;
    uint32_t tid;
    uint32_t state;
    uint32_t ignoring; /* how often himalloc was told that what follows is no leak */
    uint32_t turn;     /* hm_hot.stacks_turn when the next samples were drawn */
    int64_t gap;       /* bytes until the next sample, of what does not come out of a bin */
    uint64_t random;
};
HIDDEN extern __thread struct hm_tls hm_tls;
HIDDEN extern const struct hm_thread
    hm_no_thread; /* all bins empty and full at once: every call goes slow */

static inline uint64_t *thread_slots(struct hm_thread *t)
{
    return (uint64_t *)t;
}

static inline struct hm_thread *thread_at(uint32_t index)
{
    return (struct hm_thread *)((uint64_t *)(uintptr_t)hm_hot.root->threads)[index];
}

/* Record 0 and the list of spare ones, in the root area. */
void thread_cache_start(char *memory, uint32_t *spare);
uint32_t thread_id(void);
/* After a change of what thread_is_traced says: on this thread from now on. */
void thread_cache_look(void);
/* The calling thread's record; NULL: it has none, or ended. */
struct hm_thread *thread_record_new(void);
static inline struct hm_thread *thread_record(void)
{
    return UNLIKELY(hm_tls.state == THREAD_NEW) ? thread_record_new() : hm_tls.record;
}

/* Does this thread go without the fast path? */
static inline bool thread_is_traced(void)
{
    return hm_hot.tracing || hm_tls.ignoring != 0;
}

/* The slow halves of malloc and free for blocks of slabs of automatic arenas. note may be NULL;
 * freed: the stack that frees, or 0. */
void *thread_cache_malloc(uint32_t class_index, const struct block_note *note);
void thread_cache_free(void *p, uint32_t class_index, uint32_t freed);
/* Without a cache: straight to the bitmap. */
void *central_malloc(uint32_t arena, uint32_t class_index, const struct block_note *note);
void central_free(void *p, uint32_t freed);

/* {head, ticks} of a bin's window, read and written at once. */
static inline uint32_t window_word(const struct hm_window *w)
{
#ifndef HM_LAYOUT_VARIANT
    return *(const window_word_t *)(const void *)w;
#else
    return w->head | (uint32_t)w->ticks << 16;
#endif
}

static inline void window_set_word(struct hm_window *w, uint32_t word)
{
#ifndef HM_LAYOUT_VARIANT
    *(window_word_t *)(void *)w = word;
#else
    w->ticks = (uint16_t)(word >> 16);
    w->head = (uint16_t)word;
#endif
}

static inline uint64_t *stash_of(const struct hm_central *central)
{
    return (uint64_t *)(uintptr_t)central->stash;
}

/* Everything this thread caches goes home; with `end`, so does its record. */
void thread_cache_flush(bool end);
/* stash_age.c: gives back what the stashes of all automatic arenas did not need since the last call
 * (or all). False when no stash holds anything more to give. */
bool stash_age(uint32_t tid, bool all);
/* In a forked child: blocks in caches of threads that are gone go home. */
void thread_cache_recover(void);
/* check:full: no more caches. */
void thread_cache_disable(void);

#endif
