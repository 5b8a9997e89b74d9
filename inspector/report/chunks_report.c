/*
 * chunks: a stream, one block a line; JSON is one object a line, without anything around it, so
 * that it can be filtered line by line. What is incomplete is said on standard error by main.
 */
#include "report/reports.h"

static void say_thread(struct writer *w, const struct chunk *chunk)
{
    if (chunk->thread)
        writer_plain(w, "thread", " thread {}", (uint64_t)chunk->thread);
    else
        writer_null(w, "thread", NULL);
    if (chunk->stack_id)
        writer_plain(w, "stack", " stack {}", chunk->stack_id);
    else
        writer_null(w, "stack", NULL);
}

static enum writer_style style_of(enum block_state state)
{
    static const enum writer_style styles[] = {STYLE_FREE, STYLE_LIVE, STYLE_CACHED, STYLE_WARNING,
                                               STYLE_BAD};
    return styles[state];
}

static bool say_chunk(void *context, const struct chunk *chunk)
{
    const struct report *report = context;
    struct writer *w = report->writer;
    writer_object_begin(w, NULL);
    writer_address(w, "address", "{:-16}", chunk->address);
    writer_plain(w, "size", " {:12}", chunk->size);
    writer_plain(w, "usable", " {:12}", chunk->usable);
    writer_style(w, style_of(chunk->state));
    writer_string(w, "state", "  {:-9}", block_state_name(chunk->state));
    writer_style(w, STYLE_PLAIN);
    if (chunk->arena)
        writer_plain(w, "arena", " {:5}", chunk->arena->id);
    else
        writer_null(w, "arena", "     -");
    say_thread(w, chunk);
    writer_string(w, "tag", chunk->tag ? " {}" : "", chunk->tag);
    writer_text(w, "\n");
    writer_object_end(w);
    writer_json_line(w);
    return !writer_is_over(w);
}

enum hi_code report_chunks(const struct report *report, const struct chunk_filter *filter,
                           struct hi_err *err)
{
    struct chunk_counts counts;
    struct chunk_filter with_limit = *filter;
    struct report copy = *report;
    with_limit.limit = report->has_limit ? report->limit : 0;
    if (!inspection_complete(report->in) && !writer_is_json(report->writer)) {
        char gap[400];
        inspection_gap(report->in, gap, sizeof gap);
        writer_string(report->writer, NULL, "INCOMPLETE: {}\n", gap);
    }
    writer_style(report->writer, STYLE_TITLE);
    writer_text(report->writer, "address                  size       usable  state     arena\n");
    writer_style(report->writer, STYLE_PLAIN);
    enum hi_code code = chunk_list(report->in, &with_limit, say_chunk, &copy, &counts, err);
    if (code == HI_OK)
        report_more(report, counts.matched - counts.shown);
    return code;
}
