/*
 * The sink: where readers push what they find.
 *
 * It stands between code that believes a damaged heap and a table that must stay sound. What comes
 * in is checked here against what is already known: a region that contradicts itself or overlaps an
 * earlier one, an arena number that does not exist, a cached address that is no block's start
 * become findings, and the walk goes on. Only two things end a walk: our memory is out, or the user
 * wants out. Then every function returns false from that moment on, and sink->code says why.
 *
 * Bounds: findings are kept up to HEAPS_MAX_FINDINGS and counted beyond. Regions can't overlap, so
 * their number is bounded by the bytes of the target; arenas and metadata ranges are bounded here.
 */
#include "heap/sink.h"

#include <stdarg.h>
#include <stdio.h>

enum { SINK_MAX_ARENAS = 1 << 20, SINK_MAX_METADATA = 1 << 24 };

static bool sink_stop(struct heap_sink *sink, enum hi_code code)
{
    if (sink->code == HI_OK) {
        sink->code = code;
        if (code == HI_NO_MEMORY)
            hi_no_memory(sink->err);
        else if (code == HI_STOPPED)
            hi_fail(sink->err, code, "interrupted while reading the heap");
    }
    return false;
}

static bool sink_goes_on(struct heap_sink *sink)
{
    if (sink->code != HI_OK)
        return false;
    if (progress_stopped(sink->progress))
        return sink_stop(sink, HI_STOPPED);
    return true;
}

uint32_t sink_arena(struct heap_sink *sink, const struct arena *arena)
{
    struct heaps *heaps = sink->heaps;
    if (heaps->arenas.count - sink->arenas_before >= SINK_MAX_ARENAS)
        return SINK_MAX_ARENAS - 1;
    struct arena *stored = VECTOR_PUSH(&heaps->arenas);
    if (!stored) {
        sink_stop(sink, HI_NO_MEMORY);
        return 0;
    }
    *stored = *arena;
    stored->heap = (uint16_t)sink->heap;
    return (uint32_t)(heaps->arenas.count - 1 - sink->arenas_before);
}

struct arena *sink_arena_at(struct heap_sink *sink, uint32_t index)
{
    size_t own = sink->heaps->arenas.count - sink->arenas_before;
    return index < own ? &sink->heaps->arenas.items[sink->arenas_before + index] : NULL;
}

/* What the table said about a region or chunk: refused input is a finding, all else ends it. */
static bool sink_accepted(struct heap_sink *sink, enum hi_code code, const struct hi_err *why,
                          const char *rule, hi_addr address)
{
    if (code == HI_OK)
        return true;
    if (code == HI_BAD_INPUT)
        return sink_finding(sink, rule, why->has_address ? why->address : address, "%s",
                            why->message);
    if (sink->err && sink->code == HI_OK)
        *sink->err = *why;
    return sink_stop(sink, code);
}

static struct region sink_own(struct heap_sink *sink, const struct region *region)
{
    struct region own = *region;
    own.heap = (uint16_t)sink->heap;
    own.base = 0;
    if (!sink_arena_at(sink, own.arena)) {
        sink_finding(sink, "region belongs to an arena", own.start, "arena %u does not exist",
                     own.arena);
        own.arena = 0;
    }
    return own;
}

/* Pieces of one table, slabs of one heap come one after the other: extend the last range. */
static bool range_follows(struct hi_range *ranges, size_t count, hi_addr start, hi_addr end)
{
    if (count == 0 || ranges[count - 1].end != start)
        return false;
    ranges[count - 1].end = end;
    return true;
}

static bool sink_claim(struct heap_sink *sink, hi_addr start, hi_addr end)
{
    if (range_follows(sink->claims.items, sink->claims.count, start, end))
        return true;
    struct hi_range *range = VECTOR_PUSH(&sink->claims);
    if (!range)
        return sink_stop(sink, HI_NO_MEMORY);
    *range = (struct hi_range){start, end};
    return true;
}

bool sink_region(struct heap_sink *sink, const struct region *region, const uint64_t *live_bits)
{
    if (!sink_goes_on(sink))
        return false;
    struct region own = sink_own(sink, region);
    struct hi_err why = {0};
    enum hi_code code = blocks_add(sink->heaps->blocks, &own, live_bits, &why);
    if (code == HI_OK)
        return sink_claim(sink, own.start, own.end);
    return sink_accepted(sink, code, &why, "regions do not overlap", own.start);
}

bool sink_chunks_begin(struct heap_sink *sink, const struct region *region)
{
    if (!sink_goes_on(sink))
        return false;
    sink->chunks = sink_own(sink, region);
    struct hi_err why = {0};
    enum hi_code code = blocks_chunks_begin(sink->heaps->blocks, &sink->chunks, &why);
    sink->in_chunks = true;
    sink->chunks_refused = code != HI_OK;
    if (code == HI_OK)
        return sink_claim(sink, sink->chunks.start, sink->chunks.end);
    return sink_accepted(sink, code, &why, "regions do not overlap", sink->chunks.start);
}

/* One by one, after a batch was refused: each bad one is named, the good ones are kept. */
static bool sink_chunks_singly(struct heap_sink *sink, const struct block_chunk *chunks,
                               size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct hi_err why = {0};
        enum hi_code code = blocks_chunks_add(sink->heaps->blocks, &chunks[i], 1, &why);
        if (!sink_accepted(sink, code, &why, "chunks rise on the grid", chunks[i].address))
            return false;
    }
    return true;
}

/* The part of a batch that can't be refused for its order or its place. */
static bool chunks_rise_inside(const struct block_chunk *chunks, size_t count,
                               const struct region *region)
{
    hi_addr floor = region->start;
    for (size_t i = 0; i < count; i++) {
        hi_addr address = chunks[i].address;
        if (address < floor || address >= region->end || address % 16)
            return false;
        floor = address + 1;
    }
    return true;
}

bool sink_chunks(struct heap_sink *sink, const struct block_chunk *chunks, size_t count)
{
    if (!sink_goes_on(sink))
        return false;
    if (!sink->in_chunks || sink->chunks_refused || count == 0)
        return true;
    if (!chunks_rise_inside(chunks, count, &sink->chunks))
        return sink_chunks_singly(sink, chunks, count);
    struct hi_err why = {0};
    enum hi_code code = blocks_chunks_add(sink->heaps->blocks, chunks, count, &why);
    return sink_accepted(sink, code, &why, "chunks rise on the grid", chunks[0].address);
}

/* The claim was made when the region began. */
static void sink_claim_trim(struct heap_sink *sink, hi_addr end)
{
    struct hi_range *last = sink->claims.count ? &sink->claims.items[sink->claims.count - 1] : NULL;
    if (last && last->end == sink->chunks.end && end > sink->chunks.start && end < last->end)
        last->end = end;
}

bool sink_chunks_end(struct heap_sink *sink)
{
    return sink_chunks_end_at(sink, sink->chunks.end);
}

bool sink_chunks_end_at(struct heap_sink *sink, hi_addr end)
{
    bool open = sink->in_chunks && !sink->chunks_refused;
    sink->in_chunks = sink->chunks_refused = false;
    if (!open)
        return sink_goes_on(sink);
    sink_claim_trim(sink, end);
    struct hi_err why = {0};
    enum hi_code code = blocks_chunks_end_at(sink->heaps->blocks, end, &why);
    return sink_accepted(sink, code, &why, "chunks make a region", sink->chunks.start) &&
           sink_goes_on(sink);
}

bool sink_metadata(struct heap_sink *sink, hi_addr start, hi_addr end)
{
    if (!sink_goes_on(sink))
        return false;
    struct heaps *heaps = sink->heaps;
    if (end <= start || heaps->metadata.count >= SINK_MAX_METADATA)
        return true;
    heaps->heaps[sink->heap].metadata_bytes += end - start;
    if (range_follows(heaps->metadata.items, heaps->metadata.count, start, end))
        return true;
    struct hi_range *range = VECTOR_PUSH(&heaps->metadata);
    if (!range)
        return sink_stop(sink, HI_NO_MEMORY);
    *range = (struct hi_range){start, end};
    return true;
}

bool sink_finding(struct heap_sink *sink, const char *rule, hi_addr address, const char *format,
                  ...)
{
    if (!sink_goes_on(sink))
        return false;
    struct heaps *heaps = sink->heaps;
    if (heaps->findings.count >= HEAPS_MAX_FINDINGS) {
        heaps->findings_dropped++;
        return true;
    }
    struct finding *finding = VECTOR_PUSH(&heaps->findings);
    if (!finding)
        return sink_stop(sink, HI_NO_MEMORY);
    finding->heap = (uint16_t)sink->heap;
    finding->rule = rule;
    finding->address = address;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->detail, sizeof finding->detail, format, arguments);
    va_end(arguments);
    return true;
}

/* Is address the start of a block of the heap whose turn it is? NODEs and other heaps' are not. */
static bool overlay_is_ours(struct heap_sink *sink, hi_addr address)
{
    const struct region *region = blocks_region_at(sink->heaps->blocks, address);
    return region && region->shape != REGION_NODE && region->heap == sink->heap;
}

bool sink_overlay(struct heap_sink *sink, hi_addr address, enum block_state state,
                  enum block_state *before)
{
    if (!sink_goes_on(sink))
        return false;
    if (before)
        *before = BLOCK_FREE;
    if (!overlay_is_ours(sink, address))
        return sink_finding(sink, "a cached address is a block", address,
                            "lies in no region of this heap");
    struct blocks *blocks = sink->heaps->blocks;
    enum block_state was = BLOCK_FREE, ignored;
    struct hi_err why = {0};
    enum hi_code code = blocks_set_state(blocks, address, state, &was, &why);
    if (code == HI_NOT_FOUND)
        return sink_finding(sink, "a cached address is a block", address,
                            "is not the start of a block");
    if (code == HI_OK && was == BLOCK_FREE && state == BLOCK_CACHED)
        code = blocks_set_state(blocks, address, BLOCK_FREE, &ignored, &why);
    if (before)
        *before = was;
    return sink_accepted(sink, code, &why, "a cached address is a block", address);
}

bool sink_kept(struct heap_sink *sink, hi_addr address, const char *name)
{
    if (!sink_goes_on(sink))
        return false;
    struct heap_kept *kept = VECTOR_PUSH(&sink->heaps->kept);
    if (!kept)
        return sink_stop(sink, HI_NO_MEMORY);
    *kept = (struct heap_kept){address, name};
    return true;
}

bool sink_own_thread(struct heap_sink *sink, pid_t tid)
{
    if (!sink_goes_on(sink))
        return false;
    pid_t *own = VECTOR_PUSH(&sink->heaps->own_threads);
    if (!own)
        return sink_stop(sink, HI_NO_MEMORY);
    *own = tid;
    return true;
}

bool sink_held(struct heap_sink *sink, hi_addr start, hi_addr end, const char *name)
{
    if (!sink_goes_on(sink))
        return false;
    struct heap_held *items = sink->heaps->held.items;
    size_t count = sink->heaps->held.count;
    if (end <= start)
        return true;
    if (count && items[count - 1].end == start && items[count - 1].name == name) {
        items[count - 1].end = end; /* slab by slab */
        return true;
    }
    struct heap_held *held = VECTOR_PUSH(&sink->heaps->held);
    if (!held)
        return sink_stop(sink, HI_NO_MEMORY);
    *held = (struct heap_held){start, end, name};
    return true;
}

void sink_check(struct heap_sink *sink, const char *name, uint64_t reported, uint64_t walked,
                bool agree)
{
    struct heap *heap = &sink->heaps->heaps[sink->heap];
    if (heap->check_count < HEAP_MAX_CHECKS)
        heap->checks[heap->check_count++] = (struct check){name, reported, walked, agree};
}

const struct heaps *sink_heaps(const struct heap_sink *sink)
{
    return sink->heaps;
}
