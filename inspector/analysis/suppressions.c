/*
 * Reading and matching suppressions.
 *
 * A pattern without anchors is looked for anywhere in the name. Matching is the two-finger walk for
 * `*`: after a mismatch only the last star is reconsidered, so it takes at most |pattern| x |name|
 * steps, whatever a file or a name holds.
 */
#include "analysis/suppressions.h"

#include <errno.h>
#include <stdio.h>

enum { FRAMES_MOST = 2048, FILE_MOST = 16 << 20 };

/* -- matching --------------------------------------------------------------------------------- */

bool suppression_matches(const char *pattern, const char *name)
{
    size_t length = strlen(pattern);
    bool from_start = length && pattern[0] == '^';
    bool to_end = length > from_start && pattern[length - 1] == '$';
    const char *p = pattern + from_start, *end = pattern + length - to_end;
    const char *star = from_start ? NULL : p, *resume = name;
    for (;;) {
        if (p < end && *p == '*') {
            star = ++p;
            resume = name;
        } else if (p == end && (!to_end || !*name)) {
            return true;
        } else if (*name && p < end && *p == *name) {
            p++;
            name++;
        } else if (star && *resume) {
            p = star;
            name = ++resume;
        } else {
            return false;
        }
    }
}

static bool frame_matches(const char *pattern, const struct frame_names *frame)
{
    return (frame->function && suppression_matches(pattern, frame->function)) ||
           (frame->file && suppression_matches(pattern, frame->file)) ||
           (frame->module && suppression_matches(pattern, frame->module));
}

struct suppression *suppressions_find(const struct suppressions *suppressions,
                                      const struct frame_names *frames, size_t count)
{
    for (size_t s = 0; s < suppressions->items.count; s++)
        for (size_t f = 0; f < count; f++)
            if (frame_matches(suppressions->items.items[s].pattern, &frames[f]))
                return &suppressions->items.items[s];
    return NULL;
}

static void add(struct blocks_total *to, const struct blocks_total *more)
{
    to->blocks += more->blocks;
    to->bytes += more->bytes;
}

static void take_away(struct blocks_total *from, const struct blocks_total *part)
{
    from->blocks -= part->blocks;
    from->bytes -= part->bytes;
}

/* Out of the totals too: the exit status follows from them. */
static void drop(struct leaks *leaks, const struct leak_group *group, struct suppression *by)
{
    struct leak_totals *totals = &leaks->totals;
    take_away(group->kind == MARK_DIRECT ? &totals->direct : &totals->possible, &group->own);
    take_away(&totals->indirect, &group->indirect);
    add(&by->total, &group->own);
    add(&by->total, &group->indirect);
}

size_t suppressions_stack_names(void *call_stacks, const struct leak_group *group,
                                struct frame_names *frames, size_t most)
{
    const struct call_stacks *stacks = call_stacks;
    const struct call_stack *stack = call_stacks_find(stacks, group->heap, group->stack_id);
    size_t filled = 0;
    for (uint32_t i = 0; stack && i < stack->count; i++) {
        size_t count;
        const struct frame_name *names =
            call_frame_names(stacks, call_stack_frame(stacks, stack, i), &count);
        for (size_t k = 0; k < count && filled < most; k++)
            frames[filled++] =
                (struct frame_names){names[k].function, names[k].file, names[k].module};
    }
    return filled;
}

/* Hanging groups of what was dropped go as well. Both lists keep their order. */
static bool hanging_drop(struct leaks *leaks)
{
    uint32_t most = 0;
    for (size_t i = 0; i < leaks->hanging.count; i++)
        if (leaks->hanging.items[i].holder > most)
            most = leaks->hanging.items[i].holder;
    bool *there = calloc((size_t)most + 1, sizeof *there);
    if (!there)
        return false;
    for (size_t i = 0; i < leaks->groups.count; i++)
        if (leaks->groups.items[i].number <= most)
            there[leaks->groups.items[i].number] = true;
    size_t kept = 0;
    for (size_t i = 0; i < leaks->hanging.count; i++)
        if (there[leaks->hanging.items[i].holder])
            leaks->hanging.items[kept++] = leaks->hanging.items[i];
    leaks->hanging.count = kept;
    free(there);
    return true;
}

bool leaks_suppress(struct leaks *leaks, const struct suppressions *suppressions, stack_names names,
                    void *context)
{
    struct frame_names frames[FRAMES_MOST];
    size_t kept = 0;
    for (size_t i = 0; i < leaks->groups.count; i++) {
        const struct leak_group *group = &leaks->groups.items[i];
        size_t count = names && group->stack_id ? names(context, group, frames, FRAMES_MOST) : 0;
        struct suppression *by = suppressions_find(suppressions, frames, count);
        if (by)
            drop(leaks, group, by);
        else
            leaks->groups.items[kept++] = *group;
    }
    bool dropped = kept < leaks->groups.count;
    leaks->groups.count = kept;
    return !dropped || hanging_drop(leaks);
}

/* -- reading ---------------------------------------------------------------------------------- */

static char *trim(char *line)
{
    line += strspn(line, " \t\r");
    size_t length = strlen(line);
    while (length && strchr(" \t\r", line[length - 1]))
        line[--length] = '\0';
    return line;
}

static enum hi_code take_line(struct suppressions *suppressions, char *line, const char *name,
                              unsigned number, struct hi_err *err)
{
    line = trim(line);
    if (!*line || *line == '#')
        return HI_OK;
    if (strncmp(line, "leak:", 5) != 0 || !line[5])
        return hi_fail(err, HI_BAD_INPUT,
                       "%s:%u: not a suppression: write leak:PATTERN, or # before a comment", name,
                       number);
    struct suppression *item = VECTOR_PUSH(&suppressions->items);
    if (!item)
        return hi_no_memory(err);
    item->pattern = line + 5;
    return HI_OK;
}

enum hi_code suppressions_parse(struct suppressions *suppressions, const char *text,
                                const char *name, struct hi_err *err)
{
    char **copy = VECTOR_PUSH(&suppressions->texts);
    enum hi_code code = HI_OK;
    if (!copy || !(*copy = strdup(text)))
        return hi_no_memory(err);
    char *line = *copy;
    for (unsigned number = 1; line && code == HI_OK; number++) {
        char *end = strchr(line, '\n');
        if (end)
            *end = '\0';
        code = take_line(suppressions, line, name, number, err);
        line = end ? end + 1 : NULL;
    }
    return code;
}

enum hi_code suppressions_read(struct suppressions *suppressions, const char *path,
                               struct hi_err *err)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return hi_fail(err, HI_SYSTEM, "cannot read the suppressions %s: %s", path,
                       strerror(errno));
    size_t size = 0;
    char *text = NULL;
    ssize_t length = getdelim(&text, &size, '\0', file);
    enum hi_code code = HI_OK;
    if (ferror(file))
        code =
            hi_fail(err, HI_SYSTEM, "cannot read the suppressions %s: %s", path, strerror(errno));
    else if (length > FILE_MOST || fgetc(file) != EOF)
        code = hi_fail(err, HI_BAD_INPUT, "%s: that is no file of suppressions", path);
    else if (length > 0)
        code = suppressions_parse(suppressions, text, path, err);
    free(text);
    fclose(file);
    return code;
}

void suppressions_free(struct suppressions *suppressions)
{
    for (size_t i = 0; i < suppressions->texts.count; i++)
        free(suppressions->texts.items[i]);
    VECTOR_FREE(&suppressions->texts);
    VECTOR_FREE(&suppressions->items);
}
