/*
 * What every fuzzer has: SECONDS (5) and SEED (the clock) as arguments, numbers that a seed
 * repeats, and runs that may not hang. Run n has the stream of seed + n: with that seed, and 0
 * seconds, it is repeated alone.
 *
 *     struct fuzz fuzz = fuzz_begin(argc, argv);
 *     do {
 *         fuzz_run(&fuzz);
 *         ...
 *     } while (fuzz_goes_on(&fuzz));
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { FUZZ_LIMIT_SECONDS = 20 }; /* of a run, which then dies by SIGALRM */

struct random {
    uint64_t state;
};

static inline uint64_t next(struct random *random)
{
    uint64_t x = random->state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline uint64_t below(struct random *random, uint64_t end)
{
    return next(random) % end;
}

/* Of the run in hand. */
static struct random fuzz_random;

static inline uint64_t next_random(void)
{
    return next(&fuzz_random);
}

struct fuzz {
    double seconds;
    uint64_t seed, runs;
    struct timespec start;
};

static inline struct fuzz fuzz_begin(int argc, char **argv)
{
    struct fuzz fuzz = {.seconds = argc > 1 ? strtod(argv[1], NULL) : 5,
                        .seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL) << 20};
    clock_gettime(CLOCK_MONOTONIC, &fuzz.start);
    printf("seed %llu\n", (unsigned long long)fuzz.seed);
    fflush(stdout);
    return fuzz;
}

static inline void fuzz_run(const struct fuzz *fuzz)
{
    fuzz_random.state = fuzz->seed + fuzz->runs;
    alarm(FUZZ_LIMIT_SECONDS);
}

static inline bool fuzz_goes_on(struct fuzz *fuzz)
{
    struct timespec now;
    fuzz->runs++;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - fuzz->start.tv_sec) +
               1e-9 * (double)(now.tv_nsec - fuzz->start.tv_nsec) <
           fuzz->seconds;
}

static inline int fuzz_end(const struct fuzz *fuzz, const char *what)
{
    printf("%llu %s\n", (unsigned long long)fuzz->runs, what);
    return 0;
}

#endif
