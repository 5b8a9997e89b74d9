/*
 * Roots, made ready: single words become holds at once, ranges are cut round heaps and nodes.
 *
 * A root range does not lie in a heap region but for one case: a stack in a block or NODE (a
 * coroutine's, or one that a program allocated for its thread). Then the block itself is held, and
 * what it holds are its own edges; where it is a block of a heap and the only stack in it, the
 * part below the range's start (SP less the red zone) is dead and becomes a hole.
 *
 * What a thread of the allocator's own has in its registers and on its stack is no root.
 *
 * What the program itself said holds (heaps.held: ignored blocks, root regions) may lie anywhere:
 * live blocks that it touches are held, what of it lies in no region is searched like a root range.
 */
#include "graph/build.h"

struct stack_block {
    hi_block block;
    hi_addr start; /* of the block */
    hi_addr live;  /* from here on the stack is in use */
};
typedef VECTOR(struct stack_block) stack_blocks;

static bool hold_push(struct build *build, uint32_t edge, uint32_t source)
{
    if (edge == EDGE_NONE)
        return true;
    struct root_hold *hold = VECTOR_PUSH(&build->workers[0].holds);
    if (!hold)
        return false;
    *hold = (struct root_hold){.edge = edge, .source = source};
    build->workers[0].resolved++;
    return true;
}

/* What libraries keep they may hold by any place. */
static uint32_t as_kept(uint32_t edge)
{
    return edge == EDGE_NONE ? edge : (edge & ~UINT32_C(3)) | EDGE_START;
}

/* Only tids of allocators' own threads: one an allocator at most. */
static bool is_own_thread(const struct heaps *heaps, pid_t tid)
{
    for (size_t i = 0; i < heaps->own_threads.count; i++)
        if (tid && heaps->own_threads.items[i] == tid)
            return true;
    return false;
}

static bool words_hold(struct build *build)
{
    const struct roots *roots = build->graph->roots;
    const struct heaps *heaps = build->graph->heaps;
    size_t words = roots ? roots->words.count : 0;
    for (size_t i = 0; i < words; i++) {
        const struct root_word *word = &roots->words.items[i];
        if (is_own_thread(heaps, word->tid))
            continue;
        uint32_t edge = resolve_word(&build->resolve, word->value & build->rule.keep);
        edge = word->class == ROOT_KEPT ? as_kept(edge) : edge;
        if (!hold_push(build, edge, ROOT_WORD | (uint32_t)i))
            return false;
    }
    for (size_t i = 0; i < heaps->kept.count; i++) {
        uint32_t edge = as_kept(resolve_word(&build->resolve, heaps->kept.items[i].address));
        if (!hold_push(build, edge, ROOT_WORD | (uint32_t)(words + i)))
            return false;
    }
    build->workers[0].words += words;
    return true;
}

static bool stack_hold(struct build *build, stack_blocks *stacks, const struct root_range *range,
                       uint32_t source)
{
    const struct blocks *blocks = build->graph->blocks;
    struct block_place place;
    if (range->class != ROOT_STACK || !blocks_at(blocks, range->start, &place) ||
        !bits_get(build->resolve.live, place.block) ||
        place.offset >= blocks_place_usable(blocks, range->start, &place))
        return true;
    if (!hold_push(build, place.block << 2 | EDGE_START, source))
        return false;
    struct stack_block *stack = VECTOR_PUSH(stacks);
    if (!stack)
        return false;
    *stack = (struct stack_block){place.block, range->start - place.offset, range->start};
    return true;
}

static bool extent_push(build_extents *extents, hi_addr start, hi_addr end, uint32_t owner)
{
    if (start >= end)
        return true;
    struct build_extent *extent = VECTOR_PUSH(extents);
    if (extent)
        *extent = (struct build_extent){.start = start, .end = end, .owner = owner};
    return extent != NULL;
}

/* The range less all regions. */
static bool range_cut(struct build *build, hi_addr at, hi_addr end, uint32_t source)
{
    const struct blocks *blocks = build->graph->blocks;
    size_t i = blocks_region_from(blocks, at);
    for (; i < blocks_region_count(blocks) && at < end; i++) {
        const struct region *region = blocks_region(blocks, i);
        if (region->start >= end)
            break;
        if (!extent_push(&build->roots, at, region->start, source))
            return false;
        at = region->end > at ? region->end : at;
    }
    return extent_push(&build->roots, at, end, source);
}

/* Every live block of the region that [start, end) touches. */
static bool region_hold(struct build *build, const struct region *region, hi_addr start,
                        hi_addr end, uint32_t source)
{
    const struct blocks *blocks = build->graph->blocks;
    struct block_cursor cursor;
    for (bool more = blocks_from(blocks, region, start, &cursor); more && cursor.address < end;
         more = blocks_next(blocks, &cursor))
        if (bits_get(build->resolve.live, cursor.block) && cursor.address + cursor.usable > start &&
            !hold_push(build, cursor.block << 2 | EDGE_START, source))
            return false;
    return true;
}

static bool held_prepare(struct build *build, const struct heap_held *held, uint32_t source)
{
    const struct blocks *blocks = build->graph->blocks;
    for (size_t i = blocks_region_from(blocks, held->start);
         i < blocks_region_count(blocks) && blocks_region(blocks, i)->start < held->end; i++)
        if (!region_hold(build, blocks_region(blocks, i), held->start, held->end, source))
            return false;
    return range_cut(build, held->start, held->end, source);
}

static bool all_held_prepare(struct build *build)
{
    const struct heaps *heaps = build->graph->heaps;
    const struct roots *roots = build->graph->roots;
    size_t before = (roots ? roots->words.count : 0) + heaps->kept.count;
    for (size_t i = 0; i < heaps->held.count; i++)
        if (!held_prepare(build, &heaps->held.items[i], ROOT_WORD | (uint32_t)(before + i)))
            return false;
    return true;
}

static int stack_order(const void *a, const void *b)
{
    const struct stack_block *x = a, *y = b;
    return x->block < y->block ? -1 : x->block > y->block;
}

static int hole_order(const void *a, const void *b)
{
    const struct hi_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static bool hole_push(struct build *build, hi_addr start, hi_addr end)
{
    if (start >= end)
        return true;
    struct hi_range *hole = VECTOR_PUSH(&build->holes);
    if (hole)
        *hole = (struct hi_range){start, end};
    return hole != NULL;
}

/* Below a lone stack in a block of a heap. A NODE may be a pool of stacks that the kernel joined:
 * there nothing is taken away. */
static bool stack_holes(struct build *build, const stack_blocks *stacks)
{
    const struct stack_block *items = stacks->items;
    for (size_t i = 0; i < stacks->count; i++) {
        bool lone = (i == 0 || items[i - 1].block != items[i].block) &&
                    (i + 1 == stacks->count || items[i + 1].block != items[i].block);
        const struct region *region = blocks_region_of(build->graph->blocks, items[i].block);
        if (lone && region->shape != REGION_NODE &&
            !hole_push(build, items[i].start, items[i].live))
            return false;
    }
    return true;
}

static bool holes_collect(struct build *build, stack_blocks *stacks)
{
    const struct heaps *heaps = build->graph->heaps;
    for (size_t i = 0; i < heaps->metadata.count; i++)
        if (!hole_push(build, heaps->metadata.items[i].start, heaps->metadata.items[i].end))
            return false;
    if (stacks->count)
        qsort(stacks->items, stacks->count, sizeof *stacks->items, stack_order);
    if (!stack_holes(build, stacks))
        return false;
    struct hi_range *holes = build->holes.items;
    if (!build->holes.count)
        return true;
    qsort(holes, build->holes.count, sizeof *holes, hole_order);
    size_t last = 0;
    for (size_t i = 1; i < build->holes.count; i++) {
        if (holes[i].start > holes[last].end)
            holes[++last] = holes[i];
        else if (holes[i].end > holes[last].end)
            holes[last].end = holes[i].end;
    }
    build->holes.count = last + 1;
    return true;
}

/* What is suspect lies in regions, and is read all the same. */
static bool suspects_add(struct build *build)
{
    const struct heaps *heaps = build->graph->heaps;
    const struct roots *roots = build->graph->roots;
    size_t ranges = roots ? roots->ranges.count : 0;
    for (size_t i = 0; i < heaps->suspect.count; i++)
        if (!extent_push(&build->roots, heaps->suspect.items[i].start, heaps->suspect.items[i].end,
                         (uint32_t)(ranges + i)))
            return false;
    return true;
}

bool build_roots_prepare(struct build *build)
{
    const struct roots *roots = build->graph->roots;
    stack_blocks stacks = {0};
    bool fine = words_hold(build);
    for (size_t i = 0; fine && roots && i < roots->ranges.count; i++) {
        const struct root_range *range = &roots->ranges.items[i];
        bool is_own = range->class == ROOT_STACK && is_own_thread(build->graph->heaps, range->tid);
        fine = is_own || range->start >= range->end ||
               (stack_hold(build, &stacks, range, (uint32_t)i) &&
                range_cut(build, range->start, range->end, (uint32_t)i));
    }
    fine = fine && all_held_prepare(build) && suspects_add(build) && holes_collect(build, &stacks);
    VECTOR_FREE(&stacks);
    return fine;
}
