/* pages: memory from the system, by bare system calls: errno is not touched, TLS not needed. */
#ifndef HIMALLOC_PAGES_H
#define HIMALLOC_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bare system call: the result, or -errno. */
long pages_syscall(long number, long a, long b, long c, long d, long e, long f);

void *pages_reserve(size_t bytes);            /* address space without access; NULL if refused */
void *pages_map(size_t bytes);                /* readable and writable, zero */
bool pages_commit(void *start, size_t bytes); /* reserved -> readable and writable */
/* All threads of the process have passed a full barrier since the call; false: not to be had. */
bool pages_barrier(void);
void pages_unmap(void *start, size_t bytes);
bool pages_discard(void *start, size_t bytes); /* contents gone, reads as zero */
void pages_prefer_huge(void *start, size_t bytes, bool yes);
/* Moves pages to another place inside our ranges; the old place reads as zero. */
bool pages_move(void *from, size_t bytes, void *to);
/* Grows or shrinks a mapping of its own, wherever there is room; NULL if refused. */
void *pages_resize(void *start, size_t old_bytes, size_t bytes, bool may_move);
bool pages_readable(uintptr_t word); /* the 8 bytes at it */
uint32_t pages_thread_id(void);
uint32_t pages_seconds(void); /* coarse monotonic clock */
size_t pages_page_bytes(void);
size_t pages_address_limit(void); /* RLIMIT_AS at the start, SIZE_MAX when there is none */
#endif
