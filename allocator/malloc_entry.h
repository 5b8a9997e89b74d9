/* malloc_entry: what other files of the allocator need of the entry points. */
#ifndef HIMALLOC_MALLOC_ENTRY_H
#define HIMALLOC_MALLOC_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

void *entry_fail(int code); /* NULL, with errno set */
/* alignment is a power of two. NULL and errno on failure. */
void *entry_aligned(size_t alignment, size_t bytes);
/* In a named or automatic arena. NULL and errno on failure. */
void *entry_malloc_in(uint32_t arena, size_t bytes);

#endif
