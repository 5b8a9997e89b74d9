/*
 * Forking somebody else's process.
 *
 * One stopped thread is borrowed: its registers are set to a system call, it is stepped through
 * that call and gets its registers back. Nothing is written to memory and no instruction but the
 * system call's runs. What must hold:
 *
 *   Nobody notices   The copy must not be a child of the process: its end would be seen by wait().
 *                    So the process makes a helper that shares its memory (clone with CLONE_VM and
 *                    no signal at its end: 0.1 ms), the helper forks the copy (page tables: 8 to 17
 *                    ms a GiB) and ends, which leaves the copy to init. The process then waits for
 *                    the helper, by a second borrowed call. Only for these two calls, not for the
 *                    fork, has the thread other registers than its own: were we killed just then
 *                    it would run on with them.
 *   Registers        A thread that sleeps in a system call has an answer of the kernel's own in
 *                    rax (-512 to -516) that starts the call again on the way out. While borrowed
 *                    orig_rax is -1, so that nothing is started again; and the registers are
 *                    given back in a stop of the same kind as before (PTRACE_INTERRUPT), from
 *                    where the kernel looks at them anew.
 *   Signals          While borrowed the thread has all of them blocked (PTRACE_SETSIGMASK): they
 *                    wait, with all that they carry. The one that it was just taking, when it was
 *                    stopped, is given back first: blocked, the kernel queues it again. SIGSTOP
 *                    cannot be blocked: it is kept, and sent again at the end (a signal given to
 *                    the detach is taken in a signal's stop only, and is lost in any other).
 *   Our end          The copy has PTRACE_O_EXITKILL: it dies with the tracing thread, and init
 *                    reaps it. Where the process itself is the init that the copy falls to (of its
 *                    container), we refuse: it would be left with a child it knows nothing of.
 *   Seccomp          A filter may kill for clone: refused.
 *
 * Memory that is shared (MAP_SHARED) is no copy: it goes on changing. The copy's own pages must be
 * read with pread: process_vm_readv would copy each (process.c).
 */
#include "target/fork_copy.h"

#include "target/proc.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    STOPS_LIMIT = 64, /* of a borrowed thread: signals that come meanwhile */
    SYSCALL_STOP = SIGTRAP | 0x80,
    OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE,
};

/* Linux 5.13; not in every C library's headers. */
enum { GET_RSEQ_CONFIGURATION = 0x420f };
struct rseq_configuration {
    uint64_t address;
    uint32_t size, signature, flags, padding;
};

struct call {
    long number;
    uint64_t first, second, third, fourth;
    long result; /* out */
    pid_t child; /* out: of clone, stopped as well; 0: none */
};

/* A process by our number, and by the one of the process's own pid namespace. */
struct made {
    pid_t pid;
    long number;
};

static enum hi_code lost(pid_t tid, struct hi_err *err)
{
    return hi_fail(err, HI_REFUSED, "thread %d ended while its process was being copied", (int)tid);
}

/* The next stop of tid. 0: it is gone. */
static int next_stop(pid_t tid)
{
    int status;
    pid_t got;
    do
        got = waitpid(tid, &status, __WALL);
    while (got < 0 && errno == EINTR);
    return got == tid && WIFSTOPPED(status) ? status >> 8 : 0;
}

/* Lets tid run until the wanted stop; a child made on the way is noted, signals are kept. */
static bool run_to(struct fork_site *site, pid_t tid, enum __ptrace_request request, int wanted,
                   pid_t *child)
{
    for (int stops = 0; stops < STOPS_LIMIT; stops++) {
        unsigned long message = 0;
        long given = 0;
        if (tid == site->tid && site->signal != SIGSTOP) {
            given = site->signal;
            site->signal = 0;
        }
        if (ptrace(request, tid, NULL, (void *)given) != 0)
            return false;
        int stop = next_stop(tid);
        if (stop == wanted)
            return true;
        if (stop == 0)
            return false;
        if (stop == (SIGTRAP | PTRACE_EVENT_CLONE << 8)) {
            if (child && ptrace(PTRACE_GETEVENTMSG, tid, NULL, &message) == 0)
                *child = (pid_t)message;
        } else if (stop >> 8 == 0 && stop != SYSCALL_STOP && tid == site->tid) {
            site->signal = stop;
        }
    }
    return false;
}

/* Runs one system call in tid, and leaves it behind the call. */
static bool run_call(struct fork_site *site, pid_t tid, const struct user_regs_struct *from,
                     struct call *call)
{
    struct user_regs_struct registers = *from;
    registers.rip = site->instruction;
    registers.rax = (unsigned long long)call->number;
    registers.orig_rax = (unsigned long long)-1;
    registers.rdi = call->first;
    registers.rsi = call->second;
    registers.rdx = call->third;
    registers.r10 = call->fourth;
    registers.r8 = 0;
    call->child = 0;
    call->result = -EINTR;
    if (ptrace(PTRACE_SETREGS, tid, NULL, &registers) != 0 ||
        !run_to(site, tid, PTRACE_SYSCALL, SYSCALL_STOP, NULL) ||
        !run_to(site, tid, PTRACE_SYSCALL, SYSCALL_STOP, &call->child) ||
        ptrace(PTRACE_GETREGS, tid, NULL, &registers) != 0)
        return false;
    call->result = (long)registers.rax;
    return true;
}

static bool mask_set(pid_t tid, uint64_t mask)
{
    return ptrace(PTRACE_SETSIGMASK, tid, (void *)sizeof mask, &mask) == 0;
}

/* The same in the borrowed thread, which is then as it was. */
static enum hi_code borrow(struct fork_site *site, struct call *call, struct hi_err *err)
{
    struct user_regs_struct before;
    uint64_t mask = 0;
    if (ptrace(PTRACE_GETREGS, site->tid, NULL, &before) != 0 ||
        ptrace(PTRACE_GETSIGMASK, site->tid, (void *)sizeof mask, &mask) != 0 ||
        !mask_set(site->tid, UINT64_MAX))
        return lost(site->tid, err);
    bool ran = run_call(site, site->tid, &before, call);
    (void)ptrace(PTRACE_INTERRUPT, site->tid, NULL, NULL);
    bool back = run_to(site, site->tid, PTRACE_CONT, SIGTRAP | PTRACE_EVENT_STOP << 8, NULL);
    if (ptrace(PTRACE_SETREGS, site->tid, NULL, &before) != 0 || !mask_set(site->tid, mask) ||
        !ran || !back)
        return lost(site->tid, err);
    return HI_OK;
}

static bool take_child(pid_t child)
{
    return child != 0 && next_stop(child) != 0 &&
           ptrace(PTRACE_SETOPTIONS, child, NULL,
                  (void *)(uintptr_t)(OPTIONS | PTRACE_O_EXITKILL)) == 0;
}

void fork_copy_end(pid_t copy)
{
    int status;
    if (copy == 0)
        return;
    kill(copy, SIGKILL);
    while (waitpid(copy, &status, __WALL) == copy && WIFSTOPPED(status))
        ;
}

static enum hi_code refuse_clone(const struct fork_site *site, long result, struct hi_err *err)
{
    return hi_fail(err, HI_REFUSED,
                   "process %d cannot be copied: %s; leave out --snapshot to read it while it is "
                   "stopped",
                   (int)site->pid, strerror((int)-result));
}

/* Forks in the helper, which ends. */
static enum hi_code fork_in(struct fork_site *site, pid_t helper, struct made *copy,
                            struct hi_err *err)
{
    struct user_regs_struct registers;
    struct call call = {.number = SYS_clone};
    if (ptrace(PTRACE_GETREGS, helper, NULL, &registers) != 0 ||
        !run_call(site, helper, &registers, &call))
        return lost(helper, err);
    if (call.result < 0)
        return refuse_clone(site, call.result, err);
    if (!take_child(call.child))
        return lost(call.child, err);
    *copy = (struct made){call.child, call.result};
    return HI_OK;
}

static bool has_parent(pid_t pid, pid_t parent)
{
    struct proc_status status;
    return proc_read_status(pid, &status) && status.parent == parent;
}

static enum hi_code reap(struct fork_site *site, long number, struct hi_err *err)
{
    struct call wait = {
        .number = SYS_wait4, .first = (uint64_t)number, .third = (uint64_t)(__WALL | WNOHANG)};
    return borrow(site, &wait, err);
}

/* The copy fell to the process itself, as the init of a container. */
static enum hi_code refuse_init(struct fork_site *site, const struct made *copy, struct hi_err *err)
{
    fork_copy_end(copy->pid);
    enum hi_code code = reap(site, copy->number, err);
    if (code != HI_OK)
        return code;
    return hi_fail(err, HI_REFUSED,
                   "process %d is the init of its container and would be left with a strange "
                   "child; leave out --snapshot",
                   (int)site->pid);
}

bool fork_copy_suits(pid_t tid)
{
    struct rseq_configuration sequence;
    long got = syscall(SYS_ptrace, GET_RSEQ_CONFIGURATION, tid, sizeof sequence, &sequence);
    if (got != sizeof sequence || sequence.address == 0)
        return true;
    errno = 0; /* struct rseq: the address of the section that it is in at 8 */
    long section = ptrace(PTRACE_PEEKDATA, tid, sequence.address + 8, NULL);
    return errno == 0 && section == 0;
}

/* Helper, copy, and the helper's end. */
static enum hi_code copy_by_helper(struct fork_site *site, struct made *copy, struct hi_err *err)
{
    struct call call = {.number = SYS_clone, .first = CLONE_VM};
    enum hi_code code = borrow(site, &call, err);
    if (code != HI_OK)
        return code;
    if (call.result < 0)
        return refuse_clone(site, call.result, err);
    code = take_child(call.child) ? fork_in(site, call.child, copy, err) : lost(call.child, err);
    fork_copy_end(call.child);
    struct hi_err ignored;
    enum hi_code reaped = reap(site, call.result, code == HI_OK ? err : &ignored);
    return code == HI_OK ? reaped : code;
}

enum hi_code fork_copy_make(struct fork_site *site, pid_t *copy, struct hi_err *err)
{
    struct made made = {0};
    *copy = 0;
    if (ptrace(PTRACE_SETOPTIONS, site->tid, NULL, (void *)(uintptr_t)OPTIONS) != 0)
        return lost(site->tid, err);
    enum hi_code code = copy_by_helper(site, &made, err);
    if (code == HI_OK && has_parent(made.pid, site->pid))
        code = refuse_init(site, &made, err);
    else if (code == HI_OK)
        *copy = made.pid;
    else
        fork_copy_end(made.pid);
    (void)ptrace(PTRACE_SETOPTIONS, site->tid, NULL, NULL);
    if (site->signal)
        (void)syscall(SYS_tgkill, site->pid, site->tid, site->signal);
    return code;
}
