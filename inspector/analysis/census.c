/* One walk over the live blocks into a hash table of groups; see census.h. */
#include "analysis/census.h"

struct counting {
    struct census *census;
    enum census_by by;
    uint32_t *slots; /* group index + 1 */
    size_t slot_count;
    bool out_of_memory;
};

static uint64_t key_of(const struct counting *c, const struct chunk *chunk)
{
    if (c->by == CENSUS_SIZE)
        return chunk->size;
    if (c->by == CENSUS_THREAD)
        return (uint64_t)chunk->thread;
    return (uint64_t)(uintptr_t)chunk->arena;
}

static size_t slot_for(const struct counting *c, uint64_t key)
{
    uint64_t hash = (key ^ key >> 29) * UINT64_C(0x9e3779b97f4a7c15);
    size_t slot = (hash >> 32) & (c->slot_count - 1);
    while (c->slots[slot] && c->census->groups.items[c->slots[slot] - 1].key != key)
        slot = (slot + 1) & (c->slot_count - 1);
    return slot;
}

static bool grow(struct counting *c)
{
    size_t wanted = c->slot_count ? c->slot_count * 2 : 256;
    uint32_t *slots = calloc(wanted, sizeof *slots);
    if (!slots)
        return false;
    free(c->slots);
    c->slots = slots;
    c->slot_count = wanted;
    for (uint32_t i = 0; i < c->census->groups.count; i++)
        slots[slot_for(c, c->census->groups.items[i].key)] = i + 1;
    return true;
}

static bool count_chunk(void *context, const struct chunk *chunk)
{
    struct counting *c = context;
    uint64_t key = key_of(c, chunk);
    if (c->census->groups.count * 2 >= c->slot_count && !grow(c)) {
        c->out_of_memory = true;
        return false;
    }
    size_t slot = slot_for(c, key);
    if (!c->slots[slot]) {
        struct census_group *made = VECTOR_PUSH(&c->census->groups);
        if (!made) {
            c->out_of_memory = true;
            return false;
        }
        *made = (struct census_group){.key = key, .arena = chunk->arena, .heap = chunk->heap};
        c->slots[slot] = (uint32_t)c->census->groups.count;
    }
    struct census_group *group = &c->census->groups.items[c->slots[slot] - 1];
    group->total.blocks++;
    group->total.bytes += chunk->size;
    c->census->all.blocks++;
    c->census->all.bytes += chunk->size;
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct census_group *x = a, *y = b;
    if (x->total.bytes != y->total.bytes)
        return x->total.bytes > y->total.bytes ? -1 : 1;
    return x->key < y->key ? -1 : x->key > y->key;
}

enum hi_code census_take(struct census *census, const struct inspection *in, enum census_by by,
                         struct hi_err *err)
{
    struct counting counting = {.census = census, .by = by};
    struct chunk_filter live = {.states = 1u << BLOCK_LIVE | 1u << BLOCK_IN_FLIGHT,
                                .max_bytes = UINT64_MAX};
    struct chunk_counts counts;
    memset(census, 0, sizeof *census);
    enum hi_code code = chunk_list(in, &live, count_chunk, &counting, &counts, err);
    free(counting.slots);
    if (code == HI_OK && counting.out_of_memory)
        code = hi_no_memory(err);
    if (code != HI_OK) {
        census_free(census);
        return code;
    }
    census->no_threads =
        by == CENSUS_THREAD && census->groups.count == 1 && census->groups.items[0].key == 0;
    if (census->groups.count)
        qsort(census->groups.items, census->groups.count, sizeof *census->groups.items, compare);
    return HI_OK;
}

void census_free(struct census *census)
{
    VECTOR_FREE(&census->groups);
}
