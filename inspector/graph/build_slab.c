/*
 * Edges of small blocks in slabs, without a step a block.
 *
 * Where all blocks of a region have one size, the block around a word is a multiplication away, so
 * words need not be dealt out block by block: each kept word finds its slot, stays if the slot is
 * live and the word lies wholly in it, and counts for the slot's degree once it is resolved. No
 * branch depends on how many words a block has; the blocks themselves are only looked at in the
 * live plane. Small: at most 254 words, so that none can be fat (edges.h).
 */
#include "graph/build.h"

enum { DEAD_BYTES = 4096 }; /* a longer stretch of dead slots is not read */

bool build_slab_fits(const struct build *build, const struct region *region)
{
    return region->shape == REGION_SLAB && !build->options->unaligned && region->usable >= 8 &&
           region->usable < EDGES_FAT * 8 && region->first % 8 == 0 && region->stride % 8 == 0 &&
           region->stride <= WINDOW_BYTES / 8;
}

/* End of the stretch from block (live) on that is worth one read: no longer dead part, and not
 * more than a window. Ends behind a live block. */
static hi_block stretch_end(const struct build *build, const struct region *region, hi_block block,
                            hi_block end)
{
    const uint64_t *live = build->resolve.live;
    uint32_t most = WINDOW_BYTES / region->stride, gap = DEAD_BYTES / region->stride + 64;
    end = end - block > most ? block + most : end;
    for (;;) {
        /* live ones run up to here; a word of the plane at a time is exact enough */
        hi_block word_end = (block | 63) + 1;
        if (word_end >= end)
            break;
        hi_block next = bits_from(live, word_end, end);
        if (next == end || next - word_end > gap) {
            end = word_end;
            break;
        }
        block = next;
    }
    while (!bits_get(live, end - 1))
        end--;
    return end;
}

static uint32_t live_between(const uint64_t *live, hi_block from, hi_block end)
{
    uint32_t count = 0;
    for (size_t w = from / 64; w <= (end - 1) / 64; w++) {
        uint64_t word = live[w];
        if (w == from / 64)
            word &= ~UINT64_C(0) << from % 64;
        if (w == (end - 1) / 64)
            word &= ~UINT64_C(0) >> (63 - (end - 1) % 64);
        count += (uint32_t)__builtin_popcountll(word);
    }
    return count;
}

/* Words of live slots stay, with their slot counted from block. */
static size_t deal(struct build_worker *w, const struct region *region, const uint64_t *live,
                   hi_block block)
{
    struct window *window = &w->window;
    /* exact for the window's offsets: they and the stride are below 2^18 */
    uint64_t magic = (UINT64_C(1) << 40) / region->stride + 1;
    uint32_t stride = region->stride, room = (uint32_t)region->usable - 8;
    size_t to = 0;
    for (size_t i = 0; i < window->count; i++) {
        uint32_t offset = window->offsets[i];
        uint32_t slot = (uint32_t)(offset * magic >> 40);
        bool stays = bits_get(live, block + slot) & (offset - slot * stride <= room);
        window->values[to] = window->values[i];
        w->slots[to] = (uint16_t)slot;
        to += stays;
    }
    return to;
}

/* deal(), with codes straight to where the group's edges are: three passes in one, over words that
 * fill most of the cache. false: some word is unusual, and nothing was done. */
static bool deal_codes(const struct build *build, struct build_worker *w,
                       const struct region *region, hi_block block, bool all_live, size_t *count)
{
    const struct window *window = &w->window;
    const struct deal deal = {
        .codes = &build->graph->codes,
        .live = build->resolve.live,
        .block = block,
        .stride = region->stride,
        .usable = (uint32_t)region->usable,
        .all_live = all_live,
    };
    bool unusual;
    *count = build->deal(&deal, window->offsets, window->values, window->count,
                         w->group + w->group_count, w->slots, &unusual);
    return !unusual;
}

/* Where every word is an edge, or a code: they stand behind the group's already. A slot's words lie
 * together, so its last one is stored by whoever comes last, and nothing is counted up word by
 * word.
 */
static void gather_whole(struct build_worker *w, size_t count, uint8_t *degrees, uint32_t slots)
{
    uint16_t *ends = w->ends; /* of each slot's words; 0: it has none */
    memset(ends, 0, slots * sizeof *ends);
    for (size_t i = 0; i < count; i++)
        ends[w->slots[i]] = (uint16_t)(i + 1);
    uint16_t before = 0;
    for (uint32_t i = 0; i < slots; i++) {
        degrees[i] = (uint8_t)(ends[i] ? ends[i] - before : 0);
        before = ends[i] ? ends[i] : before;
    }
    w->resolved += count;
    w->group_count += count;
}

/* Edges behind those of the group so far; a degree never passes 254. */
static void gather(struct build_worker *w, size_t count, uint8_t *degrees)
{
    size_t group_count = w->group_count;
    for (size_t i = 0; i < count; i++) {
        bool is_edge = w->results[i] != EDGE_NONE;
        w->group[group_count] = w->results[i];
        group_count += is_edge;
        degrees[w->slots[i]] = (uint8_t)(degrees[w->slots[i]] + is_edge);
    }
    w->resolved += group_count - w->group_count;
    w->group_count = group_count;
}

/* Heaps may be full of pointers to tables of code, which no sieve is for: after some slabs it is no
 * longer tried. */
static bool sieve_may(const struct build *build, const struct build_worker *w,
                      const struct region *region)
{
    enum { TRIED_IN_VAIN = 64 };
    return build->sieve_words && region->usable == region->stride &&
           w->unsieved <= w->sieved + TRIED_IN_VAIN;
}

/* A slab's words through the sieve; false: it is not for them, and nothing was done. */
static bool sieve_take(const struct build *build, struct build_worker *w,
                       const struct region *region, const void *memory, uint32_t slots,
                       uint8_t *degrees)
{
    uint32_t stride = region->stride / 8;
    bool unusual;
    if (!memory || !sieve_may(build, w, region))
        return false;
    size_t count = build->sieve_words(&build->sieve, memory, (size_t)slots * stride,
                                      w->group + w->group_count, w->bits, &unusual);
    w->sieved += !unusual;
    w->unsieved += unusual;
    if (unusual)
        return false;
    build->sieve_count(w->bits, stride, slots, degrees);
    w->kept += count;
    w->resolved += count;
    w->group_count += count;
    return true;
}

void build_slab(struct build *build, struct build_worker *w, const struct region *region,
                hi_block block, hi_block end)
{
    const uint64_t *live = build->resolve.live;
    while ((block = bits_from(live, block, end)) < end) {
        hi_block stop = stretch_end(build, region, block, end);
        hi_addr start = region->first + (uint64_t)(block - region->base) * region->stride;
        uint64_t bytes = (uint64_t)(stop - block - 1) * region->stride + region->usable;
        const void *memory = window_look(&w->window, start, start + bytes);
        uint8_t *degrees = &build->graph->edges.degrees[block];
        uint32_t live_count = live_between(live, block, stop);
        bool all_live = live_count == stop - block;
        w->words += (uint64_t)live_count * (region->usable / 8);
        if (all_live && sieve_take(build, w, region, memory, stop - block, degrees)) {
            block = stop;
            continue;
        }
        size_t count;
        window_filter(&w->window, memory, start, start + bytes);
        if (build->deferred && deal_codes(build, w, region, block, all_live, &count)) {
            w->kept += count;
            gather_whole(w, count, degrees, stop - block);
        } else {
            count = deal(w, region, live, block);
            w->kept += count;
            size_t none = build_resolve(build, w, count);
            memcpy(w->group + w->group_count, w->results, count * sizeof *w->results);
            if (none == 0)
                gather_whole(w, count, degrees, stop - block);
            else
                gather(w, count, degrees);
        }
        block = stop;
    }
}
