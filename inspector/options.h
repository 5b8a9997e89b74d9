/*
 * options: the command line as a struct. Parsing has no effect on anything: it prints nothing,
 * opens nothing and ends nothing, so that it can be tested with arrays of strings.
 *
 *     heapinspect [TARGET] [COMMAND [ARGUMENT...]] [OPTION...]
 *     heapinspect run [OPTION...] [--] PROGRAM [ARGUMENT...]
 *
 * Options may stand anywhere. Of the plain words the first is a command when it has a command's
 * name; else it is the core, and the second is the command. A core file that has the name of a
 * command is written ./leaks. `--` ends the options; behind `run` so does the first plain word:
 * what follows is the program's.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "base/vector.h"
#include "heap/blocks.h"

#include <stdio.h>
#include <sys/types.h>

enum command {
    COMMAND_SUMMARY,
    COMMAND_ARENAS,
    COMMAND_MAP,
    COMMAND_CHUNKS,
    COMMAND_LEAKS,
    COMMAND_WHATIS,
    COMMAND_REFS,
    COMMAND_PATH,
    COMMAND_TOP,
    COMMAND_VERIFY,
    COMMAND_DIFF,
    COMMAND_SNAPSHOT,
    COMMAND_EXPORT,
    COMMAND_RUN,
    COMMAND_COUNT
};

enum when { WHEN_AUTO, WHEN_ALWAYS, WHEN_NEVER };

enum { OPTIONS_NO_LIMIT = 0 };

struct options {
    enum command command;
    pid_t pid;        /* 0: a core */
    const char *core; /* NULL: a process */
    bool has_command; /* a command was named; else it is summary */
    bool help, version;

    bool json, strict, verbose, quiet;
    const char *executable, *sysroot, *debug_directory, *allocator, *output, *registers_from;
    int jobs; /* 0: all processors */
    enum when colour, progress;
    bool fork_copy; /* --snapshot */
    bool has_limit;
    uint64_t limit;

    bool interior_reachable, unaligned;
    uint64_t tag_mask;
    unsigned root_classes; /* a bit per enum root_class */

    VECTOR(hi_addr) addresses; /* whatis, refs, path; map: an address */
    bool has_arena;            /* chunks --arena, map ARENA */
    uint64_t arena;
    unsigned states; /* chunks --state: a bit per enum block_state; 0: all */
    uint64_t min_bytes, max_bytes;
    bool refs_to;   /* refs --to: what it points to */
    const char *by; /* top --by */

    const char *style;        /* leaks, run: NULL, text, lsan or gperftools */
    const char *suppressions; /* leaks, run: a file */
    hi_addr suppressions_at;  /* leaks, export: text in the target's memory; 0: none */
    bool if_found;            /* leaks: nothing to say, nothing said */
    const char *profile;      /* leaks: a file to write what is lost to, or NULL */
    const char *format;       /* export: gperftools, pprof or flamegraph */
    bool leaks;               /* export: what is lost instead of what is live */
    const char *himalloc;     /* run: the library */
    bool has_exit_code;       /* run */
    uint64_t exit_code;
    char *const *program; /* run: what to start, ends with NULL */
};

/* HI_OK, or HI_USAGE with one line that says what, why and what to do. */
HI_MUST_USE enum hi_code options_parse(struct options *options, int argc, char *const *argv,
                                       struct hi_err *err);
void options_free(struct options *options);

const char *command_name(enum command command);
/* What --help prints: all commands, or one. */
void options_help(enum command command, bool only_command, FILE *out);

/* "64", "4k", "1M", "2G", "1T" (powers of 1024; "kB" and "KiB" are the same). false: not a size. */
bool parse_size(const char *text, uint64_t *bytes);
/* Hexadecimal, with or without 0x. */
bool parse_address(const char *text, hi_addr *address);

#endif
