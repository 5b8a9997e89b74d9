/* Keeping words of a walk's windows; see harvest.h. */
#include "graph/harvest.h"

#include "base/warm.h"

#include <sys/mman.h>

static void *reserve(uint64_t items, size_t item_bytes)
{
    if (!items || items > SIZE_MAX / item_bytes)
        return NULL;
    void *memory = mmap(NULL, items * item_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* first touches are what filling it costs: as few as possible */
    madvise(memory, items * item_bytes, MADV_HUGEPAGE);
    return memory;
}

/* Heaps lie in what can be written. Tables of addresses of code and of virtual functions mostly lie
 * in what cannot. */
static bool may_have_blocks(const struct mapping *mapping)
{
    return mapping->protection & MAPPING_WRITE && !mapping->special;
}

/* Where words may point to; returns how many bytes that is. */
static uint64_t span_find(const struct target *target, struct hi_range *span)
{
    uint64_t bytes = 0;
    *span = (struct hi_range){UINT64_MAX, 0};
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        if (!may_have_blocks(mapping))
            continue;
        span->start = mapping->start < span->start ? mapping->start : span->start;
        span->end = mapping->end > span->end ? mapping->end : span->end;
        bytes += mapping->end - mapping->start;
    }
    return bytes;
}

/* Anonymous memory first: only the first GiBs have short codes. */
static bool codes_make(struct harvest *harvest, const struct target *target, struct hi_range span)
{
    if (!codes_new(&harvest->codes, span, harvest->words_reserved))
        return false;
    for (int files = 0; files < 2; files++)
        for (size_t i = 0; i < target_mapping_count(target); i++) {
            const struct mapping *mapping = target_mapping(target, i);
            if (may_have_blocks(mapping) && (mapping->inode != 0) == files)
                codes_add(&harvest->codes, (struct hi_range){mapping->start, mapping->end});
        }
    return true;
}

static bool worker_ready(struct harvest_worker *worker)
{
    enum { PLACES = RELAY_WINDOW_BYTES / 8 + FILTER_SLACK };
    if (!worker->offsets)
        worker->offsets = malloc(PLACES * sizeof *worker->offsets);
    if (!worker->values)
        worker->values = malloc(PLACES * sizeof *worker->values);
    if (!worker->codes)
        worker->codes = malloc((PLACES + SIEVE_SLACK) * sizeof *worker->codes);
    if (!worker->bits)
        worker->bits = malloc((PLACES / 64 + SIEVE_BITS_SLACK) * sizeof *worker->bits);
    return worker->offsets && worker->values && worker->codes && worker->bits;
}

/* Codes of the worker's kept words to `to`, and their bits; returns how many there are. */
static size_t words_keep(struct harvest *harvest, const struct harvest_worker *worker, size_t count,
                         uint32_t *to, uint64_t *bits)
{
    size_t none, kept = 0;
    if (!codes_put(&harvest->codes, worker->values, count, to, &none))
        __atomic_store_n(&harvest->failed, true, __ATOMIC_RELAXED);
    for (size_t i = 0; i < count; i++) {
        uint32_t place = worker->offsets[i] / 8;
        uint64_t is_kept = to[i] != EDGE_NONE;
        bits[place / 64] |= is_kept << place % 64;
        to[kept] = to[i];
        kept += is_kept;
    }
    return kept;
}

/* The window through the sieve, to the worker's own arrays; false: it must go the long way. */
static bool words_sieve(const struct harvest *harvest, struct harvest_worker *worker,
                        const void *memory, size_t words, size_t *count)
{
    enum { TRIED_IN_VAIN = 16 };
    bool unusual = true;
    if (!harvest->sieve_words || worker->unsieved > worker->sieved + TRIED_IN_VAIN)
        return false;
    *count =
        harvest->sieve_words(&harvest->sieve, memory, words, worker->codes, worker->bits, &unusual);
    worker->sieved += !unusual;
    worker->unsieved += unusual;
    return !unusual;
}

static void see(void *context, int number, hi_addr start, const unsigned char *memory, size_t bytes)
{
    struct harvest *harvest = context;
    struct harvest_worker *worker = &harvest->workers[number];
    size_t words = bytes / 8;
    if (start % 8 || !words || __atomic_load_n(&harvest->failed, __ATOMIC_RELAXED))
        return;
    struct harvest_piece *piece = worker_ready(worker) ? VECTOR_PUSH(&worker->pieces) : NULL;
    size_t count = 0;
    bool sieved = piece && words_sieve(harvest, worker, memory, words, &count);
    if (piece && !sieved)
        count = harvest->filter(&harvest->rule, memory, words, worker->offsets, worker->values);
    /* a worker takes whole words of bits, so it shares none */
    uint64_t bits = __atomic_fetch_add(&harvest->bits_used, words / 64 + 1, __ATOMIC_RELAXED);
    uint64_t to = __atomic_fetch_add(&harvest->words_used, count, __ATOMIC_RELAXED);
    if (!piece || bits + words / 64 + 1 > harvest->bits_reserved ||
        to + count > harvest->words_reserved) {
        __atomic_store_n(&harvest->failed, true, __ATOMIC_RELAXED);
        return;
    }
    *piece = (struct harvest_piece){start, start + words * 8, to, bits};
    if (!sieved) {
        words_keep(harvest, worker, count, harvest->words + to, harvest->bits + bits);
        return;
    }
    memcpy(harvest->words + to, worker->codes, count * sizeof *worker->codes);
    memcpy(harvest->bits + bits, worker->bits, (words + 63) / 64 * sizeof *worker->bits);
}

/* -- making ------------------------------------------------------------------------------------ */

enum {
    WORTH_TOUCHING = 64 << 20, /* bytes of the target's */
};

static void words_touch(struct harvest *harvest, uint64_t own_bytes, int jobs)
{
    uint64_t bytes = own_bytes / 15 & ~(uint64_t)(WARM_STEP_BYTES - 1); /* 4 bytes in 60 */
    if (own_bytes < WORTH_TOUCHING || bytes > harvest->words_reserved * sizeof *harvest->words)
        return;
    warm_touch(harvest->words, bytes, jobs);
    harvest->words_touched = bytes / sizeof *harvest->words;
}

struct harvest *harvest_new(struct process_size size, int jobs, uint64_t tag_mask)
{
    struct harvest *harvest = calloc(1, sizeof *harvest);
    if (!harvest)
        return NULL;
    harvest->guest = (struct relay_guest){see, harvest};
    harvest->rule.keep = ~tag_mask;
    harvest->filter = filter_best();
    /* as many words as there are, and as many again that the graph may add; where address space is
     * rationed a smaller share may do */
    harvest->words_reserved = size.mapped_bytes / 8 * 2;
    while (harvest->words_reserved && !harvest->words) {
        harvest->words = reserve(harvest->words_reserved, sizeof *harvest->words);
        if (!harvest->words)
            harvest->words_reserved /= 2;
    }
    if (harvest->words) {
        words_touch(harvest, size.own_bytes, jobs);
        return harvest;
    }
    harvest_free(harvest);
    return NULL;
}

bool harvest_open(struct harvest *harvest, const struct target *target)
{
    struct hi_range span;
    uint64_t bytes = span_find(target, &span);
    harvest->rule.low = span.start;
    harvest->rule.high = span.end;
    harvest->bits_reserved = bytes / (8 * 64) * 2;
    harvest->bits = reserve(harvest->bits_reserved, sizeof *harvest->bits);
    if (!harvest->bits || !codes_make(harvest, target, span))
        return false;
    harvest->sieve = sieve_new(&harvest->rule, &harvest->codes);
    harvest->sieve_words = harvest->sieve.bytes ? sieve_best() : NULL;
    return true;
}

void harvest_free(struct harvest *harvest)
{
    if (!harvest)
        return;
    codes_free(&harvest->codes);
    if (harvest->words)
        munmap(harvest->words, harvest->words_reserved * sizeof *harvest->words);
    if (harvest->bits)
        munmap(harvest->bits, harvest->bits_reserved * sizeof *harvest->bits);
    for (int i = 0; i < PARALLEL_MAX_JOBS; i++) {
        VECTOR_FREE(&harvest->workers[i].pieces);
        free(harvest->workers[i].offsets);
        free(harvest->workers[i].values);
        free(harvest->workers[i].codes);
        free(harvest->workers[i].bits);
    }
    VECTOR_FREE(&harvest->pieces);
    free(harvest);
}

static int piece_order(const void *a, const void *b)
{
    const struct harvest_piece *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static bool pieces_join(struct harvest *harvest)
{
    for (int i = 0; i < PARALLEL_MAX_JOBS; i++) {
        const harvest_pieces *own = &harvest->workers[i].pieces;
        for (size_t k = 0; k < own->count; k++) {
            struct harvest_piece *piece = VECTOR_PUSH(&harvest->pieces);
            if (!piece)
                return false;
            *piece = own->items[k];
        }
    }
    harvest_pieces *all = &harvest->pieces;
    if (all->count)
        qsort(all->items, all->count, sizeof *all->items, piece_order);
    for (size_t i = 1; i < all->count; i++)
        if (all->items[i].start < all->items[i - 1].end)
            return false; /* memory that was walked twice */
    return all->count > 0;
}

/* -- afterwards -------------------------------------------------------------------------------- */

void harvest_trim(uint32_t *words, uint64_t used, uint64_t touched)
{
    uint64_t from = (used * sizeof *words + WARM_STEP_BYTES) & ~(uint64_t)(WARM_STEP_BYTES - 1);
    if (from < touched * sizeof *words)
        madvise((unsigned char *)words + from, touched * sizeof *words - from, MADV_DONTNEED);
}

bool harvest_seal(struct harvest *harvest, const struct blocks *blocks, uint64_t more)
{
    struct hi_range span = blocks_span(blocks);
    if (!harvest->bits || harvest->failed || !pieces_join(harvest) ||
        span.start < harvest->rule.low || span.end > harvest->rule.high ||
        more > harvest->words_reserved - harvest->words_used)
        return false;
    for (size_t i = 0; i < blocks_region_count(blocks); i++) {
        const struct region *region = blocks_region(blocks, i);
        if (!codes_cover(&harvest->codes, (struct hi_range){region->start, region->end}))
            return false;
    }
    return true;
}

size_t harvest_piece_after(const struct harvest *harvest, hi_addr address)
{
    size_t low = 0, high = harvest->pieces.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (harvest->pieces.items[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
