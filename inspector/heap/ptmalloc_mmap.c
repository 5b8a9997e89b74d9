/*
 * ptmalloc: what is linked nowhere.
 *
 * Requests above the threshold get a mapping of their own, whose header stands at the start of its
 * first page, and when the program break is in the way the main arena takes mappings too, which
 * only their fenceposts and its top tell apart from anybody's memory. The kernel joins neighbouring
 * anonymous mappings (other chunks, thread stacks), so every page of private writable memory that
 * no heap claimed is looked at, as far as it has content.
 *
 * Header of a mapped chunk at base (2.17-2.42): prev_size 0, size = bytes of the mapping | 2, whole
 * pages; usable up to the end. 2.43 (614cfd0f8a): prev_size's bit 0 says huge page, size = bytes
 * less 16 | 2, usable up to 8 bytes before the end: the low 12 bits of size tell which.
 *
 * memalign: the aligned chunk gets a header of its own at base + lead with prev_size = lead, and
 * the old one stays at base, stale (also when mremap() changed the size later). So where base holds
 * a header, the places from which an aligned block could start are looked at first; a header there
 * whose prev_size leads back to base is the true one.
 *
 * realloc() may move such a chunk to another page: it keeps its distance from the start, which no
 * longer follows from an alignment, while the stale size may reach beyond the mapping, over what
 * lies there now. In front of an aligned chunk nobody writes: where the rest of a first page is
 * blank, the pages behind are tried as its place; where count or bytes are not those of mp_, behind
 * every start. A thread stopped in realloc() between mremap() and the header's new size leaves one
 * that may cover what others have mapped behind it since: where chunks or bytes of the main arena
 * are missing still, headers are looked for inside of those found.
 *
 * False ones: any page may hold such words by chance. mp_.n_mmaps says how many there are; what
 * goes beyond is dropped, those that fill a mapping last.
 */
#include "heap/ptmalloc.h"

enum { SCAN_BYTES = 1 << 20, SCAN_RANGES = 64, MAPPED_MAX = 1 << 22, HIDDEN_PAGES = 1 << 16 };

struct mapped {
    hi_addr base, chunk, end; /* mapping, header, end of the mapping */
    hi_addr passed;           /* end of what the scan left out for it */
    uint64_t usable;
    uint8_t rank; /* how well it fits the mappings around */
};

struct scan {
    struct ptmalloc *p;
    struct heap_sink *sink;
    VECTOR(struct mapped) found;
    bool segments;    /* of a main arena that is not contiguous: look for them too */
    uint64_t budget;  /* steps for their chains */
    hi_addr expected; /* where the last thing ended: something new may start here */
    unsigned char *buffer;
    bool failed;
};

/* -- one header ---------------------------------------------------------------------------------
 */

/* Does a mapped chunk with this header fill [base, ...) in whole pages? Its end, or 0. */
static hi_addr mapped_end(const struct ptmalloc *p, hi_addr base, hi_addr chunk, uint64_t prev_size,
                          uint64_t size_word)
{
    uint64_t lead = chunk - base, bytes = chunk_bytes(size_word);
    if ((size_word & CHUNK_FLAGS) != CHUNK_IS_MMAPPED || bytes < PTMALLOC_MIN_CHUNK_BYTES ||
        bytes >> 47)
        return 0;
    uint64_t total = lead + bytes;
    if (total % p->page_bytes == p->page_bytes - 16u) {
        if ((prev_size & ~UINT64_C(1)) != lead)
            return 0;
        total += 16;
    } else if (total % p->page_bytes || prev_size != lead) {
        return 0;
    }
    return base + total;
}

static bool header_at(struct ptmalloc *p, hi_addr chunk, uint64_t *prev_size, uint64_t *size)
{
    return evidence_cache_u64(p->cache, chunk, prev_size) &&
           evidence_cache_u64(p->cache, chunk + 8, size);
}

static void mapped_set(struct mapped *mapped, hi_addr base, hi_addr chunk, hi_addr end)
{
    hi_addr user = chunk + PTMALLOC_HEADER_BYTES;
    *mapped = (struct mapped){
        .base = base, .chunk = chunk, .end = end, .passed = end, .usable = end - user};
}

/* The chunk of a header that may be anything, if it ends in its mapping, and that before limit. */
static bool mapped_take(struct ptmalloc *p, hi_addr base, hi_addr chunk, uint64_t prev_size,
                        uint64_t size, hi_addr limit, struct mapped *mapped)
{
    hi_addr end = mapped_end(p, base, chunk, prev_size, size);
    if (end == 0 || end > limit)
        return false;
    mapped_set(mapped, base, chunk, end);
    mapped->usable -= end - chunk != chunk_bytes(size) ? 8 : 0;
    return true;
}

/* The aligned chunk in the mapping at base, whose own header is stale and says own_end. */
static bool mapped_aligned(struct ptmalloc *p, hi_addr base, hi_addr own_end, hi_addr limit,
                           struct mapped *mapped)
{
    hi_addr before = 0;
    for (unsigned shift = 5; shift < 47; shift++) {
        uint64_t align = UINT64_C(1) << shift, prev_size, size;
        hi_addr user = (base + PTMALLOC_HEADER_BYTES + align - 1) & ~(align - 1);
        hi_addr chunk = user - PTMALLOC_HEADER_BYTES;
        if (chunk == base || chunk == before || chunk >= limit)
            continue;
        before = chunk;
        if (!header_at(p, chunk, &prev_size, &size)) {
            p->unread = chunk < own_end ? chunk : p->unread;
            continue;
        }
        if (mapped_take(p, base, chunk, prev_size, size, limit, mapped))
            return true;
    }
    return false;
}

/* The aligned chunk in the mapping at base, when mremap() has moved both. */
static bool mapped_moved(struct ptmalloc *p, hi_addr base, hi_addr own_end, hi_addr limit,
                         struct mapped *mapped)
{
    hi_addr until = own_end < limit ? own_end : limit;
    for (hi_addr user = base + p->page_bytes; user < until && p->moved_budget;
         user += p->page_bytes, p->moved_budget--) {
        uint64_t prev_size, size;
        hi_addr chunk = user - PTMALLOC_HEADER_BYTES;
        if (!header_at(p, chunk, &prev_size, &size))
            continue;
        if (mapped_take(p, base, chunk, prev_size, size, limit, mapped))
            return true;
    }
    return false;
}

/* Is there nothing but zeros between this header and the place of one before the next page? */
static bool is_blank_behind(struct ptmalloc *p, hi_addr base)
{
    uint64_t word;
    for (hi_addr at = base + PTMALLOC_HEADER_BYTES;
         at < base + p->page_bytes - PTMALLOC_HEADER_BYTES; at += 8)
        if (!evidence_cache_u64(p->cache, at, &word) || word)
            return false;
    return true;
}

/* A mapped chunk that starts with the page at base? limit: end of the memory around. */
static bool mapped_at(struct ptmalloc *p, hi_addr base, uint64_t prev_size, uint64_t size,
                      hi_addr limit, struct mapped *mapped)
{
    hi_addr end = mapped_end(p, base, base, prev_size, size);
    if (end == 0)
        return false;
    if (mapped_aligned(p, base, end, limit, mapped) ||
        (is_blank_behind(p, base) && mapped_moved(p, base, end, limit, mapped)))
        return true;
    if (end > limit)
        return false;
    mapped_set(mapped, base, base, end);
    mapped->usable -= end - base != chunk_bytes(size) ? 8 : 0;
    return true;
}

/* -- pieces of a main arena that is not contiguous ----------------------------------------------
 */

static bool segment_at(struct scan *scan, hi_addr base, uint64_t size, hi_addr limit, hi_addr *end)
{
    struct ptmalloc *p = scan->p;
    struct ptmalloc_arena *arena = &p->arenas.items[0];
    if (!scan->segments || !(size & CHUNK_PREV_INUSE) ||
        size & (CHUNK_IS_MMAPPED | CHUNK_NON_MAIN) || base == limit)
        return false;
    bool mends = base == scan->expected && p->flux_budget;
    if (!ptmalloc_chain_leads(p, arena, base, limit, &scan->budget) &&
        !(mends && ptmalloc_chain_mends(p, arena, base, limit, &scan->budget)))
        return false;
    struct ptmalloc_piece piece = {.arena = arena, .first = base, .limit = limit, .single = true};
    if (!ptmalloc_walk_pieces(p, scan->sink, &piece))
        scan->failed = true;
    *end = piece.limit;
    arena->system_walked += piece.limit - base;
    return true;
}

/* -- the scan -----------------------------------------------------------------------------------
 */

/* Page by page through [from, end), memory with content; returns where to go on: at or after end.
 */
static hi_addr scan_content(struct scan *scan, hi_addr from, hi_addr end, hi_addr limit)
{
    struct ptmalloc *p = scan->p;
    for (hi_addr at = from; at < end && !scan->failed;) {
        size_t want = end - at < SCAN_BYTES ? end - at : SCAN_BYTES;
        size_t got = target_read_some(p->target, at, scan->buffer, want);
        hi_addr next = at + (got < p->page_bytes ? p->page_bytes : got);
        for (hi_addr page = at; page + PTMALLOC_HEADER_BYTES <= at + got; page += p->page_bytes) {
            uint64_t words[2];
            struct mapped mapped;
            hi_addr segment_end;
            memcpy(words, scan->buffer + (page - at), sizeof words);
            if (mapped_at(p, page, words[0], words[1], limit, &mapped)) {
                struct mapped *found =
                    scan->found.count < MAPPED_MAX ? VECTOR_PUSH(&scan->found) : NULL;
                scan->failed |= !found;
                if (found)
                    *found = mapped;
                next = scan->expected = mapped.end;
                break;
            }
            if (segment_at(scan, page, words[1], limit, &segment_end)) {
                next = (segment_end + p->page_bytes - 1) & ~(hi_addr)(p->page_bytes - 1);
                scan->expected = next;
                break;
            }
        }
        at = next;
        if (next > end)
            return next;
        if (!progress_step(p->progress, "reading", at, 0))
            scan->failed = true;
    }
    return end;
}

static void scan_range(struct scan *scan, hi_addr start, hi_addr end)
{
    unsigned page = scan->p->page_bytes;
    struct hi_range ranges[SCAN_RANGES];
    hi_addr at = (start + page - 1) & ~(hi_addr)(page - 1);
    scan->expected = at;
    while (at < end && !scan->failed) {
        size_t count = target_contents(scan->p->target, at, end, ranges, SCAN_RANGES);
        for (size_t i = 0; i < count && !scan->failed; i++) {
            hi_addr from = ranges[i].start > at ? ranges[i].start : at;
            if (from < ranges[i].end)
                at = scan_content(scan, from & ~(hi_addr)(page - 1), ranges[i].end, end);
            if (at < ranges[i].end)
                at = ranges[i].end;
        }
        if (count < SCAN_RANGES)
            return;
    }
}

static int range_order(const void *a, const void *b)
{
    const struct hi_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* All private writable memory less what heaps claimed. */
static void scan_unclaimed(struct scan *scan)
{
    struct ptmalloc *p = scan->p;
    size_t claims = p->claimed.count; /* walking segments adds more: they are behind us */
    struct hi_range *claimed = calloc(claims + 1, sizeof *claimed);
    scan->failed = !claimed;
    if (claimed && claims) {
        memcpy(claimed, p->claimed.items, claims * sizeof *claimed);
        qsort(claimed, claims, sizeof *claimed, range_order);
    }
    size_t claim = 0;
    for (size_t i = 0; i < target_mapping_count(p->target) && !scan->failed;) {
        struct hi_range run = {0, 0};
        for (; i < target_mapping_count(p->target); i++) {
            const struct mapping *mapping = target_mapping(p->target, i);
            if (!evidence_is_heap_mapping(mapping) || (run.end && mapping->start != run.end))
                break;
            run = (struct hi_range){run.end ? run.start : mapping->start, mapping->end};
        }
        i += run.end == 0;
        hi_addr at = run.start;
        while (claim < claims && claimed[claim].end <= run.start)
            claim++;
        for (; claim < claims && claimed[claim].start < run.end && !scan->failed; claim++) {
            if (claimed[claim].start > at)
                scan_range(scan, at, claimed[claim].start);
            at = claimed[claim].end > at ? claimed[claim].end : at;
        }
        if (at < run.end && !scan->failed)
            scan_range(scan, at, run.end);
    }
    free(claimed);
}

/* -- what a stale size hides -------------------------------------------------------------------
 */

static int mapped_order(const void *a, const void *b)
{
    const struct mapped *x = a, *y = b;
    return x->base < y->base ? -1 : x->base > y->base;
}

/* Chunks inside of found[index], whose size then is what they leave. */
static void hidden_in(struct scan *scan, size_t index, unsigned *budget)
{
    struct ptmalloc *p = scan->p;
    const struct mapped outer = scan->found.items[index];
    hi_addr limit = evidence_heap_run(p->target, outer.base).end;
    for (hi_addr page = (outer.chunk | (p->page_bytes - 1)) + 1; page < outer.passed && *budget;
         page += p->page_bytes, --*budget) {
        uint64_t prev_size, size;
        struct mapped inner;
        hi_addr end;
        if (!header_at(p, page, &prev_size, &size))
            continue;
        if (mapped_at(p, page, prev_size, size, limit, &inner)) {
            struct mapped *found = VECTOR_PUSH(&scan->found);
            scan->failed |= !found;
            if (!found)
                return;
            *found = inner;
            end = inner.end;
        } else if (!segment_at(scan, page, size, limit, &end)) {
            continue;
        }
        struct mapped *cut = &scan->found.items[index];
        if (cut->end > page) {
            cut->usable -= cut->end - page;
            cut->end = page;
        }
        page = ((end + p->page_bytes - 1) & ~(hi_addr)(p->page_bytes - 1)) - p->page_bytes;
    }
}

/* The aligned chunk that moved away from its alignment, where base holds an old header. */
static void moved_find(const struct scan *scan, struct mapped *mapped)
{
    hi_addr limit = evidence_heap_run(scan->p->target, mapped->base).end, passed = mapped->passed;
    if (mapped->chunk == mapped->base && mapped_moved(scan->p, mapped->base, passed, limit, mapped))
        mapped->passed = passed;
}

/* Are they as many, and of as many bytes, as mp_ says? */
static bool totals_fit(const struct scan *scan)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < scan->found.count; i++)
        bytes += scan->found.items[i].end - scan->found.items[i].base;
    uint64_t more = scan->p->mmapped_mem - bytes;
    bool drift = scan->p->par->mremap_drifts && more < scan->p->page_bytes;
    return scan->found.count == scan->p->n_mmaps && (more == 0 || drift);
}

static void hidden_find(struct scan *scan)
{
    struct ptmalloc *p = scan->p;
    const struct ptmalloc_arena *main = &p->arenas.items[0];
    bool pieces_fit = !scan->segments || main->system_walked == main->system_mem;
    unsigned budget = HIDDEN_PAGES;
    size_t count = scan->found.count;
    if (!p->par || (pieces_fit && totals_fit(scan)))
        return;
    p->moved_budget = HIDDEN_PAGES;
    for (size_t i = 0; i < count; i++)
        moved_find(scan, &scan->found.items[i]);
    if (pieces_fit && count >= p->n_mmaps)
        return;
    /* in a block lies what its owner likes, copies of old headers too: no weak ends there */
    p->pieces_closed = true;
    for (size_t i = 0; i < count && !scan->failed; i++)
        hidden_in(scan, i, &budget);
    p->pieces_closed = false;
    if (scan->found.count > count)
        qsort(scan->found.items, scan->found.count, sizeof *scan->found.items, mapped_order);
}

/* -- what is kept -------------------------------------------------------------------------------
 */

static void mapped_rank(struct scan *scan)
{
    struct mapped *items = scan->found.items;
    for (size_t i = 0; i < scan->found.count; i++) {
        const struct mapping *first = target_mapping_at(scan->p->target, items[i].base);
        const struct mapping *last = target_mapping_at(scan->p->target, items[i].end - 1);
        bool starts = (first && first->start == items[i].base) ||
                      (i > 0 && items[i - 1].end == items[i].base);
        bool ends = (last && last->end == items[i].end) ||
                    (i + 1 < scan->found.count && items[i + 1].base == items[i].end);
        items[i].rank = (uint8_t)(starts + ends);
    }
}

/* How many of which rank may stay, so that no more than n_mmaps do. */
static void mapped_limits(const struct scan *scan, uint64_t limits[3])
{
    uint64_t count[3] = {0};
    for (size_t i = 0; i < scan->found.count; i++)
        count[scan->found.items[i].rank]++;
    /* a thread stopped between mmap() and the count may have one more */
    uint64_t left = scan->p->par ? scan->p->n_mmaps + scan->p->flux_budget : UINT64_MAX;
    for (unsigned rank = 3; rank-- > 0;) {
        limits[rank] = count[rank] < left ? count[rank] : left;
        left -= limits[rank];
    }
}

static bool mapped_push(struct ptmalloc *p, struct heap_sink *sink, const struct mapped *mapped)
{
    hi_addr user = mapped->chunk + PTMALLOC_HEADER_BYTES;
    struct region region = {.shape = REGION_SINGLE,
                            .start = user,
                            .end = mapped->end,
                            .first = user,
                            .count = 1,
                            .usable = mapped->usable,
                            .slack = p->page_bytes,
                            .end_unasked = true, /* 8 bytes more than asked, then whole pages */
                            .arena = p->mapped_arena};
    p->mapped_walked++;
    p->mapped_bytes_walked += mapped->end - mapped->base;
    return sink_metadata(sink, mapped->base, user) && sink_region(sink, &region, NULL) &&
           ptmalloc_claim(p, mapped->base, mapped->end);
}

static bool mapped_push_all(struct scan *scan)
{
    struct ptmalloc *p = scan->p;
    uint64_t limits[3];
    if (scan->found.count == 0)
        return true;
    mapped_rank(scan);
    mapped_limits(scan, limits);
    struct arena shown = {.id = (uint32_t)p->arenas.count, .name = "mapped"};
    p->mapped_arena = sink_arena(scan->sink, &shown);
    for (size_t i = 0; i < scan->found.count; i++) {
        const struct mapped *mapped = &scan->found.items[i];
        if (limits[mapped->rank] == 0)
            continue;
        limits[mapped->rank]--;
        if (!mapped_push(p, scan->sink, mapped))
            return false;
    }
    struct arena *arena = sink_arena_at(scan->sink, p->mapped_arena);
    if (arena)
        arena->system_bytes = p->mapped_bytes_walked;
    return true;
}

bool ptmalloc_walk_mapped(struct ptmalloc *p, struct heap_sink *sink)
{
    enum { NONCONTIGUOUS = 2 };
    struct scan scan = {.p = p, .sink = sink, .budget = (uint64_t)1 << 26};
    scan.segments = p->arenas.items[0].flags & NONCONTIGUOUS;
    if (p->par && p->n_mmaps == 0 && !scan.segments && !p->flux_budget)
        return true;
    p->moved_budget = HIDDEN_PAGES;
    scan.buffer = malloc(SCAN_BYTES);
    scan.failed = !scan.buffer;
    if (scan.buffer)
        scan_unclaimed(&scan);
    if (!scan.failed)
        hidden_find(&scan);
    bool fine = !scan.failed && mapped_push_all(&scan);
    VECTOR_FREE(&scan.found);
    free(scan.buffer);
    return fine;
}
