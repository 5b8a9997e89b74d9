/* lock: the waiting side, see lock.h. */
#include "lock.h"

#include "pages.h"

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>

enum { SPINS = 64 };

static inline void lock_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

bool lock_wait(uint32_t *lock, uint32_t tid)
{
    for (int i = 0; i < SPINS; i++) {
        uint32_t seen = __atomic_load_n(lock, __ATOMIC_RELAXED);
        if ((seen & LOCK_OWNER_MASK) == tid)
            return false;
        if (seen == 0 && lock_try(lock, tid))
            return true;
        lock_pause();
    }
    for (;;) {
        uint32_t seen = __atomic_load_n(lock, __ATOMIC_RELAXED);
        if (seen == 0) {
            /* others may wait as well: keep their mark */
            if (__atomic_compare_exchange_n(lock, &seen, tid | LOCK_WAITERS, false,
                                            __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
                return true;
            continue;
        }
        if (!(seen & LOCK_WAITERS) &&
            !__atomic_compare_exchange_n(lock, &seen, seen | LOCK_WAITERS, false, __ATOMIC_RELAXED,
                                         __ATOMIC_RELAXED))
            continue;
        pages_syscall(SYS_futex, (long)lock, FUTEX_WAIT_PRIVATE, (long)(seen | LOCK_WAITERS), 0, 0,
                      0);
    }
}

void lock_wake(uint32_t *lock)
{
    pages_syscall(SYS_futex, (long)lock, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}
