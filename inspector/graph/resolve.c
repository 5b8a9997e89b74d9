/* Words to edges; see resolve.h. */
#include "graph/resolve.h"

#include "graph/bits.h"

static uint32_t edge_of(hi_block block, enum edge_kind kind)
{
    return block << 2 | (uint32_t)kind;
}

static enum edge_kind kind_at(const struct resolve *resolve, hi_addr word,
                              const struct block_place *place)
{
    const struct region *region = blocks_region(resolve->blocks, place->region);
    if (resolve->interior_reachable || region->interior_ok || region->shape == REGION_NODE)
        return EDGE_START;
    uint64_t usable = blocks_place_usable(resolve->blocks, word, place);
    uint64_t slack = region->slack < usable ? region->slack : usable;
    if (place->offset >= usable - slack)
        return EDGE_START;
    if (place->offset < 8)
        return EDGE_TAGGED;
    return place->offset == 8 || place->offset == 16 ? EDGE_COOKIE : EDGE_INTERIOR;
}

static inline uint32_t edge_at(const struct resolve *resolve, hi_addr word,
                               const struct block_place *place)
{
    if (place->block == BLOCK_NONE || !bits_get(resolve->live, place->block))
        return EDGE_NONE;
    if (place->offset == 0)
        return edge_of(place->block, EDGE_START);
    return edge_of(place->block, kind_at(resolve, word, place));
}

uint32_t resolve_word(const struct resolve *resolve, hi_addr word)
{
    struct block_place place;
    blocks_at(resolve->blocks, word, &place);
    return edge_at(resolve, word, &place);
}

size_t resolve_words(const struct resolve *resolve, const uint64_t *words, size_t count,
                     uint32_t *edges)
{
    struct block_place places[BLOCKS_AT_MANY];
    size_t none = 0;
    for (size_t from = 0; from < count; from += BLOCKS_AT_MANY) {
        size_t batch = count - from < BLOCKS_AT_MANY ? count - from : BLOCKS_AT_MANY;
        blocks_at_many(resolve->blocks, words + from, batch, places);
        for (size_t i = 0; i < batch; i++) {
            edges[from + i] = edge_at(resolve, words[from + i], &places[i]);
            none += edges[from + i] == EDGE_NONE;
        }
    }
    return none;
}
