/*
 * jemalloc's thread caches: found without symbols, by the way in which each points to itself.
 *
 * A cache lies in the thread's static TLS (tsd), below the thread pointer, at a place that depends
 * on the build. 5.3: tcache begins with a pointer to tcache_slow, which holds a pointer back. 5.1
 * and 5.2: its descriptor points to its own two arrays of bins. 5.0: the caches of an arena are a
 * ring. So every word of the window below the thread pointer is tried as such a place, with the
 * cheap test first; a false hit would need two words that agree by chance.
 *
 * A bin holds a stack of pointers to free regions. 5.3: from stack_head up to the address whose low
 * 16 bits are low_bits_empty. Before: ncached of them below avail. The stacks lie in blocks that
 * the allocator took from itself: they are live, belong to nobody else and must not be read as
 * data.
 */
#include "heap/jemalloc.h"

enum {
    WINDOW_BYTES = 256 * 1024, /* static TLS that is looked through, below the thread pointer */
    BIN_CAPACITY = 8192,       /* no cache bin holds more */
};

struct cache_search {
    const struct heap_context *context;
    struct heap_sink *sink;
    hi_addr start; /* of the window */
    size_t bytes;
    unsigned char *window;
    uint64_t *stack;
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

static bool bins_overlay(struct cache_search *search, const struct jemalloc_cache_layout *row,
                         hi_addr bins, unsigned count)
{
    unsigned char bin[JEMALLOC_BIN_BYTES];
    for (unsigned i = 0; i < count; i++) {
        hi_addr from;
        uint64_t cached;
        if (target_read(search->context->target, bins + (hi_addr)i * sizeof bin, bin, sizeof bin,
                        NULL) != HI_OK)
            return true;
        if (!bin_stack(row, bin, &from, &cached))
            continue;
        size_t got =
            target_read_some(search->context->target, from, search->stack, (size_t)cached * 8);
        for (size_t k = 0; k < got / 8; k++) {
            if (!sink_overlay(search->sink, search->stack[k], BLOCK_CACHED, NULL))
                return false;
        }
    }
    return true;
}

/* The block in which the cache's stacks lie. */
static bool stacks_keep(struct cache_search *search, const struct jemalloc_cache_layout *row,
                        hi_addr place)
{
    struct target *target = search->context->target;
    uint64_t word;
    hi_addr at = place + row->small_offset + row->stack_offset; /* avail of the first bin */
    if (row->kind == JEMALLOC_CACHE_SLOW &&
        target_read_u64(target, place, &at, NULL) == HI_OK) /* tcache_slow */
        at += row->block_offset;
    if (target_read_u64(target, at, &word, NULL) != HI_OK || word < 8)
        return true;
    return sink_kept(search->sink, row->kind == JEMALLOC_CACHE_SLOW ? word : word - 8,
                     "tcache stacks");
}

static bool cache_overlay(struct cache_search *search, const struct jemalloc_cache_layout *row,
                          hi_addr place)
{
    if (!stacks_keep(search, row, place))
        return false;
    if (!bins_overlay(search, row, place + row->small_offset, row->small_count))
        return false;
    return row->large_offset == 0 ||
           bins_overlay(search, row, place + row->large_offset, row->large_count);
}

static bool thread_overlay(struct cache_search *search)
{
    for (size_t i = 0; i < search->bytes; i += 8) {
        for (size_t row = 0; row < jemalloc_cache_count; row++) {
            if (cache_at(search, &jemalloc_caches[row], search->start + i))
                return cache_overlay(search, &jemalloc_caches[row], search->start + i);
        }
    }
    return true;
}

/* What of [fs - WINDOW_BYTES, fs) can be read: the end of it, since a mapping may begin inside. */
static void window_read(struct cache_search *search, hi_addr thread_pointer)
{
    hi_addr start = thread_pointer > WINDOW_BYTES ? thread_pointer - WINDOW_BYTES : 0;
    const struct mapping *mapping = target_mapping_at(search->context->target, thread_pointer - 1);
    if (mapping && mapping->start > start)
        start = mapping->start;
    search->start = (start + 7) & ~UINT64_C(7);
    search->bytes = 0;
    if (mapping && thread_pointer > search->start)
        search->bytes = target_read_some(search->context->target, search->start, search->window,
                                         (size_t)(thread_pointer - search->start)) &
                        ~(size_t)7;
}

enum hi_code jemalloc_caches_overlay(const struct heap_context *context, struct heap_sink *sink,
                                     struct hi_err *err)
{
    struct cache_search search = {.context = context, .sink = sink};
    unsigned char *memory = malloc(WINDOW_BYTES + BIN_CAPACITY * 8);
    if (!memory)
        return hi_no_memory(err);
    search.window = memory;
    search.stack = (uint64_t *)(void *)(memory + WINDOW_BYTES);
    bool go_on = true;
    for (size_t i = 0; go_on && i < target_thread_count(context->target); i++) {
        const struct thread *thread = target_thread(context->target, i);
        if (!thread->has_registers || thread->fs_base == 0)
            continue;
        window_read(&search, thread->fs_base);
        go_on = thread_overlay(&search);
    }
    free(memory);
    return go_on ? HI_OK : HI_STOPPED;
}
