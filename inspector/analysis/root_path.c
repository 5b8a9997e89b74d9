/*
 * Breadth first from all roots at once, remembering for each block the one that reached it first:
 * 8 bytes a block while it runs (parent and queue). Up to three rounds: over references to starts
 * and to where languages point instead, which is what keeps a block reachable; when that does not
 * lead there, over all of them; at last also from damaged parts of heaps, which are doubtful roots.
 *
 * parent[b]: a block; ROOT_BIT | index of a root edge; or UNSEEN. Blocks are below 2^30.
 */
#include "analysis/root_path.h"

#define ROOT_BIT UINT32_C(0x80000000)
#define UNSEEN   UINT32_MAX

struct search {
    const struct inspection *in;
    uint32_t *parent;
    hi_block *queue;
    size_t head, tail;
    bool no_interior, no_doubtful;
};

static void reach(struct search *s, hi_block block, uint32_t parent, enum edge_kind kind)
{
    if (s->parent[block] != UNSEEN || (s->no_interior && kind == EDGE_INTERIOR) ||
        !blocks_is_live(s->in->heaps->blocks, block))
        return;
    s->parent[block] = parent;
    s->queue[s->tail++] = block;
}

static bool search_for(struct search *s, hi_block wanted)
{
    const struct graph *graph = s->in->graph;
    size_t count = blocks_count(s->in->heaps->blocks), roots = graph_root_edge_count(graph);
    memset(s->parent, 0xff, count * sizeof *s->parent);
    s->head = s->tail = 0;
    for (size_t i = 0; i < roots && i < ROOT_BIT - 1; i++) {
        struct root_edge edge = graph_root_edge(graph, i);
        if (edge.class != ROOT_SUSPECT || !s->no_doubtful)
            reach(s, edge.block, ROOT_BIT | (uint32_t)i, edge.kind);
    }
    while (s->head < s->tail && s->parent[wanted] == UNSEEN) {
        hi_block block = s->queue[s->head++];
        uint32_t edges = graph_edge_count(graph, block);
        for (uint32_t i = 0; i < edges; i++) {
            struct graph_edge edge = graph_edge(graph, block, i);
            reach(s, edge.block, block, edge.kind);
        }
    }
    return s->parent[wanted] != UNSEEN;
}

static void reverse(hi_block *items, size_t count)
{
    for (size_t i = 0; i < count / 2; i++) {
        hi_block other = items[i];
        items[i] = items[count - 1 - i];
        items[count - 1 - i] = other;
    }
}

static enum hi_code trace(struct root_path *path, const struct search *s, hi_block block,
                          struct hi_err *err)
{
    for (;;) {
        hi_block *item = VECTOR_PUSH(&path->blocks);
        if (!item)
            return hi_no_memory(err);
        *item = block;
        uint32_t parent = s->parent[block];
        if (parent & ROOT_BIT) {
            path->root = graph_root_edge(s->in->graph, parent & ~ROOT_BIT);
            break;
        }
        block = parent;
    }
    reverse(path->blocks.items, path->blocks.count);
    path->found = true;
    return HI_OK;
}

enum hi_code root_path_find(struct root_path *path, const struct inspection *in, hi_block block,
                            struct hi_err *err)
{
    size_t count = blocks_count(in->heaps->blocks);
    struct search search = {.in = in, .no_interior = true, .no_doubtful = true};
    enum hi_code code = HI_OK;
    memset(path, 0, sizeof *path);
    search.parent = malloc(count * sizeof *search.parent);
    search.queue = malloc(count * sizeof *search.queue);
    if (!search.parent || !search.queue) {
        code = hi_no_memory(err);
    } else {
        bool found = search_for(&search, block);
        if (!found) {
            search.no_interior = false;
            found = path->by_interior = search_for(&search, block);
            search.no_doubtful = false;
            found = found || search_for(&search, block);
        }
        if (found)
            code = trace(path, &search, block, err);
    }
    free(search.parent);
    free(search.queue);
    if (code != HI_OK)
        root_path_free(path);
    return code;
}

void root_path_free(struct root_path *path)
{
    VECTOR_FREE(&path->blocks);
}
