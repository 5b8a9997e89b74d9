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

/* -ln(u) for 0 < u <= 1, to 9 digits: u = m * 2^e with m around 1, ln m as a series of
 * (m - 1) / (m + 1). Unrolled, no term wants a division. */
static double minus_log(double u)
{
    uint64_t bits;
    memcpy(&bits, &u, sizeof(bits));
    uint64_t fraction = bits & ((1ULL << 52) - 1);
    uint64_t upper = fraction > 0x6a09e667f3bcdULL; /* m > sqrt 2; no branch: it would be guessed */
    int e = (int)(bits >> 52) - 1023 + (int)upper;
    bits = fraction | (1023 - upper) << 52;
    double m;
    memcpy(&m, &bits, sizeof(m));
    double s = (m - 1) / (m + 1), square = s * s, sum = 0;
#pragma GCC unroll 5
    for (int k = 9; k > 0; k -= 2)
        sum = sum * square + 1.0 / k;
    return -(e * 0.6931471805599453 + 2 * s * sum);
}

/* Bytes to the next point. */
static double draw_way(void)
{
    double u = (double)((random_next() >> 11) + 1) * 0x1p-53;
    return minus_log(u) * (double)hm_hot.sample_bytes;
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
    t->sampled_at[class_index] = (uint16_t)((rest < 0 ? 0 : rest < block ? rest : block - 1) + 1);
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
