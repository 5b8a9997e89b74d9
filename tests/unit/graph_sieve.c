/*
 * The sieve says what the filter and a look at each word say: codes in order, bits for the words
 * that were kept, how many stand in each slot, and that a word is not for it.
 */
#include "graph/sieve.h"
#include "unit/tap.h"

#include <stdlib.h>

enum { WORDS_MOST = 32768, GIBS = 8, ROUNDS = 600 };

static uint64_t state = 88172645463325252;

static uint64_t random_below(uint64_t limit)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % limit;
}

static const hi_addr FIRST = UINT64_C(0x7f0000000000);

/* GiBs 3 to 5 have consecutive numbers, and are the longest such stretch. */
static void codes_make(struct codes *codes)
{
    static const unsigned order[] = {1, 3, 4, 5, 7};
    struct hi_range span = {FIRST, FIRST + ((hi_addr)GIBS << 30)};
    if (!codes_new(codes, span, 0))
        exit(99);
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        hi_addr start = FIRST + ((hi_addr)order[i] << 30);
        codes_add(codes, (struct hi_range){start, start + 4096});
    }
}

struct slab {
    uint32_t stride, slots; /* in words */
    unsigned char memory[WORDS_MOST * 8 + 8];
    size_t shift; /* bytes before the first word: memory may lie anyhow */
    size_t count;
};

static uint64_t random_word(unsigned density, unsigned odd)
{
    if (random_below(density))
        return random_below(3) ? random_below(1000) : random_below(UINT64_MAX);
    if (odd && random_below(odd) == 0)
        return random_below(2) ? FIRST + (UINT64_C(4) << 30) + 8 * random_below(1000) + 3
                               : FIRST + (random_below(GIBS) << 30) + 8 * random_below(1000);
    return FIRST + (UINT64_C(3) << 30) + 8 * random_below(UINT64_C(3) << 27);
}

static void slab_make(struct slab *slab)
{
    static const unsigned odds[] = {0, 0, 0, 20000, 50};
    unsigned density = 1 + (unsigned)random_below(9), odd = odds[random_below(5)];
    slab->stride = 1 + (uint32_t)random_below(random_below(2) ? 60 : 254);
    slab->slots = 1 + (uint32_t)random_below(WORDS_MOST / slab->stride);
    if (random_below(3) == 0)
        slab->slots = 1 + slab->slots % 7;
    slab->count = (size_t)slab->stride * slab->slots;
    slab->shift = random_below(2) * random_below(8);
    for (size_t i = 0; i < slab->count; i++) {
        uint64_t word = random_word(density, odd);
        memcpy(slab->memory + slab->shift + 8 * i, &word, 8);
    }
}

struct outcome {
    unsigned wrong, unusual, plain;
};

static void compare(const struct slab *slab, const struct codes *codes,
                    const struct filter_rule *rule, struct outcome *outcome)
{
    static uint32_t offsets[WORDS_MOST + FILTER_SLACK], made[WORDS_MOST + SIEVE_SLACK], code;
    static uint64_t values[WORDS_MOST + FILTER_SLACK], bits[WORDS_MOST / 64 + SIEVE_BITS_SLACK];
    static uint8_t degrees[WORDS_MOST], truth[WORDS_MOST];
    const void *memory = slab->memory + slab->shift;
    struct sieve sieve = sieve_new(rule, codes);
    bool unusual = false, said;
    size_t kept = filter_by_path(FILTER_PLAIN)(rule, memory, slab->count, offsets, values);
    size_t count = sieve_best()(&sieve, memory, slab->count, made, bits, &said);
    memset(truth, 0, sizeof truth);
    for (size_t i = 0; i < kept; i++) {
        hi_addr place = values[i] - FIRST;
        unusual |= values[i] % 8 || place >> 30 < 3 || place >> 30 > 5;
        truth[offsets[i] / 8 / slab->stride]++;
    }
    outcome->unusual += unusual;
    outcome->wrong += said != unusual || count != kept;
    if (unusual || said || count != kept)
        return;
    outcome->plain += count > 0;
    for (size_t i = 0; i < kept; i++)
        outcome->wrong += !codes_plain(codes, values[i], &code) || code != made[i] ||
                          !(bits[offsets[i] / 512] >> offsets[i] / 8 % 64 & 1);
    sieve_count_best()(bits, slab->stride, slab->slots, degrees);
    outcome->wrong += memcmp(degrees, truth, slab->slots) != 0;
}

int main(void)
{
    static struct slab slab;
    struct codes codes;
    struct outcome outcome = {0};
    struct filter_rule rule = {~UINT64_C(0), FIRST, FIRST + ((hi_addr)GIBS << 30) - 8};
    codes_make(&codes);
    struct sieve sieve = sieve_new(&rule, &codes);
    ok(sieve.start == FIRST + (UINT64_C(3) << 30) && sieve.bytes == UINT64_C(3) << 30 &&
           sieve.first == 1u << CODES_PLACE_BITS,
       "it is for GiBs of consecutive numbers");
    ok(!sieve_best() == !sieve_count_best(), "both or none");
    for (unsigned round = 0; sieve_best() && round < ROUNDS; round++) {
        slab_make(&slab);
        compare(&slab, &codes, &rule, &outcome);
    }
    const char *skip = sieve_best() ? "" : " # SKIP this processor has no AVX-512";
    ok(!outcome.wrong, "codes, bits and degrees are those of the long way%s", skip);
    ok(*skip || (outcome.unusual > ROUNDS / 10 && outcome.plain > ROUNDS / 10),
       "plain words, and others%s", skip);
    codes_free(&codes);
    return done();
}
