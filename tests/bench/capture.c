/*
 * Nanoseconds for one captured stack: himalloc's (its number included), backtrace(), and a walk
 * over frame pointers, in code that is built with them.
 *
 *   capture [CAPTURES]      default 20000 a line
 *
 * 512 functions with four call sites each, frames of many sizes. hot: one stack again and again.
 * churn: the innermost four frames are others each time. varied: 4096 stacks at random that have
 * nothing in common. By the time stamp counter around the call, an empty one subtracted; what took
 * more than 20 us was interrupted and does not count.
 */
#define _GNU_SOURCE
#include "allocator/call_stack.h"
#include "allocator/stack_table.h"

#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct hm_hot hm_hot;
static struct hm_root root;

enum { STACKS = 4096, INTERRUPTED_NS = 20000 };
typedef unsigned function(unsigned depth, uint64_t path);

struct run {
    void (*capture)(void);
    function *const *table;
    unsigned count, repeat;
    uint64_t ticks, timed;
};
static struct run *run;
static double tick_ns;
static uint64_t empty_ticks, limit_ticks;

static inline uint64_t now_ticks(void)
{
#if defined(__x86_64__)
    unsigned aux;
    return __builtin_ia32_rdtscp(&aux);
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
#endif
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

static __attribute__((noinline)) unsigned leaf(void)
{
    for (unsigned i = 0; i < run->repeat; i++) {
        uint64_t before = now_ticks();
        run->capture();
        uint64_t took = now_ticks() - before;
        if (took < limit_ticks) {
            run->ticks += took - (took < empty_ticks ? took : empty_ticks);
            run->timed++;
        }
    }
    return run->repeat;
}

static inline unsigned next(unsigned depth, uint64_t path)
{
    path = mix(path);
    return depth == 0 ? leaf() : run->table[path % 512](depth - 1, path);
}

#define BODY(n)                                                                                    \
    {                                                                                              \
        volatile char pad[8 + (n) % 23 * 8];                                                       \
        pad[0] = 1;                                                                                \
        switch (path >> 32 & 3) {                                                                  \
        case 0:                                                                                    \
            return next(depth, path) + 1 + (unsigned)pad[0];                                       \
        case 1:                                                                                    \
            return next(depth, path) * 2 + (unsigned)pad[0];                                       \
        case 2:                                                                                    \
            return next(depth, path) - 3 + (unsigned)pad[0];                                       \
        default:                                                                                   \
            return (next(depth, path) ^ 4) + (unsigned)pad[0];                                     \
        }                                                                                          \
    }
#define EACH8(m, n) m(n##0) m(n##1) m(n##2) m(n##3) m(n##4) m(n##5) m(n##6) m(n##7)
#define EACH64(m, n)                                                                               \
    EACH8(m, n##0)                                                                                 \
    EACH8(m, n##1)                                                                                 \
    EACH8(m, n##2) EACH8(m, n##3) EACH8(m, n##4) EACH8(m, n##5) EACH8(m, n##6) EACH8(m, n##7)
#define EACH512(m)                                                                                 \
    EACH64(m, 00)                                                                                  \
    EACH64(m, 01)                                                                                  \
    EACH64(m, 02) EACH64(m, 03) EACH64(m, 04) EACH64(m, 05) EACH64(m, 06) EACH64(m, 07)
#define PLAIN(n)                                                                                   \
    static __attribute__((noinline)) unsigned plain##n(unsigned depth, uint64_t path) BODY(n)
#define FRAMED(n)                                                                                  \
    static __attribute__((noinline, optimize("no-omit-frame-pointer"))) unsigned framed##n(        \
        unsigned depth, uint64_t path) BODY(n)
#define PLAIN_NAME(n)  plain##n,
#define FRAMED_NAME(n) framed##n,
EACH512(PLAIN)
EACH512(FRAMED)
static function *const plain_table[] = {EACH512(PLAIN_NAME)};
static function *const framed_table[] = {EACH512(FRAMED_NAME)};

/* ---- what is measured ---- */

static volatile uint64_t sink;

static __attribute__((noinline)) void by_himalloc(void)
{
    struct call_site site = CALL_SITE();
    sink = call_stack_capture(&site);
}

static __attribute__((noinline)) void by_backtrace(void)
{
    void *frames[128];
    sink = (uint64_t)backtrace(frames, 128);
}

static uintptr_t frames_end;

static __attribute__((noinline, optimize("no-omit-frame-pointer"))) void by_frame_pointers(void)
{
    uintptr_t pcs[128];
    const uintptr_t *frame = __builtin_frame_address(0);
    unsigned count = 0;
    while (count < 128 && (uintptr_t)frame < frames_end) {
        pcs[count++] = frame[1];
        if (frame[0] <= (uintptr_t)frame)
            break;
        frame = (const uintptr_t *)frame[0];
    }
    __asm__ volatile("" ::"r"(pcs) : "memory");
    sink = count;
}

static __attribute__((noinline)) unsigned churn(unsigned turns)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < turns; i++)
        sum += next(4, i + 77);
    return sum;
}

static __attribute__((noinline)) unsigned churn_below(unsigned depth, unsigned turns)
{
    unsigned below = depth > 4 ? churn_below(depth - 1, turns) : churn(turns);
    __asm__ volatile("" : "+r"(below));
    return below;
}

static double measure(struct run *r, const char *kind, unsigned depth)
{
    run = r;
    for (int warm = 0; warm < 2; warm++) {
        r->ticks = r->timed = 0;
        r->repeat = 1;
        if (kind[0] == 'h') {
            r->repeat = r->count;
            next(depth, 1);
        } else if (kind[0] == 'c') {
            churn_below(depth, r->count);
        } else {
            for (unsigned i = 0; i < r->count; i++)
                next(depth, mix(i * 7 + 1) % STACKS);
        }
    }
    return (double)r->ticks / (double)(r->timed ? r->timed : 1) * tick_ns;
}

static void calibrate(void)
{
    struct timespec start, now;
    uint64_t first = now_ticks(), least = UINT64_MAX;
    double ns;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        uint64_t before = now_ticks(), took = now_ticks() - before;
        least = took < least ? took : least;
        clock_gettime(CLOCK_MONOTONIC, &now);
        ns = (double)(now.tv_sec - start.tv_sec) * 1e9 + (double)(now.tv_nsec - start.tv_nsec);
    } while (ns < 2e7);
    tick_ns = ns / (double)(now_ticks() - first);
    empty_ticks = least;
    limit_ticks = (uint64_t)(INTERRUPTED_NS / tick_ns);
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"hot", "churn", "varied"};
    static const unsigned depths[] = {5, 10, 20, 40};
    unsigned count = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 20000;
    struct run runs[] = {{by_himalloc, plain_table, count, 0, 0, 0},
                         {by_backtrace, plain_table, count / 10, 0, 0, 0},
                         {by_frame_pointers, framed_table, count, 0, 0, 0}};
    static const char *const names[] = {"himalloc", "backtrace()", "frame pointers"};
    void *warm[2];
    frames_end = (uintptr_t)__builtin_frame_address(0);
    hm_hot.root = &root;
    backtrace(warm, 2);
    calibrate();
    if (!call_stack_start(HM_STACKS_FULL, 0))
        return 1;
    printf("ns a capture at depth%8u%8u%8u%8u\n", depths[0], depths[1], depths[2], depths[3]);
    for (unsigned k = 0; k < 3; k++)
        for (unsigned m = 0; m < 3; m++) {
            printf("%-7s%-15s", kinds[k], names[m]);
            for (unsigned d = 0; d < 4; d++)
                printf("%8.0f", measure(&runs[m], kinds[k], depths[d]));
            printf("\n");
        }
    printf("%u nodes, %u modules\n", stack_hot.table->node_count, stack_hot.table->module_count);
    return 0;
}
