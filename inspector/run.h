/* run: starts a program on himalloc, with the leak check at its exit. See run.c. */
#ifndef RUN_H
#define RUN_H

#include "options.h"

/* HI_OK: it ran; *status is its exit status, or 128 + the signal that it died of. */
HI_MUST_USE enum hi_code run_program(const struct options *options, int *status,
                                     struct hi_err *err);

#endif
