/*
 * ptmalloc: arenas and their heaps.
 *
 * Arenas form a ring through `next`. The main one lies in the library's data and lives on the
 * program break (and, when that is in the way, on mappings that nothing links: ptmalloc_mmap.c).
 * Every other arena lies at the start of its own first heap, behind the heap_info, and has a chain
 * of heaps: from the one that holds its top through heap_info.prev to the first, whose prev is 0.
 * Heaps are aligned to their largest size: 64 MiB, or four huge pages in 2.35 to 2.41 when they
 * were asked for; the size is the candidate with which most arenas' tops lead back to the arena.
 *
 * Read order: the ring, then the heaps. An arena that can't be read is a finding and is left out;
 * the ring behind it is lost, and heaps found by its members' tops only. A mutex that is not 0
 * means that a thread was stopped inside: what is half done there is in flux, not damage.
 */
#include "heap/ptmalloc.h"

enum { STATE_MAX_BYTES = 0x1000, HEAP_WORDS = 4 };

/* The bin heads' own links take part in the sums. */
static void bins_sum(const struct ptmalloc *p, struct ptmalloc_arena *arena,
                     const unsigned char *state)
{
    if (evidence_u64_at(state, p->state->bins) == 0)
        return;
    for (unsigned i = 0; i < PTMALLOC_BINS; i++) {
        hi_addr bin = bin_address(p, arena->address, i);
        size_t at = p->state->bins + 16 * (size_t)i;
        arena->forward_sum += ptmalloc_edge(bin, evidence_u64_at(state, at));
        arena->backward_sum += ptmalloc_edge(evidence_u64_at(state, at + 8), bin);
    }
}

static void arena_decode(const struct ptmalloc *p, struct ptmalloc_arena *arena,
                         const unsigned char *state)
{
    uint32_t mutex;
    memcpy(&mutex, state + p->state->mutex, sizeof mutex);
    memcpy(&arena->flags, state + p->state->flags, sizeof arena->flags);
    arena->locked = mutex != 0;
    arena->top = evidence_u64_at(state, p->state->top);
    arena->system_mem = evidence_u64_at(state, p->state->system_mem);
    for (unsigned i = 0; i < PTMALLOC_FASTBINS && p->state->fastbins != PTMALLOC_NONE; i++)
        arena->fastbins[i] = evidence_u64_at(state, p->state->fastbins + 8 * (size_t)i);
    if (arena->top == bin_address(p, arena->address, 0))
        arena->top = 0; /* nothing yet */
    bins_sum(p, arena, state);
}

static bool arena_push(struct ptmalloc *p, struct heap_sink *sink, hi_addr address,
                       const unsigned char *state)
{
    struct ptmalloc_arena *arena = VECTOR_PUSH(&p->arenas);
    if (!arena)
        return false;
    arena->address = address;
    arena->is_main = address == p->main;
    arena_decode(p, arena, state);
    struct arena shown = {.id = (uint32_t)p->arenas.count - 1,
                          .address = address,
                          .state = arena->locked ? ARENA_IN_FLUX : ARENA_OK};
    arena->index = sink_arena(sink, &shown);
    return sink_metadata(sink, address, address + p->state->bytes);
}

/* After a ring that closes elsewhere: cut where the first arena comes a second time. */
static void arenas_unique(struct ptmalloc *p)
{
    for (size_t i = 1; i < p->arenas.count; i++)
        for (size_t j = 0; j < i && j < 4096; j++)
            if (p->arenas.items[i].address == p->arenas.items[j].address) {
                p->arenas.count = i;
                return;
            }
}

enum hi_code ptmalloc_arenas_read(struct ptmalloc *p, struct heap_sink *sink, struct hi_err *err)
{
    unsigned char state[STATE_MAX_BYTES];
    hi_addr address = p->main, mark = 0;
    uint64_t next_mark = 1; /* Brent: a ring that closes elsewhere comes back to a mark */
    for (uint64_t i = 0; i < PTMALLOC_MAX_ARENAS; i++) {
        if (!ptmalloc_state_read(p, address, state)) {
            if (!sink_finding(sink, "an arena can be read", address, "the ring of arenas breaks"))
                return HI_STOPPED;
            return i ? HI_OK : hi_fault(err, address, "main_arena can't be read");
        }
        if (!arena_push(p, sink, address, state))
            return HI_STOPPED;
        if (i == next_mark) {
            mark = address;
            next_mark *= 2;
        }
        address = evidence_u64_at(state, p->state->next);
        if (address == p->main)
            return HI_OK;
        if (address == mark)
            break;
    }
    arenas_unique(p);
    return sink_finding(sink, "the ring of arenas closes", address, "not at main_arena")
               ? HI_OK
               : HI_STOPPED;
}

/* -- heaps ------------------------------------------------------------------------------------- */

/* The heap that would hold chunk: its head, when it says that it belongs to arena. */
static bool heap_head(struct ptmalloc *p, hi_addr chunk, uint64_t heap_max, hi_addr arena,
                      uint64_t words[HEAP_WORDS], hi_addr *start)
{
    *start = chunk & ~(heap_max - 1);
    for (unsigned i = 0; i < HEAP_WORDS; i++)
        if (!evidence_cache_u64(p->cache, *start + 8 * (hi_addr)i, &words[i]))
            return false;
    return words[0] == arena && words[2] <= heap_max && words[2] % p->page_bytes == 0 &&
           words[2] > 0x1000 - 1;
}

static bool arena_fits_heap(struct ptmalloc *p, const struct ptmalloc_arena *arena, uint64_t max)
{
    uint64_t words[HEAP_WORDS];
    hi_addr start;
    return arena->top && heap_head(p, arena->top, max, arena->address, words, &start);
}

/* Which alignment do the arenas' tops vote for, and how long is a heap's head? */
static void heap_geometry(struct ptmalloc *p)
{
    uint64_t huge = p->hp_page ? p->hp_page : UINT64_C(2) << 20;
    const uint64_t candidates[] = {PTMALLOC_HEAP_MAX_BYTES, 4 * huge, UINT64_C(8) << 20,
                                   UINT64_C(4) << 30};
    uint32_t best = 0;
    for (size_t c = 0; c < sizeof candidates / sizeof *candidates; c++) {
        uint32_t votes = 0;
        if (candidates[c] & (candidates[c] - 1) || candidates[c] < (1u << 20))
            continue;
        for (size_t i = 1; i < p->arenas.count && i < 64; i++)
            votes += arena_fits_heap(p, &p->arenas.items[i], candidates[c]);
        if (votes <= best)
            continue;
        best = votes;
        p->heap_max = candidates[c];
    }
    struct evidence_vote vote = {0};
    for (size_t i = 1; i < p->arenas.count && i < 64; i++)
        evidence_vote_cast(&vote, p->arenas.items[i].address & 0xfff);
    uint64_t bytes = 0;
    evidence_vote_winner(&vote, &bytes);
    for (size_t i = 0; i < ptmalloc_heap_layout_count; i++)
        if (ptmalloc_heap_layouts[i].bytes == bytes)
            p->heap = &ptmalloc_heap_layouts[i];
}

static bool heap_push(struct ptmalloc *p, hi_addr start, uint64_t bytes, size_t arena)
{
    struct ptmalloc_heap *heap = VECTOR_PUSH(&p->heaps);
    if (!heap)
        return false;
    *heap = (struct ptmalloc_heap){start, bytes, (uint32_t)arena};
    p->arenas.items[arena].system_walked += bytes;
    return true;
}

/* From the heap of the top back to the first. */
static bool arena_heaps(struct ptmalloc *p, struct heap_sink *sink, size_t index)
{
    const struct ptmalloc_arena *arena = &p->arenas.items[index];
    hi_addr at = arena->top, before = UINT64_MAX;
    for (unsigned i = 0; i < PTMALLOC_MAX_HEAPS; i++) {
        uint64_t words[HEAP_WORDS];
        hi_addr start;
        if (!heap_head(p, at, p->heap_max, arena->address, words, &start) || start == before) {
            p->arenas.items[index].damaged = true;
            return sink_finding(sink, "a heap belongs to its arena", start,
                                "heap_info does not lead back to the arena at 0x%llx",
                                (unsigned long long)arena->address);
        }
        if (!heap_push(p, start, words[2], index))
            return false;
        if (words[1] == 0)
            return true;
        before = start;
        at = words[1];
    }
    return sink_finding(sink, "a chain of heaps ends", arena->address, "it does not");
}

static int heap_order(const void *a, const void *b)
{
    const struct ptmalloc_heap *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* A chain that loops gave the same heap again. */
static void heaps_unique(struct ptmalloc *p)
{
    size_t kept = 0;
    if (p->heaps.count < 2)
        return;
    qsort(p->heaps.items, p->heaps.count, sizeof *p->heaps.items, heap_order);
    for (size_t i = 1; i < p->heaps.count; i++)
        if (p->heaps.items[i].start != p->heaps.items[kept].start)
            p->heaps.items[++kept] = p->heaps.items[i];
    p->heaps.count = kept + 1;
}

enum hi_code ptmalloc_heaps_read(struct ptmalloc *p, struct heap_sink *sink, struct hi_err *err)
{
    heap_geometry(p);
    for (size_t i = 1; i < p->arenas.count; i++) {
        if (p->arenas.items[i].top == 0)
            continue;
        if (!arena_heaps(p, sink, i))
            return hi_fail(err, HI_STOPPED, "stopped while reading the heaps of arenas");
    }
    heaps_unique(p);
    return HI_OK;
}

hi_addr ptmalloc_heap_first(const struct ptmalloc *p, const struct ptmalloc_heap *heap)
{
    hi_addr arena = p->arenas.items[heap->arena].address;
    hi_addr first = heap->start + (p->heap ? p->heap->bytes : 0x20);
    if (arena >= heap->start && arena - heap->start < p->heap_max)
        first = arena + p->state->bytes;
    return (first + CHUNK_ALIGN - 1) & ~(hi_addr)(CHUNK_ALIGN - 1);
}
