/*
 * A process to inspect: it fills memory of every kind with what can be computed from an address,
 * and puts where it all lies into a page that it shares with the test. Used live and for cores.
 */
#ifndef TESTS_UNIT_TARGET_CHILD_H
#define TESTS_UNIT_TARGET_CHILD_H

#include "target/backend.h"
#include "target/content.h"
#include "target/proc.h"
#include "unit/tap.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    CHILD_BYTES = 5 * 4096,
    CHILD_SPARSE_PAGES = 1024,
    CHILD_COMB_PAGES = 2400,
};

enum child_view { CHILD_LIVE, CHILD_CORE, CHILD_GCORE };

struct child_layout {
    hi_addr anonymous, no_access, untouched, shared, file_private, file_deleted, sparse, comb;
    hi_addr file_shared, file_unwritten;
    hi_addr counter;         /* address of .beats */
    hi_addr registers_stack; /* where the second thread's SP points */
    volatile uint64_t beats, signals, sent, quit, second_tid, ready;
    char odd_path[256];
};

struct child {
    pid_t pid;
    bool ended;
    struct child_layout *layout;
    char directory[64];
};

#define CHILD_VECTOR_LOW  0x1122334455667788ULL
#define CHILD_VECTOR_HIGH 0x99aabbccddeeff01ULL
#define CHILD_REGISTER    0x0123456789abcdefULL

enum { CHILD_DEADLINE_SECONDS = 60 };

/* What must come, looked at until it does, however busy the machine is; false: it did not. */
#define CHILD_AWAIT(condition)                                                                     \
    ({                                                                                             \
        time_t await_end = time(NULL) + CHILD_DEADLINE_SECONDS;                                    \
        bool await_came;                                                                           \
        while (!(await_came = (condition)) && time(NULL) < await_end)                              \
            usleep(1000);                                                                          \
        await_came;                                                                                \
    })

static inline uint64_t child_pattern(hi_addr address)
{
    uint64_t x = (address + 1) * 0x9e3779b97f4a7c15ULL;
    return x ^ x >> 29;
}

static inline void child_fill(void *memory, size_t bytes, hi_addr seed)
{
    for (size_t i = 0; i < bytes / 8; i++)
        ((uint64_t *)memory)[i] = child_pattern(seed + i);
}

static inline bool child_is_filled(const void *memory, size_t bytes, hi_addr seed)
{
    for (size_t i = 0; i < bytes / 8; i++)
        if (((const uint64_t *)memory)[i] != child_pattern(seed + i))
            return false;
    return true;
}

static inline hi_addr child_map(size_t bytes, int flags, int fd)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED)
        _exit(90);
    return (hi_addr)(uintptr_t)memory;
}

static inline void *child_pointer(hi_addr address)
{
    return (void *)(uintptr_t)address;
}

static inline int child_file(const char *path, hi_addr seed)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    static uint64_t content[CHILD_BYTES / 8];
    child_fill(content, CHILD_BYTES, seed);
    if (fd < 0 || write(fd, content, CHILD_BYTES) != CHILD_BYTES)
        _exit(91);
    return fd;
}

static inline void child_map_files(struct child_layout *layout, const char *directory)
{
    char path[256];
    snprintf(layout->odd_path, sizeof layout->odd_path, "%s/odd name\nwith \\ and (deleted)",
             directory);
    int fd = child_file(layout->odd_path, 5000);
    layout->file_private = child_map(CHILD_BYTES, MAP_PRIVATE, fd);
    /* one page of it is written: the rest is the file's */
    child_fill(child_pointer(layout->file_private + 8192), 4096, 5555);
    close(fd);
    snprintf(path, sizeof path, "%s/gone", directory);
    fd = child_file(path, 6000);
    layout->file_deleted = child_map(CHILD_BYTES, MAP_PRIVATE, fd);
    close(fd);
    unlink(path);
    snprintf(path, sizeof path, "%s/unwritten", directory);
    fd = child_file(path, 8000);
    layout->file_unwritten = child_map(CHILD_BYTES, MAP_PRIVATE, fd);
    close(fd);
    snprintf(path, sizeof path, "%s/shared", directory);
    fd = child_file(path, 7000);
    layout->file_shared = child_map(CHILD_BYTES, MAP_SHARED, fd);
    child_fill(child_pointer(layout->file_shared), 4096, 7777);
    close(fd);
}

static inline void child_map_all(struct child_layout *layout, const char *directory)
{
    const int private = MAP_PRIVATE | MAP_ANONYMOUS;
    layout->anonymous = child_map(CHILD_BYTES, private, -1);
    child_fill(child_pointer(layout->anonymous), CHILD_BYTES, 1000);
    layout->no_access = child_map(CHILD_BYTES, private, -1);
    child_fill(child_pointer(layout->no_access), CHILD_BYTES, 2000);
    mprotect(child_pointer(layout->no_access), CHILD_BYTES, PROT_NONE);
    layout->untouched = child_map(CHILD_BYTES, private | MAP_NORESERVE, -1);
    layout->shared = child_map(CHILD_BYTES, MAP_SHARED | MAP_ANONYMOUS, -1);
    child_fill(child_pointer(layout->shared), CHILD_BYTES, 3000);
    layout->sparse = child_map(CHILD_SPARSE_PAGES * 4096UL, private, -1);
    madvise(child_pointer(layout->sparse), CHILD_SPARSE_PAGES * 4096UL, MADV_NOHUGEPAGE);
    child_fill(child_pointer(layout->sparse + 3 * 4096), 2 * 4096, 4000);
    child_fill(child_pointer(layout->sparse + 700 * 4096), 4096, 4001);
    /* read only: the kernel puts its page of zeros there */
    (void)*(volatile char *)child_pointer(layout->sparse + 100 * 4096);
    layout->comb = child_map(CHILD_COMB_PAGES * 4096UL, private, -1);
    madvise(child_pointer(layout->comb), CHILD_COMB_PAGES * 4096UL, MADV_NOHUGEPAGE);
    for (int i = 0; i < CHILD_COMB_PAGES; i += 2)
        *(char *)child_pointer(layout->comb + (unsigned)i * 4096U) = 1;
    child_map_files(layout, directory);
}

static inline void *child_sleeper(void *context)
{
    struct child_layout *layout = context;
    for (;;) {
        __atomic_fetch_add(&layout->beats, 1, __ATOMIC_RELAXED);
        usleep(20000);
    }
    return NULL;
}

/* A thread with known values in rbx, xmm7 and the upper half of ymm9, that never leaves user mode.
 */
static inline void *child_register_holder(void *context)
{
    struct child_layout *layout = context;
    layout->second_tid = (uint64_t)syscall(SYS_gettid);
    uint64_t vector[4] = {CHILD_VECTOR_LOW, CHILD_VECTOR_HIGH, CHILD_VECTOR_HIGH ^ 1,
                          CHILD_VECTOR_LOW ^ 1};
    __asm__ volatile(
        "mov %[magic], %%rbx\n\t"
        "movdqu (%[vector]), %%xmm7\n\t"
        "mov %%rsp, (%[stack])\n\t"
        "mfence\n\t"
        "movq $1, (%[ready])\n"
        "1:\tpause\n\t"
        "incq (%[beats])\n\t"
        "jmp 1b"
        :
        : [magic] "r"(CHILD_REGISTER), [vector] "r"(vector), [stack] "r"(&layout->registers_stack),
          [ready] "r"(&layout->ready), [beats] "r"(&layout->beats)
        : "rbx", "xmm7", "memory");
    return NULL;
}

static inline void child_wait_ready(struct child *child)
{
    (void)CHILD_AWAIT(child->layout->ready);
}

static inline void child_prepare(struct child *child)
{
    memset(child, 0, sizeof *child);
    child->layout = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    child->layout->counter = (hi_addr)(uintptr_t)&child->layout->beats;
    snprintf(child->directory, sizeof child->directory, "/tmp/target.XXXXXX");
    if (!mkdtemp(child->directory))
        exit(99);
    fflush(stdout);
}

/* A quiet child with threads further threads: one holds registers, the others sleep. */
static inline void child_start(struct child *child, int threads)
{
    child_prepare(child);
    child->pid = fork();
    if (child->pid == 0) {
        pthread_attr_t small;
        pthread_t thread;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 64 * 1024);
        child_map_all(child->layout, child->directory);
        struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
        if (chdir(child->directory) || setrlimit(RLIMIT_CORE, &all))
            _exit(93);
        for (int i = 1; i < threads; i++)
            if (pthread_create(&thread, &small, child_sleeper, child->layout))
                _exit(92);
        if (threads)
            pthread_create(&thread, &small, child_register_holder, child->layout);
        else
            child->layout->ready = 1;
        for (;;)
            pause();
    }
    child_wait_ready(child);
}

static struct child_layout *child_signal_layout;

static inline void child_count_signal(int signal)
{
    (void)signal;
    __atomic_fetch_add(&child_signal_layout->signals, 1, __ATOMIC_RELAXED);
}

static inline void *child_brief_thread(void *context)
{
    struct child_layout *layout = context;
    /* long enough that one that was overlooked is seen to move */
    for (int i = 0; i < 50000; i++)
        __atomic_fetch_add(&layout->beats, 1, __ATOMIC_RELAXED);
    return NULL;
}

/* A child that does nothing but start threads and wait for them. */
static inline void child_start_churn(struct child *child)
{
    child_prepare(child);
    child->pid = fork();
    if (child->pid == 0) {
        child_signal_layout = child->layout;
        signal(SIGRTMIN, child_count_signal);
        child->layout->ready = 1;
        for (;;) {
            pthread_t threads[8];
            int started = 0;
            while (started < 8 &&
                   !pthread_create(&threads[started], NULL, child_brief_thread, child->layout))
                started++;
            while (started)
                pthread_join(threads[--started], NULL);
        }
    }
    child_wait_ready(child);
}

static inline void child_remove_files(struct child *child)
{
    char path[256];
    unlink(child->layout->odd_path);
    snprintf(path, sizeof path, "%s/shared", child->directory);
    unlink(path);
    snprintf(path, sizeof path, "%s/unwritten", child->directory);
    unlink(path);
    snprintf(path, sizeof path, "%s/core", child->directory);
    unlink(path);
    rmdir(child->directory);
}

static inline void child_end(struct child *child)
{
    if (!child->ended) {
        kill(child->pid, SIGKILL);
        waitpid(child->pid, NULL, 0);
    }
    child_remove_files(child);
    munmap(child->layout, 4096);
}

/* Does its counter move? */
static inline bool child_still_runs(struct child *child)
{
    uint64_t before = child->layout->beats;
    return CHILD_AWAIT(child->layout->beats != before);
}

/* By /proc: is every thread in one of these states, or ending? */
static inline bool child_threads_are(pid_t pid, const char *states)
{
    pid_vector tids = {0};
    bool all = proc_list_threads(pid, &tids, NULL) == HI_OK;
    for (size_t i = 0; all && i < tids.count; i++) {
        struct proc_status status;
        if (proc_read_thread_status(pid, tids.items[i], &status))
            all = strchr("ZX", status.state) || strchr(states, status.state);
    }
    VECTOR_FREE(&tids);
    return all;
}

/* Kill it so that it dumps core; the file is named core in its directory. False: no core came. */
static inline bool child_dump(struct child *child)
{
    char path[256];
    kill(child->pid, SIGABRT);
    int status = 0;
    child->ended = waitpid(child->pid, &status, 0) == child->pid;
    snprintf(path, sizeof path, "%s/core", child->directory);
    if (access(path, R_OK) == 0)
        return true;
    /* core_uses_pid */
    char other[300];
    snprintf(other, sizeof other, "%s.%d", path, (int)child->pid);
    return rename(other, path) == 0;
}

/* ---- what a target says against what the child knows ---- */

static inline void child_check_bytes(struct target *target, hi_addr address, size_t bytes,
                                     hi_addr seed, const char *what)
{
    static uint64_t buffer[CHILD_BYTES / 8];
    struct hi_err err = {0};
    memset(buffer, 0x55, sizeof buffer);
    enum hi_code code = target_read(target, address, buffer, bytes, &err);
    if (!ok(code == HI_OK && child_is_filled(buffer, bytes, seed), "%s", what))
        printf("#   %s\n", code == HI_OK ? "other bytes" : err.message);
}

static inline bool child_all_zero(const void *memory, size_t bytes)
{
    const unsigned char *at = memory;
    for (size_t i = 0; i < bytes; i++)
        if (at[i])
            return false;
    return true;
}

static inline void child_check_memory(struct child *child, struct target *target,
                                      enum child_view view)
{
    struct child_layout *layout = child->layout;
    static unsigned char zeros[CHILD_BYTES];
    child_check_bytes(target, layout->anonymous, CHILD_BYTES, 1000, "anonymous memory");
    child_check_bytes(target, layout->no_access, CHILD_BYTES, 2000, "memory set to PROT_NONE");
    child_check_bytes(target, layout->shared, CHILD_BYTES, 3000, "shared memory");
    child_check_bytes(target, layout->sparse + 700 * 4096, 4096, 4001,
                      "a page of a sparse mapping");
    child_check_bytes(target, layout->file_private + 8192, 4096, 5555,
                      "a written private file page");
    memset(zeros, 1, sizeof zeros);
    ok(target_read(target, layout->untouched, zeros, sizeof zeros, NULL) == HI_OK &&
           child_all_zero(zeros, sizeof zeros),
       "untouched memory is zeros");
    child_check_bytes(target, layout->file_private, 8192, 5000,
                      "pages of a private file beside a written one");
    if (view == CHILD_LIVE) {
        child_check_bytes(target, layout->file_unwritten, CHILD_BYTES, 8000,
                          "a private file that nobody wrote");
        child_check_bytes(target, layout->file_deleted, CHILD_BYTES, 6000, "a deleted file");
        child_check_bytes(target, layout->file_shared, 4096, 7777, "a shared file");
    }
    const struct mapping *odd = target_mapping_at(target, layout->file_private);
    if (view == CHILD_GCORE) /* gdb writes the newline as \012 */
        ok(odd && strstr(odd->path, "odd name"), "a path with newline and backslash");
    else
        is_text(odd ? odd->path : NULL, layout->odd_path, "a path with newline and backslash");
    const struct mapping *guard = target_mapping_at(target, layout->no_access);
    ok(guard && guard->start <= layout->no_access, "the PROT_NONE mapping is listed");
    ok(!target_mapping_at(target, 4096), "nothing lies at 4096");
    uint64_t value;
    struct hi_err err = {0};
    ok(target_read_u64(target, 4096, &value, &err) == HI_FAULT && err.has_address &&
           err.address == 4096 && strstr(err.message, "is not mapped"),
       "and reading there says so");
    ok(target_read_u64(target, UINT64_MAX - 3, &value, &err) == HI_FAULT, "nor at the very end");
}

static inline bool child_find_bytes(const struct thread *thread, const void *bytes, size_t count)
{
    const char *state = thread->vector_state;
    for (size_t at = 0; state && at + count <= thread->vector_state_bytes; at += 8)
        if (memcmp(state + at, bytes, count) == 0)
            return true;
    return false;
}

static inline void child_check_registers(struct child *child, struct target *target)
{
    const struct thread *thread = NULL;
    for (size_t i = 0; i < target_thread_count(target); i++)
        if (target_thread(target, i)->tid == (pid_t)child->layout->second_tid)
            thread = target_thread(target, i);
    if (!ok(thread && thread->has_registers, "the second thread has registers"))
        return;
    const uint64_t vector[2] = {CHILD_VECTOR_LOW, CHILD_VECTOR_HIGH};
    is_u64(thread->registers[5], CHILD_REGISTER, "its rbx");
    is_u64(thread->sp, child->layout->registers_stack, "its stack pointer");
    ok(child_find_bytes(thread, vector, sizeof vector), "its xmm7");
    uint64_t self = 0;
    ok(target_read_u64(target, thread->fs_base + 16, &self, NULL) == HI_OK &&
           self == thread->fs_base,
       "fs_base leads to a thread control block that points to itself");
}

#endif
