/* Words in four bytes; see codes.h. */
#include "graph/codes.h"

#include <sys/mman.h>

void codes_add(struct codes *codes, struct hi_range range)
{
    uint64_t last = (range.end >> CODES_GIB_BITS) - codes->first;
    for (uint64_t gib = (range.start >> CODES_GIB_BITS) - codes->first; gib <= last; gib++) {
        if (codes->gibs[gib] != CODES_GIB_NOWHERE)
            continue;
        codes->gibs[gib] = CODES_GIB_ODD;
        if (codes->count == CODES_GIBS)
            continue;
        codes->starts[codes->count] = (codes->first + gib) << CODES_GIB_BITS;
        codes->gibs[gib] = codes->count++ << CODES_PLACE_BITS;
    }
}

bool codes_cover(const struct codes *codes, struct hi_range range)
{
    uint64_t first = range.start >> CODES_GIB_BITS, last = range.end >> CODES_GIB_BITS;
    if (first < codes->first || last - codes->first >= codes->gib_count)
        return false;
    for (uint64_t gib = first; gib <= last; gib++)
        if (codes->gibs[gib - codes->first] == CODES_GIB_NOWHERE)
            return false;
    return true;
}

bool codes_new(struct codes *codes, struct hi_range span, uint64_t most)
{
    *codes = (struct codes){.first = span.start >> CODES_GIB_BITS, .odd_reserved = most};
    codes->gib_count = (span.end >> CODES_GIB_BITS) - codes->first + 1;
    codes->gibs = malloc(codes->gib_count * sizeof *codes->gibs);
    /* where address space is rationed a smaller share may do */
    for (; !codes->odd && codes->odd_reserved; codes->odd_reserved /= 2) {
        void *memory = mmap(NULL, codes->odd_reserved * sizeof *codes->odd, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
            continue;
        codes->odd = memory;
        break;
    }
    if (!codes->gibs || (!codes->odd && most)) {
        codes_free(codes);
        return false;
    }
    for (uint64_t i = 0; i < codes->gib_count; i++)
        codes->gibs[i] = CODES_GIB_NOWHERE;
    return true;
}

bool codes_new_of(struct codes *codes, const struct blocks *blocks, uint64_t most)
{
    if (!codes_new(codes, blocks_span(blocks), most))
        return false;
    /* NODEs come after all heaps: there may be huge ones */
    for (int nodes = 0; nodes < 2; nodes++)
        for (size_t i = 0; i < blocks_region_count(blocks); i++) {
            const struct region *region = blocks_region(blocks, i);
            if ((region->shape == REGION_NODE) == nodes)
                codes_add(codes, (struct hi_range){region->start, region->end});
        }
    return true;
}

bool codes_ready(struct codes *codes, const struct blocks *blocks)
{
    codes->quick = starts_new(blocks, codes->starts, codes->count);
    return codes->quick != NULL;
}

void codes_free(struct codes *codes)
{
    starts_free(codes->quick);
    free(codes->gibs);
    if (codes->odd)
        munmap(codes->odd, codes->odd_reserved * sizeof *codes->odd);
    *codes = (struct codes){0};
}

/* Places in the table of odd words, taken several at a time: the count is shared. */
struct odd_places {
    uint64_t next, left;
};
enum { ODD_PLACES = 64 };

/* most: words that may still come from where this one does. */
static bool odd_put(struct codes *codes, struct odd_places *places, uint64_t word, size_t most,
                    uint32_t *out)
{
    uint64_t limit = EDGE_NONE - ((uint64_t)codes->count << CODES_PLACE_BITS);
    limit = codes->odd_reserved < limit ? codes->odd_reserved : limit;
    if (!places->left) {
        places->left = most < ODD_PLACES ? most : ODD_PLACES;
        places->next = __atomic_fetch_add(&codes->odd_used, places->left, __ATOMIC_RELAXED);
    }
    uint64_t place = places->next++;
    places->left--;
    *out = EDGE_NONE;
    if (place >= limit)
        return false;
    codes->odd[place] = word;
    *out = (codes->count << CODES_PLACE_BITS) + (uint32_t)place;
    return true;
}

bool codes_put(struct codes *codes, const uint64_t *words, size_t count, uint32_t *out,
               size_t *none)
{
    struct odd_places places = {0};
    bool fine = true;
    *none = 0;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_expect(codes_plain(codes, words[i], &out[i]), 1))
            continue;
        out[i] = EDGE_NONE;
        if (codes->gibs[(words[i] >> CODES_GIB_BITS) - codes->first] != CODES_GIB_NOWHERE)
            fine &= odd_put(codes, &places, words[i], count - i, &out[i]);
        *none += out[i] == EDGE_NONE;
    }
    return fine;
}

static inline uint64_t word_of(const struct codes *codes, uint32_t code)
{
    uint32_t gib = code >> CODES_PLACE_BITS;
    if (__builtin_expect(gib >= codes->count, 0))
        return codes->odd[code - (codes->count << CODES_PLACE_BITS)];
    return codes->starts[gib] + (uint64_t)(code & ((UINT32_C(1) << CODES_PLACE_BITS) - 1)) * 8;
}

/* The roundabout way, for what does not simply point to the start of a block. */
static size_t others_resolve(const struct codes *codes, const struct resolve *resolve,
                             uint32_t *codes_here, const uint16_t *others, size_t count)
{
    uint64_t words[STARTS_MANY];
    uint32_t edges[STARTS_MANY];
    for (size_t i = 0; i < count; i++)
        words[i] = word_of(codes, codes_here[others[i]]);
    size_t none = resolve_words(resolve, words, count, edges);
    for (size_t i = 0; i < count; i++)
        codes_here[others[i]] = edges[i];
    return none;
}

/* found are those that start a block, or none of them; others keep their codes. */
static size_t edges_put(uint32_t *codes_here, const hi_block *found, size_t count,
                        const uint16_t *others, size_t other_count)
{
    uint32_t kept[STARTS_MANY];
    size_t none = 0;
    for (size_t i = 0; i < other_count; i++)
        kept[i] = codes_here[others[i]];
    for (size_t i = 0; i < count; i++) {
        codes_here[i] = found[i] == BLOCK_NONE ? EDGE_NONE : found[i] << 2 | EDGE_START;
        none += found[i] == BLOCK_NONE;
    }
    for (size_t i = 0; i < other_count; i++) {
        none -= found[others[i]] == BLOCK_NONE;
        codes_here[others[i]] = kept[i];
    }
    return none;
}

size_t codes_resolve(const struct codes *codes, const struct resolve *resolve, uint32_t *codes_here,
                     size_t count)
{
    hi_block found[STARTS_MANY];
    uint16_t others[STARTS_MANY];
    size_t none = 0, batch;
    for (; count; codes_here += batch, count -= batch) {
        batch = count < STARTS_MANY ? count : STARTS_MANY;
        size_t other_count = starts_find(codes->quick, codes_here, batch, found, others);
        none += edges_put(codes_here, found, batch, others, other_count);
        none += others_resolve(codes, resolve, codes_here, others, other_count);
    }
    return none;
}
