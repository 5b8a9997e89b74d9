/* arena_entry: the functions of himalloc.h. */
#include "himalloc.h"

#include "arena.h"
#include "malloc_entry.h"
#include "thread_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t index_of(const himalloc_arena *arena)
{
    return ((const struct hm_arena *)arena)->index;
}

EXPORT himalloc_arena *himalloc_arena_create(const char *name)
{
    bool ok = false;
    uint32_t index = root_start() ? arena_create(HM_ARENA_NAMED, name, thread_id(), &ok) : 0;
    return ok ? (himalloc_arena *)arena_at(index) : entry_fail(ENOMEM);
}

EXPORT void *himalloc_arena_malloc(himalloc_arena *arena, size_t bytes)
{
    return entry_malloc_in(index_of(arena), bytes);
}

EXPORT void *himalloc_arena_calloc(himalloc_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return entry_fail(ENOMEM);
    void *p = entry_malloc_in(index_of(arena), bytes);
    return p ? memset(p, 0, bytes) : p;
}

EXPORT void *himalloc_arena_realloc(himalloc_arena *arena, void *p, size_t bytes)
{
    return p ? realloc(p, bytes) : himalloc_arena_malloc(arena, bytes);
}

EXPORT void himalloc_arena_free(himalloc_arena *arena, void *p)
{
    (void)arena;
    free(p);
}

EXPORT void himalloc_arena_destroy(himalloc_arena *arena)
{
    if (arena)
        arena_destroy(index_of(arena), thread_id());
}
