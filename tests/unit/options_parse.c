/* The command line: what is taken, in every order, and what each bad one is told. */
#include "options.h"
#include "symbols/roots.h"
#include "unit/tap.h"

enum { WORDS_MOST = 16 };

/* Parses "heapinspect " + line, split at spaces. */
static enum hi_code parse(struct options *options, const char *line, struct hi_err *err)
{
    static char copy[512];
    static char *argv[WORDS_MOST + 1]; /* options point into it */
    int argc = 1;
    argv[0] = (char *)"heapinspect";
    snprintf(copy, sizeof copy, "%s", line);
    for (char *p = copy; *p && argc < WORDS_MOST;) {
        argv[argc++] = p;
        p += strcspn(p, " ");
        if (*p)
            *p++ = '\0';
    }
    argv[argc] = NULL;
    *err = (struct hi_err){0};
    return options_parse(options, argc, argv, err);
}

static bool takes(const char *line, struct options *options)
{
    struct hi_err err;
    bool good = parse(options, line, &err) == HI_OK;
    ok(good, "%s", line);
    if (!good)
        printf("#   %s\n", err.message);
    return good;
}

static void refuses(const char *line, const char *because)
{
    struct options options;
    struct hi_err err;
    enum hi_code code = parse(&options, line, &err);
    bool said = strstr(err.message, because) != NULL && !strchr(err.message, '\n');
    if (!ok(code == HI_USAGE && said, "refused: %s", line))
        printf("#   code %d, \"%s\" lacks \"%s\"\n", (int)code, err.message, because);
    options_free(&options);
}

static void test_orders(void)
{
    static const char *const lines[] = {"-p 12 whatis 0x1000", "whatis -p 12 0x1000",
                                        "whatis 0x1000 -p12", "--pid=12 whatis 1000",
                                        "whatis --pid 12 -- 1000"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct options o;
        if (takes(lines[i], &o)) {
            is_u64((uint64_t)o.pid, 12, "... the process");
            ok(o.command == COMMAND_WHATIS && !o.core, "... the command");
            is_u64(o.addresses.count == 1 ? o.addresses.items[0] : 0, 0x1000, "... the address");
        }
        options_free(&o);
    }
    struct options o;
    takes("core.1", &o);
    ok(o.command == COMMAND_SUMMARY && !o.has_command, "without a command: summary");
    is_text(o.core, "core.1", "... of the core");
    options_free(&o);
    takes("core.1 leaks --json", &o);
    ok(o.command == COMMAND_LEAKS && o.json, "core before command");
    options_free(&o);
    takes("leaks core.1", &o);
    ok(o.command == COMMAND_LEAKS, "command before core");
    is_text(o.core, "core.1", "... and the core is known");
    options_free(&o);
    takes("leaks ./leaks", &o);
    is_text(o.core, "./leaks", "a core with a command's name has a path");
    options_free(&o);
}

static void test_values(void)
{
    struct options o;
    takes("-p 1 chunks --state=live,in-flight --min-size=4k --max-size 2G --arena=3 --limit=7", &o);
    is_u64(o.states, 1u << BLOCK_LIVE | 1u << BLOCK_IN_FLIGHT, "states");
    is_u64(o.min_bytes, 4096, "4k");
    is_u64(o.max_bytes, UINT64_C(2) << 30, "2G");
    ok(o.has_arena && o.arena == 3, "arena");
    ok(o.has_limit && o.limit == 7, "limit");
    options_free(&o);
    takes("-p 1 leaks --roots=+anon,-vector --tag-mask=ff00000000000000 --interior=reachable "
          "--unaligned",
          &o);
    is_u64(o.root_classes, (ROOTS_DEFAULT | 1u << ROOT_ANON) & ~(1u << ROOT_VECTOR), "roots");
    is_u64(o.tag_mask, UINT64_C(0xff) << 56, "mask");
    ok(o.interior_reachable && o.unaligned, "policy switches");
    options_free(&o);
    takes("-p 1 map 7", &o);
    ok(o.has_arena && o.arena == 7 && !o.addresses.count, "map of an arena");
    options_free(&o);
    takes("-p 1 map 0x7f0000001000", &o);
    ok(!o.has_arena && o.addresses.count == 1, "map around an address");
    options_free(&o);
    takes("-qv -j4 -p 1 --color=never -o out --exe=a --sysroot=b --debug-dir=c --strict", &o);
    ok(o.quiet && o.verbose && o.jobs == 4 && o.colour == WHEN_NEVER && o.strict, "common ones");
    is_text(o.output, "out", "-o");
    options_free(&o);
    takes("leaks --help", &o);
    ok(o.help && o.has_command, "help of a command needs no target");
    options_free(&o);
}

static void test_sizes(void)
{
    uint64_t bytes;
    ok(parse_size("64", &bytes) && bytes == 64, "64");
    ok(parse_size("4kB", &bytes) && bytes == 4096, "4kB");
    ok(parse_size("4KiB", &bytes) && bytes == 4096, "4KiB");
    ok(parse_size("1M", &bytes) && bytes == 1 << 20, "1M");
    ok(parse_size("15E", &bytes) && bytes == UINT64_C(15) << 60, "15E");
    static const char *const bad[] = {"",   "k", "-1", "1X", "4k4", "16E", "99999999999999999999",
                                      "1 ", " 1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ok(!parse_size(bad[i], &bytes), "\"%s\" is no size", bad[i]);
    hi_addr address;
    ok(parse_address("0X7fFF", &address) && address == 0x7fff, "hexadecimal in both cases");
    ok(parse_address("ffffffffffffffff", &address) && address == UINT64_MAX, "the last address");
    ok(!parse_address("0x", &address) && !parse_address("0xg", &address) &&
           !parse_address("11111111111111111", &address) && !parse_address("-1", &address),
       "what is no address");
}

static void test_run(void)
{
    static const char *const lines[] = {
        "run --exitcode=5 -- prog -p 12 run", "run --exitcode=5 prog -p 12 run",
        "run --exitcode=5 -- prog -p 12 run", "--exitcode 5 run prog -p 12 run"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct options o;
        if (takes(lines[i], &o)) {
            bool whole = o.program && strcmp(o.program[0], "prog") == 0 &&
                         strcmp(o.program[1], "-p") == 0 && strcmp(o.program[2], "12") == 0 &&
                         strcmp(o.program[3], "run") == 0 && !o.program[4];
            ok(whole && !o.pid && o.command == COMMAND_RUN, "... the program's words are its own");
            is_u64(o.exit_code, 5, "... the exit status");
        }
        options_free(&o);
    }
}

static void test_refusals(void)
{
    refuses("", "no target");
    refuses("leaks", "no target");
    refuses("-p 0", "not a process id");
    refuses("-p -5", "not a process id");
    refuses("-p 12x", "not a process id");
    refuses("-p 99999999999", "not a process id");
    refuses("-p", "needs a value");
    refuses("-p 1 --frobnicate", "no such option");
    refuses("-p 1 -z", "no such option");
    refuses("-p 1 leeks", "no such command");
    refuses("core.1 leeks", "no such command");
    refuses("-p 1 --json=yes", "takes no value");
    refuses("-p 1 leaks --state=live", "no option of leaks");
    refuses("-p 1 chunks --state=alive", "states are");
    refuses("-p 1 chunks --min-size=big", "write a size");
    refuses("-p 1 chunks --min-size=2 --max-size=1", "below");
    refuses("-p 1 --limit=many", "write a number");
    refuses("-p 1 --color=blue", "auto, always or never");
    refuses("-p 1 leaks --roots=stack", "+CLASS");
    refuses("-p 1 leaks --roots=+heap", "+CLASS");
    refuses("-p 1 leaks --tag-mask=top", "hexadecimal");
    refuses("-p 1 leaks --interior=maybe", "reachable or possible");
    refuses("-p 1 -j 0", "from 1");
    refuses("-p 1 whatis", "needs ADDRESS");
    refuses("-p 1 whatis 0xzz", "not an address");
    refuses("-p 1 leaks 0x1", "one word too many");
    refuses("-p 1 refs 1 2", "one word too many");
    refuses("diff a b", "not built yet");
    refuses("run", "needs a program");
    refuses("run --style=lsan", "needs a program");
    refuses("run --json --style=lsan -- true", "exclude");
    refuses("run -p 1 true", "takes no target");
    refuses("run --exitcode=256 true", "from 0 to 255");
    refuses("run --if-found -- true", "no option of run");
    refuses("-p 1 leaks --style=valgrind", "text, lsan or gperftools");
    refuses("-p 1 summary --style=lsan", "no option of summary");
    refuses("-p 1 snapshot", "not built yet");
    refuses("-p 1 top --by=type", "not built yet");
    refuses("-p 1 top --by=colour", "it is stack, size");
    refuses("-p 1 --exe=", "empty");
}

static void test_help(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    options_help(COMMAND_SUMMARY, false, out);
    fclose(out);
    bool all = true;
    for (unsigned c = COMMAND_SUMMARY; c <= COMMAND_VERIFY; c++)
        all = all && strstr(text, command_name((enum command)c));
    ok(all, "help names every command that is built");
    ok(strstr(text, "--sysroot=DIR") && strstr(text, "--limit=N"), "... and the common options");
    free(text);
    out = open_memstream(&text, &size);
    options_help(COMMAND_CHUNKS, true, out);
    fclose(out);
    ok(strstr(text, "--min-size") && !strstr(text, "--tag-mask"), "a command's help has its own");
    free(text);
}

int main(void)
{
    test_orders();
    test_values();
    test_sizes();
    test_run();
    test_refusals();
    test_help();
    return done();
}
