/*
 * What the program said of addresses (himalloc.h): a block is no leak, a range is a root, a block
 * has a word for it. Read after the blocks are numbered, since a remark may name any place of a
 * block.
 *
 * A remark about an address where no live block is any more says nothing: programs need not take
 * back what they said before they free. Damage: an address that is no block's changes nothing, and
 * a root's length is cut at the end of the address space; what is not mapped is not searched.
 */
#include "heap/himalloc_walk.h"

#include "allocator/himalloc_format.h"

#include <inttypes.h>

/* The live block around address, and its end; 0: there is none. */
static hi_addr live_block(const struct blocks *blocks, hi_addr address, hi_addr *end)
{
    struct block_place place;
    const struct region *region = blocks_region_at(blocks, address);
    if (!region || region->shape == REGION_NODE || !blocks_at(blocks, address, &place) ||
        !blocks_is_live(blocks, place.block))
        return 0;
    hi_addr start = blocks_address(blocks, place.block);
    *end = start + blocks_usable(blocks, place.block);
    return start;
}

static bool tag_add(struct himalloc *own, const void *record, hi_addr block)
{
    if (block == 0)
        return true;
    struct himalloc_tag *tag = VECTOR_PUSH(&own->stacks.tags);
    if (!tag)
        return false;
    tag->address = block;
    schema_text(&own->schema, F_REMARK_text, record, tag->text, sizeof tag->text);
    return true;
}

/* What is mapped of [start, end). */
static bool root_add(struct target *target, struct heap_sink *sink, hi_addr start, hi_addr end)
{
    struct hi_range extent;
    while (start < end && himalloc_extent(target, start, end, MAPPING_READ, &extent)) {
        if (!sink_held(sink, extent.start, extent.end, "root region"))
            return false;
        start = extent.end;
    }
    return true;
}

static bool remark_take(struct himalloc *own, struct target *target, struct heap_sink *sink,
                        const void *record)
{
    const struct schema *schema = &own->schema;
    const struct blocks *blocks = sink_heaps(sink)->blocks;
    hi_addr address = schema_number(schema, F_REMARK_address, record), end = 0;
    uint64_t bytes = schema_number(schema, F_REMARK_bytes, record);
    hi_addr block = live_block(blocks, address, &end);
    switch (schema_number(schema, F_REMARK_kind, record)) {
    case HM_REMARK_IGNORE:
        return block == 0 || sink_held(sink, block, end, "ignored block");
    case HM_REMARK_ROOT:
        if (address >= HIMALLOC_ADDRESS_END)
            return true;
        if (bytes > HIMALLOC_ADDRESS_END - address)
            bytes = HIMALLOC_ADDRESS_END - address;
        return root_add(target, sink, address, address + bytes);
    case HM_REMARK_TAG:
        return tag_add(own, record, block);
    default:
        return true;
    }
}

static int tag_order(const void *a, const void *b)
{
    const struct himalloc_tag *x = a, *y = b;
    return x->address < y->address ? -1 : x->address > y->address;
}

bool himalloc_remarks_read(struct himalloc *own, struct target *target, struct heap_sink *sink)
{
    size_t stride = own->schema.stride[S_REMARK];
    struct window window;
    struct hi_err err;
    bool more = true;
    if (own->remarks == 0 || own->remark_count == 0 || stride == 0 ||
        !schema_has(&own->schema, F_REMARK_text))
        return true;
    if (himalloc_window_open(&window, target, &err) != HI_OK)
        return false;
    for (uint64_t i = 0; more && i < own->remark_count; i++) {
        hi_addr address = own->remarks + i * stride;
        const void *record = himalloc_window_at(&window, address, stride);
        if (!record) {
            more = sink_finding(sink, "the program's remarks can be read", address,
                                "%" PRIu64 " of %" PRIu64, i, own->remark_count);
            break;
        }
        more = remark_take(own, target, sink, record);
    }
    himalloc_window_close(&window);
    if (own->stacks.tags.count)
        qsort(own->stacks.tags.items, own->stacks.tags.count, sizeof *own->stacks.tags.items,
              tag_order);
    return more;
}

const char *himalloc_tag_of(const struct himalloc_stacks *stacks, hi_addr block)
{
    struct himalloc_tag key = {.address = block};
    if (!stacks->tags.count)
        return NULL;
    const struct himalloc_tag *tag =
        bsearch(&key, stacks->tags.items, stacks->tags.count, sizeof key, tag_order);
    return tag ? tag->text : NULL;
}
