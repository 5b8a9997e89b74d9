/* arena: what slabs, central state and stashes belong to, see arena.c. */
#ifndef HIMALLOC_ARENA_H
#define HIMALLOC_ARENA_H

#include "state.h"

size_t arena_bytes(void);       /* of one arena's record with its stashes */
void arena_start(char *memory); /* arena 0, in the root area */
/* The automatic arena with the fewest threads: where a new one begins. */
uint32_t arena_least_used(void);
/* The automatic arena for a thread that met others on the lock of `current`: one with fewer
 * threads, maybe new, or the same. */
uint32_t arena_next(uint32_t current, uint32_t tid);
/* A new arena; 0 and *ok false when there is no room. */
uint32_t arena_create(enum hm_arena_kind kind, const char *name, uint32_t tid, bool *ok);
void arena_destroy(uint32_t arena, uint32_t tid);

#endif
