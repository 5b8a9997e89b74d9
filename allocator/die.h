/* die: one clear line on standard error about what the program did to its heap, then abort. */
#ifndef HIMALLOC_DIE_H
#define HIMALLOC_DIE_H

#include "state.h"

/* p was given to free or realloc and is no live block of ours. Says what is there. Returns only
 * when checks are off. */
void die_bad_free(const void *p);
/* The block at p is free already. */
void die_double_free(const void *p);

#endif
