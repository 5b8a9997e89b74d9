/*
 * fast_path: malloc and free of blocks of slabs, as inlined into every entry point. The theory is
 * in malloc_entry.c.
 */
#ifndef HIMALLOC_FAST_PATH_H
#define HIMALLOC_FAST_PATH_H

#include "malloc_entry.h"
#include "size_class.h"
#include "thread_cache.h"

void *entry_malloc_slow(size_t bytes, uint32_t class_index);
void *entry_malloc_tick(size_t bytes, uint32_t class_index);
void *entry_malloc_large(size_t bytes);
void entry_free_slow(void *p);

/* One way to name the window in malloc and in free: processors that forward a store to a load by
 * its registers need a third less time for a pair. */
static inline struct hm_bin *bin_at(struct hm_thread *t, uint32_t class_index)
{
    struct hm_bin *bin = &t->bins[class_index];
    __asm__("" : "+r"(bin));
    return bin;
}

/* head and ticks go up by one addition, whose carry says that a sample is due. */
static inline void *malloc_class(size_t bytes, uint32_t class_index)
{
    struct hm_thread *t = hm_tls.self;
    struct hm_bin *bin = bin_at(t, class_index);
    uint32_t word = window_word(&bin->window), next;
    uint32_t head = (uint16_t)word;
    if (UNLIKELY(head == bin->window.empty))
        return entry_malloc_slow(bytes, class_index);
    void *p = (void *)(uintptr_t)thread_slots(t)[head];
    if (UNLIKELY(__builtin_add_overflow(word, WINDOW_TICK + 1u, &next)))
        return entry_malloc_tick(bytes, class_index);
    STORE_ORDER();
    window_set_word(&bin->window, next);
    return p;
}

static inline void *malloc_inline(size_t bytes)
{
    if (UNLIKELY(bytes > SMALL_MAX))
        return entry_malloc_large(bytes);
    return malloc_class(bytes, size_class_of(bytes));
}

static inline void free_inline(void *p)
{
    uintptr_t offset = (uintptr_t)p - hm_hot.base;
    if (UNLIKELY(offset >= hm_hot.fast_bytes))
        return entry_free_slow(p);
    uint32_t class_index = hm_hot.codes[offset >> UNIT_SHIFT];
    if (UNLIKELY(class_index - CODE_SLAB >= CLASS_COUNT))
        return entry_free_slow(p);
    struct hm_thread *t = hm_tls.self;
    struct hm_bin *bin = bin_at(t, class_index);
    const struct class_check *check = &size_class_checks[class_index];
    uint32_t word = window_word(&bin->window);
    uint32_t head = (uint16_t)word;
    uint64_t *slot = thread_slots(t) + head;
    if (UNLIKELY(head == bin->full || slot[0] == (uintptr_t)p || slot[1] == (uintptr_t)p ||
                 (offset & check->mask) * check->inverse >= check->inverse))
        return entry_free_slow(p);
    slot[-1] = (uintptr_t)p;
    STORE_ORDER();
    window_set_word(&bin->window, word - 1);
}

#endif
