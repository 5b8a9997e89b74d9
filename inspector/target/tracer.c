/*
 * Stopping a process that goes on creating and ending threads.
 *
 * A pass lists /proc/PID/task, seizes and interrupts every thread not known yet, then waits for
 * all of them. A thread that was not yet stopped may create another one, so passes go on until one
 * finds nothing new: then every thread of the list is stopped and none is left to create more. A
 * list ends early when a thread ends just while it is passed; so one that still names a thread that
 * has ended proves nothing, and is asked for again. (The main thread stays listed when it has
 * ended.)
 *
 * What a wait can bring:
 *   event stop         what we asked for (also of a process that was stopped by a signal before:
 *                      it stays stopped for everybody else after the release)
 *   signal stop        a signal came first; it is handed on by the detach, so it is not lost
 *   ended              the thread is gone
 *   nothing in time    it sleeps in the kernel where no signal gets at it (state D: a disk that
 *                      does not answer, the parent in vfork). It can't touch its memory as long as
 *                      it does, so we go on without its registers; SP and PC come from /proc. But
 *                      it may wait for a lock of the kernel that another thread has, which is not
 *                      stopped yet, and on a busy machine has no turn for long: only when all
 *                      threads that are waited for sleep so, and none was awake for a while, they
 *                      are taken to sleep on.
 *
 * Such a thread stays seized and would stop when it wakes up, were we not to let go: the end of
 * the tracing thread does that.
 */
#include "target/tracer.h"

#include "target/fork_copy.h"
#include "target/proc.h"
#include "target/refusal.h"

#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PASS_LIMIT = 100,
    ENDED_PASSES = 40, /* with nothing new but threads that have ended */
    WAIT_SPINS = 64,
    WAIT_SHORT_STEPS = 20,
    WAIT_STEP_NS = 50 * 1000,
    WAIT_LONG_STEP_NS = 500 * 1000,
    WAIT_LIMIT_MS = 5000,
    WAIT_ASLEEP_MS = 300, /* in state D all the while, all that are waited for */
    VECTOR_STATE_MAX_BYTES = 64 * 1024,
};

enum traced_state { TRACED_RUNNING, TRACED_STOPPED, TRACED_ENDED, TRACED_ASLEEP };

enum request { REQUEST_STOP, REQUEST_COPY, REQUEST_RELEASE };

struct traced {
    pid_t tid;
    enum traced_state state;
    int signal; /* to be handed on */
    bool is_job_stopped;
};

/* Since when nobody of those that are waited for was awake: the same sum of context switches. */
struct doze {
    struct timespec since;
    uint64_t switches;
    bool is_on;
};

struct named {
    pid_t tid;
    char name[sizeof((struct thread *)0)->name];
};

struct tracer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum request request;  /* under lock, as are the next two */
    bool is_done;          /* the request has been carried out */
    enum hi_code code;     /* how it went */
    struct target *target; /* used for the stop only */
    pid_t pid;
    VECTOR(struct traced) traced; /* in order of tid */
    VECTOR(struct named) names;   /* in order of tid */
    struct hi_err err;
    struct timespec stopped_at;
    double stopped_seconds;
    bool is_let_go;
    hi_addr instruction; /* for the copy */
    pid_t copy;
    unsigned char vector_state[VECTOR_STATE_MAX_BYTES];
};

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}

/* ---- the list of traced threads ---- */

static size_t traced_position(const struct tracer *tracer, pid_t tid)
{
    size_t low = 0, high = tracer->traced.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tracer->traced.items[middle].tid < tid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_known(const struct tracer *tracer, pid_t tid)
{
    size_t index = traced_position(tracer, tid);
    return index < tracer->traced.count && tracer->traced.items[index].tid == tid;
}

static bool add_traced(struct tracer *tracer, pid_t tid, enum traced_state state)
{
    size_t index = traced_position(tracer, tid);
    struct traced *added = VECTOR_PUSH(&tracer->traced);
    if (!added)
        return false;
    struct traced *items = tracer->traced.items;
    memmove(items + index + 1, items + index, (tracer->traced.count - 1 - index) * sizeof *items);
    items[index] = (struct traced){.tid = tid, .state = state};
    return true;
}

/* ---- stopping ---- */

static bool has_ended(pid_t pid, pid_t tid)
{
    struct proc_status status;
    if (!proc_read_thread_status(pid, tid, &status))
        return true;
    return status.state == 'Z' || status.state == 'X';
}

static enum hi_code seize(struct tracer *tracer, pid_t tid)
{
    enum traced_state state = TRACED_RUNNING;
    if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) != 0) {
        int error = errno;
        if (error != ESRCH && !has_ended(tracer->pid, tid))
            return refusal_explain(tracer->pid, error, &tracer->err);
        state = TRACED_ENDED;
    }
    if (!add_traced(tracer, tid, state))
        return hi_no_memory(&tracer->err);
    /* ESRCH: it has just ended; the wait will tell */
    if (state == TRACED_RUNNING)
        (void)ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
    return HI_OK;
}

static void note_wait_status(struct traced *traced, int status)
{
    if (!WIFSTOPPED(status)) {
        traced->state = TRACED_ENDED;
        return;
    }
    traced->state = TRACED_STOPPED;
    bool is_event = status >> 16 != 0;
    traced->signal = is_event ? 0 : WSTOPSIG(status);
    traced->is_job_stopped = is_event && WSTOPSIG(status) != SIGTRAP;
}

/* True: traced is settled. */
static bool wait_once(struct traced *traced)
{
    int status;
    pid_t got = waitpid(traced->tid, &status, __WALL | WNOHANG);
    if (got == traced->tid)
        note_wait_status(traced, status);
    else if (got < 0 && errno != EINTR)
        traced->state = TRACED_ENDED;
    return traced->state != TRACED_RUNNING;
}

/* Do all that are waited for sleep in the kernel? */
static bool nobody_is_awake(struct tracer *tracer, uint64_t *switches)
{
    *switches = 0;
    for (size_t i = 0; i < tracer->traced.count; i++) {
        struct traced *traced = &tracer->traced.items[i];
        struct proc_status status;
        if (traced->state != TRACED_RUNNING || wait_once(traced))
            continue;
        if (!proc_read_thread_status(tracer->pid, traced->tid, &status))
            return false;
        if (status.state == 'Z') { /* the main thread, before the others: not told by a wait */
            traced->state = TRACED_ENDED;
            continue;
        }
        if (status.state != 'D')
            return false;
        *switches += status.switches;
    }
    return true;
}

static bool doze_lasts(struct tracer *tracer, struct doze *doze)
{
    uint64_t switches;
    bool was_on = doze->is_on;
    doze->is_on = nobody_is_awake(tracer, &switches);
    if (!doze->is_on)
        return false;
    if (!was_on || switches != doze->switches)
        clock_gettime(CLOCK_MONOTONIC, &doze->since);
    doze->switches = switches;
    return seconds_since(&doze->since) * 1000 > WAIT_ASLEEP_MS;
}

static void leave_asleep(struct tracer *tracer)
{
    for (size_t i = 0; i < tracer->traced.count; i++)
        if (tracer->traced.items[i].state == TRACED_RUNNING)
            tracer->traced.items[i].state = TRACED_ASLEEP;
}

static void wait_for_stop(struct tracer *tracer, struct traced *traced, struct doze *doze,
                          const struct timespec *pass_start)
{
    for (int spin = 0; traced->state == TRACED_RUNNING && !wait_once(traced); spin++) {
        if (spin < WAIT_SPINS) {
            sched_yield();
            continue;
        }
        bool is_long = spin >= WAIT_SPINS + WAIT_SHORT_STEPS;
        const struct timespec step = {.tv_nsec = is_long ? WAIT_LONG_STEP_NS : WAIT_STEP_NS};
        nanosleep(&step, NULL);
        if (is_long &&
            (doze_lasts(tracer, doze) || seconds_since(pass_start) * 1000 > WAIT_LIMIT_MS))
            leave_asleep(tracer);
    }
}

/* What a list of threads had that does not stand still. */
struct pass {
    size_t new_count, ended_count;
};

/* Has it ended? Not the main thread: that stays in the list. */
static bool is_ending(const struct tracer *tracer, pid_t tid)
{
    size_t index = traced_position(tracer, tid);
    return tid != tracer->pid && index < tracer->traced.count &&
           tracer->traced.items[index].tid == tid &&
           tracer->traced.items[index].state == TRACED_ENDED;
}

static enum hi_code stop_pass(struct tracer *tracer, pid_vector *tids, struct pass *pass)
{
    struct timespec start;
    struct doze doze = {0};
    enum hi_code code = proc_list_threads(tracer->pid, tids, &tracer->err);
    *pass = (struct pass){0};
    for (size_t i = 0; code == HI_OK && i < tids->count; i++) {
        pass->ended_count += is_ending(tracer, tids->items[i]);
        if (!is_known(tracer, tids->items[i])) {
            code = seize(tracer, tids->items[i]);
            pass->new_count++;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (size_t i = 0; code == HI_OK && i < tracer->traced.count; i++)
        wait_for_stop(tracer, &tracer->traced.items[i], &doze, &start);
    return code;
}

static enum hi_code stop_all(struct tracer *tracer)
{
    pid_vector tids = {0};
    enum hi_code code = HI_OK;
    struct pass pass = {.new_count = 1};
    int ended_passes = 0;
    clock_gettime(CLOCK_MONOTONIC, &tracer->stopped_at);
    for (int passes = 0; code == HI_OK && (pass.new_count || pass.ended_count); passes++) {
        if (pass.new_count == 0) {
            const struct timespec step = {.tv_nsec = WAIT_STEP_NS};
            if (ended_passes++ == ENDED_PASSES)
                break; /* it is somebody's zombie */
            nanosleep(&step, NULL);
        }
        if (passes == PASS_LIMIT)
            code = hi_fail(&tracer->err, HI_REFUSED,
                           "process %d creates threads faster than they can be stopped; try again",
                           (int)tracer->pid);
        else
            code = stop_pass(tracer, &tids, &pass);
    }
    VECTOR_FREE(&tids);
    for (size_t i = 0; i < tracer->traced.count; i++) /* who has come to it meanwhile? */
        if (tracer->traced.items[i].state == TRACED_ASLEEP)
            (void)wait_once(&tracer->traced.items[i]);
    return code;
}

/* ---- registers ---- */

static void *copy_bytes(const void *bytes, size_t count)
{
    void *copy = malloc(count);
    if (copy)
        memcpy(copy, bytes, count);
    return copy;
}

static void read_vector_state(struct tracer *tracer, struct thread *thread)
{
    static const unsigned notes[] = {NT_X86_XSTATE, NT_PRFPREG};
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
        struct iovec vector = {tracer->vector_state, sizeof tracer->vector_state};
        if (ptrace(PTRACE_GETREGSET, thread->tid, (void *)(uintptr_t)notes[i], &vector) == 0 &&
            vector.iov_len) {
            thread->vector_state = copy_bytes(tracer->vector_state, vector.iov_len);
            thread->vector_state_bytes = thread->vector_state ? vector.iov_len : 0;
            return;
        }
    }
}

static enum hi_code read_registers(struct tracer *tracer, struct thread *thread)
{
    uint64_t registers[THREAD_REGISTER_COUNT] = {0};
    struct iovec vector = {registers, sizeof registers};
    if (ptrace(PTRACE_GETREGSET, thread->tid, (void *)(uintptr_t)NT_PRSTATUS, &vector) != 0)
        return HI_OK; /* killed meanwhile: has_registers stays false */
    if (vector.iov_len != sizeof registers || registers[REGISTER_CS] == 0x23)
        return hi_fail(&tracer->err, HI_UNSUPPORTED,
                       "process %d runs 32-bit code; only 64-bit programs can be inspected",
                       (int)tracer->pid);
    thread_set_registers(thread, registers);
    read_vector_state(tracer, thread);
    return HI_OK;
}

/* Before the stop: names cost more than all the rest, 90 us a thread against 15. */
static void read_names(struct tracer *tracer)
{
    pid_vector tids = {0};
    if (proc_list_threads(tracer->pid, &tids, NULL) != HI_OK)
        tids.count = 0;
    for (size_t i = 0; i < tids.count; i++) {
        struct named *named = VECTOR_PUSH(&tracer->names);
        if (!named)
            break;
        named->tid = tids.items[i];
        proc_read_thread_name(tracer->pid, named->tid, named->name, sizeof named->name);
    }
    VECTOR_FREE(&tids);
}

static int compare_named(const void *tid, const void *named)
{
    pid_t a = *(const pid_t *)tid, b = ((const struct named *)named)->tid;
    return a < b ? -1 : a > b;
}

static void name_thread(struct tracer *tracer, struct thread *thread)
{
    const struct named *named = tracer->names.count
                                    ? bsearch(&thread->tid, tracer->names.items,
                                              tracer->names.count, sizeof *named, compare_named)
                                    : NULL;
    if (named)
        memcpy(thread->name, named->name, sizeof thread->name);
    else
        proc_read_thread_name(tracer->pid, thread->tid, thread->name, sizeof thread->name);
}

static enum hi_code collect_thread(struct tracer *tracer, const struct traced *traced)
{
    struct target *target = tracer->target;
    struct thread *thread = VECTOR_PUSH(&target->threads);
    if (!thread)
        return hi_no_memory(&tracer->err);
    thread->tid = traced->tid;
    name_thread(tracer, thread);
    if (traced->state == TRACED_STOPPED)
        return read_registers(tracer, thread);
    proc_read_position(tracer->pid, traced->tid, &thread->pc, &thread->sp);
    target->incomplete = true;
    target_add_note(target,
                    "thread %d sleeps in the kernel and could not be stopped; of its registers "
                    "only SP and PC are known",
                    (int)traced->tid);
    return HI_OK;
}

static enum hi_code collect_threads(struct tracer *tracer)
{
    enum hi_code code = HI_OK;
    for (size_t i = 0; code == HI_OK && i < tracer->traced.count; i++)
        if (tracer->traced.items[i].state != TRACED_ENDED)
            code = collect_thread(tracer, &tracer->traced.items[i]);
    if (code == HI_OK && tracer->target->threads.count == 0)
        code = hi_fail(&tracer->err, HI_REFUSED, "process %d ended while it was being stopped",
                       (int)tracer->pid);
    return code;
}

/* ---- the tracing thread ---- */

static void detach_all(struct tracer *tracer)
{
    if (tracer->is_let_go)
        return;
    tracer->is_let_go = true;
    for (size_t i = 0; i < tracer->traced.count; i++) {
        const struct traced *traced = &tracer->traced.items[i];
        if (traced->state == TRACED_STOPPED)
            (void)ptrace(PTRACE_DETACH, traced->tid, NULL, (void *)(intptr_t)traced->signal);
    }
    tracer->stopped_seconds = seconds_since(&tracer->stopped_at);
}

static struct traced *find_site(struct tracer *tracer)
{
    for (size_t i = 0; i < tracer->traced.count; i++) {
        struct traced *traced = &tracer->traced.items[i];
        if (traced->state == TRACED_STOPPED && !traced->is_job_stopped &&
            fork_copy_suits(traced->tid))
            return traced;
    }
    return NULL;
}

static enum hi_code copy(struct tracer *tracer)
{
    struct traced *traced = find_site(tracer);
    if (!traced)
        return hi_fail(&tracer->err, HI_REFUSED,
                       "no thread of process %d is in a state to fork; leave out --snapshot",
                       (int)tracer->pid);
    struct fork_site site = {.pid = tracer->pid,
                             .tid = traced->tid,
                             .instruction = tracer->instruction,
                             .signal = traced->signal};
    enum hi_code code = fork_copy_make(&site, &tracer->copy, &tracer->err);
    traced->signal = 0;
    if (code == HI_OK)
        detach_all(tracer);
    return code;
}

static enum hi_code stop(struct tracer *tracer)
{
    read_names(tracer);
    enum hi_code code = stop_all(tracer);
    return code == HI_OK ? collect_threads(tracer) : code;
}

static enum hi_code carry_out(struct tracer *tracer, enum request request)
{
    if (request == REQUEST_STOP)
        return stop(tracer);
    if (request == REQUEST_COPY)
        return copy(tracer);
    detach_all(tracer);
    fork_copy_end(tracer->copy);
    return HI_OK;
}

static void *tracer_main(void *context)
{
    struct tracer *tracer = context;
    enum request request;
    pthread_mutex_lock(&tracer->lock);
    do {
        while (tracer->is_done)
            pthread_cond_wait(&tracer->changed, &tracer->lock);
        request = tracer->request;
        pthread_mutex_unlock(&tracer->lock);
        enum hi_code code = carry_out(tracer, request);
        pthread_mutex_lock(&tracer->lock);
        tracer->code = code;
        tracer->is_done = true;
        pthread_cond_broadcast(&tracer->changed);
    } while (request != REQUEST_RELEASE);
    pthread_mutex_unlock(&tracer->lock);
    return NULL;
}

/* Waits until the tracing thread has done it. */
static enum hi_code ask(struct tracer *tracer, enum request request)
{
    pthread_mutex_lock(&tracer->lock);
    tracer->request = request;
    tracer->is_done = false;
    pthread_cond_broadcast(&tracer->changed);
    while (!tracer->is_done)
        pthread_cond_wait(&tracer->changed, &tracer->lock);
    enum hi_code code = tracer->code;
    pthread_mutex_unlock(&tracer->lock);
    return code;
}

/* The thread takes no signals: SIGINT is for the one that runs main. */
static int start_thread(struct tracer *tracer)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&tracer->thread, NULL, tracer_main, tracer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

double tracer_release(struct tracer *tracer)
{
    if (!tracer)
        return 0;
    (void)ask(tracer, REQUEST_RELEASE);
    pthread_join(tracer->thread, NULL);
    double seconds = tracer->stopped_seconds;
    pthread_mutex_destroy(&tracer->lock);
    pthread_cond_destroy(&tracer->changed);
    VECTOR_FREE(&tracer->traced);
    VECTOR_FREE(&tracer->names);
    free(tracer);
    return seconds;
}

static enum hi_code tell(const struct tracer *tracer, enum hi_code code, struct hi_err *err)
{
    if (code != HI_OK && err)
        *err = tracer->err;
    return code;
}

enum hi_code tracer_copy(struct tracer *tracer, hi_addr instruction, pid_t *copied,
                         struct hi_err *err)
{
    tracer->instruction = instruction;
    enum hi_code code = ask(tracer, REQUEST_COPY);
    *copied = tracer->copy;
    return tell(tracer, code, err);
}

enum hi_code tracer_stop(struct tracer **made, struct target *target, struct hi_err *err)
{
    *made = NULL;
    struct tracer *tracer = calloc(1, sizeof *tracer);
    if (!tracer)
        return hi_no_memory(err);
    tracer->target = target;
    tracer->pid = target->pid;
    tracer->is_done = true;
    pthread_mutex_init(&tracer->lock, NULL);
    pthread_cond_init(&tracer->changed, NULL);
    int error = start_thread(tracer);
    if (error) {
        free(tracer);
        return hi_fail(err, HI_SYSTEM, "cannot start a thread: %s", strerror(error));
    }
    enum hi_code code = tell(tracer, ask(tracer, REQUEST_STOP), err);
    if (code == HI_OK)
        *made = tracer;
    else
        tracer_release(tracer);
    return code;
}
