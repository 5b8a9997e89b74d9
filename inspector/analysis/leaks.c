/*
 * Grouping lost blocks.
 *
 * The graph gives lost blocks in address order, which is the order of block indexes: indirect ones
 * name their leader, a direct block. Pass one puts each direct and possible block into a group
 * (a hash table of group indexes, keyed by kind, heap and stack or size) and remembers the groups
 * of direct blocks in a sorted array. Pass two finds each indirect block's leader there by binary
 * search, and groups it below its leader's group. Cost: 8 bytes a direct leak, and a group each for
 * what is different.
 *
 * The totals of reachable blocks are live less lost: the marks of the reachable ones are never
 * walked one by one.
 */
#include "analysis/leaks.h"

struct led {
    hi_block block;
    uint32_t group;
};

struct grouping {
    struct leaks *leaks;
    const struct inspection *in;
    uint32_t *slots;        /* group index + 1; 0: empty */
    size_t slot_count;      /* power of two */
    VECTOR(struct led) led; /* direct blocks, rising */
};

struct group_key {
    enum mark kind;
    uint16_t heap;
    uint32_t holder;
    uint64_t stack_id, size; /* size: 0 where a stack is known */
};

static uint64_t key_hash(const struct group_key *key)
{
    uint64_t h = key->size * UINT64_C(0x9e3779b97f4a7c15);
    h ^= (key->stack_id + key->heap) * UINT64_C(0xc2b2ae3d27d4eb4f) + (uint64_t)key->kind;
    h ^= key->holder * UINT64_C(0x165667b19e3779f9);
    h ^= h >> 32;
    h *= UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static struct group_key key_of(const struct leak_group *group)
{
    return (struct group_key){group->kind, group->heap, group->holder, group->stack_id,
                              group->stack_id ? 0 : group->size_min};
}

static bool key_same(const struct group_key *a, const struct group_key *b)
{
    return a->kind == b->kind && a->heap == b->heap && a->holder == b->holder &&
           a->stack_id == b->stack_id && a->size == b->size;
}

static size_t slot_for(const struct grouping *g, const struct group_key *key)
{
    size_t slot = key_hash(key) & (g->slot_count - 1);
    for (; g->slots[slot]; slot = (slot + 1) & (g->slot_count - 1)) {
        struct group_key other = key_of(&g->leaks->groups.items[g->slots[slot] - 1]);
        if (key_same(&other, key))
            break;
    }
    return slot;
}

static bool grow(struct grouping *g)
{
    size_t wanted = g->slot_count ? g->slot_count * 2 : 256;
    uint32_t *slots = calloc(wanted, sizeof *slots);
    if (!slots)
        return false;
    free(g->slots);
    g->slots = slots;
    g->slot_count = wanted;
    for (uint32_t i = 0; i < g->leaks->groups.count; i++) {
        struct group_key key = key_of(&g->leaks->groups.items[i]);
        slots[slot_for(g, &key)] = i + 1;
    }
    return true;
}

/* The group of key, made if need be. Index, or UINT32_MAX when memory is out. */
static uint32_t group_at(struct grouping *g, const struct group_key *key, uint64_t size)
{
    if (g->leaks->groups.count * 2 >= g->slot_count && !grow(g))
        return UINT32_MAX;
    size_t slot = slot_for(g, key);
    if (g->slots[slot])
        return g->slots[slot] - 1;
    struct leak_group *group = VECTOR_PUSH(&g->leaks->groups);
    if (!group)
        return UINT32_MAX;
    group->kind = key->kind;
    group->heap = key->heap;
    group->number = (uint32_t)g->leaks->groups.count;
    group->holder = key->holder;
    group->stack_id = key->stack_id;
    group->size_min = group->size_max = size;
    g->slots[slot] = (uint32_t)g->leaks->groups.count;
    return g->slots[slot] - 1;
}

static void add(struct blocks_total *total, uint64_t bytes)
{
    total->blocks++;
    total->bytes += bytes;
}

static void join(struct leak_group *group, hi_addr address, uint64_t size)
{
    add(&group->own, size);
    if (size < group->size_min)
        group->size_min = size;
    if (size > group->size_max)
        group->size_max = size;
    if (group->example_count < LEAK_EXAMPLES)
        group->examples[group->example_count++] = address;
}

static bool has_details(const struct heaps *heaps, const struct region *region)
{
    return region->heap < heaps->count && heaps->heaps[region->heap].reader->detail;
}

/* Put a block into its group, made if need be: the group's index, or UINT32_MAX. There may be
 * millions: the block is looked up once. */
static uint32_t take(struct grouping *g, const struct lost_block *lost, uint32_t holder,
                     struct blocks_total *total)
{
    struct block_cursor at = {0};
    if (!blocks_cursor_at(g->in->heaps->blocks, lost->block, &at))
        return UINT32_MAX;
    struct heap_detail detail = {0};
    if (has_details(g->in->heaps, at.region))
        detail = inspection_detail(g->in, lost->block);
    uint64_t size = detail.has_requested ? detail.requested : at.usable;
    struct group_key key = {.kind = lost->mark,
                            .heap = at.region->heap,
                            .holder = holder,
                            .stack_id = detail.stack_id,
                            .size = detail.stack_id ? 0 : size};
    uint32_t index = group_at(g, &key, size);
    add(total, size);
    if (index != UINT32_MAX)
        join(&g->leaks->groups.items[index], at.address, size);
    return index;
}

static enum hi_code take_own(struct grouping *g, const struct lost_block *lost, struct hi_err *err)
{
    struct leak_totals *totals = &g->leaks->totals;
    uint32_t index =
        take(g, lost, 0, lost->mark == MARK_DIRECT ? &totals->direct : &totals->possible);
    if (index == UINT32_MAX)
        return hi_no_memory(err);
    if (lost->mark != MARK_DIRECT)
        return HI_OK;
    struct led *led = VECTOR_PUSH(&g->led);
    if (!led)
        return hi_no_memory(err);
    *led = (struct led){lost->block, index};
    return HI_OK;
}

/* Its index, or UINT32_MAX. */
static uint32_t group_of_leader(const struct grouping *g, hi_block leader)
{
    size_t low = 0, high = g->led.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (g->led.items[middle].block < leader)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == g->led.count || g->led.items[low].block != leader)
        return UINT32_MAX;
    return g->led.items[low].group;
}

static enum hi_code take_indirect(struct grouping *g, const struct lost_block *lost,
                                  struct hi_err *err)
{
    struct blocks_total total = {0}, *all = &g->leaks->totals.indirect;
    uint32_t holder = group_of_leader(g, lost->leader);
    uint32_t number = holder == UINT32_MAX ? 0 : g->leaks->groups.items[holder].number;
    if (take(g, lost, number, &total) == UINT32_MAX)
        return hi_no_memory(err);
    all->blocks++;
    all->bytes += total.bytes;
    if (holder != UINT32_MAX)
        add(&g->leaks->groups.items[holder].indirect, total.bytes);
    return HI_OK;
}

/* What hangs off others goes into a list of its own. */
static enum hi_code split(struct leaks *leaks, struct hi_err *err)
{
    size_t own = 0;
    for (size_t i = 0; i < leaks->groups.count; i++) {
        if (leaks->groups.items[i].kind != MARK_INDIRECT) {
            leaks->groups.items[own++] = leaks->groups.items[i];
            continue;
        }
        struct leak_group *hanging = VECTOR_PUSH(&leaks->hanging);
        if (!hanging)
            return hi_no_memory(err);
        *hanging = leaks->groups.items[i];
    }
    leaks->groups.count = own;
    return HI_OK;
}

static int compare_groups(const void *a, const void *b)
{
    const struct leak_group *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind == MARK_DIRECT ? -1 : 1;
    uint64_t left = x->own.bytes + x->indirect.bytes, right = y->own.bytes + y->indirect.bytes;
    if (left != right)
        return left > right ? -1 : 1;
    return x->examples[0] < y->examples[0] ? -1 : x->examples[0] > y->examples[0];
}

static int compare_hanging(const void *a, const void *b)
{
    const struct leak_group *x = a, *y = b;
    if (x->holder != y->holder)
        return x->holder < y->holder ? -1 : 1;
    if (x->own.bytes != y->own.bytes)
        return x->own.bytes > y->own.bytes ? -1 : 1;
    return x->examples[0] < y->examples[0] ? -1 : x->examples[0] > y->examples[0];
}

static uint64_t less(uint64_t whole, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t part = a + b + c;
    return whole > part ? whole - part : 0;
}

static void count_reachable(struct leaks *leaks, const struct heaps *heaps)
{
    struct leak_totals *t = &leaks->totals;
    for (size_t h = 0; h < heaps->count; h++) {
        struct heap_totals totals = {0};
        heap_totals(heaps, h, &totals);
        t->live.blocks += totals.live.blocks;
        t->live.bytes += totals.live.bytes;
    }
    t->reachable.blocks =
        less(t->live.blocks, t->direct.blocks, t->indirect.blocks, t->possible.blocks);
    t->reachable.bytes = less(t->live.bytes, t->direct.bytes, t->indirect.bytes, t->possible.bytes);
}

enum hi_code leaks_find(struct leaks *leaks, const struct inspection *in, struct hi_err *err)
{
    struct grouping g = {.leaks = leaks, .in = in};
    enum hi_code code = HI_OK;
    size_t count = graph_lost_count(in->graph);
    memset(leaks, 0, sizeof *leaks);
    for (size_t i = 0; i < count && code == HI_OK; i++) {
        struct lost_block lost = graph_lost(in->graph, i);
        if (lost.mark == MARK_DIRECT || lost.mark == MARK_POSSIBLE)
            code = take_own(&g, &lost, err);
    }
    for (size_t i = 0; i < count && code == HI_OK; i++) {
        struct lost_block lost = graph_lost(in->graph, i);
        if (lost.mark == MARK_INDIRECT)
            code = take_indirect(&g, &lost, err);
    }
    if (code == HI_OK)
        code = split(leaks, err);
    count_reachable(leaks, in->heaps);
    if (leaks->groups.count)
        qsort(leaks->groups.items, leaks->groups.count, sizeof *leaks->groups.items,
              compare_groups);
    if (leaks->hanging.count)
        qsort(leaks->hanging.items, leaks->hanging.count, sizeof *leaks->hanging.items,
              compare_hanging);
    VECTOR_FREE(&g.led);
    free(g.slots);
    return code;
}

void leaks_free(struct leaks *leaks)
{
    VECTOR_FREE(&leaks->groups);
    VECTOR_FREE(&leaks->hanging);
}

size_t leaks_hanging_of(const struct leaks *leaks, const struct leak_group *group)
{
    size_t low = 0, high = leaks->hanging.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (leaks->hanging.items[middle].holder < group->number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
