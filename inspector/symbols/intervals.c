/*
 * intervals: one sweep over the sorted ranges with a stack of those that are open.
 *
 * The top of the stack owns the addresses up to the next start; a range that ended is taken off
 * when it comes to the top, so each goes on and off once: n log n for the sort and no more,
 * whatever the file says.
 */
#include "symbols/intervals.h"

static int compare(const void *a, const void *b)
{
    const struct interval *left = a, *right = b;
    if (left->start != right->start)
        return left->start < right->start ? -1 : 1;
    if (left->depth != right->depth)
        return left->depth < right->depth ? -1 : 1;
    if (left->end != right->end)
        return left->end > right->end ? -1 : 1;
    return left->value < right->value ? -1 : left->value > right->value;
}

struct sweep {
    const struct interval *items;
    uint32_t *open; /* stack of indexes of items */
    size_t open_count;
    struct interval_table *table;
    uint64_t position;
};

static void emit(struct sweep *sweep, uint32_t value, uint64_t end)
{
    struct interval_table *table = sweep->table;
    if (table->count == 0 || table->values[table->count - 1] != value) {
        table->starts[table->count] = sweep->position;
        table->values[table->count++] = value;
    }
    sweep->position = end;
}

static void sweep_to(struct sweep *sweep, uint64_t next)
{
    while (sweep->open_count && sweep->position < next) {
        const struct interval *top = &sweep->items[sweep->open[sweep->open_count - 1]];
        if (top->end > sweep->position)
            emit(sweep, top->value, top->end < next ? top->end : next);
        if (top->end <= sweep->position)
            sweep->open_count--;
    }
    if (sweep->position < next)
        emit(sweep, INTERVAL_NONE, next);
}

bool intervals_flatten(interval_vector *intervals, struct interval_table *table)
{
    size_t count = intervals->count;
    struct sweep sweep = {.items = intervals->items, .table = table};
    memset(table, 0, sizeof *table);
    if (count == 0 || count >= UINT32_MAX / 2)
        return count == 0;
    qsort(intervals->items, count, sizeof *intervals->items, compare);
    /* a range begins one piece and ends one; gaps lie between */
    table->starts = malloc((2 * count + 2) * sizeof *table->starts);
    table->values = malloc((2 * count + 2) * sizeof *table->values);
    sweep.open = malloc(count * sizeof *sweep.open);
    bool is_done = table->starts && table->values && sweep.open;
    for (size_t i = 0; is_done && i < count; i++) {
        sweep_to(&sweep, intervals->items[i].start);
        sweep.open[sweep.open_count++] = (uint32_t)i;
    }
    if (is_done)
        sweep_to(&sweep, UINT64_MAX);
    else
        intervals_free(table);
    free(sweep.open);
    return is_done;
}

uint32_t intervals_find(const struct interval_table *table, uint64_t address)
{
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table->starts[middle] <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? table->values[low - 1] : INTERVAL_NONE;
}

void intervals_free(struct interval_table *table)
{
    free(table->starts);
    free(table->values);
    memset(table, 0, sizeof *table);
}
