/*
 * himalloc: what a program can say to the allocator beyond malloc. Link with -lhimalloc, or look
 * the functions up with dlsym when the library is preloaded.
 */
#ifndef HIMALLOC_H
#define HIMALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A named arena keeps the blocks of a subsystem apart from all others and shows them under its name
 * in heapinspect. Its blocks may be passed to free(), realloc() (they stay in the arena) and
 * malloc_usable_size() like any other, by any thread. They are not kept in thread caches: an
 * allocation costs a lock.
 */
typedef struct himalloc_arena himalloc_arena;

/* NULL and errno (ENOMEM) when there is no memory or there are too many arenas. The name is cut
 * after 31 bytes. */
himalloc_arena *himalloc_arena_create(const char *name);
void *himalloc_arena_malloc(himalloc_arena *arena, size_t bytes);
void *himalloc_arena_calloc(himalloc_arena *arena, size_t count, size_t size);
/* With p NULL as himalloc_arena_malloc, else as realloc. */
void *himalloc_arena_realloc(himalloc_arena *arena, void *p, size_t bytes);
void himalloc_arena_free(himalloc_arena *arena, void *p);
/* Frees every block that is left in it. Nobody may use the arena or a block of it any more. */
void himalloc_arena_destroy(himalloc_arena *arena);

#ifdef __cplusplus
}
#endif

#endif
