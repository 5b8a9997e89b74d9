/*
 * gperftools' cached objects: batches in transfer slots, and the lists of thread caches.
 *
 * All are linked through the objects' first words. A list is followed for as many steps as its
 * length says (a batch: until its tail), never further; a link that leads nowhere ends it with a
 * finding. A thread stopped while it moves a list makes the last step wrong at worst.
 */
#include "heap/tcmalloc.h"

enum { OWN_LOSS_SLABS = 4 }; /* of 8-byte blocks that are looked through for the library's own */

struct overlay {
    struct tcmalloc *heap;
    struct heap_sink *sink;
    struct evidence_cache *pages;
    uint64_t lists, lists_whole;
};

/* Follow at most `most` objects from first, to `last` (0: to the end); how many there were. */
static bool list_overlay(struct overlay *overlay, hi_addr first, hi_addr last, uint64_t most,
                         uint64_t *count)
{
    hi_addr at = first;
    for (*count = 0; at && *count < most; ++*count) {
        uint64_t next;
        if (!sink_overlay(overlay->sink, at, BLOCK_CACHED, NULL))
            return false;
        if (!evidence_cache_u64(overlay->pages, at, &next))
            return sink_finding(overlay->sink, "cached object's link", at, "could not be read");
        if (at == last) {
            ++*count;
            break;
        }
        at = next;
    }
    return true;
}

static bool central_overlay(struct overlay *overlay, unsigned class)
{
    hi_addr central = overlay->heap->central + class * overlay->heap->central_stride;
    uint64_t used, head, tail, count;
    if (!evidence_cache_u64(overlay->pages, central + TCMALLOC_CENTRAL_USED, &used))
        return true;
    used &= UINT32_MAX;
    if (used > TCMALLOC_CENTRAL_SLOT_COUNT)
        return sink_finding(overlay->sink, "used transfer slots", central + TCMALLOC_CENTRAL_USED,
                            "%llu of %d", (unsigned long long)used, TCMALLOC_CENTRAL_SLOT_COUNT);
    for (uint64_t slot = 0; slot < used; slot++) {
        hi_addr at = central + TCMALLOC_CENTRAL_SLOTS + slot * 16;
        if (evidence_cache_u64(overlay->pages, at, &head) &&
            evidence_cache_u64(overlay->pages, at + 8, &tail) &&
            !list_overlay(overlay, head, tail, TCMALLOC_BATCH_MAX, &count))
            return false;
    }
    return true;
}

static bool cache_overlay(struct overlay *overlay, hi_addr cache)
{
    for (unsigned class = 1; class < overlay->heap->class_count; class ++) {
        hi_addr list = cache + (hi_addr) class * TCMALLOC_LIST_BYTES;
        uint64_t first, length, count;
        if (!evidence_cache_u64(overlay->pages, list, &first) ||
            !evidence_cache_u64(overlay->pages, list + TCMALLOC_LIST_LENGTH, &length))
            return true;
        length &= UINT32_MAX;
        if (!list_overlay(overlay, first, 0, length, &count))
            return false;
        overlay->lists++;
        overlay->lists_whole += count == length;
    }
    return true;
}

/* The library itself loses one block: its first MallocExtension, replaced by another while it
 * starts (malloc_extension.cc). It is known by its only word, the class's vtable. */
static bool own_loss_keep(struct overlay *overlay, const struct heap_context *context)
{
    const struct blocks *blocks = sink_heaps(overlay->sink)->blocks;
    struct symbol vtable;
    if (symbols_find(context->symbols, overlay->heap->tree.module, "_ZTV15MallocExtension", &vtable,
                     NULL) != HI_OK)
        return true;
    unsigned slabs = 0;
    for (size_t i = 0; i < blocks_region_count(blocks) && slabs < OWN_LOSS_SLABS; i++) {
        const struct region *region = blocks_region(blocks, i);
        struct block_cursor cursor;
        if (region->shape != REGION_SLAB || region->stride != sizeof(uint64_t))
            continue;
        slabs++;
        for (bool more = blocks_first(blocks, region, &cursor); more;
             more = blocks_next(blocks, &cursor)) {
            uint64_t word;
            if (blocks_is_live(blocks, cursor.block) &&
                evidence_cache_u64(overlay->pages, cursor.address, &word) &&
                word == vtable.address + 2 * sizeof(uint64_t))
                return sink_kept(overlay->sink, cursor.address, "MallocExtension");
        }
    }
    return true;
}

enum hi_code tcmalloc_caches_overlay(struct tcmalloc *heap, const struct heap_context *context,
                                     struct heap_sink *sink, struct hi_err *err)
{
    struct overlay overlay = {.heap = heap, .sink = sink};
    enum hi_code code = evidence_cache_new(&overlay.pages, context->target, err);
    if (code != HI_OK)
        return code;
    bool go_on = true;
    for (unsigned class = 1; go_on && heap->central && class < heap->class_count; class ++)
        go_on = central_overlay(&overlay, class);
    for (size_t i = 0; go_on && i < heap->caches.count; i++)
        go_on = cache_overlay(&overlay, heap->caches.items[i]);
    go_on = go_on && own_loss_keep(&overlay, context);
    evidence_cache_free(overlay.pages);
    /* each thread may be stopped in the middle of one list */
    sink_check(sink, "cache lists as long as they say", overlay.lists, overlay.lists_whole,
               overlay.lists - overlay.lists_whole <= heap->caches.count);
    return go_on ? HI_OK : HI_STOPPED;
}
