/*
 * background: memory goes back to the system, by budget at once and by age without further calls.
 *
 * By budget: a thread that frees and finds dirty memory over its budget (span.c) trims it. By age:
 * once more than 4 MiB are dirty, or in slabs that got blocks back, a helper thread ticks once a
 * second; what was free for AGE_TICKS goes back, free pages inside of slabs too (sweep.c), and so
 * does what lay in the stashes all that time. It ends by itself when nothing is left to give, so an
 * idle process has no extra thread.
 *
 * The helper is made by a bare clone: the C library does not know it. It has a small stack of its
 * own and a zero page for TLS, no signal is ever delivered to it, it uses bare system calls alone
 * and leaves errno and every thread-local variable of the allocator alone. It takes the locks of
 * centrals and spans by trying, but for the span lock inside a central's, which nobody holds for
 * long. It obeys the order of stores like everybody else. root.helper_tid is its thread id; the
 * kernel clears it when the helper has ended.
 *
 * Nothing of the program's must stay where it was, or a lost block would look held: it takes its
 * stack with it when it ends.
 *
 * Where it cannot be made (or HIMALLOC=background:off) the clock is looked at when something is
 * freed by a slow path.
 *
 * What it cannot do: the C library's setuid() changes all threads that it knows; the helper keeps
 * its old identity until it ends. It opens, reads and writes nothing.
 */
#define _GNU_SOURCE
#include "background.h"

#include "options.h"
#include "pages.h"
#include "pocket.h"
#include "slab.h"
#include "thread_cache.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

enum {
    STACK_BYTES = 32 << 10,
    TLS_BYTES = 16 << 10,
    AGE_TICKS = 3,
    QUIET_TICKS = 4,
    SWEEP_MOST = 1 << 13, /* slabs a tick: some 100 ms */
    SWEEP_MOST_HERE = 64, /* in a thread of the program */
};

static uint8_t starting, refused;
static uint32_t last_second;
static uintptr_t no_stack; /* ~ of its address, lest what ticks left there be searched; 0: none */

/* One tick of age; false when there is nothing left to wait for. */
static bool tick(uint32_t tid, uint32_t sweep_most)
{
    bool stashed = stash_age(tid, false), kept = pocket_age(tid);
    bool stirred = sweep_age(tid, AGE_TICKS, sweep_most);
    return span_age(tid, AGE_TICKS) || stashed || kept || stirred;
}

#if defined(__x86_64__)
__attribute__((used, noreturn)) static void helper_main(void)
{
    struct timespec second = {.tv_sec = 1};
    uint32_t tid = pages_thread_id();
    for (int quiet = 0; quiet < QUIET_TICKS;) {
        pages_syscall(SYS_nanosleep, (long)&second, 0, 0, 0, 0, 0);
        bool more = tick(tid, SWEEP_MOST);
        quiet = more && background_units() > BACKGROUND_FLOOR / 4 ? 0 : quiet + 1;
        if (!more)
            break;
    }
    uintptr_t own = ~no_stack;
    no_stack = 0;                /* helper_tid is set still: nobody makes another */
    __asm__ volatile("syscall\n" /* munmap; from here on there is no stack */
                     "movl %[exit], %%eax\n"
                     "xorl %%edi, %%edi\n"
                     "syscall\n"
                     "hlt\n"
                     :
                     : "a"(SYS_munmap), "D"(own), "S"(STACK_BYTES + TLS_BYTES), [exit] "i"(SYS_exit)
                     : "rcx", "r11", "memory");
    __builtin_unreachable();
}

/* The child begins on its own stack and never returns. What registers hold of the thread that made
 * it is forgotten: nothing would ever overwrite it, and it may be the last pointer to a block. */
static long helper_clone(unsigned long flags, void *stack_top, void *tid, void *tls)
{
    long result;
    register void *r10 __asm__("r10") = tid;
    register void *r8 __asm__("r8") = tls;
    __asm__ volatile("syscall\n"
                     "test %%rax, %%rax\n"
                     "jnz 1f\n"
                     "xor %%ebp, %%ebp\n"
                     "xor %%ebx, %%ebx\n"
                     "xor %%r12d, %%r12d\n"
                     "xor %%r13d, %%r13d\n"
                     "xor %%r14d, %%r14d\n"
                     "xor %%r15d, %%r15d\n"
                     "call helper_main\n"
                     "1:\n"
                     : "=a"(result)
                     : "a"(SYS_clone), "D"(flags), "S"(stack_top), "d"(tid), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

static bool helper_start(void)
{
    uint64_t all = ~0ULL, old = 0;
    char *stack = no_stack ? (char *)~no_stack : pages_map(STACK_BYTES + TLS_BYTES);
    if (!stack)
        return false;
    no_stack = ~(uintptr_t)stack;
    unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                          CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    pages_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&old, sizeof(all), 0, 0);
    long tid = helper_clone(flags, stack + STACK_BYTES, &hm_hot.root->helper_tid,
                            stack + STACK_BYTES + TLS_BYTES - 256);
    pages_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&old, 0, sizeof(old), 0, 0);
    return tid > 0;
}
#else
static bool helper_start(void)
{
    return false;
}
#endif

void background_want(void)
{
    if (!options_background || refused || hm_hot.root->helper_tid != 0 ||
        __atomic_exchange_n(&starting, 1, __ATOMIC_ACQUIRE))
        return;
    if (hm_hot.root->helper_tid == 0 && !helper_start())
        refused = 1;
    __atomic_store_n(&starting, 0, __ATOMIC_RELEASE);
}

void background_work(void)
{
    uint32_t tid = thread_id();
    if (span_over_budget())
        span_trim(tid, false);
    if (background_units() <= BACKGROUND_FLOOR)
        return;
    if (options_background && !refused) {
        background_want();
        return;
    }
    uint32_t now = pages_seconds();
    if (now != __atomic_exchange_n(&last_second, now, __ATOMIC_RELAXED))
        tick(tid, SWEEP_MOST_HERE);
}

void background_forked(void)
{
    hm_hot.root->helper_tid = 0;
    starting = 0;
    if (no_stack) /* the helper did not come along; what it had there is the parent's */
        pages_discard((char *)~no_stack, STACK_BYTES + TLS_BYTES);
}
