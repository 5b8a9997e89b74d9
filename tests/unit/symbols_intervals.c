/* Flattened ranges against looking at each of them: nested, overlapping, equal, at the ends of the
 * address space. */
#include "symbols/intervals.h"
#include "unit/tap.h"

enum { ROUNDS = 3000, MOST = 40, SPAN = 60 };

static uint64_t state = 1;

static uint64_t below(uint64_t end)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % end;
}

/* Is a further in than b, by the rule of intervals.h? */
static bool is_inner(const struct interval *a, const struct interval *b)
{
    if (a->start != b->start)
        return a->start > b->start;
    if (a->depth != b->depth)
        return a->depth > b->depth;
    if (a->end != b->end)
        return a->end < b->end;
    return a->value > b->value;
}

static uint32_t look(const interval_vector *intervals, uint64_t address)
{
    const struct interval *best = NULL;
    for (size_t i = 0; i < intervals->count; i++) {
        const struct interval *one = &intervals->items[i];
        if (address >= one->start && address < one->end && (!best || is_inner(one, best)))
            best = one;
    }
    return best ? best->value : INTERVAL_NONE;
}

static size_t one_round(uint64_t base)
{
    interval_vector intervals = {0};
    struct interval_table table;
    size_t wrong = 0;
    for (uint64_t i = below(MOST); i; i--) {
        uint64_t start = below(SPAN), end = start + 1 + below(SPAN - start);
        *VECTOR_PUSH(&intervals) =
            (struct interval){base + start, base + end, (uint32_t)below(9), (uint32_t)below(3)};
    }
    if (!intervals_flatten(&intervals, &table))
        return 1;
    for (uint64_t at = 0; at <= SPAN + 1 && base + at >= base; at++)
        wrong += intervals_find(&table, base + at) != look(&intervals, base + at);
    wrong += base && intervals_find(&table, base - 1) != INTERVAL_NONE;
    for (size_t i = 1; i < table.count; i++)
        wrong += table.starts[i] <= table.starts[i - 1];
    intervals_free(&table);
    VECTOR_FREE(&intervals);
    return wrong;
}

int main(void)
{
    size_t wrong = 0;
    for (int i = 0; i < ROUNDS; i++)
        wrong += one_round(0);
    is_u64(wrong, 0, "ranges from 0 on");
    wrong = 0;
    for (int i = 0; i < ROUNDS; i++)
        wrong += one_round(0x401000);
    is_u64(wrong, 0, "ranges in the middle");
    wrong = 0;
    for (int i = 0; i < ROUNDS; i++)
        wrong += one_round(UINT64_MAX - SPAN - 1);
    is_u64(wrong, 0, "ranges up to the end");
    interval_vector none = {0};
    struct interval_table table;
    ok(intervals_flatten(&none, &table) && intervals_find(&table, 5) == INTERVAL_NONE, "no ranges");
    intervals_free(&table);
    return done();
}
