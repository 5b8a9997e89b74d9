/* Lists through the blocks' first words; the theory is in block_list.h. */
#include "heap/block_list.h"

void block_lists_free(struct block_lists *lists)
{
    VECTOR_FREE(&lists->chain);
}

/* The region of the block of this heap that starts at address, or NULL. */
static const struct region *block_start(const struct block_lists *lists, hi_addr address,
                                        enum block_state *state)
{
    const struct heaps *heaps = sink_heaps(lists->sink);
    struct block_place place;
    if (!blocks_at(heaps->blocks, address, &place) || place.offset)
        return NULL;
    const struct region *region = blocks_region(heaps->blocks, place.region);
    if (region->shape == REGION_NODE || &heaps->heaps[region->heap] != lists->heap)
        return NULL;
    *state = blocks_state(heaps->blocks, place.block);
    return region;
}

static bool may_link(const struct block_lists *lists, const struct region *from,
                     const struct region *to, hi_addr next)
{
    return !from || !lists->links || lists->links(lists->links_context, from, to, next);
}

static bool chain_push(struct block_lists *lists, hi_addr block)
{
    hi_addr *item = VECTOR_PUSH(&lists->chain);
    lists->out_of_memory = !item;
    if (item)
        *item = block;
    return item != NULL;
}

bool block_list_collect(struct block_lists *lists, hi_addr first, hi_addr last, uint64_t most,
                        hi_addr *broken)
{
    const struct region *region = NULL;
    hi_addr at = first;
    lists->chain.count = 0;
    *broken = 0;
    for (uint64_t count = 0; at && count < most; count++) {
        enum block_state state;
        const struct region *to = block_start(lists, at, &state);
        uint64_t next;
        if (!to || !may_link(lists, region, to, at) ||
            !evidence_cache_u64(lists->cache, at, &next)) {
            *broken = at;
            return false;
        }
        if (!chain_push(lists, at))
            return false;
        if (at == last)
            return true;
        region = to;
        at = next;
    }
    return at == 0 && last == 0;
}

bool block_list_tell(struct block_lists *lists, enum block_state state)
{
    for (size_t i = 0; i < lists->chain.count; i++) {
        hi_addr block = lists->chain.items[i];
        enum block_state was;
        if (state == BLOCK_IN_FLIGHT && (!block_start(lists, block, &was) || was != BLOCK_LIVE))
            continue;
        if (!sink_overlay(lists->sink, block, state, NULL))
            return false;
    }
    return true;
}

/* -- in hands ----------------------------------------------------------------------------------
 */

/* Collects the list of live blocks that begins at `at`. Does it end well? */
static bool hand_collect(struct block_lists *lists, hi_addr at, uint64_t *steps)
{
    enum block_state state;
    const struct region *region = block_start(lists, at, &state);
    lists->chain.count = 0;
    while (region && state == BLOCK_LIVE && lists->chain.count<BLOCK_LIST_MOST && * steps> 0) {
        uint64_t next;
        --*steps;
        if (!chain_push(lists, at) || !evidence_cache_u64(lists->cache, at, &next))
            return false;
        if (next == 0)
            return true;
        const struct region *to = block_start(lists, next, &state);
        if (!to || !may_link(lists, region, to, next))
            return false;
        if (state != BLOCK_LIVE)
            return true;
        at = next;
        region = to;
    }
    return false;
}

bool block_lists_in_hands(struct block_lists *lists)
{
    struct target *target = lists->context->target;
    uint64_t steps = BLOCK_LIST_STEPS;
    for (size_t i = 0; i < target_thread_count(target); i++) {
        struct evidence_hands hands;
        evidence_hands_read(&hands, lists->context, lists->module, target_thread(target, i));
        for (size_t k = 0; hands.inside && k < hands.own; k++) {
            uint64_t word = hands.words[k];
            if (word % 8 == 0 && word >= 4096 && hand_collect(lists, word, &steps) &&
                !block_list_tell(lists, BLOCK_IN_FLIGHT))
                return false;
            if (lists->out_of_memory)
                return false;
        }
    }
    return true;
}

unsigned block_lists_threads_inside(const struct heap_context *context, size_t module)
{
    unsigned inside = 0;
    for (size_t i = 0; i < target_thread_count(context->target); i++) {
        struct evidence_hands hands;
        evidence_hands_read(&hands, context, module, target_thread(context->target, i));
        inside += hands.inside;
    }
    return inside;
}
