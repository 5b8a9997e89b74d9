/* Words to codes and bits; see sieve.h. */
#include "graph/sieve.h"

#include <string.h>

struct sieve sieve_new(const struct filter_rule *rule, const struct codes *codes)
{
    struct sieve sieve = {.rule = *rule};
    for (uint32_t first = 0, end; first < codes->count; first = end) {
        uint64_t bytes = 0;
        for (end = first; end < codes->count && codes->starts[end] == codes->starts[first] + bytes;
             end++)
            bytes += UINT64_C(1) << CODES_GIB_BITS;
        if (bytes <= sieve.bytes)
            continue;
        sieve.start = codes->starts[first];
        sieve.bytes = bytes;
        sieve.first = first << CODES_PLACE_BITS;
    }
    return sieve;
}

#ifdef __x86_64__
#include <immintrin.h>

#define SIEVE_TARGET __attribute__((target("avx512f,avx512dq,avx512vl,popcnt,bmi,bmi2")))

struct sieving {
    __m512i keep, low, extent, start, base;
    __m512i highest; /* of what may be codes; those off the grid have their low bits on top */
};

/* Words of which those in there may be kept: what may be their codes, and which ones are. */
SIEVE_TARGET static inline __m512i eight(struct sieving *s, const void *at, __mmask8 there,
                                         __mmask8 *kept)
{
    __m512i words = _mm512_and_si512(_mm512_maskz_loadu_epi64(there, at), s->keep);
    *kept = _mm512_mask_cmple_epu64_mask(there, _mm512_sub_epi64(words, s->low), s->extent);
    __m512i codes = _mm512_ror_epi64(_mm512_sub_epi64(words, s->start), 3);
    s->highest = _mm512_mask_max_epu64(s->highest, *kept, s->highest, codes);
    return codes;
}

/* The codes of sixteen, together; which ones. */
SIEVE_TARGET static inline unsigned sixteen(struct sieving *s, const uint64_t *at, unsigned there,
                                            uint32_t *codes)
{
    const __m512i halves =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __mmask8 low, high;
    __m512i first = eight(s, at, (__mmask8)there, &low);
    __m512i second = eight(s, at + 8, (__mmask8)(there >> 8), &high);
    unsigned kept = (unsigned)low | (unsigned)high << 8;
    __m512i all = _mm512_permutex2var_epi32(first, halves, second);
    all = _mm512_add_epi32(all, s->base);
    _mm512_storeu_si512(codes, _mm512_maskz_compress_epi32((__mmask16)kept, all));
    return kept;
}

SIEVE_TARGET static size_t sieve_avx512(const struct sieve *sieve, const void *bytes,
                                        size_t word_count, uint32_t *codes, uint64_t *bits,
                                        bool *unusual)
{
    const uint64_t *at = bytes;
    struct sieving s = {
        .keep = _mm512_set1_epi64((long long)sieve->rule.keep),
        .low = _mm512_set1_epi64((long long)sieve->rule.low),
        .extent = _mm512_set1_epi64((long long)(sieve->rule.high - sieve->rule.low)),
        .start = _mm512_set1_epi64((long long)sieve->start),
        .base = _mm512_set1_epi32((int)sieve->first),
        .highest = _mm512_setzero_si512(),
    };
    size_t count = 0, i = 0;
    for (; i + 64 <= word_count; i += 64) {
        uint64_t all = 0;
        for (unsigned part = 0; part < 64; part += 16) {
            unsigned kept = sixteen(&s, at + i + part, 0xffff, codes + count);
            count += (unsigned)__builtin_popcount(kept);
            all |= (uint64_t)kept << part;
        }
        bits[i / 64] = all;
    }
    for (size_t word = i / 64; i < word_count; i += 16) {
        size_t left = word_count - i;
        unsigned there = left < 16 ? (1u << left) - 1 : 0xffff;
        unsigned kept = sixteen(&s, at + i, there, codes + count);
        count += (unsigned)__builtin_popcount(kept);
        bits[word] = (i % 64 ? bits[word] : 0) | (uint64_t)kept << i % 64;
    }
    *unusual = _mm512_reduce_max_epu64(s.highest) >= sieve->bytes / 8 && count;
    return count;
}

SIEVE_TARGET static void count_bits(const uint64_t *bits, uint32_t stride, uint32_t slots,
                                    uint8_t *degrees)
{
    enum { STEP = 56 }; /* bits that a load from any byte on has */
    const unsigned char *bytes = (const unsigned char *)bits;
    uint64_t at = 0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        uint32_t left = stride, degree = 0;
        do {
            uint32_t step = left < STEP ? left : STEP;
            uint64_t word;
            memcpy(&word, bytes + at / 8, sizeof word);
            degree += (uint32_t)__builtin_popcountll(_bzhi_u64(word >> at % 8, step));
            at += step;
            left -= step;
        } while (left);
        degrees[slot] = (uint8_t)degree;
    }
}

static bool has_all(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("popcnt") &&
           __builtin_cpu_supports("bmi2");
}

sieve_function sieve_best(void)
{
    return has_all() ? sieve_avx512 : NULL;
}

sieve_count_function sieve_count_best(void)
{
    return has_all() ? count_bits : NULL;
}
#else
sieve_function sieve_best(void)
{
    return NULL;
}

sieve_count_function sieve_count_best(void)
{
    return NULL;
}
#endif
