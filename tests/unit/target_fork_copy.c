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
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

static struct target *open_copy(pid_t pid, struct hi_err *err)
{
    const struct target_options options = {.fork_copy = true};
    struct target *target = NULL;
    enum hi_code code = target_open_process(&target, pid, &options, err);
    return code == HI_OK ? target : NULL;
}

/* Processes of a process group that live, by /proc: the child and its copies. What has ended stays
 * listed until init asks how: that is init's affair, and may take long. */
static int group_members(pid_t group)
{
    int count = 0;
    DIR *directory = opendir("/proc");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        struct proc_status status;
        count += pid > 0 && getpgid(pid) == group && proc_read_status(pid, &status) &&
                 !strchr("ZX", status.state);
    }
    if (directory)
        closedir(directory);
    return count;
}

/* A copy that nobody waited for ends some time after its tracer. */
static bool is_alone(pid_t group)
{
    return CHILD_AWAIT(group_members(group) == 1);
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
        is_u64((uint64_t)group_members(child.pid), 1, "the copy is gone after the release");
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

enum { STRANGE_CHILD = 2 };

static void *expect_no_child(void *context)
{
    for (;;) {
        if (waitpid(-1, NULL, WNOHANG | __WALL) != -1 || errno != ECHILD) {
            notes->quit = STRANGE_CHILD;
            note_odd(0);
        }
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

static void note_crash(int number)
{
    note_odd(number);
    _exit(1);
}

/* Of the process, and of a copy that does not stand still. */
static void crashes_are_odd(void)
{
    signal(SIGSEGV, note_crash);
    signal(SIGBUS, note_crash);
    signal(SIGILL, note_crash);
    signal(SIGTRAP, note_crash);
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
    crashes_are_odd();
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        pthread_create(&thread, NULL, bodies[i], NULL);
    notes->ready = 1;
    for (int number;;)
        if (sigwait(&counted, &number) == 0)
            child_count_signal(number);
}

static void start(struct child *child, void (*before)(void), void (*body)(void))
{
    child_prepare(child);
    notes = child_signal_layout = child->layout;
    child->pid = fork();
    if (child->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        if (before)
            before();
        body();
        _exit(0);
    }
    setpgid(child->pid, child->pid);
    child_wait_ready(child);
}

static void start_watchful(struct child *child, void (*before)(void))
{
    start(child, before, be_watchful);
}

static void test_stands_still(struct child *child)
{
    while (child->layout->beats == 0)
        usleep(100);
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
    is_u64((uint64_t)group_members(child->pid), 1, "closing ends the copy too");
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
    (void)CHILD_AWAIT(child->layout->signals >= sent);
    is_u64(child->layout->signals, sent, "no signal was lost");
    is_u64(child->layout->sent, 0, "no call was interrupted, no strange child was seen");
    ok(child_still_runs(child), "and it runs on");
    is_u64((uint64_t)group_members(child->pid), 1, "no copy is left");
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

/* ---- one thread, which has to be borrowed ---- */

enum { SLEEP_MS = 300 };
static int to_sleeper[2];

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Calls that the kernel starts again in each of its ways; none may end before its time. */
static void be_asleep(void)
{
    const struct timespec nap = {.tv_nsec = SLEEP_MS * 1000000L};
    sigset_t none;
    char byte = 0;
    sigemptyset(&none);
    signal(SIGRTMIN, child_count_signal);
    crashes_are_odd();
    notes->ready = 1;
    double before = seconds_now();
    if (nanosleep(&nap, NULL) != 0 || seconds_now() - before < SLEEP_MS / 1000.0)
        note_odd(0);
    notes->beats++;
    before = seconds_now();
    if (poll(NULL, 0, SLEEP_MS) != 0 || seconds_now() - before < SLEEP_MS / 1000.0)
        note_odd(0);
    notes->beats++;
    if (read(to_sleeper[0], &byte, 1) != 1 || byte != 'y')
        note_odd(0);
    notes->beats++;
    if (sigsuspend(&none) != -1 || errno != EINTR || notes->signals != 1)
        note_odd(0);
    notes->beats++;
    if (waitpid(-1, NULL, __WALL) != -1 || errno != ECHILD)
        note_odd(0);
    for (notes->beats++;;)
        pause();
}

static void test_asleep(void)
{
    static const char *const calls[] = {"nanosleep", "poll", "read", "sigsuspend"};
    struct child child;
    uint64_t made = 0;
    if (pipe(to_sleeper) != 0)
        return;
    start(&child, NULL, be_asleep);
    for (uint64_t step = 0; step < 4; step++) {
        for (int i = 0; i < 3; i++) {
            usleep(20000);
            struct target *target = open_copy(child.pid, NULL);
            made += target != NULL;
            target_close(target);
        }
        usleep(20000);
        ok(child.layout->beats == step || step < 2, "%s sleeps on", calls[step]);
        if (step == 2)
            (void)!write(to_sleeper[1], "y", 1);
        if (step == 3)
            kill(child.pid, SIGRTMIN);
        (void)CHILD_AWAIT(child.layout->beats > step);
    }
    (void)CHILD_AWAIT(child.layout->beats >= 5);
    is_u64(made, 12, "copies are made of a process of one thread that sleeps");
    is_u64(child.layout->beats, 5, "it goes from call to call");
    is_u64(child.layout->sent, 0, "and each ended as if nobody had been there");
    child_end(&child);
    close(to_sleeper[0]);
    close(to_sleeper[1]);
}

/* Signals that are delivered to the very thread, also while it is borrowed. */
static void be_signalled(void)
{
    signal(SIGRTMIN, child_count_signal);
    signal(SIGRTMIN + 1, child_count_signal);
    signal(SIGCHLD, note_odd);
    crashes_are_odd();
    notes->ready = 1;
    for (;;)
        counter++;
}

static void *signal_often(void *context)
{
    struct child *child = context;
    union sigval value = {0};
    for (int i = 0; !child->layout->quit; i++) {
        if (sigqueue(child->pid, SIGRTMIN + (i & 1), value) == 0)
            child->layout->second_tid++;
        /* bursts: one meets the moment at which the thread is stopped; but never so many that the
         * user's limit of waiting signals is reached: the kernel drops those that it cannot keep */
        if (i % 500 == 499)
            do
                usleep(2000);
            while (!child->layout->quit &&
                   child->layout->second_tid - child->layout->signals > 1000);
    }
    return NULL;
}

static void test_signalled(void)
{
    enum { COPIES = 60 };
    struct child child;
    pthread_t sender;
    struct hi_err err = {0};
    uint64_t made = 0;
    start(&child, NULL, be_signalled);
    pthread_create(&sender, NULL, signal_often, &child);
    for (int i = 0; i < COPIES; i++) {
        struct target *target = open_copy(child.pid, &err);
        made += target != NULL;
        target_close(target);
    }
    child.layout->quit = 1;
    pthread_join(sender, NULL);
    uint64_t sent = child.layout->second_tid;
    (void)CHILD_AWAIT(child.layout->signals >= sent);
    if (!is_u64(made, COPIES, "copies are made while signals come"))
        printf("#   %s\n", err.message);
    ok(child.layout->signals == sent, "each of %" PRIu64 " signals was handled (%" PRIu64 ")", sent,
       child.layout->signals);
    is_u64(child.layout->sent, 0, "and nothing else was");
    child_end(&child);
}

#if defined(RSEQ_SIG) && defined(__x86_64__)
/* A restartable sequence that is begun again for ever: undone when anything else runs. */
static void be_in_sequence(void)
{
    char *area = (char *)__builtin_thread_pointer() + __rseq_offset;
    notes->ready = 1;
    __asm__ volatile(".pushsection .data.rel, \"aw\"\n\t"
                     ".balign 32\n"
                     "1:\t.long 0, 0\n\t"
                     ".quad 2f, 3f - 2f, 4f\n\t"
                     ".popsection\n"
                     "5:\tleaq 1b(%%rip), %%rax\n\t"
                     "movq %%rax, %c[section](%[area])\n"
                     "2:\tincq (%[beats])\n\t"
                     "jmp 2b\n"
                     "3:\t.byte 0x0f, 0xb9, 0x3d\n\t"
                     ".long 0x53053053\n"
                     "4:\tjmp 5b"
                     :
                     : [area] "r"(area), [beats] "r"(&notes->beats),
                       [section] "i"(offsetof(struct rseq, rseq_cs))
                     : "rax", "memory");
}

static void test_sequence(void)
{
    struct child child;
    unsigned refused = 0, made = 0, tries = 0;
    if (__rseq_size == 0) {
        ok(true, "a restartable sequence # SKIP the C library has registered none");
        return;
    }
    start(&child, NULL, be_in_sequence);
    /* between two sequences, where the kernel has undone one, it can be copied */
    for (; tries < 1000 && refused < 10; tries++) {
        struct hi_err err = {0};
        struct target *target = open_copy(child.pid, &err);
        made += target != NULL;
        refused += !target && err.code == HI_REFUSED && strstr(err.message, "no thread") != NULL;
        target_close(target);
    }
    ok(refused == 10 && made + refused == tries,
       "refused: a thread in a restartable sequence (%u of %u)", refused, tries);
    ok(child_still_runs(&child), "which runs on");
    child_end(&child);
}
#else
static void test_sequence(void)
{
    ok(true, "a restartable sequence # SKIP not known to this C library");
}
#endif

/* ---- refusals ---- */

static void allow_no_more(void)
{
    struct rlimit one = {1, 1};
    if (setrlimit(RLIMIT_NPROC, &one) || (getuid() == 0 && setuid(65534)))
        notes->quit = 1;
}

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

static void test_no_more(void)
{
    struct child child;
    start(&child, allow_no_more, be_signalled);
    uint64_t before = child.layout->sent;
    refuses(&child, "cannot be copied", "a process that may not make another");
    child_end(&child);
    is_u64(before, 0, "which is left as it was");
}

static void test_job_stopped(struct child *child)
{
    siginfo_t info;
    kill(child->pid, SIGSTOP);
    waitid(P_PID, (id_t)child->pid, &info, WSTOPPED | WNOWAIT);
    refuses(child, "no thread", "a process that its user has stopped");
    ok(CHILD_AWAIT(child_threads_are(child->pid, "T")), "which stays stopped");
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
        ok(child.layout->quit != STRANGE_CHILD, "nor had one that it could have met");
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
    test_asleep();
    test_signalled();
    test_sequence();
    test_no_more();
    test_seccomp();
    test_init();
    return done();
}
