/*
 * large: blocks that are too long for slabs.
 *
 * A large block is a run of whole units; its first unit's record says what was asked for. A block
 * longer than a quarter of the first range, or for which no range has room, is "big": a mapping of
 * its own, an entry in the root's table. Every block starts at the start of a unit, or of a page of
 * a mapping.
 *
 * Growing is tried in place first (the units behind are free or virgin), then by moving pages to a
 * longer run without copying; short blocks are copied by the caller. The order of stores for each
 * step is in the format, section 5; all records are written under the span lock, entries of big
 * blocks under the registry lock. A big block's address is stored last and cleared first.
 */
#include "large.h"

#include "background.h"
#include "die.h"
#include "lock.h"
#include "pages.h"
#include "pocket.h"
#include "size_class.h"
#include "slab.h"
#include "thread_cache.h"

#include <string.h>

enum { MOVE_PAGES_FROM = 512 << 10 };

static struct hm_big *big_at(uint32_t index)
{
    return (struct hm_big *)(uintptr_t)hm_hot.root->bigs + index;
}

static uint32_t units_for(size_t bytes)
{
    return (uint32_t)((bytes + UNIT_BYTES - 1) >> UNIT_SHIFT);
}

/* ---- what is where ---- */

static struct hm_big *big_find(uintptr_t a)
{
    uint32_t count = hm_hot.root ? hm_hot.root->big_count : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct hm_big *big = big_at(i);
        if (big->address && a >= big->address && a - big->mapping_start < big->mapping_bytes)
            return big;
    }
    return NULL;
}

static void locate_large(struct hm_range *r, uint32_t unit, struct block_place *place)
{
    uint32_t place_unit = unit;
    const uint8_t *codes = range_codes(r);
    while (unit > 0 && codes[unit] == CODE_LARGE_REST)
        unit--;
    const struct hm_unit *head = range_units(r) + unit;
    if (codes[unit] != CODE_LARGE_HEAD || place_unit - unit >= head->unit_count)
        return;
    place->state = BLOCK_LARGE;
    place->start = r->base + ((uint64_t)unit << UNIT_SHIFT);
    place->bytes = head->usable_bytes;
    place->arena = head->arena;
}

static void locate_in_range(struct hm_range *r, const void *p, struct block_place *place)
{
    uint32_t unit = (uint32_t)(((uintptr_t)p - r->base) >> UNIT_SHIFT);
    uint8_t code = unit < r->top_index ? range_codes(r)[unit] : CODE_FREE;
    place->in_heap = true;
    if (code == CODE_LARGE_HEAD || code == CODE_LARGE_REST) {
        locate_large(r, unit, place);
    } else if (code != CODE_FREE && code != CODE_PURGING) {
        struct slab_place slab = slab_locate(r, p);
        if (slab.block_index >= slab_record(&slab)->block_count)
            return;
        place->state = BLOCK_SLAB;
        place->start = (uintptr_t)p - slab.offset;
        place->bytes = size_class_bytes(slab.class_index);
        place->arena = slab_record(&slab)->arena;
        place->class_index = slab.class_index;
        place->named = code >= CODE_NAMED;
    }
}

struct block_place block_locate(const void *p)
{
    struct block_place place = {.state = BLOCK_NONE};
    struct hm_range *r = range_find(p);
    struct hm_big *big;
    if (r) {
        locate_in_range(r, p, &place);
    } else if ((big = big_find((uintptr_t)p)) != NULL) {
        place.state = BLOCK_BIG;
        place.start = big->address;
        place.bytes = big->usable_bytes;
        place.arena = big->arena;
    }
    return place;
}

/* ---- runs of units ---- */

static void large_describe(const struct span *span, size_t bytes, uint32_t arena)
{
    struct hm_unit *head = range_units(span->range) + span->unit;
    head->head = span->unit;
    head->unit_count = span->count;
    head->arena = (uint16_t)arena;
    head->class_index = 0;
    head->block_count = 1;
    head->requested_bytes = bytes;
    head->usable_bytes = round_up(bytes, PAGE_BYTES);
    STORE_ORDER();
}

static void large_publish(const struct span *span, size_t bytes, uint32_t arena)
{
    uint8_t *codes = range_codes(span->range) + span->unit;
    large_describe(span, bytes, arena);
    if (span->count > 1)
        memset(codes + 1, CODE_LARGE_REST, span->count - 1);
    STORE_ORDER();
    codes[0] = CODE_LARGE_HEAD;
    STORE_ORDER();
    arena_at(arena)->large_units += span->count;
}

static void *span_start(const struct span *span)
{
    return (void *)(uintptr_t)(span->range->base + ((uint64_t)span->unit << UNIT_SHIFT));
}

/* Out of the thread's pocket, where all codes but the head's are right; NULL: it has none such. */
static void *pocket_malloc(size_t bytes, uint32_t room, uint32_t arena)
{
    struct hm_thread *t = thread_record();
    uint32_t units = units_for(bytes);
    struct span span;
    void *p = NULL;
    if (!t || t->pocket_held < units || arena_at(arena)->kind != HM_ARENA_AUTOMATIC ||
        !pocket_open(t))
        return NULL;
    if (pocket_take(t, units, units * room, &span)) {
        large_describe(&span, bytes, arena);
        t->large_units += units;
        range_codes(span.range)[span.unit] = CODE_LARGE_HEAD;
        p = span_start(&span);
    }
    pocket_close(t);
    return p;
}

static bool pocket_free(struct hm_range *r, uint32_t unit)
{
    struct hm_thread *t = hm_tls.record;
    struct hm_unit *head = range_units(r) + unit;
    uint32_t count = head->unit_count, arena = head->arena;
    if (!t || count > POCKET_LONGEST || arena_at(arena)->kind != HM_ARENA_AUTOMATIC ||
        !pocket_open(t))
        return false;
    range_codes(r)[unit] = CODE_LARGE_REST;
    STORE_ORDER();
    bool put = pocket_put(t, r, unit, count);
    if (put)
        t->large_units -= count;
    pocket_close(t);
    if (!put && span_lock(thread_id())) {
        arena_at(arena)->large_units -= count;
        span_give(r, unit, count);
        span_unlock();
        background_settle();
    }
    return true;
}

static void span_free(struct hm_range *r, uint32_t unit)
{
    if (!span_lock(thread_id()))
        return;
    bool live = range_codes(r)[unit] == CODE_LARGE_HEAD;
    if (live) {
        const struct hm_unit *head = range_units(r) + unit;
        arena_at(head->arena)->large_units -= head->unit_count;
        span_give(r, unit, head->unit_count);
    }
    span_unlock();
    if (UNLIKELY(!live))
        die_bad_free((void *)(uintptr_t)(r->base + ((uint64_t)unit << UNIT_SHIFT)));
    background_settle();
}

static void *span_malloc(size_t bytes, size_t alignment, uint32_t arena, bool *zero)
{
    uint32_t align = alignment > UNIT_BYTES ? (uint32_t)(alignment >> UNIT_SHIFT) : 1;
    struct span span;
    if (!span_lock(thread_id()))
        return NULL;
    pocket_empty();
    bool taken = span_take(units_for(bytes), align, &span);
    if (taken && ((span.range->base >> UNIT_SHIFT) & (align - 1))) {
        /* a later range that is aligned to less than the first one */
        span_give(span.range, span.unit, span.count);
        taken = false;
    } else if (taken) {
        large_publish(&span, bytes, arena);
    }
    span_unlock();
    background_settle();
    if (!taken)
        return NULL;
    *zero = span.zero;
    return span_start(&span);
}

/* ---- mappings of their own ---- */

static struct hm_big *big_entry(void)
{
    struct hm_root *root = hm_hot.root;
    for (uint32_t i = 0; i < root->big_count; i++)
        if (!big_at(i)->address && !big_at(i)->mapping_bytes)
            return big_at(i);
    return root->big_count < HM_BIG_CAPACITY ? big_at(root->big_count) : NULL;
}

/* With the lock held. */
static void big_publish(struct hm_big *big, const char *mapping, size_t mapping_bytes,
                        const char *start, size_t bytes, uint64_t arena)
{
    struct hm_root *root = hm_hot.root;
    big->mapping_start = (uintptr_t)mapping;
    big->mapping_bytes = mapping_bytes;
    big->requested_bytes = bytes;
    big->usable_bytes = round_up(bytes, PAGE_BYTES);
    big->arena = arena;
    big->stack = 0;
    STORE_ORDER();
    big->address = (uintptr_t)start;
    STORE_ORDER();
    if (big == big_at(root->big_count))
        __atomic_store_n(&root->big_count, root->big_count + 1, __ATOMIC_RELEASE);
}

static void *big_malloc(size_t bytes, size_t alignment, uint32_t arena)
{
    struct hm_root *root = hm_hot.root;
    size_t slack = alignment > PAGE_BYTES ? alignment : 0;
    size_t mapping_bytes = round_up(bytes, PAGE_BYTES) + slack;
    char *mapping = pages_map(mapping_bytes);
    if (!mapping)
        return NULL;
    struct hm_big *big = NULL;
    char *start = slack ? (char *)round_up((uintptr_t)mapping, alignment) : mapping;
    if (lock_acquire(&root->registry_lock, thread_id())) {
        if ((big = big_entry()) != NULL)
            big_publish(big, mapping, mapping_bytes, start, bytes, arena);
        lock_release(&root->registry_lock);
    }
    if (!big) {
        pages_unmap(mapping, mapping_bytes);
        return NULL;
    }
    return start;
}

static void big_free(struct hm_big *big)
{
    uint64_t start = big->mapping_start, bytes = big->mapping_bytes;
    __atomic_store_n(&big->address, 0, __ATOMIC_RELEASE);
    STORE_ORDER();
    __atomic_store_n(&big->mapping_bytes, 0, __ATOMIC_RELEASE);
    pages_unmap((void *)(uintptr_t)start, bytes);
}

void large_release_bigs(uint32_t arena, uint32_t tid)
{
    (void)tid;
    for (uint32_t i = 0; i < hm_hot.root->big_count; i++)
        if (big_at(i)->address && big_at(i)->arena == arena)
            big_free(big_at(i));
}

/* ---- both ---- */

void *large_malloc(size_t bytes, size_t alignment, uint32_t arena, bool *zero)
{
    *zero = false;
    bytes += bytes == 0;
    if (LIKELY(bytes <= (size_t)POCKET_LONGEST << UNIT_SHIFT && alignment <= UNIT_BYTES)) {
        void *own = pocket_malloc(bytes, 1, arena);
        if (own)
            return own;
    }
    if (bytes > PTRDIFF_MAX - UNIT_BYTES || alignment > (size_t)1 << 46 || !root_start())
        return NULL;
    void *p = NULL;
    uintptr_t base_alignment = hm_hot.base & -hm_hot.base;
    if (bytes <= hm_hot.bytes / 4 && alignment <= base_alignment)
        p = span_malloc(bytes, alignment, arena, zero);
    if (!p && bytes <= PTRDIFF_MAX - alignment - UNIT_BYTES) {
        p = big_malloc(bytes, alignment, arena);
        *zero = p != NULL;
    }
    return p;
}

void *large_malloc_to_grow(size_t bytes, uint32_t arena)
{
    struct span span;
    bool zero;
    void *p = bytes <= hm_hot.bytes / 4 ? pocket_malloc(bytes, GROWTH_ROOM, arena) : NULL;
    if (p)
        return p;
    if (bytes > hm_hot.bytes / 4 || !span_lock(thread_id()))
        return large_malloc(bytes, 16, arena, &zero);
    pocket_empty();
    bool taken = span_take_to_grow(units_for(bytes), &span);
    if (taken)
        large_publish(&span, bytes, arena);
    span_unlock();
    background_settle();
    return taken ? span_start(&span) : large_malloc(bytes, 16, arena, &zero);
}

bool large_free_own(const void *p)
{
    uint64_t offset = (uintptr_t)p - hm_hot.base;
    uint32_t unit = (uint32_t)(offset >> UNIT_SHIFT);
    const struct hm_unit *units = range_units(range_at(0));
    if (offset >= hm_hot.bytes || offset % UNIT_BYTES != 0 ||
        hm_hot.codes[unit] != CODE_LARGE_HEAD || hm_hot.root->remark_count != 0)
        return false;
    if (units[unit].marks & UNIT_NOTED)
        note_set_large(range_at(0), unit, NULL);
    return pocket_free(range_at(0), unit);
}

void large_free(void *p)
{
    struct block_place place = block_locate(p);
    if (UNLIKELY(place.start != (uintptr_t)p ||
                 (place.state != BLOCK_LARGE && place.state != BLOCK_BIG))) {
        die_bad_free(p);
        return;
    }
    if (place.state == BLOCK_BIG) {
        big_free(big_find((uintptr_t)p));
        return;
    }
    struct hm_range *r = range_find(p);
    uint32_t unit = (uint32_t)(((uintptr_t)p - r->base) >> UNIT_SHIFT);
    if (!pocket_free(r, unit))
        span_free(r, unit);
}

/* ---- resizing ---- */

static void large_set_bytes(struct hm_unit *head, size_t bytes)
{
    head->usable_bytes = round_up(bytes, PAGE_BYTES);
    STORE_ORDER();
    head->requested_bytes = bytes;
}

static void large_shrink(struct hm_range *r, struct hm_unit *head, uint32_t units, size_t bytes)
{
    uint32_t unit = head->head, had = head->unit_count;
    head->requested_bytes = bytes;
    STORE_ORDER();
    head->unit_count = units;
    STORE_ORDER();
    head->usable_bytes = round_up(bytes, PAGE_BYTES);
    STORE_ORDER();
    arena_at(head->arena)->large_units -= had - units;
    span_give(r, unit + units, had - units);
}

static bool pocket_grow(struct hm_range *r, uint32_t end, uint32_t extra)
{
    struct hm_thread *t = hm_tls.record;
    if (!t || !pocket_open(t))
        return false;
    bool taken = pocket_extend(t, r, end, extra);
    if (taken)
        t->large_units += extra;
    pocket_close(t);
    return taken;
}

static bool large_grow(struct hm_range *r, struct hm_unit *head, uint32_t units, size_t bytes)
{
    uint32_t unit = head->head, had = head->unit_count;
    bool zero, own = pocket_grow(r, unit + had, units - had);
    if (!own && !span_extend(r, unit + had, units - had, &zero))
        return false;
    memset(range_codes(r) + unit + had, CODE_LARGE_REST, units - had);
    STORE_ORDER();
    head->usable_bytes = round_up(bytes, PAGE_BYTES);
    head->unit_count = units;
    STORE_ORDER();
    head->requested_bytes = bytes;
    if (!own)
        arena_at(head->arena)->large_units += units - had;
    return true;
}

/* A longer run gets the pages; the old one is free and reads as zero. With the lock held. */
static void *large_move(struct hm_range *r, struct hm_unit *head, uint32_t units, size_t bytes)
{
    struct span span;
    uint32_t old_unit = head->head, old_count = head->unit_count, arena = head->arena;
    char *from = (char *)(uintptr_t)r->base + ((uint64_t)old_unit << UNIT_SHIFT);
    if (!span_take_to_grow(units, &span))
        return NULL;
    char *to = span_start(&span);
    /* published before its pages come: wherever we are stopped, the contents are in a live block */
    large_publish(&span, bytes, arena);
    if (!pages_move(from, (size_t)old_count << UNIT_SHIFT, to)) {
        arena_at(arena)->large_units -= units;
        span_give(span.range, span.unit, span.count);
        return NULL;
    }
    arena_at(arena)->large_units -= old_count;
    span_give(r, old_unit, old_count);
    span_note_zero(r, old_unit, old_count);
    return to;
}

static void *span_resize(void *p, size_t bytes)
{
    struct hm_range *r = range_find(p);
    struct hm_unit *head = range_units(r) + (((uintptr_t)p - r->base) >> UNIT_SHIFT);
    uint32_t units = units_for(bytes);
    void *result = p;
    if (!span_lock(thread_id()))
        return NULL;
    if (units == head->unit_count)
        large_set_bytes(head, bytes);
    else if (units < head->unit_count)
        large_shrink(r, head, units, bytes);
    else if (!large_grow(r, head, units, bytes))
        result = head->usable_bytes >= MOVE_PAGES_FROM ? large_move(r, head, units, bytes) : NULL;
    span_unlock();
    background_settle();
    return result;
}

/* In place. Stopped anywhere, the block fits its mapping. */
static void big_set_bytes(struct hm_big *big, size_t bytes, size_t mapping_bytes)
{
    bool grows = mapping_bytes > big->mapping_bytes;
    if (grows)
        big->mapping_bytes = mapping_bytes;
    else
        big->requested_bytes = bytes;
    STORE_ORDER();
    big->usable_bytes = mapping_bytes;
    STORE_ORDER();
    if (grows)
        big->requested_bytes = bytes;
    else
        big->mapping_bytes = mapping_bytes;
}

static void *big_resize(void *p, size_t bytes)
{
    struct hm_root *root = hm_hot.root;
    struct hm_big *big = big_find((uintptr_t)p);
    if (!big || big->address != big->mapping_start || bytes <= GROWN_SMALL_MAX ||
        !lock_acquire(&root->registry_lock, thread_id()))
        return NULL;
    size_t mapping_bytes = round_up(bytes, PAGE_BYTES);
    struct hm_big *spare = big_entry();
    void *moved = pages_resize(p, big->mapping_bytes, mapping_bytes, spare != NULL);
    if (moved == p) {
        big_set_bytes(big, bytes, mapping_bytes);
    } else if (moved && spare) {
        /* live at its new place before it is gone from the old one */
        big_publish(spare, moved, mapping_bytes, moved, bytes, big->arena);
        __atomic_store_n(&big->address, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&big->mapping_bytes, 0, __ATOMIC_RELEASE);
    }
    lock_release(&root->registry_lock);
    return moved;
}

void *large_resize(void *p, size_t bytes)
{
    struct block_place place = block_locate(p);
    if (place.state == BLOCK_BIG)
        return big_resize(p, bytes);
    if (place.state != BLOCK_LARGE || bytes <= GROWN_SMALL_MAX || bytes > hm_hot.bytes / 4)
        return NULL;
    return span_resize(p, bytes);
}

uint32_t large_set_note(const void *p, const struct block_note *values)
{
    struct hm_range *r = range_find(p);
    if (r)
        return note_set_large(r, (uint32_t)(((uintptr_t)p - r->base) >> UNIT_SHIFT), values);
    struct hm_big *big = big_find((uintptr_t)p);
    uint32_t before = big ? big->stack : 0;
    if (big)
        big->stack = values ? values->stack : 0;
    return before;
}
