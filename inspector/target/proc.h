/* Small files of /proc: read whole, fields of status, lists of threads. */
#ifndef TARGET_PROC_H
#define TARGET_PROC_H

#include "base/error.h"
#include "base/vector.h"

#include <sys/types.h>

/* The whole of /proc/PID/NAME with a 0 behind it, malloced; NULL (errno says why) when it can't be
 * read. *bytes may be NULL. */
char *proc_read_file(pid_t pid, const char *name, size_t *bytes);
/* The link /proc/PID/NAME in buffer; false: not readable, or too long. */
bool proc_read_link(pid_t pid, const char *name, char *buffer, size_t size);

/* What /proc/PID/status says; zero where a line is not there. */
struct proc_status {
    char name[64];
    char state; /* R S D T t Z X I */
    pid_t thread_group, parent, tracer;
    uid_t uid[4];
    gid_t gid[4];
    bool has_memory; /* a VmSize line */
    bool has_filter; /* seccomp */
    bool is_kernel_thread;
    uint64_t switches; /* voluntary and other context switches */
};
bool proc_read_status(pid_t pid, struct proc_status *status);
/* The same for one thread of pid. */
bool proc_read_thread_status(pid_t pid, pid_t tid, struct proc_status *status);

typedef VECTOR(pid_t) pid_vector;
/* The threads of pid in ascending order. HI_REFUSED: gone. */
HI_MUST_USE enum hi_code proc_list_threads(pid_t pid, pid_vector *tids, struct hi_err *err);
/* Where a thread that does not run stands, from /proc/PID/task/TID/syscall. */
bool proc_read_position(pid_t pid, pid_t tid, hi_addr *pc, hi_addr *sp);
void proc_read_thread_name(pid_t pid, pid_t tid, char *name, size_t size);

#endif
