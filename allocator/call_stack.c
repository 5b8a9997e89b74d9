/* call_stack: for now the innermost frame alone. */
#include "call_stack.h"

#include "stack_table.h"

uint32_t call_stack_capture(const struct call_site *site)
{
    if (UNLIKELY(!__atomic_load_n(&stack_hot.table, __ATOMIC_ACQUIRE)))
        return STACK_NODE_NONE;
    return stack_table_child(0, site->pc | STACK_FLAG(HM_FRAME_CUT));
}

bool call_stack_start(uint32_t mode, uint64_t sample_bytes)
{
    if (!stack_hot.table && !stack_table_make(mode, sample_bytes))
        return false;
    struct hm_stack_table *table = stack_hot.table;
    table->mode = mode;
    table->sample_bytes = sample_bytes;
    __atomic_store_n(&hm_hot.root->stacks, (uintptr_t)table, __ATOMIC_RELEASE);
    return true;
}

void call_stack_thread_end(void)
{
}

void call_stack_forked(void)
{
    stack_table_forked();
}

void call_stack_unloaded(void)
{
}
