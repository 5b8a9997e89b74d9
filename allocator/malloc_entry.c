/*
 * malloc_entry: the malloc family.
 *
 * The fast paths: malloc looks up the class of the size in a table and pops from the thread's bin;
 * free looks up the class of the address in the class map and pushes. Neither looks at the block.
 * The order of their two stores is what makes the heap readable at any instruction (format, section
 * 5). `self` is never NULL: a thread without a cache has the empty record, whose bins are empty and
 * full at once, so both fall through to the slow paths without a test of their own.
 *
 * What free checks on the way (check:fast): that the pointer is the start of a block of its slab,
 * by one multiplication, and that it is none of the two that were freed last. Either leads to the
 * slow path, which decides and dies. A second free further apart is found when the blocks go home
 * to the bitmaps, whose bit is then set already; not when a malloc got the block in between.
 * check:full has no caches: each free and realloc meets the bitmap.
 *
 * The slow ways know who called: they count the allocation for the sampler, or capture its stack
 * when all are noted (stacks.c), before anything is locked. What malloc does after that is done
 * with the answer in hand ("counted"). realloc counts as an allocation of the new size, also where
 * the block stays: so each live block is a sample with the probability of what was last asked for.
 *
 * errno: set to ENOMEM or EINVAL on failure, else left alone, by free always.
 */
#define _GNU_SOURCE
#include "malloc_entry.h"

#include "arena.h"
#include "die.h"
#include "fast_path.h"
#include "large.h"
#include "note.h"
#include "options.h"
#include "pages.h"
#include "remark.h"
#include "sampler.h"
#include "size_class.h"
#include "slab.h"
#include "stacks.h"
#include "thread_cache.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* Not in every C library's headers. */
void cfree(void *p);
void free_sized(void *p, size_t bytes);
void free_aligned_sized(void *p, size_t alignment, size_t bytes);

/* ---- malloc ---- */

COLD void *entry_fail(int code)
{
    errno = code;
    return NULL;
}

static struct block_note note_values(uint32_t stack, size_t bytes)
{
    return (struct block_note){stack, bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX};
}

/* Samples are few and of all sizes: in classes that are four times apart they share slabs, each of
 * which costs a page of blocks and one of notes (a program of 6 MiB: 0.5 MiB less). */
static uint32_t sample_class(uint32_t class_index)
{
    uint32_t bits = 64 - (uint32_t)__builtin_clzll(size_class_bytes(class_index) - 1);
    return size_class_of((size_t)1 << (bits + bits % 2));
}

/* A block of a slab, for an allocation that has been counted; stack 0: it is not to be noted. */
static void *malloc_counted(size_t bytes, uint32_t class_index, uint32_t stack)
{
    const struct block_note note = note_values(stack, bytes);
    uint32_t arena = 0, class_there = class_index;
    if (UNLIKELY(hm_tls.ignoring)) {
        arena = stacks_arena(HM_ARENA_IGNORED);
    } else if (stack && !hm_hot.tracing) {
        arena = stacks_arena(HM_ARENA_SAMPLED);
        class_there = sample_class(class_index);
    }
    void *p = arena ? central_malloc(arena, class_there, &note) : NULL;
    if (!p)
        p = thread_cache_malloc(class_index, hm_hot.tracing ? &note : NULL);
    return LIKELY(p != NULL) ? p : entry_fail(ENOMEM);
}

/* A pop as on the fast path, with a note. NULL: this one needs more. */
static void *malloc_noted(size_t bytes, uint32_t class_index, uint32_t stack)
{
    struct hm_thread *t = hm_tls.state == THREAD_LIVE ? hm_tls.record : NULL;
    if (UNLIKELY(!t || hm_tls.ignoring || !hm_hot.notes || !hm_hot.tracing))
        return NULL;
    struct hm_bin *bin = bin_at(t, class_index);
    uint32_t word = window_word(&bin->window), head = (uint16_t)word;
    if (UNLIKELY(head == bin->window.empty))
        return NULL;
    uintptr_t p = thread_slots(t)[head];
    if (UNLIKELY(p - hm_hot.base >= hm_hot.bytes))
        return NULL;
    const struct block_note note = {stack, (uint32_t)bytes};
    note_set(note_near(p - hm_hot.base, class_index), &note);
    STORE_ORDER();
    window_set_word(&bin->window, word + 1);
    return (void *)p;
}

/* Everything is noted, or this thread's blocks are no leaks. */
static NOINLINE void *malloc_traced(size_t bytes, uint32_t class_index)
{
    struct call_site site = CALL_SITE();
    uint32_t stack = stacks_take(bytes, &site);
    void *p = malloc_noted(bytes, class_index, stack);
    return LIKELY(p != NULL) ? p : malloc_counted(bytes, class_index, stack);
}

static NOINLINE void *malloc_sample(size_t bytes, uint32_t class_index)
{
    struct call_site site = CALL_SITE();
    return malloc_counted(bytes, class_index, stacks_capture(&site));
}

/* Counts as the fast path would have done. */
static bool slow_is_sample(size_t bytes, uint32_t class_index)
{
    struct hm_thread *t = hm_tls.state == THREAD_LIVE ? hm_tls.record : NULL;
    struct hm_bin *bin = t ? &t->bins[class_index] : NULL;
    uint32_t word;
    if (!bin || bin->window.empty == bin->full)
        return sampler_take(bytes);
    if (__builtin_add_overflow(window_word(&bin->window), (uint32_t)WINDOW_TICK, &word))
        return sampler_due(t, class_index, bytes);
    window_set_word(&bin->window, word);
    return false;
}

/* The bin is empty, or the thread has none for now. */
NOINLINE void *entry_malloc_slow(size_t bytes, uint32_t class_index)
{
    if (UNLIKELY(!root_start()))
        return entry_fail(ENOMEM);
    if (UNLIKELY(thread_is_traced()))
        return malloc_traced(bytes, class_index);
    if (UNLIKELY(slow_is_sample(bytes, class_index)))
        return malloc_sample(bytes, class_index);
    void *p = thread_cache_malloc(class_index, NULL);
    return LIKELY(p != NULL) ? p : entry_fail(ENOMEM);
}

/* The bin's ticks are over. */
NOINLINE void *entry_malloc_tick(size_t bytes, uint32_t class_index)
{
    if (UNLIKELY(sampler_due(hm_tls.self, class_index, bytes)))
        return malloc_sample(bytes, class_index);
    void *p = thread_cache_malloc(class_index, NULL);
    return LIKELY(p != NULL) ? p : entry_fail(ENOMEM);
}

static uint32_t large_arena(void)
{
    if (UNLIKELY(hm_tls.ignoring))
        return stacks_arena(HM_ARENA_IGNORED);
    return hm_tls.record ? hm_tls.record->arena : 0;
}

static void *large_note(void *p, size_t bytes, uint32_t stack)
{
    const struct block_note note = note_values(stack, bytes);
    if (UNLIKELY(stack && p))
        large_set_note(p, &note);
    return LIKELY(p != NULL) ? p : entry_fail(ENOMEM);
}

static void *malloc_large(size_t bytes, size_t alignment, bool *zero, const struct call_site *site)
{
    if (UNLIKELY(!root_start()))
        return entry_fail(ENOMEM);
    uint32_t stack = stacks_take(bytes, site);
    return large_note(large_malloc(bytes, alignment, large_arena(), zero), bytes, stack);
}

NOINLINE void *entry_malloc_large(size_t bytes)
{
    struct call_site site = CALL_SITE();
    bool zero;
    return malloc_large(bytes, 16, &zero, &site);
}

EXPORT void *malloc(size_t bytes)
{
    return malloc_inline(bytes);
}

/* ---- free ---- */

/* What is said of a large block goes before it does. */
static void free_large(void *p, const struct block_place *place)
{
    if (LIKELY(place->state != BLOCK_NONE && place->start == (uintptr_t)p)) {
        large_set_note(p, NULL);
        remark_forget_large(p);
    }
    large_free(p);
}

static void free_counted(void *p, uint32_t freed)
{
    struct block_place place = block_locate(p);
    if (place.state != BLOCK_SLAB) {
        free_large(p, &place);
    } else if (UNLIKELY(place.start != (uintptr_t)p)) {
        die_bad_free(p);
    } else if (place.named) {
        central_free(p, freed);
    } else {
        thread_cache_free(p, place.class_index, freed);
    }
}

/* A push as on the fast path, with the note that says whether the block is free already. False:
 * this one needs more. */
static bool free_noted(void *p, uint32_t freed)
{
    uintptr_t offset = (uintptr_t)p - hm_hot.base;
    struct hm_thread *t = hm_tls.state == THREAD_LIVE ? hm_tls.record : NULL;
    uint32_t class_index = offset < hm_hot.bytes ? hm_hot.codes[offset >> UNIT_SHIFT] : 0;
    if (UNLIKELY(!t || !hm_hot.notes || class_index - CODE_SLAB >= CLASS_COUNT))
        return false;
    struct hm_bin *bin = bin_at(t, class_index);
    const struct class_check *check = &size_class_checks[class_index];
    struct hm_note *note = note_near(offset, class_index);
    uint32_t word = window_word(&bin->window), head = (uint16_t)word;
    if (UNLIKELY(head == bin->full || note->freed || !freed ||
                 (offset & check->mask) * check->inverse >= check->inverse))
        return false;
    note->freed = freed;
    thread_slots(t)[head - 1] = (uintptr_t)p;
    STORE_ORDER();
    window_set_word(&bin->window, word - 1);
    return true;
}

static NOINLINE void free_traced(void *p)
{
    struct call_site site = CALL_SITE();
    uint32_t freed = stacks_capture(&site);
    if (UNLIKELY(!free_noted(p, freed)))
        free_counted(p, freed);
}

/* Everything that is not a push: other threads' wrongs, other kinds of blocks, full bins. */
NOINLINE void entry_free_slow(void *p)
{
    if (!p || large_free_own(p))
        return;
    if (UNLIKELY(hm_hot.tracing))
        return free_traced(p);
    free_counted(p, 0);
}

EXPORT void free(void *p)
{
    free_inline(p);
}

EXPORT void cfree(void *p)
{
    free_inline(p);
}

EXPORT void free_sized(void *p, size_t bytes)
{
    (void)bytes;
    free_inline(p);
}

EXPORT void free_aligned_sized(void *p, size_t alignment, size_t bytes)
{
    (void)alignment;
    (void)bytes;
    free_inline(p);
}

/* ---- calloc ---- */

static NOINLINE void *calloc_large(size_t bytes)
{
    struct call_site site = CALL_SITE();
    bool zero;
    void *p = malloc_large(bytes, 16, &zero, &site);
    return p && !zero ? memset(p, 0, bytes) : p;
}

EXPORT void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (UNLIKELY(__builtin_mul_overflow(count, size, &bytes)))
        return entry_fail(ENOMEM);
    if (UNLIKELY(bytes > SMALL_MAX))
        return calloc_large(bytes);
    void *p = malloc_class(bytes, size_class_of(bytes));
    return LIKELY(p != NULL) ? memset(p, 0, bytes) : p;
}

/* ---- realloc ---- */

static void *malloc_in(uint32_t arena, size_t bytes, uint32_t stack)
{
    const struct block_note note = note_values(stack, bytes);
    bool zero;
    if (bytes > SMALL_MAX)
        return large_note(large_malloc(bytes, 16, arena, &zero), bytes, stack);
    void *p = central_malloc(arena, size_class_of(bytes), &note);
    return p ? p : entry_fail(ENOMEM);
}

static enum hm_arena_kind kind_of(const struct block_place *place)
{
    return arena_at(place->arena)->kind;
}

/* Blocks between ignore and its end are no leaks, others are, also when they were allocated before.
 */
static bool is_where_it_belongs(const struct block_place *place)
{
    return kind_of(place) == HM_ARENA_NAMED ||
           (kind_of(place) == HM_ARENA_IGNORED) == (hm_tls.ignoring != 0);
}

/* A new block with the old contents; the old one is freed when that is there. */
static void *realloc_copy(void *p, const struct block_place *place, size_t bytes, uint32_t stack)
{
    void *moved;
    if (kind_of(place) == HM_ARENA_NAMED)
        moved = malloc_in(place->arena, bytes, stack);
    else if (bytes <= GROWN_SMALL_MAX)
        moved = malloc_counted(bytes, size_class_of(bytes), stack);
    else
        moved = large_note(large_malloc_to_grow(bytes, large_arena()), bytes, stack);
    if (!moved)
        return NULL;
    memcpy(moved, p, bytes < place->bytes ? bytes : place->bytes);
    if (UNLIKELY(hm_hot.tracing))
        free_counted(p, stack);
    else
        free_inline(p);
    return moved;
}

/* Of a slab: shrinking to no less than half is not worth a copy. A new sample is. */
static bool slab_block_stays(const struct block_place *place, size_t bytes, uint32_t stack)
{
    bool fits = bytes <= place->bytes &&
                (bytes >= place->bytes / 2 || size_class_of(bytes) == place->class_index);
    return fits && is_where_it_belongs(place) &&
           (!stack || hm_hot.tracing || kind_of(place) != HM_ARENA_AUTOMATIC);
}

static void *realloc_slab_block(void *p, const struct block_place *place, size_t bytes,
                                uint32_t stack)
{
    const struct block_note note = note_values(stack, bytes);
    if (!slab_block_stays(place, bytes, stack))
        return realloc_copy(p, place, bytes, stack);
    if (UNLIKELY(hm_hot.tracing || kind_of(place) != HM_ARENA_AUTOMATIC))
        note_change(p, place->class_index, &note);
    return p;
}

/* The note goes before the block may, and comes back when nothing was done. */
static void *realloc_large_block(void *p, const struct block_place *place, size_t bytes,
                                 uint32_t stack)
{
    if (is_where_it_belongs(place)) {
        const struct block_note old = {large_set_note(p, NULL), 0};
        void *resized = large_resize(p, bytes);
        if (resized && resized != p)
            remark_forget(p);
        if (resized)
            return large_note(resized, bytes, stack);
        if (old.stack)
            large_set_note(p, &old);
    }
    return realloc_copy(p, place, bytes, stack);
}

static NOINLINE void *realloc_slow(void *p, size_t bytes)
{
    struct call_site site = CALL_SITE();
    struct block_place place = block_locate(p);
    if (UNLIKELY(place.state == BLOCK_NONE || place.start != (uintptr_t)p)) {
        die_bad_free(p);
        return entry_fail(EINVAL);
    }
    if (UNLIKELY(bytes > PTRDIFF_MAX))
        return entry_fail(ENOMEM);
    if (UNLIKELY(hm_hot.check_mode == CHECK_FULL) && place.state == BLOCK_SLAB && slab_is_free(p)) {
        die_bad_free(p);
        return entry_fail(EINVAL);
    }
    uint32_t stack = stacks_take(bytes, &site);
    return place.state == BLOCK_SLAB ? realloc_slab_block(p, &place, bytes, stack)
                                     : realloc_large_block(p, &place, bytes, stack);
}

EXPORT void *realloc(void *p, size_t bytes)
{
    if (!p)
        return malloc(bytes);
    if (UNLIKELY(bytes == 0)) {
        free_inline(p);
        return NULL;
    }
    return realloc_slow(p, bytes);
}

EXPORT void *reallocarray(void *p, size_t count, size_t size)
{
    size_t bytes;
    if (UNLIKELY(__builtin_mul_overflow(count, size, &bytes)))
        return entry_fail(ENOMEM);
    return realloc(p, bytes);
}

/* ---- aligned ---- */

static NOINLINE void *aligned_large(size_t alignment, size_t bytes)
{
    struct call_site site = CALL_SITE();
    bool zero;
    return malloc_large(bytes, alignment, &zero, &site);
}

void *entry_aligned(size_t alignment, size_t bytes)
{
    uint32_t class_index = size_class_aligned(bytes, alignment);
    return LIKELY(class_index != 0) ? malloc_class(bytes, class_index)
                                    : aligned_large(alignment, bytes);
}

static bool is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

EXPORT void *aligned_alloc(size_t alignment, size_t bytes)
{
    return is_power_of_two(alignment) ? entry_aligned(alignment, bytes) : entry_fail(EINVAL);
}

/* glibc's older sister takes any alignment and rounds it up. */
EXPORT void *memalign(size_t alignment, size_t bytes)
{
    if (alignment > SIZE_MAX / 2 + 1)
        return entry_fail(EINVAL);
    size_t power = 16;
    while (power < alignment)
        power *= 2;
    return entry_aligned(power, bytes);
}

EXPORT int posix_memalign(void **result, size_t alignment, size_t bytes)
{
    if (!is_power_of_two(alignment) || alignment % sizeof(void *) != 0)
        return EINVAL;
    int saved = errno;
    void *p = entry_aligned(alignment, bytes);
    errno = saved;
    if (!p)
        return ENOMEM;
    *result = p;
    return 0;
}

EXPORT void *valloc(size_t bytes)
{
    return entry_aligned(pages_page_bytes(), bytes);
}

EXPORT void *pvalloc(size_t bytes)
{
    size_t page = pages_page_bytes();
    if (bytes > SIZE_MAX - page)
        return entry_fail(ENOMEM);
    return entry_aligned(page, round_up(bytes, page));
}

EXPORT size_t malloc_usable_size(void *p)
{
    struct block_place place = {.state = BLOCK_NONE};
    if (p)
        place = block_locate(p);
    return place.state != BLOCK_NONE && place.start == (uintptr_t)p ? place.bytes : 0;
}

/* ---- in an arena ---- */

NOINLINE void *entry_malloc_in(uint32_t arena, size_t bytes)
{
    struct call_site site = CALL_SITE();
    return malloc_in(arena, bytes, stacks_take(bytes, &site));
}
