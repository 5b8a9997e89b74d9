/* One walk over blocks into a hash table of (heap, stack, kind, size); see allocations.h. */
#include "analysis/allocations.h"

#include "analysis/chunk_list.h"

#include <math.h>

struct gathering {
    struct allocations *all;
    const struct inspection *in;
    uint32_t *slots; /* index + 1 */
    size_t slot_count;
    bool out_of_memory;
};

static bool same(const struct allocation *a, const struct allocation *b)
{
    return a->stack_id == b->stack_id && a->size == b->size && a->heap == b->heap &&
           a->kind == b->kind && a->is_sampled == b->is_sampled;
}

static size_t slot_for(const struct gathering *g, const struct allocation *wanted)
{
    uint64_t key = wanted->stack_id * UINT64_C(0x9e3779b97f4a7c15) ^
                   (wanted->size * 8 + wanted->heap) * UINT64_C(0xc2b2ae3d27d4eb4f);
    key = (key ^ key >> 29) * UINT64_C(0x165667b19e3779f9) + (uint64_t)wanted->kind;
    size_t mask = g->slot_count - 1, slot = (size_t)(key ^ key >> 32) & mask;
    while (g->slots[slot] && !same(&g->all->items.items[g->slots[slot] - 1], wanted))
        slot = (slot + 1) & mask;
    return slot;
}

static bool grow(struct gathering *g)
{
    size_t wanted = g->slot_count ? g->slot_count * 2 : 256;
    uint32_t *slots = calloc(wanted, sizeof *slots);
    if (!slots)
        return false;
    free(g->slots);
    g->slots = slots;
    g->slot_count = wanted;
    for (size_t i = 0; i < g->all->items.count; i++)
        slots[slot_for(g, &g->all->items.items[i])] = (uint32_t)i + 1;
    return true;
}

static bool gather(struct gathering *g, const struct allocation *wanted)
{
    if (g->all->items.count * 2 >= g->slot_count && !grow(g))
        return false;
    size_t slot = slot_for(g, wanted);
    if (!g->slots[slot]) {
        struct allocation *made = VECTOR_PUSH(&g->all->items);
        if (!made || g->all->items.count >= UINT32_MAX)
            return false;
        *made = *wanted;
        g->slots[slot] = (uint32_t)g->all->items.count;
    }
    struct allocation *item = &g->all->items.items[g->slots[slot] - 1];
    item->counted.blocks++;
    item->counted.bytes += wanted->size;
    return true;
}

static void add(struct blocks_total *total, uint64_t bytes)
{
    total->blocks++;
    total->bytes += bytes;
}

/* -- live ------------------------------------------------------------------------------------- */

static bool take_chunk(void *context, const struct chunk *chunk)
{
    struct gathering *g = context;
    struct allocation wanted = {.heap = (uint16_t)(chunk->heap - g->in->heaps->heaps),
                                .stack_id = chunk->stack_id,
                                .kind = MARK_NOT_LIVE,
                                .size = chunk->size,
                                .is_sampled = chunk->is_sampled && chunk->stack_id};
    add(!chunk->stack_id    ? &g->all->unknown
        : wanted.is_sampled ? &g->all->sampled
                            : &g->all->exact,
        chunk->size);
    g->out_of_memory = !gather(g, &wanted);
    return !g->out_of_memory;
}

static double weight_of(const struct allocations *all, const struct allocation *item)
{
    uint64_t bytes = item->size ? item->size : 1;
    if (!item->is_sampled || all->sample_bytes == 0)
        return 1;
    return 1 / -expm1(-(double)bytes / (double)all->sample_bytes);
}

/* What each stands for; drops what samples stand for. */
static void weigh(struct allocations *all)
{
    size_t kept = 0;
    for (size_t i = 0; i < all->items.count; i++) {
        struct allocation *item = &all->items.items[i];
        double weight = weight_of(all, item);
        if (all->sampled.blocks && !item->stack_id)
            continue;
        item->blocks = weight * (double)item->counted.blocks;
        item->bytes = weight * (double)item->counted.bytes;
        all->blocks += item->blocks;
        all->bytes += item->bytes;
        all->items.items[kept++] = *item;
    }
    all->items.count = kept;
}

static void find_period(struct allocations *all, const struct heaps *heaps)
{
    for (size_t i = 0; i < heaps->count && !all->sample_bytes; i++)
        all->sample_bytes = heaps->heaps[i].sample_bytes;
}

static enum hi_code finish(struct gathering *g, enum hi_code code, struct hi_err *err)
{
    free(g->slots);
    if (code == HI_OK && g->out_of_memory)
        code = hi_no_memory(err);
    if (code != HI_OK)
        allocations_free(g->all);
    else
        weigh(g->all);
    return code;
}

enum hi_code allocations_live(struct allocations *all, const struct inspection *in,
                              struct hi_err *err)
{
    struct gathering g = {.all = all, .in = in};
    struct chunk_filter live = {.states = 1u << BLOCK_LIVE | 1u << BLOCK_IN_FLIGHT,
                                .max_bytes = UINT64_MAX};
    struct chunk_counts counts;
    *all = (struct allocations){0};
    find_period(all, in->heaps);
    return finish(&g, chunk_list(in, &live, take_chunk, &g, &counts, err), err);
}

/* -- lost ------------------------------------------------------------------------------------- */

/* A group of leaks becomes an item: as many blocks of its average size. */
static bool take_group(struct allocations *all, const struct leak_group *group)
{
    struct allocation *item = VECTOR_PUSH(&all->items);
    struct blocks_total *known = group->stack_id ? &all->exact : &all->unknown;
    if (!item)
        return false;
    *item =
        (struct allocation){.heap = group->heap,
                            .stack_id = group->stack_id,
                            .kind = group->kind,
                            .size = group->own.blocks ? group->own.bytes / group->own.blocks : 0,
                            .counted = group->own};
    known->blocks += group->own.blocks;
    known->bytes += group->own.bytes;
    return true;
}

enum hi_code allocations_lost(struct allocations *all, const struct leaks *leaks,
                              struct hi_err *err)
{
    bool fine = true;
    *all = (struct allocations){0};
    for (size_t i = 0; fine && i < leaks->groups.count; i++)
        if (leaks->groups.items[i].kind == MARK_DIRECT)
            fine = take_group(all, &leaks->groups.items[i]);
    for (size_t i = 0; fine && i < leaks->hanging.count; i++)
        fine = take_group(all, &leaks->hanging.items[i]);
    if (!fine) {
        allocations_free(all);
        return hi_no_memory(err);
    }
    weigh(all);
    return HI_OK;
}

/* -- order ------------------------------------------------------------------------------------ */

static int stack_order(const void *a, const void *b)
{
    const struct allocation *x = a, *y = b;
    if (x->heap != y->heap)
        return x->heap < y->heap ? -1 : 1;
    return x->stack_id < y->stack_id ? -1 : x->stack_id > y->stack_id;
}

static int bytes_order(const void *a, const void *b)
{
    const struct allocation *x = a, *y = b;
    if (x->bytes < y->bytes || x->bytes > y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return stack_order(a, b);
}

static void join(struct allocation *to, const struct allocation *more)
{
    to->counted.blocks += more->counted.blocks;
    to->counted.bytes += more->counted.bytes;
    to->blocks += more->blocks;
    to->bytes += more->bytes;
    to->is_sampled |= more->is_sampled;
}

void allocations_by_stack(struct allocations *all)
{
    struct allocation *items = all->items.items;
    size_t last = 0;
    if (!all->items.count)
        return;
    qsort(items, all->items.count, sizeof *items, stack_order);
    for (size_t i = 1; i < all->items.count; i++) {
        if (stack_order(&items[i], &items[last]) == 0)
            join(&items[last], &items[i]);
        else
            items[++last] = items[i];
    }
    all->items.count = last + 1;
    for (size_t i = 0; i <= last; i++)
        items[i].size = 0;
    qsort(items, all->items.count, sizeof *items, bytes_order);
}

bool allocations_are_samples(const struct allocations *all)
{
    return all->sampled.blocks && !all->exact.blocks && all->sample_bytes;
}

void allocations_free(struct allocations *all)
{
    VECTOR_FREE(&all->items);
}
