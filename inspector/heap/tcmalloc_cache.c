/*
 * gperftools' cached objects: batches in transfer slots, and the lists of thread caches.
 *
 * All are linked through the objects' first words. A list is followed for as many steps as its
 * length says (a batch: until its tail), never further; a link that leads nowhere ends it with a
 * finding. A thread stopped while it moves a list makes the last step wrong at worst.
 */
#include "heap/tcmalloc.h"

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
    evidence_cache_free(overlay.pages);
    /* each thread may be stopped in the middle of one list */
    sink_check(sink, "cache lists as long as they say", overlay.lists, overlay.lists_whole,
               overlay.lists - overlay.lists_whole <= heap->caches.count);
    return go_on ? HI_OK : HI_STOPPED;
}
