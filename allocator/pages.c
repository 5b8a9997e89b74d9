/* pages: memory from the system. Everything by bare system calls, see pages.h. */
#define _GNU_SOURCE
#include "pages.h"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#if defined(__x86_64__)
long pages_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
long pages_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#error "himalloc: no system call for this machine"
#endif

static void *map(void *hint, size_t bytes, int protection, int flags)
{
    long p = pages_syscall(SYS_mmap, (long)hint, (long)bytes, protection,
                           MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    return p < 0 && p > -4096 ? NULL : (void *)p;
}

void *pages_reserve(size_t bytes)
{
    void *start = map(NULL, bytes, PROT_NONE, MAP_NORESERVE);
    /* gdb's gcore writes inaccessible memory out in full, unless it is told not to */
    if (start)
        pages_syscall(SYS_madvise, (long)start, (long)bytes, MADV_DONTDUMP, 0, 0, 0);
    return start;
}

void *pages_map(size_t bytes)
{
    return map(NULL, bytes, PROT_READ | PROT_WRITE, 0);
}

bool pages_commit(void *start, size_t bytes)
{
    /* first of all: what is accessible is in a core, at every instant */
    pages_syscall(SYS_madvise, (long)start, (long)bytes, MADV_DODUMP, 0, 0, 0);
    return pages_syscall(SYS_mprotect, (long)start, (long)bytes, PROT_READ | PROT_WRITE, 0, 0, 0) ==
           0;
}

static bool membarrier(int command)
{
    return pages_syscall(SYS_membarrier, command, 0, 0, 0, 0, 0) == 0;
}

bool pages_barrier(void)
{
    return membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) ||
           (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) &&
            membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED));
}

void pages_unmap(void *start, size_t bytes)
{
    pages_syscall(SYS_munmap, (long)start, (long)bytes, 0, 0, 0, 0);
}

bool pages_discard(void *start, size_t bytes)
{
    return pages_syscall(SYS_madvise, (long)start, (long)bytes, MADV_DONTNEED, 0, 0, 0) == 0;
}

void pages_prefer_huge(void *start, size_t bytes, bool yes)
{
    pages_syscall(SYS_madvise, (long)start, (long)bytes, yes ? MADV_HUGEPAGE : MADV_NOHUGEPAGE, 0,
                  0, 0);
}

bool pages_move(void *from, size_t bytes, void *to)
{
    return pages_syscall(SYS_mremap, (long)from, (long)bytes, (long)bytes,
                         MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, (long)to, 0) == (long)to;
}

void *pages_resize(void *start, size_t old_bytes, size_t bytes, bool may_move)
{
    long p = pages_syscall(SYS_mremap, (long)start, (long)old_bytes, (long)bytes,
                           may_move ? MREMAP_MAYMOVE : 0, 0, 0);
    return p < 0 && p > -4096 ? NULL : (void *)p;
}

/* No such way to change the mask of signals; but first the kernel looks at the new one. */
bool pages_readable(uintptr_t word)
{
    const long no_such_way = -1, efault = -14;
    return pages_syscall(SYS_rt_sigprocmask, no_such_way, (long)word, 0, 8, 0, 0) != efault;
}

size_t pages_page_bytes(void)
{
#if defined(__x86_64__)
    return 4096;
#else
    return getauxval(AT_PAGESZ);
#endif
}

uint32_t pages_thread_id(void)
{
    return (uint32_t)pages_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

uint32_t pages_seconds(void)
{
    struct timespec now = {0};
    pages_syscall(SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, (long)&now, 0, 0, 0, 0);
    return (uint32_t)now.tv_sec;
}

size_t pages_address_limit(void)
{
    static size_t known;
    struct {
        uint64_t current, maximum;
    } limit = {SIZE_MAX, 0};
    if (known)
        return known;
    pages_syscall(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)&limit, 0, 0);
    known = limit.current;
    return known;
}
