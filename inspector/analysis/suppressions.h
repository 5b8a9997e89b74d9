/*
 * suppressions: leaks that are known, and not to be told. LeakSanitizer's format:
 *
 *     # a comment
 *     leak:PATTERN
 *
 * A leak is suppressed when the pattern is found in the function, source file or module of any
 * frame of the stack that allocated it. `*` stands for any text, `^` at the start and `$` at the
 * end of the pattern for the start and end of the name. A leak without a known stack is never
 * suppressed.
 */
#ifndef ANALYSIS_SUPPRESSIONS_H
#define ANALYSIS_SUPPRESSIONS_H

#include "analysis/call_stacks.h"
#include "analysis/leaks.h"

struct suppression {
    char *pattern;
    struct blocks_total total; /* what it has suppressed */
};

struct suppressions {
    VECTOR(struct suppression) items;
    VECTOR(char *) texts; /* the files read, which the patterns point into */
};

/* One frame, as it is named; each may be NULL. */
struct frame_names {
    const char *function, *file, *module;
};

/* Adds the patterns of text (name: for messages). HI_BAD_INPUT: a line that is none. */
HI_MUST_USE enum hi_code suppressions_parse(struct suppressions *suppressions, const char *text,
                                            const char *name, struct hi_err *err);
HI_MUST_USE enum hi_code suppressions_read(struct suppressions *suppressions, const char *path,
                                           struct hi_err *err);
void suppressions_free(struct suppressions *suppressions);

bool suppression_matches(const char *pattern, const char *name);
/* The first one that matches a frame, or NULL. */
struct suppression *suppressions_find(const struct suppressions *suppressions,
                                      const struct frame_names *frames, size_t count);

/* The frames of a group's stack: how many of at most `most` were filled. */
typedef size_t (*stack_names)(void *context, const struct leak_group *group,
                              struct frame_names *frames, size_t most);
/* Takes suppressed groups, with what they hold, out of leaks. names: NULL where no stacks are
 * known. false: memory is out. */
HI_MUST_USE bool leaks_suppress(struct leaks *leaks, const struct suppressions *suppressions,
                                stack_names names, void *context);
/* stack_names by struct call_stacks, to which all groups were added. */
size_t suppressions_stack_names(void *call_stacks, const struct leak_group *group,
                                struct frame_names *frames, size_t most);

#endif
