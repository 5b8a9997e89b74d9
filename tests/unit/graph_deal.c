/*
 * Dealing words out to slots: every path says what a look at one word after the other says, for all
 * kinds of strides, dead slots, tails that belong to nobody, and words that are not plain.
 */
#include "graph/deal.h"
#include "graph/bits.h"
#include "unit/tap.h"

#include <stdlib.h>

enum { WINDOW = 256 << 10, WORDS_MOST = WINDOW / 8, GIBS = 24, ROUNDS = 400 };

static uint64_t state = 88172645463325252;

static uint64_t random_below(uint64_t limit)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % limit;
}

struct input {
    struct codes codes;
    struct deal deal;
    uint64_t live[(1 << 16) / 64];
    uint32_t offsets[WORDS_MOST + DEAL_SLACK];
    uint64_t values[WORDS_MOST + DEAL_SLACK];
    size_t count;
};

struct output {
    uint32_t codes[WORDS_MOST + DEAL_SLACK];
    uint16_t slots[WORDS_MOST + DEAL_SLACK];
    size_t count;
    bool unusual;
};

/* GiBs with numbers, some between them that have no block, and more than there are numbers for. */
static void codes_make(struct codes *codes)
{
    struct hi_range span = {UINT64_C(1) << 40, (UINT64_C(1) << 40) + ((hi_addr)GIBS << 30)};
    if (!codes_new(codes, span, 0))
        exit(99);
    for (unsigned gib = 0; gib < GIBS; gib++)
        if (gib % 8)
            codes_add(codes, (struct hi_range){span.start + ((hi_addr)gib << 30),
                                               span.start + ((hi_addr)gib << 30) + 4096});
}

/* odd: one word in so many is not plain; 0: none. */
static uint64_t random_word(const struct codes *codes, unsigned odd)
{
    uint64_t gib = codes->first + 1 + random_below(7) + 8 * random_below(2);
    uint64_t word = (gib << 30) + random_below(1 << 27) * 8;
    if (!odd || random_below(odd))
        return word;
    return random_below(2) ? word + 1 + random_below(7)
                           : (codes->first << 30) + random_below((uint64_t)GIBS << 30);
}

static void input_make(struct input *in)
{
    static const unsigned odds[] = {0, 0, 0, 3000, 10};
    struct deal *deal = &in->deal;
    unsigned odd = odds[random_below(5)], density = 1 + (unsigned)random_below(9);
    deal->codes = &in->codes;
    deal->live = in->live;
    deal->block = (hi_block)random_below(20000);
    deal->stride = 8 * (uint32_t)(1 + random_below(random_below(2) ? 60 : 4096));
    deal->usable = 8 + (uint32_t)random_below(deal->stride - 7);
    deal->all_live = random_below(2);
    for (size_t i = 0; i < sizeof in->live / sizeof *in->live; i++)
        in->live[i] = deal->all_live ? ~UINT64_C(0) : random_below(UINT64_MAX);
    uint32_t slots = WINDOW / deal->stride;
    uint32_t bytes = (slots - 1) * deal->stride + deal->usable;
    in->count = 0;
    for (uint32_t at = 0; at + 8 <= bytes; at += 8) {
        if (random_below(density))
            continue;
        in->offsets[in->count] = at;
        in->values[in->count++] = random_word(&in->codes, odd);
    }
    if (random_below(4) == 0)
        in->count = in->count < 40 ? in->count : random_below(40);
    for (size_t i = 0; i < DEAL_SLACK; i++) { /* what follows must not matter */
        in->offsets[in->count + i] = (uint32_t)random_below(UINT32_MAX);
        in->values[in->count + i] = random_below(UINT64_MAX);
    }
}

/* The definition. */
static void deal_slowly(const struct input *in, struct output *out)
{
    const struct deal *deal = &in->deal;
    *out = (struct output){0};
    for (size_t i = 0; i < in->count; i++) {
        uint32_t slot = in->offsets[i] / deal->stride, inside = in->offsets[i] % deal->stride;
        if (inside + 8 > deal->usable || !bits_get(deal->live, deal->block + slot))
            continue;
        out->unusual |= !codes_plain(deal->codes, in->values[i], &out->codes[out->count]);
        out->slots[out->count++] = (uint16_t)slot;
    }
}

static bool same(const struct output *a, const struct output *b)
{
    if (a->unusual || b->unusual)
        return a->unusual == b->unusual;
    return a->count == b->count && memcmp(a->codes, b->codes, a->count * sizeof *a->codes) == 0 &&
           memcmp(a->slots, b->slots, a->count * sizeof *a->slots) == 0;
}

int main(void)
{
    static struct input in;
    static struct output truth, out;
    unsigned wrong[DEAL_PATH_COUNT] = {0}, unusual = 0, plain = 0;
    codes_make(&in.codes);
    for (unsigned round = 0; round < ROUNDS; round++) {
        input_make(&in);
        deal_slowly(&in, &truth);
        unusual += truth.unusual;
        plain += !truth.unusual && truth.count > 16;
        for (int path = 0; path < DEAL_PATH_COUNT; path++) {
            deal_function function = deal_by_path((enum deal_path)path);
            if (!function)
                continue;
            out.count = function(&in.deal, in.offsets, in.values, in.count, out.codes, out.slots,
                                 &out.unusual);
            wrong[path] += !same(&truth, &out);
        }
    }
    ok(deal_by_path(DEAL_PLAIN) && deal_best(), "there is a path");
    ok(unusual > ROUNDS / 10 && plain > ROUNDS / 10, "plain words, and others");
    ok(wrong[DEAL_PLAIN] == 0, "word by word");
    if (deal_by_path(DEAL_AVX512))
        ok(wrong[DEAL_AVX512] == 0, "sixteen at a time");
    else
        ok(true, "sixteen at a time # SKIP this processor has no AVX-512");
    codes_free(&in.codes);
    return done();
}
