/*
 * Scaling a heap to a screen.
 *
 *   segment     regions with only small gaps between them; drawn without a break
 *   coordinate  byte position in the picture; each segment has a base, gaps between segments have
 *               no coordinates
 *   cell        cell_bytes of coordinates
 *
 * A new segment begins on a new row where there are few enough of them (loose); else they are put
 * end to end, and one cell may hold parts of several (packed). cell_bytes is the smallest power of
 * two, from 16, with which the picture fits; for one slab seen from close by it is the stride, so
 * that a cell is a block. A zoom on an address in a large region takes a window around it.
 *
 * One pass over the blocks fills the cells: each block adds its bytes to the cells that it touches.
 * The number of cells is bounded by the screen, and a block touches at most all of them.
 */
#include "analysis/chunk_map.h"

#include "analysis/arena_index.h"

#include <inttypes.h>

enum { SMALLEST_CELL = 16, SMALL_GAP = 1 << 20 };
enum { COLUMNS_MOST = 1000, ROWS_MOST = 1000 };

struct plan {
    const struct inspection *in;
    const struct map_request *request;
    struct arena_index arenas;
    const struct region *only; /* zoom by address */
    struct hi_range window;    /* what of it */
};

static bool is_wanted(const struct plan *plan, const struct region *region)
{
    if (region->heap == BLOCKS_NO_HEAP || (plan->only && region != plan->only))
        return false;
    if (!plan->request->has_arena)
        return true;
    const struct arena *arena = arena_index_find(&plan->arenas, region);
    return arena && arena->id == plan->request->arena_id;
}

static struct hi_range clip(const struct plan *plan, const struct region *region)
{
    struct hi_range range = {region->start, region->end};
    if (plan->only && range.start < plan->window.start)
        range.start = plan->window.start;
    if (plan->only && range.end > plan->window.end)
        range.end = plan->window.end;
    return range;
}

static enum hi_code find_segments(struct chunk_map *map, const struct plan *plan,
                                  struct hi_err *err)
{
    size_t regions = blocks_region_count(plan->in->heaps->blocks);
    struct map_segment *last = NULL;
    for (size_t i = 0; i < regions; i++) {
        const struct region *region = blocks_region(plan->in->heaps->blocks, i);
        if (!is_wanted(plan, region))
            continue;
        struct hi_range range = clip(plan, region);
        if (last && range.start - last->end <= SMALL_GAP) {
            last->end = range.end;
            continue;
        }
        last = VECTOR_PUSH(&map->segments);
        if (!last)
            return hi_no_memory(err);
        *last = (struct map_segment){.start = range.start, .end = range.end};
    }
    if (!map->segments.count)
        return hi_fail(err, HI_NOT_FOUND, "there is nothing to draw: the heap has no blocks");
    return HI_OK;
}

/* Bases for one cell size; the picture's end. UINT64_MAX: far too long. */
static uint64_t place_segments(struct chunk_map *map, bool loose)
{
    uint64_t row = map->columns * map->cell_bytes, at = 0;
    for (size_t i = 0; i < map->segments.count; i++) {
        struct map_segment *segment = &map->segments.items[i];
        if (loose && at % row)
            at += row - at % row;
        segment->base = at;
        if (at + (segment->end - segment->start) < at)
            return UINT64_MAX;
        at += segment->end - segment->start;
    }
    return at;
}

static enum hi_code choose_scale(struct chunk_map *map, const struct plan *plan, struct hi_err *err)
{
    unsigned rows = plan->request->rows;
    rows = rows < 1 ? 1 : rows > ROWS_MOST ? ROWS_MOST : rows;
    bool loose = map->segments.count <= (rows + 1) / 2;
    uint64_t room = (uint64_t)map->columns * rows, end = 0;
    if (!map->one_block_a_cell)
        map->cell_bytes = SMALLEST_CELL;
    while ((end = place_segments(map, loose)) / map->cell_bytes >= room &&
           end > room * map->cell_bytes && map->cell_bytes < UINT64_C(1) << 40)
        map->cell_bytes *= 2;
    map->cell_count = (size_t)(end / map->cell_bytes + (end % map->cell_bytes != 0));
    if (map->cell_count > room)
        return hi_fail(err, HI_UNSUPPORTED, "the heap spans too many addresses to be drawn");
    map->cells = calloc(map->cell_count + 1, sizeof *map->cells);
    return map->cells ? HI_OK : hi_no_memory(err);
}

/* The segment that holds address; segments are in address order. */
static const struct map_segment *segment_at(const struct chunk_map *map, hi_addr address)
{
    size_t low = 0, high = map->segments.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->segments.items[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == map->segments.count || map->segments.items[low].start > address)
        return NULL;
    return &map->segments.items[low];
}

static void add_block(struct chunk_map *map, const struct map_segment *segment, hi_addr start,
                      hi_addr end, enum block_state state)
{
    bool begins = start >= segment->start;
    start = begins ? start : segment->start;
    end = end < segment->end ? end : segment->end;
    if (start >= end)
        return;
    uint64_t from = segment->base + (start - segment->start);
    uint64_t to = segment->base + (end - segment->start);
    if (begins && map->cells[from / map->cell_bytes].starts < UINT32_MAX)
        map->cells[from / map->cell_bytes].starts++;
    while (from < to) {
        size_t cell = (size_t)(from / map->cell_bytes);
        uint64_t cell_end = (uint64_t)(cell + 1) * map->cell_bytes;
        uint64_t stop = cell_end < to ? cell_end : to;
        map->cells[cell].bytes[state] += stop - from;
        from = stop;
    }
}

static void add_region(struct chunk_map *map, const struct plan *plan, const struct region *region)
{
    const struct blocks *blocks = plan->in->heaps->blocks;
    struct hi_range range = clip(plan, region);
    const struct map_segment *segment = segment_at(map, range.start);
    struct block_cursor cursor;
    bool more = segment && blocks_first(blocks, region, &cursor);
    for (; more; more = blocks_next(blocks, &cursor)) {
        if (cursor.address >= range.end)
            break;
        uint64_t bytes = region->shape == REGION_SLAB ? region->stride : cursor.usable;
        hi_addr end = cursor.address + bytes + (region->shape == REGION_CHUNKS ? region->gap : 0);
        if (end > range.start && end > cursor.address)
            add_block(map, segment, cursor.address, end, blocks_state(blocks, cursor.block));
    }
}

static void fill(struct chunk_map *map, const struct plan *plan)
{
    size_t regions = blocks_region_count(plan->in->heaps->blocks);
    for (size_t i = 0; i < regions; i++) {
        const struct region *region = blocks_region(plan->in->heaps->blocks, i);
        if (is_wanted(plan, region))
            add_region(map, plan, region);
    }
}

static enum hi_code aim_at_address(struct plan *plan, struct chunk_map *map, struct hi_err *err)
{
    const struct map_request *r = plan->request;
    const struct region *region = blocks_region_at(plan->in->heaps->blocks, r->address);
    if (!region || region->heap == BLOCKS_NO_HEAP)
        return hi_fail(err, HI_NOT_FOUND,
                       "0x%" PRIx64 " lies in no heap; whatis says what is there", r->address);
    plan->only = region;
    plan->window = (struct hi_range){region->start, region->end};
    uint64_t room = (uint64_t)map->columns * (r->rows ? r->rows : 1);
    map->is_zoomed = true;
    if (region->shape == REGION_SLAB && region->stride && region->count <= room) {
        map->one_block_a_cell = true;
        map->cell_bytes = region->stride;
        plan->window.start = region->first;
        plan->window.end = region->first + (uint64_t)region->count * region->stride;
    } else if ((region->end - region->start) / SMALLEST_CELL > room) {
        uint64_t half = room / 2 * SMALLEST_CELL;
        hi_addr middle = r->address & ~(hi_addr)(SMALLEST_CELL - 1);
        if (middle - region->start > half)
            plan->window.start = middle - half;
        if (region->end - plan->window.start > 2 * half)
            plan->window.end = plan->window.start + 2 * half;
    }
    return HI_OK;
}

static enum hi_code check_arena(const struct plan *plan, struct hi_err *err)
{
    if (!plan->request->has_arena)
        return HI_OK;
    for (size_t i = 0; i < plan->in->heaps->arenas.count; i++)
        if (plan->in->heaps->arenas.items[i].id == plan->request->arena_id)
            return HI_OK;
    return hi_fail(err, HI_NOT_FOUND,
                   "there is no arena %" PRIu64 "; heapinspect arenas lists them",
                   plan->request->arena_id);
}

enum hi_code chunk_map_make(struct chunk_map *map, const struct inspection *in,
                            const struct map_request *request, struct hi_err *err)
{
    struct plan plan = {.in = in, .request = request};
    *map = (struct chunk_map){.columns = request->columns, .cell_bytes = SMALLEST_CELL};
    if (map->columns < 1 || map->columns > COLUMNS_MOST)
        map->columns = map->columns ? COLUMNS_MOST : 1;
    enum hi_code code = arena_index_make(&plan.arenas, in->heaps, err);
    if (code == HI_OK)
        code = check_arena(&plan, err);
    if (code == HI_OK && request->has_address)
        code = aim_at_address(&plan, map, err);
    if (code == HI_OK)
        code = find_segments(map, &plan, err);
    if (code == HI_OK)
        code = choose_scale(map, &plan, err);
    if (code == HI_OK)
        fill(map, &plan);
    arena_index_free(&plan.arenas);
    if (code != HI_OK)
        chunk_map_free(map);
    return code;
}

void chunk_map_free(struct chunk_map *map)
{
    VECTOR_FREE(&map->segments);
    free(map->cells);
    map->cells = NULL;
}

bool chunk_map_address(const struct chunk_map *map, size_t cell, hi_addr *address)
{
    uint64_t coordinate = (uint64_t)cell * map->cell_bytes;
    size_t low = 0, high = map->segments.count; /* the last segment with base <= coordinate */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (map->segments.items[middle].base <= coordinate)
            low = middle;
        else
            high = middle;
    }
    const struct map_segment *segment = &map->segments.items[low];
    uint64_t offset = coordinate - segment->base;
    *address = segment->start + offset;
    return offset < segment->end - segment->start;
}
