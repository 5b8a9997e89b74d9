/* Dealing words out to slots, twice; see deal.h. */
#include "graph/deal.h"

#include "graph/bits.h"

/* Slots by multiplication, in units of 4 bytes: exact, since a place in the window is below 2^16
 * and a stride at most 2^13. Strides are at least 2, so that the factor has 32 bits. */
static uint32_t magic_of(uint32_t stride)
{
    return (uint32_t)(((UINT64_C(1) << 32) + stride / 4 - 1) / (stride / 4));
}

static size_t deal_plain(const struct deal *deal, const uint32_t *offsets, const uint64_t *values,
                         size_t count, uint32_t *codes, uint16_t *slots, bool *unusual)
{
    uint64_t magic = magic_of(deal->stride);
    uint32_t stride = deal->stride, room = deal->usable - 8;
    bool odd = false;
    size_t to = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t slot = (uint32_t)((offsets[i] / 4 * magic) >> 32);
        bool stays =
            bits_get(deal->live, deal->block + slot) & (offsets[i] - slot * stride <= room);
        odd |= stays & !codes_plain(deal->codes, values[i], &codes[to]);
        slots[to] = (uint16_t)slot;
        to += stays;
    }
    *unusual = odd;
    return to;
}

#ifdef __x86_64__
#include <immintrin.h>

#define DEAL_TARGET __attribute__((target("avx512f,avx512vl")))

/* Of those that are asked for, which lie in a live slot. */
DEAL_TARGET static inline __mmask16 live_of(const struct deal *deal, __mmask16 asked, __m512i slot)
{
    __m512i block = _mm512_add_epi32(slot, _mm512_set1_epi32((int)deal->block));
    __m512i words = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), asked,
                                                _mm512_srli_epi32(block, 5), deal->live, 4);
    __m512i bit = _mm512_and_si512(block, _mm512_set1_epi32(31));
    return _mm512_mask_test_epi32_mask(asked, words, _mm512_sllv_epi32(_mm512_set1_epi32(1), bit));
}

/* codes_plain() for those that are asked for; *odd: those that are not plain. */
DEAL_TARGET static inline __m256i codes_of(const struct codes *codes, __mmask8 asked, __m512i words,
                                           __mmask8 *odd)
{
    const __m512i first = _mm512_set1_epi64((long long)codes->first);
    const __m512i inside = _mm512_set1_epi64((1LL << CODES_GIB_BITS) - 1);
    __m512i gib = _mm512_sub_epi64(_mm512_srli_epi64(words, CODES_GIB_BITS), first);
    __m256i code = _mm512_mask_i64gather_epi32(_mm256_setzero_si256(), asked, gib, codes->gibs, 4);
    __m512i place = _mm512_srli_epi64(_mm512_and_si512(words, inside), 3);
    *odd = _mm256_mask_test_epi32_mask(asked, code, _mm256_set1_epi32(CODES_GIB_MARKS)) |
           _mm512_mask_test_epi64_mask(asked, words, _mm512_set1_epi64(7));
    return _mm256_or_si256(code, _mm512_cvtepi64_epi32(place));
}

/* Sixteen at a time. What lies beyond count is read, but nothing follows from it. */
DEAL_TARGET static size_t deal_avx512(const struct deal *deal, const uint32_t *offsets,
                                      const uint64_t *values, size_t count, uint32_t *codes,
                                      uint16_t *slots, bool *unusual)
{
    const __m512i magic = _mm512_set1_epi64(magic_of(deal->stride));
    const __m512i stride = _mm512_set1_epi32((int)deal->stride);
    const __m512i room = _mm512_set1_epi32((int)deal->usable - 8);
    unsigned odd = 0;
    size_t to = 0;
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 stays = (__mmask16)(count - i < 16 ? (1u << (count - i)) - 1 : 0xffff);
        __m512i offset = _mm512_loadu_si512(offsets + i), at = _mm512_srli_epi32(offset, 2);
        __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(at, magic), 32);
        __m512i uneven = _mm512_mul_epu32(_mm512_srli_epi64(at, 32), magic);
        __m512i slot = _mm512_mask_blend_epi32(0xaaaa, even, uneven);
        __m512i inside = _mm512_sub_epi32(offset, _mm512_mullo_epi32(slot, stride));
        stays = _mm512_mask_cmple_epu32_mask(stays, inside, room);
        if (!deal->all_live)
            stays = live_of(deal, stays, slot);
        __mmask8 odd_low, odd_high;
        __m256i low =
            codes_of(deal->codes, (__mmask8)stays, _mm512_loadu_si512(values + i), &odd_low);
        __m256i high = codes_of(deal->codes, (__mmask8)(stays >> 8),
                                _mm512_loadu_si512(values + i + 8), &odd_high);
        __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
        odd |= odd_low | odd_high;
        _mm512_storeu_si512(codes + to, _mm512_maskz_compress_epi32(stays, both));
        slot = _mm512_maskz_compress_epi32(stays, slot);
        _mm256_storeu_si256((__m256i *)(void *)(slots + to), _mm512_cvtepi32_epi16(slot));
        to += (unsigned)__builtin_popcount(stays);
    }
    *unusual = odd;
    return to;
}

deal_function deal_by_path(enum deal_path path)
{
    if (path == DEAL_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") ? deal_avx512
                                                                                       : NULL;
    return path == DEAL_PLAIN ? deal_plain : NULL;
}
#else
deal_function deal_by_path(enum deal_path path)
{
    return path == DEAL_PLAIN ? deal_plain : NULL;
}
#endif

deal_function deal_best(void)
{
    deal_function best = deal_by_path(DEAL_AVX512);
    return best ? best : deal_plain;
}
