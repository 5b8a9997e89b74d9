/*
 * gperftools' cached objects: batches in transfer slots, and the lists of thread caches.
 *
 * All are linked through the objects' first words (block_list.h). A thread list is followed for as
 * many steps as its length says, a batch until its tail.
 *
 * What a stopped thread leaves half done:
 *   its own cache  one list whose head is in place before the head's link is, or whose length is
 *                  ahead of the list: it breaks or ends early
 *   central list   locked meanwhile (the lock is its first word). A batch is counted before it is
 *                  stored: the youngest slot may be an old one, whose blocks went elsewhere. It is
 *                  uncounted before it is read: the slot behind the counted ones may be in hands.
 *   in between     lists in registers and stack frames
 * All of that is in flight, and no finding; what is broken beyond it is one.
 */
#include "heap/tcmalloc.h"

enum {
    OWN_LOSS_SLABS = 4, /* of 8-byte blocks that are looked through for the library's own */
    TLS_BYTES = 8192,   /* below the thread pointer, in which a thread names its cache */
};

struct overlay {
    struct tcmalloc *heap;
    struct block_lists lists;
    uint64_t whole, followed; /* lists of thread caches */
    unsigned inside;          /* threads in the allocator that may have left a list half done */
};

/* A batch or list goes on within its size class. */
static bool same_class(void *context, const struct region *from, const struct region *to,
                       hi_addr next)
{
    (void)context;
    (void)next;
    return from->shape == REGION_SLAB && to->shape == REGION_SLAB && from->stride == to->stride;
}

/* Is the first one of a list of this class? The others are like it. */
static bool list_collect(struct overlay *overlay, unsigned class, hi_addr first, hi_addr last,
                         uint64_t most, hi_addr *broken)
{
    const struct blocks *blocks = sink_heaps(overlay->lists.sink)->blocks;
    const struct region *region = first ? blocks_region_at(blocks, first) : NULL;
    *broken = first;
    overlay->lists.chain.count = 0;
    if (first && (!region || region->shape != REGION_SLAB ||
                  region->stride != overlay->heap->class_bytes[class]))
        return false;
    return block_list_collect(&overlay->lists, first, last, most, broken);
}

/* A slot of a central list. counted: it is in use; doubtful: maybe an old one. */
static bool slot_overlay(struct overlay *overlay, unsigned class, hi_addr slot, bool counted,
                         bool doubtful)
{
    uint64_t head, tail;
    hi_addr broken = 0;
    if (!evidence_cache_u64(overlay->lists.cache, slot, &head) ||
        !evidence_cache_u64(overlay->lists.cache, slot + 8, &tail))
        return true;
    bool whole =
        head && tail && list_collect(overlay, class, head, tail, TCMALLOC_BATCH_MAX, &broken);
    if (overlay->lists.out_of_memory)
        return false;
    if (doubtful)
        return !whole || block_list_tell(&overlay->lists, BLOCK_IN_FLIGHT);
    if (!counted)
        return true;
    return block_list_tell(&overlay->lists, BLOCK_CACHED) &&
           (whole ||
            sink_finding(overlay->lists.sink, "a batch goes from its head to its tail", slot,
                         "from %#llx, to %#llx: lost at %#llx", (unsigned long long)head,
                         (unsigned long long)tail, (unsigned long long)broken));
}

static bool central_overlay(struct overlay *overlay, unsigned class)
{
    hi_addr central = overlay->heap->central + class * overlay->heap->central_stride;
    uint64_t used, lock = 0;
    if (!evidence_cache_u64(overlay->lists.cache, central + TCMALLOC_CENTRAL_USED, &used) ||
        !evidence_cache_u64(overlay->lists.cache, central, &lock))
        return true;
    used &= UINT32_MAX;
    if (used > TCMALLOC_CENTRAL_SLOT_COUNT)
        return sink_finding(overlay->lists.sink, "used transfer slots",
                            central + TCMALLOC_CENTRAL_USED, "%llu of %d", (unsigned long long)used,
                            TCMALLOC_CENTRAL_SLOT_COUNT);
    bool locked = (uint32_t)lock != 0;
    for (uint64_t slot = 0; slot < used + locked && slot < TCMALLOC_CENTRAL_SLOT_COUNT; slot++) {
        hi_addr at = central + TCMALLOC_CENTRAL_SLOTS + slot * 16;
        if (!slot_overlay(overlay, class, at, slot < used, locked && slot + 1 >= used))
            return false;
    }
    return true;
}

/* One list of a cache may be half done when its thread is inside. *spare: it has had none yet. */
static bool list_overlay(struct overlay *overlay, unsigned class, hi_addr place, bool *spare)
{
    uint64_t first, length;
    hi_addr broken;
    if (!evidence_cache_u64(overlay->lists.cache, place, &first) ||
        !evidence_cache_u64(overlay->lists.cache, place + TCMALLOC_LIST_LENGTH, &length))
        return true;
    length &= UINT32_MAX;
    bool whole = list_collect(overlay, class, first, 0, length, &broken);
    if (overlay->lists.out_of_memory || !block_list_tell(&overlay->lists, BLOCK_CACHED))
        return false;
    overlay->followed++;
    overlay->whole += overlay->lists.chain.count == length && (whole || broken == 0);
    if (whole || broken == 0) /* as long as it says, or shorter */
        return true;
    if (*spare) {
        *spare = false;
        return true;
    }
    return sink_finding(overlay->lists.sink, "a cached object's link", place,
                        "after %zu of %llu objects of %u bytes: %#llx is none of them",
                        overlay->lists.chain.count, (unsigned long long)length,
                        overlay->heap->class_bytes[class], (unsigned long long)broken);
}

static bool cache_overlay(struct overlay *overlay, const struct tcmalloc_cache *cache)
{
    const struct heap_context *context = overlay->lists.context;
    bool spare = overlay->inside > 0;
    if (cache->thread != TCMALLOC_NO_THREAD) {
        struct evidence_hands hands;
        evidence_hands_read(&hands, context, overlay->heap->tree.module,
                            target_thread(context->target, cache->thread));
        spare = hands.inside;
    }
    for (unsigned class = 1; class < overlay->heap->class_count; class ++) {
        hi_addr place = cache->place + (hi_addr) class * TCMALLOC_LIST_BYTES;
        if (!list_overlay(overlay, class, place, &spare))
            return false;
    }
    return true;
}

/* The library itself loses one block: its first MallocExtension, replaced by another while it
 * starts (malloc_extension.cc). It is known by its only word, the class's vtable. */
static bool own_loss_keep(struct overlay *overlay, const struct heap_context *context)
{
    const struct blocks *blocks = sink_heaps(overlay->lists.sink)->blocks;
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
                evidence_cache_u64(overlay->lists.cache, cursor.address, &word) &&
                word == vtable.address + 2 * sizeof(uint64_t))
                return sink_kept(overlay->lists.sink, cursor.address, "MallocExtension");
        }
    }
    return true;
}

/* Whose cache is it? The thread has its address in its TLS. */
void tcmalloc_owners_find(struct tcmalloc *heap, const struct heap_context *context)
{
    for (size_t i = 0; i < target_thread_count(context->target); i++) {
        const struct thread *thread = target_thread(context->target, i);
        uint64_t words[TLS_BYTES / 8];
        const struct mapping *mapping = target_mapping_at(context->target, thread->fs_base - 1);
        if (!thread->has_registers || thread->fs_base < TLS_BYTES || !mapping)
            continue;
        hi_addr start = thread->fs_base - TLS_BYTES;
        start = start < mapping->start ? mapping->start : start;
        size_t got = target_read_some(context->target, start, words, thread->fs_base - start);
        for (size_t c = 0; c < heap->caches.count; c++) {
            struct tcmalloc_cache *cache = &heap->caches.items[c];
            for (size_t k = 0; cache->thread == TCMALLOC_NO_THREAD && k < got / 8; k++) {
                if (words[k] == cache->place)
                    cache->thread = i;
            }
        }
    }
}

static bool all_overlay(struct overlay *overlay)
{
    for (size_t i = 0; i < overlay->heap->caches.count; i++) {
        if (!cache_overlay(overlay, &overlay->heap->caches.items[i]))
            return false;
    }
    for (unsigned class = 1; overlay->heap->central && class < overlay->heap->class_count;
         class ++) {
        if (!central_overlay(overlay, class))
            return false;
    }
    return block_lists_in_hands(&overlay->lists) && own_loss_keep(overlay, overlay->lists.context);
}

enum hi_code tcmalloc_caches_overlay(const struct heap_context *context, struct heap *heap,
                                     struct heap_sink *sink, struct hi_err *err)
{
    struct tcmalloc *state = heap->state;
    struct overlay overlay = {.heap = state,
                              .lists = {.context = context,
                                        .sink = sink,
                                        .heap = heap,
                                        .module = state->tree.module,
                                        .links = same_class}};
    enum hi_code code = evidence_cache_new(&overlay.lists.cache, context->target, err);
    if (code != HI_OK)
        return code;
    overlay.inside = block_lists_threads_inside(context, state->tree.module);
    bool go_on = all_overlay(&overlay);
    evidence_cache_free(overlay.lists.cache);
    block_lists_free(&overlay.lists);
    if (overlay.lists.out_of_memory)
        return hi_no_memory(err);
    /* each thread may be stopped in the middle of one list */
    sink_check(sink, "cache lists as long as they say", overlay.followed, overlay.whole,
               overlay.followed - overlay.whole <= overlay.inside);
    return go_on ? HI_OK : HI_STOPPED;
}
