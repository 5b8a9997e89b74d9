/* stack_table: call stacks as numbers, and the modules that their frames lie in; see
 * stack_table.c. */
#ifndef HIMALLOC_STACK_TABLE_H
#define HIMALLOC_STACK_TABLE_H

#include "state.h"

enum {
    STACK_NODE_NONE = 1, /* the stack of which nothing is known */
    STACK_SLOT_BYTES = 176 << 10,
    STACK_ROW_LINES = 2048, /* of 8 words: 128 KiB */
};
#define STACK_FLAG(flag) ((uint64_t)(flag) << HM_FRAME_ADDRESS_BITS)

/* All 0 until there is a table; `table` is stored last. */
struct stack_hot {
    struct hm_stack_table *table;
    struct hm_stack_node *nodes;
    uint64_t *rows;      /* unwind rows, see cfi_rows.c */
    uint32_t generation; /* counts libraries that went */
};
HIDDEN extern struct stack_hot stack_hot;

/* False: no memory. Once. */
bool stack_table_make(uint32_t mode, uint64_t sample_bytes);
uint32_t stack_table_child_slow(uint32_t parent, uint64_t frame);

/* The node for `frame` called from `parent` (0: nobody). Without room: the parent, or NONE. */
static inline uint32_t stack_table_child(uint32_t parent, uint64_t frame)
{
    const struct hm_stack_node *nodes = stack_hot.nodes;
    uint32_t recent = __atomic_load_n(&nodes[parent].recent, __ATOMIC_RELAXED);
    if (LIKELY(nodes[recent].frame == frame && nodes[recent].parent == parent))
        return recent;
    return stack_table_child_slow(parent, frame);
}

/* Memory of STACK_SLOT_BYTES for a capture or a thread: metadata of the table. NULL: none left. */
void *stack_slot_take(void);
void stack_slot_give(void *slot, bool discard);

/* A loaded module, as the dynamic linker tells. eh_frame_hdr is 0 where it has none. */
struct loaded_module {
    uintptr_t start, end, bias, eh_frame_hdr;
    const char *name; /* NULL or empty: the executable */
};
/*
 * The epoch of frames in this module, which is entered in the table if it is not there. False: this
 * could not be decided now; use the epoch, keep nothing. *unloaded: some other module that the
 * table knew must be gone.
 */
bool stack_table_module(const struct loaded_module *module, uint32_t *epoch, bool *unloaded);
/* The epoch of an address in a module that is in the table. */
uint32_t stack_table_epoch(uintptr_t address);
/* Modules in the table that are not found any more in their places are gone. True: there was one.
 */
bool stack_table_sweep(bool (*find)(uintptr_t address, struct loaded_module *module));
void stack_table_forked(void);

#endif
