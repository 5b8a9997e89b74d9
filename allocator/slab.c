/*
 * slab: blocks of one size in one run of units, and the central state of each class of an arena.
 *
 * Terms. A block's truth is its bit in the slab's bitmap, out of line; set = free in the slab. A
 * block whose bit is clear is live, or cached in a stash, a thread's slot or a hand. A slab with at
 * least one set bit is "listed" in its central's partial list. free_count and the list are derived
 * from the bits and can be made anew (slab_rebuild_central).
 *
 * All under the central's lock; the span lock is taken inside it. The lock of a central protects
 * the bitmaps of the slabs of its arena and class, wherever their blocks may be cached.
 *
 * Fill takes from the first slab of the list until it is used up; slabs that get blocks back go to
 * the end of the list, so that the nearly empty ones have time to become empty. Blocks come home in
 * two steps: slab_give sets their bits while the caller still lists them elsewhere, then, when the
 * caller has let go of them, slab_release_spare returns the slabs that became empty (they wait at
 * the front of the list) to the spans, but for the last of its class with free blocks. In the other
 * order a slab could be made again, and its blocks be live, while an old list still had them.
 */
#include "slab.h"

#include "pocket.h"
#include "size_class.h"
#include "sweep.h"

#include <string.h>

/* ---- where is what ---- */

struct slab_place slab_locate(struct hm_range *r, const void *p)
{
    struct slab_place place = {.range = r, .range_index = (uint32_t)(r - range_at(0))};
    uint64_t offset = (uintptr_t)p - r->base;
    uint32_t unit = (uint32_t)(offset >> UNIT_SHIFT);
    uint8_t code = range_codes(r)[unit];
    place.class_index = code >= CODE_NAMED ? code - CODE_NAMED + 1u : code - CODE_SLAB + 1u;
    place.unit = range_units(r)[unit].head;
    uint64_t in_slab = offset - ((uint64_t)place.unit << UNIT_SHIFT);
    place.block_index = size_class_block_index(place.class_index, in_slab);
    place.offset = in_slab - place.block_index * size_class_bytes(place.class_index);
    place.is_block =
        place.offset == 0 && place.block_index < size_class_list[place.class_index].block_count;
    return place;
}

uint32_t slab_home(const void *p)
{
    struct hm_range *r = range_find(p);
    uint32_t unit = (uint32_t)(((uintptr_t)p - r->base) >> UNIT_SHIFT);
    return range_units(r)[range_units(r)[unit].head].arena;
}

static uint64_t *slab_bitmap(const struct hm_unit *slab)
{
    return (uint64_t *)(uintptr_t)slab->bitmap;
}

bool slab_is_free(const void *p)
{
    struct slab_place place = slab_locate(range_find(p), p);
    uint64_t word = slab_bitmap(slab_record(&place))[place.block_index / 64];
    return (word >> (place.block_index % 64)) & 1;
}

/* ---- the list of slabs with free blocks ---- */

static void list_remove(struct hm_central *central, struct hm_unit *slab)
{
    if (slab->prev)
        span_referred(slab->prev)->next = slab->next;
    else
        central->partial_first = slab->next;
    if (slab->next)
        span_referred(slab->next)->prev = slab->prev;
    else
        central->partial_last = slab->prev;
    slab->listed = 0;
}

static void list_append(struct hm_central *central, struct hm_unit *slab, uint64_t self)
{
    slab->next = 0;
    slab->prev = central->partial_last;
    if (slab->prev)
        span_referred(slab->prev)->next = self;
    else
        central->partial_first = self;
    central->partial_last = self;
    slab->listed = 1;
}

static void list_prepend(struct hm_central *central, struct hm_unit *slab, uint64_t self)
{
    slab->prev = 0;
    slab->next = central->partial_first;
    if (slab->next)
        span_referred(slab->next)->prev = self;
    else
        central->partial_last = self;
    central->partial_first = self;
    slab->listed = 1;
}

/* ---- making and releasing ---- */

static void bitmap_set_all(uint64_t *bitmap, uint32_t block_count)
{
    uint32_t words = block_count / 64;
    for (uint32_t i = 0; i < words; i++)
        bitmap[i] = ~0ULL;
    if (block_count % 64)
        bitmap[words] = (1ULL << (block_count % 64)) - 1;
}

/* Record and bitmap first, then the codes: the first unit's code makes it a slab. */
static void slab_publish(const struct span *span, uint32_t arena, uint32_t class_index)
{
    const struct hm_class *class = &size_class_list[class_index];
    struct hm_range *r = span->range;
    struct hm_unit *slab = range_units(r) + span->unit;
    uint64_t bitmap = range_bitmap(r, span->unit, class->block_count);
    for (uint32_t i = 0; i < span->count; i++)
        slab[i].head = span->unit;
    slab->unit_count = span->count;
    slab->arena = (uint16_t)arena;
    slab->class_index = (uint16_t)class_index;
    slab->block_count = (uint16_t) class->block_count;
    slab->free_count = class->block_count;
    slab->scan_index = 0;
    slab->listed = 0;
    slab->marks = 0;
    slab->stirred = 0;
    slab->bitmap = bitmap;
    bitmap_set_all(slab_bitmap(slab), class->block_count);
    uint32_t first = arena_at(arena)->kind == HM_ARENA_AUTOMATIC ? CODE_SLAB : CODE_NAMED;
    uint8_t *codes = range_codes(r) + span->unit;
    STORE_ORDER();
    for (uint32_t i = span->count; i-- > 0;) {
        codes[i] = (uint8_t)(first + class_index - 1);
        STORE_ORDER();
    }
}

static struct hm_unit *slab_make(uint32_t arena, uint32_t class_index, uint32_t tid)
{
    struct hm_central *central = slab_central(arena, class_index);
    uint32_t units = size_class_list[class_index].slab_units;
    struct span span;
    if (!span_lock(tid))
        return NULL;
    pocket_empty();
    bool taken = span_take(units, units, &span);
    if (taken)
        slab_publish(&span, arena, class_index);
    span_unlock();
    if (!taken)
        return NULL;
    struct hm_unit *slab = range_units(span.range) + span.unit;
    if (!span.zero)
        sweep_stir(slab);
    list_append(central, slab, span_reference(span.range_index, span.unit));
    central->slab_count++;
    central->free_count += slab->block_count;
    return slab;
}

static bool slab_release(struct hm_central *central, struct hm_range *r, struct hm_unit *slab,
                         uint32_t tid)
{
    if (!span_lock(tid))
        return false;
    note_forget_slab(r, slab);
    sweep_forget(slab);
    list_remove(central, slab);
    central->slab_count--;
    central->free_count -= slab->block_count;
    span_give(r, slab->head, slab->unit_count);
    span_unlock();
    return true;
}

/* ---- taking blocks ---- */

static uint64_t slab_base(uint64_t reference)
{
    return range_at((uint32_t)((reference - 1) >> 32))->base +
           ((uint64_t)(uint32_t)(reference - 1) << UNIT_SHIFT);
}

/* The lowest `want` set bits of a word. */
static uint64_t bits_lowest(uint64_t word, uint32_t want)
{
    if ((uint32_t)__builtin_popcountll(word) <= want)
        return word;
    uint64_t rest = word;
    while (want--)
        rest &= rest - 1;
    return word & ~rest;
}

/* Writes the addresses of the blocks that the bits stand for, ascending, below slots[low]. */
static uint32_t bits_to_slots(uint64_t bits, uint64_t first, uint64_t bytes, uint64_t *slots,
                              uint32_t low)
{
    uint32_t at = low - (uint32_t)__builtin_popcountll(bits), start = at;
    for (; bits; bits &= bits - 1)
        slots[at++] = first + (uint64_t)__builtin_ctzll(bits) * bytes;
    return start;
}

uint32_t slab_fill(uint32_t arena, uint32_t class_index, uint64_t *slots, uint32_t low,
                   uint32_t want, uint32_t *pend, uint32_t tid)
{
    struct hm_central *central = slab_central(arena, class_index);
    uint64_t bytes = size_class_bytes(class_index);
    uint32_t taken = 0;
    while (taken < want) {
        if (!central->partial_first && (taken > 0 || !slab_make(arena, class_index, tid)))
            break;
        struct hm_unit *slab = span_referred(central->partial_first);
        uint64_t *bitmap = slab_bitmap(slab);
        uint64_t base = slab_base(central->partial_first);
        uint32_t w = slab->scan_index;
        sweep_postpone(slab);
        for (; slab->free_count && taken < want; w++) {
            uint64_t bits = bits_lowest(bitmap[w], want - taken);
            if (!bits)
                continue;
            uint32_t n = (uint32_t)__builtin_popcountll(bits);
            low = bits_to_slots(bits, base + w * 64 * bytes, bytes, slots, low);
            STORE_ORDER();
            *pend = low;
            STORE_ORDER();
            bitmap[w] &= ~bits;
            STORE_ORDER();
            slab->free_count -= n;
            central->free_count -= n;
            taken += n;
            if (bitmap[w])
                break;
        }
        slab->scan_index = (uint16_t)w;
        if (slab->free_count == 0)
            list_remove(central, slab);
    }
    return taken;
}

/* Before its bit is cleared. Where notes are kept in every mode, an old one must not stay. */
static void take_note(uint64_t reference, const struct hm_unit *slab, uint32_t index,
                      const struct block_note *note)
{
    static const struct block_note nothing;
    const struct hm_range *r = range_at((uint32_t)((reference - 1) >> 32));
    if (r->notes && (note || hm_hot.tracing || arena_at(slab->arena)->kind != HM_ARENA_AUTOMATIC))
        note_set(note_at(r, slab->head, index), note ? note : &nothing);
}

void *slab_take_one(uint32_t arena, uint32_t class_index, uint32_t tid,
                    const struct block_note *note)
{
    struct hm_central *central = slab_central(arena, class_index);
    if (!central->partial_first && !slab_make(arena, class_index, tid))
        return NULL;
    struct hm_unit *slab = span_referred(central->partial_first);
    uint64_t base = slab_base(central->partial_first);
    uint64_t *bitmap = slab_bitmap(slab);
    uint32_t w = slab->scan_index;
    while (!bitmap[w])
        w++;
    uint32_t index = w * 64 + (uint32_t)__builtin_ctzll(bitmap[w]);
    take_note(central->partial_first, slab, index, note);
    STORE_ORDER();
    bitmap[w] &= bitmap[w] - 1;
    STORE_ORDER();
    slab->scan_index = (uint16_t)w;
    sweep_postpone(slab);
    slab->free_count--;
    central->free_count--;
    if (slab->free_count == 0)
        list_remove(central, slab);
    return (void *)(uintptr_t)(base + (uint64_t)index * size_class_bytes(class_index));
}

/* ---- blocks coming home ---- */

/* After `count` bits were set. An empty slab goes to the front, where slab_release_spare looks. */
static void slab_gained(struct hm_central *central, struct hm_unit *slab, uint64_t reference,
                        uint32_t count)
{
    slab->free_count += count;
    central->free_count += count;
    sweep_stir(slab);
    if (slab->free_count == slab->block_count) {
        if (slab->listed)
            list_remove(central, slab);
        list_prepend(central, slab, reference);
    } else if (!slab->listed) {
        list_append(central, slab, reference);
    }
}

/* How many of the blocks stand one behind the other, as blocks mostly do that are freed in the
 * order of their making, or in the opposite one (then *down); at most `up` or `down_most` of them.
 */
static uint32_t run_length(const uint64_t *blocks, uint32_t count, uint64_t bytes, uint32_t up,
                           uint32_t down_most, bool *down)
{
    uint32_t n = 1;
    *down = count > 1 && blocks[1] == blocks[0] - bytes;
    uint64_t step = *down ? 0 - bytes : bytes, next = blocks[0] + step;
    uint32_t most = *down ? down_most : up;
    most = count < most ? count : most;
    for (; n < most && blocks[n] == next; next += step)
        n++;
    return n;
}

/* The bits of blocks[0..] that share a word with the first one; *n: how many blocks those are. A
 * block that is none, or whose bit is set already, is *bad. A run of neighbours is taken at once:
 * that halves the cost of blocks that come home in batches. */
static uint64_t word_gather(const struct hm_unit *slab, const struct slab_place *place,
                            const uint64_t *blocks, uint32_t count, uint32_t *n, const void **bad)
{
    uint64_t bytes = size_class_bytes(place->class_index);
    uint64_t base = place->range->base + ((uint64_t)place->unit << UNIT_SHIFT);
    uint32_t word = place->block_index / 64, i = 0;
    uint64_t set = slab_bitmap(slab)[word], bits = 0;
    while (i < count) {
        uint64_t offset = blocks[i] - base;
        if (offset >= (uint64_t)slab->unit_count << UNIT_SHIFT)
            break;
        uint32_t index = size_class_block_index(place->class_index, offset), bit = index % 64;
        if (index / 64 != word)
            break;
        uint32_t behind = slab->block_count - index;
        bool down, is_block = index * bytes == offset && index < slab->block_count;
        uint32_t up = behind < 64 - bit ? behind : 64 - bit;
        uint32_t length = run_length(blocks + i, count - i, bytes, up, bit + 1, &down);
        uint64_t mask = (~0ULL >> (64 - length)) << (down ? bit - (length - 1) : bit);
        if (UNLIKELY(!is_block || (set & mask))) {
            uint64_t in_word = is_block ? (uint64_t)__builtin_ctzll(set & mask) - bit : 0;
            *bad = (const void *)(uintptr_t)(blocks[i] + in_word * bytes);
            break;
        }
        bits |= mask;
        set |= mask;
        i += length;
    }
    *n = i;
    return bits;
}

const void *slab_give(struct hm_central *central, const uint64_t *blocks, uint32_t count)
{
    const void *bad = NULL;
    for (uint32_t i = 0, n; i < count && !bad; i += n) {
        const void *p = (const void *)(uintptr_t)blocks[i];
        struct slab_place place = slab_locate(range_find(p), p);
        struct hm_unit *slab = slab_record(&place);
        uint64_t bits = word_gather(slab, &place, blocks + i, count - i, &n, &bad);
        uint32_t word = place.block_index / 64;
        STORE_ORDER();
        slab_bitmap(slab)[word] |= bits;
        STORE_ORDER();
        if (word < slab->scan_index)
            slab->scan_index = (uint16_t)word;
        slab_gained(central, slab, span_reference(place.range_index, place.unit), n);
    }
    return bad;
}

void slab_release_spare(struct hm_central *central, uint32_t tid, bool last)
{
    while (central->partial_first && (last || central->partial_first != central->partial_last)) {
        uint64_t reference = central->partial_first;
        struct hm_unit *slab = span_referred(reference);
        if (slab->free_count != slab->block_count ||
            !slab_release(central, range_at((uint32_t)((reference - 1) >> 32)), slab, tid))
            return;
    }
}

/* ---- a forked child puts things right ---- */

void slab_recover(const void *p)
{
    struct hm_range *r = range_find(p);
    if (!r)
        return;
    uint8_t code = range_codes(r)[((uintptr_t)p - r->base) >> UNIT_SHIFT];
    bool automatic = code >= CODE_SLAB && code < CODE_SLAB + CLASS_COUNT;
    if (!automatic && (code < CODE_NAMED || code >= CODE_NAMED + CLASS_COUNT))
        return;
    struct slab_place place = slab_locate(r, p);
    if (place.is_block)
        slab_bitmap(slab_record(&place))[place.block_index / 64] |= 1ULL
                                                                    << (place.block_index % 64);
}

static void slab_relist(struct hm_central *central, struct hm_unit *slab, uint64_t reference)
{
    uint32_t free_count = 0;
    for (uint32_t w = 0; w * 64 < slab->block_count; w++)
        free_count += (uint32_t)__builtin_popcountll(slab_bitmap(slab)[w]);
    slab->free_count = free_count;
    slab->scan_index = 0;
    slab->listed = 0;
    central->slab_count++;
    central->free_count += free_count;
    if (free_count)
        list_append(central, slab, reference);
}

static void central_reset(struct hm_central *central)
{
    const uint64_t *stash = (const uint64_t *)(uintptr_t)central->stash;
    for (uint32_t i = 0; i < central->stash_count; i++)
        slab_recover((const void *)(uintptr_t)stash[i]);
    STORE_ORDER();
    central->stash_count = 0;
    central->partial_first = central->partial_last = 0;
    central->slab_count = central->free_count = 0;
}

static void range_relist(struct hm_range *r, uint32_t range_index)
{
    for (uint32_t u = 0; u < r->top_index; u++) {
        struct hm_unit *slab = range_units(r) + u;
        uint32_t code = range_codes(r)[u];
        uint32_t class_index = code >= CODE_NAMED ? code - CODE_NAMED + 1 : code;
        if (code == CODE_FREE || class_index > CLASS_COUNT || slab->head != u)
            continue;
        struct hm_central *central = slab_central(slab->arena, class_index);
        if (central->lock == 0)
            slab_relist(central, slab, span_reference(range_index, u));
    }
}

void slab_rebuild(void)
{
    struct hm_root *root = hm_hot.root;
    for (uint32_t a = 0; a < root->arena_count; a++)
        for (uint32_t c = 1; c <= CLASS_COUNT; c++)
            if (slab_central(a, c)->lock == 0)
                central_reset(slab_central(a, c));
    for (uint32_t i = 0; i < root->range_count; i++)
        range_relist(range_at(i), i);
}
