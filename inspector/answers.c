/* Each command: run its analysis, hand the result to its report, free it; see answers.h. */
#include "answers_leaks.h"

#include <inttypes.h>

enum { REFERRERS_KEPT = 1000, ADDRESSES_MOST = 10000 };

typedef enum hi_code (*answer_function)(const struct report *report, const struct options *options,
                                        const struct place_finder *finder, enum status *status,
                                        struct hi_err *err);

/* -- lists and pictures ----------------------------------------------------------------------- */

static enum hi_code answer_arenas(const struct report *report, const struct options *options,
                                  const struct place_finder *finder, enum status *status,
                                  struct hi_err *err)
{
    (void)options;
    (void)finder;
    (void)err;
    report_arenas(report);
    *status = STATUS_CLEAN;
    return HI_OK;
}

static enum hi_code answer_map(const struct report *report, const struct options *options,
                               const struct place_finder *finder, enum status *status,
                               struct hi_err *err)
{
    enum { LABEL_COLUMNS = 15, OTHER_ROWS = 4 };
    unsigned rows = report->rows > 2 * OTHER_ROWS ? report->rows - OTHER_ROWS : OTHER_ROWS;
    struct map_request request = {
        .columns = report->columns > 2 * LABEL_COLUMNS ? report->columns - LABEL_COLUMNS : 16,
        .rows = options->has_limit && options->limit ? (unsigned)options->limit : rows,
        .has_arena = options->has_arena,
        .arena_id = options->arena,
        .has_address = options->addresses.count > 0,
        .address = options->addresses.count ? options->addresses.items[0] : 0,
    };
    struct chunk_map map;
    enum hi_code code = chunk_map_make(&map, report->in, &request, err);
    (void)finder;
    if (code != HI_OK)
        return code;
    report_map(report, &map);
    chunk_map_free(&map);
    *status = STATUS_CLEAN;
    return HI_OK;
}

static enum hi_code answer_chunks(const struct report *report, const struct options *options,
                                  const struct place_finder *finder, enum status *status,
                                  struct hi_err *err)
{
    struct chunk_filter filter = {.states = options->states,
                                  .min_bytes = options->min_bytes,
                                  .max_bytes = options->max_bytes,
                                  .has_arena = options->has_arena,
                                  .arena_id = options->arena};
    (void)finder;
    *status = STATUS_CLEAN;
    return report_chunks(report, &filter, err);
}

static enum hi_code answer_top_stacks(const struct report *report, struct hi_err *err)
{
    struct allocations all;
    struct call_stacks stacks;
    struct report named = *report;
    call_stacks_begin(&stacks, report->in);
    named.stacks = &stacks;
    enum hi_code code = allocations_live(&all, report->in, err);
    if (code != HI_OK)
        return code;
    allocations_by_stack(&all);
    uint64_t rows = report_rows(report, all.items.count, TOP_ROWS);
    for (uint64_t i = 0; i < rows && code == HI_OK; i++)
        code = call_stacks_add(&stacks, all.items.items[i].heap, all.items.items[i].stack_id, err);
    if (code == HI_OK)
        code = call_stacks_name(&stacks, err);
    if (code == HI_OK)
        report_top_stacks(&named, &all);
    call_stacks_free(&stacks);
    allocations_free(&all);
    return code;
}

static enum hi_code answer_top(const struct report *report, const struct options *options,
                               const struct place_finder *finder, enum status *status,
                               struct hi_err *err)
{
    struct census census;
    if (strcmp(options->by, "stack") == 0) {
        *status = STATUS_CLEAN;
        return answer_top_stacks(report, err);
    }
    enum census_by by = strcmp(options->by, "arena") == 0    ? CENSUS_ARENA
                        : strcmp(options->by, "thread") == 0 ? CENSUS_THREAD
                                                             : CENSUS_SIZE;
    enum hi_code code = census_take(&census, report->in, by, err);
    (void)finder;
    if (code != HI_OK)
        return code;
    report_top(report, &census, by);
    census_free(&census);
    *status = STATUS_CLEAN;
    return HI_OK;
}

static enum hi_code answer_verify(const struct report *report, const struct options *options,
                                  const struct place_finder *finder, enum status *status,
                                  struct hi_err *err)
{
    (void)options;
    (void)finder;
    (void)err;
    *status = report_verify(report) ? STATUS_FOUND : STATUS_CLEAN;
    return HI_OK;
}

/* -- addresses -------------------------------------------------------------------------------- */

static enum hi_code answer_one(struct answer *a, const struct report *report,
                               const struct place_finder *finder, hi_addr address,
                               struct hi_err *err)
{
    place_describe(finder, address, &a->place);
    if (!a->place.has_chunk)
        return HI_OK;
    return referrers_find(&a->referrers, report->in->graph, a->place.chunk.block, REFERRERS_KEPT,
                          err);
}

/* Who allocated and who freed it. */
static enum hi_code add_block_stacks(struct call_stacks *stacks, const struct place *place,
                                     struct hi_err *err)
{
    const struct chunk *chunk = &place->chunk;
    if (!place->has_chunk || !chunk->heap)
        return HI_OK;
    uint16_t heap = (uint16_t)(chunk->heap - stacks->in->heaps->heaps);
    enum hi_code code = call_stacks_add(stacks, heap, chunk->stack_id, err);
    return code == HI_OK ? call_stacks_add(stacks, heap, chunk->freed_stack_id, err) : code;
}

static enum hi_code answer_whatis(const struct report *report, const struct options *options,
                                  const struct place_finder *finder, enum status *status,
                                  struct hi_err *err)
{
    size_t count = options->addresses.count;
    if (count > ADDRESSES_MOST)
        return hi_fail(err, HI_USAGE, "%zu addresses are too many for one command", count);
    struct answer *answers = calloc(count + 1, sizeof *answers);
    struct call_stacks stacks;
    struct report named = *report;
    enum hi_code code = HI_OK;
    if (!answers)
        return hi_no_memory(err);
    call_stacks_begin(&stacks, report->in);
    named.stacks = &stacks;
    for (size_t i = 0; i < count && code == HI_OK; i++)
        code = answer_one(&answers[i], report, finder, options->addresses.items[i], err);
    for (size_t i = 0; i < count && code == HI_OK; i++)
        code = add_block_stacks(&stacks, &answers[i].place, err);
    if (code == HI_OK)
        code = call_stacks_name(&stacks, err);
    if (code == HI_OK)
        report_whatis(&named, finder, answers, count);
    call_stacks_free(&stacks);
    for (size_t i = 0; i < count; i++)
        referrers_free(&answers[i].referrers);
    free(answers);
    *status = STATUS_CLEAN;
    return code;
}

static enum hi_code find_block(struct place *place, const struct place_finder *finder,
                               hi_addr address, struct hi_err *err)
{
    place_describe(finder, address, place);
    if (place->has_chunk)
        return HI_OK;
    return hi_fail(err, HI_NOT_FOUND, "0x%" PRIx64 " lies in no block; whatis says what is there",
                   address);
}

/* What a block points to, in the shape of what points to it. */
static enum hi_code find_targets(struct referrers *found, const struct graph *graph, hi_block block,
                                 struct hi_err *err)
{
    *found = (struct referrers){.most = REFERRERS_KEPT};
    found->count = graph_edge_count(graph, block);
    for (uint32_t i = 0; i < found->count && i < found->most; i++) {
        struct graph_edge edge = graph_edge(graph, block, i);
        struct referrer *referrer = VECTOR_PUSH(&found->first);
        if (!referrer)
            return hi_no_memory(err);
        *referrer = (struct referrer){.from = edge.block, .kind = edge.kind};
    }
    return HI_OK;
}

static enum hi_code answer_refs(const struct report *report, const struct options *options,
                                const struct place_finder *finder, enum status *status,
                                struct hi_err *err)
{
    struct place place;
    struct referrers found = {0};
    enum hi_code code = find_block(&place, finder, options->addresses.items[0], err);
    if (code == HI_OK)
        code = options->refs_to
                   ? find_targets(&found, report->in->graph, place.chunk.block, err)
                   : referrers_find(&found, report->in->graph, place.chunk.block,
                                    options->has_limit && options->limit > REFERRERS_KEPT
                                        ? options->limit
                                        : REFERRERS_KEPT,
                                    err);
    if (code == HI_OK)
        report_refs(report, finder, &place, &found, options->refs_to);
    referrers_free(&found);
    *status = STATUS_CLEAN;
    return code;
}

static enum hi_code answer_path(const struct report *report, const struct options *options,
                                const struct place_finder *finder, enum status *status,
                                struct hi_err *err)
{
    struct place place;
    struct root_path path = {0};
    enum hi_code code = find_block(&place, finder, options->addresses.items[0], err);
    if (code == HI_OK)
        code = root_path_find(&path, report->in, place.chunk.block, err);
    if (code == HI_OK)
        report_path(report, finder, &place, &path);
    root_path_free(&path);
    *status = STATUS_CLEAN;
    return code;
}

/* -- the table -------------------------------------------------------------------------------- */

static const struct {
    struct needs needs;
    answer_function function;
} answers[COMMAND_COUNT] = {
    [COMMAND_SUMMARY] = {{.graph = true, .marks = true}, answer_summary},
    [COMMAND_ARENAS] = {{.heap = true}, answer_arenas},
    [COMMAND_MAP] = {{.heap = true}, answer_map},
    [COMMAND_CHUNKS] = {{.heap = true}, answer_chunks},
    [COMMAND_LEAKS] = {{.heap = true, .graph = true, .marks = true}, answer_leaks},
    [COMMAND_WHATIS] = {{.graph = true, .marks = true, .places = true}, answer_whatis},
    [COMMAND_REFS] = {{.heap = true, .graph = true, .marks = true, .places = true}, answer_refs},
    [COMMAND_PATH] = {{.heap = true, .graph = true, .marks = true, .places = true}, answer_path},
    [COMMAND_TOP] = {{.heap = true}, answer_top},
    [COMMAND_VERIFY] = {{.heap = true}, answer_verify},
    [COMMAND_EXPORT] = {{.heap = true}, NULL}, /* answer_export(): no report */
};

struct needs answer_needs(const struct options *options)
{
    struct needs needs = answers[options->command].needs;
    if (options->command == COMMAND_EXPORT && options->leaks)
        needs.graph = needs.marks = true;
    return needs;
}

enum hi_code answer(const struct report *report, const struct options *options,
                    const struct place_finder *finder, enum status *status, struct hi_err *err)
{
    *status = STATUS_FAILED;
    if (!answers[options->command].function)
        return hi_fail(err, HI_UNSUPPORTED, "%s is not built yet in this version",
                       command_name(options->command));
    return answers[options->command].function(report, options, finder, status, err);
}
