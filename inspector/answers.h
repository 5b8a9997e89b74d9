/*
 * answers: a command, from what was read to what is printed. main.c opens and lets go; what each
 * command needs for that, and what it does with it, stands in one table here.
 */
#ifndef ANSWERS_H
#define ANSWERS_H

#include "options.h"
#include "report/buffer.h"
#include "report/reports.h"

/* The exit status is an interface. */
enum status {
    STATUS_CLEAN = 0,  /* done; leaks and verify found nothing */
    STATUS_FOUND = 1,  /* done; leaks found a direct leak, or verify damage */
    STATUS_FAILED = 2, /* it could not be done, and one line said why */
};

struct needs {
    bool heap;   /* is no use without a heap that is known */
    bool graph;  /* references between blocks */
    bool marks;  /* what roots hold */
    bool places; /* names for stack addresses */
};
struct needs answer_needs(const struct options *options);

/* export: no report, but the bytes of a file. */
HI_MUST_USE enum hi_code answer_export(const struct inspection *in, const struct options *options,
                                       struct buffer *out, struct hi_err *err);
/* HI_OK and *status, or why not. finder: only where places are needed. */
HI_MUST_USE enum hi_code answer(const struct report *report, const struct options *options,
                                const struct place_finder *finder, enum status *status,
                                struct hi_err *err);

#endif
