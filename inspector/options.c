/*
 * The command line, by two tables: commands and options. An option names the commands that it
 * belongs to, its kind, and the member of struct options that it fills; help is printed from the
 * same tables, so that it can't leave one out.
 *
 * Messages are one line: what is wrong, and what would be right.
 */
#include "options.h"

#include "symbols/roots.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>

struct command_spec {
    const char *name, *arguments, *help;
    unsigned least, most; /* plain words it takes */
    bool built;
};

static const struct command_spec commands[COMMAND_COUNT] = {
    [COMMAND_SUMMARY] = {"summary", "", "one screen: allocators, totals, fragmentation, leaks", 0,
                         0, true},
    [COMMAND_ARENAS] = {"arenas", "", "each arena: threads, bytes from the system, live, free", 0,
                        0, true},
    [COMMAND_MAP] = {"map", "[ARENA or ADDRESS]", "a picture of the heap in address order", 0, 1,
                     true},
    [COMMAND_CHUNKS] = {"chunks", "", "every chunk, one a line", 0, 0, true},
    [COMMAND_LEAKS] = {"leaks", "", "unreachable blocks, grouped: direct, indirect, possible", 0, 0,
                       true},
    [COMMAND_WHATIS] = {"whatis", "ADDRESS...", "what lies at an address, and what points to it", 1,
                        UINT_MAX, true},
    [COMMAND_REFS] = {"refs", "ADDRESS", "who points to this chunk (--to: what it points to)", 1, 1,
                      true},
    [COMMAND_PATH] = {"path", "ADDRESS", "why it is alive: a shortest chain from a root", 1, 1,
                      true},
    [COMMAND_TOP] = {"top", "", "what the heap is made of (--by=stack, size, arena, thread)", 0, 0,
                     true},
    [COMMAND_VERIFY] = {"verify", "", "checks every rule of the heap's format", 0, 0, true},
    [COMMAND_DIFF] = {"diff", "OLD NEW", "what grew between two cores", 2, 2, false},
    [COMMAND_SNAPSHOT] = {"snapshot", "", "a small file that can be inspected as a core", 0, 0,
                          false},
    [COMMAND_EXPORT] = {"export", "", "a heap profile for other tools: pprof, flame graphs", 0, 0,
                        true},
    [COMMAND_RUN] = {"run", "[OPTION...] -- PROGRAM [ARGUMENT...]",
                     "start a program on himalloc with a leak check at its exit", 0, UINT_MAX,
                     true},
};

enum option_kind {
    OPTION_FLAG,     /* bool */
    OPTION_TEXT,     /* const char * */
    OPTION_PID,      /* pid_t */
    OPTION_JOBS,     /* int */
    OPTION_WHEN,     /* enum when */
    OPTION_SIZE,     /* uint64_t */
    OPTION_LIMIT,    /* uint64_t, has_limit */
    OPTION_ARENA,    /* uint64_t, has_arena */
    OPTION_MASK,     /* uint64_t, hexadecimal */
    OPTION_ADDRESS,  /* hi_addr, hexadecimal */
    OPTION_STATES,   /* unsigned, a bit each */
    OPTION_ROOTS,    /* unsigned, a bit each */
    OPTION_INTERIOR, /* bool */
    OPTION_BY,       /* const char *, one of a few */
    OPTION_STYLE,    /* const char *, one of a few */
    OPTION_FORMAT,   /* const char *, one of a few */
    OPTION_EXIT,     /* uint64_t, has_exit_code */
    OPTION_REFUSED,  /* known, and not built yet */
};

struct option_spec {
    char letter;
    const char *name, *argument, *help;
    enum option_kind kind;
    size_t member;
    unsigned commands; /* bits; 0: all */
};

#define MEMBER(name) offsetof(struct options, name)
#define ONLY(name)   (1u << COMMAND_##name)
#define MARKING                                                                                    \
    (ONLY(SUMMARY) | ONLY(LEAKS) | ONLY(WHATIS) | ONLY(REFS) | ONLY(PATH) | ONLY(EXPORT))

static const struct option_spec specs[] = {
    {'p', "pid", "PID", "a live process", OPTION_PID, MEMBER(pid), 0},
    {0, "json", NULL, "one JSON object on standard output", OPTION_FLAG, MEMBER(json), 0},
    {0, "exe", "FILE", "the target's executable (it is checked)", OPTION_TEXT, MEMBER(executable),
     0},
    {0, "sysroot", "DIR", "where the target's files lie here", OPTION_TEXT, MEMBER(sysroot), 0},
    {0, "debug-dir", "DIR", "more separate debug files, besides /usr/lib/debug", OPTION_TEXT,
     MEMBER(debug_directory), 0},
    {0, "allocator", "NAME", "look for this allocator only", OPTION_TEXT, MEMBER(allocator), 0},
    {0, "registers-from", "FILE", "gdb's \"info registers\" of all threads; - is standard input",
     OPTION_TEXT, MEMBER(registers_from), 0},
    {0, "snapshot", NULL, "let the process fork, and read the copy while it runs on", OPTION_FLAG,
     MEMBER(fork_copy), 0},
    {'j', NULL, "N", "threads to work with (all processors)", OPTION_JOBS, MEMBER(jobs), 0},
    {0, "color", "WHEN", "auto, always or never", OPTION_WHEN, MEMBER(colour), 0},
    {0, "progress", "WHEN", "auto, always or never", OPTION_WHEN, MEMBER(progress), 0},
    {0, "limit", "N", "at most N rows; 0: all", OPTION_LIMIT, MEMBER(limit), 0},
    {'o', NULL, "FILE", "write the answer to FILE", OPTION_TEXT, MEMBER(output), 0},
    {0, "strict", NULL, "an answer from incomplete memory is a failure (status 2)", OPTION_FLAG,
     MEMBER(strict), 0},
    {'v', NULL, NULL, "say more: each check, timings", OPTION_FLAG, MEMBER(verbose), 0},
    {'q', NULL, NULL, "no notes on standard error", OPTION_FLAG, MEMBER(quiet), 0},
    {'h', "help", NULL, "this text, or a command's", OPTION_FLAG, MEMBER(help), 0},
    {'V', "version", NULL, "the version", OPTION_FLAG, MEMBER(version), 0},
    {0, "interior", "WHAT", "reachable or possible: blocks held by their middle only",
     OPTION_INTERIOR, MEMBER(interior_reachable), MARKING},
    {0, "unaligned", NULL, "also words at odd addresses", OPTION_FLAG, MEMBER(unaligned), MARKING},
    {0, "tag-mask", "HEX", "bits to clear in each word before it is looked up", OPTION_MASK,
     MEMBER(tag_mask), MARKING},
    {0, "roots", "+CLASS,-CLASS", "register, vector, stack, tls, data, kept, anon", OPTION_ROOTS,
     MEMBER(root_classes), MARKING},
    {0, "state", "STATE,...", "live, free, cached, \"in flight\", suspect", OPTION_STATES,
     MEMBER(states), ONLY(CHUNKS)},
    {0, "min-size", "SIZE", "no smaller ones (64, 4k, 1M, 2G)", OPTION_SIZE, MEMBER(min_bytes),
     ONLY(CHUNKS)},
    {0, "max-size", "SIZE", "no larger ones", OPTION_SIZE, MEMBER(max_bytes), ONLY(CHUNKS)},
    {0, "arena", "ID", "of this arena only", OPTION_ARENA, MEMBER(arena), ONLY(CHUNKS)},
    {0, "to", NULL, "what it points to", OPTION_FLAG, MEMBER(refs_to), ONLY(REFS)},
    {0, "by", "WHAT", "stack, size, arena or thread", OPTION_BY, MEMBER(by), ONLY(TOP)},
    {0, "style", "STYLE", "text, lsan or gperftools: whose words the report is in", OPTION_STYLE,
     MEMBER(style), ONLY(LEAKS) | ONLY(RUN)},
    {0, "suppressions", "FILE", "leaks not to be told: lines of leak:PATTERN", OPTION_TEXT,
     MEMBER(suppressions), ONLY(LEAKS) | ONLY(RUN) | ONLY(EXPORT)},
    {0, "suppressions-at", "ADDRESS", "the same, as text in the target's memory", OPTION_ADDRESS,
     MEMBER(suppressions_at), ONLY(LEAKS) | ONLY(EXPORT)},
    {0, "profile", "FILE", "write what is lost to FILE as well, as a gperftools heap profile",
     OPTION_TEXT, MEMBER(profile), ONLY(LEAKS)},
    {0, "if-found", NULL, "no output at all when nothing is lost", OPTION_FLAG, MEMBER(if_found),
     ONLY(LEAKS)},
    {0, "exitcode", "N", "the exit status when there are leaks (23)", OPTION_EXIT,
     MEMBER(exit_code), ONLY(RUN)},
    {0, "himalloc", "FILE", "the library, where it is not beside heapinspect", OPTION_TEXT,
     MEMBER(himalloc), ONLY(RUN)},
    {0, "retained", NULL, "with what each holds alone", OPTION_REFUSED, 0, ONLY(TOP)},
    {0, "format", "F", "gperftools (.heap), pprof (profile.proto) or flamegraph", OPTION_FORMAT,
     MEMBER(format), ONLY(EXPORT)},
    {0, "leaks", NULL, "what is lost; without it what is live", OPTION_FLAG, MEMBER(leaks),
     ONLY(EXPORT)},
};

enum { SPEC_COUNT = sizeof specs / sizeof specs[0] };

const char *command_name(enum command command)
{
    return commands[command].name;
}

/* -- values ----------------------------------------------------------------------------------- */

static bool parse_decimal(const char *text, uint64_t *value)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

bool parse_size(const char *text, uint64_t *bytes)
{
    static const char letters[] = "kmgtpe";
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno)
        return false;
    unsigned shift = 0;
    const char *letter = *end ? strchr(letters, *end | 0x20) : NULL;
    if (letter) {
        shift = 10 * (unsigned)(letter - letters + 1);
        end++;
        if (*end == 'i')
            end++;
    }
    if (*end == 'B')
        end++;
    *bytes = value << shift;
    return *end == '\0' && *bytes >> shift == value;
}

bool parse_address(const char *text, hi_addr *address)
{
    char *end;
    if (text[0] == '0' && (text[1] | 0x20) == 'x')
        text += 2;
    bool digit = (*text >= '0' && *text <= '9') || ((*text | 0x20) >= 'a' && (*text | 0x20) <= 'f');
    if (!digit || strlen(text) > 16)
        return false;
    *address = strtoull(text, &end, 16);
    return *end == '\0';
}

static enum hi_code usage(struct hi_err *err, const char *format, ...) HI_PRINTF(2, 3);
static enum hi_code usage(struct hi_err *err, const char *format, ...)
{
    char sentence[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return hi_fail(err, HI_USAGE, "%s", sentence);
}

/* A list item of at most size-1 characters from *list, which moves behind it. */
static bool next_item(const char **list, char *item, size_t size)
{
    size_t length = strcspn(*list, ",");
    if (length == 0 || length >= size)
        return false;
    memcpy(item, *list, length);
    item[length] = '\0';
    *list += length + ((*list)[length] == ',');
    return true;
}

static enum hi_code parse_states(unsigned *states, const char *list, struct hi_err *err)
{
    char item[16];
    for (const char *rest = list; *rest;) {
        unsigned bit = 0;
        if (next_item(&rest, item, sizeof item))
            for (unsigned s = BLOCK_FREE; s <= BLOCK_SUSPECT; s++) {
                const char *name = block_state_name((enum block_state)s);
                bool same = strcmp(item, name) == 0;
                bool joined = strcmp(item, "in-flight") == 0 && s == BLOCK_IN_FLIGHT;
                bit |= same || joined ? 1u << s : 0;
            }
        if (!bit)
            return usage(err,
                         "--state=%s: states are live, free, cached, in-flight and suspect, "
                         "with commas between",
                         list);
        *states |= bit;
    }
    return HI_OK;
}

static enum hi_code parse_roots(unsigned *classes, const char *list, struct hi_err *err)
{
    char item[16];
    for (const char *rest = list; *rest;) {
        unsigned bit = 0;
        bool good = next_item(&rest, item, sizeof item) && (item[0] == '+' || item[0] == '-');
        for (unsigned c = 0; good && c < ROOT_CLASS_COUNT; c++)
            if (strcmp(item + 1, root_class_name((enum root_class)c)) == 0)
                bit = 1u << c;
        if (!bit)
            return usage(err,
                         "--roots=%s: write +CLASS or -CLASS with commas between; classes are "
                         "register, vector, stack, tls, data, kept and anon",
                         list);
        *classes = item[0] == '+' ? *classes | bit : *classes & ~bit;
    }
    return HI_OK;
}

static enum hi_code parse_pid(pid_t *pid, const char *text, struct hi_err *err)
{
    uint64_t value;
    if (!parse_decimal(text, &value) || value == 0 || value > INT_MAX)
        return usage(err,
                     "-p %s: that is not a process id; it is a number above 0, as ps or pgrep "
                     "show it",
                     text);
    *pid = (pid_t)value;
    return HI_OK;
}

static enum hi_code parse_when(enum when *when, const char *name, const char *text,
                               struct hi_err *err)
{
    static const char *const names[] = {"auto", "always", "never"};
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            *when = (enum when)i;
            return HI_OK;
        }
    return usage(err, "--%s=%s: it is auto, always or never", name, text);
}

static enum hi_code parse_by(const char **by, const char *text, struct hi_err *err)
{
    static const char *const kinds[] = {"stack", "size", "arena", "thread"};
    for (unsigned i = 0; i < 4; i++)
        if (strcmp(text, kinds[i]) == 0) {
            *by = kinds[i];
            return HI_OK;
        }
    if (strcmp(text, "type") == 0)
        return usage(err, "--by=%s is not built yet; there is --by=stack, size, arena and thread",
                     text);
    return usage(err, "--by=%s: it is stack, size, arena or thread", text);
}

static enum hi_code parse_style(const char **style, const char *text, struct hi_err *err)
{
    static const char *const styles[] = {"text", "lsan", "gperftools"};
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(text, styles[i]) == 0) {
            *style = styles[i];
            return HI_OK;
        }
    return usage(err, "--style=%s: it is text, lsan or gperftools", text);
}

static enum hi_code parse_format(const char **format, const char *text, struct hi_err *err)
{
    static const char *const formats[] = {"gperftools", "pprof", "flamegraph"};
    static const char *const later[] = {"json", "html", "sqlite", "dot"};
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(text, formats[i]) == 0) {
            *format = formats[i];
            return HI_OK;
        }
    for (unsigned i = 0; i < 4; i++)
        if (strcmp(text, later[i]) == 0)
            return usage(err,
                         "--format=%s is not built yet; there is gperftools, pprof and flamegraph",
                         text);
    return usage(err, "--format=%s: it is gperftools, pprof or flamegraph", text);
}

static enum hi_code parse_exit_code(struct options *options, const char *text, struct hi_err *err)
{
    if (!parse_decimal(text, &options->exit_code) || options->exit_code > 255)
        return usage(err, "--exitcode=%s: write a number from 0 to 255; 0 keeps the program's",
                     text);
    options->has_exit_code = true;
    return HI_OK;
}

static enum hi_code parse_interior(bool *reachable, const char *text, struct hi_err *err)
{
    *reachable = strcmp(text, "reachable") == 0;
    if (*reachable || strcmp(text, "possible") == 0)
        return HI_OK;
    return usage(err, "--interior=%s: it is reachable or possible", text);
}

static enum hi_code parse_number(uint64_t *value, const struct option_spec *spec, const char *text,
                                 struct hi_err *err)
{
    if (spec->kind == OPTION_SIZE && !parse_size(text, value))
        return usage(err, "--%s=%s: write a size in bytes, or with k, M or G: 64, 4k, 1M",
                     spec->name, text);
    if (spec->kind == OPTION_MASK && !parse_address(text, value))
        return usage(err, "--%s=%s: write the bits as a hexadecimal number: 0xff00000000000000",
                     spec->name, text);
    if (spec->kind == OPTION_ADDRESS && !parse_address(text, value))
        return usage(err, "--%s=%s: that is not an address; write it in hexadecimal", spec->name,
                     text);
    if ((spec->kind == OPTION_LIMIT || spec->kind == OPTION_ARENA) && !parse_decimal(text, value))
        return usage(err, "--%s=%s: write a number", spec->name, text);
    return HI_OK;
}

static enum hi_code parse_jobs(int *jobs, const char *text, struct hi_err *err)
{
    uint64_t value;
    if (!parse_decimal(text, &value) || value == 0 || value > 1024)
        return usage(err, "-j %s: write a number of threads from 1 to 1024", text);
    *jobs = (int)value;
    return HI_OK;
}

/* -- one option ------------------------------------------------------------------------------- */

static enum hi_code store(struct options *options, const struct option_spec *spec,
                          const char *value, struct hi_err *err)
{
    void *member = (char *)options + spec->member;
    switch (spec->kind) {
    case OPTION_FLAG:
        *(bool *)member = true;
        return HI_OK;
    case OPTION_TEXT:
        if (!value || !*value)
            return usage(err, "--%s has an empty value", spec->name ? spec->name : "o");
        *(const char **)member = value;
        return HI_OK;
    case OPTION_PID:
        return parse_pid(member, value, err);
    case OPTION_JOBS:
        return parse_jobs(member, value, err);
    case OPTION_WHEN:
        return parse_when(member, spec->name, value, err);
    case OPTION_LIMIT:
        options->has_limit = true;
        return parse_number(member, spec, value, err);
    case OPTION_ARENA:
        options->has_arena = true;
        return parse_number(member, spec, value, err);
    case OPTION_SIZE:
    case OPTION_MASK:
    case OPTION_ADDRESS:
        return parse_number(member, spec, value, err);
    case OPTION_STATES:
        return parse_states(member, value, err);
    case OPTION_ROOTS:
        return parse_roots(member, value, err);
    case OPTION_INTERIOR:
        return parse_interior(member, value, err);
    case OPTION_BY:
        return parse_by(member, value, err);
    case OPTION_STYLE:
        return parse_style(member, value, err);
    case OPTION_FORMAT:
        return parse_format(member, value, err);
    case OPTION_EXIT:
        return parse_exit_code(options, value, err);
    case OPTION_REFUSED:
        return usage(err, "--%s is not built yet", spec->name);
    }
    return HI_OK;
}

/* What has been seen while the words go by. */
struct parse {
    struct options *options;
    int argc, index;
    char *const *argv;
    VECTOR(const char *) words;
    const struct option_spec *seen[SPEC_COUNT]; /* given, in the table's order */
    struct hi_err *err;
};

static const struct option_spec *find_long(const char *name, size_t length)
{
    for (size_t i = 0; i < SPEC_COUNT; i++)
        if (specs[i].name && strlen(specs[i].name) == length &&
            strncmp(specs[i].name, name, length) == 0)
            return &specs[i];
    return NULL;
}

static const struct option_spec *find_letter(char letter)
{
    for (size_t i = 0; i < SPEC_COUNT; i++)
        if (specs[i].letter && specs[i].letter == letter)
            return &specs[i];
    return NULL;
}

/* inline_value: what stood behind "=" or the letter; NULL: the next word, if it takes one. */
static enum hi_code take(struct parse *parse, const struct option_spec *spec,
                         const char *inline_value, const char *word)
{
    const char *value = inline_value;
    if (spec->argument && !value) {
        if (parse->index + 1 >= parse->argc)
            return usage(parse->err, "%s needs a value: %s %s", word, word, spec->argument);
        value = parse->argv[++parse->index];
    }
    parse->seen[spec - specs] = spec;
    return store(parse->options, spec, value, parse->err);
}

static enum hi_code take_long(struct parse *parse, const char *word)
{
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct option_spec *spec = find_long(name, length);
    if (!spec)
        return usage(parse->err, "%s: no such option; heapinspect --help lists them", word);
    if (equals && !spec->argument)
        return usage(parse->err, "--%s takes no value", spec->name);
    return take(parse, spec, equals ? equals + 1 : NULL, word);
}

static enum hi_code take_letters(struct parse *parse, const char *word)
{
    enum hi_code code = HI_OK;
    for (const char *p = word + 1; *p && code == HI_OK; p++) {
        const struct option_spec *spec = find_letter(*p);
        if (!spec)
            return usage(parse->err, "%s: no such option; heapinspect --help lists them", word);
        if (spec->argument)
            return take(parse, spec, p[1] ? p + 1 : NULL, word);
        code = take(parse, spec, NULL, word);
    }
    return code;
}

static enum hi_code push_word(struct parse *parse, const char *word)
{
    const char **item = VECTOR_PUSH(&parse->words);
    if (!item)
        return hi_no_memory(parse->err);
    *item = word;
    return HI_OK;
}

/* The first word is run: the next one is the program, and the rest belongs to it. */
static bool is_run(const struct parse *parse)
{
    return parse->words.count == 1 &&
           strcmp(parse->words.items[0], commands[COMMAND_RUN].name) == 0;
}

static enum hi_code read_words(struct parse *parse)
{
    enum hi_code code = HI_OK;
    bool options_end = false;
    for (parse->index = 1; parse->index < parse->argc && code == HI_OK; parse->index++) {
        const char *word = parse->argv[parse->index];
        bool plain = options_end || word[0] != '-' || word[1] == '\0';
        if (plain && is_run(parse)) {
            parse->options->program = &parse->argv[parse->index];
            break;
        }
        if (plain)
            code = push_word(parse, word);
        else if (strcmp(word, "--") == 0)
            options_end = true;
        else
            code = word[1] == '-' ? take_long(parse, word) : take_letters(parse, word);
    }
    return code;
}

/* -- words: target, command, arguments -------------------------------------------------------- */

static bool find_command(const char *word, enum command *command)
{
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].name, word) == 0) {
            *command = (enum command)i;
            return true;
        }
    return false;
}

/* Splits the words; *first is the index of the command's first argument. */
static enum hi_code find_target(struct parse *parse, size_t *first)
{
    struct options *o = parse->options;
    const char **words = parse->words.items;
    size_t count = parse->words.count;
    *first = 0;
    if (count && find_command(words[0], &o->command)) {
        o->has_command = true;
        *first = 1;
        if (o->command == COMMAND_DIFF || o->command == COMMAND_RUN || o->pid || count < 2)
            return HI_OK;
        o->core = words[(*first)++];
    } else if (count && o->pid) {
        return usage(parse->err, "%s: no such command; heapinspect --help lists them", words[0]);
    } else if (count) {
        o->core = words[(*first)++];
        o->has_command = count > 1;
        if (count > 1 && !find_command(words[(*first)++], &o->command))
            return usage(parse->err, "%s: no such command; heapinspect --help lists them",
                         words[1]);
    }
    return HI_OK;
}

static enum hi_code take_address(struct options *options, const char *word, struct hi_err *err)
{
    hi_addr *address = VECTOR_PUSH(&options->addresses);
    if (!address)
        return hi_no_memory(err);
    if (!parse_address(word, address))
        return usage(err, "%s: that is not an address; write it in hexadecimal: 0x7f12a0001000",
                     word);
    return HI_OK;
}

/* map takes an arena's number or an address: addresses have 0x, or are long. */
static enum hi_code take_map_argument(struct options *options, const char *word, struct hi_err *err)
{
    if (strlen(word) < 7 && parse_decimal(word, &options->arena)) {
        options->has_arena = true;
        return HI_OK;
    }
    return take_address(options, word, err);
}

static enum hi_code take_arguments(struct parse *parse, size_t first)
{
    struct options *o = parse->options;
    const struct command_spec *spec = &commands[o->command];
    size_t count = parse->words.count - first;
    if (count < spec->least)
        return usage(parse->err, "%s needs %s: heapinspect -p PID %s %s", spec->name,
                     spec->arguments, spec->name, spec->arguments);
    if (count > spec->most)
        return usage(parse->err, "%s: one word too many; heapinspect %s takes %s",
                     parse->words.items[first + spec->most], spec->name,
                     spec->most ? spec->arguments : "no argument");
    enum hi_code code = HI_OK;
    for (size_t i = first; i < parse->words.count && code == HI_OK; i++) {
        const char *word = parse->words.items[i];
        code = o->command == COMMAND_MAP ? take_map_argument(o, word, parse->err)
                                         : take_address(o, word, parse->err);
    }
    return code;
}

static enum hi_code check_belonging(const struct parse *parse)
{
    for (size_t i = 0; i < SPEC_COUNT; i++) {
        const struct option_spec *spec = parse->seen[i];
        if (!spec || !spec->commands || spec->commands & 1u << parse->options->command)
            continue;
        for (unsigned c = 0; c < COMMAND_COUNT; c++)
            if (spec->commands & 1u << c)
                return usage(parse->err,
                             "--%s is no option of %s (it belongs to %s); heapinspect "
                             "%s --help lists what there is",
                             spec->name, command_name(parse->options->command), commands[c].name,
                             command_name(parse->options->command));
    }
    return HI_OK;
}

static enum hi_code check_run(const struct parse *parse)
{
    const struct options *o = parse->options;
    if (o->pid || o->core)
        return usage(parse->err, "run starts a program, it takes no target; for one that runs: "
                                 "heapinspect -p PID leaks");
    if (!o->program)
        return usage(parse->err, "run needs a program: heapinspect run -- PROGRAM ARGUMENT...");
    if (o->json && o->style)
        return usage(parse->err, "--json and --style exclude each other");
    return check_belonging(parse);
}

static enum hi_code check_whole(struct parse *parse, size_t first)
{
    struct options *o = parse->options;
    if (o->help || o->version)
        return HI_OK;
    if (!commands[o->command].built)
        return usage(parse->err, "%s is not built yet in this version", command_name(o->command));
    if (o->command == COMMAND_RUN)
        return check_run(parse);
    if (!o->pid && !o->core)
        return usage(parse->err, "no target: give a process (-p PID) or a core file; "
                                 "heapinspect --help says more");
    if (o->command == COMMAND_EXPORT && !o->format)
        return usage(parse->err, "export needs a format: --format=gperftools, pprof or flamegraph");
    if (o->max_bytes < o->min_bytes)
        return usage(parse->err, "--max-size is below --min-size: no block can have such a size");
    enum hi_code code = check_belonging(parse);
    return code == HI_OK ? take_arguments(parse, first) : code;
}

enum hi_code options_parse(struct options *options, int argc, char *const *argv, struct hi_err *err)
{
    *options =
        (struct options){.root_classes = ROOTS_DEFAULT, .max_bytes = UINT64_MAX, .by = "size"};
    struct parse parse = {.options = options, .argc = argc, .argv = argv, .err = err};
    size_t first = 0;
    enum hi_code code = read_words(&parse);
    if (code == HI_OK)
        code = find_target(&parse, &first);
    if (code == HI_OK)
        code = check_whole(&parse, first);
    VECTOR_FREE(&parse.words);
    return code;
}

void options_free(struct options *options)
{
    VECTOR_FREE(&options->addresses);
}

/* -- help ------------------------------------------------------------------------------------- */

static void help_options(enum command command, bool of_command, FILE *out)
{
    for (size_t i = 0; i < SPEC_COUNT; i++) {
        const struct option_spec *s = &specs[i];
        bool listed = of_command ? s->commands & 1u << command : !s->commands;
        if (!listed || s->kind == OPTION_REFUSED)
            continue;
        char left[48], letter[4] = "";
        if (s->letter)
            snprintf(letter, sizeof letter, "-%c", s->letter);
        if (s->name)
            snprintf(left, sizeof left, "%s%s--%s%s%s", letter, s->letter ? ", " : "", s->name,
                     s->argument ? "=" : "", s->argument ? s->argument : "");
        else
            snprintf(left, sizeof left, "%s %s", letter, s->argument ? s->argument : "");
        fprintf(out, "  %-24s %s\n", left, s->help);
    }
}

static void help_all(FILE *out)
{
    fputs("usage: heapinspect [TARGET] [COMMAND [ARGUMENT...]] [OPTION...]\n\n"
          "TARGET\n"
          "  -p PID, --pid=PID        a live process\n"
          "  CORE                     a core file, as it is or compressed (zst, lz4, xz, gz)\n"
          "or:    heapinspect run [OPTION...] -- PROGRAM [ARGUMENT...]\n\n"
          "COMMAND (without one: summary)\n",
          out);
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        if (commands[i].built)
            fprintf(out, "  %-8s %-18s %s\n", commands[i].name, commands[i].arguments,
                    commands[i].help);
    fputs("\nOPTION (heapinspect COMMAND --help: those of a command)\n", out);
    help_options(COMMAND_SUMMARY, false, out);
    fputs("\nExit status: 0 done, nothing bad found; 1 leaks found a direct leak or verify found\n"
          "damage; 2 it could not be done, and one line says why.\n",
          out);
}

void options_help(enum command command, bool only_command, FILE *out)
{
    if (!only_command) {
        help_all(out);
        return;
    }
    bool is_run = command == COMMAND_RUN;
    fprintf(out,
            "usage: heapinspect %s%s %s%s\n\n%s\n\nOPTION (heapinspect --help: "
            "those common to all)\n",
            is_run ? "" : "TARGET ", commands[command].name, commands[command].arguments,
            is_run ? "" : " [OPTION...]", commands[command].help);
    if (!commands[command].built)
        fputs("  This command is not built yet in this version.\n", out);
    help_options(command, true, out);
}
