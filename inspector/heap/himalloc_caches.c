/*
 * Overlay of a himalloc heap: blocks that are free although their slab's bit says live.
 *
 * Three places hold them (himalloc_format.h, section 3): the stash of a central state, the slots of
 * a bin of a thread's record, and a thread's hand. A block may be in several places at once and in
 * the bitmap too; each says free, so order does not matter. Of a bin the cached slots are
 * [min(head, pend if pend is not 0), empty), read as one record, since head and empty belong
 * together. Records count whatever their tid says: the caches of threads that are gone without our
 * knowledge (a forked child) hold free blocks as well.
 *
 * In flight: a thread whose pc is inside the allocator's text has at most one block in its hands. A
 * live block of ours whose address is in one of its argument or result registers is that block: it
 * counts as reachable and never as a leak, and its arena is in flux.
 *
 * Damage: a slot or stash entry that is no block's start is a finding (the sink makes it), one of
 * another class as well; windows that leave their record are findings and are not followed. The
 * number of entries looked at is bounded by twice the number of blocks.
 */
#include "heap/himalloc_walk.h"

#include <inttypes.h>

struct overlay {
    struct himalloc *heap;
    struct heap *shown;
    struct heap_sink *sink;
    struct target *target;
    struct window window;
    uint64_t budget; /* entries left to look at */
    uint64_t caches, orphans;
};

static bool overlay_block(struct overlay *overlay, hi_addr address, hi_addr place,
                          uint32_t class_index)
{
    uint32_t class_bytes = class_index < HIMALLOC_MAX_CLASSES
                               ? overlay->heap->classes[class_index].block_bytes
                               : 0; /* a hand is of no class: 0 as well */
    const struct blocks *blocks = sink_heaps(overlay->sink)->blocks;
    const struct region *region = blocks_region_at(blocks, address);
    if (region && region->shape == REGION_SLAB && class_bytes > 0 && region->stride != class_bytes)
        return sink_finding(overlay->sink, "a cached block is of its cache's class", place,
                            "0x%" PRIx64 " of %u bytes among %u", address, region->stride,
                            class_bytes);
    return sink_overlay(overlay->sink, address, BLOCK_CACHED, NULL);
}

/* count block addresses at address. */
static bool overlay_list(struct overlay *overlay, hi_addr address, uint64_t count,
                         uint32_t class_index)
{
    for (uint64_t i = 0; i < count; i++) {
        hi_addr block, place = address + i * 8;
        const void *entry = himalloc_window_at(&overlay->window, place, 8);
        if (!entry)
            return sink_finding(overlay->sink, "a cache can be read", place,
                                "entry %" PRIu64 " of %" PRIu64, i, count);
        if (overlay->budget == 0)
            return sink_finding(overlay->sink, "caches hold no more than there is", place,
                                "entry %" PRIu64 " of %" PRIu64, i, count);
        overlay->budget--;
        memcpy(&block, entry, 8);
        if (!overlay_block(overlay, block, place, class_index))
            return false;
    }
    return true;
}

/* -- stashes --------------------------------------------------------------------------------- */

static bool overlay_central(struct overlay *overlay, hi_addr arena, uint32_t class_index,
                            const void *central)
{
    const struct schema *schema = &overlay->heap->schema;
    uint64_t count = schema_number(schema, F_CENTRAL_stash_count, central);
    uint64_t capacity = schema_number(schema, F_CENTRAL_stash_capacity, central);
    hi_addr stash = schema_number(schema, F_CENTRAL_stash, central);
    bool has_capacity = schema_has(schema, F_CENTRAL_stash_capacity);
    if (count == 0)
        return true;
    if ((has_capacity && count > capacity) || stash == 0 || stash >= HIMALLOC_ADDRESS_END)
        return sink_finding(overlay->sink, "a stash holds no more than it can", arena,
                            "class %u: %" PRIu64 " of %" PRIu64 " at 0x%" PRIx64, class_index,
                            count, capacity, stash);
    return overlay_list(overlay, stash, count, class_index);
}

static bool overlay_arena(struct overlay *overlay, hi_addr address, void *record)
{
    const struct schema *schema = &overlay->heap->schema;
    size_t stride = schema->stride[S_ARENA];
    if (address == 0 || target_read_some(overlay->target, address, record, stride) < stride ||
        schema_number(schema, F_ARENA_kind, record) == 0)
        return true; /* the walk has said so */
    for (uint32_t i = 1; i < overlay->heap->class_count; i++) {
        const void *central = schema_record(schema, F_ARENA_centrals, record, i);
        if (!central)
            break;
        if (!overlay_central(overlay, address, i, central))
            return false;
    }
    return true;
}

static bool overlay_arenas(struct overlay *overlay)
{
    void *record = malloc(overlay->heap->schema.stride[S_ARENA]);
    bool more = record != NULL;
    for (size_t i = 0; more && i < overlay->heap->arena_addresses.count; i++)
        more = overlay_arena(overlay, overlay->heap->arena_addresses.items[i], record);
    free(record);
    return more;
}

/* -- thread caches --------------------------------------------------------------------------- */

static bool overlay_bin(struct overlay *overlay, hi_addr thread, uint64_t slots,
                        uint32_t class_index, const void *bin)
{
    const struct schema *schema = &overlay->heap->schema;
    const void *window = schema_record(schema, F_BIN_window, bin, 0);
    uint64_t head = schema_number(schema, F_WINDOW_head, window);
    uint64_t empty = schema_number(schema, F_WINDOW_empty, window);
    uint64_t pend = schema_number(schema, F_BIN_pend, bin);
    uint64_t from = pend != 0 && pend < head ? pend : head;
    if (from == empty)
        return true;
    if (from > empty || empty > slots || from < overlay->heap->schema.stride[S_THREAD] / 8)
        return sink_finding(overlay->sink, "a bin's slots lie in its record", thread,
                            "class %u: [%" PRIu64 ", %" PRIu64 ") of %" PRIu64, class_index, from,
                            empty, slots);
    return overlay_list(overlay, thread + from * 8, empty - from, class_index);
}

static bool thread_is_known(const struct target *target, uint64_t tid)
{
    for (size_t i = 0; i < target_thread_count(target); i++)
        if ((uint64_t)target_thread(target, i)->tid == tid)
            return true;
    return false;
}

static bool overlay_thread(struct overlay *overlay, hi_addr address, void *record)
{
    const struct schema *schema = &overlay->heap->schema;
    size_t stride = schema->stride[S_THREAD];
    if (target_read_some(overlay->target, address, record, stride) < stride)
        return true; /* the walk has said so */
    uint64_t tid = schema_number(schema, F_THREAD_tid, record);
    uint64_t slots = schema_number(schema, F_THREAD_mapping_bytes, record) / 8;
    hi_addr hand = schema_number(schema, F_THREAD_hand, record);
    overlay->caches += tid != 0;
    overlay->heap->thread_large_units += schema_number(schema, F_THREAD_large_units, record);
    overlay->orphans += tid != 0 && !thread_is_known(overlay->target, tid);
    if (hand != 0 && !overlay_block(overlay, hand, address, 0))
        return false;
    for (uint32_t i = 1; i < overlay->heap->class_count; i++) {
        const void *bin = schema_record(schema, F_THREAD_bins, record, i);
        if (!bin)
            break;
        if (!overlay_bin(overlay, address, slots, i, bin))
            return false;
    }
    return true;
}

static bool overlay_threads(struct overlay *overlay)
{
    void *record = malloc(overlay->heap->schema.stride[S_THREAD]);
    bool more = record != NULL;
    for (size_t i = 0; more && i < overlay->heap->thread_addresses.count; i++)
        more = overlay_thread(overlay, overlay->heap->thread_addresses.items[i], record);
    free(record);
    return more;
}

/* -- in flight ------------------------------------------------------------------------------- */

/* Registers that carry an argument or a result: rcx rax r11 r10 r9 r8, rdx rsi rdi. */
static const unsigned char flight_registers[] = {6, 7, 8, 9, 10, 11, 12, 13, 14};

static bool overlay_flight(struct overlay *overlay, const struct thread *thread)
{
    const struct heaps *heaps = sink_heaps(overlay->sink);
    for (size_t i = 0; i < sizeof flight_registers; i++) {
        hi_addr value = thread->registers[flight_registers[i]];
        struct block_place place;
        const struct region *region = blocks_region_at(heaps->blocks, value);
        if (!region || region->shape == REGION_NODE ||
            &heaps->heaps[region->heap] != overlay->shown ||
            !blocks_at(heaps->blocks, value, &place) || place.offset != 0 ||
            blocks_state(heaps->blocks, place.block) != BLOCK_LIVE)
            continue;
        struct arena *arena = sink_arena_at(overlay->sink, region->arena);
        if (arena && arena->state == ARENA_OK)
            arena->state = ARENA_IN_FLUX;
        if (!sink_overlay(overlay->sink, value, BLOCK_IN_FLIGHT, NULL))
            return false;
    }
    return true;
}

static bool overlay_flights(struct overlay *overlay)
{
    struct hi_range text = overlay->heap->text;
    for (size_t i = 0; i < target_thread_count(overlay->target); i++) {
        const struct thread *thread = target_thread(overlay->target, i);
        if (!thread->has_registers || thread->pc < text.start || thread->pc >= text.end)
            continue;
        overlay->heap->busy = true;
        if (!overlay_flight(overlay, thread))
            return false;
    }
    return true;
}

enum hi_code himalloc_overlay(const struct heap_context *context, struct heap *heap,
                              struct heap_sink *sink, struct hi_err *err)
{
    struct himalloc *own = heap->state;
    if (!own->active)
        return HI_OK;
    struct overlay overlay = {.heap = own, .shown = heap, .sink = sink, .target = context->target};
    overlay.budget = 2 * (uint64_t)blocks_count(sink_heaps(sink)->blocks) + 4096;
    enum hi_code code = himalloc_window_open(&overlay.window, context->target, err);
    if (code != HI_OK)
        return code;
    bool more = overlay_arenas(&overlay) && overlay_threads(&overlay) && overlay_flights(&overlay);
    himalloc_window_close(&overlay.window);
    more = more && himalloc_remarks_read(own, context->target, sink);
    sink_check(sink, "thread caches with a thread", overlay.caches,
               overlay.caches - overlay.orphans, true);
    return more ? HI_OK : hi_no_memory(err); /* or the sink knows better */
}

/* -- accounts -------------------------------------------------------------------------------- */

/* A held lock or a thread inside may leave a count one step behind; damage has its own findings. */
enum hi_code himalloc_account(const struct heap_context *context, struct heap *heap,
                              struct heap_sink *sink, struct hi_err *err)
{
    (void)context, (void)err;
    const struct himalloc *own = heap->state;
    uint64_t slabs = 0, walked_slabs = 0, large = own->thread_large_units, walked_large = 0;
    bool busy = own->busy;
    if (!own->active)
        return HI_OK;
    for (size_t i = 0; i < own->arena_table.count; i++) {
        const struct himalloc_arena *arena = &own->arena_table.items[i];
        slabs += arena->slabs;
        walked_slabs += arena->walked_slabs;
        large += arena->large_units;
        walked_large += arena->walked_large_units;
        busy |= arena->busy;
    }
    if (schema_has(&own->schema, F_CENTRAL_slab_count))
        sink_check(sink, "slabs", slabs, walked_slabs, busy || slabs == walked_slabs);
    if (schema_has(&own->schema, F_ARENA_large_units))
        sink_check(sink, "units of large blocks", large, walked_large,
                   busy || large == walked_large);
    if (schema_has(&own->schema, F_UNIT_free_count))
        sink_check(sink, "blocks free in slabs", own->said_free, own->walked_free,
                   busy || own->said_free == own->walked_free);
    return HI_OK;
}
