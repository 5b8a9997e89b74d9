/*
 * Nodes and metadata: ranges against ranges.
 *
 * An anonymous mapping that belongs to no allocator is a node of the graph. Heaps live in anonymous
 * mappings too, and the kernel joins neighbours, so what heaps claim (regions of blocks and
 * metadata) is cut out of the mappings, and what remains becomes one NODE a piece. All three lists
 * are in address order: one merge.
 */
#include "heap/sink.h"

static int range_order(const void *a, const void *b)
{
    const struct hi_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

void heaps_metadata_merge(struct heaps *heaps)
{
    struct hi_range *ranges = heaps->metadata.items;
    if (heaps->metadata.count == 0)
        return;
    qsort(ranges, heaps->metadata.count, sizeof *ranges, range_order);
    size_t kept = 0;
    for (size_t i = 1; i < heaps->metadata.count; i++) {
        if (ranges[i].start > ranges[kept].end)
            ranges[++kept] = ranges[i];
        else if (ranges[i].end > ranges[kept].end)
            ranges[kept].end = ranges[i].end;
    }
    heaps->metadata.count = kept + 1;
}

typedef VECTOR(struct hi_range) range_vector;

static bool range_push(range_vector *ranges, hi_addr start, hi_addr end)
{
    if (start >= end)
        return true;
    struct hi_range *range = VECTOR_PUSH(ranges);
    if (range)
        *range = (struct hi_range){start, end};
    return range != NULL;
}

/* Everything that heaps claim, in address order. */
static bool claims_collect(const struct heap_sink *sink, range_vector *claims)
{
    const struct heaps *heaps = sink->heaps;
    for (size_t i = 0; i < sink->claims.count; i++)
        if (!range_push(claims, sink->claims.items[i].start, sink->claims.items[i].end))
            return false;
    for (size_t i = 0; i < heaps->metadata.count; i++)
        if (!range_push(claims, heaps->metadata.items[i].start, heaps->metadata.items[i].end))
            return false;
    if (claims->count)
        qsort(claims->items, claims->count, sizeof *claims->items, range_order);
    return true;
}

static enum hi_code node_add(struct heaps *heaps, hi_addr start, hi_addr end, struct hi_err *err)
{
    if (start >= end)
        return HI_OK;
    struct region node = {.start = start,
                          .end = end,
                          .first = start,
                          .count = 1,
                          .usable = end - start,
                          .heap = BLOCKS_NO_HEAP,
                          .shape = REGION_NODE,
                          .interior_ok = true};
    enum hi_code code = blocks_add(heaps->blocks, &node, NULL, err);
    return code == HI_BAD_INPUT ? HI_OK : code; /* overlapping mappings: the first one stands */
}

/* The pieces of one node between the claims; *next: the first claim that may matter. */
static enum hi_code node_cut(struct heaps *heaps, const struct hi_range *node,
                             const range_vector *claims, size_t *next, struct hi_err *err)
{
    hi_addr from = node->start;
    while (*next < claims->count && claims->items[*next].end <= from)
        ++*next;
    for (size_t i = *next; i < claims->count && claims->items[i].start < node->end; i++) {
        enum hi_code code = node_add(heaps, from, claims->items[i].start, err);
        if (code != HI_OK)
            return code;
        if (claims->items[i].end > from)
            from = claims->items[i].end;
    }
    return node_add(heaps, from, node->end, err);
}

enum hi_code heaps_nodes_add(struct heap_sink *sink, const struct hi_range *nodes, size_t count,
                             struct hi_err *err)
{
    range_vector claims = {0}, sorted = {0};
    bool enough = claims_collect(sink, &claims);
    for (size_t i = 0; enough && i < count; i++)
        enough = range_push(&sorted, nodes[i].start, nodes[i].end);
    enum hi_code code = enough ? HI_OK : hi_no_memory(err);
    if (enough && sorted.count)
        qsort(sorted.items, sorted.count, sizeof *sorted.items, range_order);
    size_t next = 0;
    for (size_t i = 0; code == HI_OK && i < sorted.count; i++)
        code = node_cut(sink->heaps, &sorted.items[i], &claims, &next, err);
    VECTOR_FREE(&claims);
    VECTOR_FREE(&sorted);
    return code;
}
