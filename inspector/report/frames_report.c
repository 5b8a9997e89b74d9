/*
 * A call stack, in text one line a function (inlined calls have lines of their own), in JSON one
 * object a function. In text the function, where its call stands, and the module:
 *
 *     #0 make_node list.c:12 (server)
 *     #1 insert list.c:40 (server), inlined
 *     #2 __libc_start_main+0x85 (libc.so.6)
 *
 * "?" marks what was found without unwind information; a stack that does not end in the outermost
 * frame says so.
 */
#include "report/reports.h"

enum { DESCRIBED_SIZE = 600, PATTERN_SIZE = 64 };

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void say_text(struct writer *w, const struct call_frame *frame,
                     const struct frame_name *name, uint64_t number)
{
    char described[DESCRIBED_SIZE], pattern[PATTERN_SIZE];
    names_describe(name, described, sizeof described);
    snprintf(pattern, sizeof pattern, "        #%u %s{}", (unsigned)number,
             frame->guessed ? "? " : "");
    writer_string(w, NULL, pattern, described);
    if (name->file && name->module)
        writer_string(w, NULL, " ({})", base_name(name->module));
    writer_text(w, name->is_inline ? ", inlined\n" : "\n");
}

static void say_json(struct writer *w, const struct call_frame *frame,
                     const struct frame_name *name, bool is_last)
{
    writer_object_begin(w, NULL);
    writer_address(w, "address", NULL, frame->address);
    writer_string(w, "function", NULL, name->function);
    writer_string(w, "file", NULL, name->file);
    if (name->line)
        writer_plain(w, "line", NULL, name->line);
    else
        writer_null(w, "line", NULL);
    writer_string(w, "module", NULL, name->module);
    writer_plain(w, "module_offset", NULL, name->offset);
    writer_string(w, "build_id", NULL, name->build_id);
    writer_bool(w, "inline", NULL, NULL, name->is_inline);
    writer_bool(w, "exact", NULL, NULL, frame->exact);
    writer_bool(w, "guessed", NULL, NULL, frame->guessed);
    writer_bool(w, "cut", NULL, NULL, frame->cut && is_last);
    writer_object_end(w);
}

/* How many lines there were; only the first most are written (0: all). */
static uint64_t say_frames(const struct report *report, const struct call_stack *stack,
                           uint64_t most)
{
    uint64_t number = 0;
    for (uint32_t i = 0; i < stack->count; i++) {
        const struct call_frame *frame = call_stack_frame(report->stacks, stack, i);
        size_t count;
        const struct frame_name *names = call_frame_names(report->stacks, frame, &count);
        for (size_t k = 0; k < count; k++, number++) {
            if (writer_is_json(report->writer))
                say_json(report->writer, frame, &names[k], k + 1 == count);
            else if (!most || number < most)
                say_text(report->writer, frame, &names[k], number);
        }
    }
    return number;
}

static void say_rest(const struct report *report, const struct call_stack *stack, uint64_t left)
{
    if (writer_is_json(report->writer))
        return;
    if (left)
        writer_number(report->writer, NULL, "        … {} more frames (-v shows all)\n", left);
    else if (call_stack_frame(report->stacks, stack, stack->count - 1)->cut)
        writer_text(report->writer, "        (cut: there were more)\n");
}

bool report_stack(const struct report *report, const char *key, uint16_t heap, uint64_t id,
                  const char *title)
{
    enum { TEXT_FRAMES = 16 };
    const struct call_stack *stack = call_stacks_find(report->stacks, heap, id);
    uint64_t most = report->verbose ? 0 : report->frames ? report->frames : TEXT_FRAMES;
    if (!stack && !title) {
        writer_list_begin(report->writer, key);
        writer_list_end(report->writer);
        return false;
    }
    if (!stack) {
        writer_null(report->writer, key, NULL);
        return false;
    }
    writer_text(report->writer, title ? title : "");
    writer_list_begin(report->writer, key);
    uint64_t count = say_frames(report, stack, most);
    say_rest(report, stack, most && count > most ? count - most : 0);
    writer_list_end(report->writer);
    return true;
}

void report_stack_id(const struct report *report, uint64_t id)
{
    if (id)
        writer_plain(report->writer, "stack_id", NULL, id);
    else
        writer_null(report->writer, "stack_id", NULL);
}
