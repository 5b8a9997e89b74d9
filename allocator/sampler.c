/*
 * sampler: which allocations are samples.
 *
 * What is wanted: each allocation is picked independently of all others, with the probability
 * 1 - exp(-bytes / distance), bytes being what was asked for, distance the mean (sample_bytes). So
 * a reader who counts each sample 1 / (1 - exp(-bytes / distance)) times has the truth in the mean,
 * for every size. It is as if points were strewn over all bytes ever allocated, at random, one in
 * `distance` bytes, and who has a point on him is picked. From one point to the next the way is
 * exponentially distributed, and has no memory: drawing anew at any moment that does not depend on
 * what would have been drawn changes nothing.
 *
 * Blocks out of bins are not counted by bytes, since that costs the fast path a quarter of its time
 * (measured: a countdown in thread-local memory, by itself or merged with the test for large
 * sizes). They are counted by bin: the window's word {head, ticks} goes up by one addition for both
 * halves, and its carry, the only thing that is new, says that ticks have overflowed. sampler_arm
 * draws a way in bytes of full blocks: so many blocks to go (ticks), and where in the last one the
 * point lies (sampled_at). When the ticks overflow, the block is the sample if it was asked to be
 * long enough to have the point on it; else the point fell on its slack and nothing is picked. A
 * way longer than ticks can count ends in an overflow without a sample, and a new draw.
 *
 * What comes by other ways (large blocks, those of named arenas, blocks that realloc leaves where
 * they are, threads without a cache, a class's first block) is counted by bytes in a countdown of
 * the thread.
 *
 * A thread learns of a change of the mode in its next slow path: by then at most 65536 blocks of a
 * class have been counted the old way.
 */
#include "sampler.h"

#include "pages.h"
#include "size_class.h"
#include "thread_cache.h"

#include <string.h>
#include <sys/syscall.h>
#include <time.h>

enum { TICKS = 1 << 16 };

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* The thread's own numbers; a counter that is mixed (splitmix64). */
static uint64_t random_next(void)
{
    if (UNLIKELY(hm_tls.random == 0)) {
        struct timespec now = {0};
        pages_syscall(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0, 0, 0, 0);
        hm_tls.random = mix((uint64_t)now.tv_sec * 1000000007U + (uint64_t)now.tv_nsec) ^
                        mix((uintptr_t)&hm_tls) ^ (uint64_t)thread_id() << 32;
    }
    hm_tls.random += 0x9e3779b97f4a7c15ULL;
    return mix(hm_tls.random);
}

/* -ln(f) and 1 / f in the middle of each 64th of [1/2, 1): ln f = 2 (y + y^3 / 3 + y^5 / 5 + ...),
 * y = (f - 1) / (f + 1), of which no more than a third to the 23rd power is left out. */
#define LOG_Y(i)      (((i)-63.5) / ((i) + 192.5))
#define LOG_YY(i)     (LOG_Y(i) * LOG_Y(i))
#define LOG_TAIL(z)   (1.0 / 15 + (z) * (1.0 / 17 + (z) * (1.0 / 19 + (z) / 21)))
#define LOG_MIDDLE(z) (1.0 / 9 + (z) * (1.0 / 11 + (z) * (1.0 / 13 + (z)*LOG_TAIL(z))))
#define LOG_SERIES(z) (1 + (z) * (1.0 / 3 + (z) * (1.0 / 5 + (z) * (1.0 / 7 + (z)*LOG_MIDDLE(z)))))
#define LOG_1(i)                                                                                   \
    {                                                                                              \
        -2 * LOG_Y(i) * LOG_SERIES(LOG_YY(i)), 128 / (64.5 + (i))                                  \
    }
#define LOG_4(i)  LOG_1(i), LOG_1((i) + 1), LOG_1((i) + 2), LOG_1((i) + 3)
#define LOG_16(i) LOG_4(i), LOG_4((i) + 4), LOG_4((i) + 8), LOG_4((i) + 12)
static const struct log_point {
    double minus_log, inverse;
} log_points[64] = {LOG_16(0), LOG_16(16), LOG_16(32), LOG_16(48)};

/* Exponentially distributed, of mean 1: -ln(u), u = f / 2^n. The lowest bits say n, the others f;
 * the series from the point next to f has 9 digits. Half the time of a division and more terms,
 * which for large blocks was a third of all. */
static double draw_exponential(void)
{
    uint64_t random = random_next();
    const struct log_point *near = &log_points[random >> 58];
    uint64_t bits = 0x3feULL << 52 | random >> 12;
    double f, middle = (double)(129 + 2 * (random >> 58)) / 256;
    memcpy(&f, &bits, sizeof(f));
    double s = (f - middle) * near->inverse;
    double rest = near->minus_log - s * (1 - s * (0.5 - s * (1.0 / 3)));
    return __builtin_ctzll(random | 1ULL << 63) * 0.6931471805599453 + rest;
}

/* Bytes to the next point. */
static double draw_way(void)
{
    return draw_exponential() * (double)hm_hot.sample_bytes;
}

bool sampler_take(size_t bytes)
{
    if (hm_hot.stacks_mode != HM_STACKS_SAMPLED)
        return false;
    if (UNLIKELY(hm_tls.turn != hm_hot.stacks_turn))
        sampler_turn(hm_tls.record);
    if (LIKELY(bytes < (uint64_t)hm_tls.gap)) {
        hm_tls.gap -= (int64_t)bytes;
        return false;
    }
    hm_tls.gap = (int64_t)draw_way() + 1;
    return true;
}

void sampler_arm(struct hm_thread *t, uint32_t class_index)
{
    struct hm_bin *bin = &t->bins[class_index];
    double block = (double)size_class_bytes(class_index);
    bin->window.ticks = 0;
    t->sampled_at[class_index] = 0;
    if (hm_hot.stacks_mode != HM_STACKS_SAMPLED)
        return;
    double way = draw_way();
    if (way >= block * TICKS)
        return;
    uint64_t before = (uint64_t)(way / block); /* full blocks without a point */
    double rest = way - (double)before * block;
    t->sampled_at[class_index] = (uint32_t)((rest < 0 ? 0 : rest < block ? rest : block - 1) + 1);
    bin->window.ticks = (uint16_t)(TICKS - 1 - before);
}

bool sampler_due(struct hm_thread *t, uint32_t class_index, size_t bytes)
{
    uint32_t least = t->sampled_at[class_index];
    sampler_arm(t, class_index);
    return hm_hot.stacks_mode == HM_STACKS_SAMPLED && least != 0 && bytes >= least;
}

void sampler_turn(struct hm_thread *t)
{
    hm_tls.turn = hm_hot.stacks_turn;
    hm_tls.gap = (int64_t)draw_way() + 1;
    for (uint32_t c = 1; t && c <= CLASS_COUNT; c++)
        if (t->bins[c].window.empty != t->bins[c].full)
            sampler_arm(t, c);
}
