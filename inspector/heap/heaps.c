/*
 * The driver of the readers: probe, walk, finish, overlay, account; see heap.h.
 *
 * Order matters twice. Nodes (anonymous mappings of no allocator) are cut after all heaps were
 * walked, since any heap may claim part of a mapping. Overlays come after the table of blocks is
 * numbered and after all walks, since a cache of one arena holds blocks of another.
 *
 * A reader that fails is not the end of the others: a fault or bad input becomes a finding at its
 * address, and what it pushed before stands. Interrupted (HI_STOPPED): the heaps are returned
 * together with that code, finished as far as they were walked.
 */
#include "heap/sink.h"

enum { HEAPS_MAX_INSTANCES = 8 };

const char *found_by_name(enum found_by found_by)
{
    static const char *const names[] = {"native", "dwarf", "symbol", "relocation", "pattern"};
    return (size_t)found_by < sizeof names / sizeof *names ? names[found_by] : "?";
}

const char *arena_state_name(enum arena_state state)
{
    static const char *const names[] = {"ok", "in flux", "damaged"};
    return (size_t)state < sizeof names / sizeof *names ? names[state] : "?";
}

const char *heap_stacks_name(enum heap_stacks stacks)
{
    static const char *const names[] = {"none", "sampled", "full"};
    return (size_t)stacks < sizeof names / sizeof *names ? names[stacks] : "?";
}

static void heaps_unknown_add(struct heaps *heaps, const char *why)
{
    size_t length = strlen(heaps->unknown);
    snprintf(heaps->unknown + length, sizeof heaps->unknown - length, "%s%s", length ? "; " : "",
             why);
}

/* Ask one reader for all its instances. */
static enum hi_code heaps_probe(struct heaps *heaps, const struct heap_context *context,
                                const struct heap_reader *reader, struct hi_err *err)
{
    for (unsigned instance = 0; instance < HEAPS_MAX_INSTANCES; instance++) {
        struct probe probe = {0};
        enum hi_code code = reader->probe(context, instance, &probe, err);
        if (code == HI_UNSUPPORTED) {
            heaps_unknown_add(heaps, probe.unknown[0] ? probe.unknown : reader->name);
            continue;
        }
        if (code == HI_NOT_FOUND)
            return HI_OK;
        if (code != HI_OK)
            return code;
        if (heaps->count == HEAPS_MAX) {
            if (reader->close)
                reader->close(probe.state);
            return HI_OK;
        }
        struct heap *heap = &heaps->heaps[heaps->count++];
        heap->reader = reader;
        heap->state = probe.state;
        heap->found_by = probe.found_by;
        heap->active = probe.active;
        memcpy(heap->version, probe.version, sizeof heap->version);
    }
    return HI_OK;
}

static enum hi_code heaps_probe_all(struct heaps *heaps, const struct heap_context *context,
                                    const char *only, struct hi_err *err)
{
    for (const struct heap_reader *const *reader = heap_readers; *reader; reader++) {
        if (only && strcmp(only, (*reader)->name) != 0)
            continue;
        enum hi_code code = heaps_probe(heaps, context, *reader, err);
        if (code != HI_OK)
            return code;
    }
    return HI_OK;
}

typedef enum hi_code (*heap_step)(const struct heap_context *context, struct heap *heap,
                                  struct heap_sink *sink, struct hi_err *err);

/* One step of one reader. What it could not read is a finding; only our own trouble ends it. */
static enum hi_code heaps_step(struct heap_sink *sink, const struct heap_context *context,
                               heap_step step, struct hi_err *err)
{
    if (!step)
        return HI_OK;
    struct hi_err why = {0};
    enum hi_code code = step(context, &sink->heaps->heaps[sink->heap], sink, &why);
    if (sink->in_chunks)
        sink_chunks_end(sink);
    if (sink->code != HI_OK)
        return sink->code;
    if (code == HI_FAULT || code == HI_BAD_INPUT || code == HI_NOT_FOUND || code == HI_UNSUPPORTED)
        return sink_finding(sink, "the heap can be read", why.has_address ? why.address : 0, "%s",
                            why.message)
                   ? HI_OK
                   : sink->code;
    if (code != HI_OK && err)
        *err = why;
    return code;
}

static void sink_turn(struct heap_sink *sink, size_t heap)
{
    const struct heaps *heaps = sink->heaps;
    sink->heap = heap;
    sink->arenas_before = 0;
    while (sink->arenas_before < heaps->arenas.count &&
           heaps->arenas.items[sink->arenas_before].heap < heap)
        sink->arenas_before++;
}

static enum hi_code heaps_walk(struct heap_sink *sink, const struct heap_context *context,
                               struct hi_err *err)
{
    for (size_t i = 0; i < sink->heaps->count; i++) {
        sink_turn(sink, i);
        enum hi_code code = heaps_step(sink, context, sink->heaps->heaps[i].reader->walk, err);
        if (code != HI_OK)
            return code;
    }
    return HI_OK;
}

static enum hi_code heaps_overlay(struct heap_sink *sink, const struct heap_context *context,
                                  struct hi_err *err)
{
    for (size_t i = 0; i < sink->heaps->count; i++) {
        sink_turn(sink, i);
        enum hi_code code = heaps_step(sink, context, sink->heaps->heaps[i].reader->overlay, err);
        if (code != HI_OK)
            return code;
    }
    return HI_OK;
}

static enum hi_code heaps_account(struct heap_sink *sink, const struct heap_context *context,
                                  struct hi_err *err)
{
    for (size_t i = 0; i < sink->heaps->count; i++) {
        sink_turn(sink, i);
        enum hi_code code = heaps_step(sink, context, sink->heaps->heaps[i].reader->account, err);
        if (code != HI_OK)
            return code;
    }
    return HI_OK;
}

/* Number the blocks whatever the walk came to: partial results stand. */
static enum hi_code heaps_number(struct heap_sink *sink, const struct heaps_options *options,
                                 enum hi_code walked, struct hi_err *err)
{
    if (walked != HI_OK && walked != HI_STOPPED)
        return walked;
    struct hi_err later = {0};
    heaps_metadata_merge(sink->heaps);
    enum hi_code code = HI_OK;
    if (walked == HI_OK)
        code = heaps_nodes_add(sink, options->nodes, options->node_count, &later);
    if (code == HI_OK)
        code = blocks_finish(sink->heaps->blocks, &later);
    if (code != HI_OK && err)
        *err = later;
    return code != HI_OK ? code : walked;
}

static bool suspect_push(struct heaps *heaps, hi_block block)
{
    enum { HEADER_BYTES = 16 }; /* between neighbours */
    hi_addr start = blocks_address(heaps->blocks, block);
    hi_addr end = start + blocks_usable(heaps->blocks, block);
    struct hi_range *last =
        heaps->suspect.count ? &heaps->suspect.items[heaps->suspect.count - 1] : NULL;
    if (last && start >= last->end && start - last->end <= HEADER_BYTES) {
        last->end = end;
        return true;
    }
    struct hi_range *range = VECTOR_PUSH(&heaps->suspect);
    if (range)
        *range = (struct hi_range){start, end};
    return range != NULL;
}

static enum hi_code heaps_suspects_collect(struct heaps *heaps, struct hi_err *err)
{
    const uint64_t *plane = blocks_suspect_plane(heaps->blocks);
    for (hi_block w = 0; plane && w <= blocks_count(heaps->blocks) / 64; w++)
        for (uint64_t bits = plane[w]; bits; bits &= bits - 1)
            if (!suspect_push(heaps, w * 64 + (hi_block)__builtin_ctzll(bits)))
                return hi_no_memory(err);
    return HI_OK;
}

/* After the walk: overlays, totals, accounts. Totals also when the user wants out. */
static enum hi_code heaps_settle(struct heap_sink *sink, const struct heap_context *context,
                                 bool totals_later, enum hi_code walked, struct hi_err *err)
{
    enum hi_code code = walked == HI_OK ? heaps_overlay(sink, context, err) : walked;
    struct hi_err later = {0};
    enum hi_code counted = heaps_suspects_collect(sink->heaps, &later);
    if (counted == HI_OK && !totals_later)
        counted = heaps_count(sink->heaps, context->jobs, &later);
    if (counted != HI_OK && err)
        *err = later;
    if (counted != HI_OK)
        return counted;
    return code == HI_OK ? heaps_account(sink, context, err) : code;
}

static enum hi_code heaps_read(struct heaps *heaps, const struct heap_context *context,
                               const struct heaps_options *options, struct hi_err *err)
{
    enum hi_code code = blocks_new(&heaps->blocks, err);
    if (code == HI_OK)
        code = heaps_probe_all(heaps, context, options->only, err);
    if (code != HI_OK)
        return code;
    struct heap_sink sink = {.heaps = heaps, .progress = context->progress, .err = err};
    code = heaps_number(&sink, options, heaps_walk(&sink, context, err), err);
    VECTOR_FREE(&sink.claims);
    if (code == HI_OK || code == HI_STOPPED)
        code = heaps_settle(&sink, context, options->totals_later, code, err);
    return code;
}

enum hi_code heaps_open(struct heaps **heaps, const struct heap_context *context,
                        const struct heaps_options *options, struct hi_err *err)
{
    static const struct heaps_options defaults;
    *heaps = NULL;
    struct heaps *opened = calloc(1, sizeof *opened);
    if (!opened)
        return hi_no_memory(err);
    enum hi_code code = heaps_read(opened, context, options ? options : &defaults, err);
    if (code != HI_OK && code != HI_STOPPED) {
        heaps_close(opened);
        return code;
    }
    *heaps = opened;
    return code;
}

void heaps_close(struct heaps *heaps)
{
    if (!heaps)
        return;
    for (size_t i = 0; i < heaps->count; i++)
        if (heaps->heaps[i].reader->close)
            heaps->heaps[i].reader->close(heaps->heaps[i].state);
    blocks_free(heaps->blocks);
    VECTOR_FREE(&heaps->arenas);
    VECTOR_FREE(&heaps->metadata);
    VECTOR_FREE(&heaps->findings);
    VECTOR_FREE(&heaps->kept);
    VECTOR_FREE(&heaps->own_threads);
    VECTOR_FREE(&heaps->suspect);
    VECTOR_FREE(&heaps->held);
    free(heaps->totals);
    free(heaps);
}

enum hi_code heaps_detail(struct heaps *heaps, const struct heap_context *context, hi_block block,
                          struct heap_detail *detail, struct hi_err *err)
{
    *detail = (struct heap_detail){0};
    const struct region *region = blocks_region_of(heaps->blocks, block);
    if (!region || region->heap >= heaps->count)
        return hi_fail(err, HI_NOT_FOUND, "block %u belongs to no heap", block);
    struct heap *heap = &heaps->heaps[region->heap];
    if (!heap->reader->detail)
        return hi_fail(err, HI_NOT_FOUND, "%s keeps no details of its blocks", heap->reader->name);
    return heap->reader->detail(context, heap, blocks_address(heaps->blocks, block), detail, err);
}

size_t heaps_stack(struct heaps *heaps, const struct heap_context *context, size_t heap,
                   uint64_t stack_id, struct heap_frame *frames, size_t most)
{
    if (heap >= heaps->count || stack_id == 0 || !heaps->heaps[heap].reader->stack)
        return 0;
    struct heap *of = &heaps->heaps[heap];
    return of->reader->stack(context, of, stack_id, frames, most);
}
