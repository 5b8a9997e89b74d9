/*
 * What is lost: direct and indirect.
 *
 * Terms. The lost graph: live blocks that are neither reachable nor possible, and those NODEs that
 * such blocks lead to (a NODE that nothing holds is no holder). A source is a block of it that no
 * other holds. Every source is direct. What sources do not lead to (the rest) hangs off rings that
 * nothing holds: of each strongly connected component of the rest that no other component points
 * to, the block with the lowest address is direct. All else is indirect, and belongs to the direct
 * block that leads to it and has the lowest address.
 *
 * Components by Tarjan's algorithm with a stack of its own (12 bytes a block of the rest, 8 more a
 * level of depth): a lost list of millions must not become a million frames. The rest is empty in
 * most heaps; then none of that is allocated.
 */
#include "base/parallel.h"
#include "graph/flood.h"
#include "graph/graph_table.h"

struct lost {
    struct graph *graph;
    uint32_t count;     /* of all blocks */
    uint64_t *lost;     /* the lost graph */
    uint64_t *outer;    /* its complement */
    uint64_t *indirect; /* when direct is known: all others of it */
    uint64_t *held;     /* by another one of the lost graph */
    uint64_t *holds;    /* another one of the lost graph: few do, and only they are walked */
    uint64_t *direct;
    uint64_t *reached; /* from sources */
    bool has_nodes;    /* NODEs in the lost graph */
};

typedef VECTOR(hi_block) block_stack;

static bool stack_push(block_stack *stack, hi_block block)
{
    hi_block *top = VECTOR_PUSH(stack);
    if (top)
        *top = block;
    return top != NULL;
}

#define FOR_EACH_EDGE(graph, from, to)                                                             \
    for (struct edge_run run_ = edges_first(&(graph)->edges, from); run_.count;                    \
         edges_next(&(graph)->edges, &run_))                                                       \
        for (uint32_t at_ = 0, to;                                                                 \
             at_ < run_.count && (to = edge_block_of(run_.words[at_]), true); at_++)

static bool is_node(const struct lost *l, hi_block block)
{
    return blocks_region_of(l->graph->blocks, block)->shape == REGION_NODE;
}

/* -- the lost graph ---------------------------------------------------------------------------- */

static bool lost_new(struct lost *l, struct graph *graph)
{
    *l = (struct lost){.graph = graph, .count = blocks_count(graph->blocks)};
    const uint64_t *live = blocks_live_plane(graph->blocks);
    l->lost = bits_new(l->count);
    l->outer = bits_new(l->count);
    l->held = bits_new(l->count);
    l->holds = bits_new(l->count);
    l->direct = bits_new(l->count);
    l->reached = bits_new(l->count);
    if (!l->lost || !l->outer || !l->held || !l->holds || !l->direct || !l->reached)
        return false;
    for (size_t w = 0; w < bits_words(l->count); w++)
        l->lost[w] = live[w] & ~graph->reachable[w] & ~graph->possible[w];
    return true;
}

static void lost_free(struct lost *l)
{
    free(l->lost);
    free(l->outer);
    free(l->held);
    free(l->holds);
    free(l->direct);
    free(l->reached);
}

/* Unreachable NODEs out of the lost graph, into nodes; true: there are some. */
static bool nodes_out(struct lost *l, uint64_t *nodes)
{
    const struct blocks *blocks = l->graph->blocks;
    bool any = false;
    for (size_t i = 0; i < blocks_region_count(blocks); i++) {
        const struct region *region = blocks_region(blocks, i);
        if (region->shape != REGION_NODE || !bits_get(l->lost, region->base))
            continue;
        bits_clear(l->lost, region->base);
        bits_set(nodes, region->base);
        any = true;
    }
    return any;
}

/* -- who holds whom ---------------------------------------------------------------------------- */

enum { SCAN_WORDS = 256 };

/* One look at the edges of every lost block, by all workers. */
struct scan {
    struct lost *lost;
    const uint64_t *nodes; /* that nothing is known to hold yet */
    uint64_t *nodes_held;
    uint64_t next; /* shared */
};

static void block_scan(const struct scan *scan, hi_block from)
{
    const struct lost *l = scan->lost;
    bool holds = false;
    FOR_EACH_EDGE(l->graph, from, to)
    {
        if (to == from)
            continue;
        bool is_node = bits_get(scan->nodes, to);
        if (!is_node && !bits_get(l->lost, to))
            continue;
        bits_raise(is_node ? scan->nodes_held : l->held, to);
        holds = true;
    }
    if (holds)
        bits_raise(l->holds, from);
}

static void scan_work(void *context, int worker)
{
    struct scan *scan = context;
    uint64_t words = bits_words(scan->lost->count), from;
    (void)worker;
    while ((from = __atomic_fetch_add(&scan->next, SCAN_WORDS, __ATOMIC_RELAXED)) < words)
        for (uint64_t w = from; w < from + SCAN_WORDS && w < words; w++)
            for (uint64_t left = scan->lost->lost[w]; left; left &= left - 1)
                block_scan(scan, (hi_block)(w * 64 + (unsigned)__builtin_ctzll(left)));
}

/* Bring a NODE that is held into the lost graph, and what it leads to. */
static bool node_in(struct lost *l, hi_block first, uint64_t *nodes)
{
    block_stack stack = {0};
    bits_clear(nodes, first);
    bool fine = stack_push(&stack, first);
    while (fine && stack.count) {
        hi_block node = stack.items[--stack.count];
        bits_set(l->lost, node);
        bits_set(l->held, node);
        bits_set(l->holds, node);
        l->has_nodes = true;
        FOR_EACH_EDGE(l->graph, node, to)
        {
            if (to != node && bits_get(l->lost, to))
                bits_set(l->held, to);
            if (!fine || !bits_get(nodes, to))
                continue;
            bits_clear(nodes, to);
            fine = stack_push(&stack, to);
        }
    }
    VECTOR_FREE(&stack);
    return fine;
}

/* held and holds; NODEs that lost blocks lead to come into the lost graph. */
static bool find_held(struct lost *l)
{
    uint64_t *nodes = bits_new(l->count), *nodes_held = bits_new(l->count);
    bool fine = nodes && nodes_held;
    if (fine) {
        bool any = nodes_out(l, nodes);
        struct scan scan = {.lost = l, .nodes = nodes, .nodes_held = nodes_held};
        parallel_run(l->graph->jobs, scan_work, &scan);
        hi_block b = any ? bits_from(nodes_held, 0, l->count) : l->count;
        for (; fine && b < l->count; b = bits_from(nodes_held, b + 1, l->count))
            fine = !bits_get(nodes, b) || node_in(l, b, nodes);
    }
    free(nodes);
    free(nodes_held);
    return fine;
}

/* -- sources ----------------------------------------------------------------------------------- */

/* Sources are direct (a NODE is never one: it came in because something holds it); reached is what
 * they lead to. */
static bool flood_sources(struct lost *l)
{
    uint64_t *done = bits_new(l->count);
    struct flood flood = {
        .edges = &l->graph->edges,
        .count = l->count,
        .jobs = l->graph->jobs,
        .progress = l->graph->progress,
        .mark = l->reached,
        .done = done,
        .stop = l->outer,
    };
    if (!done || !flood_new(&flood)) {
        free(done);
        return false;
    }
    for (size_t w = 0; w < bits_words(l->count); w++) {
        l->outer[w] = ~l->lost[w];
        l->direct[w] = l->lost[w] & ~l->held[w];
        /* most sources hold nothing lost: they need no flood */
        l->reached[w] = done[w] = l->direct[w] & ~l->holds[w];
    }
    hi_block b = bits_from(l->direct, 0, l->count);
    for (; b < l->count; b = bits_from(l->direct, b + 1, l->count))
        if (bits_get(l->holds, b))
            flood_seed(&flood, b);
    bool fine = flood_run(&flood);
    flood_free(&flood);
    free(done);
    return fine;
}

/* -- rings ------------------------------------------------------------------------------------- */

struct frame {
    uint32_t node; /* by rank in the rest */
    uint32_t edge; /* next to look at */
};

struct rings {
    const struct lost *lost;
    struct bit_rank rest;
    hi_block *blocks; /* by rank */
    uint32_t *low;    /* Tarjan's lowlink; afterwards: the component */
    uint32_t *index;  /* order of discovery, 1..; 0: not yet */
    uint32_t *open;   /* nodes of components not closed yet */
    uint32_t open_count, discovered, components;
    uint64_t steps;
    VECTOR(struct frame) frames;
};

enum { STEPS_BETWEEN_QUESTIONS = 1 << 16 };
#define CLOSED (UINT32_C(1) << 31) /* low: the component is known */

static bool rings_new(struct rings *r, const struct lost *l, uint64_t *rest)
{
    *r = (struct rings){.lost = l};
    if (!bit_rank_new(&r->rest, rest, l->count))
        return false;
    size_t count = (size_t)r->rest.count + 1;
    r->blocks = malloc(count * sizeof *r->blocks);
    r->low = calloc(count, sizeof *r->low);
    r->index = calloc(count, sizeof *r->index);
    r->open = malloc(count * sizeof *r->open);
    if (!r->blocks || !r->low || !r->index || !r->open)
        return false;
    uint32_t node = 0;
    hi_block b = bits_from(rest, 0, l->count);
    for (; b < l->count; b = bits_from(rest, b + 1, l->count))
        r->blocks[node++] = b;
    return true;
}

static void rings_free(struct rings *r)
{
    bit_rank_free(&r->rest);
    free(r->blocks);
    free(r->low);
    free(r->index);
    free(r->open);
    VECTOR_FREE(&r->frames);
}

static bool node_enter(struct rings *r, uint32_t node)
{
    struct frame *frame = VECTOR_PUSH(&r->frames);
    if (!frame)
        return false;
    frame->node = node;
    r->index[node] = r->low[node] = ++r->discovered;
    r->open[r->open_count++] = node;
    return true;
}

/* All edges of the top frame's node were seen. */
static void node_leave(struct rings *r)
{
    uint32_t node = r->frames.items[--r->frames.count].node, low = r->low[node];
    if (low == r->index[node]) { /* the first of its component: close it */
        uint32_t member;
        do {
            member = r->open[--r->open_count];
            r->low[member] = CLOSED | r->components;
        } while (member != node);
        r->components++;
    } else {
        uint32_t parent = r->frames.items[r->frames.count - 1].node;
        r->low[parent] = low < r->low[parent] ? low : r->low[parent];
    }
}

/* Walk on from the top frame, until it leaves or another is entered. */
static bool node_step(struct rings *r)
{
    const struct graph *graph = r->lost->graph;
    uint32_t depth = (uint32_t)r->frames.count - 1, node = r->frames.items[depth].node;
    uint32_t count = edges_count(&graph->edges, r->blocks[node]);
    for (uint32_t i = r->frames.items[depth].edge; i < count; i++) {
        hi_block to = edge_block_of(edges_word(&graph->edges, r->blocks[node], i));
        if (!bits_get(r->rest.plane, to))
            continue;
        uint32_t next = bit_rank_of(&r->rest, to);
        if (!r->index[next]) {
            r->frames.items[depth].edge = i + 1;
            return node_enter(r, next);
        }
        if (!(r->low[next] & CLOSED) && r->index[next] < r->low[node])
            r->low[node] = r->index[next];
    }
    node_leave(r);
    return true;
}

/* Now and then, is the user still waiting? */
static bool go_on(struct rings *r)
{
    if (++r->steps % STEPS_BETWEEN_QUESTIONS)
        return true;
    return progress_step(r->lost->graph->progress, "marking", r->discovered, r->rest.count);
}

static bool components_find(struct rings *r)
{
    for (uint32_t node = 0; node < r->rest.count; node++) {
        if (r->index[node])
            continue;
        bool fine = node_enter(r, node);
        while (fine && r->frames.count)
            fine = node_step(r) && go_on(r);
        if (!fine)
            return false;
    }
    return true;
}

/* Of each component that no other points to, the lowest block (not NODE) is direct. */
static bool components_lead(struct rings *r, uint64_t *direct)
{
    uint64_t *settled = bits_new(r->components); /* has a holder, or has its direct block */
    if (!settled)
        return false;
    for (uint32_t node = 0; node < r->rest.count; node++)
        FOR_EACH_EDGE(r->lost->graph, r->blocks[node], to)
        {
            if (!bits_get(r->rest.plane, to))
                continue;
            uint32_t other = r->low[bit_rank_of(&r->rest, to)];
            if (other != r->low[node])
                bits_set(settled, other & ~CLOSED);
        }
    for (uint32_t node = 0; node < r->rest.count; node++) {
        uint32_t component = r->low[node] & ~CLOSED;
        if (bits_get(settled, component) || is_node(r->lost, r->blocks[node]))
            continue;
        bits_set(settled, component);
        bits_set(direct, r->blocks[node]);
    }
    free(settled);
    return true;
}

static bool rings_lead(struct lost *l)
{
    uint64_t *rest = bits_new(l->count);
    if (!rest)
        return false;
    for (size_t w = 0; w < bits_words(l->count); w++)
        rest[w] = l->lost[w] & ~l->reached[w];
    if (!bits_any(rest, l->count)) {
        free(rest);
        return true;
    }
    struct rings rings;
    bool fine =
        rings_new(&rings, l, rest) && components_find(&rings) && components_lead(&rings, l->direct);
    rings_free(&rings);
    return fine;
}

/* -- the list ---------------------------------------------------------------------------------- */

static bool list_new(struct lost *l)
{
    struct graph *graph = l->graph;
    uint64_t *plane = bits_new(l->count);
    if (!plane)
        return false;
    for (size_t w = 0; w < bits_words(l->count); w++)
        plane[w] = l->lost[w] | graph->possible[w];
    bit_rank_free(&graph->listed);
    VECTOR_FREE(&graph->lost);
    if (!bit_rank_new(&graph->listed, plane, l->count))
        return false;
    graph->lost.items = malloc(((size_t)graph->listed.count + 1) * sizeof *graph->lost.items);
    if (!graph->lost.items)
        return false;
    graph->lost.capacity = (size_t)graph->listed.count + 1;
    hi_block b = bits_from(plane, 0, l->count);
    for (; b < l->count; b = bits_from(plane, b + 1, l->count)) {
        enum mark mark = bits_get(l->direct, b) ? MARK_DIRECT : MARK_INDIRECT;
        mark = bits_get(graph->possible, b) ? MARK_POSSIBLE : mark;
        graph->lost.items[graph->lost.count++] = (struct lost_block){b, BLOCK_NONE, mark};
    }
    return true;
}

/* -- leaders -----------------------------------------------------------------------------------
 *
 * Leaders come in address order; what each leads to, and nobody led to before, is its own. What
 * they hold themselves is gathered first, a stretch of leaders at a time and by all workers: those
 * are most of the loads from far away.
 */

enum { PART_ENTRIES = 1 << 12, GATHER_PARTS = 64, AHEAD_LED = 16 };

struct led {
    uint32_t entry; /* of the list: what is held */
    hi_block leader;
};

struct gathering {
    struct lost *lost;
    size_t first; /* entry of the list where the stretch begins */
    VECTOR(struct led) parts[GATHER_PARTS];
    uint64_t next; /* shared, as is no_memory */
    bool no_memory;
};

static bool part_gather(struct gathering *g, unsigned part)
{
    struct graph *graph = g->lost->graph;
    size_t from = g->first + (size_t)part * PART_ENTRIES, end = from + PART_ENTRIES;
    end = end < graph->lost.count ? end : graph->lost.count;
    g->parts[part].count = 0;
    for (size_t i = from; i < end; i++) {
        struct lost_block *entry = &graph->lost.items[i];
        if (entry->mark != MARK_DIRECT)
            continue;
        entry->leader = entry->block;
        if (!bits_get(g->lost->holds, entry->block))
            continue;
        FOR_EACH_EDGE(graph, entry->block, to)
        {
            if (!bits_get(g->lost->indirect, to))
                continue;
            struct led *led = VECTOR_PUSH(&g->parts[part]);
            if (!led)
                return false;
            *led = (struct led){bit_rank_of(&graph->listed, to), entry->block};
        }
    }
    return true;
}

static void gather_work(void *context, int worker)
{
    struct gathering *g = context;
    uint64_t part;
    (void)worker;
    while ((part = __atomic_fetch_add(&g->next, 1, __ATOMIC_RELAXED)) < GATHER_PARTS)
        if (!part_gather(g, (unsigned)part))
            __atomic_store_n(&g->no_memory, true, __ATOMIC_RELAXED);
}

/* All that the entry's block leads to, and that has no leader yet. */
static bool lead(struct lost *l, struct lost_block *first, hi_block leader, block_stack *stack)
{
    struct graph *graph = l->graph;
    first->leader = leader;
    if (!stack_push(stack, first->block))
        return false;
    while (stack->count) {
        hi_block from = stack->items[--stack->count];
        if (!bits_get(l->holds, from))
            continue;
        FOR_EACH_EDGE(graph, from, to)
        {
            if (!bits_get(l->indirect, to))
                continue;
            struct lost_block *entry = &graph->lost.items[bit_rank_of(&graph->listed, to)];
            if (entry->leader != BLOCK_NONE)
                continue;
            entry->leader = leader;
            if (!stack_push(stack, to))
                return false;
        }
    }
    return true;
}

static bool part_lead(struct gathering *g, unsigned part, block_stack *stack)
{
    struct lost_block *entries = g->lost->graph->lost.items;
    const struct led *led = g->parts[part].items;
    size_t count = g->parts[part].count;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD_LED < count)
            __builtin_prefetch(&entries[led[i + AHEAD_LED].entry]);
        struct lost_block *entry = &entries[led[i].entry];
        if (entry->leader == BLOCK_NONE && !lead(g->lost, entry, led[i].leader, stack))
            return false;
    }
    return true;
}

static bool leaders_find(struct lost *l)
{
    block_stack stack = {0};
    struct gathering g = {.lost = l};
    bool fine = true;
    l->indirect = l->outer; /* which is not needed any more */
    for (size_t w = 0; w < bits_words(l->count); w++)
        l->indirect[w] = l->lost[w] & ~l->direct[w];
    for (; fine && g.first < l->graph->lost.count; g.first += PART_ENTRIES * GATHER_PARTS) {
        g.next = 0;
        parallel_run(l->graph->jobs, gather_work, &g);
        fine = !g.no_memory;
        for (unsigned part = 0; fine && part < GATHER_PARTS; part++)
            fine = part_lead(&g, part, &stack);
    }
    for (unsigned part = 0; part < GATHER_PARTS; part++)
        VECTOR_FREE(&g.parts[part]);
    VECTOR_FREE(&stack);
    return fine;
}

static bool any_node(const struct blocks *blocks, const uint64_t *plane)
{
    for (size_t i = 0; i < blocks_region_count(blocks); i++) {
        const struct region *region = blocks_region(blocks, i);
        if (region->shape == REGION_NODE && bits_get(plane, region->base))
            return true;
    }
    return false;
}

/* NODEs were needed to find leaders; in the list only blocks of heaps remain. */
static bool list_without_nodes(struct lost *l)
{
    struct graph *graph = l->graph;
    uint64_t *plane = graph->listed.plane;
    size_t kept = 0;
    if (!any_node(l->graph->blocks, plane))
        return true;
    for (size_t i = 0; i < graph->lost.count; i++) {
        hi_block block = graph->lost.items[i].block;
        if (is_node(l, block))
            bits_clear(plane, block);
        else
            graph->lost.items[kept++] = graph->lost.items[i];
    }
    if (kept == graph->lost.count)
        return true;
    graph->lost.count = kept;
    free(graph->listed.before);
    return bit_rank_new(&graph->listed, plane, l->count);
}

enum hi_code lost_find(struct graph *graph, struct hi_err *err)
{
    struct lost lost;
    bool fine = lost_new(&lost, graph) && find_held(&lost) && flood_sources(&lost) &&
                rings_lead(&lost) && list_new(&lost) && leaders_find(&lost) &&
                list_without_nodes(&lost);
    lost_free(&lost);
    return fine ? HI_OK : mark_failed(graph, err);
}
