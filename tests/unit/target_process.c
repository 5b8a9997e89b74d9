/*
 * Live processes: a child fills memory that it knows, the parent reads it through a target.
 * The layout lies in a shared page, so that what is compared comes from the child itself.
 */
#include "target/backend.h"
#include "unit/tap.h"
#include "unit/target_child.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct target *open_live(pid_t pid)
{
    struct hi_err err = {0};
    struct target *target = NULL;
    enum hi_code code = target_open_process(&target, pid, NULL, &err);
    if (!ok(code == HI_OK, "process opens"))
        printf("#   %s\n", err.message);
    return target;
}

static void test_memory(struct child *child)
{
    struct target *target = open_live(child->pid);
    if (!target)
        return;
    ok(target_kind(target) == TARGET_PROCESS && target_pid(target) == child->pid, "kind and pid");
    ok(target_complete(target), "complete");
    child_check_memory(child, target, CHILD_LIVE);
    child_check_registers(child, target);
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    is_text(target_executable(target), path, "executable");
    uint64_t entry;
    ok(target_auxv(target, 25, &entry), "AT_RANDOM is there");
    target_release(target);
    ok(target_stopped_seconds(target) > 0, "stopped for a while");
    char byte;
    struct hi_err err;
    ok(target_read(target, child->layout->anonymous, &byte, 1, &err) == HI_FAULT &&
           strstr(err.message, "was let go"),
       "no reading after release");
    ok(target_peek(target, child->layout->anonymous, &byte, 1) == 1, "but a hint may be had");
    target_close(target);
}

static void test_untouched_stays_untouched(struct child *child)
{
    struct target *target = open_live(child->pid);
    struct hi_range ranges[8];
    hi_addr start = child->layout->sparse, end = start + CHILD_SPARSE_PAGES * 4096ULL;
    size_t count = target_contents(target, start, end, ranges, 8);
    is_u64(count, 2, "sparse mapping: two ranges");
    is_u64(ranges[0].start, start + 3 * 4096, "first starts at page 3");
    is_u64(ranges[0].end, start + 5 * 4096, "and has two pages");
    is_u64(ranges[1].start, start + 700 * 4096, "second at page 700");
    struct hi_range one;
    ok(target_next_content(target, start + 4 * 4096 + 100, end, &one) &&
           one.start == start + 4 * 4096 + 100 && one.end == start + 5 * 4096,
       "a start in the middle of a page stays");
    ok(!target_next_content(target, start + 701 * 4096, end, &one), "nothing behind the last");
    target_close(target);
}

static void test_two_scans_agree(struct child *child)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)child->pid);
    int pagemap = open(path, O_RDONLY);
    enum { CAPACITY = 4096 };
    static struct hi_range a[CAPACITY], b[CAPACITY];
    size_t a_count = 0, b_count = 0;
    hi_addr start = child->layout->comb, end = start + CHILD_COMB_PAGES * 4096ULL;
    ok(content_by_pagemap(pagemap, start, end, 4096, b, CAPACITY, &b_count), "pagemap is read");
    is_u64(b_count, CHILD_COMB_PAGES / 2, "every other page has content");
    if (content_by_ioctl(pagemap, start, end, a, CAPACITY, &a_count)) {
        is_u64(a_count, b_count, "PAGEMAP_SCAN finds as many runs");
        ok(memcmp(a, b, b_count * sizeof *a) == 0, "and the same");
    } else {
        ok(true, "PAGEMAP_SCAN # SKIP this kernel has none");
    }
    /* one by one, as target_next_content does */
    size_t steps = 0;
    hi_addr from = start;
    for (struct hi_range range; from < end && steps < CAPACITY; steps++, from = range.end) {
        size_t got = 0;
        if (!content_scan(pagemap, from, end, 4096, &range, 1, &got) || !got)
            break;
    }
    is_u64(steps, CHILD_COMB_PAGES / 2, "one range a call finds them all");
    close(pagemap);
}

static uint64_t pss_bytes(pid_t pid)
{
    char *text = proc_read_file(pid, "smaps_rollup", NULL);
    const char *line = text ? strstr(text, "\nPss:") : NULL;
    uint64_t bytes = line ? strtoull(line + 5, NULL, 10) * 1024 : 0;
    free(text);
    return bytes;
}

/* Parent and child share 32 MiB copy-on-write: reading must not part them. */
static void test_shared_pages_stay_shared(void)
{
    enum { BYTES = 32 << 20 };
    char *shared = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(shared, 7, BYTES);
    struct child child;
    child_start(&child, 0);
    uint64_t before = pss_bytes(child.pid);
    struct target *target = open_live(child.pid);
    char *copy = malloc(BYTES);
    ok(target_read(target, (hi_addr)(uintptr_t)shared, copy, BYTES, NULL) == HI_OK &&
           memcmp(copy, shared, BYTES) == 0,
       "shared pages are read");
    uint64_t after = pss_bytes(child.pid);
    ok(after < before + (BYTES >> 4), "and are still shared");
    printf("#   Pss %" PRIu64 " -> %" PRIu64 "\n", before, after);
    free(copy);
    target_close(target);
    child_end(&child);
    munmap(shared, BYTES);
}

/* Containers forbid process_vm_readv: /proc/PID/mem serves instead. */
static void test_readv_forbidden(struct child *child)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    fflush(stdout);
    pid_t confined = fork();
    if (confined == 0) {
        static uint64_t buffer[CHILD_BYTES / 8];
        struct target *target = NULL;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
            _exit(77);
        bool read =
            target_open_process(&target, child->pid, NULL, NULL) == HI_OK &&
            target_read(target, child->layout->anonymous, buffer, sizeof buffer, NULL) == HI_OK &&
            child_is_filled(buffer, sizeof buffer, 1000);
        target_close(target);
        _exit(!read);
    }
    int status;
    waitpid(confined, &status, 0);
    if (WEXITSTATUS(status) == 77)
        ok(true, "process_vm_readv forbidden # SKIP no seccomp");
    else
        ok(status == 0, "process_vm_readv forbidden: read all the same");
}

static void test_many_threads(void)
{
    struct child child;
    child_start(&child, 1000);
    struct target *target = open_live(child.pid);
    if (target) {
        is_u64(target_thread_count(target), 1001, "a thousand and one threads");
        size_t with_registers = 0, in_order = 0, named = 0;
        char own_name[16] = ""; /* the child's threads have inherited it */
        prctl(PR_GET_NAME, own_name);
        for (size_t i = 0; i < target_thread_count(target); i++) {
            const struct thread *thread = target_thread(target, i);
            with_registers += thread->has_registers && target_mapping_at(target, thread->sp);
            named += strcmp(thread->name, own_name) == 0;
            in_order += i == 0 || thread->tid > target_thread(target, i - 1)->tid;
        }
        is_u64(with_registers, 1001, "each with a stack pointer into a mapping");
        is_u64(in_order, 1001, "in order of their ids");
        is_u64(named, 1001, "and with their names");
        target_release(target);
        printf("#   stopped for %.1f ms\n", 1000 * target_stopped_seconds(target));
    }
    target_close(target);
    ok(child_still_runs(&child), "and they run on");
    child_end(&child);
}

/* Threads come and go while we stop them. */
static void test_churning_threads(void)
{
    enum { ROUNDS = 150 };
    struct child child;
    child_start_churn(&child);
    int good = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct target *target = NULL;
        if (target_open_process(&target, child.pid, NULL, NULL) != HI_OK)
            continue;
        uint64_t first = 0, second = 1;
        bool read = target_read_u64(target, child.layout->counter, &first, NULL) == HI_OK;
        read = read && child_threads_are(child.pid, "t");
        usleep(200);
        read = read && target_read_u64(target, child.layout->counter, &second, NULL) == HI_OK;
        good += read && first == second;
        target_close(target);
        usleep((unsigned)round * 7 % 300);
    }
    is_u64((uint64_t)good, ROUNDS, "nothing moves while a churning process is stopped");
    ok(child_still_runs(&child), "and it runs on");
    child_end(&child);
}

/* The inspector is killed while it holds the target: the kernel lets the target go. */
static void test_killed_inspector(void)
{
    struct child child;
    int pipe_ends[2];
    child_start_churn(&child);
    if (pipe(pipe_ends) != 0)
        return;
    pid_t inspector = fork();
    if (inspector == 0) {
        struct target *target = NULL;
        char answer = target_open_process(&target, child.pid, NULL, NULL) == HI_OK ? 'y' : 'n';
        (void)!write(pipe_ends[1], &answer, 1);
        for (;;)
            pause();
    }
    char answer = 0;
    ok(read(pipe_ends[0], &answer, 1) == 1 && answer == 'y', "a helper holds the target");
    ok(child_threads_are(child.pid, "t"), "it stands still");
    kill(inspector, SIGKILL);
    waitpid(inspector, NULL, 0);
    ok(child_still_runs(&child), "the helper is killed: it runs on");
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    child_end(&child);
}

/* Signals that arrive at the moment of the stop are neither lost nor doubled. Real-time ones queue,
 * so that each can be counted. */
static void test_signals_survive(void)
{
    enum { STOPS = 150 };
    struct child child;
    child_start_churn(&child);
    struct child_layout *layout = child.layout;
    pid_t sender = fork();
    if (sender == 0) {
        while (!layout->quit) {
            layout->sent += sigqueue(child.pid, SIGRTMIN, (union sigval){0}) == 0;
            for (volatile int pause = 0; pause < 5000; pause++)
                ;
        }
        _exit(0);
    }
    for (int i = 0; i < STOPS; i++) {
        struct target *target = NULL;
        if (target_open_process(&target, child.pid, NULL, NULL) == HI_OK)
            target_close(target);
    }
    layout->quit = 1;
    waitpid(sender, NULL, 0);
    (void)CHILD_AWAIT(layout->signals >= layout->sent);
    is_u64(layout->signals, layout->sent, "each signal is handled once");
    printf("#   %" PRIu64 " signals\n", layout->sent);
    child_end(&child);
}

static void expect_refusal(pid_t pid, enum hi_code wanted, const char *text, const char *what)
{
    struct target *target = NULL;
    struct hi_err err = {0};
    enum hi_code code = target_open_process(&target, pid, NULL, &err);
    if (!ok(code == wanted && strstr(err.message, text) && !target, "%s", what))
        printf("#   code %d: %s\n", code, err.message);
    target_close(target);
}

static void test_refusals(struct child *child)
{
    expect_refusal(getpid(), HI_USAGE, "is heapinspect itself", "not itself");
    expect_refusal(0, HI_USAGE, "is not a process id", "not zero");
    expect_refusal(0x3fffffff, HI_REFUSED, "there is no process", "no such process");
    if (kill(2, 0) == 0 || errno == EPERM)
        expect_refusal(2, HI_REFUSED, "kernel thread", "no kernel thread");
    pid_t zombie = fork();
    if (zombie == 0)
        _exit(0);
    siginfo_t info;
    waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT);
    expect_refusal(zombie, HI_REFUSED, "is a zombie", "no zombie");
    waitpid(zombie, NULL, 0);
    expect_refusal((pid_t)child->layout->second_tid, HI_USAGE, "is a thread of process",
                   "a thread is not a process");
}

/* What a plain user gets to see; only root can become one. */
static void test_refusals_as_user(struct child *child)
{
    if (geteuid() != 0) {
        ok(true, "refusals as another user # SKIP needs root");
        return;
    }
    fflush(stdout);
    pid_t user = fork();
    if (user == 0) {
        struct hi_err err = {0};
        struct target *target = NULL;
        if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
            _exit(2);
        enum hi_code code = target_open_process(&target, child->pid, NULL, &err);
        _exit(code == HI_REFUSED && strstr(err.message, "belongs to uid 0") ? 0 : 1);
    }
    int status;
    waitpid(user, &status, 0);
    ok(status == 0, "another user's process: says whose it is");
}

static void test_undumpable(void)
{
    if (geteuid() != 0) {
        ok(true, "undumpable # SKIP needs root");
        return;
    }
    fflush(stdout);
    pid_t user = fork();
    if (user == 0) {
        if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
            _exit(2);
        prctl(PR_SET_DUMPABLE, 1);
        int ready[2];
        if (pipe(ready))
            _exit(3);
        pid_t hidden = fork();
        if (hidden == 0) {
            prctl(PR_SET_DUMPABLE, 0);
            (void)!write(ready[1], "", 1);
            for (;;)
                pause();
        }
        char byte;
        (void)!read(ready[0], &byte, 1);
        struct hi_err err = {0};
        struct target *target = NULL;
        enum hi_code code = target_open_process(&target, hidden, NULL, &err);
        kill(hidden, SIGKILL);
        waitpid(hidden, NULL, 0);
        _exit(code == HI_REFUSED && strstr(err.message, "undumpable") ? 0 : 1);
    }
    int status;
    waitpid(user, &status, 0);
    ok(status == 0, "an undumpable process: says so");
}

/* Stopped by a tracer that is not us: read as it stands. */
static void test_held(void)
{
    struct child child;
    child_start(&child, 1);
    pid_t tids[2] = {child.pid, (pid_t)child.layout->second_tid};
    int ready[2];
    if (pipe(ready))
        return;
    fflush(stdout);
    pid_t debugger = fork();
    if (debugger == 0) {
        for (int i = 0; i < 2; i++)
            if (ptrace(PTRACE_ATTACH, tids[i], NULL, NULL) || waitpid(tids[i], NULL, __WALL) < 0)
                _exit(1);
        (void)!write(ready[1], "", 1);
        for (;;)
            pause();
    }
    char byte;
    ok(read(ready[0], &byte, 1) == 1, "a debugger holds the child");
    struct target *target = open_live(child.pid);
    if (target) {
        is_u64((uint64_t)target_held_by(target), (uint64_t)debugger, "held by the debugger");
        child_check_memory(&child, target, CHILD_LIVE);
        is_u64(target_thread_count(target), 2, "both threads are known");
        const struct thread *first = target_thread(target, 0);
        ok(!first->has_registers && target_mapping_at(target, first->sp),
           "without registers, but for SP");
        struct thread given = {.tid = first->tid};
        uint64_t registers[THREAD_REGISTER_COUNT] = {[REGISTER_SP] = 42, [REGISTER_PC] = 43};
        thread_set_registers(&given, registers);
        ok(target_add_registers(target, &given, NULL) == HI_OK && first->has_registers &&
               first->sp == 42 && first->name[0],
           "registers from the debugger take their place");
        target_release(target);
        ok(target_complete(target), "it did not run meanwhile");
    }
    target_close(target);
    kill(debugger, SIGKILL);
    waitpid(debugger, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    child_end(&child);
}

/* Traced, and running or only in part stopped: who holds it is said. */
static void test_traced_in_part(void)
{
    for (int which = 0; which < 2; which++) {
        struct child child;
        int ready[2];
        char who[64];
        child_start(&child, 1);
        if (pipe(ready))
            return;
        fflush(stdout);
        pid_t debugger = fork();
        if (debugger == 0) {
            pid_t tid = which ? (pid_t)child.layout->second_tid : child.pid;
            char answer = ptrace(PTRACE_SEIZE, tid, NULL, NULL) ? 'n' : 'y';
            (void)!write(ready[1], &answer, 1);
            for (;;)
                pause();
        }
        char answer = 0;
        ok(read(ready[0], &answer, 1) == 1 && answer == 'y', "a debugger traces one thread");
        snprintf(who, sizeof who, "(%d) and not stopped there", (int)debugger);
        expect_refusal(child.pid, HI_REFUSED, who, "refused, with the tracer's name and id");
        kill(debugger, SIGKILL);
        waitpid(debugger, NULL, 0);
        close(ready[0]);
        close(ready[1]);
        ok(child_still_runs(&child), "nothing was left stopped");
        child_end(&child);
    }
}

/* A held process that its debugger lets go in the middle. */
static void test_held_and_let_go(void)
{
    struct child child;
    int ready[2], go[2];
    child_start(&child, 0);
    if (pipe(ready) || pipe(go))
        return;
    fflush(stdout);
    pid_t debugger = fork();
    if (debugger == 0) {
        char byte;
        if (ptrace(PTRACE_ATTACH, child.pid, NULL, NULL) || waitpid(child.pid, NULL, __WALL) < 0)
            _exit(1);
        (void)!write(ready[1], "", 1);
        (void)!read(go[0], &byte, 1);
        ptrace(PTRACE_DETACH, child.pid, NULL, NULL);
        (void)!write(ready[1], "", 1);
        for (;;)
            pause();
    }
    char byte;
    (void)!read(ready[0], &byte, 1);
    struct target *target = open_live(child.pid);
    (void)!write(go[1], "", 1);
    (void)!read(ready[0], &byte, 1);
    siginfo_t info;
    kill(child.pid, SIGUSR2); /* it has to run to die of it */
    waitid(P_PID, (id_t)child.pid, &info, WEXITED | WNOWAIT);
    target_release(target);
    ok(!target_complete(target) && target_note_count(target) == 1 &&
           strstr(target_note(target, 0), "ran while it was read"),
       "a debugger that lets go in the middle is noticed");
    target_close(target);
    kill(debugger, SIGKILL);
    waitpid(debugger, NULL, 0);
    for (int i = 0; i < 2; i++)
        close(ready[i]), close(go[i]);
    child_end(&child);
}

/* main() has ended by pthread_exit, another thread goes on. */
static void test_leader_gone(void)
{
    struct child child;
    child_prepare(&child);
    child.pid = fork();
    if (child.pid == 0) {
        pthread_t thread;
        child_map_all(child.layout, child.directory);
        pthread_create(&thread, NULL, child_register_holder, child.layout);
        pthread_exit(NULL);
    }
    child_wait_ready(&child);
    struct proc_status status = {0};
    (void)CHILD_AWAIT(proc_read_status(child.pid, &status) && status.state == 'Z');
    ok(status.state == 'Z', "the main thread has ended");
    struct target *target = open_live(child.pid);
    if (target) {
        is_u64(target_thread_count(target), 1, "one thread lives");
        child_check_memory(&child, target, CHILD_LIVE);
        child_check_registers(&child, target);
    }
    target_close(target);
    ok(child_still_runs(&child), "and runs on");
    child_end(&child);
}

/* The parent in vfork can't be stopped: it is read without registers, said so, and let go. */
static void test_asleep_in_kernel(void)
{
    struct child child;
    child_prepare(&child);
    child.pid = fork();
    if (child.pid == 0) {
        child_map_all(child.layout, child.directory);
        pid_t shared = vfork();
        if (shared == 0) {
            child.layout->second_tid = (uint64_t)syscall(SYS_getpid);
            child.layout->ready = 1;
            for (;;)
                syscall(SYS_pause);
        }
        for (;;) {
            child.layout->beats++;
            usleep(1000);
        }
    }
    child_wait_ready(&child);
    struct target *target = open_live(child.pid);
    if (target) {
        uint64_t value = 0;
        ok(!target_complete(target) && target_note_count(target) == 1 &&
               strstr(target_note(target, 0), "sleeps in the kernel"),
           "a thread that can't be stopped is told");
        ok(!target_thread(target, 0)->has_registers &&
               target_mapping_at(target, target_thread(target, 0)->sp),
           "of its registers SP is known");
        ok(target_read_u64(target, child.layout->anonymous, &value, NULL) == HI_OK &&
               value == child_pattern(1000),
           "its memory is read");
        target_release(target);
        kill((pid_t)child.layout->second_tid, SIGKILL);
        ok(child_still_runs(&child), "and it runs on when it wakes, while we still live");
    }
    target_close(target);
    kill((pid_t)child.layout->second_tid, SIGKILL);
    child_end(&child);
}

static void test_killed_while_read(void)
{
    struct child child;
    child_start(&child, 1);
    struct target *target = open_live(child.pid);
    struct hi_err err = {0};
    uint64_t value;
    kill(child.pid, SIGKILL);
    /* gone when its memory is */
    (void)CHILD_AWAIT(target_read_u64(target, child.layout->anonymous, &value, &err) != HI_OK);
    is_u64(err.code, HI_FAULT, "a process that is killed while it is read faults");
    ok(strstr(err.message, "ended while it was being read"), "and the fault says so");
    target_close(target);
    child_end(&child);
}

/* SIGSTOPped before: stays stopped for its user, and can be read. */
static void test_stopped_before(void)
{
    struct child child;
    child_start_churn(&child);
    siginfo_t info;
    kill(child.pid, SIGSTOP);
    waitid(P_PID, (id_t)child.pid, &info, WSTOPPED | WNOWAIT);
    struct target *target = open_live(child.pid);
    uint64_t value;
    ok(target && target_read_u64(target, child.layout->counter, &value, NULL) == HI_OK,
       "a stopped process is read");
    target_close(target);
    ok(CHILD_AWAIT(child_threads_are(child.pid, "T")), "and is still stopped");
    kill(child.pid, SIGCONT);
    ok(child_still_runs(&child), "until its user lets it go on");
    child_end(&child);
}

int main(void)
{
    struct child child;
    child_start(&child, 1);
    test_memory(&child);
    test_untouched_stays_untouched(&child);
    test_two_scans_agree(&child);
    test_readv_forbidden(&child);
    test_refusals(&child);
    test_refusals_as_user(&child);
    child_end(&child);
    test_undumpable();
    test_shared_pages_stay_shared();
    test_many_threads();
    test_churning_threads();
    test_signals_survive();
    test_killed_inspector();
    test_held();
    test_held_and_let_go();
    test_traced_in_part();
    test_leader_gone();
    test_asleep_in_kernel();
    test_killed_while_read();
    test_stopped_before();
    return done();
}
