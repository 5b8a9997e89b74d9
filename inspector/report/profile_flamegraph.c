/*
 * Collapsed stacks, one a line: the functions from the outermost to the innermost with semicolons
 * between, a space, and the bytes that are held through them. flamegraph.pl, speedscope and others
 * draw from it. Inlined calls are functions like any other. The line of blocks whose stack is not
 * known names the allocator instead, so that the sum is all that is live.
 *
 * Stacks that differ in addresses only become one line: lines are sorted and joined.
 */
#include "report/profile.h"

#include <inttypes.h>

struct line {
    size_t text; /* offset in the buffer of texts */
    double bytes;
};

struct collapsing {
    const struct profile *profile;
    struct buffer texts;
    struct line *lines;
    size_t count;
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* What would end the name or the line is replaced. */
static void add_clean(struct buffer *texts, const char *name)
{
    for (const char *p = name; *p; p++) {
        char c = *p == ';' ? ':' : (unsigned char)*p < ' ' || *p == 0x7f ? '?' : *p;
        buffer_add(texts, &c, 1);
    }
}

static void add_name(struct buffer *texts, const struct frame_name *name)
{
    if (name->function) {
        add_clean(texts, name->function);
        return;
    }
    if (name->module)
        add_clean(texts, base_name(name->module));
    buffer_print(texts, "%s0x%" PRIx64, name->module ? "+" : "", name->offset);
}

static void add_stack(struct collapsing *c, const struct call_stack *stack)
{
    const struct call_stacks *stacks = c->profile->stacks;
    bool cut = call_stack_frame(stacks, stack, stack->count - 1)->cut;
    buffer_print(&c->texts, "%s", cut ? "[cut]" : "");
    for (uint32_t i = stack->count; i-- > 0;) {
        size_t count;
        const struct frame_name *names =
            call_frame_names(stacks, call_stack_frame(stacks, stack, i), &count);
        for (size_t k = count; k-- > 0;) {
            bool first = i + 1 == stack->count && k + 1 == count && !cut;
            buffer_print(&c->texts, "%s", first ? "" : ";");
            add_name(&c->texts, &names[k]);
        }
    }
}

static void add_line(struct collapsing *c, const struct allocation *item)
{
    const struct call_stack *stack =
        call_stacks_find(c->profile->stacks, item->heap, item->stack_id);
    struct line *line = &c->lines[c->count++];
    *line = (struct line){c->texts.count, item->bytes};
    if (stack)
        add_stack(c, stack);
    else
        buffer_print(&c->texts, "[call stack not known, %s]",
                     c->profile->in->heaps->heaps[item->heap].reader->name);
    buffer_add(&c->texts, "", 1);
}

static int line_order(const void *a, const void *b, void *texts)
{
    const struct line *x = a, *y = b;
    return strcmp((char *)texts + x->text, (char *)texts + y->text);
}

static void print_lines(struct buffer *out, struct collapsing *c)
{
    qsort_r(c->lines, c->count, sizeof *c->lines, line_order, c->texts.bytes);
    for (size_t i = 0; i < c->count;) {
        const char *text = c->texts.bytes + c->lines[i].text;
        double bytes = 0;
        size_t first = i;
        for (; i < c->count && line_order(&c->lines[first], &c->lines[i], c->texts.bytes) == 0; i++)
            bytes += c->lines[i].bytes;
        if (bytes >= 0.5)
            buffer_print(out, "%s %.0f\n", text, bytes);
    }
}

enum hi_code profile_flamegraph(struct buffer *out, const struct profile *profile,
                                struct hi_err *err)
{
    struct collapsing c = {.profile = profile};
    size_t count = profile->all->items.count;
    c.lines = calloc(count + 1, sizeof *c.lines);
    if (!c.lines)
        return hi_no_memory(err);
    for (size_t i = 0; i < count; i++)
        add_line(&c, &profile->all->items.items[i]);
    bool fine = buffer_ok(&c.texts);
    if (fine && count)
        print_lines(out, &c);
    free(c.lines);
    buffer_free(&c.texts);
    return fine ? HI_OK : hi_no_memory(err);
}
