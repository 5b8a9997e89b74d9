/* The traced program as a struct target: nothing is kept from one read to the next. */
#ifndef TESTS_STEP_STEP_TARGET_H
#define TESTS_STEP_STEP_TARGET_H

#include "step/tracer.h"

/* Mappings as of now; made anew when they may have changed. */
HI_MUST_USE enum hi_code step_target_open(struct target **target, struct tracer *tracer,
                                          struct hi_err *err);
/* Threads and registers as of now. */
HI_MUST_USE enum hi_code step_target_threads(struct target *target, struct tracer *tracer,
                                             struct hi_err *err);

#endif
