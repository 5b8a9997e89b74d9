/*
 * remark_entry: what a program says of its blocks, and asks: himalloc.h, and LeakSanitizer's
 * interface under its names, for programs that know that one.
 *
 * __lsan_do_leak_check and its like do nothing unless the check at exit is on, as they do in
 * LeakSanitizer when that is off: a program that calls them if they are there does not expect to be
 * looked at in production. himalloc_check_now always checks.
 */
#include "himalloc.h"

#include "at_exit.h"
#include "leakcheck.h"
#include "malloc_entry.h"
#include "options.h"
#include "remark.h"
#include "stacks.h"
#include "thread_cache.h"

#include <errno.h>
#include <stdlib.h>

/* ---- himalloc.h ---- */

static int answer(enum remark_result result)
{
    if (result == REMARK_DONE)
        return 0;
    errno = result == REMARK_NO_BLOCK ? EINVAL : ENOMEM;
    return -1;
}

EXPORT int himalloc_ignore(const void *p)
{
    return answer(remark_block(p, HM_REMARK_IGNORE, NULL));
}

EXPORT int himalloc_tag(const void *p, const char *text)
{
    return answer(remark_block(p, HM_REMARK_TAG, text));
}

EXPORT int himalloc_root(const void *start, size_t bytes)
{
    return answer(remark_root(start, bytes));
}

EXPORT int himalloc_unroot(const void *start, size_t bytes)
{
    return answer(remark_unroot(start, bytes) ? REMARK_DONE : REMARK_NO_BLOCK);
}

EXPORT int himalloc_check_now(void)
{
    free(malloc(1)); /* a heap that was never used could not be looked at */
    enum leakcheck_verdict verdict = leakcheck_run();
    return verdict == LEAKCHECK_CLEAN ? 0 : verdict == LEAKCHECK_LEAKS ? 1 : -1;
}

EXPORT int himalloc_stacks(enum himalloc_stacks_mode mode, size_t sample_bytes)
{
    if ((unsigned)mode > HIMALLOC_STACKS_FULL) {
        errno = EINVAL;
        return -1;
    }
    if (!root_start() || !stacks_set(mode, sample_bytes)) {
        errno = ENOMEM;
        return -1;
    }
    return 0;
}

/* ---- LeakSanitizer's names ---- */

void __lsan_disable(void);
void __lsan_enable(void);
void __lsan_ignore_object(const void *p);
void __lsan_register_root_region(const void *start, size_t bytes);
void __lsan_unregister_root_region(const void *start, size_t bytes);
void __lsan_do_leak_check(void);
int __lsan_do_recoverable_leak_check(void);

EXPORT void __lsan_disable(void)
{
    hm_tls.ignoring++;
    thread_cache_look();
}

EXPORT void __lsan_enable(void)
{
    if (hm_tls.ignoring)
        hm_tls.ignoring--;
    thread_cache_look();
}

EXPORT void __lsan_ignore_object(const void *p)
{
    remark_block(p, HM_REMARK_IGNORE, NULL);
}

EXPORT void __lsan_register_root_region(const void *start, size_t bytes)
{
    remark_root(start, bytes);
}

EXPORT void __lsan_unregister_root_region(const void *start, size_t bytes)
{
    remark_unroot(start, bytes);
}

EXPORT void __lsan_do_leak_check(void)
{
    if (options_leakcheck.at_exit)
        at_exit_check_now();
}

EXPORT int __lsan_do_recoverable_leak_check(void)
{
    return options_leakcheck.at_exit && leakcheck_run() == LEAKCHECK_LEAKS;
}
