/*
 * heap_totals: sums over the heap, for mallinfo and its kin. Taken without locks while others go
 * on: each number is right for some recent moment, their sum need not be. What heapinspect says of
 * a stopped process is exact.
 */
#define _GNU_SOURCE
#include "heap_totals.h"

#include "malloc_entry.h"
#include "size_class.h"
#include "slab.h"
#include "sweep.h"
#include "thread_cache.h"

#include <malloc.h>
#include <stdio.h>

static void totals_add_centrals(struct heap_totals *totals)
{
    for (uint32_t a = 0; a < hm_hot.root->arena_count; a++)
        for (uint32_t c = 1; c <= CLASS_COUNT; c++) {
            const struct hm_central *central = slab_central(a, c);
            totals->free_count += central->free_count;
            totals->free_bytes += central->free_count * size_class_bytes(c);
            totals->cached_count += central->stash_count;
            totals->cached_bytes += central->stash_count * size_class_bytes(c);
        }
}

static void totals_add_threads(struct heap_totals *totals)
{
    const uint64_t *threads = (const uint64_t *)(uintptr_t)hm_hot.root->threads;
    for (uint32_t i = 0; i < hm_hot.root->thread_count; i++) {
        const struct hm_thread *t = (const struct hm_thread *)(uintptr_t)threads[i];
        for (uint32_t c = 1; c <= CLASS_COUNT; c++) {
            uint32_t n = t->bins[c].window.empty - t->bins[c].window.head;
            totals->cached_count += n;
            totals->cached_bytes += n * size_class_bytes(c);
        }
    }
}

static void totals_add_bigs(struct heap_totals *totals)
{
    const struct hm_big *bigs = (const struct hm_big *)(uintptr_t)hm_hot.root->bigs;
    for (uint32_t i = 0; i < hm_hot.root->big_count; i++)
        if (bigs[i].address) {
            totals->big_count++;
            totals->big_bytes += bigs[i].mapping_bytes;
        }
}

struct heap_totals heap_totals_now(void)
{
    struct heap_totals totals = {0};
    if (!hm_hot.root)
        return totals;
    totals_add_centrals(&totals);
    totals_add_threads(&totals);
    totals_add_bigs(&totals);
    for (uint32_t i = 0; i < hm_hot.root->range_count; i++)
        totals.system_bytes += range_at(i)->top_index << UNIT_SHIFT;
    totals.free_count += hm_hot.root->free_units;
    totals.free_bytes += hm_hot.root->free_units << UNIT_SHIFT;
    totals.dirty_bytes = hm_hot.root->dirty_units << UNIT_SHIFT;
    size_t idle = totals.free_bytes + totals.cached_bytes;
    totals.live_bytes = totals.system_bytes > idle ? totals.system_bytes - idle : 0;
    return totals;
}

EXPORT struct mallinfo2 mallinfo2(void)
{
    struct heap_totals t = heap_totals_now();
    return (struct mallinfo2){
        .arena = t.system_bytes,
        .ordblks = t.free_count,
        .smblks = t.cached_count,
        .hblks = t.big_count,
        .hblkhd = t.big_bytes,
        .fsmblks = t.cached_bytes,
        .uordblks = t.live_bytes,
        .fordblks = t.free_bytes + t.cached_bytes,
        .keepcost = t.dirty_bytes,
    };
}

EXPORT struct mallinfo mallinfo(void)
{
    struct mallinfo2 m = mallinfo2();
    return (struct mallinfo){
        .arena = (int)m.arena,
        .ordblks = (int)m.ordblks,
        .smblks = (int)m.smblks,
        .hblks = (int)m.hblks,
        .hblkhd = (int)m.hblkhd,
        .fsmblks = (int)m.fsmblks,
        .uordblks = (int)m.uordblks,
        .fordblks = (int)m.fordblks,
        .keepcost = (int)m.keepcost,
    };
}

EXPORT int mallopt(int parameter, int value)
{
    (void)parameter;
    (void)value;
    return 1;
}

EXPORT int malloc_trim(size_t pad)
{
    (void)pad;
    if (!hm_hot.root)
        return 0;
    thread_cache_flush(false);
    while (stash_age(thread_id(), true))
        ;
    bool swept = sweep_all(thread_id()), dirty = hm_hot.root->dirty_units != 0;
    span_trim(thread_id(), true);
    return swept || dirty;
}

EXPORT void malloc_stats(void)
{
    struct heap_totals t = heap_totals_now();
    fprintf(stderr,
            "himalloc:\nsystem bytes     = %10zu\nin use bytes     = %10zu\n"
            "free bytes       = %10zu\ncached bytes     = %10zu\n"
            "mmapped regions  = %10zu\nmmapped bytes    = %10zu\n",
            t.system_bytes, t.live_bytes, t.free_bytes, t.cached_bytes, t.big_count, t.big_bytes);
}

static void info_arena(FILE *stream, uint32_t index)
{
    const struct hm_arena *arena = arena_at(index);
    static const char *const kinds[] = {"gone", "automatic", "named", "sampled", "ignored"};
    fprintf(stream, "<heap nr=\"%u\" kind=\"%s\">\n<sizes>\n", index,
            kinds[arena->kind <= HM_ARENA_IGNORED ? arena->kind : HM_ARENA_GONE]);
    for (uint32_t c = 1; c <= CLASS_COUNT; c++) {
        const struct hm_central *central = &arena->centrals[c];
        size_t n = central->free_count + central->stash_count, bytes = size_class_bytes(c);
        if (n)
            fprintf(stream, "<size from=\"%zu\" to=\"%zu\" total=\"%zu\" count=\"%zu\"/>\n",
                    size_class_bytes(c - 1) + 1, bytes, n * bytes, n);
    }
    fprintf(stream, "</sizes>\n</heap>\n");
}

EXPORT int malloc_info(int options, FILE *stream)
{
    if (options != 0)
        return 22; /* EINVAL, as glibc returns it */
    struct heap_totals t = heap_totals_now();
    fprintf(stream, "<malloc version=\"himalloc-1\">\n");
    for (uint32_t a = 0; hm_hot.root && a < hm_hot.root->arena_count; a++)
        if (arena_at(a)->kind != HM_ARENA_GONE)
            info_arena(stream, a);
    fprintf(stream,
            "<total type=\"fast\" count=\"%zu\" size=\"%zu\"/>\n"
            "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n"
            "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n"
            "<system type=\"current\" size=\"%zu\"/>\n</malloc>\n",
            t.cached_count, t.cached_bytes, t.free_count, t.free_bytes, t.big_count, t.big_bytes,
            t.system_bytes);
    return 0;
}
