/*
 * Walking one range of a himalloc heap: class map, slabs, large blocks.
 *
 * The class map says what each unit is; the record of a first unit says the rest; a slab's bitmap
 * says which of its blocks are free. All three are read forward, each through a window of its own,
 * so that gigabytes of heap cost some hundred reads.
 *
 * What a stopped thread may leave half done is no damage (himalloc_format.h, section 5): a unit
 * with the code of a slab whose record names another first unit is a slab being made or released,
 * so free; units behind no head are a large block being made, cut or freed.
 *
 * What contradicts the format is a finding at the address of the thing that is wrong, and the walk
 * goes on at the next unit. A slab that can't be believed (record or bitmap unreadable, class and
 * count at odds) is pushed as one live block of its whole extent that may be pointed into anywhere:
 * what it holds stays reachable, at the price that a leak in it is not seen. Its arena is damaged.
 *
 * Bounds: units are walked only where the target has mappings, so their number is at most the
 * mapped bytes of the target divided by a unit (4 KiB or more), and those in use at most the
 * readable bytes (a reserved range maps far more than it holds); ranges that overlap an earlier one
 * are not walked.
 */
#include "heap/himalloc_walk.h"

#include <inttypes.h>

enum { CODES_PAGE = 4096 };

static uint64_t number(const struct walk *walk, enum schema_field field, const void *record)
{
    return schema_number(&walk->heap->schema, field, record);
}

static hi_addr unit_address(const struct walk *walk, uint64_t unit)
{
    return walk->base + (unit << walk->heap->unit_shift);
}

static const void *unit_record(struct walk *walk, uint64_t unit)
{
    size_t stride = walk->heap->schema.stride[S_UNIT];
    return himalloc_window_at(&walk->units_window, walk->units + unit * stride, stride);
}

static hi_addr unit_record_address(const struct walk *walk, uint64_t unit)
{
    return walk->units + unit * walk->heap->schema.stride[S_UNIT];
}

/* The code of a unit; -1: unreadable. */
static int unit_code(struct walk *walk, uint64_t unit)
{
    const unsigned char *code = himalloc_window_at(&walk->codes_window, walk->codes + unit, 1);
    return code ? *code : -1;
}

/* Free units are nobody's nodes and no roots; they are not metadata bytes either. */
static bool free_span_end(struct walk *walk, uint64_t unit)
{
    hi_addr start = walk->free_start, end = unit_address(walk, unit);
    walk->free_start = 0;
    if (start == 0 || end <= start)
        return true;
    bool more = sink_metadata(walk->sink, start, end);
    walk->free_bytes += end - start;
    return more;
}

static void free_span_begin(struct walk *walk, uint64_t unit)
{
    if (walk->free_start == 0)
        walk->free_start = unit_address(walk, unit);
}

static struct himalloc_arena *walk_arena(struct walk *walk, uint64_t arena, hi_addr record)
{
    struct himalloc *heap = walk->heap;
    if (arena < heap->arena_table.count && heap->arena_table.items[arena].index != UINT32_MAX)
        return &heap->arena_table.items[arena];
    sink_finding(walk->sink, "a block's arena exists", record, "arena %" PRIu64 " of %zu", arena,
                 heap->arena_table.count);
    return NULL;
}

/* Something of units [unit, unit + count) is wrong: one block that anything in it holds. */
static bool push_damaged(struct walk *walk, uint64_t unit, uint64_t count, uint64_t arena)
{
    struct region region = {.start = unit_address(walk, unit),
                            .end = unit_address(walk, unit + count),
                            .first = unit_address(walk, unit),
                            .count = 1,
                            .usable = count << walk->heap->unit_shift,
                            .arena = himalloc_arena_index(walk->heap, arena),
                            .shape = REGION_SINGLE,
                            .interior_ok = true};
    struct arena *shown = sink_arena_at(walk->sink, region.arena);
    if (shown)
        shown->state = ARENA_DAMAGED;
    walk->heap->damaged++;
    return sink_region(walk->sink, &region, NULL);
}

enum { SHORT_BITMAP_WORDS = 16 }; /* a guess that costs time alone when it is wrong */

/* The slab's live bits from its bitmap (set = free); false: unreadable. */
static bool slab_live_bits(struct walk *walk, hi_addr bitmap, uint32_t count, uint64_t *free_count,
                           bool *tail_is_clear)
{
    size_t words = ((size_t)count + 63) / 64;
    struct window *window = &walk->bitmaps_windows[words > SHORT_BITMAP_WORDS];
    const void *bits = himalloc_window_at(window, bitmap, words * 8);
    if (!bits)
        return false;
    memcpy(walk->live, bits, words * 8);
    uint64_t tail = count % 64 ? ~UINT64_C(0) << count % 64 : 0;
    *tail_is_clear = (walk->live[words - 1] & tail) == 0;
    *free_count = 0;
    for (size_t i = 0; i < words; i++) {
        uint64_t mask = i == words - 1 ? ~tail : ~UINT64_C(0);
        *free_count += (uint64_t)__builtin_popcountll(walk->live[i] & mask);
        walk->live[i] = ~walk->live[i] & mask;
    }
    return true;
}

/* What was allocated while the program wanted no leaks told. */
static bool push_ignored(struct walk *walk, const struct region *region, uint64_t arena)
{
    return !himalloc_arena_is(walk->heap, arena, HIMALLOC_ARENA_IGNORED) ||
           sink_held(walk->sink, region->start, region->end, "ignored block");
}

static bool push_slab(struct walk *walk, uint64_t unit, const struct himalloc_class *class,
                      uint64_t arena)
{
    struct region region = {.start = unit_address(walk, unit),
                            .end = unit_address(walk, unit + class->slab_units),
                            .first = unit_address(walk, unit),
                            .stride = class->block_bytes,
                            .count = class->block_count,
                            .usable = class->block_bytes,
                            .slack = class->slack,
                            .arena = himalloc_arena_index(walk->heap, arena),
                            .shape = REGION_SLAB};
    return sink_region(walk->sink, &region, walk->live) && push_ignored(walk, &region, arena) &&
           himalloc_notes_take(walk, unit, class, arena);
}

/* What a first unit's record says, against its code. NULL: in order. */
static const char *slab_fault(const struct walk *walk, const void *record, uint64_t unit,
                              uint32_t class_index)
{
    if (number(walk, F_UNIT_head, record) != unit)
        return "a unit names its slab's first unit";
    if (number(walk, F_UNIT_class_index, record) != class_index)
        return "a slab's class is that of its code";
    if (number(walk, F_UNIT_block_count, record) != walk->heap->classes[class_index].block_count)
        return "a slab's block count is that of its class";
    return NULL;
}

static bool slab_sound(struct walk *walk, uint64_t unit, uint32_t class_index, const void *record)
{
    const struct himalloc_class *class = &walk->heap->classes[class_index];
    hi_addr record_address = unit_record_address(walk, unit);
    uint64_t arena_number = number(walk, F_UNIT_arena, record), free_count;
    uint64_t said = number(walk, F_UNIT_free_count, record);
    hi_addr bitmap = number(walk, F_UNIT_bitmap, record);
    bool tail_is_clear;
    struct himalloc_arena *arena = walk_arena(walk, arena_number, record_address);
    if (!slab_live_bits(walk, bitmap, class->block_count, &free_count, &tail_is_clear))
        return sink_finding(walk->sink, "a slab's bitmap can be read", bitmap, "slab 0x%" PRIx64,
                            unit_address(walk, unit)) &&
               push_damaged(walk, unit, class->slab_units, arena_number);
    if (!tail_is_clear && !sink_finding(walk->sink, "bits behind a slab's last block are 0", bitmap,
                                        "slab 0x%" PRIx64 " has %u blocks",
                                        unit_address(walk, unit), class->block_count))
        return false;
    walk->heap->walked_slabs++;
    walk->heap->walked_free += free_count;
    walk->heap->said_free += said;
    if (arena) {
        arena->walked_slabs++;
        arena->system_bytes += (uint64_t) class->slab_units << walk->heap->unit_shift;
    }
    return push_slab(walk, unit, class, arena_number);
}

/* A further unit whose first one does not carry the code (yet, or any more): being made or
 * released. Had it the code, the walk would have covered this unit with it. */
static bool is_in_the_making(const struct walk *walk, uint64_t unit,
                             const struct himalloc_class *class, const void *record)
{
    uint64_t head = number(walk, F_UNIT_head, record);
    return head < unit && unit - head < class->slab_units;
}

/* A unit with a slab's code. *next: where the walk goes on. */
static bool walk_slab(struct walk *walk, uint64_t unit, uint32_t class_index, uint64_t *next)
{
    const struct himalloc_class *class = &walk->heap->classes[class_index];
    *next = unit + 1;
    if (class_index >= walk->heap->class_count || class->slab_units == 0)
        return free_span_end(walk, unit) &&
               sink_finding(walk->sink, "class map codes name a class", walk->codes + unit,
                            "class %u of %u", class_index, walk->heap->class_count) &&
               push_damaged(walk, unit, 1, 0);
    const void *record = unit_record(walk, unit);
    hi_addr record_address = unit_record_address(walk, unit);
    if (record && is_in_the_making(walk, unit, class, record)) {
        free_span_begin(walk, unit);
        return true;
    }
    if (!free_span_end(walk, unit))
        return false;
    uint64_t units = class->slab_units;
    if (units > walk->end - unit) {
        units = walk->end - unit;
        record = NULL;
    }
    *next = unit + units;
    const char *fault =
        record ? slab_fault(walk, record, unit, class_index) : "a slab has a record";
    if (fault)
        return sink_finding(walk->sink, fault, record_address, "slab 0x%" PRIx64 " of class %u",
                            unit_address(walk, unit), class_index) &&
               push_damaged(walk, unit, units, 0);
    return slab_sound(walk, unit, class_index, record);
}

/* Units with the code of further units behind a head, at most `most`. */
static uint64_t large_extent(struct walk *walk, uint64_t unit, uint64_t most)
{
    uint64_t count = 1;
    while (count < most && unit_code(walk, unit + count) == (int)walk->heap->codes.large_rest)
        count++;
    return count;
}

static bool sized_add(struct walk *walk, const struct himalloc_sized *large)
{
    struct himalloc_sized *sized = VECTOR_PUSH(&walk->heap->sized);
    if (sized)
        *sized = *large;
    walk->shown->blocks_with_stack += large->stack != 0;
    return sized != NULL;
}

bool himalloc_push_large(struct walk *walk, struct region *region, uint64_t requested,
                         uint32_t stack, uint64_t arena)
{
    struct himalloc_sized large = {.address = region->first,
                                   .requested = requested <= region->usable ? requested : 0,
                                   .stack = stack,
                                   .is_sampled = himalloc_is_sample(walk, arena)};
    uint64_t slack = region->usable > requested ? region->usable - requested : 0;
    region->count = 1;
    region->shape = REGION_SINGLE;
    region->slack = slack > UINT32_MAX ? UINT32_MAX : (uint32_t)slack;
    region->end_unasked = requested > 0 && slack > 0;
    if ((large.requested || large.stack) && !sized_add(walk, &large))
        return false;
    return sink_region(walk->sink, region, NULL) && push_ignored(walk, region, arena);
}

/* A large block. While it grows or is cut, usable_bytes may reach beyond unit_count for a moment;
 * units that carry no code of its own are never part of it. */
static bool walk_large(struct walk *walk, uint64_t unit, uint64_t *next)
{
    unsigned shift = walk->heap->unit_shift;
    const void *record = unit_record(walk, unit);
    hi_addr record_address = unit_record_address(walk, unit), start = unit_address(walk, unit);
    *next = unit + 1;
    if (!free_span_end(walk, unit))
        return false;
    if (!record)
        return sink_finding(walk->sink, "a large block has a record", record_address,
                            "block 0x%" PRIx64, start) &&
               push_damaged(walk, unit, large_extent(walk, unit, walk->end - unit), 0);
    uint64_t units = number(walk, F_UNIT_unit_count, record);
    uint64_t usable = number(walk, F_UNIT_usable_bytes, record);
    uint64_t requested = number(walk, F_UNIT_requested_bytes, record);
    uint64_t arena_number = number(walk, F_UNIT_arena, record), left = walk->end - unit;
    uint64_t wanted = usable >> shift;
    wanted += (wanted << shift) < usable;
    wanted = wanted > units ? wanted : units;
    uint64_t extent = large_extent(walk, unit, wanted > left ? left : wanted);
    bool sound = units > 0 && units <= extent && usable > 0 && usable <= extent << shift;
    *next = unit + extent;
    if (!sound)
        return sink_finding(walk->sink, "a large block fits its units", record_address,
                            "block 0x%" PRIx64 ": %" PRIu64 " bytes, %" PRIu64 " units, %" PRIu64
                            " coded",
                            start, usable, units, extent) &&
               push_damaged(walk, unit, extent, arena_number);
    struct himalloc_arena *arena = walk_arena(walk, arena_number, record_address);
    if (arena) {
        arena->walked_large_units += units;
        arena->system_bytes += extent << shift;
    }
    struct region region = {.start = start,
                            .end = unit_address(walk, unit + extent),
                            .first = start,
                            .usable = usable,
                            .arena = himalloc_arena_index(walk->heap, arena_number)};
    return himalloc_push_large(walk, &region, requested, himalloc_note_large(walk, unit),
                               arena_number);
}

/* One unit of the class map, and what it heads. */
static bool walk_unit(struct walk *walk, uint64_t unit, uint64_t *next)
{
    const struct himalloc_codes *codes = &walk->heap->codes;
    int read = unit_code(walk, unit);
    uint32_t code = (uint32_t)read;
    if (read < 0) {
        *next = unit + (CODES_PAGE - (walk->codes + unit) % CODES_PAGE);
        return free_span_end(walk, unit) &&
               sink_finding(walk->sink, "the class map can be read", walk->codes + unit,
                            "unit 0x%" PRIx64, unit_address(walk, unit));
    }
    *next = unit + 1;
    if (code == codes->free || code == codes->purging || code == codes->large_rest) {
        free_span_begin(walk, unit);
        return true;
    }
    if (walk->units_left == 0) {
        *next = walk->end;
        return free_span_end(walk, unit) &&
               sink_finding(walk->sink, "units in use fit into memory", walk->codes + unit,
                            "unit 0x%" PRIx64 " is beyond it", unit_address(walk, unit));
    }
    walk->units_left--;
    if (code == codes->large_head)
        return walk_large(walk, unit, next);
    if (code >= codes->slab_first && code <= codes->slab_last)
        return walk_slab(walk, unit, code - codes->slab_first + 1, next);
    if (code >= codes->named_first && code <= codes->named_last)
        return walk_slab(walk, unit, code - codes->named_first + 1, next);
    return free_span_end(walk, unit) &&
           sink_finding(walk->sink, "class map codes are known", walk->codes + unit,
                        "code %u of unit 0x%" PRIx64, code, unit_address(walk, unit)) &&
           push_damaged(walk, unit, 1, 0);
}

/* Units [first, end), all of them in mappings. */
static bool walk_units(struct walk *walk, uint64_t first, uint64_t end)
{
    walk->end = end;
    for (uint64_t unit = first; unit < end;) {
        uint64_t next;
        if (!walk_unit(walk, unit, &next))
            return false;
        unit = next < end ? next : end;
    }
    return free_span_end(walk, end);
}

static bool walk_mapped(struct walk *walk, uint64_t top)
{
    unsigned shift = walk->heap->unit_shift;
    hi_addr at = walk->base, end = unit_address(walk, top);
    struct hi_range extent;
    while (at < end && himalloc_extent(walk->target, at, end, 0, &extent)) {
        uint64_t unit = (extent.start - walk->base + (UINT64_C(1) << shift) - 1) >> shift;
        uint64_t stop = (extent.end - walk->base) >> shift;
        if (unit < stop && !walk_units(walk, unit, stop))
            return false;
        at = extent.end;
    }
    return true;
}

/* The parts of [start, end) that the target has, pushed as metadata. */
static bool push_readable(struct walk *walk, hi_addr start, hi_addr end)
{
    struct hi_range extent;
    while (start < end && himalloc_extent(walk->target, start, end, MAPPING_READ, &extent)) {
        if (!sink_metadata(walk->sink, extent.start, extent.end))
            return false;
        start = extent.end;
    }
    return true;
}

/* What is committed behind the last unit in use: free, neither nodes nor metadata. */
static bool push_unused(struct walk *walk, hi_addr start, hi_addr end)
{
    uint64_t before = walk->shown->metadata_bytes;
    bool more = push_readable(walk, start, end);
    walk->free_bytes += walk->shown->metadata_bytes - before;
    return more;
}

/* Addresses that are reserved and nobody else's, without memory behind them: claimed, so that they
 * are no nodes (a quarter of a terabyte takes a while to be found empty), and not counted. */
static bool push_reserved(struct walk *walk, hi_addr start, hi_addr end)
{
    uint64_t before = walk->shown->metadata_bytes;
    bool more = sink_metadata(walk->sink, start, end);
    walk->shown->metadata_bytes = before;
    return more;
}

/* Notes are reserved as large as the range: what was read of them counts as bytes. */
static bool push_notes(struct walk *walk)
{
    const struct note_window *notes = &walk->notes;
    if (notes->start == 0)
        return true;
    walk->shown->metadata_bytes += notes->read_bytes;
    return push_reserved(walk, notes->start, notes->end);
}

bool himalloc_walk_range(struct walk *walk, hi_addr record_address, const void *record,
                         struct hi_range *covered)
{
    unsigned shift = walk->heap->unit_shift;
    uint64_t units = number(walk, F_RANGE_unit_count, record);
    uint64_t top = number(walk, F_RANGE_top_index, record);
    hi_addr mapping_start = number(walk, F_RANGE_mapping_start, record);
    walk->base = number(walk, F_RANGE_base, record);
    walk->codes = number(walk, F_RANGE_codes, record);
    walk->units = number(walk, F_RANGE_units, record);
    walk->free_start = 0;
    *covered = (struct hi_range){0, 0};
    uint64_t room = walk->base < HIMALLOC_ADDRESS_END ? HIMALLOC_ADDRESS_END - walk->base : 0;
    if (walk->base == 0 || units == 0 || units > room >> shift || top > units ||
        walk->codes >= HIMALLOC_ADDRESS_END || walk->units >= HIMALLOC_ADDRESS_END)
        return sink_finding(walk->sink, "a range lies in the address space", record_address,
                            "base 0x%" PRIx64 ", %" PRIu64 " units, %" PRIu64 " used", walk->base,
                            units, top);
    if (!himalloc_notes_begin(walk, record_address, record, units, top))
        return false;
    *covered = (struct hi_range){walk->base, unit_address(walk, units)};
    if (mapping_start > walk->base)
        return sink_finding(walk->sink, "a range's metadata lies before it", record_address,
                            "0x%" PRIx64 " after 0x%" PRIx64, mapping_start, walk->base) &&
               walk_mapped(walk, top);
    return walk_mapped(walk, top) && push_readable(walk, mapping_start, walk->base) &&
           push_reserved(walk, mapping_start, walk->base) && push_notes(walk) &&
           push_reserved(walk, unit_address(walk, top), covered->end) &&
           push_unused(walk, unit_address(walk, top), covered->end);
}
