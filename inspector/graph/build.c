/*
 * From memory to a graph, in one pass.
 *
 * Terms. A source is a live block of a heap or a NODE. A window is 256 KiB of target memory near
 * the processor (window.h). A kept word passed the filter: its value lies between the lowest and
 * the highest address that any region classifies. An edge is a kept word of a source that resolves
 * to a live block (resolve.h).
 *
 * Order: roots' words; then all groups of ordinary blocks (build_groups.c), where large ones are
 * only noted; then the large ones and NODEs in parts (build_large.c); then root ranges in parts.
 * Within each step workers take the next item from a counter, and write where no other does:
 * degrees and bases of their group, edges where edges_take() put them, lists of their own. The
 * graph is the same for any number of workers; only where edges lie differs.
 *
 * Deferred, words become codes (codes.h) where they would become edges, but for those of roots;
 * deferred.c makes edges of them later. With a harvest (harvest.h) groups of which all words were
 * kept already wait until then too: graph_build() leaves its state in the graph, and build_finish()
 * does them, and the sums, without the target.
 *
 * Memory beside the graph: a window and its kept words a worker (1 to 4 MiB), 16 bytes a root
 * reference. Nothing depends on the size of a block or a mapping.
 *
 * Damage and loss: what can't be read counts as zeros and is counted (missing_bytes). An interrupt
 * ends every loop at its next item; what was read by then stands, and complete is false.
 */
#include "graph/build.h"

#include <time.h>

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

bool build_ended(struct build *build, const char *phase, uint64_t done, uint64_t total)
{
    if (!progress_step(build->options->progress, phase, done, total))
        __atomic_store_n(&build->stopped, true, __ATOMIC_RELAXED);
    return __atomic_load_n(&build->stopped, __ATOMIC_RELAXED) ||
           __atomic_load_n(&build->no_memory, __ATOMIC_RELAXED);
}

size_t build_resolve(struct build *build, struct build_worker *worker, size_t count)
{
    size_t none = 0;
    if (!build->deferred)
        return resolve_words(&build->resolve, worker->window.values, count, worker->results);
    if (!codes_put(&build->graph->codes, worker->window.values, count, worker->results, &none))
        __atomic_store_n(&build->no_memory, true, __ATOMIC_RELAXED);
    return none;
}

static bool worker_new(struct build *build, struct build_worker *w)
{
    size_t places = build->options->unaligned ? WINDOW_BYTES : WINDOW_BYTES / 8;
    if (!window_new(&w->window, build->target, &build->holes, &build->rule,
                    build->options->unaligned))
        return false;
    w->results = malloc(places * sizeof *w->results);
    /* all of a group's blocks just not fat, and one window's words before they are found to be */
    w->group = malloc((BUILD_GROUP * (size_t)EDGES_FAT + places + DEAL_SLACK) * sizeof *w->group);
    w->list = malloc(BUILD_GROUP * sizeof *w->list);
    w->slots = malloc((places + DEAL_SLACK) * sizeof *w->slots);
    w->ends = malloc(WINDOW_BYTES / 8 * sizeof *w->ends); /* slots are not smaller than words */
    w->bits = malloc((WINDOW_BYTES / 512 + SIEVE_BITS_SLACK) * sizeof *w->bits);
    return w->results && w->group && w->list && w->slots && w->ends && w->bits;
}

static void worker_free(struct build_worker *w)
{
    window_free(&w->window);
    free(w->results);
    free(w->group);
    free(w->list);
    free(w->slots);
    free(w->ends);
    free(w->bits);
    VECTOR_FREE(&w->large);
    VECTOR_FREE(&w->fat);
    VECTOR_FREE(&w->holds);
}

static int extent_order(const void *a, const void *b)
{
    const struct build_extent *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static bool large_collect(struct build *build)
{
    for (int i = 0; i < build->graph->jobs; i++) {
        const build_extents *own = &build->workers[i].large;
        for (size_t k = 0; k < own->count; k++) {
            struct build_extent *extent = VECTOR_PUSH(&build->large);
            if (!extent)
                return false;
            *extent = own->items[k];
        }
    }
    if (build->large.count)
        qsort(build->large.items, build->large.count, sizeof *build->large.items, extent_order);
    build_number_parts(&build->large);
    return true;
}

static void read_all(struct build *build)
{
    int jobs = build->graph->jobs;
    parallel_run(jobs, build_groups, build);
    if (!large_collect(build))
        build->no_memory = true;
    build->next = 0;
    parallel_run(jobs, build_large, build);
    build_number_parts(&build->roots);
    build->next = 0;
    build->deferred = false; /* roots are few */
    parallel_run(jobs, build_roots, build);
}

static int hold_order(const void *a, const void *b)
{
    const struct root_hold *x = a, *y = b;
    if (x->source != y->source)
        return x->source < y->source ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

static bool holds_collect(struct build *build)
{
    root_holds *all = &build->graph->root_holds;
    for (int i = 0; i < build->graph->jobs; i++) {
        const root_holds *own = &build->workers[i].holds;
        for (size_t k = 0; k < own->count; k++) {
            struct root_hold *hold = VECTOR_PUSH(all);
            if (!hold)
                return false;
            *hold = own->items[k];
        }
    }
    if (all->count)
        qsort(all->items, all->count, sizeof *all->items, hold_order);
    return true;
}

static int range_order(const void *a, const void *b)
{
    const struct hi_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* What no worker could read: ranges joined, and counted. */
static bool unread_count(struct build *build)
{
    struct graph_stats *stats = &build->graph->stats;
    hole_list all = {0};
    for (int i = 0; i < build->graph->jobs; i++) {
        const hole_list *own = &build->workers[i].window.unread;
        for (size_t k = 0; k < own->count; k++) {
            struct hi_range *range = VECTOR_PUSH(&all);
            if (!range) {
                VECTOR_FREE(&all);
                return false;
            }
            *range = own->items[k];
        }
    }
    if (all.count)
        qsort(all.items, all.count, sizeof *all.items, range_order);
    hi_addr end = 0;
    for (size_t i = 0; i < all.count; i++) {
        const struct hi_range *range = &all.items[i];
        stats->unread_ranges += i == 0 || range->start > end;
        if (range->end > end)
            stats->unread_bytes += range->end - (range->start > end ? range->start : end);
        end = range->end > end ? range->end : end;
    }
    VECTOR_FREE(&all);
    return true;
}

static bool collect(struct build *build)
{
    struct graph *graph = build->graph;
    struct graph_stats *stats = &graph->stats;
    uint64_t kept = 0, resolved = 0;
    for (int i = 0; i < graph->jobs; i++) {
        const struct build_worker *w = &build->workers[i];
        if (!edges_add_fat(&graph->edges, w->fat.items, w->fat.count))
            return false;
        stats->words += w->words;
        stats->missing_bytes += w->window.missing_bytes;
        kept += w->kept;
        resolved += w->resolved;
    }
    edges_seal(&graph->edges);
    if (!holds_collect(build) || !unread_count(build))
        return false;
    stats->root_edges = graph->root_holds.count;
    stats->edges = resolved - stats->root_edges;
    stats->outside_heap = stats->words > kept ? stats->words - kept : 0;
    stats->not_a_block = kept > resolved ? kept - resolved : 0;
    stats->complete = !build->stopped;
    return true;
}

/* No more edges than words can come. */
static uint64_t edges_most(const struct build *build)
{
    const struct blocks *blocks = build->graph->blocks;
    uint64_t bytes = 0; /* no overflow: regions are disjoint and below 2^48 */
    for (size_t i = 0; i < blocks_region_count(blocks); i++)
        bytes += blocks_region(blocks, i)->end - blocks_region(blocks, i)->start;
    return build->options->unaligned ? bytes : bytes / 8;
}

/* Edges in the memory that was made for them beforehand; behind `used` that are there already. */
static enum hi_code edges_in_harvest(struct build *build, uint64_t used, struct hi_err *err)
{
    struct graph *graph = build->graph;
    struct harvest *harvest = build->harvest;
    uint32_t *memory = harvest->words;
    harvest->words = NULL;
    build->words_touched = harvest->words_touched;
    return edges_new_in(&graph->edges, blocks_count(graph->blocks), memory, harvest->words_reserved,
                        used, err);
}

/* Edges and codes, with what was kept of a walk or empty. */
static enum hi_code tables_new(struct build *build, struct hi_err *err)
{
    struct graph *graph = build->graph;
    struct harvest *harvest = build->harvest;
    uint64_t most = edges_most(build);
    enum hi_code code;
    if (harvest && harvest_seal(harvest, graph->blocks, most + EDGES_AHEAD)) {
        graph->codes = harvest->codes;
        harvest->codes = (struct codes){0};
        return edges_in_harvest(build, harvest->words_used, err);
    }
    if (harvest && harvest->words_reserved >= most + EDGES_AHEAD)
        code = edges_in_harvest(build, 0, err);
    else
        code = edges_new(&graph->edges, blocks_count(graph->blocks), most, err);
    harvest_free(harvest);
    build->harvest = NULL;
    if (code == HI_OK && build->deferred && !codes_new_of(&graph->codes, graph->blocks, most))
        code = hi_no_memory(err);
    return code;
}

static enum hi_code build_run(struct build *build, struct hi_err *err)
{
    struct graph *graph = build->graph;
    enum hi_code code = tables_new(build, err);
    if (code != HI_OK)
        return code;
    for (int i = 0; i < graph->jobs; i++)
        if (!worker_new(build, &build->workers[i]))
            return hi_no_memory(err);
    if (!build_roots_prepare(build))
        return hi_no_memory(err);
    graph->is_deferred = build->deferred;
    build->sieve = sieve_new(&build->rule, &graph->codes);
    if (build->deferred && build->sieve.bytes) {
        build->sieve_words = sieve_best();
        build->sieve_count = sieve_count_best();
    }
    if (build->harvest)
        build->waiting = calloc(blocks_count(graph->blocks) / BUILD_GROUP + 1, 1);
    read_all(build);
    graph->stats.complete = !build->stopped;
    return build->no_memory ? hi_no_memory(err) : HI_OK;
}

enum hi_code build_finish(struct build *build, struct hi_err *err)
{
    struct graph *graph = build->graph;
    build->next = 0;
    build->target_is_gone = true;
    build->deferred = graph->is_deferred;
    if (build->waiting)
        parallel_run(graph->jobs, build_waiting_groups, build);
    bool fine = !build->no_memory && collect(build);
    harvest_trim(graph->edges.words, graph->edges.used, build->words_touched);
    build_free(build);
    return fine ? HI_OK : hi_no_memory(err);
}

static struct build *build_new(struct graph *graph, struct target *target,
                               const struct graph_options *options)
{
    struct build *build = calloc(1, sizeof *build);
    if (!build) {
        harvest_free(options->harvest);
        return NULL;
    }
    build->graph = graph;
    build->target = target;
    build->options = options;
    build->resolve = (struct resolve){
        .blocks = graph->blocks,
        .live = blocks_live_plane(graph->blocks),
        .interior_reachable = options->interior_reachable,
    };
    graph->resolve = build->resolve;
    build->deferred =
        options->deferred && !options->unaligned && blocks_region_count(graph->blocks) > 0;
    /* what is missing must be counted, which only reading does */
    if (build->deferred && target_complete(target))
        build->harvest = options->harvest;
    else
        harvest_free(options->harvest);
#ifdef __x86_64__
    build->has_popcount = __builtin_cpu_supports("popcnt");
#endif
    struct hi_range span = blocks_span(graph->blocks);
    build->rule = (struct filter_rule){~options->tag_mask, span.start, span.end};
    build->deal = deal_best();
    return build;
}

void build_free(struct build *build)
{
    if (!build)
        return;
    free(build->waiting);
    for (int i = 0; i < PARALLEL_MAX_JOBS; i++)
        worker_free(&build->workers[i]);
    harvest_free(build->harvest);
    VECTOR_FREE(&build->holes);
    VECTOR_FREE(&build->large);
    VECTOR_FREE(&build->roots);
    free(build);
}

enum hi_code graph_build(struct graph **graph_out, struct target *target, const struct heaps *heaps,
                         const struct roots *roots, const struct graph_options *options,
                         struct hi_err *err)
{
    static const struct graph_options defaults;
    *graph_out = NULL;
    options = options ? options : &defaults;
    double start = seconds_now();
    struct graph *graph = calloc(1, sizeof *graph);
    if (!graph) {
        harvest_free(options->harvest);
        return hi_no_memory(err);
    }
    graph->heaps = heaps;
    graph->blocks = heaps->blocks;
    graph->roots = roots;
    graph->progress = options->progress;
    graph->jobs = options->jobs > 0 ? options->jobs : parallel_default_jobs();
    if (graph->jobs > PARALLEL_MAX_JOBS)
        graph->jobs = PARALLEL_MAX_JOBS;
    struct build *build = build_new(graph, target, options);
    enum hi_code code = build ? build_run(build, err) : hi_no_memory(err);
    if (code == HI_OK && build->waiting)
        graph->build = build;
    else if (code == HI_OK)
        code = build_finish(build, err);
    else
        build_free(build);
    if (code != HI_OK) {
        graph_free(graph);
        return code;
    }
    graph->stats.read_seconds = seconds_now() - start;
    *graph_out = graph;
    return HI_OK;
}
