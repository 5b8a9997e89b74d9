/* thread_cache: blocks that a thread keeps at hand, see thread_cache.c. */
#ifndef HIMALLOC_THREAD_CACHE_H
#define HIMALLOC_THREAD_CACHE_H

#include "state.h"

enum {
    THREAD_MAPPING_BYTES = 256 << 10,
};

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
};
extern __thread struct hm_tls hm_tls;
extern const struct hm_thread
    hm_no_thread; /* all bins empty and full at once: every call goes slow */

static inline uint64_t *thread_slots(struct hm_thread *t)
{
    return (uint64_t *)t;
}

/* Record 0 and the list of spare ones, in the root area. */
void thread_cache_start(char *memory, uint32_t *spare);
uint32_t thread_id(void);

/* The slow halves of malloc and free for blocks of slabs of automatic arenas. */
void *thread_cache_malloc(uint32_t class_index);
void thread_cache_free(void *p, uint32_t class_index);
/* Without a cache: straight to the bitmap. */
void *central_malloc(uint32_t arena, uint32_t class_index);
void central_free(void *p);

/* Everything this thread caches goes home; with `end`, so does its record. */
void thread_cache_flush(bool end);
/* Gives back what the stashes of all automatic arenas did not need since the last call (or all).
 * False when no stash holds anything more to give. */
bool stash_age(uint32_t tid, bool all);
/* In a forked child: blocks in caches of threads that are gone go home. */
void thread_cache_recover(void);
/* check:full: no more caches. */
void thread_cache_disable(void);

#endif
