/*
 * sweep: free pages inside of slabs go back to the system.
 *
 * A slab goes back as a whole when its last block comes home, but one block that is live, or lies
 * in the cache of a thread that sleeps, keeps it: of a million blocks freed in random order the
 * 6000 in a thread's own bins kept 63 % of the memory. So pages that lie wholly in free blocks of a
 * slab are given back one by one; the block in a bin then keeps its page, not 16 of them.
 *
 * Why it is safe. A block whose bit is set belongs to nobody, whatever list still names it, and
 * turns into somebody's only under the lock of its central, which is held meanwhile. Its contents
 * matter to no one: calloc clears blocks of slabs always. No word of the metadata changes, so the
 * heap is walkable at every instruction and the owners of the other blocks need not know. Units of
 * a slab leave it only under the same lock (arena_destroy takes it for that).
 *
 * Which slabs. One is "stirred" when blocks came home to it since it was swept; unit.stirred says
 * at which tick it was last given a block, or had one taken, 0: it is not. The helper
 * (background.c) sweeps what was left alone for some ticks: slabs in use are spared the
 * faults, and none is swept twice for nothing. malloc_trim sweeps all.
 *
 * One slab at a time, with one lock, which the helper only tries; the span lock is not touched. A
 * huge page that loses a part is split by the kernel.
 *
 * In a forked child the marks are as they were; the count may be off by the one slab that was being
 * swept, and is a hint. A record that the program wrote over is taken for a slab only as far as
 * class map and record agree, as everywhere.
 */
#include "sweep.h"

#include "lock.h"
#include "pages.h"
#include "size_class.h"
#include "slab.h"

enum {
    UNITS_EACH_TICK = 1 << 16, /* looked at: 4 GiB */
    STIRRED_LEAST = 16,        /* not worth a tick */
};

int32_t sweep_stirred_count;
uint16_t sweep_tick = 1;
static uint32_t cursor_range, cursor_unit; /* where the next tick begins */

/* ---- one slab ---- */

/* Whole pages in [from, to) of the slab. */
static bool bytes_discard(uint64_t start, uint64_t from, uint64_t to)
{
    size_t page = pages_page_bytes();
    uintptr_t first = round_up(start + from, page), end = (start + to) & ~(uint64_t)(page - 1);
    return first < end && pages_discard((void *)first, end - first);
}

/* The first block from `i` on whose bit is `set`, or `count`. */
static uint32_t bit_next(const uint64_t *bitmap, uint32_t i, uint32_t count, bool set)
{
    while (i < count) {
        uint64_t word = (set ? bitmap[i / 64] : ~bitmap[i / 64]) >> (i % 64);
        if (word)
            return (uint32_t)min_u64(i + (uint32_t)__builtin_ctzll(word), count);
        i = (i / 64 + 1) * 64;
    }
    return count;
}

/* With the central's lock. */
static bool slab_sweep(const struct hm_range *r, struct hm_unit *slab)
{
    const uint64_t *bitmap = (const uint64_t *)(uintptr_t)slab->bitmap;
    uint64_t start = r->base + ((uint64_t)slab->head << UNIT_SHIFT);
    uint64_t bytes = size_class_bytes(slab->class_index);
    uint32_t count = slab->block_count;
    bool any = false;
    for (uint32_t i = bit_next(bitmap, 0, count, true), end; i < count;
         i = bit_next(bitmap, end, count, true)) {
        end = bit_next(bitmap, i, count, false);
        /* behind the last block there is nothing */
        uint64_t to = end == count ? (uint64_t)slab->unit_count << UNIT_SHIFT : end * bytes;
        any |= bytes_discard(start, i * bytes, to);
    }
    sweep_forget(slab);
    return any;
}

/* The class of the slab that begins at the unit; 0: none does. The record is to be read after. */
static uint32_t class_at(const struct hm_range *r, uint32_t unit)
{
    uint32_t code = __atomic_load_n(range_codes(r) + unit, __ATOMIC_ACQUIRE);
    uint32_t class_index = code >= CODE_NAMED ? code - CODE_NAMED + 1 : code;
    return class_index <= CLASS_COUNT && range_units(r)[unit].head == unit ? class_index : 0;
}

static bool is_due(const struct hm_unit *slab, uint32_t age)
{
    return slab->stirred != 0 && (uint16_t)(sweep_tick - slab->stirred) >= age;
}

/* What is at the unit may be anything until the lock of the central that it names is held, and it
 * still names it. age 0: waits for the lock. */
static bool unit_sweep(const struct hm_range *r, uint32_t unit, uint32_t tid, uint32_t age)
{
    struct hm_unit *slab = range_units(r) + unit;
    uint32_t class_index = class_at(r, unit), arena = slab->arena;
    if (class_index == 0 || !is_due(slab, age) || arena >= hm_hot.root->arena_count)
        return false;
    struct hm_central *central = slab_central(arena, class_index);
    if (age ? !lock_try(&central->lock, tid) : !lock_acquire(&central->lock, tid))
        return false;
    bool any = class_at(r, unit) == class_index && slab->arena == arena && is_due(slab, age) &&
               slab_sweep(r, slab);
    lock_release(&central->lock);
    return any;
}

/* ---- all of them ---- */

bool sweep_age(uint32_t tid, uint32_t age, uint32_t most)
{
    uint32_t range = cursor_range, unit = cursor_unit, swept = 0;
    sweep_tick = sweep_tick == UINT16_MAX ? 1 : sweep_tick + 1;
    if (sweep_stirred_count <= 0)
        return false;
    for (uint32_t n = 0; n < UNITS_EACH_TICK && swept < most; n++, unit++) {
        if (unit < range_at(range)->top_index) {
            swept += unit_sweep(range_at(range), unit, tid, age);
        } else {
            unit = UINT32_MAX; /* the next one is 0 */
            range = (range + 1) % hm_hot.root->range_count;
            if (range == 0)
                n = UNITS_EACH_TICK;
        }
    }
    cursor_range = range;
    cursor_unit = unit;
    if (swept)
        span_keep_holes();
    return sweep_stirred_count > STIRRED_LEAST;
}

bool sweep_all(uint32_t tid)
{
    bool any = false;
    for (uint32_t i = 0; i < hm_hot.root->range_count; i++)
        for (uint32_t u = 0; u < range_at(i)->top_index; u++)
            any |= unit_sweep(range_at(i), u, tid, 0);
    if (any)
        span_keep_holes();
    return any;
}
