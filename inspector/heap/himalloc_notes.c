/*
 * What himalloc remembers of each block: who allocated it, who freed it, how many bytes were asked
 * for (himalloc_format.h, "note").
 *
 * Notes lie in tables of their own, one a block, beside each range. The tables are as sparse as the
 * heap: a stride of them a unit, of which a slab uses as many as it has blocks, and with sampled
 * stacks most of it was never touched. So the walk asks for the touched parts first and reads only
 * these: reading an untouched page would make page tables in the target. What is kept is 12 bytes a
 * block, up to the last one of a slab that has a note, and nothing for slabs without any.
 *
 * Notes of automatic slabs are to be believed in full mode only: else they are what was left from
 * when it was on.
 *
 * Look-up is by address: slabs sorted by start, the last one found tried first, since lists and
 * totals ask in address order.
 *
 * Damage: a note is three numbers. A stack that leads nowhere has no frames, a requested size that
 * does not fit its block is not used; more can't come of it.
 */
#include "heap/himalloc_walk.h"

#include <inttypes.h>

enum { NOTE_BUFFER_BYTES = 256 << 10 };

bool himalloc_notes_reserve(struct himalloc_stacks *stacks, size_t count)
{
    if (count <= stacks->note_capacity - stacks->note_count)
        return true;
    size_t wanted = stacks->note_capacity * 2 + 4096;
    while (wanted - stacks->note_count < count)
        wanted *= 2;
    struct himalloc_note *grown = realloc(stacks->notes, wanted * sizeof *grown);
    if (!grown)
        return false;
    stacks->notes = grown;
    stacks->note_capacity = wanted;
    return true;
}

/* -- reading ---------------------------------------------------------------------------------- */

bool himalloc_notes_begin(struct walk *walk, hi_addr record_address, const void *record,
                          uint64_t units, uint64_t top)
{
    const struct schema *schema = &walk->heap->schema;
    struct note_window *window = &walk->notes;
    hi_addr start = schema_number(schema, F_RANGE_notes, record);
    uint64_t stride = schema_number(schema, F_RANGE_note_stride, record), bytes;
    window->start = window->end = window->used_end = 0;
    window->content_count = window->content = window->buffer_bytes = 0;
    window->read_bytes = 0;
    if (start == 0 || schema->stride[S_NOTE] == 0 || !schema_has(schema, F_NOTE_stack))
        return true;
    if (__builtin_mul_overflow(stride, units, &bytes) || bytes == 0 ||
        start >= HIMALLOC_ADDRESS_END || bytes > HIMALLOC_ADDRESS_END - start)
        return sink_finding(walk->sink, "a range's notes lie in the address space", record_address,
                            "0x%" PRIx64 ", %" PRIu64 " bytes a unit", start, stride);
    window->target = walk->target;
    window->start = window->asked = start;
    window->end = start + bytes;
    window->used_end = start + stride * top; /* top <= units */
    window->unit_bytes = stride;
    return true;
}

/* The next touched part of [from, end), if there is one. */
static bool content_at(struct note_window *window, hi_addr from, hi_addr end,
                       struct hi_range *content)
{
    enum { MOST = sizeof window->contents / sizeof *window->contents };
    for (;;) {
        while (window->content < window->content_count &&
               window->contents[window->content].end <= from)
            window->content++;
        if (window->content < window->content_count || window->asked >= end)
            break;
        hi_addr ask = window->asked > from ? window->asked : from;
        window->content = 0;
        window->content_count =
            target_contents(window->target, ask, window->used_end, window->contents, MOST);
        window->asked =
            window->content_count == MOST ? window->contents[MOST - 1].end : window->used_end;
    }
    if (window->content == window->content_count || window->contents[window->content].start >= end)
        return false;
    *content = window->contents[window->content];
    content->start = content->start > from ? content->start : from;
    return content->start < content->end;
}

/* Bytes at address, all of them in the content; NULL: they can't be read. */
static const unsigned char *buffer_at(struct note_window *window, hi_addr address, size_t count,
                                      hi_addr content_end)
{
    uint64_t offset = address - window->buffer_start;
    if (address >= window->buffer_start && offset <= window->buffer_bytes &&
        count <= window->buffer_bytes - offset)
        return window->buffer + offset;
    uint64_t left = content_end - address;
    size_t wanted = left < NOTE_BUFFER_BYTES ? (size_t)left : NOTE_BUFFER_BYTES;
    if (!window->buffer && !(window->buffer = malloc(NOTE_BUFFER_BYTES)))
        return NULL;
    window->buffer_start = address;
    window->buffer_bytes = target_read_some(window->target, address, window->buffer, wanted);
    return window->buffer_bytes >= count ? window->buffer : NULL;
}

/* [from, from + bytes) into a buffer of zeros; false: nothing was ever written there. */
static bool notes_copy(struct note_window *window, hi_addr from, unsigned char *to, size_t bytes)
{
    hi_addr at = from, end = from + bytes;
    struct hi_range content;
    bool any = false;
    while (at < end && content_at(window, at, end, &content)) {
        hi_addr stop = content.end < end ? content.end : end;
        while (content.start < stop) {
            uint64_t left = stop - content.start;
            size_t part = left < NOTE_BUFFER_BYTES ? (size_t)left : NOTE_BUFFER_BYTES;
            const unsigned char *read = buffer_at(window, content.start, part, content.end);
            if (read)
                memcpy(to + (content.start - from), read, part);
            *(read ? &window->read_bytes : &window->missing_bytes) += part;
            any |= read != NULL;
            content.start += part;
        }
        at = stop;
    }
    return any;
}

static struct himalloc_note note_decode(const struct schema *schema, const void *record)
{
    return (struct himalloc_note){(uint32_t)schema_number(schema, F_NOTE_stack, record),
                                  (uint32_t)schema_number(schema, F_NOTE_freed, record),
                                  (uint32_t)schema_number(schema, F_NOTE_requested, record)};
}

/* Decoded straight to the end of the table, and given up again behind the last one that says
 * something: how many stay; UINT32_MAX: memory is out. */
static uint32_t notes_store(struct walk *walk, const unsigned char *records, uint32_t count)
{
    struct himalloc_stacks *stacks = &walk->heap->stacks;
    const struct schema *schema = &walk->heap->schema;
    size_t record_bytes = schema->stride[S_NOTE];
    uint32_t used = 0, known = 0;
    if (!himalloc_notes_reserve(stacks, count))
        return UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        struct himalloc_note note = note_decode(schema, records + i * record_bytes);
        stacks->notes[stacks->note_count + i] = note;
        used = note.stack ? i + 1 : used;
        known += note.stack != 0;
    }
    walk->shown->blocks_with_stack += known;
    return used;
}

static bool noted_add(struct walk *walk, const struct himalloc_noted *slab,
                      const unsigned char *records)
{
    struct himalloc_stacks *stacks = &walk->heap->stacks;
    uint32_t used = notes_store(walk, records, slab->count);
    if (used == 0 || used == UINT32_MAX)
        return used == 0;
    struct himalloc_noted *noted = VECTOR_PUSH(&stacks->noted);
    if (!noted)
        return false;
    *noted = *slab;
    noted->count = used;
    noted->first = stacks->note_count;
    stacks->note_count += used;
    return true;
}

bool himalloc_notes_take(struct walk *walk, uint64_t unit, const struct himalloc_class *class,
                         uint64_t arena)
{
    struct note_window *window = &walk->notes;
    size_t bytes = (size_t) class->block_count * walk->heap->schema.stride[S_NOTE];
    bool believed = walk->shown->stacks == HEAP_STACKS_FULL ||
                    !himalloc_arena_is(walk->heap, arena, HIMALLOC_ARENA_AUTOMATIC);
    if (!believed || window->start == 0 || bytes > class->slab_units * window->unit_bytes)
        return true;
    hi_addr from = window->start + unit * window->unit_bytes;
    struct hi_range content;
    if (from >= window->used_end || bytes > window->used_end - from ||
        !content_at(window, from, from + bytes, &content))
        return true;
    struct himalloc_noted slab = {.start = walk->base + (unit << walk->heap->unit_shift),
                                  .stride = class->block_bytes,
                                  .count = class->block_count,
                                  .is_sampled = himalloc_is_sample(walk, arena)};
    unsigned char *records = calloc(1, bytes);
    bool fine =
        records && (!notes_copy(window, from, records, bytes) || noted_add(walk, &slab, records));
    free(records);
    return fine;
}

uint32_t himalloc_note_large(struct walk *walk, uint64_t unit)
{
    struct note_window *window = &walk->notes;
    const struct schema *schema = &walk->heap->schema;
    unsigned char record[256] = {0};
    size_t bytes = schema->stride[S_NOTE];
    if (window->start == 0 || bytes > sizeof record || bytes > window->unit_bytes)
        return 0;
    hi_addr from = window->start + unit * window->unit_bytes;
    if (from >= window->used_end || !notes_copy(window, from, record, bytes))
        return 0;
    return note_decode(schema, record).stack;
}

/* -- asking ----------------------------------------------------------------------------------- */

static int noted_order(const void *a, const void *b)
{
    const struct himalloc_noted *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

void himalloc_notes_settle(struct himalloc_stacks *stacks)
{
    if (stacks->noted.count)
        qsort(stacks->noted.items, stacks->noted.count, sizeof *stacks->noted.items, noted_order);
}

static bool noted_holds(const struct himalloc_noted *noted, hi_addr block)
{
    return block >= noted->start && (block - noted->start) / noted->stride < noted->count;
}

static const struct himalloc_note *note_in(const struct himalloc_stacks *stacks,
                                           const struct himalloc_noted *noted, hi_addr block)
{
    if (!noted_holds(noted, block))
        return NULL;
    const struct himalloc_note *note =
        &stacks->notes[noted->first + (block - noted->start) / noted->stride];
    return note->stack ? note : NULL;
}

/* The slab that starts at or before block; count: none. */
static size_t noted_before(const struct himalloc_stacks *stacks, hi_addr block)
{
    size_t low = 0, high = stacks->noted.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (stacks->noted.items[middle].start <= block)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? low - 1 : stacks->noted.count;
}

const struct himalloc_note *himalloc_note_of(struct himalloc_stacks *stacks, hi_addr block)
{
    const struct himalloc_noted *items = stacks->noted.items;
    size_t count = stacks->noted.count;
    bool near = stacks->last < count && block >= items[stacks->last].start &&
                (stacks->last + 1 == count || block < items[stacks->last + 1].start);
    if (!near)
        stacks->last = noted_before(stacks, block);
    return stacks->last < count ? note_in(stacks, &items[stacks->last], block) : NULL;
}

int himalloc_sized_order(const void *a, const void *b)
{
    const struct himalloc_sized *x = a, *y = b;
    return x->address < y->address ? -1 : x->address > y->address;
}

static const struct himalloc_sized *sized_of(const struct himalloc *own, hi_addr block)
{
    struct himalloc_sized key = {.address = block};
    if (!own->sized.count)
        return NULL;
    return bsearch(&key, own->sized.items, own->sized.count, sizeof key, himalloc_sized_order);
}

enum hi_code himalloc_detail(const struct heap_context *context, struct heap *heap, hi_addr block,
                             struct heap_detail *detail, struct hi_err *err)
{
    (void)context, (void)err;
    struct himalloc *own = heap->state;
    const struct himalloc_note *note = himalloc_note_of(&own->stacks, block);
    const struct himalloc_sized *sized = sized_of(own, block);
    if (sized) {
        detail->has_requested = sized->requested > 0;
        detail->requested = sized->requested;
        detail->stack_id = sized->stack;
        detail->is_sampled = sized->is_sampled;
    } else if (note) {
        detail->has_requested = true;
        detail->requested = note->requested;
        detail->stack_id = note->stack;
        detail->freed_stack_id = note->freed;
        detail->is_sampled = own->stacks.noted.items[own->stacks.last].is_sampled;
    }
    detail->tag = himalloc_tag_of(&own->stacks, block);
    return HI_OK;
}

/* One slab: its notes once, against the live plane. */
static uint64_t slab_spare(const struct himalloc_stacks *stacks, const struct blocks *blocks,
                           const struct region *region)
{
    size_t at = noted_before(stacks, region->first);
    const struct himalloc_noted *noted = at < stacks->noted.count ? &stacks->noted.items[at] : NULL;
    if (!noted || noted->start != region->first)
        return 0;
    const struct himalloc_note *notes = &stacks->notes[noted->first];
    const uint64_t *plane = blocks_live_plane(blocks);
    uint64_t spare = 0;
    for (uint32_t i = 0; i < noted->count && i < region->count; i++) {
        hi_block block = region->base + i;
        if (notes[i].stack && notes[i].requested <= region->usable &&
            plane[block >> 6] >> (block & 63) & 1)
            spare += region->usable - notes[i].requested;
    }
    return spare;
}

uint64_t himalloc_spare(const struct heap *heap, const struct blocks *blocks,
                        const struct region *region)
{
    const struct himalloc *own = heap->state;
    if (region->shape == REGION_SLAB)
        return slab_spare(&own->stacks, blocks, region);
    const struct himalloc_sized *sized =
        region->shape == REGION_SINGLE && blocks_is_live(blocks, region->base)
            ? sized_of(own, region->first)
            : NULL;
    return sized && sized->requested > 0 && sized->requested <= region->usable
               ? region->usable - sized->requested
               : 0;
}
