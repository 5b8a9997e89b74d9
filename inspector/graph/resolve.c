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
    if (place->offset > usable - slack || place->offset >= usable)
        return EDGE_START;
    return place->offset == 8 || place->offset == 16 ? EDGE_COOKIE : EDGE_INTERIOR;
}

/* Nothing live is at word; but it may be one past the end of a live block whose neighbour is not.
 */
static uint32_t end_before(const struct resolve *resolve, hi_addr word)
{
    struct block_place place;
    if (!blocks_at(resolve->blocks, word - 1, &place) || !bits_get(resolve->live, place.block) ||
        place.offset + 1 != blocks_place_usable(resolve->blocks, word - 1, &place))
        return EDGE_NONE;
    return edge_of(place.block, EDGE_START);
}

static inline uint32_t edge_at(const struct resolve *resolve, hi_addr word,
                               const struct block_place *place)
{
    if (place->block == BLOCK_NONE)
        return EDGE_NONE;
    if (!bits_get(resolve->live, place->block))
        return place->offset == 0 ? end_before(resolve, word) : EDGE_NONE;
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

void resolve_words(const struct resolve *resolve, const uint64_t *words, size_t count,
                   uint32_t *edges)
{
    struct block_place places[BLOCKS_AT_MANY];
    for (size_t from = 0; from < count; from += BLOCKS_AT_MANY) {
        size_t batch = count - from < BLOCKS_AT_MANY ? count - from : BLOCKS_AT_MANY;
        blocks_at_many(resolve->blocks, words + from, batch, places);
        for (size_t i = 0; i < batch; i++)
            edges[from + i] = edge_at(resolve, words[from + i], &places[i]);
    }
}
