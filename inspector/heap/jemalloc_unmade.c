/*
 * jemalloc's slabs in the making.
 *
 * A thread that needs a slab takes an extent, says in its record that it is an active slab of a
 * class, files it under each of its pages, and only then writes the count of free regions and the
 * bitmap. Until it does, both are what the record's former use left there: nothing, the bitmap of a
 * slab with fewer regions, or words that have another meaning for large blocks. By them regions
 * would be live that nobody was ever given. Filing may take long: its leaf of the page tree may be
 * a page that is touched for the first time, and the system is asked for it.
 *
 * Such a slab is known by three facts. The record is in the hands of a thread inside the allocator.
 * Not all inner pages are filed under it yet, or the thread has it at hand, in a register or in one
 * of the innermost frames: from the last page on it is few instructions to the bitmap. And the
 * bitmap looks old: it is not what the count says, or its free regions are the first ones: a slab
 * is given up when all its regions are free. What such a slab names as live is in flight.
 *
 * A slab that is long in use can meet these too (all its regions are taken, and a thread frees one
 * right now): then its blocks are in flight at this stop, which says less than live, and nothing
 * wrong.
 */
#include "heap/evidence.h"
#include "heap/jemalloc.h"

/* Of the stack: the frame that files pages, and what its caller keeps in it. */
enum { NEAR_WORDS = THREAD_REGISTER_COUNT + 96 };

static bool word_keep(struct jemalloc_words *words, uint64_t word)
{
    if (word < 4096 || word % 8)
        return true;
    uint64_t *item = VECTOR_PUSH(&words->items);
    if (item)
        *item = word;
    return item != NULL;
}

static void words_sort(struct jemalloc_words *words)
{
    if (words->items.count)
        qsort(words->items.items, words->items.count, sizeof *words->items.items,
              evidence_by_address);
}

static bool words_have(const struct jemalloc_words *words, uint64_t word)
{
    return words->items.count &&
           bsearch(&word, words->items.items, words->items.count, sizeof word, evidence_by_address);
}

bool jemalloc_hands_read(struct jemalloc_hands *hands, const struct jemalloc *heap,
                         const struct heap_context *context)
{
    bool enough = true;
    for (size_t i = 0; enough && i < target_thread_count(context->target); i++) {
        struct evidence_hands one;
        evidence_hands_read(&one, context, heap->tree.module, target_thread(context->target, i));
        hands->inside += one.inside;
        for (size_t k = 0; enough && one.inside && k < one.count; k++)
            enough = word_keep(k < NEAR_WORDS ? &hands->near : &hands->far, one.words[k]);
    }
    words_sort(&hands->near);
    words_sort(&hands->far);
    return enough;
}

void jemalloc_hands_free(struct jemalloc_hands *hands)
{
    VECTOR_FREE(&hands->near.items);
    VECTOR_FREE(&hands->far.items);
}

/* Are the free regions the first ones? */
static bool free_come_first(const struct jemalloc_extent *extent, unsigned set)
{
    for (unsigned i = 0; i < set; i++) {
        if (!(extent->bitmap[i / 64] >> (i % 64) & 1))
            return false;
    }
    return true;
}

/* Inner pages are filed from the first to the last. */
static bool inner_pages_filed(const struct jemalloc *heap, const struct heap_context *context,
                              const struct jemalloc_extent *extent)
{
    unsigned page_shift = heap->tree.shape->page_shift;
    uint64_t entry;
    if (extent->bytes >> page_shift <= 2)
        return true;
    hi_addr last = extent->address + extent->bytes - (UINT64_C(2) << page_shift);
    return page_tree_entry(&heap->tree, context->target, last, &entry) &&
           jemalloc_leaf_record(heap, entry) == extent->record;
}

bool jemalloc_slab_is_unmade(const struct jemalloc *heap, const struct heap_context *context,
                             const struct jemalloc_hands *hands,
                             const struct jemalloc_extent *extent, unsigned regions, unsigned set)
{
    if (set == regions || (set == extent->free_count && !free_come_first(extent, set)))
        return false;
    return words_have(&hands->near, extent->record) ||
           (words_have(&hands->far, extent->record) && !inner_pages_filed(heap, context, extent));
}

enum hi_code jemalloc_unmade_overlay(const struct jemalloc *heap, struct heap_sink *sink)
{
    const struct blocks *blocks = sink_heaps(sink)->blocks;
    struct block_place place;
    for (size_t i = 0; i < heap->unmade.count; i++) {
        const struct jemalloc_unmade *slab = &heap->unmade.items[i];
        for (unsigned k = 0; k < slab->count; k++) {
            hi_addr block = slab->first + (hi_addr)k * slab->stride;
            if (!blocks_at(blocks, block, &place) || place.offset ||
                blocks_state(blocks, place.block) != BLOCK_LIVE)
                continue;
            if (!sink_overlay(sink, block, BLOCK_IN_FLIGHT, NULL) ||
                !sink_kept(sink, block, "in a slab that is being made"))
                return HI_STOPPED;
        }
    }
    return HI_OK;
}
