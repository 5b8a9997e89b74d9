/*
 * Sampled mode is without bias: what is picked, weighted by 1 / (1 - exp(-bytes / distance)), sums
 * up to what was allocated, for each size, each way of allocating, and whatever else goes on; and
 * from one sample to the next the way is exponentially distributed.
 *
 * The picks are random, and not the same in each run, so sums are compared within six standard
 * deviations of what independent picks with the right probability give: a right sampler fails one
 * run in many millions, while a bias of some percent is seen each time.
 */
#define _GNU_SOURCE
#include "tap.h"

#include "alloc_root.h"
#include "himalloc.h"

#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { DISTANCE = 4096, SIGMAS = 6 };

static himalloc_arena *arena;
static size_t distance = DISTANCE;

struct sums {
    double bytes, weighted, variance;
    uint64_t count, picked;
};

static double probability(size_t bytes)
{
    return 1 - exp(-(double)bytes / (double)distance);
}

static void *count(struct sums *sums, void *p, size_t bytes)
{
    double chance = probability(bytes);
    sums->bytes += (double)bytes;
    sums->variance += (double)bytes * (double)bytes * (1 - chance) / chance;
    sums->count++;
    if (note_of(p).stack) {
        sums->picked++;
        sums->weighted += (double)bytes / chance;
    }
    return p;
}

static void judge(const struct sums *sums, const char *what)
{
    double sigma = sqrt(sums->variance);
    double off = fabs(sums->weighted - sums->bytes);
    ok(off <= SIGMAS * sigma && sums->picked > 0,
       "%s: %lu of %lu picked, %.2f%% off (one sigma: %.2f%%)", what, (unsigned long)sums->picked,
       (unsigned long)sums->count, 100 * (sums->weighted - sums->bytes) / sums->bytes,
       100 * sigma / sums->bytes);
}

/* ---- sizes ---- */

static void test_pairs(void)
{
    static const size_t sizes[] = {1,    16,   17,    33,    100,   568,
                                   1153, 5000, 20000, 32768, 40000, 300000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct sums sums = {0};
        char what[64];
        long times = sizes[s] < 64 ? 400000 : sizes[s] < 8192 ? 200000 : 20000;
        for (long i = 0; i < times; i++)
            free(count(&sums, malloc(sizes[s]), sizes[s]));
        snprintf(what, sizeof what, "malloc(%zu), one at a time", sizes[s]);
        judge(&sums, what);
    }
}

static unsigned next_random(unsigned *state)
{
    *state = *state * 1103515245 + 12345;
    return *state >> 8;
}

static void test_live_blocks(void)
{
    struct sums sums = {0};
    static void *held[4000];
    unsigned state = 7;
    for (int i = 0; i < 600000; i++) {
        unsigned slot = next_random(&state) % 4000;
        size_t bytes = next_random(&state) % 3000 + 1;
        free(held[slot]);
        held[slot] = count(&sums, malloc(bytes), bytes);
    }
    judge(&sums, "random sizes and lifetimes");
    struct sums live = {0};
    for (int i = 0; i < 4000; i++)
        free(held[i]);
    for (int i = 0; i < 4000; i++)
        held[i] = malloc(1000);
    for (int i = 0; i < 4000; i++)
        count(&live, held[i], 1000);
    judge(&live, "what is live");
    for (int i = 0; i < 4000; i++)
        free(held[i]);
}

/* ---- other ways ---- */

static void *aligned(size_t bytes)
{
    void *p = NULL;
    return posix_memalign(&p, 512, bytes) == 0 ? p : NULL;
}

static void test_ways(void)
{
    struct sums by_calloc = {0}, by_memalign = {0}, in_arena = {0}, grown = {0}, kept = {0};
    for (int i = 0; i < 100000; i++) {
        free(count(&by_calloc, calloc(7, 100), 700));
        free(count(&by_memalign, aligned(600), 600));
    }
    for (int i = 0; i < 50000; i++)
        himalloc_arena_free(arena, count(&in_arena, himalloc_arena_malloc(arena, 900), 900));
    for (int i = 0; i < 40000; i++) {
        void *p = malloc(200);
        p = count(&grown, realloc(p, 1200), 1200);
        free(count(&kept, realloc(p, 1210), 1210));
    }
    judge(&by_calloc, "calloc");
    judge(&by_memalign, "posix_memalign");
    judge(&in_arena, "in an arena of the program");
    judge(&grown, "realloc to a new place");
    judge(&kept, "realloc where it is");
}

static void test_large_in_place(void)
{
    struct sums sums = {0}, grown = {0};
    distance = 200000;
    himalloc_stacks(HIMALLOC_STACKS_SAMPLED, distance);
    for (int i = 0; i < 5000; i++) {
        char *p = malloc(100000);
        for (size_t bytes = 33000; bytes < 60000; bytes += 9000)
            p = count(&sums, realloc(p, bytes), bytes);
        p = count(&grown, realloc(p, 900000), 900000);
        free(p);
    }
    judge(&sums, "realloc of large blocks where they are");
    judge(&grown, "realloc of large blocks to a new place");
    distance = DISTANCE;
    himalloc_stacks(HIMALLOC_STACKS_SAMPLED, distance);
}

/* ---- threads ---- */

static void *brief_main(void *argument)
{
    struct sums *sums = argument;
    void *blocks[4];
    for (int i = 0; i < 4; i++)
        blocks[i] = count(sums, malloc(900 + (size_t)i * 1000), 900 + (size_t)i * 1000);
    for (int i = 0; i < 4; i++)
        free(blocks[i]);
    return NULL;
}

static void test_brief_threads(void)
{
    struct sums sums = {0};
    for (int i = 0; i < 4000; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, brief_main, &sums);
        pthread_join(thread, NULL);
    }
    judge(&sums, "the first blocks of brief threads");
}

/* ---- the way from one to the next ---- */

static void test_gaps(void)
{
    enum { BYTES = 48, GAPS = 8000 };
    double gap = 0, sum = 0, squares = 0;
    int gaps = 0, beyond = 0;
    for (long i = 0; gaps < GAPS && i < 4000000; i++) {
        void *p = malloc(BYTES);
        gap += BYTES;
        if (note_of(p).stack) {
            sum += gap;
            squares += gap * gap;
            beyond += gap > DISTANCE;
            gap = 0;
            gaps++;
        }
        free(p);
    }
    double mean = sum / gaps, deviation = sqrt(squares / gaps - mean * mean);
    double least = SIGMAS / sqrt(GAPS), share = (double)beyond / gaps;
    ok(fabs(mean / DISTANCE - 1) < least, "the mean way is the distance (%.0f of %d)", mean,
       DISTANCE);
    ok(fabs(deviation / DISTANCE - 1) < 2 * least, "and so is its deviation (%.0f)", deviation);
    ok(fabs(share - exp(-1)) < SIGMAS * 0.48 / sqrt(GAPS), "1 in e goes beyond (%.4f)", share);
}

static void test_where(void)
{
    int wrong = 0, samples = 0;
    for (int i = 0; i < 20000; i++) {
        void *p = malloc(300);
        bool picked = note_of(p).stack != 0;
        wrong += picked != (kind_of(p) == HM_ARENA_SAMPLED);
        wrong += picked && note_of(p).requested != 300;
        wrong += malloc_usable_size(p) < 300;
        samples += picked;
        free(p);
    }
    ok(wrong == 0 && samples > 0, "small samples have an arena of their own (%d of %d wrong)",
       wrong, samples);
}

int main(void)
{
    free(malloc(1));
    if (!ok(root_find(), "the heap describes itself"))
        return done();
    arena = himalloc_arena_create("part");
    ok(himalloc_stacks(HIMALLOC_STACKS_SAMPLED, DISTANCE) == 0, "sampled");
    while (!heap_root->stacks)
        free(malloc(1000)); /* the tables are made for the first sample */
    const struct hm_stack_table *table = (struct hm_stack_table *)heap_root->stacks;
    ok(table->mode == HM_STACKS_SAMPLED && table->sample_bytes == DISTANCE, "is told to readers");
    test_pairs();
    test_live_blocks();
    test_ways();
    test_large_in_place();
    test_brief_threads();
    test_gaps();
    test_where();
    ok(himalloc_stacks(HIMALLOC_STACKS_OFF, 0) == 0, "off");
    int picked = 0;
    for (int i = 0; i < 20000; i++) {
        void *p = malloc(i % 3 ? 3000 : 40000);
        picked += note_of(p).stack != 0;
        free(p);
    }
    ok(picked == 0, "nothing is picked any more");
    return done();
}
