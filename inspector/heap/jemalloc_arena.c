/*
 * jemalloc's arenas: where they are, and whose.
 *
 * Nothing that the walk needs: extents say the number of their arena. A thread's cache has the
 * address of the thread's arena; which number that is says the arena's base (base.h), whose first
 * words are its number and the address of its hooks in the module's data. The pointer to it is
 * somewhere in the arena, at a place that depends on how it was configured, and the base lies below
 * the arena in the same block. The arenas that no thread uses are in the table of all
 * (jemalloc.c: arenas), found by those that are known.
 */
#include "heap/evidence.h"
#include "heap/jemalloc.h"

enum {
    ARENA_BYTES_MOST = 128 * 1024, /* of struct arena_s that are looked through */
    BASE_DISTANCE_MOST = 4 * 1024 * 1024,
    KNOWN_MOST = 256,
};

struct known_arena {
    hi_addr address;
    unsigned id;
};

struct arena_search {
    const struct jemalloc *heap;
    const struct heap_context *context;
    struct heap_sink *sink;
    struct known_arena known[KNOWN_MOST];
    size_t count;
    hi_addr table; /* arenas[0]; 0: not found */
    uint64_t *words;
};

static bool is_seen(const struct arena_search *search, uint64_t id)
{
    return id < JEMALLOC_ARENAS_MAX && search->heap->arena_index[id];
}

/* Its number, when a base of a number that was seen is at address. */
static bool base_at(const struct arena_search *search, hi_addr address, unsigned *id)
{
    const struct module *module =
        symbols_module(search->context->symbols, search->heap->tree.module);
    uint64_t words[2];
    if (address & 7 ||
        target_read(search->context->target, address, words, sizeof words, NULL) != HI_OK ||
        words[1] < module->start || words[1] >= module->end || !is_seen(search, (uint32_t)words[0]))
        return false;
    *id = (uint32_t)words[0];
    return true;
}

static bool arena_identify(const struct arena_search *search, hi_addr address, unsigned *id)
{
    size_t got = 0;
    if (evidence_is_heap_address(search->context->target, address))
        got = target_read_some(search->context->target, address, search->words, ARENA_BYTES_MOST);
    for (size_t i = 0; i < got / 8; i++) {
        uint64_t word = search->words[i];
        if (word < address && address - word < BASE_DISTANCE_MOST && base_at(search, word, id))
            return true;
    }
    return false;
}

/* The arena at address, looked at once. NULL: it is none, or there are too many. */
static const struct known_arena *arena_known(struct arena_search *search, hi_addr address)
{
    for (size_t i = 0; i < search->count; i++) {
        if (search->known[i].address == address)
            return &search->known[i];
    }
    unsigned id;
    if (search->count == KNOWN_MOST || !arena_identify(search, address, &id))
        return NULL;
    search->known[search->count] = (struct known_arena){address, id};
    return &search->known[search->count++];
}

static struct arena *arena_record(const struct arena_search *search, unsigned id)
{
    return sink_arena_at(search->sink, search->heap->arena_index[id] - 1);
}

/* The arena of the thread whose cache this is. */
static void cache_arena(struct arena_search *search, const struct jemalloc_cache *cache)
{
    struct target *target = search->context->target;
    uint64_t word = cache->place;
    if (cache->row->kind == JEMALLOC_CACHE_SLOW &&
        target_read_u64(target, cache->place, &word, NULL) != HI_OK)
        return;
    if (target_read_u64(target, word + cache->row->arena_offset, &word, NULL) != HI_OK)
        return;
    const struct known_arena *known = arena_known(search, word);
    struct arena *arena = known ? arena_record(search, known->id) : NULL;
    if (!arena)
        return;
    arena->address = known->address;
    if (arena->tid_count < ARENA_MAX_TIDS)
        arena->tids[arena->tid_count] = target_thread(target, cache->thread)->tid;
    arena->tid_count++;
}

/* Is the table of arenas where the word at place is the entry of the first that is known? */
static bool table_fits(const struct arena_search *search, hi_addr place)
{
    hi_addr table = place - 8 * (hi_addr)search->known[0].id;
    for (size_t i = 0; i < search->count; i++) {
        uint64_t word;
        if (target_read_u64(search->context->target, table + 8 * (hi_addr)search->known[i].id,
                            &word, NULL) != HI_OK ||
            word != search->known[i].address)
            return false;
    }
    return true;
}

static bool page_table(void *context, hi_addr page, const unsigned char *bytes)
{
    struct arena_search *search = context;
    for (size_t i = 0; i < EVIDENCE_PAGE_BYTES; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, sizeof word);
        if (word == search->known[0].address && table_fits(search, page + i)) {
            search->table = page + i - 8 * (hi_addr)search->known[0].id;
            return false;
        }
    }
    return true;
}

/* Those that no thread uses. */
static void others_find(struct arena_search *search)
{
    evidence_each_page(search->context, search->heap->tree.module, page_table, search);
    for (unsigned id = 0; search->table && id < JEMALLOC_ARENAS_MAX; id++) {
        struct arena *arena = is_seen(search, id) ? arena_record(search, id) : NULL;
        uint64_t word;
        unsigned found;
        if (arena && !arena->address &&
            target_read_u64(search->context->target, search->table + 8 * (hi_addr)id, &word,
                            NULL) == HI_OK &&
            arena_identify(search, word, &found) && found == id)
            arena->address = word;
    }
}

bool jemalloc_arenas_find(const struct jemalloc *heap, const struct heap_context *context,
                          struct heap_sink *sink)
{
    struct arena_search *search = calloc(1, sizeof *search);
    uint64_t *words = malloc(ARENA_BYTES_MOST);
    if (search && words) {
        *search =
            (struct arena_search){.heap = heap, .context = context, .sink = sink, .words = words};
        for (size_t i = 0; i < heap->caches.count; i++) {
            if (!heap->caches.items[i].thread_gone)
                cache_arena(search, &heap->caches.items[i]);
        }
        if (search->count)
            others_find(search);
    }
    bool enough = search && words;
    free(words);
    free(search);
    return enough;
}
