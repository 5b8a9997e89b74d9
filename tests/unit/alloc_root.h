/* The heap of this very process, by the format's own words: the note, the anchor, the preamble. */
#ifndef TESTS_UNIT_ALLOC_ROOT_H
#define TESTS_UNIT_ALLOC_ROOT_H

#define HM_DEFINE_STRUCTURES
#include "himalloc_format.h"

#include <link.h>
#include <stdbool.h>
#include <string.h>

static struct hm_root *heap_root;

static int root_in_module(struct dl_phdr_info *info, size_t bytes, void *unused)
{
    (void)bytes, (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_NOTE)
            continue;
        const char *at = (const char *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        const char *end = at + info->dlpi_phdr[i].p_memsz;
        while (at + 32 <= end) {
            const ElfW(Nhdr) *head = (const void *)at;
            if (head->n_namesz == 9 && memcmp(at + 12, "himalloc", 9) == 0) {
                const char *place = at + 24;
                int64_t distance;
                memcpy(&distance, place, 8);
                struct hm_preamble *preamble =
                    *(struct hm_preamble **)(uintptr_t)(place + distance);
                heap_root = (struct hm_root *)preamble->root;
                return 1;
            }
            at += 12 + ((head->n_namesz + 3) & ~3u) + ((head->n_descsz + 3) & ~3u);
        }
    }
    return 0;
}

static struct hm_range *range_of(const void *p)
{
    struct hm_range *r = (struct hm_range *)heap_root->ranges;
    for (uint32_t i = 0; i < heap_root->range_count; i++)
        if ((uintptr_t)p - r[i].base < r[i].unit_count << heap_root->unit_shift)
            return &r[i];
    return NULL;
}

static struct hm_unit *unit_of(const void *p)
{
    struct hm_range *r = range_of(p);
    struct hm_unit *units = (struct hm_unit *)r->units;
    return units + units[((uintptr_t)p - r->base) >> heap_root->unit_shift].head;
}

static uint8_t code_of(const void *p)
{
    struct hm_range *r = range_of(p);
    return ((uint8_t *)r->codes)[((uintptr_t)p - r->base) >> heap_root->unit_shift];
}

static struct hm_big *big_of(const void *p)
{
    struct hm_big *bigs = (struct hm_big *)heap_root->bigs;
    for (uint32_t i = 0; i < heap_root->big_count; i++)
        if (bigs[i].address == (uintptr_t)p)
            return &bigs[i];
    return NULL;
}

/* The note of the block that starts at p; of a big one, made from its record. */
__attribute__((unused)) static struct hm_note note_of(const void *p)
{
    struct hm_range *r = range_of(p);
    struct hm_big *big = r ? NULL : big_of(p);
    if (big)
        return (struct hm_note){big->stack, 0, (uint32_t)big->requested_bytes};
    if (!r || !r->notes)
        return (struct hm_note){0, 0, 0};
    struct hm_unit *head = unit_of(p);
    uint64_t unit = (uint64_t)(head - (struct hm_unit *)r->units), index = 0;
    uint64_t offset = (uintptr_t)p - r->base - (unit << heap_root->unit_shift);
    if (code_of(p) < heap_root->code_large_head)
        index = offset / ((struct hm_class *)heap_root->classes)[head->class_index].block_bytes;
    return ((struct hm_note *)(r->notes + unit * r->note_stride))[index];
}

/* enum hm_arena_kind of the block at p. */
__attribute__((unused)) static uint32_t kind_of(const void *p)
{
    struct hm_arena **arenas = (struct hm_arena **)heap_root->arenas;
    return arenas[range_of(p) ? unit_of(p)->arena : big_of(p)->arena]->kind;
}

/* Where the innermost call of a stack returns to. */
__attribute__((unused)) static uintptr_t innermost(uint32_t stack)
{
    const struct hm_stack_table *table = (struct hm_stack_table *)heap_root->stacks;
    uint64_t frame = ((struct hm_stack_node *)table->nodes)[stack].frame;
    return stack && stack < table->node_count ? frame & ((1ULL << HM_FRAME_ADDRESS_BITS) - 1) : 0;
}

static inline bool root_find(void)
{
    return dl_iterate_phdr(root_in_module, NULL) == 1 && heap_root != NULL;
}

#endif
