/*
 * A test that looks at a child of its own: the child makes a heap out of a seed, says so by one
 * byte, and waits; the target and its symbols are opened, compared, closed, and the child ends.
 */
#ifndef TESTS_UNIT_SEEDED_CHILD_H
#define TESTS_UNIT_SEEDED_CHILD_H

#include "symbols/symbols.h"
#include "target/target.h"
#include "unit/tap.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

typedef void seeded_child(uint64_t seed, int ready);
typedef void seeded_compare(struct target *target, struct symbols *symbols, uint64_t seed);

static void seed_run(uint64_t seed, seeded_child *child, seeded_compare *compare)
{
    int ready[2];
    char byte;
    struct target *target = NULL;
    struct symbols *symbols = NULL;
    struct target_options options = {0};
    struct hi_err err = {0};
    fflush(stdout);
    if (pipe(ready) != 0)
        exit(99);
    pid_t pid = fork();
    if (pid == 0)
        child(seed, ready[1]);
    close(ready[1]);
    if (read(ready[0], &byte, 1) == 1 &&
        target_open_process(&target, pid, &options, &err) == HI_OK &&
        symbols_open(&symbols, target, &options, &err) == HI_OK)
        compare(target, symbols, seed);
    else
        ok(false, "seed %d: %s", (int)seed, err.message);
    symbols_close(symbols);
    target_close(target);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(ready[0]);
}

#endif
