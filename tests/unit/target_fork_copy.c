/*
 * A copy made by a fork in the process: it stands still while the process runs on, and the process
 * notices nothing: no call interrupted, no signal lost, no child that it did not make, registers as
 * they were.
 */
#include "target/backend.h"
#include "unit/tap.h"
#include "unit/target_child.h"

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

static struct target *open_copy(pid_t pid, struct hi_err *err)
{
    const struct target_options options = {.fork_copy = true};
    struct target *target = NULL;
    enum hi_code code = target_open_process(&target, pid, &options, err);
    return code == HI_OK ? target : NULL;
}

/* Processes of a process group, by /proc: the child and its copies. */
static int group_members(pid_t group)
{
    int count = 0;
    DIR *directory = opendir("/proc");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        count += pid > 0 && getpgid(pid) == group;
    }
    if (directory)
        closedir(directory);
    return count;
}

/* Init needs a moment to reap. */
static bool is_alone(pid_t group)
{
    for (int i = 0; i < 5000; i++) {
        if (group_members(group) == 1)
            return true;
        usleep(1000);
    }
    return false;
}

static void test_memory(void)
{
    struct child child;
    child_start(&child, 3);
    setpgid(child.pid, child.pid);
    struct hi_err err = {0};
    struct target *target = open_copy(child.pid, &err);
    if (ok(target != NULL, "a copy is made"))
        is_u64((uint64_t)group_members(child.pid), 2, "there are two processes now");
    else
        printf("#   %s\n", err.message);
    ok(child_still_runs(&child), "the process runs on before the copy is read");
    if (target) {
        child_check_memory(&child, target, CHILD_LIVE);
        child_check_registers(&child, target);
        struct hi_range ranges[8];
        hi_addr end = child.layout->sparse + CHILD_SPARSE_PAGES * 4096ULL;
        is_u64(target_contents(target, child.layout->sparse, end, ranges, 8), 2,
               "untouched pages are told in the copy");
        target_release(target);
        ok(target_stopped_seconds(target) > 0, "it was stopped for a while");
        ok(is_alone(child.pid), "the copy is gone after the release");
        char byte;
        ok(target_peek(target, child.layout->anonymous, &byte, 1) == 1, "hints come from the live");
        ok(target_complete(target), "complete");
    }
    target_close(target);
    child_end(&child);
}

/* ---- a process that would notice ---- */

static struct child_layout *notes; /* beats: of counter; signals: SIGRTMIN; sent: anything odd */
static volatile uint64_t counter;  /* private memory */

static void note_odd(int signal)
{
    (void)signal;
    __atomic_fetch_add(&notes->sent, 1, __ATOMIC_RELAXED);
}

static void *sleep_long(void *context)
{
    const struct timespec hour = {.tv_sec = 3600};
    nanosleep(&hour, NULL);
    note_odd(0);
    return context;
}

static void *poll_long(void *context)
{
    poll(NULL, 0, 3600 * 1000);
    note_odd(0);
    return context;
}

static void *read_nothing(void *context)
{
    int ends[2];
    char byte;
    if (pipe(ends) == 0 && read(ends[0], &byte, 1) != 1)
        note_odd(0);
    return context;
}

static void *expect_no_child(void *context)
{
    for (;;) {
        if (waitpid(-1, NULL, WNOHANG | __WALL) != -1 || errno != ECHILD)
            note_odd(0);
        usleep(100);
    }
    return context;
}

static void *count_up(void *context)
{
    for (;;) {
        counter++;
        notes->beats++;
    }
    return context;
}

static void be_watchful(void)
{
    void *(*const bodies[])(void *) = {sleep_long, poll_long, read_nothing, expect_no_child,
                                       count_up};
    pthread_t thread;
    sigset_t counted;
    sigemptyset(&counted);
    sigaddset(&counted, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &counted, NULL); /* one thread takes them, in no other's call */
    signal(SIGRTMIN, child_count_signal);
    signal(SIGCHLD, note_odd);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        pthread_create(&thread, NULL, bodies[i], NULL);
    notes->ready = 1;
    for (int number;;)
        if (sigwait(&counted, &number) == 0)
            child_count_signal(number);
}

static void start_watchful(struct child *child, void (*before)(void))
{
    child_prepare(child);
    notes = child_signal_layout = child->layout;
    child->pid = fork();
    if (child->pid == 0) {
        if (before)
            before();
        be_watchful();
    }
    setpgid(child->pid, child->pid);
    child_wait_ready(child);
}

static void test_stands_still(struct child *child)
{
    struct target *target = open_copy(child->pid, NULL);
    uint64_t first = 0, second = 0, live = child->layout->beats;
    if (!ok(target && target_read_u64(target, (hi_addr)(uintptr_t)&counter, &first, NULL) == HI_OK,
            "a copy of a busy process is read"))
        return;
    while (child->layout->beats < live + 1000) /* it has run on */
        usleep(100);
    ok(target_read_u64(target, (hi_addr)(uintptr_t)&counter, &second, NULL) == HI_OK &&
           first == second && first != 0,
       "and stands still");
    target_close(target);
    ok(is_alone(child->pid), "closing ends the copy too");
}

static void test_unnoticed(struct child *child)
{
    enum { COPIES = 200 };
    union sigval value = {0};
    uint64_t sent = 0, made = 0;
    double worst = 0;
    for (int i = 0; i < COPIES; i++) {
        for (int burst = i % 7; burst > 0; burst--)
            sent += sigqueue(child->pid, SIGRTMIN, value) == 0;
        struct target *target = open_copy(child->pid, NULL);
        sent += sigqueue(child->pid, SIGRTMIN, value) == 0;
        made += target != NULL;
        target_release(target);
        if (target && target_stopped_seconds(target) > worst)
            worst = target_stopped_seconds(target);
        target_close(target);
        usleep((unsigned)(i * 37 % 1000));
    }
    is_u64(made, COPIES, "copies are made, one after the other");
    for (int i = 0; i < 5000 && child->layout->signals < sent; i++)
        usleep(1000);
    is_u64(child->layout->signals, sent, "no signal was lost");
    is_u64(child->layout->sent, 0, "no call was interrupted, no strange child was seen");
    ok(child_still_runs(child), "and it runs on");
    ok(is_alone(child->pid), "no copy is left");
    printf("#   longest stop %.1f ms\n", 1000 * worst);
}

/* The inspector is killed: the copy goes with it, the process does not. */
static void test_killed_inspector(struct child *child)
{
    int ends[2];
    char byte = 0;
    if (pipe(ends) != 0)
        return;
    fflush(stdout);
    pid_t inspector = fork();
    if (inspector == 0) {
        struct target *target = open_copy(child->pid, NULL);
        byte = target ? 'y' : 'n';
        (void)!write(ends[1], &byte, 1);
        for (;;)
            pause();
    }
    ok(read(ends[0], &byte, 1) == 1 && byte == 'y', "another process makes a copy");
    kill(inspector, SIGKILL);
    waitpid(inspector, NULL, 0);
    ok(is_alone(child->pid), "killed, its copy is gone");
    ok(child_still_runs(child) && child->layout->sent == 0, "and the process runs on");
    close(ends[0]);
    close(ends[1]);
}

/* ---- refusals ---- */

static void filter_nothing(void)
{
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {1, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        notes->quit = 1;
}

static void refuses(struct child *child, const char *words, const char *what)
{
    struct hi_err err = {0};
    struct target *target = open_copy(child->pid, &err);
    if (!ok(!target && err.code == HI_REFUSED && strstr(err.message, words), "refused: %s", what))
        printf("#   %s\n", err.message);
    target_close(target);
}

static void test_seccomp(void)
{
    struct child child;
    start_watchful(&child, filter_nothing);
    if (child.layout->quit)
        ok(true, "seccomp # SKIP no filters here");
    else
        refuses(&child, "seccomp", "a process with a seccomp filter");
    ok(child_still_runs(&child), "which runs on");
    child_end(&child);
}

static void test_job_stopped(struct child *child)
{
    siginfo_t info;
    kill(child->pid, SIGSTOP);
    waitid(P_PID, (id_t)child->pid, &info, WSTOPPED | WNOWAIT);
    refuses(child, "no thread", "a process that its user has stopped");
    ok(!child_still_runs(child), "which stays stopped");
    kill(child->pid, SIGCONT);
    ok(child_still_runs(child), "until it is let go on");
}

/* The copy would fall to it: the init of a pid namespace. */
static void test_init(void)
{
    struct child child;
    child_prepare(&child);
    notes = child_signal_layout = child.layout;
    pid_t middle = fork();
    if (middle == 0) {
        if (unshare(CLONE_NEWPID) != 0)
            _exit(77);
        pid_t init = fork();
        if (init == 0) {
            setpgid(0, 0);
            be_watchful();
        }
        child.layout->second_tid = (uint64_t)init;
        _exit(init > 0 ? 0 : 77);
    }
    int status = 0;
    waitpid(middle, &status, 0);
    child.ended = true;
    if (WEXITSTATUS(status) == 77) {
        ok(true, "init of a pid namespace # SKIP not allowed to make one");
    } else {
        child_wait_ready(&child);
        child.pid = (pid_t)child.layout->second_tid;
        refuses(&child, "init", "the init of a container");
        ok(child_still_runs(&child), "which runs on");
        ok(is_alone(child.pid), "and has no strange child");
        kill(child.pid, SIGKILL);
    }
    child_end(&child);
}

int main(void)
{
    struct child child;
    test_memory();
    start_watchful(&child, NULL);
    test_stands_still(&child);
    test_unnoticed(&child);
    test_killed_inspector(&child);
    test_job_stopped(&child);
    child_end(&child);
    test_seccomp();
    test_init();
    return done();
}
