/*
 * heapinspect: open the target, name its files, find its roots and heaps, index what points where,
 * let the target go, mark, answer.
 *
 * A live target is stopped only while it is read. SIGINT and SIGTERM set a flag that every long
 * loop looks at: what was read until then is reported, and said to be partial on the first line. A
 * second one ends at once; the kernel lets a traced process run on when its tracer ends.
 */
#include "answers.h"

#include "analysis/judge.h"
#include "base/warm.h"
#include "graph/harvest.h"
#include "report/progress_line.h"
#include "report/terminal.h"
#include "run.h"
#include "target/gdb_registers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

/* Tables take about so much of what the target has, in large heaps. */
enum { WORTH_WARMING = 64 << 20, WARM_SHARE = 96 };

static volatile sig_atomic_t stop_wanted;

struct run {
    struct options options;
    struct needs needs;
    struct target_options target_options;
    struct inspection in;
    struct place_finder finder;
    bool has_finder;
    struct progress progress;
    struct progress_line line;
    struct harvest *harvest; /* until the graph has it */
    int output;
};

static void on_signal(int number)
{
    if (stop_wanted)
        _exit(128 + number);
    stop_wanted = 1;
}

static void catch_signals(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN; /* a reader that has seen enough is no error */
    sigaction(SIGPIPE, &action, NULL);
}

/* Descriptors 0 to 2 exist, so that a file opened later never becomes standard output. */
static void fill_standard_descriptors(void)
{
    int descriptor;
    do
        descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC);
    while (descriptor >= 0 && descriptor <= STDERR_FILENO);
    if (descriptor > STDERR_FILENO)
        close(descriptor);
}

static enum status complain(const struct hi_err *err)
{
    bool add = err->has_address && !strstr(err->message, "0x");
    if (add)
        fprintf(stderr, "heapinspect: %s (at 0x%" PRIx64 ")\n", err->message, err->address);
    else
        fprintf(stderr, "heapinspect: %s\n", err->message);
    return STATUS_FAILED;
}

/* -- output ----------------------------------------------------------------------------------- */

static enum hi_code refuse_same_file(int output, const char *core, const char *name,
                                     struct hi_err *err)
{
    struct stat a, b;
    if (core && fstat(output, &a) == 0 && stat(core, &b) == 0 && a.st_dev == b.st_dev &&
        a.st_ino == b.st_ino)
        return hi_fail(err, HI_USAGE, "-o %s: that is the core itself; name another file", name);
    return HI_OK;
}

/* Opened before the work, so that a wrong name is known at once; emptied only when there is an
 * answer. */
static enum hi_code open_output(struct run *run, struct hi_err *err)
{
    const char *name = run->options.output;
    run->output = STDOUT_FILENO;
    if (!name)
        return HI_OK;
    run->output = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (run->output < 0)
        return hi_fail(err, HI_SYSTEM, "cannot write %s: %s", name, strerror(errno));
    return refuse_same_file(run->output, run->options.core, name, err);
}

static enum hi_code empty_output(const struct run *run, struct hi_err *err)
{
    struct stat status;
    if (!run->options.output || fstat(run->output, &status) != 0 || !S_ISREG(status.st_mode) ||
        ftruncate(run->output, 0) == 0)
        return HI_OK;
    return hi_fail(err, HI_SYSTEM, "cannot write %s: %s", run->options.output, strerror(errno));
}

/* -- reading the target ----------------------------------------------------------------------- */

/* Only verdicts on a live process are made while it runs on. */
static bool is_deferred(const struct run *run)
{
    return run->options.pid && run->needs.graph && run->needs.marks && !run->needs.places;
}

static enum hi_code open_target(struct run *run, struct hi_err *err)
{
    const struct options *o = &run->options;
    run->target_options = (struct target_options){.executable = o->executable,
                                                  .sysroot = o->sysroot,
                                                  .debug_directory = o->debug_directory,
                                                  .progress = &run->progress,
                                                  .fork_copy = o->fork_copy};
    if (is_deferred(run) && !o->unaligned) {
        struct process_size size = target_process_size(o->pid);
        if (size.own_bytes >= WORTH_WARMING)
            warm_malloc(size.own_bytes / WARM_SHARE, o->jobs);
        run->harvest = harvest_new(size, o->jobs, o->tag_mask);
    }
    if (o->pid)
        return target_open_process(&run->in.target, o->pid, &run->target_options, err);
    return target_open_core(&run->in.target, o->core, &run->target_options, err);
}

static enum hi_code read_stream(FILE *file, const char *name, char **text, struct hi_err *err)
{
    enum { MOST = 256 << 20, STEP = 1 << 16 };
    VECTOR(char) bytes = {0};
    size_t got = STEP;
    while (got == STEP && bytes.count < MOST) {
        char *grown = realloc(bytes.items, bytes.count + STEP + 1);
        if (!grown) {
            free(bytes.items);
            return hi_no_memory(err);
        }
        bytes.items = grown;
        got = fread(bytes.items + bytes.count, 1, STEP, file);
        bytes.count += got;
    }
    bytes.items[bytes.count] = '\0';
    *text = bytes.items; /* the caller's, also when reading failed */
    if (!ferror(file))
        return HI_OK;
    return hi_fail(err, HI_SYSTEM, "cannot read %s: %s", name, strerror(errno));
}

static enum hi_code add_registers(struct run *run, struct hi_err *err)
{
    const char *name = run->options.registers_from;
    char *text = NULL;
    size_t threads;
    if (!name)
        return HI_OK;
    bool is_input = strcmp(name, "-") == 0;
    FILE *file = is_input ? stdin : fopen(name, "re");
    if (!file)
        return hi_fail(err, HI_SYSTEM, "cannot read %s: %s", name, strerror(errno));
    enum hi_code code = read_stream(file, is_input ? "standard input" : name, &text, err);
    if (!is_input)
        fclose(file);
    if (code == HI_OK)
        code = gdb_registers_apply(run->in.target, text, &threads, err);
    free(text);
    return code;
}

static enum hi_code find_heaps(struct run *run, struct hi_err *err)
{
    bool keeps = run->harvest && harvest_open(run->harvest, run->in.target);
    const struct heap_context context = {.target = run->in.target,
                                         .symbols = run->in.symbols,
                                         .progress = &run->progress,
                                         .jobs = run->options.jobs,
                                         .guest = keeps ? &run->harvest->guest : NULL};
    const struct heaps_options options = {.only = run->options.allocator,
                                          .nodes = run->in.roots.nodes.items,
                                          .node_count = run->in.roots.nodes.count,
                                          .totals_later = true};
    return heaps_open(&run->in.heaps, &context, &options, err);
}

static enum hi_code build_graph(struct run *run, struct hi_err *err)
{
    const struct graph_options options = {.jobs = run->options.jobs,
                                          .interior_reachable = run->options.interior_reachable,
                                          .unaligned = run->options.unaligned,
                                          .tag_mask = run->options.tag_mask,
                                          .deferred = is_deferred(run),
                                          .harvest = run->harvest,
                                          .progress = &run->progress};
    if (!run->needs.graph)
        return HI_OK;
    run->harvest = NULL;
    enum hi_code code =
        graph_build(&run->in.graph, run->in.target, run->in.heaps, &run->in.roots, &options, err);
    if (code == HI_OK && !graph_stats(run->in.graph)->complete)
        return hi_fail(err, HI_STOPPED, "interrupted");
    return code;
}

static enum hi_code name_places(struct run *run, struct hi_err *err)
{
    if (!run->needs.places)
        return HI_OK;
    enum hi_code code = place_finder_make(&run->finder, &run->in, err);
    run->has_finder = code == HI_OK;
    return code;
}

static enum hi_code read_target(struct run *run, struct hi_err *err)
{
    const struct root_options root_options = {.classes = run->options.root_classes};
    enum hi_code code = add_registers(run, err);
    if (code == HI_OK)
        code = symbols_open(&run->in.symbols, run->in.target, &run->target_options, err);
    if (code == HI_OK)
        code = roots_collect(&run->in.roots, run->in.target, run->in.symbols, &root_options, err);
    if (code == HI_OK)
        code = find_heaps(run, err);
    if (code == HI_OK)
        code = build_graph(run, err);
    if (code == HI_OK)
        code = name_places(run, err);
    return code;
}

/* Totals of the heaps that there are, also after an interrupt. */
static enum hi_code count(struct run *run, enum hi_code code, struct hi_err *err)
{
    struct hi_err later = {0};
    if (!run->in.heaps || heaps_count(run->in.heaps, run->options.jobs, &later) == HI_OK)
        return code;
    *err = later;
    return later.code;
}

static enum hi_code mark(struct run *run, struct hi_err *err)
{
    if (!run->needs.marks || !run->in.graph)
        return HI_OK;
    enum hi_code code = graph_mark(run->in.graph, judge_block, &run->in, err);
    run->in.is_marked = code == HI_OK;
    return code;
}

/* After an interrupt: what stands is heaps; references of which a part is missing would call
 * everything lost. */
static enum hi_code keep_partial(struct run *run, enum hi_code code, struct hi_err *err)
{
    if (code != HI_STOPPED)
        return code;
    run->in.interrupted = true;
    if (!run->in.is_marked) {
        graph_free(run->in.graph);
        run->in.graph = NULL;
    }
    if (!run->in.heaps || run->needs.places)
        return hi_fail(err, HI_STOPPED, "interrupted before there was an answer");
    return HI_OK;
}

/* -- answering -------------------------------------------------------------------------------- */

static void list_readers(char *buffer, size_t size)
{
    size_t used = 0;
    buffer[0] = '\0';
    for (size_t i = 0; heap_readers[i] && used < size; i++)
        used += (size_t)snprintf(buffer + used, size - used, "%s%s", i ? ", " : "",
                                 heap_readers[i]->name);
}

static enum hi_code check_allocator_name(const struct options *options, struct hi_err *err)
{
    char known[128];
    if (!options->allocator)
        return HI_OK;
    for (size_t i = 0; heap_readers[i]; i++)
        if (strcmp(heap_readers[i]->name, options->allocator) == 0)
            return HI_OK;
    list_readers(known, sizeof known);
    return hi_fail(err, HI_USAGE, "--allocator=%s: not known; there is %s", options->allocator,
                   known);
}

static bool has_active_heap(const struct heaps *heaps)
{
    for (size_t i = 0; i < heaps->count; i++)
        if (heaps->heaps[i].active)
            return true;
    return false;
}

/* "0 leaks" must never be said of a heap that was not read. */
static enum hi_code check_heaps(const struct run *run, struct hi_err *err)
{
    const struct heaps *heaps = run->in.heaps;
    char known[128], gap[400];
    if (!run->needs.heap || run->in.interrupted)
        return HI_OK;
    bool found = heaps->count && has_active_heap(heaps);
    inspection_gap(&run->in, gap, sizeof gap);
    if (!found && gap[0] && (!heaps->unknown[0] || target_ended(run->in.target)))
        return hi_fail(err, HI_FAULT, "no heap in use was found in what could be read: %s", gap);
    if (heaps->unknown[0] &&
        (!found || run->options.command == COMMAND_LEAKS || run->options.leaks))
        return hi_fail(err, HI_UNSUPPORTED, "%s", heaps->unknown);
    if (found || (heaps->count && run->options.command != COMMAND_LEAKS))
        return HI_OK;
    if (run->options.allocator)
        return hi_fail(err, HI_UNSUPPORTED,
                       "no %s heap in use was found; without --allocator all kinds are looked for",
                       run->options.allocator);
    list_readers(known, sizeof known);
    return hi_fail(err, HI_UNSUPPORTED,
                   "no heap in use was found that heapinspect knows (%s); heapinspect summary says "
                   "what there is",
                   known);
}

static void print_notes(const struct run *run)
{
    const struct target *target = run->in.target;
    bool as_lines = run->options.json && run->options.command == COMMAND_CHUNKS;
    char gap[400];
    if (run->options.quiet)
        return;
    inspection_gap(&run->in, gap, sizeof gap);
    if (as_lines && gap[0])
        fprintf(stderr, "heapinspect: INCOMPLETE: %s\n", gap);
    for (size_t i = 0; (as_lines || !run->options.json) && i < target_note_count(target); i++)
        fprintf(stderr, "heapinspect: note: %s\n", target_note(target, i));
}

/* A file of another tool's: made whole, then written. */
static enum hi_code write_export(const struct run *run, enum status *status, struct hi_err *err)
{
    const struct options *o = &run->options;
    struct buffer out = {0};
    enum hi_code code = HI_OK;
    *status = STATUS_CLEAN;
    if (strcmp(o->format, "pprof") == 0 && !o->output && isatty(run->output))
        return hi_fail(err, HI_USAGE, "--format=pprof is no text for a terminal: -o FILE");
    code = answer_export(&run->in, o, &out, err);
    if (code == HI_OK)
        code = empty_output(run, err);
    if (code == HI_OK)
        code = buffer_write(&out, run->output, o->output ? o->output : "the profile", err);
    buffer_free(&out);
    return code;
}

static enum hi_code print_answer(struct run *run, enum status *status, struct hi_err *err)
{
    const struct options *o = &run->options;
    struct terminal terminal = terminal_look(run->output);
    bool colour = o->colour == WHEN_ALWAYS || (o->colour == WHEN_AUTO && terminal.has_colour);
    struct report report = {.in = &run->in,
                            .verbose = o->verbose,
                            .has_limit = o->has_limit,
                            .limit = o->limit,
                            .columns = terminal.columns,
                            .rows = terminal.rows};
    if (o->command == COMMAND_EXPORT)
        return write_export(run, status, err);
    enum hi_code code = empty_output(run, err);
    if (code == HI_OK)
        code = writer_open(&report.writer, run->output, o->json ? WRITER_JSON : WRITER_TEXT, colour,
                           err);
    if (code != HI_OK)
        return code;
    code = answer(&report, o, run->has_finder ? &run->finder : NULL, status, err);
    struct hi_err write_err;
    if (writer_close(report.writer, &write_err) != HI_OK && code == HI_OK) {
        *err = write_err;
        code = HI_SYSTEM;
    }
    return code;
}

static enum status finish_status(const struct run *run, enum status status)
{
    if (run->in.interrupted)
        return STATUS_FAILED;
    if (run->options.strict && !inspection_complete(&run->in)) {
        fputs("heapinspect: the answer is incomplete, and --strict was given\n", stderr);
        return STATUS_FAILED;
    }
    return status;
}

static void close_all(struct run *run)
{
    if (run->has_finder)
        place_finder_free(&run->finder);
    harvest_free(run->harvest);
    graph_free(run->in.graph);
    heaps_close(run->in.heaps);
    roots_free(&run->in.roots);
    symbols_close(run->in.symbols);
    target_close(run->in.target);
    options_free(&run->options);
}

static enum status inspect(struct run *run)
{
    struct hi_err err = {0};
    enum status status = STATUS_FAILED;
    enum hi_code code = check_allocator_name(&run->options, &err);
    if (code == HI_OK)
        code = open_output(run, &err);
    if (code == HI_OK)
        code = open_target(run, &err);
    if (code == HI_OK)
        code = read_target(run, &err);
    target_release(run->in.target);
    if (code == HI_OK || code == HI_STOPPED)
        code = count(run, code, &err);
    if (code == HI_OK)
        code = mark(run, &err);
    progress_line_end(&run->line);
    code = keep_partial(run, code, &err);
    catch_signals(SIG_DFL);
    if (code == HI_OK)
        code = check_heaps(run, &err);
    if (code == HI_OK) {
        print_notes(run);
        code = print_answer(run, &status, &err);
    }
    return code == HI_OK ? finish_status(run, status) : complain(&err);
}

static enum status print_help(const struct options *options)
{
    if (options->version)
        puts("heapinspect " HEAPINSPECT_VERSION);
    else
        options_help(options->command, options->has_command, stdout);
    if (fflush(stdout) == 0)
        return STATUS_CLEAN;
    fprintf(stderr, "heapinspect: cannot write the answer: %s\n", strerror(errno));
    return STATUS_FAILED;
}

/* Status of the program that was run, or 2 when it could not be started. */
static int start_program(const struct options *options)
{
    struct hi_err err = {0};
    int status = STATUS_FAILED;
    return run_program(options, &status, &err) == HI_OK ? status : (int)complain(&err);
}

int main(int argc, char **argv)
{
    struct run run = {.output = STDOUT_FILENO};
    struct hi_err err = {0};
    enum status status;
    fill_standard_descriptors();
    enum hi_code code = options_parse(&run.options, argc, argv, &err);
    if (code == HI_OK && run.options.program && !run.options.help && !run.options.version)
        return start_program(&run.options);
    catch_signals(on_signal);
    if (code != HI_OK) {
        status = complain(&err);
    } else if (run.options.help || run.options.version) {
        status = print_help(&run.options);
    } else {
        bool is_terminal = isatty(STDERR_FILENO);
        run.needs = answer_needs(&run.options);
        run.progress = (struct progress){
            .report = progress_line_report, .context = &run.line, .stop = &stop_wanted};
        progress_line_start(
            &run.line,
            run.options.progress == WHEN_ALWAYS ||
                (run.options.progress == WHEN_AUTO && is_terminal && !run.options.quiet),
            is_terminal);
        status = inspect(&run);
    }
    close_all(&run);
    return (int)status;
}
