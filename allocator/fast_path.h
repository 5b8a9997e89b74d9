/*
 * fast_path: malloc and free of blocks of slabs, as inlined into every entry point. The theory is
 * in malloc_entry.c.
 */
#ifndef HIMALLOC_FAST_PATH_H
#define HIMALLOC_FAST_PATH_H

#include "malloc_entry.h"
#include "size_class.h"
#include "thread_cache.h"

void *entry_malloc_slow(uint32_t class_index);
void *entry_malloc_large(size_t bytes);
void entry_free_slow(void *p);

static inline void *malloc_class(uint32_t class_index)
{
    struct hm_thread *t = hm_tls.self;
    struct hm_bin *bin = &t->bins[class_index];
    uint32_t head = bin->window.head;
    if (UNLIKELY(head == bin->window.empty))
        return entry_malloc_slow(class_index);
    void *p = (void *)(uintptr_t)thread_slots(t)[head];
    STORE_ORDER();
    bin->window.head = head + 1;
    return p;
}

static inline void *malloc_inline(size_t bytes)
{
    if (UNLIKELY(bytes > SMALL_MAX))
        return entry_malloc_large(bytes);
    return malloc_class(size_class_of(bytes));
}

static inline void free_inline(void *p)
{
    uintptr_t offset = (uintptr_t)p - hm_hot.base;
    if (UNLIKELY(offset >= hm_hot.bytes))
        return entry_free_slow(p);
    uint32_t class_index = hm_hot.codes[offset >> UNIT_SHIFT];
    if (UNLIKELY(class_index - CODE_SLAB >= CLASS_COUNT))
        return entry_free_slow(p);
    struct hm_thread *t = hm_tls.self;
    struct hm_bin *bin = &t->bins[class_index];
    const struct class_check *check = &size_class_checks[class_index];
    uint32_t head = bin->window.head;
    uint64_t *slot = thread_slots(t) + head;
    if (UNLIKELY(head == bin->full || slot[0] == (uintptr_t)p || slot[1] == (uintptr_t)p ||
                 (offset & check->mask) * check->inverse >= check->inverse))
        return entry_free_slow(p);
    slot[-1] = (uintptr_t)p;
    STORE_ORDER();
    bin->window.head = head - 1;
}

#endif
