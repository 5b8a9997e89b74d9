/*
 * Walks regions by cursor, so that no block is looked up: ten million take well under a second.
 * Cold facts (requested size, thread, stack) are asked for only where the reader has them.
 */
#include "analysis/chunk_list.h"

struct listing {
    const struct inspection *in;
    const struct chunk_filter *filter;
    struct arena_index arenas;
    struct chunk_counts *counts;
    bool (*visit)(void *context, const struct chunk *chunk);
    void *context;
};

static void add_detail(struct chunk *chunk, const struct inspection *in)
{
    if (!chunk->heap || !chunk->heap->reader->detail)
        return;
    struct heap_detail detail = inspection_detail(in, chunk->block);
    bool is_live = chunk->state == BLOCK_LIVE || chunk->state == BLOCK_IN_FLIGHT;
    if (detail.has_requested && is_live)
        chunk->size = detail.requested;
    chunk->thread = detail.allocated_by_tid;
    chunk->stack_id = detail.stack_id;
    chunk->freed_stack_id = is_live ? 0 : detail.freed_stack_id;
    chunk->is_sampled = detail.is_sampled;
    chunk->tag = detail.tag;
}

static struct chunk chunk_at(const struct inspection *in, const struct arena_index *arenas,
                             const struct region *region, hi_block block, hi_addr address,
                             uint64_t usable)
{
    struct chunk chunk = {.block = block,
                          .address = address,
                          .size = usable,
                          .usable = usable,
                          .state = blocks_state(in->heaps->blocks, block),
                          .arena = arena_index_find(arenas, region)};
    if (region->heap < in->heaps->count)
        chunk.heap = &in->heaps->heaps[region->heap];
    return chunk;
}

void chunk_describe(struct chunk *chunk, const struct inspection *in,
                    const struct arena_index *arenas, hi_block block)
{
    const struct blocks *blocks = in->heaps->blocks;
    *chunk = chunk_at(in, arenas, blocks_region_of(blocks, block), block,
                      blocks_address(blocks, block), blocks_usable(blocks, block));
    add_detail(chunk, in);
}

static bool offer(struct listing *list, struct chunk *chunk)
{
    const struct chunk_filter *f = list->filter;
    if (f->states && !(f->states & 1u << chunk->state))
        return true;
    add_detail(chunk, list->in);
    if (chunk->size < f->min_bytes || chunk->size > f->max_bytes)
        return true;
    list->counts->matched++;
    if (f->limit && list->counts->shown >= f->limit)
        return true;
    list->counts->shown++;
    return list->visit(list->context, chunk);
}

static bool is_wanted(const struct listing *list, const struct region *region)
{
    if (region->heap == BLOCKS_NO_HEAP)
        return false;
    if (!list->filter->has_arena)
        return true;
    const struct arena *arena = arena_index_find(&list->arenas, region);
    return arena && arena->id == list->filter->arena_id;
}

static bool list_region(struct listing *list, const struct region *region)
{
    struct block_cursor cursor;
    const struct blocks *blocks = list->in->heaps->blocks;
    for (bool more = blocks_first(blocks, region, &cursor); more;
         more = blocks_next(blocks, &cursor)) {
        struct chunk chunk =
            chunk_at(list->in, &list->arenas, region, cursor.block, cursor.address, cursor.usable);
        if (!offer(list, &chunk))
            return false;
    }
    return true;
}

enum hi_code chunk_list(const struct inspection *in, const struct chunk_filter *filter,
                        bool (*visit)(void *context, const struct chunk *chunk), void *context,
                        struct chunk_counts *counts, struct hi_err *err)
{
    struct listing list = {
        .in = in, .filter = filter, .counts = counts, .visit = visit, .context = context};
    *counts = (struct chunk_counts){0};
    enum hi_code code = arena_index_make(&list.arenas, in->heaps, err);
    if (code != HI_OK)
        return code;
    size_t regions = blocks_region_count(in->heaps->blocks);
    for (size_t i = 0; i < regions; i++) {
        const struct region *region = blocks_region(in->heaps->blocks, i);
        if (is_wanted(&list, region) && !list_region(&list, region))
            break;
    }
    arena_index_free(&list.arenas);
    return HI_OK;
}
