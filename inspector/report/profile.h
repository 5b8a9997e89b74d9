/*
 * profile: who holds the memory, in the formats of other tools. Each takes allocations and named
 * stacks and fills a buffer; whether it goes to a file or to standard output is the caller's.
 *
 *   gperftools  text; google-pprof (perl) and `go tool pprof` read it, with the program's files
 *   pprof       profile.proto, gzip; functions, files and lines in it
 *   flamegraph  collapsed stacks: "outermost;...;innermost bytes" a line
 */
#ifndef REPORT_PROFILE_H
#define REPORT_PROFILE_H

#include "analysis/allocations.h"
#include "analysis/call_stacks.h"
#include "report/buffer.h"

struct profile {
    const struct inspection *in;
    const struct allocations *all; /* by (stack, size), as gathered */
    const struct call_stacks *stacks;
    bool is_leaks; /* lost blocks; else live ones */
};

void profile_gperftools(struct buffer *out, const struct profile *profile);
HI_MUST_USE enum hi_code profile_flamegraph(struct buffer *out, const struct profile *profile,
                                            struct hi_err *err);
HI_MUST_USE enum hi_code profile_pprof(struct buffer *out, const struct profile *profile,
                                       struct hi_err *err);

#endif
