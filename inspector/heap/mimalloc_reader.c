/*
 * The reader of mimalloc 2.0 to 2.4 and 3.1 to 3.4; terms in mimalloc.h.
 *
 * Every page becomes a slab of `reserved` blocks, or one large block. Blocks beyond `capacity` are
 * free; below it they are live but for those in the page's lists, which are followed in one copy of
 * the page's memory. What belongs to other threads' returns is told after the walk, by address.
 * Segments' own slices and free spans are claimed, so that stale words in them are no references.
 *
 * Facts that must agree: a page's lists hold blocks of that page, no block twice, and used =
 * capacity
 * - free - local_free; used still counts what other threads gave back. A list that leaves its page
 * is cut.
 *
 * A thread collects what others gave back by taking a whole list: of one page, or (v2) its heap's,
 * which goes from page to page. Until it has filed the blocks they hang on its registers and stack
 * only: in flight (block_list.h). Links from page to page are believed where the page says that one
 * of its blocks went that way.
 *
 * A page whose flags say so has given out pointers into its blocks (posix_memalign): any pointer
 * into such a block holds it, as if to its start.
 */
#include "heap/block_list.h"
#include "heap/mimalloc.h"

enum {
    HEAPS_MAX_SEEN = 65536,
    DELAYED_MAX = 1 << 24,
};

/* -- probe ---------------------------------------------------------------------------------------
 */

static void mimalloc_close(void *state)
{
    struct mimalloc *heap = state;
    if (!heap)
        return;
    VECTOR_FREE(&heap->segments);
    VECTOR_FREE(&heap->tables.items);
    VECTOR_FREE(&heap->heaps);
    VECTOR_FREE(&heap->returned);
    free(heap);
}

/* Versions whose layouts we know (mimalloc_layout.h). */
static bool version_is_known(const char *version)
{
    return (version[0] == '2' || version[0] == '3') && version[1] == '.';
}

/* mi_malloc is here, and no heap was found. Idle: a version that we know, whose data names no
 * memory but (v3) the page map. */
static enum hi_code probe_by_name(const struct heap_context *context, struct probe *probe)
{
    enum { IDLE_POINTERS = 1 };
    struct symbol symbol;
    if (symbols_find(context->symbols, SYMBOLS_ANY_MODULE, "mi_malloc", &symbol, NULL) != HI_OK)
        return HI_NOT_FOUND;
    probe->found_by = FOUND_SYMBOL;
    if (mimalloc_version(context, probe->version, sizeof probe->version) &&
        version_is_known(probe->version) &&
        evidence_pointers_out(context, symbol.module, IDLE_POINTERS + 1) <= IDLE_POINTERS)
        return HI_OK;
    snprintf(
        probe->unknown, sizeof probe->unknown,
        "mimalloc is here (%s has mi_malloc), but neither segments nor a page map of a version "
        "that we know were found",
        symbols_module(context->symbols, symbol.module)->path);
    return HI_UNSUPPORTED;
}

static size_t module_of(const struct heap_context *context, const struct mimalloc *heap)
{
    struct symbol symbol;
    if (!heap->segment)
        return heap->tree.module;
    return symbols_find(context->symbols, SYMBOLS_ANY_MODULE, "mi_malloc", &symbol, NULL) == HI_OK
               ? symbol.module
               : EVIDENCE_ANY_MODULE;
}

static enum hi_code mimalloc_probe(const struct heap_context *context, unsigned instance,
                                   struct probe *probe, struct hi_err *err)
{
    if (instance > 0)
        return HI_NOT_FOUND;
    struct mimalloc *heap = calloc(1, sizeof *heap);
    if (!heap)
        return hi_no_memory(err);
    enum hi_code code = mimalloc_find(heap, context, err);
    if (code != HI_OK) {
        mimalloc_close(heap);
        return code == HI_NOT_FOUND ? probe_by_name(context, probe) : code;
    }
    heap->module = module_of(context, heap);
    probe->found_by = FOUND_PATTERN;
    probe->active = true;
    probe->state = heap;
    if (!mimalloc_version(context, probe->version, sizeof probe->version))
        snprintf(probe->version, sizeof probe->version, "%s", heap->page->versions);
    return HI_OK;
}

/* -- pages ---------------------------------------------------------------------------------------
 */

struct walk {
    const struct heap_context *context;
    struct mimalloc *heap;
    struct heap_sink *sink;
    uint32_t arena;
    struct evidence_cache *records;
    uint64_t pages, pages_right;
    uint64_t system_bytes;
    unsigned char *memory;
    size_t memory_bytes;
    uint64_t *live;
    size_t live_words;
    hi_addr last_page; /* v3: the record that was pushed last */
    bool out_of_memory;
};

static bool room_for(struct walk *walk, size_t bytes, size_t words)
{
    if (bytes > walk->memory_bytes) {
        free(walk->memory);
        walk->memory = malloc(bytes);
        walk->memory_bytes = walk->memory ? bytes : 0;
    }
    if (words > walk->live_words) {
        free(walk->live);
        walk->live = malloc(words * sizeof *walk->live);
        walk->live_words = walk->live ? words : 0;
    }
    walk->out_of_memory = bytes > walk->memory_bytes || words > walk->live_words;
    return !walk->out_of_memory;
}

/* Clear the live bits of one list; how many it had, or UINT32_MAX when it leaves the page. */
static uint32_t list_clear(const struct walk *walk, const struct mimalloc_page *page, hi_addr first,
                           size_t bytes)
{
    hi_addr at = first;
    uint32_t count = 0;
    for (; at; count++) {
        uint64_t offset = at - page->start, slot = offset / page->block_bytes;
        if (at < page->start || offset % page->block_bytes || slot >= page->capacity ||
            offset + 8 > bytes || !(walk->live[slot / 64] >> (slot % 64) & 1))
            return UINT32_MAX;
        walk->live[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
        memcpy(&at, walk->memory + offset, sizeof at);
    }
    return count;
}

/* Four sizes a doubling (queue: mi_bin); what a request may fall short of its block by. */
static uint32_t page_slack(uint64_t block_bytes)
{
    if (block_bytes <= 64)
        return 15;
    uint64_t power = UINT64_C(1) << (63 - __builtin_clzll(block_bytes));
    uint64_t step = (block_bytes == power ? power / 2 : power) / 4;
    return step > 1u << 30 ? 1u << 30 : (uint32_t)(step - 1);
}

/* Lists that overlay() follows: this page's, and its heap's. */
static bool returned_remember(struct walk *walk, const struct mimalloc_page *page)
{
    if (!page->thread_free)
        return true;
    hi_addr *item = VECTOR_PUSH(&walk->heap->returned);
    if (item)
        *item = page->thread_free;
    walk->out_of_memory = !item;
    return item != NULL;
}

static bool heap_remember(struct walk *walk, hi_addr heap)
{
    if (!heap || walk->heap->page->heap_delayed == MIMALLOC_NO_FIELD)
        return true;
    for (size_t i = walk->heap->heaps.count; i-- > 0;) {
        if (walk->heap->heaps.items[i] == heap)
            return true;
    }
    if (walk->heap->heaps.count >= HEAPS_MAX_SEEN)
        return true;
    hi_addr *item = VECTOR_PUSH(&walk->heap->heaps);
    if (item)
        *item = heap;
    walk->out_of_memory = !item;
    return item != NULL;
}

/* live bits of a page: all of capacity, less the lists that its own thread keeps. */
static bool page_live(struct walk *walk, const struct mimalloc_page *page)
{
    size_t words = ((size_t)page->reserved + 63) / 64, bytes = 0;
    bool lists = page->free || page->local_free;
    size_t wanted = lists ? (size_t)(page->capacity * page->block_bytes) : 0;
    if (!room_for(walk, wanted, words))
        return false;
    memset(walk->live, 0, words * sizeof *walk->live);
    for (uint32_t i = 0; i < page->capacity; i++)
        walk->live[i / 64] |= UINT64_C(1) << (i % 64);
    if (lists)
        bytes = target_read_some(walk->context->target, page->start, walk->memory, wanted);
    uint32_t own = list_clear(walk, page, page->free, bytes);
    uint32_t local = list_clear(walk, page, page->local_free, bytes);
    walk->pages++;
    walk->pages_right +=
        own != UINT32_MAX && local != UINT32_MAX && page->capacity - own - local == page->used;
    return true;
}

/* end: of the memory that belongs to the page. */
static bool page_push(struct walk *walk, const struct mimalloc_page *page, hi_addr start,
                      hi_addr end)
{
    struct region region = {.start = start,
                            .end = end,
                            .first = page->start,
                            .arena = walk->arena,
                            .usable = page->block_bytes,
                            .slack = page_slack(page->block_bytes),
                            .interior_ok = page->interior};
    if (!returned_remember(walk, page) || !heap_remember(walk, page->heap))
        return false;
    walk->system_bytes += end - start;
    if (page->reserved == 1 || page->block_bytes > UINT32_MAX) {
        static const uint64_t not_live[1] = {0};
        region.shape = REGION_SINGLE;
        region.count = 1;
        if (region.usable > end - page->start)
            region.usable = end - page->start;
        bool out = page->capacity && page->used && !page->free && !page->local_free;
        return sink_region(walk->sink, &region, out ? NULL : not_live);
    }
    region.shape = REGION_SLAB;
    region.stride = (uint32_t)page->block_bytes;
    region.count = page->reserved;
    return page_live(walk, page) && sink_region(walk->sink, &region, walk->live);
}

static bool free_push(struct walk *walk, hi_addr start, hi_addr end)
{
    static const uint64_t not_live[1] = {0};
    struct region region = {.start = start,
                            .end = end,
                            .first = start,
                            .shape = REGION_SINGLE,
                            .count = 1,
                            .usable = end - start,
                            .arena = walk->arena};
    return sink_region(walk->sink, &region, not_live);
}

/* -- v2: segments --------------------------------------------------------------------------------
 */

static uint64_t read_field(struct walk *walk, hi_addr address, int offset)
{
    uint64_t value = 0;
    evidence_cache_u64(walk->records, address + (hi_addr)offset, &value);
    return value;
}

static bool slice_push(struct walk *walk, hi_addr segment, uint64_t slice, uint64_t count)
{
    const struct mimalloc_page_layout *row = walk->heap->page;
    unsigned char bytes[MIMALLOC_PAGE_BYTES_MAX];
    struct mimalloc_page page;
    hi_addr record = segment + (hi_addr)walk->heap->segment->slices + slice * row->bytes;
    hi_addr start = segment + (slice << MIMALLOC_SLICE_SHIFT);
    hi_addr end = start + (count << MIMALLOC_SLICE_SHIFT);
    uint64_t block_bytes = 0;
    if (!evidence_cache_bytes(walk->records, record, bytes, row->bytes))
        return sink_finding(walk->sink, "page record", record, "could not be read");
    memcpy(&block_bytes, bytes + row->block_size, (size_t)row->block_size_bytes);
    if (block_bytes <= 1) /* 1: taken, and not yet a page */
        return free_push(walk, start, end);
    bool sound = mimalloc_page_decode(row, record, bytes, &page);
    if (!sound && page.reserved == 0 && page.used == 0) /* its thread has not filled it in yet */
        return free_push(walk, start, end);
    if (!sound)
        return sink_finding(
            walk->sink, "page record", record,
            "%u blocks of %llu bytes in use, %u of %u given out contradict each other", page.used,
            (unsigned long long)page.block_bytes, page.capacity, page.reserved);
    if (row->start == MIMALLOC_NO_FIELD) {
        bool small = block_bytes >= 8 && block_bytes <= 1024;
        page.start = start + (small ? MIMALLOC_SMALL_START : 0);
    }
    if (page.start < start || page.start >= end ||
        (page.reserved > 1 && page.reserved > (end - page.start) / page.block_bytes))
        return sink_finding(walk->sink, "page record", record, "blocks do not fit its %llu slices",
                            (unsigned long long)count);
    if (page.reserved == 1)
        page.block_bytes =
            end - page.start < page.block_bytes ? end - page.start : page.block_bytes;
    return page_push(walk, &page, start, end);
}

static bool segment_push(struct walk *walk, hi_addr segment)
{
    const struct mimalloc_segment_layout *row = walk->heap->segment;
    uint64_t slices = read_field(walk, segment, row->slice_count);
    uint64_t info = read_field(walk, segment, row->info_slices);
    const struct mapping *mapping = target_mapping_at(walk->context->target, segment);
    if (!mapping || info >= slices)
        return true;
    uint64_t room = (mapping->end - segment) >> MIMALLOC_SLICE_SHIFT;
    slices = slices < room ? slices : room;
    if (!sink_metadata(walk->sink, segment, segment + (info << MIMALLOC_SLICE_SHIFT)))
        return false;
    for (uint64_t slice = info; slice < slices;) {
        hi_addr record = segment + (hi_addr)row->slices + slice * row->page->bytes;
        uint64_t count = read_field(walk, record, MIMALLOC_PAGE_SLICES) & UINT32_MAX;
        if (count == 0 || count > slices - slice) /* a huge block: the rest is its own */
            count = slices - slice;
        if (!slice_push(walk, segment, slice, count))
            return false;
        slice += count;
        if (slice >= MIMALLOC_SEGMENT_SLICES && slices <= MIMALLOC_SEGMENT_SLICES)
            break;
    }
    return true;
}

/* -- v3: the map ---------------------------------------------------------------------------------
 */

static bool entry_push(void *context, uint64_t entry, hi_addr address)
{
    struct walk *walk = context;
    const struct mimalloc_page_layout *row = walk->heap->page;
    unsigned char bytes[MIMALLOC_PAGE_BYTES_MAX];
    struct mimalloc_page page;
    if (entry == walk->last_page)
        return true;
    walk->last_page = entry;
    if (!evidence_cache_bytes(walk->records, entry, bytes, row->bytes) ||
        !mimalloc_page_decode(row, entry, bytes, &page))
        return sink_finding(walk->sink, "page record", entry,
                            "filed under %#llx, could not be read or contradicts itself",
                            (unsigned long long)address);
    hi_addr end = page.start + page.reserved * page.block_bytes;
    const struct mapping *mapping = target_mapping_at(walk->context->target, page.start);
    if (!mapping || end < page.start || end > mapping->end)
        return sink_finding(walk->sink, "page record", entry, "blocks at %#llx leave their mapping",
                            (unsigned long long)page.start);
    if (!sink_metadata(walk->sink, entry, entry + row->bytes)) /* wherever it lies */
        return false;
    return page_push(walk, &page, page.start, end);
}

static enum hi_code pages_walk(struct walk *walk, struct hi_err *err)
{
    if (!walk->heap->segment)
        return page_tree_walk(&walk->heap->tree, walk->context, &walk->heap->tables, entry_push,
                              walk, err);
    for (size_t i = 0; i < walk->heap->segments.count; i++) {
        if (!segment_push(walk, walk->heap->segments.items[i]))
            return HI_STOPPED;
    }
    return HI_OK;
}

static enum hi_code mimalloc_walk(const struct heap_context *context, struct heap *heap,
                                  struct heap_sink *sink, struct hi_err *err)
{
    struct walk walk = {.context = context, .heap = heap->state, .sink = sink};
    if (!heap->active)
        return HI_OK;
    struct arena arena = {.state = ARENA_OK,
                          .address = walk.heap->segment ? walk.heap->segments.items[0]
                                                        : walk.heap->tree.root};
    enum hi_code code = evidence_cache_new(&walk.records, context->target, err);
    if (code != HI_OK)
        return code;
    walk.arena = sink_arena(sink, &arena);
    code = pages_walk(&walk, err);
    evidence_cache_free(walk.records);
    free(walk.memory);
    free(walk.live);
    if (walk.out_of_memory)
        return hi_no_memory(err);
    struct arena *record = sink_arena_at(sink, walk.arena);
    if (record)
        record->system_bytes = walk.system_bytes;
    heap->system_bytes = walk.system_bytes;
    sink_check(sink, "pages with used = blocks out", walk.pages, walk.pages_right,
               walk.pages - walk.pages_right <= target_thread_count(context->target));
    return code;
}

/* -- overlay: what other threads gave back -------------------------------------------------------
 */

struct links {
    const struct mimalloc *heap;
    struct evidence_cache *cache;
};

/* In hands: within a page, or from page to page where the other says that a block went that way. */
static bool hand_links(void *context, const struct region *from, const struct region *to,
                       hi_addr next)
{
    const struct links *links = context;
    return from->start == to->start ||
           mimalloc_page_has_late_return(links->heap, links->cache, next);
}

/* A list's own length is nowhere: at most `most` blocks. */
static bool returned_tell(struct block_lists *lists, hi_addr first, uint64_t most)
{
    hi_addr broken;
    bool whole = block_list_collect(lists, first, 0, most, &broken);
    return !lists->out_of_memory && block_list_tell(lists, BLOCK_CACHED) &&
           (whole || sink_finding(lists->sink, "a returned block's link", first,
                                  "%#llx after %zu blocks is none", (unsigned long long)broken,
                                  lists->chain.count));
}

static bool returned_overlay(struct block_lists *lists, const struct mimalloc *state)
{
    for (size_t i = 0; i < state->returned.count; i++) {
        if (!returned_tell(lists, state->returned.items[i], UINT16_MAX))
            return false;
    }
    for (size_t i = 0; i < state->heaps.count; i++) {
        uint64_t first;
        hi_addr place = state->heaps.items[i] + (hi_addr)state->page->heap_delayed;
        if (evidence_cache_u64(lists->cache, place, &first) &&
            !returned_tell(lists, first, DELAYED_MAX))
            return false;
    }
    lists->links = hand_links;
    return block_lists_in_hands(lists);
}

static enum hi_code mimalloc_overlay(const struct heap_context *context, struct heap *heap,
                                     struct heap_sink *sink, struct hi_err *err)
{
    const struct mimalloc *state = heap->state;
    struct links links = {.heap = state};
    if (!heap->active)
        return HI_OK;
    struct block_lists lists = {.context = context,
                                .sink = sink,
                                .heap = heap,
                                .module = state->module,
                                .links_context = &links};
    enum hi_code code = evidence_cache_new(&lists.cache, context->target, err);
    if (code != HI_OK)
        return code;
    links.cache = lists.cache;
    bool go_on = returned_overlay(&lists, state);
    evidence_cache_free(lists.cache);
    block_lists_free(&lists);
    if (lists.out_of_memory)
        return hi_no_memory(err);
    return go_on ? HI_OK : HI_STOPPED;
}

const struct heap_reader mimalloc_reader = {
    .name = "mimalloc",
    .probe = mimalloc_probe,
    .walk = mimalloc_walk,
    .overlay = mimalloc_overlay,
    .close = mimalloc_close,
};
