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
 * slow path, which looks through the whole bin, decides and dies. A second free further apart is
 * found when the bin overflows with it, or when the blocks go home to the bitmaps, whose bit is
 * then set already; not when a malloc got the block in between. check:full has no caches: each free
 * and realloc meets the bitmap.
 *
 * errno: set to ENOMEM or EINVAL on failure, else left alone, by free always.
 */
#define _GNU_SOURCE
#include "malloc_entry.h"

#include "arena.h"
#include "die.h"
#include "fast_path.h"
#include "large.h"
#include "options.h"
#include "size_class.h"
#include "slab.h"
#include "thread_cache.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

NOINLINE void *entry_malloc_slow(uint32_t class_index)
{
    void *p = thread_cache_malloc(class_index);
    return LIKELY(p != NULL) ? p : entry_fail(ENOMEM);
}

NOINLINE void *entry_malloc_large(size_t bytes)
{
    bool zero;
    void *p = large_malloc(bytes, 16, hm_tls.record ? hm_tls.record->arena : 0, &zero);
    return LIKELY(p != NULL) ? p : entry_fail(ENOMEM);
}

EXPORT void *malloc(size_t bytes)
{
    return malloc_inline(bytes);
}

/* ---- free ---- */

/* Everything that is not a push: other threads' wrongs, other kinds of blocks, full bins. */
NOINLINE void entry_free_slow(void *p)
{
    if (!p)
        return;
    struct block_place place = block_locate(p);
    if (place.state != BLOCK_SLAB) {
        large_free(p);
    } else if (UNLIKELY(place.start != (uintptr_t)p)) {
        die_bad_free(p);
    } else if (place.named) {
        central_free(p);
    } else {
        thread_cache_free(p, place.class_index);
    }
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
    bool zero;
    void *p = large_malloc(bytes, 16, hm_tls.record ? hm_tls.record->arena : 0, &zero);
    if (UNLIKELY(!p))
        return entry_fail(ENOMEM);
    return zero ? p : memset(p, 0, bytes);
}

EXPORT void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (UNLIKELY(__builtin_mul_overflow(count, size, &bytes)))
        return entry_fail(ENOMEM);
    if (UNLIKELY(bytes > SMALL_MAX))
        return calloc_large(bytes);
    void *p = malloc_class(size_class_of(bytes));
    return LIKELY(p != NULL) ? memset(p, 0, bytes) : p;
}

/* ---- realloc ---- */

/* A new block with the old contents; the old one is freed when that is there. */
static void *realloc_copy(void *p, const struct block_place *place, size_t bytes)
{
    bool named = arena_at(place->arena)->kind == HM_ARENA_NAMED;
    void *moved = named                ? entry_malloc_in(place->arena, bytes)
                  : bytes <= SMALL_MAX ? malloc(bytes)
                                       : large_malloc_to_grow(bytes, place->arena);
    if (!moved)
        return entry_fail(ENOMEM);
    memcpy(moved, p, bytes < place->bytes ? bytes : place->bytes);
    free_inline(p);
    return moved;
}

static NOINLINE void *realloc_slow(void *p, size_t bytes)
{
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
    if (place.state == BLOCK_SLAB) {
        /* shrinking to no less than half is not worth a copy */
        if (bytes <= place.bytes &&
            (bytes >= place.bytes / 2 || size_class_of(bytes) == place.class_index))
            return p;
        return realloc_copy(p, &place, bytes);
    }
    void *resized = large_resize(p, bytes);
    return resized ? resized : realloc_copy(p, &place, bytes);
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

void *entry_aligned(size_t alignment, size_t bytes)
{
    bool zero;
    uint32_t class_index = size_class_aligned(bytes, alignment);
    if (LIKELY(class_index != 0))
        return malloc_class(class_index);
    void *p = large_malloc(bytes, alignment, hm_tls.record ? hm_tls.record->arena : 0, &zero);
    return p ? p : entry_fail(ENOMEM);
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

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

EXPORT void *valloc(size_t bytes)
{
    return entry_aligned(page_bytes(), bytes);
}

EXPORT void *pvalloc(size_t bytes)
{
    size_t page = page_bytes();
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

void *entry_malloc_in(uint32_t arena, size_t bytes)
{
    bool zero;
    void *p = bytes > SMALL_MAX ? large_malloc(bytes, 16, arena, &zero)
                                : central_malloc(arena, size_class_of(bytes));
    return p ? p : entry_fail(ENOMEM);
}
