/* Why a process can't be inspected, in one sentence with what would help. */
#ifndef TARGET_REFUSAL_H
#define TARGET_REFUSAL_H

#include "base/error.h"

#include <sys/types.h>

/* Before trying: pids that can't work (none, zombie, kernel thread, a thread, ourselves). */
HI_MUST_USE enum hi_code refusal_check(pid_t pid, struct hi_err *err);
/* After the system has said no with error. Never returns HI_OK. */
HI_MUST_USE enum hi_code refusal_explain(pid_t pid, int error, struct hi_err *err);

#endif
