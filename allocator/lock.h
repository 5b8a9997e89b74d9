/*
 * lock: a futex word that holds its owner's thread id, so that a stopped or forked heap says who
 * was inside. Bit 31: somebody waits.
 *
 * Order: central (any class, any arena; a second one only by lock_try) before span before nothing;
 * registry before span. Nothing is ever called out of himalloc with a lock held. A signal handler
 * that interrupted its own thread inside finds its own id: lock_acquire says false, and the caller
 * takes another way.
 */
#ifndef HIMALLOC_LOCK_H
#define HIMALLOC_LOCK_H

#include <stdbool.h>
#include <stdint.h>

enum { LOCK_OWNER_MASK = 0x7fffffff };
#define LOCK_WAITERS 0x80000000u

bool lock_wait(uint32_t *lock, uint32_t tid);
void lock_wake(uint32_t *lock);

static inline bool lock_try(uint32_t *lock, uint32_t tid)
{
    uint32_t none = 0;
    return __atomic_compare_exchange_n(lock, &none, tid, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* false: this thread holds it already. */
static inline bool lock_acquire(uint32_t *lock, uint32_t tid)
{
    return lock_try(lock, tid) || lock_wait(lock, tid);
}

static inline void lock_release(uint32_t *lock)
{
    if (__atomic_exchange_n(lock, 0, __ATOMIC_RELEASE) & LOCK_WAITERS)
        lock_wake(lock);
}

static inline uint32_t lock_owner(const uint32_t *lock)
{
    return __atomic_load_n(lock, __ATOMIC_RELAXED) & LOCK_OWNER_MASK;
}

#endif
