/*
 * at_exit: the leak check of a program that ends (HIMALLOC=leakcheck:exit).
 *
 * It runs last: exit() calls handlers in the reverse order of registration, and this one is
 * registered by the library's constructor, before main and before the dynamic linker registers the
 * end of all libraries; and for no library in particular, else it would go with this one's end. So
 * destructors have run and freed what they free.
 *
 * The program's output is never lost, its exit status is kept. Where a leak turns the status into
 * `exitcode`, exit() is called once more, from within: glibc goes on with the handlers that are
 * left and writes out all streams, with the new status. Standard output is flushed before, so that
 * it stands before the report; only if nobody holds its lock: fflush(NULL) would wait for a thread
 * that sits in getchar(). quick_exit() writes nothing out, with or without a check.
 *
 * exit() on any thread will do. Several at once are beyond the rules, but servers do it: older
 * glibc hands each handler to one of the threads, and ends the process as soon as one of them finds
 * no handler left. So the handler is registered several times: one thread checks, each other one
 * gets a copy, in which it waits for the end. A signal handler that interrupts the check and calls
 * exit() goes on to the end.
 * A forked child that calls exit() has a check of its own. _exit(), abort() and deadly signals have
 * none, with one exception: SIGTERM, by which servers are told to end. If that is at its default
 * when the program starts, a handler takes its place, which checks and then dies of SIGTERM as
 * ever. A program that sets it later, to whatever, has its own will. Process 1 of a container is
 * not killed by a SIGTERM that it has no handler for, so it gets none.
 */
#define _GNU_SOURCE
#include "at_exit.h"

#include "leakcheck.h"
#include "options.h"
#include "pages.h"
#include "state.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int __cxa_atexit(void (*function)(void *), void *argument, void *library);
#ifdef __GLIBC__
int __cxa_at_quick_exit(void (*function)(void *), void *library);
#endif

enum { EXIT_COPIES = 8 };

static FILE *first_stdout; /* the C library's own, which is never freed */
static uint64_t checker;   /* process id << 32 | thread id of who checks, or CHECKED */
#define CHECKED 0xffffffffu

/* False: it is being checked, by a handler of this thread's or in a call further up. */
static bool claim(void)
{
    uint64_t pid = (uint64_t)pages_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
    uint64_t mine = pid << 32 | pages_thread_id();
    uint64_t seen = __atomic_load_n(&checker, __ATOMIC_ACQUIRE);
    while (seen >> 32 != pid)
        if (__atomic_compare_exchange_n(&checker, &seen, mine, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return true;
    while (seen != mine && (uint32_t)seen != CHECKED) {
        pause(); /* that thread ends the process */
        seen = __atomic_load_n(&checker, __ATOMIC_ACQUIRE);
    }
    return false;
}

/* What is to be done once at the end; says whether there are leaks. */
static bool look(void)
{
    if (options_heapprofile.prefix.length)
        leakcheck_dump(" (Exiting)\n");
    return options_leakcheck.at_exit && !leakcheck_is_turned_off() &&
           leakcheck_run() == LEAKCHECK_LEAKS;
}

static bool leaks_found(void)
{
    return claim() && look() && options_leakcheck.exit_code != 0;
}

static void on_dump_signal(int number)
{
    (void)number;
    leakcheck_dump(" (Signal)\n");
}

static void flush_output(void)
{
    if (stdout != first_stdout || ftrylockfile(first_stdout) != 0)
        return;
    fflush_unlocked(first_stdout);
    funlockfile(first_stdout);
}

static void on_exit_called(void *unused)
{
    (void)unused;
    flush_output();
    if (!leaks_found())
        return;
#ifndef __GLIBC__
    fflush(NULL); /* exit() must not be called twice */
    _exit(options_leakcheck.exit_code);
#endif
    exit(options_leakcheck.exit_code);
}

void at_exit_check_now(void)
{
    uint64_t pid = (uint64_t)pages_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
    flush_output();
    if (leaks_found())
        exit(options_leakcheck.exit_code);
    __atomic_store_n(&checker, pid << 32 | CHECKED, __ATOMIC_RELEASE);
}

#ifdef __GLIBC__
static void on_quick_exit(void *unused)
{
    (void)unused;
    if (leaks_found())
        _exit(options_leakcheck.exit_code);
}
#endif

static void on_sigterm(int number)
{
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigset_t only;
    if (claim())
        look();
    sigaction(number, &plain, NULL);
    sigemptyset(&only);
    sigaddset(&only, number);
    pages_syscall(SYS_tgkill, getpid(), pages_thread_id(), number, 0, 0, 0);
    pthread_sigmask(SIG_UNBLOCK, &only, NULL);
    _exit(128 + number);
}

static void catch_sigterm(void)
{
    struct sigaction old;
    struct sigaction ours = {.sa_handler = on_sigterm, .sa_flags = SA_ONSTACK | SA_RESTART};
    if (getpid() == 1 || sigaction(SIGTERM, NULL, &old) != 0)
        return;
    if (old.sa_handler == SIG_DFL && !(old.sa_flags & SA_SIGINFO))
        sigaction(SIGTERM, &ours, NULL);
}

void at_exit_start(void)
{
    if (!options_leakcheck.at_exit && !options_heapprofile.prefix.length)
        return;
    free(malloc(1)); /* a program that never allocates has a heap to be looked at as well */
    leakcheck_prepare();
    first_stdout = stdout;
    for (int i = 0; i < EXIT_COPIES; i++)
        __cxa_atexit(on_exit_called, NULL, NULL);
#ifdef __GLIBC__
    __cxa_at_quick_exit(on_quick_exit, NULL);
#endif
    catch_sigterm();
    struct sigaction dump = {.sa_handler = on_dump_signal, .sa_flags = SA_ONSTACK | SA_RESTART};
    if (options_heapprofile.prefix.length && options_heapprofile.signal)
        sigaction((int)options_heapprofile.signal, &dump, NULL);
}

CONSTRUCTOR static void at_exit_register(void)
{
    options_running();
    at_exit_start();
}
