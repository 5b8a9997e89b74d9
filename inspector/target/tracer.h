/*
 * Stops every thread of a process and takes their registers; lets them go again.
 *
 * All ptrace calls are made by one thread of ours that lives from stop to release, because the
 * kernel ties a traced thread to the thread that traces it. It follows that a release may be asked
 * for from anywhere, and that the kernel lets everything go when that thread ends, however it ends.
 */
#ifndef TARGET_TRACER_H
#define TARGET_TRACER_H

#include "target/backend.h"

struct tracer;

/* Stops target->pid and pushes its threads with registers. On failure nothing stays stopped. */
HI_MUST_USE enum hi_code tracer_stop(struct tracer **tracer, struct target *target,
                                     struct hi_err *err);
/* Copies the stopped process (fork_copy.h) and lets it go; the copy stays until the release.
 * instruction: of a system call in the process. On failure the process stays stopped. */
HI_MUST_USE enum hi_code tracer_copy(struct tracer *tracer, hi_addr instruction, pid_t *copy,
                                     struct hi_err *err);
/* Lets go, frees, and says how long it was stopped. NULL is fine. */
double tracer_release(struct tracer *tracer);

#endif
