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

/*
 * What the program knows of its memory, for heapinspect and the leak check. Functions that return
 * int say 0, or -1 and errno: EINVAL when p is in no block of the heap, or ENOMEM.
 */

/* The block around p is no leak, and what it points to is none; until it is freed, or moved by
 * realloc. */
int himalloc_ignore(const void *p);
/* The block around p is shown with this word (43 bytes at most; NULL: no more), as long. */
int himalloc_tag(const void *p, const char *text);
/* What lies in [start, start + bytes) points to memory in use, although it is in no block and no
 * data of the program (a mapping of a file, memory of a device). Until it is taken back with the
 * same arguments; EINVAL: there is none such. */
int himalloc_root(const void *start, size_t bytes);
int himalloc_unroot(const void *start, size_t bytes);

/* Looks for leaks now, as HIMALLOC=leakcheck:exit does at the end, with the same report. 0: there
 * are none, 1: there are, -1: it could not be done, and standard error says why. The program waits
 * meanwhile. */
int himalloc_check_now(void);

/*
 * Whether it is kept who allocated: of no block, of samples, of all. As HIMALLOC=stacks, from now
 * on; blocks that are there keep what is known of them, but for those of the time when all were
 * noted, which is over. sample_bytes: the mean distance between samples, 0: as it was. Other
 * threads follow with their next call that needs more than their cache.
 */
enum himalloc_stacks_mode {
    HIMALLOC_STACKS_OFF = 0,
    HIMALLOC_STACKS_SAMPLED = 1,
    HIMALLOC_STACKS_FULL = 2,
};
int himalloc_stacks(enum himalloc_stacks_mode mode, size_t sample_bytes);

#ifdef __cplusplus
}
#endif

#endif
