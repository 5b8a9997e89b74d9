/* whatis, refs, path: one address, what it is, who holds it. */
#include "report/reports.h"

enum { REFERRER_ROWS = 8, REFS_ROWS = 40, PATH_ROWS = 24, NAME_SIZE = 320 };

static const char *kind_text(enum edge_kind kind)
{
    static const char *const names[] = {"start", "cookie", "tagged start", "interior"};
    return names[kind];
}

static const char *mark_text(enum mark mark)
{
    static const char *const names[] = {"reachable", "possible", "direct", "indirect", NULL};
    return names[mark];
}

static void say_block(const struct report *report, const struct place *place)
{
    struct writer *w = report->writer;
    if (!place->has_chunk) {
        writer_null(w, "block", NULL);
        return;
    }
    const struct chunk *chunk = &place->chunk;
    writer_object_begin(w, "block");
    writer_plain(w, "offset", " {} bytes into", place->offset);
    writer_string(w, "state", " a {} block", block_state_name(chunk->state));
    writer_address(w, "address", " at {}", chunk->address);
    writer_number(w, "size", " of {} bytes", chunk->size);
    writer_number(w, "usable", chunk->usable != chunk->size ? " ({} usable)" : "", chunk->usable);
    if (chunk->arena)
        writer_plain(w, "arena", ", arena {}", chunk->arena->id);
    else
        writer_null(w, "arena", NULL);
    writer_string(w, "allocator", " of {}", chunk->heap ? chunk->heap->reader->name : NULL);
    const char *mark =
        report->in->is_marked ? mark_text(graph_mark_of(report->in->graph, chunk->block)) : NULL;
    writer_string(w, "mark", mark ? "; {}" : "", mark);
    writer_string(w, "tag", chunk->tag ? "; called {}" : "", chunk->tag);
    writer_object_end(w);
}

static void say_place(const struct report *report, const struct place *place)
{
    struct writer *w = report->writer;
    writer_style(w, STYLE_TITLE);
    writer_address(w, "address", "{}", place->address);
    writer_style(w, STYLE_PLAIN);
    writer_string(w, "where", place->has_chunk ? ":" : ": {}", place_kind_name(place->where));
    say_block(report, place);
    writer_string(w, "name",
                  !place->name[0]    ? ""
                  : place->has_chunk ? ", {}"
                                     : ": {}",
                  place->name[0] ? place->name : NULL);
    writer_text(w, "\n");
}

static void say_from_block(const struct report *report, hi_block block)
{
    struct writer *w = report->writer;
    const struct blocks *blocks = report->in->heaps->blocks;
    const struct region *region = blocks_region_of(blocks, block);
    bool is_node = region && region->heap == BLOCKS_NO_HEAP;
    writer_string(w, "where", is_node ? "    anonymous {}" : "    {}",
                  is_node ? "mapping" : "block");
    writer_address(w, "address", " at {}", blocks_address(blocks, block));
    writer_number(w, "size", " of {} bytes", inspection_size(report->in, block));
    const char *mark =
        report->in->is_marked ? mark_text(graph_mark_of(report->in->graph, block)) : NULL;
    writer_string(w, "mark", mark ? " ({})" : "", mark);
}

static void say_from_root(const struct report *report, const struct place_finder *finder,
                          const struct root_edge *root)
{
    struct writer *w = report->writer;
    char name[NAME_SIZE];
    place_root_name(finder, root, name, sizeof name);
    writer_string(w, "where", "    {}", root_class_name(root->class));
    writer_string(w, "name", " {}", name);
    if (root->place)
        writer_address(w, "address", " at {}", root->place);
    else
        writer_null(w, "address", NULL);
}

static void say_referrer(const struct report *report, const struct place_finder *finder,
                         const struct referrer *referrer)
{
    struct writer *w = report->writer;
    writer_object_begin(w, NULL);
    if (referrer->from == BLOCK_NONE)
        say_from_root(report, finder, &referrer->root);
    else
        say_from_block(report, referrer->from);
    writer_string(w, "points_to", referrer->kind == EDGE_START ? "" : " (to its {})",
                  kind_text(referrer->kind));
    writer_text(w, "\n");
    writer_object_end(w);
}

static void say_referrers(const struct report *report, const struct place_finder *finder,
                          const struct referrers *referrers, const char *key, uint64_t most)
{
    uint64_t rows = report_rows(report, referrers->first.count, most);
    writer_list_begin(report->writer, key);
    for (uint64_t i = 0; i < rows; i++)
        say_referrer(report, finder, &referrers->first.items[i]);
    writer_list_end(report->writer);
    report_more(report, referrers->count - rows);
}

static void say_answer(const struct report *report, const struct place_finder *finder,
                       const struct answer *answer)
{
    struct writer *w = report->writer;
    bool live = answer->place.has_chunk && answer->place.chunk.state != BLOCK_FREE &&
                answer->place.chunk.state != BLOCK_CACHED;
    uint64_t count = answer->referrers.count;
    writer_object_begin(w, NULL);
    say_place(report, &answer->place);
    const struct chunk *chunk = &answer->place.chunk;
    uint16_t heap =
        chunk->heap ? (uint16_t)(chunk->heap - report->in->heaps->heaps) : BLOCKS_NO_HEAP;
    report_stack(report, "allocated_by", heap, chunk->stack_id, "  allocated by\n");
    report_stack(report, "freed_by", heap, chunk->freed_stack_id, "  freed by\n");
    writer_number(w, "referrers",
                  !live        ? ""
                  : count == 0 ? "  nothing points to it\n"
                  : count == 1 ? "  {} reference to it:\n"
                               : "  {} references to it:\n",
                  count);
    say_referrers(report, finder, &answer->referrers, "first_referrers", REFERRER_ROWS);
    writer_object_end(w);
}

void report_whatis(const struct report *report, const struct place_finder *finder,
                   const struct answer *answers, size_t count)
{
    report_begin(report, "heapinspect.whatis.v1");
    if (writer_is_json(report->writer))
        report_heaps(report);
    writer_list_begin(report->writer, "answers");
    for (size_t i = 0; i < count; i++)
        say_answer(report, finder, &answers[i]);
    writer_list_end(report->writer);
    report_end(report);
}

void report_refs(const struct report *report, const struct place_finder *finder,
                 const struct place *place, const struct referrers *referrers, bool to)
{
    struct writer *w = report->writer;
    report_begin(report, "heapinspect.refs.v1");
    writer_object_begin(w, "of");
    say_place(report, place);
    writer_object_end(w);
    writer_string(w, "direction", NULL, to ? "to" : "from"); /* the heading says it */
    bool one = referrers->count == 1;
    writer_number(w, "count",
                  to    ? one ? "  it holds {} reference:\n" : "  it holds {} references:\n"
                  : one ? "  {} reference to it:\n"
                        : "  {} references to it:\n",
                  referrers->count);
    say_referrers(report, finder, referrers, "references", REFS_ROWS);
    report_end(report);
}

/* Long ones (a list of a million) are cut in the middle: both ends tell most. */
static void say_chain(const struct report *report, const struct root_path *path)
{
    struct writer *w = report->writer;
    size_t count = path->blocks.count, rows = report_rows(report, count, PATH_ROWS);
    size_t head = (rows + 1) / 2, tail = rows - head;
    writer_list_begin(w, "blocks");
    for (size_t i = 0; i < count; i++) {
        if (i == head && rows < count) {
            report_more(report, count - rows);
            i = count - tail;
            if (i == count)
                break;
        }
        writer_object_begin(w, NULL);
        say_from_block(report, path->blocks.items[i]);
        writer_text(w, "\n");
        writer_object_end(w);
    }
    writer_list_end(w);
    writer_number(w, "length", NULL, count); /* seen */
}

void report_path(const struct report *report, const struct place_finder *finder,
                 const struct place *place, const struct root_path *path)
{
    struct writer *w = report->writer;
    report_begin(report, "heapinspect.path.v1");
    writer_object_begin(w, "to");
    say_place(report, place);
    writer_object_end(w);
    writer_bool(w, "found", "  held by\n", "  no root leads to it\n", path->found);
    if (path->found) {
        writer_object_begin(w, "root");
        say_from_root(report, finder, &path->root);
        writer_string(w, "points_to", "\n", kind_text(path->root.kind));
        writer_object_end(w);
    } else {
        writer_null(w, "root", NULL);
    }
    say_chain(report, path);
    writer_bool(w, "by_interior", "  (over pointers into the middle of blocks)\n", "",
                path->by_interior);
    report_end(report);
}
