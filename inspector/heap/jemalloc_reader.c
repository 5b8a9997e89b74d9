/*
 * The reader of jemalloc 5.0 to 5.3.1; terms in jemalloc.h.
 *
 * Order: the page tree gives all extent records (jemalloc_tree.c); each active extent is a slab or
 * one large block; extents that are dirty, muzzy or retained are free memory that must be claimed,
 * so that stale words in it are not taken for references. So are those that a thread has taken out
 * to give them back to the system: active, but of no size class. What the allocator keeps for
 * itself (base blocks: records, tables, arenas) is metadata. Thread caches come last
 * (jemalloc_cache.c), then slabs that a thread is making (jemalloc_unmade.c).
 *
 * Facts that must agree, else a finding: a record names an address and a size that do not
 * overlap another's (the table of blocks sees to it), and a slab's free count equals the set bits
 * of its bitmap. The latter may be off by what a thread stopped inside the allocator holds in its
 * hands: then the arena is in flux.
 *
 * Extents that are split or joined are filed, for a moment, under records that both hold the same
 * pages. With a thread inside the allocator such a pair is no finding: the record that begins first
 * is cut where the other begins.
 *
 * Version: the string in the module's read-only data ("5.3.0-0-g..."), else the layout class.
 */
#include "heap/evidence.h"
#include "heap/jemalloc.h"

enum {
    BATCH_BYTES = 64 * 1024,
    VERSION_SCAN_BYTES = 4 * 1024 * 1024,
    BASE_BLOCK_ALIGN = 2 * 1024 * 1024, /* base.c: blocks are aligned to a huge page */
    BASE_STEPS_BACK = 64,
    BASE_BLOCKS_MOST = 16384,
};

/* -- version -------------------------------------------------------------------------------------
 */

static bool version_at(const char *text, size_t bytes, char *version, size_t size)
{
    size_t length = 0, dots = 0;
    if (bytes < 8 || text[0] != '5' || text[1] != '.')
        return false;
    while (length < bytes && ((text[length] >= '0' && text[length] <= '9') || text[length] == '.'))
        dots += text[length++] == '.';
    if (dots != 2 || length + 3 > bytes || text[length] != '-' || length >= size)
        return false;
    size_t digits = length + 1;
    while (digits < bytes && text[digits] >= '0' && text[digits] <= '9')
        digits++;
    if (digits == length + 1 || digits + 2 > bytes || text[digits] != '-' ||
        text[digits + 1] != 'g')
        return false;
    memcpy(version, text, length);
    version[length] = 0;
    return true;
}

static bool version_in(struct target *target, struct hi_range memory, char *version, size_t size)
{
    enum { OVERLAP = 64 };
    char *buffer = malloc(BATCH_BYTES);
    bool found = false;
    for (hi_addr at = memory.start; buffer && !found && at < memory.end;
         at += BATCH_BYTES - OVERLAP) {
        size_t wanted = memory.end - at > BATCH_BYTES ? BATCH_BYTES : (size_t)(memory.end - at);
        size_t got = target_read_some(target, at, buffer, wanted);
        for (size_t i = 1; i < got && !found; i++)
            found = buffer[i - 1] == 0 && version_at(buffer + i, got - i, version, size);
    }
    free(buffer);
    return found;
}

static bool version_find(const struct heap_context *context, size_t module, char *version,
                         size_t size)
{
    for (size_t i = 0; i < symbols_segment_count(context->symbols, module); i++) {
        struct module_segment segment = symbols_segment(context->symbols, module, i);
        if (segment.protection & MAPPING_WRITE)
            continue;
        if (segment.memory.end - segment.memory.start > VERSION_SCAN_BYTES)
            segment.memory.end = segment.memory.start + VERSION_SCAN_BYTES;
        if (version_in(context->target, segment.memory, version, size))
            return true;
    }
    return false;
}

/* -- probe ---------------------------------------------------------------------------------------
 */

static void jemalloc_close(void *state)
{
    struct jemalloc *heap = state;
    if (!heap)
        return;
    VECTOR_FREE(&heap->records);
    VECTOR_FREE(&heap->tables.items);
    VECTOR_FREE(&heap->caches);
    VECTOR_FREE(&heap->unmade);
    free(heap);
}

/* Present by name, without a tree in which anything was filed: a version that we can't read. (One
 * that was never asked has a tree all the same: its constructor takes a cache's stack.) */
static enum hi_code probe_by_name(const struct heap_context *context, unsigned instance,
                                  struct probe *probe)
{
    static const char *const names[] = {"mallctl", "je_mallctl", "_rjem_mallctl"};
    struct symbol symbol;
    for (size_t i = 0; instance == 0 && i < sizeof names / sizeof *names; i++) {
        if (symbols_find(context->symbols, SYMBOLS_ANY_MODULE, names[i], &symbol, NULL) != HI_OK)
            continue;
        snprintf(probe->unknown, sizeof probe->unknown,
                 "jemalloc is here (%s exports %s), but no page tree of a version that we know was "
                 "found in its data",
                 symbols_module(context->symbols, symbol.module)->path, names[i]);
        return HI_UNSUPPORTED;
    }
    return HI_NOT_FOUND;
}

static enum hi_code jemalloc_probe(const struct heap_context *context, unsigned instance,
                                   struct probe *probe, struct hi_err *err)
{
    struct jemalloc *heap = calloc(1, sizeof *heap);
    if (!heap)
        return hi_no_memory(err);
    enum hi_code code = jemalloc_tree_find(heap, context, err);
    for (unsigned i = 0; i < instance && code == HI_OK; i++) {
        heap->tree.module++;
        code = jemalloc_tree_find(heap, context, err);
    }
    if (code != HI_OK) {
        jemalloc_close(heap);
        return code == HI_NOT_FOUND ? probe_by_name(context, instance, probe) : code;
    }
    probe->found_by = FOUND_PATTERN;
    probe->active = true;
    probe->state = heap;
    if (!version_find(context, heap->tree.module, probe->version, sizeof probe->version))
        snprintf(probe->version, sizeof probe->version, "%s", heap->extent->versions);
    return HI_OK;
}

/* -- extents -------------------------------------------------------------------------------------
 */

struct extent_span {
    hi_addr start, end, record;
};

struct walk {
    const struct heap_context *context;
    struct jemalloc *heap;
    struct heap_sink *sink;
    uint64_t slabs, slabs_off; /* slabs whose free count and bitmap disagree */
    uint64_t system_bytes;
    struct jemalloc_hands hands;
    unsigned half_done;               /* records that a thread inside is writing */
    VECTOR(struct extent_span) spans; /* then only of those that are cut */
    VECTOR(hi_addr) bases;            /* base blocks that were counted */
    bool out_of_memory;
};

static uint32_t arena_of(struct walk *walk, unsigned id)
{
    uint32_t *index = &walk->heap->arena_index[id % JEMALLOC_ARENAS_MAX];
    if (*index == 0) {
        struct arena arena = {.id = id, .state = ARENA_OK};
        *index = sink_arena(walk->sink, &arena) + 1;
    }
    return *index - 1;
}

static uint32_t class_slack(unsigned size_class)
{
    uint64_t bytes = jemalloc_class_bytes(size_class);
    uint64_t below = size_class ? jemalloc_class_bytes(size_class - 1) : 0;
    return bytes - below > UINT32_MAX ? UINT32_MAX : (uint32_t)(bytes - below - 1);
}

static bool slab_push(struct walk *walk, const struct jemalloc_extent *extent,
                      struct region *region)
{
    uint64_t live[JEMALLOC_BITMAP_WORDS] = {0};
    uint64_t stride = jemalloc_class_bytes(extent->size_class);
    region->shape = REGION_SLAB;
    region->stride = (uint32_t)stride;
    region->usable = stride;
    region->count = (uint32_t)(extent->bytes / stride);
    unsigned set = 0;
    for (unsigned i = 0; i < region->count; i++) {
        bool is_free = extent->bitmap[i / 64] >> (i % 64) & 1;
        set += is_free;
        live[i / 64] |= (uint64_t)!is_free << (i % 64);
    }
    if (jemalloc_slab_is_unmade(walk->heap, walk->context, &walk->hands, extent, region->count,
                                set)) {
        struct jemalloc_unmade *unmade = VECTOR_PUSH(&walk->heap->unmade);
        walk->out_of_memory |= !unmade;
        if (unmade)
            *unmade = (struct jemalloc_unmade){region->first, region->stride, region->count};
    }
    walk->slabs++;
    walk->slabs_off += set != extent->free_count;
    return sink_region(walk->sink, region, live);
}

static bool extent_push(struct walk *walk, const struct jemalloc_extent *extent)
{
    static const uint64_t not_live[1] = {0};
    hi_addr start = extent->address & ~UINT64_C(0xfff);
    uint32_t arena = arena_of(walk, extent->arena);
    struct arena *record = sink_arena_at(walk->sink, arena);
    struct region region = {
        .start = start, .end = start + extent->bytes, .first = extent->address, .arena = arena};
    if (record && extent->state != 3) { /* retained: given back, only the addresses are kept */
        record->system_bytes += extent->bytes;
        walk->system_bytes += extent->bytes;
    }
    if (extent->state != 0 || extent->in_transit) {
        region.first = start;
        region.shape = REGION_SINGLE;
        region.count = 1;
        region.usable = extent->bytes;
        return sink_region(walk->sink, &region, not_live);
    }
    region.slack = class_slack(extent->size_class);
    if (extent->slab)
        return slab_push(walk, extent, &region);
    region.shape = REGION_SINGLE;
    region.count = 1;
    region.usable = jemalloc_class_bytes(extent->size_class);
    if (region.usable > extent->bytes) /* not filled: all but the page that the start varies in */
        region.usable = extent->bytes - 0x1000;
    if (region.usable > region.end - region.first)
        region.usable = region.end - region.first;
    return sink_region(walk->sink, &region, NULL);
}

/* -- extents that overlap for a moment --------------------------------------------------------- */

static bool span_collect(struct walk *walk, hi_addr place, const unsigned char *bytes)
{
    struct jemalloc_extent extent;
    if (!bytes || !jemalloc_extent_decode(walk->heap, bytes, &extent))
        return true;
    struct extent_span *span = VECTOR_PUSH(&walk->spans);
    walk->out_of_memory = !span;
    hi_addr start = extent.address & ~UINT64_C(0xfff);
    if (span)
        *span = (struct extent_span){start, start + extent.bytes, place};
    return span != NULL;
}

static int span_order(const void *left, const void *right)
{
    const struct extent_span *a = left, *b = right;
    return a->start < b->start ? -1 : a->start > b->start;
}

/* Keep only those that are to be cut, with their new ends; none when there are more of them than
 * stopped threads can have caused. */
static void spans_reduce(struct walk *walk)
{
    struct extent_span *items = walk->spans.items;
    size_t kept = 0, count = walk->spans.count;
    if (count)
        qsort(items, count, sizeof *items, span_order);
    for (size_t i = 0; i + 1 < count; i++) {
        if (items[i].end > items[i + 1].start)
            items[kept++] =
                (struct extent_span){items[i].start, items[i + 1].start, items[i].record};
    }
    walk->spans.count = kept <= walk->hands.inside ? kept : 0;
}

/* false: nothing is left of it. */
static bool extent_cut(struct walk *walk, struct jemalloc_extent *extent)
{
    for (size_t i = 0; i < walk->spans.count; i++) {
        const struct extent_span *span = &walk->spans.items[i];
        struct arena *arena = sink_arena_at(walk->sink, arena_of(walk, extent->arena));
        if (span->record != extent->record)
            continue;
        if (arena)
            arena->state = ARENA_IN_FLUX;
        extent->bytes = span->end - span->start;
        extent->slab = false;
        return extent->bytes > 0 && extent->address < span->end;
    }
    return true;
}

static bool record_push(struct walk *walk, hi_addr place, const unsigned char *bytes)
{
    struct jemalloc_extent extent;
    if (!bytes)
        return sink_finding(walk->sink, "extent record", place, "could not be read");
    extent.record = place;
    if (jemalloc_extent_decode(walk->heap, bytes, &extent))
        return !extent_cut(walk, &extent) || extent_push(walk, &extent);
    if (walk->half_done < walk->hands.inside) { /* each thread inside may be writing one record */
        struct arena *arena = sink_arena_at(walk->sink, arena_of(walk, extent.arena));
        walk->half_done++;
        if (arena)
            arena->state = ARENA_IN_FLUX;
        return true;
    }
    return sink_finding(
        walk->sink, "extent record", place,
        "address %#llx, size %#llx, class %u, state %u, slab %d contradict each other",
        (unsigned long long)extent.address, (unsigned long long)extent.bytes, extent.size_class,
        extent.state, extent.slab);
}

/* Records lie close together: read runs of them at once. visit gets NULL for what can't be read. */
static bool records_visit(struct walk *walk, unsigned char *buffer,
                          bool (*visit)(struct walk *walk, hi_addr place,
                                        const unsigned char *bytes))
{
    const hi_addr *items = walk->heap->records.items;
    size_t count = walk->heap->records.count;
    for (size_t i = 0; i < count;) {
        size_t last = i;
        while (last + 1 < count &&
               items[last + 1] - items[i] + JEMALLOC_EXTENT_BYTES <= BATCH_BYTES)
            last++;
        size_t wanted = (size_t)(items[last] - items[i]) + JEMALLOC_EXTENT_BYTES;
        size_t got = target_read_some(walk->context->target, items[i], buffer, wanted);
        hi_addr start = items[i];
        size_t read = 0;
        for (; i <= last && items[i] - start + JEMALLOC_EXTENT_BYTES <= got; i++, read++) {
            if (!visit(walk, items[i], buffer + (items[i] - start)))
                return false;
        }
        if (read == 0 && !visit(walk, items[i++], NULL))
            return false;
    }
    return true;
}

/* -- metadata ------------------------------------------------------------------------------------
 */

/* base.c: struct base_block_s {size, next, extent} at the start of each aligned block; the extent
 * is what of the block is not used yet. Heap memory must not be taken for one: what it holds would
 * not be seen. */
static bool base_block_around(struct target *target, hi_addr place, struct hi_range *block)
{
    hi_addr start = place & ~(hi_addr)(BASE_BLOCK_ALIGN - 1);
    for (unsigned i = 0; i < BASE_STEPS_BACK && start; i++, start -= BASE_BLOCK_ALIGN) {
        uint64_t words[5]; /* size, next, then e_bits, e_addr, e_bsize of the extent */
        if (target_read(target, start, words, sizeof words, NULL) != HI_OK)
            continue;
        bool plausible = words[0] && (words[0] & 0xfff) == 0 && words[0] < UINT64_C(1) << 36 &&
                         (words[1] & 0xfff) == 0 && words[3] > start &&
                         words[3] - start <= words[0] && words[4] <= words[0] - (words[3] - start);
        if (plausible && place - start < words[0]) {
            *block = (struct hi_range){start, start + words[0]};
            return true;
        }
    }
    return false;
}

/* A base block is metadata, and its bytes were taken from the system. *is_new: not seen before. */
static bool base_block_take(struct walk *walk, const struct hi_range *block, bool *is_new)
{
    *is_new = false;
    for (size_t i = walk->bases.count; i-- > 0;) {
        if (walk->bases.items[i] == block->start)
            return true;
    }
    if (walk->bases.count == BASE_BLOCKS_MOST)
        return true;
    hi_addr *item = VECTOR_PUSH(&walk->bases);
    walk->out_of_memory = !item;
    if (!item)
        return false;
    *item = block->start;
    *is_new = true;
    walk->system_bytes += block->end - block->start;
    return sink_metadata(walk->sink, block->start, block->end);
}

/* The same for those that it leads to: an arena's base links its blocks, the youngest first. */
static bool base_blocks_take(struct walk *walk, struct hi_range block)
{
    for (bool is_new = true; is_new;) {
        uint64_t next;
        if (!base_block_take(walk, &block, &is_new))
            return false;
        if (target_read_u64(walk->context->target, block.start + 8, &next, NULL) != HI_OK ||
            !next || !base_block_around(walk->context->target, next, &block) || block.start != next)
            break;
    }
    return true;
}

static bool metadata_around(struct walk *walk, const hi_addr *places, size_t count)
{
    struct hi_range last = {0, 0};
    for (size_t i = 0; i < count; i++) {
        if (places[i] >= last.start && places[i] < last.end)
            continue;
        if (base_block_around(walk->context->target, places[i], &last)) {
            if (!base_blocks_take(walk, last))
                return false;
            continue;
        }
        last = (struct hi_range){places[i] & ~UINT64_C(0xfff),
                                 (places[i] & ~UINT64_C(0xfff)) + 0x1000};
        if (!sink_metadata(walk->sink, last.start, last.end))
            return false;
    }
    return true;
}

static bool arenas_metadata(struct walk *walk)
{
    for (unsigned id = 0; id < JEMALLOC_ARENAS_MAX; id++) {
        uint32_t index = walk->heap->arena_index[id];
        const struct arena *arena = index ? sink_arena_at(walk->sink, index - 1) : NULL;
        hi_addr address = arena ? arena->address : 0;
        if (address && !metadata_around(walk, &address, 1))
            return false;
    }
    return true;
}

static enum hi_code all_push(struct walk *walk, struct hi_err *err)
{
    struct jemalloc *heap = walk->heap;
    unsigned char *buffer = malloc(BATCH_BYTES);
    if (!buffer)
        return hi_no_memory(err);
    bool whole = records_visit(walk, buffer, span_collect);
    spans_reduce(walk);
    whole = whole && records_visit(walk, buffer, record_push) &&
            metadata_around(walk, heap->records.items, heap->records.count) &&
            metadata_around(walk, heap->tables.items.items, heap->tables.items.count);
    free(buffer);
    enum hi_code code =
        whole ? jemalloc_caches_find(heap, walk->context, walk->sink, err) : HI_STOPPED;
    if (code == HI_OK) {
        walk->out_of_memory |= !jemalloc_arenas_find(heap, walk->context, walk->sink);
        code = arenas_metadata(walk) ? HI_OK : HI_STOPPED;
    }
    return walk->out_of_memory ? hi_no_memory(err) : code;
}

static enum hi_code jemalloc_walk(const struct heap_context *context, struct heap *heap,
                                  struct heap_sink *sink, struct hi_err *err)
{
    struct walk walk = {.context = context, .heap = heap->state, .sink = sink};
    /* a thread inside may hold a region that bitmap and count see apart */
    walk.out_of_memory = !jemalloc_hands_read(&walk.hands, walk.heap, context);
    enum hi_code code = jemalloc_tree_walk(walk.heap, context, err);
    if (code == HI_OK)
        code = all_push(&walk, err);
    VECTOR_FREE(&walk.spans);
    VECTOR_FREE(&walk.bases);
    jemalloc_hands_free(&walk.hands);
    heap->system_bytes = walk.system_bytes;
    sink_check(sink, "slabs with nfree = free bits", walk.slabs, walk.slabs - walk.slabs_off,
               walk.slabs_off <= walk.hands.inside);
    return code;
}

static enum hi_code jemalloc_overlay(const struct heap_context *context, struct heap *heap,
                                     struct heap_sink *sink, struct hi_err *err)
{
    enum hi_code code = jemalloc_caches_overlay(heap->state, context, sink, err);
    return code == HI_OK ? jemalloc_unmade_overlay(heap->state, sink) : code;
}

const struct heap_reader jemalloc_reader = {
    .name = "jemalloc",
    .probe = jemalloc_probe,
    .walk = jemalloc_walk,
    .overlay = jemalloc_overlay,
    .close = jemalloc_close,
};
