/*
 * ptmalloc: the reader of glibc's malloc, 2.17 to 2.43 on x86-64; see ptmalloc.h for its parts.
 *
 * Read order: arenas and heaps; thread caches, since their entries help a damaged walk on; the
 * chunks of every heap and of the main arena; then what is linked nowhere, in the memory that is
 * left. The same arithmetic that glibc does on its totals is done on what was walked: memory from
 * the system of the main arena (holes of foreign sbrk() included, as it counts them), of the other
 * arenas, number and bytes of mapped chunks, lists whole, caches as long as they say.
 */
#include "heap/ptmalloc.h"

#include <sys/syscall.h>

enum { NONCONTIGUOUS = 2 };

static enum hi_code reader_probe(const struct heap_context *context, unsigned instance,
                                 struct probe *probe, struct hi_err *err)
{
    return ptmalloc_find(context, instance, probe, err);
}

/* -- in flux ------------------------------------------------------------------------------------
 */

/* System calls by which malloc gets and gives memory: around them its totals are half done. */
static bool is_memory_call(uint64_t number)
{
    return number == SYS_mmap || number == SYS_munmap || number == SYS_mremap ||
           number == SYS_mprotect || number == SYS_madvise || number == SYS_brk ||
           number == SYS_prctl;
}

/* Stopped in the library's code, and not in a system call of another kind (0f 05 before pc). */
static bool thread_is_inside(struct ptmalloc *p, const struct thread *thread)
{
    enum { ORIG_RAX = 15 };
    unsigned char before[2] = {0};
    if (!thread->has_registers || !p->symbols || !symbols_module_count(p->symbols))
        return false;
    const struct module *module = symbols_module_at(p->symbols, thread->pc);
    if (!module || module != symbols_module(p->symbols, p->module))
        return false;
    enum hi_code code = target_read(p->target, thread->pc - 2, before, sizeof before, NULL);
    uint64_t number = thread->registers[ORIG_RAX];
    return code != HI_OK || before[0] != 0x0f || before[1] != 0x05 || number == UINT64_MAX ||
           is_memory_call(number);
}

static void flux_find(struct ptmalloc *p)
{
    uint32_t locked = 0, inside = 0;
    for (size_t i = 0; i < p->arenas.count; i++)
        locked += p->arenas.items[i].locked;
    for (size_t t = 0; t < target_thread_count(p->target); t++)
        inside += thread_is_inside(p, target_thread(p->target, t));
    /* a program of one thread does not lock */
    p->thread_inside = inside && target_thread_count(p->target) == 1;
    p->flux_budget = inside > locked ? inside : locked;
}

/* -- walk ---------------------------------------------------------------------------------------
 */

/* Where the main arena's first chunk is; 0: it has none on the break. */
static hi_addr main_first(struct ptmalloc *p, hi_addr *base)
{
    const struct ptmalloc_arena *arena = &p->arenas.items[0];
    *base = p->sbrk_base;
    if (!*base && !p->par && arena->top) {
        /* no mp_: the first place in the mapping from which a chain leads to the top */
        uint64_t budget = UINT64_C(1) << 24;
        hi_addr end;
        *base = evidence_heap_run(p->target, arena->top).start;
        while (*base < arena->top && budget-- &&
               !ptmalloc_chain_ends(p, arena, *base, arena->top + 1, &budget, &end))
            *base += CHUNK_ALIGN;
    }
    return (*base + CHUNK_ALIGN - 1) & ~(hi_addr)(CHUNK_ALIGN - 1);
}

/* Of an arena that is not contiguous: does it have chunks on the break? Live, that mapping has a
 * name; a core does not know it. A break that was in the way from the start is found by scanning.
 */
static bool is_on_break(struct ptmalloc *p, hi_addr first, const struct hi_range *run)
{
    struct ptmalloc_arena *arena = &p->arenas.items[0];
    const struct mapping *mapping = target_mapping_at(p->target, first);
    uint64_t budget = UINT64_C(1) << 24;
    if (arena->top >= first && arena->top < run->end)
        return true;
    if (mapping && mapping->path && strcmp(mapping->path, "[heap]") == 0)
        return true;
    return ptmalloc_chain_leads(p, arena, first, run->end, &budget) ||
           (p->flux_budget && ptmalloc_chain_mends(p, arena, first, run->end, &budget));
}

static bool walk_main(struct ptmalloc *p, struct heap_sink *sink)
{
    struct ptmalloc_arena *arena = &p->arenas.items[0];
    hi_addr base, first = main_first(p, &base);
    if (!first || !arena->top)
        return true;
    struct hi_range run = evidence_heap_run(p->target, first);
    if (run.end <= first)
        return sink_finding(sink, "the main arena is there", first, "not in memory");
    if (arena->flags & NONCONTIGUOUS && !is_on_break(p, first, &run))
        return true;
    struct ptmalloc_piece piece = {.arena = arena, .first = first, .limit = run.end};
    if (!ptmalloc_walk_pieces(p, sink, &piece))
        return false;
    arena->system_walked += piece.limit - base;
    return true;
}

static bool walk_heap(struct ptmalloc *p, struct heap_sink *sink, const struct ptmalloc_heap *heap)
{
    struct ptmalloc_piece piece = {.arena = &p->arenas.items[heap->arena],
                                   .first = ptmalloc_heap_first(p, heap),
                                   .limit = heap->start + heap->bytes};
    if (!sink_metadata(sink, heap->start, piece.first) ||
        !ptmalloc_claim(p, heap->start, heap->start + heap->bytes))
        return false;
    if (!ptmalloc_walk_pieces(p, sink, &piece))
        return false;
    /* what was given back stays mapped, empty */
    const struct mapping *mapping = target_mapping_at(p->target, heap->start);
    hi_addr end = heap->start + heap->bytes;
    if (mapping && mapping->end > end && mapping->end - heap->start <= p->heap_max)
        return ptmalloc_claim(p, end, mapping->end) && sink_metadata(sink, end, mapping->end);
    return true;
}

static void arenas_show(struct ptmalloc *p, struct heap *heap, struct heap_sink *sink)
{
    for (size_t i = 0; i < p->arenas.count; i++) {
        const struct ptmalloc_arena *own = &p->arenas.items[i];
        struct arena *arena = sink_arena_at(sink, own->index);
        heap->system_bytes += own->system_walked;
        if (!arena)
            continue;
        arena->system_bytes = own->system_walked;
        if (own->damaged)
            arena->state = ARENA_DAMAGED;
        else if (own->locked || own->in_flux)
            arena->state = ARENA_IN_FLUX;
    }
    heap->system_bytes += p->mapped_bytes_walked;
}

static enum hi_code walk_all(struct ptmalloc *p, struct heap *heap, struct heap_sink *sink,
                             struct hi_err *err)
{
    bool fine = walk_main(p, sink);
    for (size_t i = 0; i < p->heaps.count && fine; i++)
        fine = walk_heap(p, sink, &p->heaps.items[i]);
    fine = fine && ptmalloc_walk_mapped(p, sink);
    ptmalloc_threads_attach(p, sink);
    arenas_show(p, heap, sink);
    return fine ? HI_OK : hi_fail(err, HI_STOPPED, "stopped while walking chunks of glibc");
}

static enum hi_code reader_walk(const struct heap_context *context, struct heap *heap,
                                struct heap_sink *sink, struct hi_err *err)
{
    struct ptmalloc *p = heap->state;
    (void)context;
    if (!heap->active)
        return HI_OK;
    enum hi_code code = ptmalloc_arenas_read(p, sink, err);
    if (code != HI_OK || p->arenas.count == 0)
        return code;
    flux_find(p);
    code = ptmalloc_heaps_read(p, sink, err);
    if (code == HI_OK)
        code = ptmalloc_tcaches_find(p, err);
    if (code != HI_OK)
        return code;
    ptmalloc_links_vote(p);
    return walk_all(p, heap, sink, err);
}

static enum hi_code reader_overlay(const struct heap_context *context, struct heap *heap,
                                   struct heap_sink *sink, struct hi_err *err)
{
    struct ptmalloc *p = heap->state;
    (void)context;
    if (!heap->active || p->arenas.count == 0)
        return HI_OK;
    if (!ptmalloc_overlay_caches(p, sink) || !ptmalloc_lists_check(p, sink))
        return hi_fail(err, HI_STOPPED, "stopped while reading thread caches of glibc");
    return HI_OK;
}

/* -- account ------------------------------------------------------------------------------------
 */

static void account_system(struct ptmalloc *p, struct heap_sink *sink)
{
    const struct ptmalloc_arena *main = &p->arenas.items[0];
    sink_check(sink, "system_mem", main->system_mem, main->system_walked,
               main->system_mem == main->system_walked || main->locked || p->thread_inside);
    uint64_t reported = 0, walked = 0;
    bool flux = false;
    for (size_t i = 1; i < p->arenas.count; i++) {
        reported += p->arenas.items[i].system_mem;
        walked += p->arenas.items[i].system_walked;
        flux |= p->arenas.items[i].locked;
    }
    if (p->arenas.count > 1)
        sink_check(sink, "system_mem of other arenas", reported, walked,
                   reported == walked || flux);
}

static void account_lists(struct ptmalloc *p, struct heap_sink *sink)
{
    uint64_t whole = 0, arenas = 0;
    bool agree = true;
    for (size_t i = 0; i < p->arenas.count; i++) {
        const struct ptmalloc_arena *arena = &p->arenas.items[i];
        bool same = arena->forward_sum == arena->backward_sum;
        arenas++;
        whole += same;
        agree &= same || arena->locked || arena->in_flux || p->thread_inside;
    }
    sink_check(sink, "arenas with whole bins", arenas, whole, agree);
}

static enum hi_code reader_account(const struct heap_context *context, struct heap *heap,
                                   struct heap_sink *sink, struct hi_err *err)
{
    struct ptmalloc *p = heap->state;
    (void)context;
    (void)err;
    if (!heap->active || p->arenas.count == 0)
        return HI_OK;
    account_system(p, sink);
    uint64_t flux = p->flux_budget;
    if (p->par) {
        uint64_t more = p->n_mmaps > p->mapped_walked ? p->n_mmaps - p->mapped_walked
                                                      : p->mapped_walked - p->n_mmaps;
        sink_check(sink, "n_mmaps", p->n_mmaps, p->mapped_walked, more <= flux);
        bool drift = p->par->mremap_drifts && p->mmapped_mem > p->mapped_bytes_walked &&
                     (p->mmapped_mem - p->mapped_bytes_walked) % 16 == 0;
        sink_check(sink, "mmapped_mem", p->mmapped_mem, p->mapped_bytes_walked,
                   p->mmapped_mem == p->mapped_bytes_walked || drift || flux > 0);
    }
    if (p->tcache) {
        uint64_t more = p->tcache_reported > p->tcache_listed
                            ? p->tcache_reported - p->tcache_listed
                            : p->tcache_listed - p->tcache_reported;
        sink_check(sink, "tcache entries", p->tcache_reported, p->tcache_listed,
                   more <= p->tcaches.count);
    }
    if (p->unread)
        sink_finding(sink, "the allocator's own memory can be read", p->unread, "not there");
    sink_check(sink, "threads whose TLS was read", p->tls_expected, p->tls_read,
               p->tls_expected == p->tls_read);
    account_lists(p, sink);
    return HI_OK;
}

const struct heap_reader ptmalloc_reader = {
    .name = "ptmalloc",
    .probe = reader_probe,
    .walk = reader_walk,
    .overlay = reader_overlay,
    .account = reader_account,
    .close = ptmalloc_close,
};
