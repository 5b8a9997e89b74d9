/* The word filter, three times; see filter.h. */
#include "graph/filter.h"

#include <string.h>

static inline uint64_t load(const void *bytes, size_t offset)
{
    uint64_t word;
    memcpy(&word, (const char *)bytes + offset, sizeof word);
    return word;
}

/* Words [from, word_count); kept ones are written after the first count. Always writes, advances
 * only when kept: no branch to mispredict. */
static inline size_t plain_from(const struct filter_rule *rule, const void *bytes, size_t from,
                                size_t word_count, uint32_t *offsets, uint64_t *values,
                                size_t count)
{
    uint64_t keep = rule->keep, low = rule->low, extent = rule->high - rule->low;
    for (size_t i = from; i < word_count; i++) {
        uint64_t word = load(bytes, i * 8) & keep;
        values[count] = word;
        offsets[count] = (uint32_t)(i * 8);
        count += word - low <= extent;
    }
    return count;
}

static size_t filter_plain(const struct filter_rule *rule, const void *bytes, size_t word_count,
                           uint32_t *offsets, uint64_t *values)
{
    return plain_from(rule, bytes, 0, word_count, offsets, values, 0);
}

size_t filter_unaligned(const struct filter_rule *rule, const void *bytes, size_t byte_count,
                        uint32_t *offsets, uint64_t *values)
{
    uint64_t extent = rule->high - rule->low;
    size_t count = 0;
    for (size_t i = 0; i < byte_count; i++) {
        uint64_t word = load(bytes, i) & rule->keep;
        values[count] = word;
        offsets[count] = (uint32_t)i;
        count += word - rule->low <= extent;
    }
    return count;
}

#ifdef __x86_64__
#include <immintrin.h>

__attribute__((target("avx2"))) static size_t filter_avx2(const struct filter_rule *rule,
                                                          const void *bytes, size_t word_count,
                                                          uint32_t *offsets, uint64_t *values)
{
    /* unsigned comparison by flipping the sign bits: word - low > extent is "out" */
    const __m256i keep = _mm256_set1_epi64x((long long)rule->keep);
    const __m256i low = _mm256_set1_epi64x((long long)rule->low);
    const __m256i sign = _mm256_set1_epi64x(INT64_MIN);
    const __m256i extent =
        _mm256_xor_si256(_mm256_set1_epi64x((long long)(rule->high - rule->low)), sign);
    size_t count = 0, i = 0;
    for (; i + 4 <= word_count; i += 4) {
        const char *at = (const char *)bytes + i * 8;
        __m256i words =
            _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(const void *)at), keep);
        __m256i offset = _mm256_xor_si256(_mm256_sub_epi64(words, low), sign);
        __m256i out = _mm256_cmpgt_epi64(offset, extent);
        unsigned in = (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(out)) ^ 15;
        for (; in; in &= in - 1) {
            size_t k = i + (unsigned)__builtin_ctz(in);
            values[count] = load(bytes, k * 8) & rule->keep;
            offsets[count++] = (uint32_t)(k * 8);
        }
    }
    return plain_from(rule, bytes, i, word_count, offsets, values, count);
}

__attribute__((target("avx512f,avx512vl"))) static size_t
filter_avx512(const struct filter_rule *rule, const void *bytes, size_t word_count,
              uint32_t *offsets, uint64_t *values)
{
    const __m512i keep = _mm512_set1_epi64((long long)rule->keep);
    const __m512i low = _mm512_set1_epi64((long long)rule->low);
    const __m512i extent = _mm512_set1_epi64((long long)(rule->high - rule->low));
    const __m256i step = _mm256_set1_epi32(64);
    __m256i at = _mm256_setr_epi32(0, 8, 16, 24, 32, 40, 48, 56);
    size_t count = 0, i = 0;
    for (; i + 8 <= word_count; i += 8) {
        __m512i words = _mm512_loadu_si512((const char *)bytes + i * 8);
        words = _mm512_and_si512(words, keep);
        __mmask8 in = _mm512_cmple_epu64_mask(_mm512_sub_epi64(words, low), extent);
        /* whole stores: compressing to memory is slow on some processors */
        _mm512_storeu_si512(values + count, _mm512_maskz_compress_epi64(in, words));
        _mm256_storeu_si256((__m256i *)(void *)(offsets + count),
                            _mm256_maskz_compress_epi32(in, at));
        count += (unsigned)__builtin_popcount(in);
        at = _mm256_add_epi32(at, step);
    }
    return plain_from(rule, bytes, i, word_count, offsets, values, count);
}

filter_function filter_by_path(enum filter_path path)
{
    if (path == FILTER_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
                   ? filter_avx512
                   : NULL;
    if (path == FILTER_AVX2)
        return __builtin_cpu_supports("avx2") ? filter_avx2 : NULL;
    return path == FILTER_PLAIN ? filter_plain : NULL;
}
#else
filter_function filter_by_path(enum filter_path path)
{
    return path == FILTER_PLAIN ? filter_plain : NULL;
}
#endif

filter_function filter_best(void)
{
    for (unsigned path = FILTER_PATH_COUNT; path-- > 0;) {
        filter_function filter = filter_by_path((enum filter_path)path);
        if (filter)
            return filter;
    }
    return filter_plain;
}
