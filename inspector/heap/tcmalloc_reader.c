/*
 * The reader of gperftools tcmalloc 2.7 to 2.18 (full and minimal); terms in tcmalloc.h.
 *
 * Order: every page map entry whose span starts at that very page is a span (others are interior
 * or stale: spans that were merged leave entries behind). In use with a size class: a slab, its
 * free objects by the span's list; without: one large block. Free spans are claimed as free memory.
 * Then transfer slots and thread caches are overlaid (tcmalloc_cache.c).
 *
 * A span that a thread carves up just now has no list yet, or a part of it, and refcount 0, which
 * no span in use has: all its objects are free.
 *
 * A span that a thread cuts in two has its old length until the second part is filed. With a thread
 * inside the allocator such a pair is no finding: the first is cut where the second begins.
 *
 * Facts that must agree: a span's refcount is the number of its objects that are not in its list;
 * every list entry is an object of that span. A list that loops or leaves is cut: finding, and the
 * objects that were seen are free.
 *
 * A sampled block (sample bit) has a span of its own whose list pointer leads to a StackTrace: its
 * first word is the size that was asked for, and then come the return addresses of who asked,
 * innermost first. Both are kept by the walk, since a live target is gone when somebody asks.
 */
#include "heap/tcmalloc.h"

/* -- probe ---------------------------------------------------------------------------------------
 */

static void tcmalloc_close(void *state)
{
    struct tcmalloc *heap = state;
    if (!heap)
        return;
    VECTOR_FREE(&heap->tables.items);
    VECTOR_FREE(&heap->caches);
    VECTOR_FREE(&heap->samples);
    VECTOR_FREE(&heap->frames);
    free(heap);
}

static enum hi_code probe_by_name(const struct heap_context *context, unsigned instance,
                                  struct probe *probe)
{
    struct symbol symbol;
    if (instance || symbols_find(context->symbols, SYMBOLS_ANY_MODULE,
                                 "MallocExtension_ReleaseFreeMemory", &symbol, NULL) != HI_OK)
        return HI_NOT_FOUND;
    snprintf(probe->unknown, sizeof probe->unknown,
             "tcmalloc is here (%s), but no page map and size classes of a version that we know "
             "were found in its data",
             symbols_module(context->symbols, symbol.module)->path);
    return HI_UNSUPPORTED;
}

static enum hi_code tcmalloc_probe(const struct heap_context *context, unsigned instance,
                                   struct probe *probe, struct hi_err *err)
{
    struct tcmalloc *heap = calloc(1, sizeof *heap);
    if (!heap)
        return hi_no_memory(err);
    enum hi_code code = tcmalloc_tree_find(heap, context, err);
    for (unsigned i = 0; i < instance && code == HI_OK; i++) {
        heap->tree.module++;
        code = tcmalloc_tree_find(heap, context, err);
    }
    if (code == HI_OK)
        code = tcmalloc_parts_find(heap, context, err);
    if (code == HI_NOT_FOUND)
        code = probe_by_name(context, instance, probe);
    if (code != HI_OK) {
        tcmalloc_close(heap);
        return code;
    }
    probe->found_by = FOUND_PATTERN;
    probe->active = true;
    probe->state = heap;
    if (!evidence_text(context, heap->tree.module, "gperftools ", probe->version,
                       sizeof probe->version))
        snprintf(probe->version, sizeof probe->version, "2.x");
    return HI_OK;
}

/* -- spans ---------------------------------------------------------------------------------------
 */

struct span {
    hi_addr record;
    struct hi_range memory;
    hi_addr objects;
    unsigned refcount, size_class, location;
    bool sampled;
};

struct walk {
    const struct heap_context *context;
    struct tcmalloc *heap;
    struct heap_sink *sink;
    uint32_t arena;
    uint64_t slabs, slabs_right;
    uint64_t system_bytes, with_stack;
    unsigned char *memory; /* of one slab */
    size_t memory_bytes;
    uint64_t *live;
    size_t live_words;
    bool out_of_memory;
    struct evidence_cache *pages;
    hi_addr metadata_page; /* the last page of records that was told to the sink */
    unsigned inside, cut;  /* threads in the allocator; spans that one of them is cutting in two */
    struct span last;      /* not yet pushed: memory empty: none */
};

static void *grown(void *memory, size_t *have, size_t wanted, size_t item_bytes)
{
    if (wanted <= *have)
        return memory;
    void *bigger = realloc(memory, wanted * item_bytes);
    if (bigger)
        *have = wanted;
    return bigger;
}

/* Clear the live bits of the span's free list. true: as many as refcount says, and none astray. */
static bool list_apply(const struct span *span, const struct region *region,
                       const unsigned char *memory, size_t bytes, uint64_t *live)
{
    hi_addr at = span->objects;
    uint32_t seen = 0;
    for (; at && seen < region->count; seen++) {
        uint64_t offset = at - region->first, slot = offset / region->stride;
        if (at < region->first || slot >= region->count || offset % region->stride ||
            offset + 8 > bytes || !(live[slot / 64] >> (slot % 64) & 1))
            return false;
        live[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
        memcpy(&at, memory + offset, sizeof at);
    }
    return at == 0 && region->count - seen == span->refcount;
}

static bool slab_push(struct walk *walk, const struct span *span, struct region *region)
{
    uint64_t bytes = span->memory.end - span->memory.start;
    region->shape = REGION_SLAB;
    region->stride = walk->heap->class_bytes[span->size_class];
    region->usable = region->stride;
    region->slack = region->stride - walk->heap->class_bytes[span->size_class - 1] - 1;
    region->count = (uint32_t)(bytes / region->stride);
    size_t words = (region->count + 63) / 64;
    uint64_t *live = grown(walk->live, &walk->live_words, words, sizeof *live);
    unsigned char *memory = grown(walk->memory, &walk->memory_bytes, (size_t)bytes, 1);
    walk->live = live ? live : walk->live;
    walk->memory = memory ? memory : walk->memory;
    walk->out_of_memory = !live || !memory;
    if (walk->out_of_memory)
        return false;
    memset(live, span->refcount ? 0xff : 0, words * sizeof *live);
    size_t got = 0;
    if (span->refcount == 0)
        return sink_region(walk->sink, region, live);
    if (span->objects)
        got = target_read_some(walk->context->target, span->memory.start, memory, (size_t)bytes);
    walk->slabs++;
    walk->slabs_right += list_apply(span, region, memory, got, live);
    return sink_region(walk->sink, region, live);
}

/* The frames of a trace, as far as they are addresses of code. */
static bool frames_keep(struct walk *walk, hi_addr trace, struct tcmalloc_sample *sample)
{
    struct target *target = walk->context->target;
    uint64_t depth, words[TCMALLOC_TRACE_FRAMES_MOST];
    sample->first_frame = walk->heap->frames.count;
    if (target_read_u64(target, trace + TCMALLOC_TRACE_DEPTH, &depth, NULL) != HI_OK ||
        depth > TCMALLOC_TRACE_FRAMES_MOST ||
        target_read(target, trace + TCMALLOC_TRACE_FRAMES, words, depth * 8, NULL) != HI_OK)
        return true;
    for (size_t i = 0; i < depth; i++) {
        const struct mapping *mapping = target_mapping_at(target, words[i]);
        if (!mapping || !(mapping->protection & MAPPING_EXECUTE))
            break;
        hi_addr *frame = VECTOR_PUSH(&walk->heap->frames);
        if (!frame)
            return false;
        *frame = words[i];
        sample->frame_count++;
    }
    return true;
}

static bool sample_keep(struct walk *walk, const struct span *span)
{
    uint64_t requested;
    uint64_t bytes = span->memory.end - span->memory.start;
    if (!span->sampled ||
        target_read_u64(walk->context->target, span->objects, &requested, NULL) != HI_OK ||
        requested > bytes)
        return true;
    struct tcmalloc_sample *sample = VECTOR_PUSH(&walk->heap->samples);
    if (sample)
        *sample = (struct tcmalloc_sample){.block = span->memory.start, .requested = requested};
    walk->out_of_memory = !sample || !frames_keep(walk, span->objects, sample);
    walk->with_stack += sample && sample->frame_count;
    return !walk->out_of_memory;
}

static bool span_push(struct walk *walk, const struct span *span)
{
    static const uint64_t not_live[1] = {0};
    struct region region = {.start = span->memory.start,
                            .end = span->memory.end,
                            .first = span->memory.start,
                            .arena = walk->arena};
    if (span->location != 2)
        walk->system_bytes += region.end - region.start;
    if (span->location == 0 && span->size_class)
        return slab_push(walk, span, &region);
    region.shape = REGION_SINGLE;
    region.count = 1;
    region.usable = region.end - region.start;
    if (span->location != 0)
        return sink_region(walk->sink, &region, not_live);
    region.slack = (1u << walk->heap->tree.shape->page_shift) - 1;
    return sample_keep(walk, span) && sink_region(walk->sink, &region, NULL);
}

static bool span_decode(const struct walk *walk, hi_addr record, const unsigned char *bytes,
                        struct span *span)
{
    uint64_t start, length;
    unsigned shift = walk->heap->tree.shape->page_shift;
    uint16_t refcount;
    memcpy(&start, bytes + TCMALLOC_SPAN_START, sizeof start);
    memcpy(&length, bytes + TCMALLOC_SPAN_LENGTH, sizeof length);
    memcpy(&span->objects, bytes + TCMALLOC_SPAN_OBJECTS, sizeof span->objects);
    memcpy(&refcount, bytes + TCMALLOC_SPAN_REFCOUNT, sizeof refcount);
    span->record = record;
    span->refcount = refcount;
    span->size_class = bytes[TCMALLOC_SPAN_SIZECLASS];
    span->location = bytes[TCMALLOC_SPAN_BITS] & TCMALLOC_LOCATION_MASK;
    span->sampled = bytes[TCMALLOC_SPAN_BITS] & TCMALLOC_SAMPLE_BIT;
    if (length == 0 || length >> (48 - shift) || start >> (48 - shift))
        return false;
    span->memory = (struct hi_range){start << shift, (start + length) << shift};
    bool small_fits =
        span->size_class == 0 || span->location != 0 ||
        (span->size_class < walk->heap->class_count &&
         length << shift >= walk->heap->class_bytes[span->size_class] && length <= 1u << 20);
    return span->location != 3 && small_fits;
}

static bool metadata_push(struct walk *walk, hi_addr start, uint64_t bytes)
{
    hi_addr page = start & ~UINT64_C(0xfff);
    if (bytes <= 0x1000 && page == walk->metadata_page)
        return true;
    walk->metadata_page = page;
    return sink_metadata(walk->sink, page, (start + bytes + 0xfff) & ~UINT64_C(0xfff));
}

/* The span before this one, whose end is known now. */
static bool last_push(struct walk *walk, hi_addr next_start)
{
    struct span *last = &walk->last;
    if (last->memory.start < next_start && next_start < last->memory.end &&
        walk->cut < walk->inside) {
        last->memory.end = next_start;
        walk->cut++;
    }
    return last->memory.start == last->memory.end || span_push(walk, last);
}

static bool entry_push(void *context, uint64_t entry, hi_addr page)
{
    struct walk *walk = context;
    unsigned char bytes[TCMALLOC_SPAN_BYTES];
    struct span span;
    if (!evidence_cache_bytes(walk->pages, entry, bytes, sizeof bytes))
        return sink_finding(walk->sink, "page map entry", entry,
                            "the span of page %#llx can't be read", (unsigned long long)page);
    uint64_t start;
    memcpy(&start, bytes + TCMALLOC_SPAN_START, sizeof start);
    if (start != page >> walk->heap->tree.shape->page_shift)
        return true; /* interior, or left behind by a merge */
    if (!span_decode(walk, entry, bytes, &span))
        return sink_finding(walk->sink, "span", entry, "length or size class %u is impossible",
                            span.size_class);
    bool whole = metadata_push(walk, entry, sizeof bytes) && last_push(walk, span.memory.start);
    walk->last = span;
    return whole;
}

static bool records_claim(struct walk *walk)
{
    const struct tcmalloc *heap = walk->heap;
    uint64_t leaf_bytes = UINT64_C(8) << heap->tree.shape->bits[1];
    for (size_t i = 0; i < heap->tables.items.count; i++) {
        if (!metadata_push(walk, heap->tables.items.items[i], leaf_bytes))
            return false;
    }
    for (size_t i = 0; i < heap->caches.count; i++) {
        if (!metadata_push(walk, heap->caches.items[i].place,
                           (uint64_t)TCMALLOC_LIST_BYTES * TCMALLOC_CLASSES_MAX))
            return false;
    }
    /* slots that are not in use any more keep their pointers */
    return !heap->central ||
           sink_metadata(walk->sink, heap->central,
                         heap->central + heap->class_count * heap->central_stride);
}

static int sample_order(const void *left, const void *right)
{
    const struct tcmalloc_sample *a = left, *b = right;
    return a->block < b->block ? -1 : a->block > b->block;
}

static enum hi_code tcmalloc_walk(const struct heap_context *context, struct heap *heap,
                                  struct heap_sink *sink, struct hi_err *err)
{
    struct walk walk = {.context = context, .heap = heap->state, .sink = sink};
    struct arena arena = {.state = ARENA_OK, .address = walk.heap->tree.root};
    enum hi_code code = evidence_cache_new(&walk.pages, context->target, err);
    if (code != HI_OK)
        return code;
    walk.arena = sink_arena(sink, &arena);
    walk.inside = block_lists_threads_inside(context, walk.heap->tree.module);
    code = page_tree_walk(&walk.heap->tree, context, &walk.heap->tables, entry_push, &walk, err);
    if (code == HI_OK && !(last_push(&walk, UINT64_MAX) && records_claim(&walk)))
        code = HI_STOPPED;
    evidence_cache_free(walk.pages);
    free(walk.memory);
    free(walk.live);
    if (walk.out_of_memory)
        return hi_no_memory(err);
    struct arena *record = sink_arena_at(sink, walk.arena);
    if (record)
        record->system_bytes = walk.system_bytes;
    tcmalloc_owners_find(walk.heap, context);
    for (size_t i = 0; record && i < walk.heap->caches.count; i++) {
        size_t thread = walk.heap->caches.items[i].thread;
        if (thread == TCMALLOC_NO_THREAD)
            continue;
        if (record->tid_count < ARENA_MAX_TIDS)
            record->tids[record->tid_count] = target_thread(context->target, thread)->tid;
        record->tid_count++;
    }
    heap->system_bytes = walk.system_bytes;
    heap->stacks = walk.with_stack ? HEAP_STACKS_SAMPLED : HEAP_STACKS_NONE;
    heap->blocks_with_stack = walk.with_stack;
    if (walk.heap->samples.count)
        qsort(walk.heap->samples.items, walk.heap->samples.count, sizeof *walk.heap->samples.items,
              sample_order);
    /* a stopped thread may be between a span's list and its count */
    sink_check(sink, "slabs with refcount = objects out", walk.slabs, walk.slabs_right,
               walk.slabs - walk.slabs_right <= target_thread_count(context->target));
    return code;
}

static enum hi_code tcmalloc_overlay(const struct heap_context *context, struct heap *heap,
                                     struct heap_sink *sink, struct hi_err *err)
{
    return tcmalloc_caches_overlay(context, heap, sink, err);
}

static enum hi_code tcmalloc_detail(const struct heap_context *context, struct heap *heap,
                                    hi_addr block, struct heap_detail *detail, struct hi_err *err)
{
    const struct tcmalloc *state = heap->state;
    const struct tcmalloc_sample wanted = {.block = block}, *items = state->samples.items;
    (void)context;
    (void)err;
    const struct tcmalloc_sample *sample =
        state->samples.count
            ? bsearch(&wanted, items, state->samples.count, sizeof wanted, sample_order)
            : NULL;
    if (!sample)
        return HI_NOT_FOUND;
    detail->has_requested = detail->is_sampled = true;
    detail->requested = sample->requested;
    if (sample->frame_count)
        detail->stack_id = (uint64_t)(sample - items) + 1;
    return HI_OK;
}

static size_t tcmalloc_stack(const struct heap_context *context, struct heap *heap,
                             uint64_t stack_id, struct heap_frame *frames, size_t most)
{
    const struct tcmalloc *state = heap->state;
    (void)context;
    if (stack_id == 0 || stack_id > state->samples.count)
        return 0;
    const struct tcmalloc_sample *sample = &state->samples.items[stack_id - 1];
    size_t count = sample->frame_count < most ? sample->frame_count : most;
    for (size_t i = 0; i < count; i++)
        frames[i] = (struct heap_frame){.address = state->frames.items[sample->first_frame + i]};
    return count;
}

const struct heap_reader tcmalloc_reader = {
    .name = "tcmalloc",
    .probe = tcmalloc_probe,
    .walk = tcmalloc_walk,
    .overlay = tcmalloc_overlay,
    .detail = tcmalloc_detail,
    .stack = tcmalloc_stack,
    .close = tcmalloc_close,
};
