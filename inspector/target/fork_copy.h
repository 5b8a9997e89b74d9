/*
 * A copy of a stopped process's memory, made by a fork in it (--snapshot): the process runs on
 * while its copy is read.
 */
#ifndef TARGET_FORK_COPY_H
#define TARGET_FORK_COPY_H

#include "base/error.h"

#include <sys/types.h>

/* A thread of the process, in a ptrace stop of the calling thread, outside of job control. */
struct fork_site {
    pid_t pid, tid;
    hi_addr instruction; /* of a system call, anywhere in the process */
    int signal;          /* that it was just taking: will be sent again; 0: none */
};

/* May this thread be borrowed? Not in the middle of a restartable sequence: that would be undone.
 */
bool fork_copy_suits(pid_t tid);
/* *copy: a process in a ptrace stop of the calling thread, that dies with it. HI_REFUSED: the
 * process may not or cannot fork; it is as it was. */
HI_MUST_USE enum hi_code fork_copy_make(struct fork_site *site, pid_t *copy, struct hi_err *err);
void fork_copy_end(pid_t copy); /* from the thread that made it */

#endif
