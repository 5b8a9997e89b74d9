/*
 * Building the table of blocks: what readers push, checked, and numbered at the end.
 *
 * A region is accepted when it agrees with itself (start < end below 2^48, every block inside, the
 * total under BLOCKS_MAX) and overlaps none before it; otherwise nothing of it is stored. State
 * bits wait in one pool in order of arrival and are moved to their place in the planes by
 * blocks_finish(), when address order is known. Nothing here reads the target.
 */
#include "heap/blocks_table.h"

enum hi_code blocks_new(struct blocks **blocks, struct hi_err *err)
{
    *blocks = calloc(1, sizeof **blocks);
    return *blocks ? HI_OK : hi_no_memory(err);
}

static void build_free(struct blocks *blocks)
{
    VECTOR_FREE(&blocks->sources);
    VECTOR_FREE(&blocks->suspects);
    VECTOR_FREE(&blocks->pool);
    span_set_free(&blocks->spans);
}

void blocks_free(struct blocks *blocks)
{
    if (!blocks)
        return;
    build_free(blocks);
    for (size_t i = 0; i < blocks->ranks.count; i++)
        rank_free(&blocks->ranks.items[i]);
    VECTOR_FREE(&blocks->ranks);
    VECTOR_FREE(&blocks->tables);
    free(blocks->regions);
    free(blocks->hot);
    free(blocks->region_rank);
    free(blocks->region_at);
    free(blocks->live);
    free(blocks->cached);
    free(blocks->suspect);
    free(blocks->root);
    free(blocks);
}

static enum hi_code refuse(struct hi_err *err, hi_addr address, const char *why)
{
    hi_fault(err, address, "a region of blocks %s", why);
    if (err)
        err->code = HI_BAD_INPUT;
    return HI_BAD_INPUT;
}

/* NULL: fine; else what is wrong. */
static const char *slab_fault(const struct region *region)
{
    uint64_t extent = region->end - region->start;
    if (region->stride == 0)
        return "has a stride of 0";
    if (region->usable > region->stride)
        return "has blocks larger than their stride";
    if (region->first < region->start || region->first > region->end)
        return "has its first block outside";
    if (region->count == 0)
        return NULL;
    uint64_t last = (uint64_t)(region->count - 1) * region->stride; /* < 2^64: both 32 bits */
    uint64_t room = extent - (region->first - region->start);
    if (last > room || region->usable > room - last)
        return "has more blocks than room";
    return NULL;
}

static const char *region_fault(const struct region *region)
{
    if (region->start >= region->end)
        return "ends before it starts";
    if (region->end > BLOCKS_ADDRESS_LIMIT)
        return "lies outside of user addresses";
    switch (region->shape) {
    case REGION_SLAB:
        return slab_fault(region);
    case REGION_SINGLE:
        if (region->first < region->start || region->first > region->end ||
            region->usable > region->end - region->first)
            return "has its block outside";
        return NULL;
    case REGION_CHUNKS:
        return region->end - region->start > BLOCKS_ADDRESS_LIMIT >> 4 ? "is larger than 16 TiB"
                                                                       : NULL;
    case REGION_NODE:
        return NULL;
    }
    return "has no known shape";
}

static enum hi_code room_for(const struct blocks *blocks, uint64_t more, struct hi_err *err)
{
    if (more <= BLOCKS_MAX - blocks->total)
        return HI_OK;
    return hi_fail(err, HI_UNSUPPORTED, "more than %u blocks in the heaps of one target",
                   BLOCKS_MAX);
}

static struct block_source *source_add(struct blocks *blocks, const struct region *region)
{
    struct span span = {region->start, region->end, (uint32_t)blocks->sources.count};
    struct block_source *source = VECTOR_PUSH(&blocks->sources);
    if (!source)
        return NULL;
    source->region = *region;
    if (!span_set_add(&blocks->spans, span)) {
        blocks->sources.count--;
        return NULL;
    }
    return source;
}

static enum hi_code region_check(const struct blocks *blocks, const struct region *region,
                                 struct hi_err *err)
{
    if (blocks->finished || blocks->open)
        return refuse(err, region->start, "comes after the end");
    const char *fault = region_fault(region);
    if (fault)
        return refuse(err, region->start, fault);
    if (blocks->sources.count >= INT32_MAX)
        return hi_fail(err, HI_UNSUPPORTED, "more than 2^31 regions of blocks");
    const struct span *other = span_set_overlap(&blocks->spans, region->start, region->end);
    if (other)
        return refuse(err, other->start > region->start ? other->start : region->start,
                      "overlaps one that was found before");
    return HI_OK;
}

static bool pool_push(struct blocks *blocks, const uint64_t *bits, uint32_t count,
                      uint64_t *first_bit)
{
    *first_bit = (uint64_t)blocks->pool.count * 64;
    for (uint32_t i = 0; i < count / 64 + (count % 64 != 0); i++) {
        uint64_t *word = VECTOR_PUSH(&blocks->pool);
        if (!word)
            return false;
        *word = bits[i];
    }
    return true;
}

enum hi_code blocks_add(struct blocks *blocks, const struct region *given,
                        const uint64_t *live_bits, struct hi_err *err)
{
    struct region region = *given;
    if (region.shape == REGION_CHUNKS)
        return refuse(err, region.start, "of chunks comes whole");
    if (region.shape == REGION_SINGLE || region.shape == REGION_NODE)
        region.count = 1;
    if (region.shape == REGION_NODE) {
        region.first = region.start;
        region.usable = region.end - region.start;
        region.heap = BLOCKS_NO_HEAP;
    }
    enum hi_code code = region_check(blocks, &region, err);
    if (code == HI_OK)
        code = room_for(blocks, region.count, err);
    if (code != HI_OK)
        return code;
    uint64_t live_bit = 0;
    if (live_bits && !pool_push(blocks, live_bits, region.count, &live_bit))
        return hi_no_memory(err);
    struct block_source *source = source_add(blocks, &region);
    if (!source)
        return hi_no_memory(err);
    source->all_live = !live_bits;
    source->live_bit = live_bit;
    blocks->total += region.count;
    return HI_OK;
}

enum hi_code blocks_add_node(struct blocks *blocks, struct hi_range range, struct hi_err *err)
{
    while (range.start < range.end) {
        const struct span *next = span_set_overlap(&blocks->spans, range.start, range.end);
        hi_addr until = next ? next->start : range.end, resume = next ? next->end : range.end;
        if (range.start < until) {
            struct region node = {.start = range.start, .end = until, .shape = REGION_NODE};
            enum hi_code code = blocks_add(blocks, &node, NULL, err);
            if (code != HI_OK)
                return code;
        }
        range.start = resume;
    }
    return HI_OK;
}

/* -- chunks ------------------------------------------------------------------------------------ */

enum hi_code blocks_chunks_begin(struct blocks *blocks, const struct region *given,
                                 struct hi_err *err)
{
    struct region region = *given;
    region.count = 0;
    if (region.shape != REGION_CHUNKS)
        return refuse(err, region.start, "of chunks has another shape");
    enum hi_code code = region_check(blocks, &region, err);
    if (code != HI_OK)
        return code;
    struct rank *rank = VECTOR_PUSH(&blocks->ranks);
    if (!rank)
        return hi_no_memory(err);
    if (!rank_new(rank, region.end - blocks_grid(&region))) {
        blocks->ranks.count--;
        return hi_no_memory(err);
    }
    struct block_source *source = source_add(blocks, &region);
    if (!source)
        return hi_no_memory(err);
    source->rank = (uint32_t)blocks->ranks.count - 1;
    source->has_cached = true;
    source->live_bit = (uint64_t)blocks->pool.count * 64;
    blocks->open = true;
    blocks->open_bit = 0;
    return HI_OK;
}

/* The open region's states are pairs of words in the pool: 64 live bits, 64 cached bits. */
static bool state_push(struct blocks *blocks, enum block_state state)
{
    unsigned bit = blocks->open_bit % 64;
    for (int i = 0; bit == 0 && i < 2; i++) {
        const uint64_t *word = VECTOR_PUSH(&blocks->pool);
        if (!word)
            return false;
    }
    size_t pair = blocks->pool.count - 2;
    if (state == BLOCK_LIVE || state == BLOCK_IN_FLIGHT)
        blocks->pool.items[pair] |= UINT64_C(1) << bit;
    if (state == BLOCK_CACHED || state == BLOCK_IN_FLIGHT || state == BLOCK_SUSPECT)
        blocks->pool.items[pair + 1] |= UINT64_C(1) << bit;
    if (state == BLOCK_SUSPECT) {
        struct block_suspect *suspect = VECTOR_PUSH(&blocks->suspects);
        if (!suspect)
            return false;
        suspect->source = (uint32_t)blocks->sources.count - 1;
        suspect->ordinal = (uint32_t)blocks->open_bit;
    }
    blocks->open_bit++;
    return true;
}

enum hi_code blocks_chunks_add(struct blocks *blocks, const struct block_chunk *chunks,
                               size_t count, struct hi_err *err)
{
    if (!blocks->open)
        return refuse(err, count ? chunks[0].address : 0, "of chunks was not begun");
    struct block_source *source = &blocks->sources.items[blocks->sources.count - 1];
    const struct region *region = &source->region;
    enum hi_code code = room_for(blocks, count, err);
    if (code != HI_OK)
        return code;
    for (size_t i = 0; i < count; i++) {
        hi_addr address = chunks[i].address;
        uint64_t offset = address - blocks_grid(region);
        if (address < region->start || address >= region->end || offset % RANK_GRANULE_BYTES ||
            (unsigned)chunks[i].state > BLOCK_SUSPECT ||
            !rank_push(&blocks->ranks.items[source->rank], offset / RANK_GRANULE_BYTES)) {
            if (code == HI_OK)
                code = refuse(err, address, "of chunks has one out of order, place or grid");
            continue;
        }
        if (!state_push(blocks, chunks[i].state))
            return hi_no_memory(err);
        blocks->total++;
    }
    return code;
}

enum hi_code blocks_chunks_end(struct blocks *blocks, struct hi_err *err)
{
    if (!blocks->open)
        return refuse(err, 0, "of chunks was not begun");
    struct block_source *source = &blocks->sources.items[blocks->sources.count - 1];
    struct rank *rank = &blocks->ranks.items[source->rank];
    rank_seal(rank);
    source->region.count = rank->start_count;
    blocks->open = false;
    return HI_OK;
}

enum hi_code blocks_chunks_end_at(struct blocks *blocks, hi_addr end, struct hi_err *err)
{
    if (!blocks->open)
        return refuse(err, end, "of chunks was not begun");
    struct block_source *source = &blocks->sources.items[blocks->sources.count - 1];
    const struct rank *rank = &blocks->ranks.items[source->rank];
    hi_addr last = blocks_grid(&source->region) +
                   (rank->last == RANK_NONE ? 0 : rank->last * RANK_GRANULE_BYTES);
    bool inside = end > last && end > source->region.start && end <= source->region.end;
    if (inside) {
        source->region.end = end;
        span_set_trim(&blocks->spans, source->region.start, end);
    }
    enum hi_code code = blocks_chunks_end(blocks, err);
    return code == HI_OK && !inside ? refuse(err, end, "of chunks can't end there") : code;
}

/* -- finishing --------------------------------------------------------------------------------- */

/* 64 bits of a source's plane, ordinals from word * 64. */
static uint64_t source_word(const struct blocks *blocks, const struct block_source *source,
                            uint32_t word, bool cached)
{
    const uint64_t *pool = blocks->pool.items + source->live_bit / 64;
    if (source->has_cached)
        return pool[2 * (size_t)word + cached];
    if (cached)
        return 0;
    return source->all_live ? ~UINT64_C(0) : pool[word];
}

static void plane_copy(const struct blocks *blocks, const struct block_source *source, bool cached,
                       uint64_t *plane)
{
    uint32_t base = source->region.base, count = source->region.count;
    for (uint32_t done = 0; done < count; done += 64) {
        uint64_t word = source_word(blocks, source, done / 64, cached);
        if (count - done < 64)
            word &= ~(~UINT64_C(0) << (count - done));
        size_t at = ((size_t)base + done) / 64;
        unsigned shift = (base + done) % 64;
        plane[at] |= word << shift;
        if (shift)
            plane[at + 1] |= word >> (64 - shift);
    }
}

static struct block_hot hot_of(const struct region *region)
{
    struct block_hot hot = {.first = region->first, .count = region->count, .base = region->base};
    if (region->shape == REGION_SLAB) {
        hot.stride = region->stride;
        hot.usable = (uint32_t)region->usable;
        /* the product is exact for every offset in the slab while extent * stride < 2^64 */
        if (region->stride > 1 && (region->end - region->start) >> 32 == 0)
            hot.magic = UINT64_MAX / region->stride + 1;
    }
    if (region->shape == REGION_CHUNKS) {
        hot.first = blocks_grid(region);
        hot.stride = HOT_CHUNKS;
    }
    return hot;
}

static enum hi_code planes_new(struct blocks *blocks, struct hi_err *err)
{
    size_t words = (size_t)blocks->total / 64 + 2;
    blocks->live = calloc(words, sizeof *blocks->live);
    blocks->cached = calloc(words, sizeof *blocks->cached);
    if (blocks->suspects.count)
        blocks->suspect = calloc(words, sizeof *blocks->suspect);
    if (!blocks->live || !blocks->cached || (blocks->suspects.count && !blocks->suspect))
        return hi_no_memory(err);
    return HI_OK;
}

static enum hi_code regions_new(struct blocks *blocks, struct hi_err *err)
{
    size_t count = blocks->sources.count + 1; /* never 0 bytes */
    blocks->regions = malloc(count * sizeof *blocks->regions);
    blocks->hot = malloc(count * sizeof *blocks->hot);
    blocks->region_rank = malloc(count * sizeof *blocks->region_rank);
    blocks->region_at =
        malloc(((size_t)(blocks->total >> REGION_AT_BITS) + 2) * sizeof *blocks->region_at);
    if (!blocks->regions || !blocks->hot || !blocks->region_rank || !blocks->region_at)
        return hi_no_memory(err);
    blocks->hot[count - 1] = (struct block_hot){0}; /* what places in no region are shown */
    return HI_OK;
}

static void regions_number(struct blocks *blocks)
{
    uint32_t base = 0;
    uint64_t sampled = 0; /* next block whose region is written down */
    for (size_t i = 0; i < blocks->spans.spans.count; i++) {
        struct block_source *source = &blocks->sources.items[blocks->spans.spans.items[i].owner];
        source->region.base = base;
        for (; sampled < (uint64_t)base + source->region.count; sampled += 1 << REGION_AT_BITS)
            blocks->region_at[sampled >> REGION_AT_BITS] = (uint32_t)i;
        base += source->region.count;
        blocks->regions[i] = source->region;
        blocks->hot[i] = hot_of(&source->region);
        blocks->region_rank[i] = source->rank;
        blocks->has_chunks |= source->region.shape == REGION_CHUNKS;
        plane_copy(blocks, source, false, blocks->live);
        if (source->has_cached)
            plane_copy(blocks, source, true, blocks->cached);
    }
    blocks->count = base;
    blocks->region_count = blocks->spans.spans.count;
    blocks->region_at[sampled >> REGION_AT_BITS] =
        blocks->region_count ? (uint32_t)blocks->region_count - 1 : 0;
    for (size_t i = 0; i < blocks->suspects.count; i++) {
        const struct block_suspect *suspect = &blocks->suspects.items[i];
        uint32_t block = blocks->sources.items[suspect->source].region.base + suspect->ordinal;
        blocks->suspect[block / 64] |= UINT64_C(1) << block % 64;
    }
}

enum hi_code blocks_finish(struct blocks *blocks, struct hi_err *err)
{
    if (blocks->finished)
        return refuse(err, 0, "table is finished already");
    enum hi_code code = blocks->open ? blocks_chunks_end(blocks, err) : HI_OK;
    if (code != HI_OK)
        return code;
    if (!span_set_sort(&blocks->spans))
        return hi_no_memory(err);
    if ((code = planes_new(blocks, err)) != HI_OK || (code = regions_new(blocks, err)) != HI_OK)
        return code;
    regions_number(blocks);
    if (blocks->region_count) {
        blocks->span.start = blocks->regions[0].start;
        blocks->span.end = blocks->regions[blocks->region_count - 1].end;
    }
    code = blocks_page_build(blocks, err);
    if (code != HI_OK)
        return code;
    build_free(blocks);
#ifdef __x86_64__
    blocks->has_popcount = __builtin_cpu_supports("popcnt");
#endif
    blocks->finished = true;
    return HI_OK;
}
