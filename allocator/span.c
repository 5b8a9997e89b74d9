/*
 * span: runs of whole units (64 KiB) of the ranges.
 *
 * Terms. Below range.top_index every unit is in use (slab or large block) or free; beyond it all
 * is virgin. Free units form runs, as long as can be; a run's first record holds unit_count and
 * the links of its list, its last record's head names the first one. Lists are by length: one for
 * each count below 64, then one for each quarter of a power of two. A free unit is dirty when its
 * age is not 0: its pages may hold old contents and cost memory; else they read as zero.
 *
 * Truth is the class map: the lists can be rebuilt from it at any time (span_rebuild), which is
 * what a forked child does when the lock's owner did not come along. Therefore the codes of a slab
 * or large block are written by the caller before the lock is let go, and are made free only under
 * it. A run whose pages are being given back is taken out of the lists and coded code_purging, so
 * that the lock is not held over the system call.
 *
 * Which run is taken: the shortest list that can hold it, and in it one that is dirty rather than
 * virgin memory, as it costs nothing to use again; but a block that grows by realloc moves to the
 * shortest run with room for four times its length, where it can go on growing in place: a buffer
 * of 400 KB that grows by halves in a fragmented heap is copied in full once instead of six times.
 * Memory is given back at once when dirty memory is over the budget, and by age (background.c). The
 * budget is a quarter of what is in use, but at least a floor: 1 MiB, twice the budget (to 16 MiB
 * or half of what is in use) whenever clean units are taken soon after others were given back,
 * halved at each tick. Huge pages are asked for only where the heap grows for slabs and short
 * blocks while more than 32 MiB are in use: a small program must not pay 2 MiB for its last block,
 * nor a sparse table for what is never touched. Once the heap has holes, made by age or by sweeps,
 * that wish is taken back for all below top_index: the kernel's khugepaged would fill each hole up
 * again that shares 2 MiB with one page in use.
 *
 * Damaged records are not searched for here: they are written under the lock by this file alone.
 */
#include "span.h"

#include "lock.h"
#include "note.h"
#include "pages.h"

#include <string.h>

enum {
    EXACT_BINS = 64,
    BIN_COUNT = 192,
    SEARCH_LIMIT = 64,
    COMMIT_STEP = (4 << 20) / UNIT_BYTES,
    FLOOR_LEAST = SPAN_DIRTY_LEAST,
    FLOOR_MOST = (16 << 20) / UNIT_BYTES,
    HUGE_FROM = (32 << 20) / UNIT_BYTES,
    HUGE_MOST = (2 << 20) / UNIT_BYTES, /* longer runs may be touched here and there only */
};

static uint64_t bin_first[BIN_COUNT] LARGE_VARIABLE;
static uint64_t bin_filled[BIN_COUNT / 64];
static uint8_t now_age = 1;
static uint32_t budget_floor = FLOOR_LEAST; /* units */
static uint32_t purged_lately;              /* units given back for the budget's sake */
static uint64_t
    huge_from[HM_RANGE_CAPACITY] LARGE_VARIABLE; /* units with huge pages lie behind it */

bool span_lock(uint32_t tid)
{
    return lock_acquire(&hm_hot.root->span_lock, tid);
}

void span_unlock(void)
{
    lock_release(&hm_hot.root->span_lock);
}

/* ---- lists ---- */

static uint32_t bin_of(uint32_t count)
{
    if (count < EXACT_BINS)
        return count;
    uint32_t log = 31 - (uint32_t)__builtin_clz(count);
    return EXACT_BINS + (log - 6) * 4 + ((count >> (log - 2)) & 3);
}

static void run_insert(struct hm_range *r, uint32_t unit, uint32_t count)
{
    struct hm_unit *first = range_units(r) + unit;
    uint32_t bin = bin_of(count);
    uint64_t self = span_reference((uint32_t)(r - range_at(0)), unit);
    first->head = unit;
    first->unit_count = count;
    first[count - 1].head = unit;
    first->prev = 0;
    first->next = bin_first[bin];
    if (first->next)
        span_referred(first->next)->prev = self;
    bin_first[bin] = self;
    bin_filled[bin / 64] |= 1ULL << (bin % 64);
}

static void run_remove(struct hm_range *r, uint32_t unit)
{
    struct hm_unit *first = range_units(r) + unit;
    uint32_t bin = bin_of(first->unit_count);
    if (first->prev)
        span_referred(first->prev)->next = first->next;
    else
        bin_first[bin] = first->next;
    if (first->next)
        span_referred(first->next)->prev = first->prev;
    if (!bin_first[bin])
        bin_filled[bin / 64] &= ~(1ULL << (bin % 64));
}

static uint32_t bin_next_filled(uint32_t bin)
{
    while (bin < BIN_COUNT) {
        uint64_t word = bin_filled[bin / 64] >> (bin % 64);
        if (word)
            return bin + (uint32_t)__builtin_ctzll(word);
        bin = (bin / 64 + 1) * 64;
    }
    return BIN_COUNT;
}

/* Makes [unit, unit + count) a free run together with its free neighbours: its first unit. */
static uint32_t run_join(struct hm_range *r, uint32_t unit, uint32_t count)
{
    const uint8_t *codes = range_codes(r);
    if (unit > 0 && codes[unit - 1] == CODE_FREE) {
        uint32_t before = range_units(r)[unit - 1].head;
        run_remove(r, before);
        count += unit - before;
        unit = before;
    }
    if (unit + count < r->top_index && codes[unit + count] == CODE_FREE) {
        uint32_t after = unit + count;
        run_remove(r, after);
        count += range_units(r)[after].unit_count;
    }
    run_insert(r, unit, count);
    return unit;
}

/* ---- taking ---- */

static uint32_t dirty_in(const uint8_t *ages, uint32_t count)
{
    uint32_t dirty = 0;
    for (uint32_t i = 0; i < count; i++)
        dirty += ages[i] != 0;
    return dirty;
}

/* The units leave the free ones: says whether they were zero. What is known of virgin ones needs
 * no look at their ages, whose page was perhaps never touched. */
static bool units_leave(struct hm_range *r, uint32_t unit, uint32_t count, uint32_t virgin)
{
    uint8_t *ages = range_ages(r) + unit;
    uint32_t dirty = dirty_in(ages, count - virgin);
    if (dirty)
        memset(ages, 0, count - virgin);
    hm_hot.root->dirty_units -= dirty;
    hm_hot.root->free_units -= count;
    return dirty == 0;
}

uint64_t span_used_units(void)
{
    uint64_t top = 0;
    for (uint32_t i = 0; i < hm_hot.root->range_count; i++)
        top += range_at(i)->top_index;
    return top - min_u64(top, hm_hot.root->free_units);
}

static uint64_t budget_units(void)
{
    uint64_t quarter = span_used_units() / 4;
    return quarter > budget_floor ? quarter : budget_floor;
}

/* What was given back is missed: twice the budget, at most 16 MiB or half of what is in use. */
static void budget_raise(void)
{
    uint64_t half = span_used_units() / 2, most = half > FLOOR_MOST ? half : FLOOR_MOST;
    budget_floor = (uint32_t)min_u64(budget_units() * 2, most);
}

/* Units are taken; ones that would be dirty, had they not just been given back, were given back too
 * soon. */
static bool units_use(struct hm_range *r, uint32_t unit, uint32_t count, uint32_t virgin)
{
    bool zero = units_leave(r, unit, count, virgin);
    if (zero && purged_lately) {
        purged_lately -= count < purged_lately ? count : purged_lately;
        budget_raise();
    }
    return zero;
}

/* Where in the run an aligned piece would start, or UINT32_MAX. */
static uint32_t run_fit(const struct hm_unit *run, uint32_t count, uint32_t align)
{
    uint32_t start = (run->head + align - 1) & ~(align - 1);
    return start - run->head + count <= run->unit_count ? start : UINT32_MAX;
}

static bool take_from_run(uint64_t reference, uint32_t count, uint32_t align, struct span *span)
{
    struct hm_unit *run = span_referred(reference);
    uint32_t start = run_fit(run, count, align);
    if (start == UINT32_MAX)
        return false;
    span->range_index = (uint32_t)((reference - 1) >> 32);
    span->range = range_at(span->range_index);
    span->unit = start;
    span->count = count;
    uint32_t first = run->head, length = run->unit_count;
    run_remove(span->range, first);
    if (start > first)
        run_insert(span->range, first, start - first);
    if (start + count < first + length)
        run_insert(span->range, start + count, first + length - start - count);
    span->zero = units_use(span->range, start, count, 0);
    return true;
}

static bool take_listed(uint32_t count, uint32_t align, struct span *span)
{
    for (uint32_t bin = bin_next_filled(bin_of(count)); bin < BIN_COUNT;
         bin = bin_next_filled(bin + 1)) {
        uint64_t reference = bin_first[bin];
        for (int i = 0; reference && i < SEARCH_LIMIT; i++) {
            if (take_from_run(reference, count, align, span))
                return true;
            reference = span_referred(reference)->next;
        }
    }
    return false;
}

/* Makes units below `end` usable: records described, memory readable and writable. */
static bool range_commit(struct hm_range *r, uint64_t end, bool huge)
{
    if (!root_describe_units(r, end) || !note_commit(r, end))
        return false;
    if (end <= r->committed_units)
        return true;
    uint64_t step = r->committed_units / 8 > COMMIT_STEP ? r->committed_units / 8 : COMMIT_STEP;
    uint64_t wish = round_up(r->committed_units + step, COMMIT_STEP);
    wish = min_u64(wish < end ? round_up(end, COMMIT_STEP) : wish, r->unit_count);
    char *start = (char *)(uintptr_t)r->base + (r->committed_units << UNIT_SHIFT);
    if (!pages_commit(start, (wish - r->committed_units) << UNIT_SHIFT)) {
        wish = end;
        if (!pages_commit(start, (wish - r->committed_units) << UNIT_SHIFT))
            return false;
    }
    if (huge && span_used_units() >= HUGE_FROM)
        pages_prefer_huge(start, (wish - r->committed_units) << UNIT_SHIFT, true);
    r->committed_units = wish;
    return true;
}

/* From the free run that ends where virgin units begin, and as many of these as it takes. */
static bool take_virgin(uint32_t range_index, uint32_t count, uint32_t align, struct span *span)
{
    struct hm_range *r = range_at(range_index);
    uint32_t top = (uint32_t)r->top_index, from = top;
    if (top > 0 && range_codes(r)[top - 1] == CODE_FREE)
        from = range_units(r)[top - 1].head;
    uint64_t start = ((uint64_t)from + align - 1) & ~((uint64_t)align - 1);
    if (start + count > r->unit_count || !range_commit(r, start + count, count < HUGE_MOST))
        return false;
    if (from < top)
        run_remove(r, from);
    uint64_t new_top = start + count > top ? start + count : top;
    hm_hot.root->free_units += new_top - top;
    r->top_index = new_top;
    if (start > from)
        run_insert(r, from, (uint32_t)start - from);
    if (start + count < top)
        run_insert(r, (uint32_t)start + count, (uint32_t)(top - start - count));
    *span = (struct span){r, range_index, (uint32_t)start, count, false};
    uint64_t virgin = new_top - (start > top ? start : top);
    span->zero = units_use(r, (uint32_t)start, count, (uint32_t)virgin);
    return true;
}

static bool take_any_virgin(uint32_t count, uint32_t align, struct span *span)
{
    for (uint32_t i = 0; i < hm_hot.root->range_count; i++)
        if (take_virgin(i, count, align, span))
            return true;
    return false;
}

bool span_take(uint32_t count, uint32_t align, struct span *span)
{
    if (take_listed(count, align, span) || take_any_virgin(count, align, span))
        return true;
    if (!root_add_range((uint64_t)count + align))
        return false;
    return take_virgin(hm_hot.root->range_count - 1, count, align, span);
}

/* The shortest run with room for some more growth. */
static bool take_with_room(uint32_t count, struct span *span)
{
    for (uint32_t bin = bin_next_filled(bin_of(count * GROWTH_ROOM)); bin < BIN_COUNT;
         bin = bin_next_filled(bin + 1))
        if (take_from_run(bin_first[bin], count, 1, span))
            return true;
    return false;
}

bool span_take_to_grow(uint32_t count, struct span *span)
{
    return take_with_room(count, span) || span_take(count, 1, span);
}

bool span_extend(struct hm_range *r, uint32_t end, uint32_t extra, bool *zero)
{
    uint32_t free_count = 0;
    if (end < r->top_index) {
        if (range_codes(r)[end] != CODE_FREE)
            return false;
        free_count = range_units(r)[end].unit_count;
        if (free_count < extra && end + free_count < r->top_index)
            return false;
    }
    if (free_count < extra) {
        uint64_t top = (uint64_t)end + extra;
        if (top > r->unit_count || !range_commit(r, top, false))
            return false;
        hm_hot.root->free_units += top - r->top_index;
        r->top_index = top;
    }
    if (free_count)
        run_remove(r, end);
    if (free_count > extra)
        run_insert(r, end + extra, free_count - extra);
    *zero = units_use(r, end, extra, 0);
    return true;
}

/* ---- giving ---- */

static void codes_free(struct hm_range *r, uint32_t unit, uint32_t count)
{
    uint8_t *codes = range_codes(r) + unit;
    codes[0] = CODE_FREE;
    STORE_ORDER();
    if (count > 1)
        memset(codes + 1, CODE_FREE, count - 1);
    STORE_ORDER();
}

void span_give(struct hm_range *r, uint32_t unit, uint32_t count)
{
    codes_free(r, unit, count);
    memset(range_ages(r) + unit, now_age, count);
    hm_hot.root->dirty_units += count;
    hm_hot.root->free_units += count;
    run_join(r, unit, count);
}

void span_note_zero(struct hm_range *r, uint32_t unit, uint32_t count)
{
    uint8_t *ages = range_ages(r) + unit;
    hm_hot.root->dirty_units -= dirty_in(ages, count);
    memset(ages, 0, count);
}

/* Codes that a thread which did not come along left behind (section 5 of the format): units of a
 * block or slab whose first unit was not yet, or is no longer, theirs; and units of pockets. */
static void codes_settle(struct hm_range *r, bool in_hand)
{
    uint8_t *codes = range_codes(r);
    const struct hm_unit *units = range_units(r);
    uint64_t covered = 0; /* end of the large block last seen */
    for (uint64_t u = 0; u < r->top_index; u++) {
        if (codes[u] == CODE_LARGE_HEAD)
            covered = u + units[u].unit_count;
        else if (codes[u] == CODE_PURGING ||
                 (codes[u] == CODE_LARGE_REST && u >= covered && !in_hand))
            codes[u] = CODE_FREE;
        else if (codes[u] < CODE_LARGE_HEAD && codes[units[u].head] != codes[u])
            codes[u] = CODE_FREE;
    }
}

static void range_rebuild(struct hm_range *r, bool in_hand)
{
    uint8_t *codes = range_codes(r);
    codes_settle(r, in_hand);
    for (uint32_t u = 0; u < r->top_index;) {
        uint32_t end = u;
        while (end < r->top_index && codes[end] == CODE_FREE)
            end++;
        if (end > u) {
            memset(range_ages(r) + u, now_age, end - u);
            run_insert(r, u, end - u);
            hm_hot.root->free_units += end - u;
            hm_hot.root->dirty_units += end - u;
        }
        u = end > u ? end : u + 1;
    }
}

void span_rebuild(bool in_hand)
{
    memset(bin_first, 0, sizeof(bin_first));
    memset(bin_filled, 0, sizeof(bin_filled));
    hm_hot.root->free_units = 0;
    hm_hot.root->dirty_units = 0;
    for (uint32_t i = 0; i < hm_hot.root->range_count; i++)
        range_rebuild(range_at(i), in_hand);
}

/* ---- pages back to the system ---- */

bool span_over_budget(void)
{
    return hm_hot.root->dirty_units > budget_floor && hm_hot.root->dirty_units > budget_units();
}

/* Gives back [unit, unit + count), which are in a run of their own that is in no list: the lock is
 * let go meanwhile. The first unit of the run that they are in then. */
static uint32_t purge_pages(uint32_t tid, struct hm_range *r, uint32_t unit, uint32_t count)
{
    memset(range_codes(r) + unit, CODE_PURGING, count);
    units_leave(r, unit, count, 0);
    span_unlock();
    note_discard(r, unit, count);
    bool gone = pages_discard((char *)(uintptr_t)r->base + ((uint64_t)unit << UNIT_SHIFT),
                              (size_t)count << UNIT_SHIFT);
    if (!lock_acquire(&hm_hot.root->span_lock, tid))
        __builtin_trap();
    memset(range_codes(r) + unit, CODE_FREE, count);
    hm_hot.root->free_units += count;
    if (!gone) {
        memset(range_ages(r) + unit, now_age, count);
        hm_hot.root->dirty_units += count;
    }
    return run_join(r, unit, count);
}

static bool unit_is_old(uint8_t age, uint32_t age_limit)
{
    return age != 0 && (age_limit == 0 || (uint8_t)(now_age - age) >= age_limit);
}

/* The first stretch of dirty units in a run that are old enough; 0: none. */
static uint32_t stretch_find(const uint8_t *ages, uint32_t count, uint32_t age, uint32_t *start)
{
    uint32_t from = 0;
    while (from < count && !unit_is_old(ages[from], age))
        from++;
    uint32_t end = from;
    while (end < count && unit_is_old(ages[end], age))
        end++;
    *start = from;
    return end - from;
}

/* Purges one stretch of the run that begins at *first, from the unit *from on; *first is then the
 * start of the run that it lies in, and *from its end. False: none is old enough. */
static bool run_purge(uint32_t tid, struct hm_range *r, uint32_t *first, uint32_t *from,
                      uint32_t age)
{
    uint32_t unit = *first, length = range_units(r)[unit].unit_count, skip = *from - unit, start;
    uint32_t count = stretch_find(range_ages(r) + *from, length - skip, age, &start);
    if (count == 0)
        return false;
    start += skip;
    run_remove(r, unit);
    if (start > 0)
        run_insert(r, unit, start);
    if (start + count < length)
        run_insert(r, unit + start + count, length - start - count);
    *from = unit + start + count;
    *first = purge_pages(tid, r, unit + start, count);
    return true;
}

/* From the longest runs down, which are missed least, until at most `keep` units are dirty. */
static void purge_down_to(uint32_t tid, uint64_t keep)
{
    for (uint32_t bin = BIN_COUNT; bin-- > 0;) {
        uint64_t reference = bin_first[bin];
        for (uint64_t i = 0; reference && i < hm_hot.root->free_units; i++) {
            if (hm_hot.root->dirty_units <= keep)
                return;
            uint64_t next = span_referred(reference)->next;
            struct hm_range *r = range_at((uint32_t)((reference - 1) >> 32));
            uint32_t first = span_referred(reference)->head, from = first;
            /* the lists moved under us: begin the bin again */
            reference = run_purge(tid, r, &first, &from, 0) ? bin_first[bin] : next;
        }
    }
}

/* All that is old enough, in the order of addresses: each run once, whatever becomes of the lists.
 */
static void range_purge(uint32_t tid, struct hm_range *r, uint32_t age)
{
    const uint8_t *codes = range_codes(r);
    for (uint32_t first = 0, from; first < r->top_index;) {
        if (codes[first] != CODE_FREE) {
            first++;
            continue;
        }
        from = first;
        while (run_purge(tid, r, &first, &from, age))
            ;
        first += range_units(r)[first].unit_count;
    }
}

static void purge_old(uint32_t tid, uint32_t age)
{
    for (uint32_t i = 0; i < hm_hot.root->range_count && hm_hot.root->dirty_units; i++)
        range_purge(tid, range_at(i), age);
}

void span_trim(uint32_t tid, bool all)
{
    if (!span_lock(tid))
        return;
    uint64_t dirty = hm_hot.root->dirty_units;
    if (all)
        purge_old(tid, 0);
    else
        purge_down_to(tid, budget_units() / 4 * 3);
    if (!all && dirty > hm_hot.root->dirty_units)
        purged_lately += (uint32_t)(dirty - hm_hot.root->dirty_units);
    span_unlock();
}

/* By the helper, which alone makes such holes, and by malloc_trim. */
void span_keep_holes(void)
{
    for (uint32_t i = 0; i < hm_hot.root->range_count; i++) {
        const struct hm_range *r = range_at(i);
        uint64_t from = huge_from[i];
        uint64_t top = min_u64(round_up(r->top_index, HUGE_MOST), r->committed_units);
        if (top <= HUGE_FROM || top <= from)
            continue;
        huge_from[i] = top;
        pages_prefer_huge((char *)(uintptr_t)r->base + (from << UNIT_SHIFT),
                          (top - from) << UNIT_SHIFT, false);
    }
}

bool span_age(uint32_t tid, uint32_t age)
{
    if (!lock_try(&hm_hot.root->span_lock, tid))
        return true;
    now_age = now_age == 255 ? 1 : now_age + 1;
    purged_lately = 0;
    if (budget_floor > FLOOR_LEAST)
        budget_floor /= 2;
    uint64_t before = hm_hot.root->dirty_units;
    purge_old(tid, age);
    uint64_t dirty = hm_hot.root->dirty_units;
    span_unlock();
    if (dirty < before)
        span_keep_holes();
    return dirty != 0;
}
