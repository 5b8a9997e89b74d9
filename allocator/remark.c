/*
 * remark: what the program said of an address.
 *
 * Remarks lie in one table, which is made with the first of them and filled from the front; those
 * that were taken back serve the next ones. They are found by address through chains that hang off
 * a table of fixed size: heads and links are the allocator's own, the reader looks at all entries.
 *
 * A remark on a block must not outlive it: the next block at that address would be ignored as well.
 * So who frees a block must know of it, and the fast path does not ask. Therefore the slab of a
 * block with a remark takes other codes in the class map, those of named arenas, which send free
 * the slow way for all of its blocks; UNIT_REMARKED then says that the table is to be asked. All
 * codes of a slab change by one store, as a slab whose units differ is none (format, section 3).
 *
 * The lock is held for the table alone; nothing is called with it but the commit of memory.
 */
#include "remark.h"

#include "large.h"
#include "lock.h"
#include "pages.h"
#include "slab.h"
#include "thread_cache.h"

#include <string.h>

enum { CAPACITY = 1 << 16, CHAINS = 4096 };

static uint32_t *next_of;                      /* by entry: entry + 1, 0 ends */
static uint32_t chains[CHAINS] LARGE_VARIABLE; /* first entry + 1 */
static uint32_t unused;                        /* chain of entries taken back */

static struct hm_remark *remark_at(uint32_t index)
{
    return (struct hm_remark *)(uintptr_t)hm_hot.root->remarks + index;
}

static uint32_t *chain_of(uintptr_t address)
{
    return &chains[(uint32_t)((address >> 4) * 0x9e3779b1u) >> 20];
}

/* ---- the table, locked ---- */

static bool table_make(void)
{
    struct hm_root *root = hm_hot.root;
    if (root->remarks)
        return true;
    size_t remark_bytes = round_up(CAPACITY * sizeof(struct hm_remark), PAGE_BYTES);
    char *memory = pages_map(remark_bytes + CAPACITY * sizeof(uint32_t));
    if (!memory)
        return false;
    next_of = (uint32_t *)(void *)(memory + remark_bytes);
    root->remark_capacity = CAPACITY;
    __atomic_store_n(&root->remarks, (uintptr_t)memory, __ATOMIC_RELEASE);
    return true;
}

static bool remark_is(const struct hm_remark *remark, uintptr_t address, uint32_t kind)
{
    return remark->kind == kind && remark->address == address;
}

/* The link that leads to it, or NULL. bytes are compared of roots alone. */
static uint32_t *table_find(uintptr_t address, uint32_t kind, uint64_t bytes)
{
    for (uint32_t *link = chain_of(address); *link; link = &next_of[*link - 1]) {
        const struct hm_remark *remark = remark_at(*link - 1);
        if (remark_is(remark, address, kind) && (kind != HM_REMARK_ROOT || remark->bytes == bytes))
            return link;
    }
    return NULL;
}

static void table_remove(uint32_t *link)
{
    uint32_t entry = *link;
    __atomic_store_n(&remark_at(entry - 1)->kind, HM_REMARK_NONE, __ATOMIC_RELEASE);
    *link = next_of[entry - 1];
    next_of[entry - 1] = unused;
    unused = entry;
}

static uint32_t table_take(void)
{
    struct hm_root *root = hm_hot.root;
    uint32_t entry = unused;
    if (entry)
        unused = next_of[entry - 1];
    else if (root->remark_count < CAPACITY)
        entry = root->remark_count + 1;
    return entry;
}

static bool table_add(const struct hm_remark *remark)
{
    struct hm_root *root = hm_hot.root;
    uint32_t entry = table_make() ? table_take() : 0;
    if (!entry)
        return false;
    struct hm_remark *to = remark_at(entry - 1);
    uint32_t *chain = chain_of(remark->address);
    to->address = remark->address;
    to->bytes = remark->bytes;
    memcpy(to->text, remark->text, sizeof(to->text));
    STORE_ORDER();
    to->kind = remark->kind;
    STORE_ORDER();
    if (entry > root->remark_count)
        root->remark_count = entry;
    next_of[entry - 1] = *chain;
    *chain = entry;
    return true;
}

/* In the place of one that says the same of the same. `remove`: nothing comes there. */
static enum remark_result table_store(const struct hm_remark *remark, bool remove)
{
    bool stored = true;
    if (!lock_acquire(&hm_hot.root->registry_lock, thread_id()))
        return REMARK_NO_ROOM;
    uint32_t *link = table_find(remark->address, remark->kind, remark->bytes);
    if (link)
        table_remove(link);
    if (!remove)
        stored = table_add(remark);
    lock_release(&hm_hot.root->registry_lock);
    return stored ? REMARK_DONE : REMARK_NO_ROOM;
}

/* ---- blocks ---- */

/* From now on frees of blocks of the slab go the slow way. */
static void slab_mark(const struct slab_place *place)
{
    struct hm_unit *slab = slab_record(place);
    uint8_t *codes = range_codes(place->range) + place->unit;
    uint8_t code = (uint8_t)(CODE_NAMED + place->class_index - 1);
    slab->marks |= UNIT_REMARKED;
    STORE_ORDER();
    if (slab->unit_count == 4)
        __atomic_store_n((uint32_t *)(void *)codes, code * 0x01010101u, __ATOMIC_RELEASE);
    else
        __atomic_store_n(codes, code, __ATOMIC_RELEASE);
}

/* Before the remark is made: a free that comes after it asks. */
static void block_mark(const struct block_place *place)
{
    const void *p = (const void *)place->start;
    struct hm_range *r = range_find(p);
    if (!r)
        return;
    if (place->state == BLOCK_SLAB) {
        struct slab_place slab = slab_locate(r, p);
        slab_mark(&slab);
    } else {
        range_units(r)[(place->start - r->base) >> UNIT_SHIFT].marks |= UNIT_REMARKED;
    }
}

enum remark_result remark_block(const void *p, enum hm_remark_kind kind, const char *text)
{
    struct block_place place = {.state = BLOCK_NONE};
    if (p && root_start())
        place = block_locate(p);
    if (place.state == BLOCK_NONE)
        return REMARK_NO_BLOCK;
    struct hm_remark remark = {.address = place.start, .bytes = place.bytes, .kind = kind};
    for (size_t i = 0; text && text[i] && i < sizeof(remark.text) - 1; i++)
        remark.text[i] = text[i];
    block_mark(&place);
    return table_store(&remark, kind == HM_REMARK_TAG && !text);
}

enum remark_result remark_root(const void *p, size_t bytes)
{
    struct hm_remark remark = {.address = (uintptr_t)p, .bytes = bytes, .kind = HM_REMARK_ROOT};
    return root_start() ? table_store(&remark, false) : REMARK_NO_ROOM;
}

bool remark_unroot(const void *p, size_t bytes)
{
    if (!hm_hot.root || !lock_acquire(&hm_hot.root->registry_lock, thread_id()))
        return false;
    uint32_t *link = table_find((uintptr_t)p, HM_REMARK_ROOT, bytes);
    if (link)
        table_remove(link);
    lock_release(&hm_hot.root->registry_lock);
    return link != NULL;
}

void remark_forget(const void *p)
{
    struct hm_root *root = hm_hot.root;
    if (root->remark_count == 0 || !lock_acquire(&root->registry_lock, thread_id()))
        return;
    for (uint32_t kind = HM_REMARK_IGNORE; kind <= HM_REMARK_TAG; kind++) {
        uint32_t *link = kind == HM_REMARK_ROOT ? NULL : table_find((uintptr_t)p, kind, 0);
        if (link)
            table_remove(link);
    }
    lock_release(&root->registry_lock);
}

void remark_forget_large(const void *p)
{
    struct hm_range *r = range_find(p);
    struct hm_unit *head = r ? range_units(r) + (((uintptr_t)p - r->base) >> UNIT_SHIFT) : NULL;
    if (head && !(head->marks & UNIT_REMARKED))
        return;
    if (head)
        head->marks &= (uint8_t)~UNIT_REMARKED;
    remark_forget(p);
}
