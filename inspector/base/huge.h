/* huge: large tables that are looked up at random want large pages: with 4 KiB ones each look-up
 * misses the processor's address cache as well. A wish only; nothing depends on it. */
#ifndef BASE_HUGE_H
#define BASE_HUGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

enum { HUGE_PAGE_BYTES = 2 << 20, HUGE_WORTH_BYTES = 4 << 20 };

/* memory: of malloc or mmap, best not touched yet. */
static inline void huge_prefer(void *memory, size_t bytes)
{
    uintptr_t start = ((uintptr_t)memory + HUGE_PAGE_BYTES - 1) & ~(uintptr_t)(HUGE_PAGE_BYTES - 1);
    uintptr_t end = ((uintptr_t)memory + bytes) & ~(uintptr_t)(HUGE_PAGE_BYTES - 1);
    if (bytes >= HUGE_WORTH_BYTES && end > start)
        madvise((void *)start, end - start, MADV_HUGEPAGE);
}

#endif
