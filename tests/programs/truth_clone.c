/*
 * A thread that no C library knows, its stack between pages that hold blocks, all one mapping: what
 * lies beside the stack is no part of it. Argument: tls, to give the thread TLS above its stack.
 */
#include "programs/truth.h"

#include <sched.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { PAGE = 4096, BELOW = 8, STACK = 16, TLS = 1, ABOVE = 8 };

static char *volatile kept_below, *volatile kept_above;

/* Runs without TLS of its own or with a page of zeros: nothing of libc may be called. */
_Noreturn static int thread_main(void *unused)
{
    (void)unused;
    for (long result;;) {
        result = SYS_pause;
        __asm__ volatile("syscall" : "+a"(result) : : "rcx", "r11", "memory");
    }
}

TRUTH_NOINLINE static void plant(bool with_tls)
{
    size_t pages = BELOW + STACK + TLS + ABOVE;
    char *mapping =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        truth_fail("mmap");
    char *stack = mapping + BELOW * PAGE, *tls = stack + STACK * PAGE, *above = tls + TLS * PAGE;
    kept_below = mapping;
    kept_above = above;
    *(void **)(mapping + 64) = truth_chain(3, 40, TRUTH_HELD, TRUTH_HELD);
    *(void **)(above + (ABOVE - 1) * PAGE) = truth_chain(3, 48, TRUTH_HELD, TRUTH_HELD);
    truth_chain(2, 56, TRUTH_DIRECT, TRUTH_INDIRECT);
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    if (clone(thread_main, tls, flags | (with_tls ? CLONE_SETTLS : 0), NULL, NULL, tls + 512) < 0)
        truth_fail("clone");
}

int main(int argc, char **argv)
{
    truth_begin();
    plant(argc > 1 && strcmp(argv[1], "tls") == 0);
    truth_ready();
}
