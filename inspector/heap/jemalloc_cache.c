/*
 * jemalloc's thread caches: found without symbols, by the way in which each points to itself.
 *
 * A cache lies in the thread's static TLS (tsd), below the thread pointer, at a place that depends
 * on the build. 5.3: tcache begins with a pointer to tcache_slow, which holds a pointer back. 5.1
 * and 5.2: its descriptor points to its own two arrays of bins. 5.0: the caches of an arena are a
 * ring. So every word of the window below the thread pointer is tried as such a place, with the
 * cheap test first, from the thread pointer down: the stack comes behind the TLS, and may hold
 * words that agree by chance. The distance from the thread pointer is the same in all threads; what
 * some agree on is where the others have theirs, or have none.
 *
 * A bin holds a stack of pointers to free regions. 5.3: from stack_head up to the address whose low
 * 16 bits are low_bits_empty. Before: ncached of them below avail. The stacks lie in blocks that
 * the allocator took from itself: they are live, belong to nobody else and must not be read as
 * data. Neither must tsd itself: its copies of page tree slots look like pointers into large
 * blocks.
 *
 * A thread stopped inside the allocator may be flushing a bin: blocks below are given back one
 * arena after the other, and may be in other hands already, while the stack still names them. Such
 * a bin is known by entries that are free, cached elsewhere or no blocks, or by its address in the
 * thread's hands; what it names is in flight. Or it fills an empty bin: blocks are written below
 * the stack's end before its head moves. Such a bin is known by its address in the thread's
 * registers or on its stack.
 *
 * A forked child has the other threads' memory, not the threads: what their caches hold is lost to
 * the allocator, and still not the program's. Their TLS is found by the C library's thread record
 * at the end of their stacks' mappings. A thread that ended has flushed its cache; what is left in
 * its TLS may be out of date, so such a cache counts only when it holds something and all of that
 * is live blocks.
 */
#include "heap/evidence.h"
#include "heap/jemalloc.h"

enum {
    WINDOW_BYTES = 256 * 1024, /* static TLS that is looked through, below the thread pointer */
    BIN_CAPACITY = 8192,       /* no cache bin holds more */
    RECORD_TOP_BYTES = 16384,  /* of a mapping, in which a thread record is looked for */
    RECORD_ALIGN = 64,
    CACHES_MAX = 1 << 17,
    THREADS_AGREE = 4, /* about where the caches are: enough */
    FILL_MAX = 200,    /* before 5.3: most that a bin of small blocks holds */
};

#define NO_THREAD SIZE_MAX

/* Where a cache is in the TLS of a thread: so far below the thread pointer. */
struct tls_place {
    const struct jemalloc_cache_layout *row;
    uint64_t distance;
};

struct anchor {
    hi_addr pointer; /* thread pointer */
    size_t thread;
};

struct cache_search {
    const struct heap_context *context;
    struct jemalloc *heap;
    struct heap_sink *sink;
    hi_addr start; /* of the window */
    size_t bytes;
    unsigned char *window;
    VECTOR(struct anchor) anchors;
    VECTOR(hi_addr) running; /* thread pointers of threads that run, rising */
    uint64_t *stack;
    uint64_t seen; /* blocks of the cache in hand */
    struct hi_range filling;
    VECTOR(hi_addr) cached;      /* all that stacks name; then only what two of them name */
    struct evidence_hands hands; /* of the thread whose cache it is */
    hi_addr top;                 /* where the bin's youngest word is; 0: nothing there */
    bool out_of_memory;
};

static bool window_word(const struct cache_search *search, hi_addr address, uint64_t *value)
{
    if (address < search->start || address - search->start > search->bytes ||
        search->bytes - (size_t)(address - search->start) < 8 || (address & 7))
        return false;
    memcpy(value, search->window + (address - search->start), sizeof *value);
    return true;
}

/* Is there a cache of this layout at place? */
static bool cache_at(const struct cache_search *search, const struct jemalloc_cache_layout *row,
                     hi_addr place)
{
    uint64_t first, second;
    switch (row->kind) {
    case JEMALLOC_CACHE_SLOW:
        return window_word(search, place, &first) && first > place - WINDOW_BYTES &&
               window_word(search, first + row->self_offset, &second) && second == place;
    case JEMALLOC_CACHE_DESCRIPTOR:
        return window_word(search, place + row->self_offset, &first) &&
               first == place + row->small_offset &&
               window_word(search, place + row->self_offset + 8, &second) &&
               second == place + row->large_offset;
    case JEMALLOC_CACHE_RING:
        return window_word(search, place + row->self_offset, &first) && first &&
               window_word(search, place + row->self_offset + 8, &second) && second &&
               target_read_u64(search->context->target, first + row->self_offset + 8, &first,
                               NULL) == HI_OK &&
               first == place &&
               target_read_u64(search->context->target, second + row->self_offset, &second, NULL) ==
                   HI_OK &&
               second == place;
    }
    return false;
}

/* Where a bin that is being filled is written to before its head moves. */
static struct hi_range bin_below(const struct jemalloc_cache_layout *row, const unsigned char *bin)
{
    uint64_t top;
    memcpy(&top, bin + row->stack_offset, sizeof top);
    uint64_t bytes = FILL_MAX * 8;
    if (row->kind == JEMALLOC_CACHE_SLOW) {
        uint16_t full;
        memcpy(&full, bin + JEMALLOC_FULL_LOW_BITS, sizeof full);
        bytes = (uint16_t)((uint16_t)top - full);
    }
    if (top < bytes || bytes > BIN_CAPACITY * 8)
        bytes = 0;
    return (struct hi_range){top - bytes, top};
}

/* The addresses of the stack of one bin: [*from, *from + 8 * *count). */
static bool bin_stack(const struct jemalloc_cache_layout *row, const unsigned char *bin,
                      hi_addr *from, uint64_t *count)
{
    uint64_t top;
    memcpy(&top, bin + row->stack_offset, sizeof top);
    if (row->kind == JEMALLOC_CACHE_SLOW) {
        uint16_t empty;
        memcpy(&empty, bin + JEMALLOC_EMPTY_LOW_BITS, sizeof empty);
        *from = top;
        *count = (uint16_t)(empty - (uint16_t)top) / 8;
    } else {
        int32_t cached;
        memcpy(&cached, bin + row->count_offset, sizeof cached);
        *count = cached > 0 ? (uint64_t)cached : 0;
        *from = top - *count * 8;
    }
    return top && *count && *count <= BIN_CAPACITY;
}

typedef bool (*bin_visit)(struct cache_search *search, hi_addr bin, const uint64_t *blocks,
                          size_t count);

/* Every bin of the cache, with what it holds, from the youngest to the oldest. */
static bool bins_visit(struct cache_search *search, const struct jemalloc_cache_layout *row,
                       hi_addr bins, unsigned count, bin_visit visit)
{
    unsigned char bin[JEMALLOC_BIN_BYTES];
    for (unsigned i = 0; i < count; i++) {
        hi_addr from, place = bins + (hi_addr)i * sizeof bin;
        uint64_t cached;
        if (target_read(search->context->target, place, bin, sizeof bin, NULL) != HI_OK)
            return true;
        search->filling = bin_below(row, bin);
        search->top = 0;
        size_t got = 0;
        if (bin_stack(row, bin, &from, &cached)) {
            search->top = from;
            got =
                target_read_some(search->context->target, from, search->stack, (size_t)cached * 8);
        }
        if (!visit(search, place, search->stack, got / 8))
            return false;
    }
    return true;
}

static bool cache_visit(struct cache_search *search, const struct jemalloc_cache *cache,
                        bin_visit visit)
{
    const struct jemalloc_cache_layout *row = cache->row;
    return bins_visit(search, row, cache->place + row->small_offset, row->small_count, visit) &&
           (row->large_offset == 0 ||
            bins_visit(search, row, cache->place + row->large_offset, row->large_count, visit));
}

static bool block_is_live(const struct cache_search *search, hi_addr block)
{
    const struct blocks *blocks = sink_heaps(search->sink)->blocks;
    struct block_place place;
    return blocks_at(blocks, block, &place) && place.offset == 0 &&
           blocks_state(blocks, place.block) == BLOCK_LIVE;
}

/* In a thread's hands: not the program's, and no more than that is certain. */
static bool block_in_flight(struct cache_search *search, hi_addr block)
{
    return !block_is_live(search, block) ||
           (sink_overlay(search->sink, block, BLOCK_IN_FLIGHT, NULL) &&
            sink_kept(search->sink, block, "in an allocating thread's hands"));
}

static bool bin_remember(struct cache_search *search, hi_addr bin, const uint64_t *blocks,
                         size_t count)
{
    (void)bin;
    for (size_t i = 0; i < count; i++) {
        hi_addr *item = VECTOR_PUSH(&search->cached);
        search->out_of_memory = !item;
        if (!item)
            return false;
        *item = blocks[i];
    }
    return true;
}

/* Only what is there twice is kept. */
static void cached_reduce(struct cache_search *search)
{
    size_t kept = 0, count = search->cached.count;
    hi_addr *items = search->cached.items;
    if (count)
        qsort(items, count, sizeof *items, evidence_by_address);
    for (size_t i = 1; i < count; i++) {
        if (items[i] == items[i - 1] && (kept == 0 || items[kept - 1] != items[i]))
            items[kept++] = items[i];
    }
    search->cached.count = kept;
}

static bool cached_twice(const struct cache_search *search, hi_addr block)
{
    return search->cached.count && bsearch(&block, search->cached.items, search->cached.count,
                                           sizeof block, evidence_by_address);
}

/* free() moves the stack's head, or its count, before it stores the block there. In between the
 * youngest word is an old one, of a block that may be live again; the place, or what it is reckoned
 * from (bin, stack's end), is in a register then. */
static bool top_is_unwritten(const struct cache_search *search, hi_addr bin, size_t count)
{
    const hi_addr places[] = {search->top, search->top + 8, bin, search->top + 8 * count};
    for (size_t i = 0; search->hands.inside && i < THREAD_REGISTER_COUNT; i++) {
        for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
            if (search->hands.words[i] == places[k])
                return true;
        }
    }
    return false;
}

/* Is the thread giving back what the bin holds? The bin is in its hands then; all that it names may
 * have gone to the arenas by now, and from there to anybody. */
static bool bin_is_flushed(const struct cache_search *search, hi_addr bin, const uint64_t *blocks,
                           size_t count)
{
    if (!search->hands.inside)
        return false;
    bool flushed = evidence_hands_hold(&search->hands, bin);
    for (size_t i = 0; i < count && !flushed; i++)
        flushed = !block_is_live(search, blocks[i]) || cached_twice(search, blocks[i]);
    return flushed;
}

static bool bin_overlay(struct cache_search *search, hi_addr bin, const uint64_t *blocks,
                        size_t count)
{
    bool flushed = bin_is_flushed(search, bin, blocks, count);
    bool doubtful = count && top_is_unwritten(search, bin, count);
    for (size_t i = 0; i < count; i++) {
        if (flushed || (doubtful && i == 0)
                ? !block_in_flight(search, blocks[i])
                : !sink_overlay(search->sink, blocks[i], BLOCK_CACHED, NULL))
            return false;
    }
    return true;
}

static bool bin_fill_overlay(struct cache_search *search, hi_addr bin, const uint64_t *blocks,
                             size_t count)
{
    struct hi_range below = search->filling;
    (void)blocks;
    if (count || below.start == below.end || !evidence_hands_hold(&search->hands, bin))
        return true;
    size_t got = target_read_some(search->context->target, below.start, search->stack,
                                  (size_t)(below.end - below.start));
    for (size_t i = 0; i < got / 8; i++) {
        if (!block_in_flight(search, search->stack[i]))
            return false;
    }
    return true;
}

/* -- caches of threads that are gone ------------------------------------------------------------
 */

static bool bin_is_live(struct cache_search *search, hi_addr bin, const uint64_t *blocks,
                        size_t count)
{
    (void)bin;
    search->seen += count;
    for (size_t i = 0; i < count; i++) {
        if (!block_is_live(search, blocks[i]))
            return false;
    }
    return true;
}

static bool cache_is_current(struct cache_search *search, const struct jemalloc_cache *cache)
{
    search->seen = 0;
    return !cache->thread_gone || (cache_visit(search, cache, bin_is_live) && search->seen > 0);
}

/* The blocks in which the cache's stacks and, before 5.3, the thread's decay counters lie. */
static bool stacks_keep(struct cache_search *search, const struct jemalloc_cache_layout *row,
                        hi_addr place)
{
    struct target *target = search->context->target;
    uint64_t word;
    if (row->decay_before &&
        target_read_u64(target, place - row->decay_before, &word, NULL) == HI_OK && word &&
        !sink_kept(search->sink, word, "arenas_tdata"))
        return false;
    hi_addr at = place + row->small_offset + row->stack_offset; /* avail of the first bin */
    if (row->kind == JEMALLOC_CACHE_SLOW &&
        target_read_u64(target, place, &at, NULL) == HI_OK) /* tcache_slow */
        at += row->block_offset;
    if (target_read_u64(target, at, &word, NULL) != HI_OK || word < 8)
        return true;
    return sink_kept(search->sink, row->kind == JEMALLOC_CACHE_SLOW ? word : word - 8,
                     "tcache stacks");
}

static bool cache_push(struct cache_search *search, const struct jemalloc_cache_layout *row,
                       hi_addr place, size_t thread)
{
    if (search->heap->caches.count == CACHES_MAX)
        return true;
    struct jemalloc_cache *cache = VECTOR_PUSH(&search->heap->caches);
    search->out_of_memory = !cache;
    if (!cache)
        return false;
    *cache = (struct jemalloc_cache){row, place, thread == NO_THREAD, thread};
    hi_addr tsd = place - row->tsd_before;
    return place < row->tsd_before || sink_metadata(search->sink, tsd, tsd + row->tsd_bytes);
}

/* -- where threads have their caches ------------------------------------------------------------
 */

static bool anchor_push(struct cache_search *search, hi_addr pointer, size_t thread)
{
    struct anchor *anchor = VECTOR_PUSH(&search->anchors);
    search->out_of_memory = !anchor;
    if (anchor)
        *anchor = (struct anchor){pointer, thread};
    return anchor != NULL;
}

/* What of [start, end) can be read: the end of it, since a mapping may begin inside. */
static void window_read(struct cache_search *search, hi_addr start, hi_addr end)
{
    const struct mapping *mapping = target_mapping_at(search->context->target, end - 1);
    if (mapping && mapping->start > start)
        start = mapping->start;
    search->start = (start + 7) & ~UINT64_C(7);
    search->bytes = 0;
    if (mapping && end > search->start)
        search->bytes = target_read_some(search->context->target, search->start, search->window,
                                         (size_t)(end - search->start)) &
                        ~(size_t)7;
}

/* The nearest to the thread pointer: there is the TLS; further down comes the stack, on which
 * anything may be. */
static bool window_search(const struct cache_search *search, hi_addr pointer, struct tls_place *tls)
{
    for (size_t i = search->bytes; i >= 8; i -= 8) {
        hi_addr place = search->start + i - 8;
        for (size_t row = 0; row < jemalloc_cache_count; row++) {
            if (cache_at(search, &jemalloc_caches[row], place)) {
                *tls = (struct tls_place){&jemalloc_caches[row], pointer - place};
                return true;
            }
        }
    }
    return false;
}

/* glibc's thread record: points to itself twice, and to the dtv between. */
static bool record_search(struct cache_search *search, const struct mapping *mapping)
{
    unsigned char top[RECORD_TOP_BYTES];
    hi_addr start =
        mapping->end - mapping->start > sizeof top ? mapping->end - sizeof top : mapping->start;
    size_t got = target_read_some(search->context->target, start, top, mapping->end - start);
    for (size_t i = 0; i + 24 <= got; i += RECORD_ALIGN) {
        uint64_t words[3];
        memcpy(words, top + i, sizeof words);
        if (words[0] != start + i || words[2] != words[0] || words[1] == 0)
            continue;
        if (!(search->running.count && bsearch(words, search->running.items, search->running.count,
                                               sizeof *words, evidence_by_address)) &&
            !anchor_push(search, start + i, NO_THREAD))
            return false;
    }
    return true;
}

/* Threads that run, then those of which only the record is left. */
static bool anchors_collect(struct cache_search *search)
{
    struct target *target = search->context->target;
    for (size_t i = 0; i < target_thread_count(target); i++) {
        const struct thread *thread = target_thread(target, i);
        if (!thread->has_registers || thread->fs_base == 0)
            continue;
        hi_addr *item = VECTOR_PUSH(&search->running);
        search->out_of_memory = !item;
        if (!item || !anchor_push(search, thread->fs_base, i))
            return false;
        *item = thread->fs_base;
    }
    if (search->running.count)
        qsort(search->running.items, search->running.count, sizeof *search->running.items,
              evidence_by_address);
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        if (evidence_is_heap_mapping(mapping) && !record_search(search, mapping))
            return false;
    }
    return true;
}

/* The distance from the thread pointer is the same in all threads: what most say. */
static bool tls_place_find(struct cache_search *search, struct tls_place *tls)
{
    struct evidence_vote vote = {0};
    uint64_t winner = 0;
    for (size_t i = 0;
         i < search->anchors.count && evidence_vote_winner(&vote, &winner) < THREADS_AGREE; i++) {
        hi_addr pointer = search->anchors.items[i].pointer;
        struct tls_place here;
        window_read(search, pointer > WINDOW_BYTES ? pointer - WINDOW_BYTES : 0, pointer);
        if (window_search(search, pointer, &here))
            evidence_vote_cast(&vote, here.distance * jemalloc_cache_count +
                                          (uint64_t)(here.row - jemalloc_caches));
    }
    if (!evidence_vote_winner(&vote, &winner))
        return false;
    *tls = (struct tls_place){&jemalloc_caches[winner % jemalloc_cache_count],
                              winner / jemalloc_cache_count};
    return true;
}

static bool caches_find(struct cache_search *search)
{
    struct tls_place tls;
    if (!anchors_collect(search))
        return false;
    if (!tls_place_find(search, &tls))
        return true;
    for (size_t i = 0; i < search->anchors.count; i++) {
        const struct anchor *anchor = &search->anchors.items[i];
        hi_addr place = anchor->pointer - tls.distance, tsd = place - tls.row->tsd_before;
        if (place < tls.row->tsd_before)
            continue;
        window_read(search, tsd, tsd + tls.row->tsd_bytes);
        if (cache_at(search, tls.row, place) && !cache_push(search, tls.row, place, anchor->thread))
            return false;
    }
    return true;
}

static enum hi_code search_begin(struct cache_search *search, struct hi_err *err)
{
    search->window = malloc(WINDOW_BYTES + BIN_CAPACITY * 8);
    search->stack = (uint64_t *)(void *)(search->window + WINDOW_BYTES);
    return search->window ? HI_OK : hi_no_memory(err);
}

enum hi_code jemalloc_caches_find(struct jemalloc *heap, const struct heap_context *context,
                                  struct heap_sink *sink, struct hi_err *err)
{
    struct cache_search search = {.context = context, .heap = heap, .sink = sink};
    enum hi_code code = search_begin(&search, err);
    if (code != HI_OK)
        return code;
    bool go_on = caches_find(&search);
    free(search.window);
    VECTOR_FREE(&search.anchors);
    VECTOR_FREE(&search.running);
    if (search.out_of_memory)
        return hi_no_memory(err);
    return go_on ? HI_OK : HI_STOPPED;
}

static void cache_hands(struct cache_search *search, const struct jemalloc *heap,
                        const struct jemalloc_cache *cache)
{
    search->hands.count = 0;
    search->hands.inside = false;
    if (!cache->thread_gone)
        evidence_hands_read(&search->hands, search->context, heap->tree.module,
                            target_thread(search->context->target, cache->thread));
}

static bool caches_overlay(struct cache_search *search, const struct jemalloc *heap)
{
    for (size_t i = 0; i < heap->caches.count; i++) {
        if (!heap->caches.items[i].thread_gone &&
            !cache_visit(search, &heap->caches.items[i], bin_remember))
            return false;
    }
    cached_reduce(search);
    for (size_t i = 0; i < heap->caches.count; i++) {
        const struct jemalloc_cache *cache = &heap->caches.items[i];
        cache_hands(search, heap, cache);
        if (cache_is_current(search, cache) && !(stacks_keep(search, cache->row, cache->place) &&
                                                 cache_visit(search, cache, bin_overlay)))
            return false;
    }
    for (size_t i = 0; i < heap->caches.count; i++) { /* what is cached is known now */
        const struct jemalloc_cache *cache = &heap->caches.items[i];
        cache_hands(search, heap, cache);
        if (search->hands.inside && !cache_visit(search, cache, bin_fill_overlay))
            return false;
    }
    return true;
}

/* Those of threads that run come first: a cache that is gone can't take their blocks. */
enum hi_code jemalloc_caches_overlay(const struct jemalloc *heap,
                                     const struct heap_context *context, struct heap_sink *sink,
                                     struct hi_err *err)
{
    struct cache_search search = {.context = context, .sink = sink};
    enum hi_code code = search_begin(&search, err);
    if (code != HI_OK)
        return code;
    bool go_on = caches_overlay(&search, heap);
    free(search.window);
    VECTOR_FREE(&search.cached);
    if (search.out_of_memory)
        return hi_no_memory(err);
    return go_on ? HI_OK : HI_STOPPED;
}
