/* Each command: run its analysis, hand the result to its report, free it; see answers.h. */
#include "answers.h"

#include <inttypes.h>

enum { REFERRERS_KEPT = 1000, ADDRESSES_MOST = 10000 };

typedef enum hi_code (*answer_function)(const struct report *report, const struct options *options,
                                        const struct place_finder *finder, enum status *status,
                                        struct hi_err *err);

/* -- leaks and summary ------------------------------------------------------------------------ */

static enum hi_code answer_summary(const struct report *report, const struct options *options,
                                   const struct place_finder *finder, enum status *status,
                                   struct hi_err *err)
{
    struct leaks leaks = {0};
    struct fragmentation fragmentation;
    bool known = report->in->is_marked && report->in->heaps->count;
    enum hi_code code = known ? leaks_find(&leaks, report->in, err) : HI_OK;
    (void)options;
    (void)finder;
    if (code == HI_OK) {
        fragmentation_measure(&fragmentation, report->in->heaps);
        report_summary(report, known ? &leaks : NULL, &fragmentation);
    }
    leaks_free(&leaks);
    *status = STATUS_CLEAN;
    return code;
}

static enum hi_code report_in_style(const struct report *report, const struct options *options,
                                    const struct leaks *leaks,
                                    const struct suppressions *suppressions, struct hi_err *err)
{
    enum hi_code code = HI_OK;
    const char *style = options->style;
    if (!leaks || !style || options->json || strcmp(style, "text") == 0) {
        report_leaks(report, leaks, suppressions);
        return HI_OK;
    }
    if (strcmp(style, "lsan") == 0)
        report_leaks_lsan(report, leaks);
    else
        code = report_leaks_gperftools(report, leaks, err);
    if (code == HI_OK && suppressions)
        report_suppressions(report, suppressions);
    return code;
}

static enum hi_code answer_leaks(const struct report *report, const struct options *options,
                                 const struct place_finder *finder, enum status *status,
                                 struct hi_err *err)
{
    struct leaks leaks = {0};
    struct suppressions suppressions = {0};
    bool known = report->in->is_marked;
    enum hi_code code = HI_OK;
    (void)finder;
    if (options->suppressions)
        code = suppressions_read(&suppressions, options->suppressions, err);
    if (code == HI_OK && known)
        code = leaks_find(&leaks, report->in, err);
    if (code == HI_OK)
        leaks_suppress(&leaks, &suppressions, NULL, NULL); /* no reader keeps stacks yet */
    bool found = leaks.totals.direct.blocks > 0;
    bool silent = options->if_found && !found && known && inspection_complete(report->in);
    if (code == HI_OK && !silent)
        code = report_in_style(report, options, known ? &leaks : NULL,
                               options->suppressions ? &suppressions : NULL, err);
    *status = found ? STATUS_FOUND : STATUS_CLEAN;
    leaks_free(&leaks);
    suppressions_free(&suppressions);
    return code;
}

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

static enum hi_code answer_top(const struct report *report, const struct options *options,
                               const struct place_finder *finder, enum status *status,
                               struct hi_err *err)
{
    struct census census;
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

static enum hi_code answer_whatis(const struct report *report, const struct options *options,
                                  const struct place_finder *finder, enum status *status,
                                  struct hi_err *err)
{
    size_t count = options->addresses.count;
    if (count > ADDRESSES_MOST)
        return hi_fail(err, HI_USAGE, "%zu addresses are too many for one command", count);
    struct answer *answers = calloc(count + 1, sizeof *answers);
    enum hi_code code = HI_OK;
    if (!answers)
        return hi_no_memory(err);
    for (size_t i = 0; i < count && code == HI_OK; i++)
        code = answer_one(&answers[i], report, finder, options->addresses.items[i], err);
    if (code == HI_OK)
        report_whatis(report, finder, answers, count);
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
};

struct needs answer_needs(enum command command)
{
    return answers[command].needs;
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
