/*
 * Control of one program, instruction by instruction, where it matters.
 *
 * The text under test is one section of the program, linked at a fixed address. Outside of it a
 * thread runs at full speed; every function of the section has a breakpoint at its first
 * instruction, so that a thread stops when it enters, by whatever door (malloc from the program,
 * from the C library or the dynamic linker, a key's destructor at thread end). From there it is
 * stepped until its call returns. A call out of the text (memset, mmap) runs up to its return
 * address, where a breakpoint is put for that time.
 *
 * A breakpoint has to be lifted for the step over it, and then no other thread may run, or it could
 * slip past. So before a breakpoint is lifted, all threads are settled: inside, or asleep in the
 * kernel, where nothing but a stopped thread could wake them. A system call that is stepped onto
 * and does not return (a lock's futex) leaves its thread KERNEL until the step's report arrives.
 *
 * The program sees no difference but time. It must not have timers or install handlers for SIGTRAP.
 */
#define _GNU_SOURCE
#include "step/tracer.h"

#include "step/text.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TRACER_TRAP = 0xcc, TRACER_POLLS = 200000 };

struct tracer {
    pid_t pid;
    int memory;
    struct text text;
    VECTOR(struct traced) threads;
    /* breakpoints: of the text one byte each, others (returns to outside) in a list */
    unsigned char *original;
    unsigned char *planted; /* how often */
    VECTOR(hi_addr) outside;
    VECTOR(unsigned char) outside_original;
    VECTOR(hi_addr) whole; /* functions that are one step */
    bool ended, mappings_changed;
    int status;
};

/* -- breakpoints --------------------------------------------------------------------------------
 */

static void poke(struct tracer *tracer, hi_addr address, unsigned char byte)
{
    if (pwrite(tracer->memory, &byte, 1, (off_t)address) != 1)
        tracer->ended = true;
}

static bool in_text(const struct tracer *tracer, hi_addr address)
{
    return address >= tracer->text.start && address < tracer->text.end;
}

static size_t outside_index(const struct tracer *tracer, hi_addr address)
{
    for (size_t i = 0; i < tracer->outside.count; i++)
        if (tracer->outside.items[i] == address)
            return i;
    return SIZE_MAX;
}

static bool is_planted(const struct tracer *tracer, hi_addr address)
{
    if (in_text(tracer, address))
        return tracer->planted[address - tracer->text.start] > 0;
    return outside_index(tracer, address) != SIZE_MAX;
}

static void lift(struct tracer *tracer, hi_addr address)
{
    poke(tracer, address,
         in_text(tracer, address) ? tracer->original[address - tracer->text.start]
                                  : tracer->outside_original.items[outside_index(tracer, address)]);
}

static void plant(struct tracer *tracer, hi_addr address)
{
    if (in_text(tracer, address)) {
        tracer->planted[address - tracer->text.start]++;
    } else {
        /* kept for good: a return address outside is rare and may serve several threads */
        unsigned char byte = 0;
        if (is_planted(tracer, address) || pread(tracer->memory, &byte, 1, (off_t)address) != 1)
            return;
        *VECTOR_PUSH(&tracer->outside) = address;
        *VECTOR_PUSH(&tracer->outside_original) = byte;
    }
    poke(tracer, address, TRACER_TRAP);
}

static void unplant(struct tracer *tracer, hi_addr address)
{
    if (in_text(tracer, address) && --tracer->planted[address - tracer->text.start] == 0)
        lift(tracer, address);
}

/* -- threads ------------------------------------------------------------------------------------
 */

static struct traced *thread_find(struct tracer *tracer, pid_t tid)
{
    for (size_t i = 0; i < tracer->threads.count; i++)
        if (tracer->threads.items[i].tid == tid)
            return &tracer->threads.items[i];
    return NULL;
}

static void thread_drop(struct tracer *tracer, pid_t tid)
{
    struct traced *thread = thread_find(tracer, tid);
    if (thread)
        *thread = tracer->threads.items[--tracer->threads.count];
    tracer->ended |= tracer->threads.count == 0;
    tracer->mappings_changed = true;
}

static void thread_run(struct tracer *tracer, struct traced *thread, enum traced_state state)
{
    thread->state = state;
    thread->asleep = false;
    if (ptrace(PTRACE_CONT, thread->tid, NULL, (void *)(intptr_t)thread->signal) != 0)
        tracer->ended |= errno != ESRCH;
    thread->signal = 0;
}

/* State letter of a thread in /proc: 'S' sleeps. */
static char thread_letter(const struct tracer *tracer, pid_t tid)
{
    char path[64], text[128];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", tracer->pid, tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return '?';
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    const char *name_end = strrchr(text, ')');
    return name_end && name_end[1] ? name_end[2] : '?';
}

/* -- calls --------------------------------------------------------------------------------------
 */

static uint64_t peek(const struct tracer *tracer, hi_addr address)
{
    uint64_t word = 0;
    if (pread(tracer->memory, &word, sizeof word, (off_t)address) != sizeof word)
        return 0;
    return word;
}

static const struct {
    const char *name;
    enum call_kind kind;
    char size, block; /* which argument: 0 none, 1 rdi, 2 rsi, 3 rdx */
    char times;       /* a second factor of the size */
} call_table[] = {
    {"malloc", CALL_MALLOC, 1, 0, 0},
    {"calloc", CALL_MALLOC, 1, 0, 2},
    {"valloc", CALL_MALLOC, 1, 0, 0},
    {"pvalloc", CALL_MALLOC, 1, 0, 0},
    {"aligned_alloc", CALL_MALLOC, 2, 0, 0},
    {"memalign", CALL_MALLOC, 2, 0, 0},
    {"posix_memalign", CALL_MEMALIGN_TO, 3, 0, 0},
    {"realloc", CALL_REALLOC, 2, 1, 0},
    {"reallocarray", CALL_REALLOC, 2, 1, 3},
    {"free", CALL_FREE, 0, 1, 0},
    {"cfree", CALL_FREE, 0, 1, 0},
    {"free_sized", CALL_FREE, 0, 1, 0},
    {"free_aligned_sized", CALL_FREE, 0, 1, 0},
    {"himalloc_arena_malloc", CALL_MALLOC, 2, 0, 0},
    {"himalloc_arena_calloc", CALL_MALLOC, 2, 0, 3},
    {"himalloc_arena_realloc", CALL_REALLOC, 3, 2, 0},
    {"himalloc_arena_free", CALL_FREE, 0, 2, 0},
};

static uint64_t argument(const struct user_regs_struct *registers, int which)
{
    switch (which) {
    case 1:
        return registers->rdi;
    case 2:
        return registers->rsi;
    case 3:
        return registers->rdx;
    default:
        return 0;
    }
}

/* Functions may have several names. */
static bool function_is(const struct tracer *tracer, hi_addr address, const char *name)
{
    for (size_t i = 0; i < tracer->text.count && tracer->text.functions[i].address <= address; i++)
        if (tracer->text.functions[i].address == address &&
            strcmp(tracer->text.functions[i].name, name) == 0)
            return true;
    return false;
}

/* What a thread that stands at a function's first instruction is about to do. */
static void call_begin(const struct tracer *tracer, struct traced *thread)
{
    const struct user_regs_struct *registers = &thread->registers;
    uint64_t offset;
    thread->call = (struct call){.name = tracer_symbol(tracer, registers->rip, &offset),
                                 .return_address = peek(tracer, registers->rsp),
                                 .sp = registers->rsp};
    for (size_t i = 0; i < sizeof call_table / sizeof *call_table; i++) {
        if (!function_is(tracer, registers->rip, call_table[i].name))
            continue;
        thread->call.name = call_table[i].name;
        thread->call.kind = call_table[i].kind;
        thread->call.block = argument(registers, call_table[i].block);
        thread->call.bytes = argument(registers, call_table[i].size);
        if (call_table[i].times)
            thread->call.bytes *= argument(registers, call_table[i].times);
        if (thread->call.kind == CALL_MEMALIGN_TO)
            thread->call.result_at = registers->rdi;
    }
}

/* -- events -------------------------------------------------------------------------------------
 */

/* A thread that ran came to a breakpoint at address. */
static void trap_arrived(struct tracer *tracer, struct traced *thread, hi_addr address)
{
    thread->registers.rip = address;
    ptrace(PTRACE_SETREGS, thread->tid, NULL, &thread->registers);
    bool is_return = thread->state == TRACED_OUTCALL && address == thread->return_trap;
    if (is_return) {
        unplant(tracer, address);
        tracer->mappings_changed = true;
    } else if (thread->state == TRACED_FREE && in_text(tracer, address)) {
        call_begin(tracer, thread);
    } else if (thread->state == TRACED_OUTCALL && in_text(tracer, address) &&
               thread->depth < TRACED_MAX_DEPTH) {
        thread->outer[thread->depth++] = (struct outer_call){thread->call, thread->return_trap};
        call_begin(tracer, thread);
    }
    thread->state = TRACED_INSIDE; /* also another thread's return outside: stepped over there */
}

static void stop_arrived(struct tracer *tracer, struct traced *thread, int status)
{
    int signal = WSTOPSIG(status);
    thread->asleep = false;
    if (signal == SIGTRAP && status >> 16 == PTRACE_EVENT_CLONE) {
        enum traced_state state = thread->state;
        if (state == TRACED_KERNEL)
            ptrace(PTRACE_SINGLESTEP, thread->tid, NULL, NULL);
        else
            thread_run(tracer, thread, state);
        return;
    }
    ptrace(PTRACE_GETREGS, thread->tid, NULL, &thread->registers);
    if (thread->state == TRACED_KERNEL) {
        thread->state = TRACED_INSIDE;
        thread->signal = signal == SIGTRAP ? 0 : signal;
    } else if (signal == SIGTRAP && is_planted(tracer, thread->registers.rip - 1)) {
        trap_arrived(tracer, thread, thread->registers.rip - 1);
    } else {
        thread->signal = signal == SIGTRAP || signal == SIGSTOP ? 0 : signal;
        thread_run(tracer, thread, thread->state);
    }
}

static void event_arrived(struct tracer *tracer, pid_t tid, int status)
{
    struct traced *thread = thread_find(tracer, tid);
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
        if (tid == tracer->pid)
            tracer->status = status;
        thread_drop(tracer, tid);
        return;
    }
    if (!thread) { /* a new thread: starts stopped */
        thread = VECTOR_PUSH(&tracer->threads);
        if (!thread) {
            tracer->ended = true;
            return;
        }
        thread->tid = tid;
        thread_run(tracer, thread, TRACED_FREE);
        return;
    }
    stop_arrived(tracer, thread, status);
}

static bool events_take(struct tracer *tracer)
{
    int status;
    bool any = false;
    pid_t tid;
    while (!tracer->ended && (tid = waitpid(-1, &status, __WALL | WNOHANG)) > 0) {
        event_arrived(tracer, tid, status);
        any = true;
    }
    return any;
}

static bool thread_runs(const struct traced *thread)
{
    return thread->state != TRACED_INSIDE;
}

/* Everybody inside or asleep, seen twice in a row with nothing happening in between. */
static bool all_settled(struct tracer *tracer)
{
    for (size_t i = 0; i < tracer->threads.count; i++) {
        struct traced *thread = &tracer->threads.items[i];
        if (!thread_runs(thread))
            continue;
        thread->asleep = thread_letter(tracer, thread->tid) == 'S';
        if (!thread->asleep)
            return false;
    }
    return !events_take(tracer);
}

static bool anybody_runs(const struct tracer *tracer)
{
    for (size_t i = 0; i < tracer->threads.count; i++)
        if (thread_runs(&tracer->threads.items[i]))
            return true;
    return false;
}

bool tracer_settle(struct tracer *tracer)
{
    for (unsigned polls = 0; !tracer->ended && anybody_runs(tracer); polls++) {
        if (events_take(tracer))
            continue;
        if (all_settled(tracer) && all_settled(tracer))
            break;
        if (polls > 100)
            sched_yield();
        if (polls > TRACER_POLLS)
            tracer->ended = true;
    }
    return !tracer->ended;
}

/* -- stepping -----------------------------------------------------------------------------------
 */

/* Wait for a step's report; false: the thread sleeps in the kernel. */
static bool step_reported(struct tracer *tracer, pid_t tid, bool may_sleep, int *status)
{
    for (unsigned polls = 0;; polls++) {
        pid_t got = waitpid(tid, status, __WALL | (may_sleep ? WNOHANG : 0));
        if (got == tid)
            return true;
        if (got < 0) {
            *status = 0;
            return true;
        }
        if (polls > 20 && thread_letter(tracer, tid) == 'S' && thread_letter(tracer, tid) == 'S')
            return waitpid(tid, status, __WALL | WNOHANG) == tid;
    }
}

static bool at_system_call(const struct tracer *tracer, hi_addr pc)
{
    return (peek(tracer, pc) & 0xffff) == 0x050f;
}

/* Run a call out of the text up to its return. */
static void call_out(struct tracer *tracer, struct traced *thread)
{
    thread->return_trap = peek(tracer, thread->registers.rsp);
    plant(tracer, thread->return_trap);
    thread_run(tracer, thread, TRACED_OUTCALL);
}

static bool call_is_over(const struct traced *thread)
{
    return thread->call.return_address && thread->registers.rip == thread->call.return_address &&
           thread->registers.rsp == thread->call.sp + sizeof(uint64_t);
}

static enum tracer_event step_arrived(struct tracer *tracer, struct traced *thread,
                                      struct call *call, uint64_t *result)
{
    const struct user_regs_struct *registers = &thread->registers;
    ptrace(PTRACE_GETREGS, thread->tid, NULL, &thread->registers);
    if (call_is_over(thread)) {
        *call = thread->call;
        *result = registers->rax;
        return TRACER_RETURNED;
    }
    if (in_text(tracer, registers->rip))
        return TRACER_STEPPED;
    if (thread->call.return_address)
        call_out(tracer, thread);
    else
        thread_run(tracer, thread, TRACED_FREE); /* stepped over somebody's return outside */
    return TRACER_NOTHING;
}

/* -- functions that are one step ----------------------------------------------------------------
 */

void tracer_run_whole(struct tracer *tracer, const char *function)
{
    for (size_t i = 0; i < tracer->text.count; i++)
        if (strcmp(tracer->text.functions[i].name, function) == 0) {
            hi_addr *whole = VECTOR_PUSH(&tracer->whole);
            if (whole)
                *whole = tracer->text.functions[i].address;
        }
}

static bool is_whole(const struct tracer *tracer, hi_addr pc)
{
    for (size_t i = 0; i < tracer->whole.count; i++)
        if (tracer->whole.items[i] == pc)
            return true;
    return false;
}

/* All breakpoints of the text come out of it, or back. */
static void text_write(struct tracer *tracer, bool with_traps)
{
    size_t bytes = tracer->text.end - tracer->text.start;
    unsigned char *text = malloc(bytes);
    if (!text)
        abort();
    memcpy(text, tracer->original, bytes);
    for (size_t i = 0; with_traps && i < bytes; i++)
        if (tracer->planted[i])
            text[i] = TRACER_TRAP;
    if (pwrite(tracer->memory, text, bytes, (off_t)tracer->text.start) != (ssize_t)bytes)
        tracer->ended = true;
    free(text);
}

/* The thread alone, from the function's first instruction to its return: it holds no lock and takes
 * none, so nobody is woken. */
static enum tracer_event step_whole(struct tracer *tracer, pid_t tid, struct call *call,
                                    uint64_t *result)
{
    int status;
    if (!tracer_settle(tracer))
        return TRACER_ENDED;
    struct traced *thread = thread_find(tracer, tid);
    hi_addr return_address = peek(tracer, thread->registers.rsp);
    text_write(tracer, false);
    poke(tracer, return_address, TRACER_TRAP);
    ptrace(PTRACE_CONT, tid, NULL, NULL);
    while (waitpid(tid, &status, __WALL) < 0 && errno == EINTR)
        continue;
    text_write(tracer, true);
    tracer->mappings_changed = true;
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP || status >> 16 != 0) {
        event_arrived(tracer, tid, status);
        return tracer->ended ? TRACER_ENDED : TRACER_NOTHING;
    }
    ptrace(PTRACE_GETREGS, tid, NULL, &thread->registers);
    thread->registers.rip = return_address;
    ptrace(PTRACE_SETREGS, tid, NULL, &thread->registers);
    return step_arrived(tracer, thread, call, result);
}

enum tracer_event tracer_step(struct tracer *tracer, struct traced *thread, struct call *call,
                              uint64_t *result)
{
    hi_addr pc = thread->registers.rip;
    pid_t tid = thread->tid;
    if (call_is_over(thread)) /* by way of a call out that was its last */
        return step_arrived(tracer, thread, call, result);
    if (is_whole(tracer, pc))
        return step_whole(tracer, tid, call, result);
    bool trap = is_planted(tracer, pc), system_call = at_system_call(tracer, pc);
    int status;
    if (trap) {
        if (!tracer_settle(tracer))
            return TRACER_ENDED;
        thread = thread_find(tracer, tid);
        lift(tracer, pc);
    }
    thread->state = TRACED_KERNEL;
    if (ptrace(PTRACE_SINGLESTEP, tid, NULL, (void *)(intptr_t)thread->signal) != 0)
        return TRACER_ENDED;
    thread->signal = 0;
    tracer->mappings_changed |= system_call;
    if (!step_reported(tracer, tid, system_call, &status))
        return TRACER_NOTHING; /* asleep in the kernel: its report comes later */
    if (trap && is_planted(tracer, pc))
        poke(tracer, pc, TRACER_TRAP);
    if (!WIFSTOPPED(status)) {
        event_arrived(tracer, tid, status);
        return tracer->ended ? TRACER_ENDED : TRACER_NOTHING;
    }
    if (WSTOPSIG(status) != SIGTRAP || status >> 16 != 0) {
        event_arrived(tracer, tid, status);
        return TRACER_NOTHING;
    }
    thread->state = TRACED_INSIDE;
    return step_arrived(tracer, thread, call, result);
}

void tracer_release(struct tracer *tracer, struct traced *thread)
{
    thread->call = (struct call){0};
    if (thread->depth == 0) {
        thread_run(tracer, thread, TRACED_FREE);
        return;
    }
    struct outer_call outer = thread->outer[--thread->depth];
    thread->call = outer.call;
    thread->return_trap = outer.return_trap;
    thread_run(tracer, thread, TRACED_OUTCALL);
}

/* -- start and end ------------------------------------------------------------------------------
 */

static void child_run(char *const *arguments)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one); /* switching between two processes is quicker on one cpu */
    sched_setaffinity(0, sizeof one, &one);
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    execv(arguments[0], arguments);
    _exit(127);
}

static enum hi_code tracer_attach(struct tracer *tracer, struct hi_err *err)
{
    char path[64];
    int status;
    size_t bytes = tracer->text.end - tracer->text.start;
    if (waitpid(tracer->pid, &status, 0) != tracer->pid || !WIFSTOPPED(status))
        return hi_fail(err, HI_SYSTEM, "the program did not start");
    ptrace(PTRACE_SETOPTIONS, tracer->pid, NULL,
           (void *)(intptr_t)(PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE));
    snprintf(path, sizeof path, "/proc/%d/mem", tracer->pid);
    tracer->memory = open(path, O_RDWR | O_CLOEXEC);
    tracer->original = malloc(bytes);
    tracer->planted = calloc(1, bytes);
    struct traced *thread = VECTOR_PUSH(&tracer->threads);
    if (tracer->memory < 0 || !tracer->original || !tracer->planted || !thread ||
        pread(tracer->memory, tracer->original, bytes, (off_t)tracer->text.start) != (ssize_t)bytes)
        return hi_fail(err, HI_SYSTEM, "the program's memory can't be read");
    for (size_t i = 0; i < tracer->text.count; i++)
        if (!is_planted(tracer, tracer->text.functions[i].address))
            plant(tracer, tracer->text.functions[i].address);
    thread->tid = tracer->pid;
    thread_run(tracer, thread, TRACED_FREE);
    return HI_OK;
}

enum hi_code tracer_start(struct tracer **tracer, char *const *arguments, struct hi_err *err)
{
    struct tracer *started = calloc(1, sizeof *started);
    *tracer = NULL;
    if (!started)
        return hi_no_memory(err);
    started->memory = -1;
    enum hi_code code = text_read(&started->text, arguments[0], err);
    if (code == HI_OK) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        sched_setaffinity(0, sizeof one, &one);
        started->pid = fork();
        if (started->pid == 0)
            child_run(arguments);
        code =
            started->pid < 0 ? hi_fail(err, HI_SYSTEM, "fork failed") : tracer_attach(started, err);
    }
    if (code != HI_OK) {
        tracer_close(started);
        return code;
    }
    *tracer = started;
    return HI_OK;
}

void tracer_close(struct tracer *tracer)
{
    if (tracer->pid > 0 && tracer->threads.count > 0) {
        kill(tracer->pid, SIGKILL);
        while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR)
            continue; /* every thread is reaped before its leader can be */
    }
    if (tracer->memory >= 0)
        close(tracer->memory);
    text_free(&tracer->text);
    VECTOR_FREE(&tracer->threads);
    VECTOR_FREE(&tracer->outside);
    VECTOR_FREE(&tracer->whole);
    VECTOR_FREE(&tracer->outside_original);
    free(tracer->original);
    free(tracer->planted);
    free(tracer);
}

pid_t tracer_pid(const struct tracer *tracer)
{
    return tracer->pid;
}

int tracer_memory(const struct tracer *tracer)
{
    return tracer->memory;
}

size_t tracer_thread_count(const struct tracer *tracer)
{
    return tracer->threads.count;
}

struct traced *tracer_thread(struct tracer *tracer, size_t index)
{
    return &tracer->threads.items[index];
}

bool tracer_mappings_changed(struct tracer *tracer)
{
    bool changed = tracer->mappings_changed;
    tracer->mappings_changed = false;
    return changed;
}

int tracer_status(const struct tracer *tracer)
{
    return tracer->status;
}

const char *tracer_symbol(const struct tracer *tracer, hi_addr address, uint64_t *offset)
{
    const char *name = "?";
    *offset = 0;
    for (size_t i = 0; i < tracer->text.count && tracer->text.functions[i].address <= address;
         i++) {
        name = tracer->text.functions[i].name;
        *offset = address - tracer->text.functions[i].address;
    }
    return name;
}
