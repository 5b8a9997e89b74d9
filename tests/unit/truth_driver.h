/*
 * Modes of tests/programs/heap_truth, run and stopped at random moments, and read from their cores:
 * what the truth tests of all allocators share. The test sets `driver` first. TRUTH_KEEP=FILE: a
 * core that was not read as it should be is moved there.
 */
#ifndef TESTS_UNIT_TRUTH_DRIVER_H
#define TESTS_UNIT_TRUTH_DRIVER_H

#include "unit/heap_truth.h"

#include <errno.h>

struct mode {
    const char *name;
    const char *program; /* in $BUILD/programs; or a path from / on */
    uint64_t slots;
    const char *threads;
    const char *modes[4];
    unsigned share; /* of the stops, in percent */
};

struct truth_driver {
    const char *reader; /* the only one asked; NULL: all */
    uint64_t checks;    /* at least so many of the allocator's totals are compared */
    const char *found;  /* how the roots are found, or NULL */
    const char *remove; /* a file that is unlinked before a core is read, or NULL */
    bool wait;          /* learn what was live before main() began */
};
static struct truth_driver driver;

static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = random_state;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ z >> 27;
}

static void result_add(struct truth_result *sum, const struct truth_result *one)
{
    sum->booked += one->booked;
    sum->missed += one->missed;
    sum->short_blocks += one->short_blocks;
    sum->extra += one->extra;
    sum->kept += one->kept;
    sum->dtv += one->dtv;
    sum->before_main += one->before_main;
    sum->in_hands += one->in_hands;
    sum->in_flight += one->in_flight;
    sum->locked += one->locked;
    sum->unnamed += one->unnamed;
    sum->findings += one->findings;
    sum->disagreeing += one->disagreeing;
    sum->checks += one->checks;
}

static void result_judge(const struct truth_result *sum, unsigned read, unsigned stops,
                         const char *name)
{
    ok(read == stops, "%s: %u of %u stops were read", name, read, stops);
    ok(sum->missed == 0 && sum->short_blocks == 0 && sum->booked > 0,
       "%s: none of %" PRIu64 " live blocks missed (%" PRIu64 ", %" PRIu64 " short)", name,
       sum->booked, sum->missed, sum->short_blocks);
    ok(sum->unnamed == 0,
       "%s: each of %" PRIu64 " others has a name (%" PRIu64 " kept, %" PRIu64 " dtv, %" PRIu64
       " before main, %" PRIu64 " in hands, %" PRIu64 " in flight at %" PRIu64 " operations)",
       name, sum->extra, sum->kept, sum->dtv, sum->before_main, sum->in_hands, sum->in_flight,
       sum->locked);
    ok(sum->findings == 0, "%s: no findings (%" PRIu64 ")", name, sum->findings);
    ok(sum->disagreeing == 0 && sum->checks >= driver.checks * (uint64_t)read,
       "%s: the allocator's %" PRIu64 " totals agree (%" PRIu64 " do not)", name, sum->checks,
       sum->disagreeing);
}

static void found_as_wanted(const struct truth_result *one, const char *name)
{
    const char *wanted = driver.found;
    if (wanted && one->read)
        ok(strcmp(found_by_name(one->found_by), wanted) == 0, "%s: found by %s", name,
           found_by_name(one->found_by));
}

/* A stop, read and compared. HI_STOPPED: a thread slept in the kernel and its registers are not
 * known (a disk that is slow): that is told, and says nothing about the reader. */
static enum hi_code stop_once(struct truth_run *run, bool describe, struct truth_result *one)
{
    struct target *target = NULL;
    struct hi_err err = {0};
    struct target_options options = {0};
    enum hi_code code = target_open_process(&target, run->pid, &options, &err);
    if (code != HI_OK) {
        printf("# %s\n", err.message);
        return code;
    }
    bool complete = target_complete(target);
    *one = truth_read(target, driver.reader, run->table, &run->before, describe);
    for (size_t i = 0; i < target_note_count(target); i++)
        printf("# %s\n", target_note(target, i));
    target_close(target);
    return complete ? HI_OK : HI_STOPPED;
}

static void stop_often(struct truth_run *run, unsigned stops, const char *name)
{
    struct truth_result sum = {0};
    unsigned read = 0, incomplete = 0;
    for (unsigned i = 0; i < stops; i++) {
        struct truth_result one = {0};
        struct timespec nap = {0, (long)(random_next() % 3000000)};
        nanosleep(&nap, NULL);
        enum hi_code code = stop_once(run, i == 0, &one);
        if (code == HI_STOPPED && incomplete++ < stops) {
            i--;
            continue;
        }
        if (code != HI_OK)
            break;
        read += one.read;
        if (i == 0 && !driver.remove)
            found_as_wanted(&one, name);
        result_add(&sum, &one);
        if (one.missed || one.unnamed || one.findings || one.disagreeing)
            printf("# stop %u: %" PRIu64 " missed, %" PRIu64 " unnamed, %" PRIu64
                   " findings, %" PRIu64 " checks\n",
                   i, one.missed, one.unnamed, one.findings, one.disagreeing);
    }
    result_judge(&sum, read, stops, name);
}

static bool mode_start(struct truth_run *run, const struct mode *mode, const char *extra,
                       const char *const *before, const char *directory)
{
    char program[1024], seed[24];
    const char *build = getenv("BUILD"), *after[9] = {mode->threads, seed};
    size_t n = 2;
    char here[512];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)random_next());
    if (mode->program[0] == '/')
        snprintf(program, sizeof program, "%s", mode->program);
    else
        snprintf(program, sizeof program, "%s/%s/programs/%s",
                 build && build[0] == '/' ? "" : getcwd(here, sizeof here), build ? build : "build",
                 mode->program);
    for (size_t i = 0; i < 4 && mode->modes[i]; i++)
        after[n++] = mode->modes[i];
    if (driver.wait)
        after[n++] = "wait";
    after[n] = extra;
    return truth_start(run, before, program, mode->slots, after, directory) &&
           (!driver.wait || truth_before(run, driver.reader));
}

__attribute__((unused)) static void live(const struct mode *mode, unsigned stops,
                                         const char *const *before)
{
    struct truth_run run = {0};
    if (!ok(mode_start(&run, mode, NULL, before, NULL) && truth_ready(&run), "%s: runs",
            mode->name))
        return;
    stop_often(&run, stops, mode->name);
    truth_end(&run);
}

__attribute__((unused)) static void from_core(const struct mode *mode, const char *const *before)
{
    struct truth_run run = {0};
    char directory[] = "/tmp/heap_truth_XXXXXX", core[80];
    int status = 0;
    if (!mkdtemp(directory) || !mode_start(&run, mode, "abort", before, directory))
        return;
    waitpid(run.pid, &status, 0);
    run.pid = 0;
    snprintf(core, sizeof core, "%s/core", directory);
    if (driver.remove)
        unlink(driver.remove);
    struct target *target = NULL;
    struct hi_err err = {0};
    struct target_options options = {0};
    if (access(core, R_OK) != 0) {
        printf("ok %d - %s: from a core # SKIP this system writes cores elsewhere\n", ++tap_count,
               mode->name);
    } else if (ok(target_open_core(&target, core, &options, &err) == HI_OK, "%s: core opens %s",
                  mode->name, err.message)) {
        char name[80];
        snprintf(name, sizeof name, "%s, core", mode->name);
        struct truth_result one = truth_read(target, driver.reader, run.table, &run.before, true);
        result_judge(&one, one.read, 1, name);
        found_as_wanted(&one, name);
        target_close(target);
        const char *keep = getenv("TRUTH_KEEP");
        if (keep && (!one.read || one.missed || one.unnamed || one.findings || one.disagreeing))
            printf("# %s is kept: %s\n", keep, rename(core, keep) ? strerror(errno) : core);
    }
    unlink(core);
    rmdir(directory);
    truth_end(&run);
}

#endif
