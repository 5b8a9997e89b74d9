/*
 * Why the system refuses, found out after the fact.
 *
 * PTRACE_MODE_ATTACH is granted when all of these hold, and we look at them in this order, because
 * the first that fails is the one to name:
 *   1. the process exists, has memory, and is not traced by somebody else
 *   2. our uid and gid are its real, effective and saved ones, or we have CAP_SYS_PTRACE over its
 *      user namespace
 *   3. it is dumpable (not setuid, no prctl(PR_SET_DUMPABLE, 0)), or the capability
 *   4. Yama's ptrace_scope allows it: 0 all, 1 only ancestors, 2 only the capability, 3 nobody
 *   5. no other security module (SELinux, AppArmor, seccomp) objects: what is left over
 * An undumpable process shows in that the files under its /proc directory belong to root.
 */
#include "target/refusal.h"

#include "target/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CAPABILITY_SYS_PTRACE = 19 };

static bool have_capability(int capability)
{
    char *text = proc_read_file(getpid(), "status", NULL);
    const char *line = text ? strstr(text, "\nCapEff:") : NULL;
    uint64_t mask = line ? strtoull(line + 8, NULL, 16) : 0;
    free(text);
    return mask >> capability & 1;
}

static bool same_user(const struct proc_status *status)
{
    for (int i = 0; i < 3; i++)
        if (status->uid[i] != geteuid() || status->gid[i] != getegid())
            return false;
    return true;
}

static bool other_user_namespace(pid_t pid)
{
    char ours[64], theirs[64];
    return proc_read_link(getpid(), "ns/user", ours, sizeof ours) &&
           proc_read_link(pid, "ns/user", theirs, sizeof theirs) && strcmp(ours, theirs) != 0;
}

static bool is_undumpable(pid_t pid, const struct proc_status *status)
{
    char path[64];
    struct stat file;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    return stat(path, &file) == 0 && file.st_uid != status->uid[1];
}

static int yama_scope(void)
{
    char digit = '0';
    int fd = open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, &digit, 1) != 1)
            digit = '0';
        close(fd);
    }
    return digit - '0';
}

static enum hi_code no_process(pid_t pid, struct hi_err *err)
{
    return hi_fail(err, HI_REFUSED,
                   "there is no process %d here: it has ended, or it is in another pid namespace",
                   (int)pid);
}

enum hi_code refusal_check(pid_t pid, struct hi_err *err)
{
    struct proc_status status;
    int id = (int)pid;
    if (pid <= 0)
        return hi_fail(err, HI_USAGE, "%d is not a process id", id);
    if (!proc_read_status(pid, &status))
        return no_process(pid, err);
    if (status.thread_group == getpid())
        return hi_fail(err, HI_USAGE,
                       "process %d is heapinspect itself; give the pid of another process", id);
    if (status.thread_group != pid)
        return hi_fail(err, HI_USAGE, "%d is a thread of process %d; give -p %d", id,
                       (int)status.thread_group, (int)status.thread_group);
    if (status.state == 'Z' || status.state == 'X') {
        pid_vector tids = {0};
        bool others = proc_list_threads(pid, &tids, NULL) == HI_OK && tids.count > 1;
        VECTOR_FREE(&tids);
        if (!others)
            return hi_fail(err, HI_REFUSED,
                           "process %d (%s) is a zombie: it has ended and its memory is gone; only "
                           "its parent %d has not yet asked how",
                           id, status.name, (int)status.parent);
        return HI_OK;
    }
    if (!status.has_memory)
        return hi_fail(err, HI_REFUSED,
                       "process %d (%s) is a kernel thread: it has no memory of its own to inspect",
                       id, status.name);
    return HI_OK;
}

/* Who traces a thread of pid, when not all of them stand still under a tracer; else 0. */
static pid_t tracer_of_running(pid_t pid)
{
    pid_vector tids = {0};
    pid_t tracer = 0;
    bool all_stopped = true;
    if (proc_list_threads(pid, &tids, NULL) != HI_OK)
        tids.count = 0;
    for (size_t i = 0; i < tids.count; i++) {
        struct proc_status status;
        if (!proc_read_thread_status(pid, tids.items[i], &status))
            continue;
        tracer = status.tracer ? status.tracer : tracer;
        all_stopped = all_stopped && (status.state == 't' || status.state == 'Z');
    }
    VECTOR_FREE(&tids);
    return all_stopped ? 0 : tracer;
}

static enum hi_code explain_tracer(pid_t pid, pid_t tracer, struct hi_err *err)
{
    struct proc_status status;
    if (!proc_read_status(tracer, &status))
        status.name[0] = 0;
    return hi_fail(err, HI_REFUSED,
                   "process %d is traced by %s (%d) and not stopped there; stop all of it there "
                   "first, or detach",
                   (int)pid, status.name[0] ? status.name : "another process", (int)tracer);
}

static enum hi_code explain_yama(pid_t pid, int scope, struct hi_err *err)
{
    if (scope == 1)
        return hi_fail(err, HI_REFUSED,
                       "not permitted to attach to process %d: kernel.yama.ptrace_scope is 1, so "
                       "only its parents may; use sudo, or sysctl kernel.yama.ptrace_scope=0",
                       (int)pid);
    if (scope == 2)
        return hi_fail(err, HI_REFUSED,
                       "not permitted to attach to process %d: kernel.yama.ptrace_scope is 2, so "
                       "only CAP_SYS_PTRACE may; use sudo",
                       (int)pid);
    return hi_fail(err, HI_REFUSED,
                   "not permitted to attach to process %d: kernel.yama.ptrace_scope is 3, which "
                   "forbids it till the next boot; inspect a core instead",
                   (int)pid);
}

enum hi_code refusal_explain(pid_t pid, int error, struct hi_err *err)
{
    struct proc_status status;
    int id = (int)pid, scope = yama_scope();
    bool capable = have_capability(CAPABILITY_SYS_PTRACE);
    if (!proc_read_status(pid, &status) || error == ESRCH)
        return no_process(pid, err);
    pid_t tracer = tracer_of_running(pid);
    if (tracer)
        return explain_tracer(pid, tracer, err);
    if (!capable && !same_user(&status))
        return hi_fail(err, HI_REFUSED,
                       "not permitted to attach to process %d (%s): it belongs to uid %u and "
                       "heapinspect runs as uid %u%s",
                       id, status.name, status.uid[0], geteuid(),
                       geteuid() == 0 ? " without CAP_SYS_PTRACE; add it "
                                        "(docker run --cap-add=SYS_PTRACE)"
                                      : "; use sudo, or run as that user");
    if (other_user_namespace(pid))
        return hi_fail(err, HI_REFUSED,
                       "not permitted to attach to process %d: it is in another user namespace; "
                       "run heapinspect as root outside of it, or inside (nsenter -U -t %d)",
                       id, id);
    if (!capable && is_undumpable(pid, &status))
        return hi_fail(err, HI_REFUSED,
                       "not permitted to attach to process %d (%s): it is set undumpable (setuid "
                       "program, or PR_SET_DUMPABLE); use sudo",
                       id, status.name);
    if (scope >= 3 || (scope >= 1 && !capable))
        return explain_yama(pid, scope, err);
    return hi_fail(err, HI_REFUSED,
                   "not permitted to attach to process %d (%s): %s; a security module or container "
                   "forbids it: run heapinspect outside, as root",
                   id, status.name, strerror(error));
}
