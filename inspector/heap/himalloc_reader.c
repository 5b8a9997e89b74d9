/*
 * The himalloc reader: tables of the root, one after the other.
 *
 *   himalloc_schema.c  names to offsets, from the target's own description
 *   himalloc_find.c    note and root page
 *   himalloc_root.c    constants and tables of the root, checked
 *   himalloc_reader.c  this: arenas, ranges, thread records, big blocks
 *   himalloc_walk.c    one range: class map, slabs, large blocks
 *   himalloc_notes.c   who allocated each block, and how many bytes were asked for
 *   himalloc_stacks.c  the table of call stacks and modules that notes lead into
 *   himalloc_caches.c  overlay of stashes and thread caches; what is in flight; accounts
 *   himalloc_remarks.c what the program said of its blocks: ignored, root, tag
 *
 * Arenas come first, since regions name them; a table of arenas that can't be read leaves one
 * arena, damaged, to which everything belongs. Tables are arrays with a count that himalloc_root.c
 * has bounded; an entry that makes no sense is a finding and costs only itself.
 */
#include "heap/himalloc_walk.h"

#include <inttypes.h>

enum { HIMALLOC_MAX_CENTRALS = 1024 };

bool himalloc_extent(const struct target *target, hi_addr from, hi_addr end, unsigned protection,
                     struct hi_range *extent)
{
    size_t low = 0, high = target_mapping_count(target);
    while (low < high) { /* the first mapping that ends behind from */
        size_t middle = low + (high - low) / 2;
        if (target_mapping(target, middle)->end > from)
            high = middle;
        else
            low = middle + 1;
    }
    *extent = (struct hi_range){0, 0};
    for (size_t i = low; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        bool fits = (mapping->protection & protection) == protection;
        if (mapping->start >= end || (extent->end && (!fits || mapping->start != extent->end)))
            break;
        if (!fits)
            continue;
        if (!extent->end)
            extent->start = mapping->start > from ? mapping->start : from;
        extent->end = mapping->end;
    }
    if (extent->end > end)
        extent->end = end;
    return extent->start < extent->end;
}

bool himalloc_is_sample(const struct walk *walk, uint64_t arena)
{
    return walk->shown->stacks != HEAP_STACKS_FULL ||
           himalloc_arena_is(walk->heap, arena, HIMALLOC_ARENA_SAMPLED);
}

bool himalloc_arena_is(const struct himalloc *heap, uint64_t arena, uint64_t kind)
{
    return arena < heap->arena_table.count && heap->arena_table.items[arena].kind == kind;
}

uint32_t himalloc_arena_index(const struct himalloc *heap, uint64_t arena)
{
    if (arena < heap->arena_table.count && heap->arena_table.items[arena].index != UINT32_MAX)
        return heap->arena_table.items[arena].index;
    return 0;
}

/* -- arenas ---------------------------------------------------------------------------------- */

/* What the central states of an arena say, added up; its stashes are metadata. */
static bool arena_centrals(struct walk *walk, const void *record, struct himalloc_arena *arena)
{
    const struct schema *schema = &walk->heap->schema;
    const void *central;
    for (uint32_t i = 0; i < HIMALLOC_MAX_CENTRALS &&
                         (central = schema_record(schema, F_ARENA_centrals, record, i)) != NULL;
         i++) {
        hi_addr stash = schema_number(schema, F_CENTRAL_stash, central);
        uint64_t capacity = schema_number(schema, F_CENTRAL_stash_capacity, central);
        arena->slabs += schema_number(schema, F_CENTRAL_slab_count, central);
        arena->busy |= schema_number(schema, F_CENTRAL_lock, central) != 0;
        if (stash != 0 && stash < HIMALLOC_ADDRESS_END && capacity <= UINT32_MAX &&
            target_mapping_at(walk->target, stash) &&
            !sink_metadata(walk->sink, stash, stash + capacity * 8))
            return false;
    }
    return true;
}

static bool arena_push(struct walk *walk, hi_addr address, const void *record,
                       struct himalloc_arena *own)
{
    const struct schema *schema = &walk->heap->schema;
    struct arena arena = {.id = (uint32_t)(walk->heap->arena_table.count - 1), .address = address};
    if (schema_has(schema, F_ARENA_name))
        schema_text(schema, F_ARENA_name, record, arena.name, sizeof arena.name);
    if (!arena_centrals(walk, record, own))
        return false;
    arena.state = own->busy ? ARENA_IN_FLUX : ARENA_OK;
    own->index = sink_arena(walk->sink, &arena);
    return sink_metadata(walk->sink, address, address + schema->stride[S_ARENA]);
}

static bool arena_take(struct walk *walk, hi_addr address, void *record)
{
    struct himalloc *heap = walk->heap;
    struct himalloc_arena *own = VECTOR_PUSH(&heap->arena_table);
    hi_addr *kept = VECTOR_PUSH(&heap->arena_addresses);
    if (!own || !kept)
        return false;
    own->index = UINT32_MAX;
    size_t stride = heap->schema.stride[S_ARENA];
    if (target_read_some(walk->target, address, record, stride) < stride)
        return sink_finding(walk->sink, "an arena can be read", address, "arena %zu",
                            heap->arena_table.count - 1);
    *kept = address;
    own->kind = schema_number(&heap->schema, F_ARENA_kind, record);
    own->large_units = schema_number(&heap->schema, F_ARENA_large_units, record);
    return own->kind == 0 || arena_push(walk, address, record, own);
}

/* Regions need an arena to belong to, whatever the table looks like. */
static void arena_stand_in(struct walk *walk)
{
    struct arena arena = {.state = ARENA_DAMAGED, .address = walk->heap->arenas};
    sink_arena(walk->sink, &arena);
}

static bool walk_arenas(struct walk *walk)
{
    struct himalloc *heap = walk->heap;
    size_t bytes = (size_t)heap->arena_count * 8;
    hi_addr *table = malloc(bytes + heap->schema.stride[S_ARENA]);
    if (!table)
        return false;
    bool more = true;
    size_t got = target_read_some(walk->target, heap->arenas, table, bytes) / 8;
    if (got < heap->arena_count)
        more = sink_finding(walk->sink, "the table of arenas can be read", heap->arenas,
                            "%zu of %" PRIu64 " entries", got, heap->arena_count);
    for (size_t i = 0; more && i < got; i++)
        more = arena_take(walk, table[i], table + heap->arena_count);
    free(table);
    if (!sink_arena_at(walk->sink, 0))
        arena_stand_in(walk);
    return more && sink_metadata(walk->sink, heap->arenas, heap->arenas + bytes);
}

/* -- ranges ---------------------------------------------------------------------------------- */

static bool ranges_overlap(const struct hi_range *ranges, size_t count, hi_addr start, hi_addr end)
{
    for (size_t i = 0; i < count; i++)
        if (start < ranges[i].end && ranges[i].start < end)
            return true;
    return false;
}

static bool walk_range_once(struct walk *walk, hi_addr address, const void *record,
                            struct hi_range *covered, size_t *count)
{
    const struct schema *schema = &walk->heap->schema;
    hi_addr base = schema_number(schema, F_RANGE_base, record);
    uint64_t units = schema_number(schema, F_RANGE_unit_count, record);
    if (units < HIMALLOC_ADDRESS_END >> walk->heap->unit_shift &&
        ranges_overlap(covered, *count, base, base + (units << walk->heap->unit_shift)))
        return sink_finding(walk->sink, "ranges do not overlap", address,
                            "the one at 0x%" PRIx64 " does", base);
    bool more = himalloc_walk_range(walk, address, record, &covered[*count]);
    *count += covered[*count].end > 0;
    return more;
}

/* Some more than fit: the program may have taken the right to read from pages of its blocks. */
static uint64_t units_in_memory(const struct walk *walk)
{
    enum { SPARE_UNITS = 4096 };
    uint64_t bytes = 0;
    for (size_t i = 0; i < target_mapping_count(walk->target); i++) {
        const struct mapping *mapping = target_mapping(walk->target, i);
        if (mapping->protection & MAPPING_READ)
            bytes += mapping->end - mapping->start;
    }
    return (bytes >> walk->heap->unit_shift) + SPARE_UNITS;
}

static bool walk_ranges(struct walk *walk)
{
    struct himalloc *heap = walk->heap;
    walk->units_left = units_in_memory(walk);
    size_t stride = heap->schema.stride[S_RANGE], count = 0;
    unsigned char *record = malloc(stride);
    struct hi_range *covered = calloc(heap->range_count + 1, sizeof *covered);
    bool more = record && covered;
    for (uint64_t i = 0; more && i < heap->range_count; i++) {
        hi_addr address = heap->ranges + i * stride;
        if (target_read_some(walk->target, address, record, stride) < stride)
            more = sink_finding(walk->sink, "a range can be read", address, "range %" PRIu64, i);
        else
            more = walk_range_once(walk, address, record, covered, &count);
    }
    free(record);
    free(covered);
    return more &&
           sink_metadata(walk->sink, heap->ranges, heap->ranges + stride * heap->range_count);
}

/* -- big blocks ------------------------------------------------------------------------------ */

static bool walk_big(struct walk *walk, hi_addr address, const void *record)
{
    const struct schema *schema = &walk->heap->schema;
    hi_addr block = schema_number(schema, F_BIG_address, record);
    hi_addr start = schema_number(schema, F_BIG_mapping_start, record);
    uint64_t bytes = schema_number(schema, F_BIG_mapping_bytes, record);
    uint64_t usable = schema_number(schema, F_BIG_usable_bytes, record), end;
    uint64_t arena = schema_number(schema, F_BIG_arena, record);
    if (block == 0)
        return true;
    if (__builtin_add_overflow(start, bytes, &end) || end > HIMALLOC_ADDRESS_END || block < start ||
        block >= end || usable == 0 || usable > end - block ||
        (!walk->heap->busy && !target_mapping_at(walk->target, block)))
        return sink_finding(walk->sink, "a big block lies in its mapping", address,
                            "0x%" PRIx64 " of %" PRIu64 " bytes in 0x%" PRIx64 " of %" PRIu64,
                            block, usable, start, bytes);
    struct region region = {.start = start,
                            .end = end,
                            .first = block,
                            .usable = usable,
                            .arena = himalloc_arena_index(walk->heap, arena)};
    if (arena < walk->heap->arena_table.count)
        walk->heap->arena_table.items[arena].system_bytes += bytes;
    return himalloc_push_large(walk, &region, schema_number(schema, F_BIG_requested_bytes, record),
                               (uint32_t)schema_number(schema, F_BIG_stack, record), arena);
}

static bool walk_bigs(struct walk *walk)
{
    struct himalloc *heap = walk->heap;
    size_t stride = heap->schema.stride[S_BIG];
    bool more = true;
    for (uint64_t i = 0; more && i < heap->big_count; i++) {
        hi_addr address = heap->bigs + i * stride;
        const void *record = himalloc_window_at(&walk->units_window, address, stride);
        if (!record)
            return sink_finding(walk->sink, "the table of big blocks can be read", address,
                                "%" PRIu64 " of %" PRIu64 " entries", i, heap->big_count);
        more = walk_big(walk, address, record);
    }
    return more && sink_metadata(walk->sink, heap->bigs, heap->bigs + stride * heap->big_count);
}

/* -- thread records -------------------------------------------------------------------------- */

static void arena_add_tid(struct walk *walk, uint64_t arena, uint64_t tid)
{
    struct arena *shown = sink_arena_at(walk->sink, himalloc_arena_index(walk->heap, arena));
    if (!shown || tid == 0 || tid > INT32_MAX)
        return;
    if (shown->tid_count < ARENA_MAX_TIDS)
        shown->tids[shown->tid_count] = (pid_t)tid;
    shown->tid_count++;
}

static bool walk_thread(struct walk *walk, hi_addr address, void *record)
{
    const struct schema *schema = &walk->heap->schema;
    size_t stride = schema->stride[S_THREAD];
    if (target_read_some(walk->target, address, record, stride) < stride)
        return sink_finding(walk->sink, "a thread record can be read", address, "of %zu bytes",
                            stride);
    uint64_t bytes = schema_number(schema, F_THREAD_mapping_bytes, record), end;
    const struct mapping *mapping = target_mapping_at(walk->target, address);
    if (bytes < stride || __builtin_add_overflow(address, bytes, &end) || !mapping)
        return sink_finding(walk->sink, "a thread record fits its mapping", address,
                            "%" PRIu64 " bytes", bytes);
    hi_addr *kept = VECTOR_PUSH(&walk->heap->thread_addresses);
    if (!kept)
        return false;
    *kept = address;
    arena_add_tid(walk, schema_number(schema, F_THREAD_arena, record),
                  schema_number(schema, F_THREAD_tid, record));
    struct hi_range extent;
    return !himalloc_extent(walk->target, address, end, MAPPING_READ, &extent) ||
           sink_metadata(walk->sink, extent.start, extent.end);
}

static int address_order(const void *a, const void *b)
{
    const hi_addr *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static bool walk_thread_table(struct walk *walk, hi_addr *table, void *record)
{
    struct himalloc *heap = walk->heap;
    size_t bytes = (size_t)heap->thread_count * 8;
    size_t got = target_read_some(walk->target, heap->threads, table, bytes) / 8;
    bool more = true;
    if (got < heap->thread_count)
        more = sink_finding(walk->sink, "the table of threads can be read", heap->threads,
                            "%zu of %" PRIu64 " entries", got, heap->thread_count);
    qsort(table, got, sizeof *table, address_order);
    for (size_t i = 0; more && i < got; i++) {
        if (i > 0 && table[i] == table[i - 1])
            more = sink_finding(walk->sink, "thread records are distinct", heap->threads,
                                "0x%" PRIx64 " stands there twice", table[i]);
        else
            more = walk_thread(walk, table[i], record);
    }
    return more && sink_metadata(walk->sink, heap->threads, heap->threads + bytes);
}

static bool walk_threads(struct walk *walk)
{
    hi_addr *table = malloc((size_t)walk->heap->thread_count * 8 + 8);
    void *record = malloc(walk->heap->schema.stride[S_THREAD]);
    bool more = table && record && walk_thread_table(walk, table, record);
    free(table);
    free(record);
    return more;
}

/* -- the whole ------------------------------------------------------------------------------- */

static void arenas_sum(struct walk *walk)
{
    struct himalloc *heap = walk->heap;
    for (size_t i = 0; i < heap->arena_table.count; i++) {
        struct himalloc_arena *own = &heap->arena_table.items[i];
        struct arena *shown = sink_arena_at(walk->sink, own->index);
        if (shown)
            shown->system_bytes = own->system_bytes;
        walk->shown->system_bytes += own->system_bytes;
    }
    walk->shown->metadata_bytes -= walk->free_bytes;
    walk->shown->system_bytes += walk->shown->metadata_bytes + walk->free_bytes;
}

/* The allocator's words in its module's data: the start of a range is the address of a block. */
static bool walk_hot(struct walk *walk)
{
    const struct hi_range *hot = &walk->heap->hot;
    if (hot->end <= hot->start || hot->end - hot->start > HIMALLOC_MAX_HOT_BYTES)
        return true;
    return sink_metadata(walk->sink, hot->start, hot->end);
}

/* They name blocks, and hold none. */
static bool walk_remarks(struct walk *walk)
{
    const struct himalloc *heap = walk->heap;
    uint64_t bytes;
    if (heap->remarks == 0 ||
        __builtin_mul_overflow(heap->remark_count, heap->schema.stride[S_REMARK], &bytes) ||
        bytes == 0 || heap->remarks >= HIMALLOC_ADDRESS_END ||
        bytes > HIMALLOC_ADDRESS_END - heap->remarks)
        return true;
    return sink_metadata(walk->sink, heap->remarks, heap->remarks + bytes);
}

static bool walk_all(struct walk *walk)
{
    const struct schema *schema = &walk->heap->schema;
    hi_addr root = walk->heap->root;
    return himalloc_stacks_mode(walk->heap, walk->shown, walk->target, walk->sink) &&
           walk_arenas(walk) && walk_ranges(walk) && walk_bigs(walk) && walk_threads(walk) &&
           walk_hot(walk) && walk_remarks(walk) &&
           (!walk->heap->helper || sink_own_thread(walk->sink, walk->heap->helper)) &&
           sink_metadata(walk->sink, root, root + schema->stride[S_ROOT]);
}

static size_t largest_bitmap_words(const struct himalloc *heap)
{
    size_t most = 1;
    for (uint32_t i = 0; i < heap->class_count; i++) {
        size_t words = ((size_t)heap->classes[i].block_count + 63) / 64;
        most = words > most ? words : most;
    }
    return most;
}

static enum hi_code himalloc_walk(const struct heap_context *context, struct heap *heap,
                                  struct heap_sink *sink, struct hi_err *err)
{
    struct himalloc *own = heap->state;
    struct walk walk = {.heap = own, .shown = heap, .sink = sink, .target = context->target};
    if (!own->active)
        return HI_OK;
    walk.live = calloc(largest_bitmap_words(own), sizeof *walk.live);
    enum hi_code code = walk.live ? HI_OK : hi_no_memory(err);
    if (code == HI_OK)
        code = himalloc_window_open(&walk.codes_window, context->target, err);
    if (code == HI_OK)
        code = himalloc_window_open(&walk.units_window, context->target, err);
    for (int i = 0; i < 2 && code == HI_OK; i++)
        code = himalloc_window_open(&walk.bitmaps_windows[i], context->target, err);
    if (code == HI_OK && !walk_all(&walk))
        code = hi_no_memory(err); /* or the sink knows better */
    arenas_sum(&walk);
    if (own->sized.count)
        qsort(own->sized.items, own->sized.count, sizeof *own->sized.items, himalloc_sized_order);
    if (code == HI_OK && walk.notes.missing_bytes)
        sink_finding(sink, "notes of blocks can be read", own->ranges,
                     "%" PRIu64 " bytes of them cannot: whose they are is not known",
                     walk.notes.missing_bytes);
    himalloc_notes_settle(&own->stacks);
    if (code == HI_OK && !himalloc_stacks_read(own, heap, context->target, sink))
        code = hi_no_memory(err); /* as above */
    himalloc_window_close(&walk.codes_window);
    himalloc_window_close(&walk.units_window);
    for (int i = 0; i < 2; i++)
        himalloc_window_close(&walk.bitmaps_windows[i]);
    free(walk.notes.buffer);
    free(walk.live);
    return code;
}

const struct heap_reader himalloc_reader = {.name = "himalloc",
                                            .probe = himalloc_probe,
                                            .walk = himalloc_walk,
                                            .overlay = himalloc_overlay,
                                            .account = himalloc_account,
                                            .detail = himalloc_detail,
                                            .stack = himalloc_stack,
                                            .spare = himalloc_spare,
                                            .close = himalloc_close};
