/*
 * Roots of one program in every way that it can be linked and started: static, not relocatable,
 * with addresses that are not random (then the heap begins right behind the bss), stripped. The
 * program prints where it has what.
 */
#include "symbols/roots.h"
#include "unit/tap.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char source[] =
    "#define _GNU_SOURCE\n#include <pthread.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
    "#include <unistd.h>\n#include <sys/syscall.h>\n#include <sys/mman.h>\n"
    "static long data_word = 1, bss_word[3000]; static __thread long tls_word = 3;\n"
    "static __thread char tls_space[9000]; static volatile int parked; static int joined_tid;\n"
    "static void say(const char *what, volatile void *p) { printf(\"%s %p\\n\", what, (void *)p); "
    "}\n"
    "static void *park(void *c) { long word; say(\"thread-stack\", &word);\n"
    "    say(\"thread-tls\", &tls_word); say(\"thread-tls\", &tls_space[1]); parked = 1;\n"
    "    for (;;) pause(); return c; }\n"
    "static void *end(void *c) { long word; say(\"dead\", &word); return c; }\n"
    "static void *end_with(void *c) { joined_tid = syscall(SYS_gettid); (void)c;\n"
    "    return (void *)0x123456789abcd000; }\n"
    "int main(void) { long word; pthread_t t, u; char path[64]; setvbuf(stdout, 0, _IONBF, 0);\n"
    "    say(\"data\", &data_word); say(\"data\", &bss_word[2999]); say(\"tls\", &tls_word);\n"
    "    say(\"tls\", &tls_space[1]); say(\"stack\", &word);\n"
    "    say(\"heap\", malloc(50000)); say(\"heap\", malloc(16));\n"
    "    say(\"node\", mmap(0, 9999, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, "
    "0));\n"
    "    pthread_create(&t, 0, end, 0); pthread_create(&u, 0, end_with, 0);\n"
    "    do { usleep(1000); snprintf(path, 64, \"/proc/self/task/%d\", joined_tid); }\n"
    "    while (!joined_tid || !access(path, 0));\n"
    "    pthread_attr_t a; pthread_attr_init(&a); pthread_attr_setstacksize(&a, 1 << 20);\n"
    "    pthread_create(&u, &a, park, 0); while (!parked) usleep(1000); pthread_join(t, 0);\n"
    "    printf(\"ready 1\\n\"); for (;;) pause(); }\n";

static char directory[64];

static bool shell(const char *command)
{
    char line[1000];
    snprintf(line, sizeof line, "cd %s && { %s ; } >/dev/null 2>&1", directory, command);
    return system(line) == 0;
}

enum { MAX_FACTS = 32 };

struct program {
    pid_t pid;
    struct fact {
        char what[32];
        hi_addr address;
    } facts[MAX_FACTS];
    size_t count;
};

/* Starts it and reads its facts up to "ready". */
static bool program_start(struct program *program, const char *name, bool fixed)
{
    int ends[2];
    memset(program, 0, sizeof *program);
    if (pipe(ends))
        return false;
    fflush(stdout);
    program->pid = fork();
    if (program->pid == 0) {
        char path[100];
        snprintf(path, sizeof path, "%s/%s", directory, name);
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        if (fixed)
            execlp("setarch", "setarch", "-R", path, (char *)NULL);
        else
            execl(path, path, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    bool ready = false;
    while (!ready && program->count < MAX_FACTS) {
        struct fact *fact = &program->facts[program->count];
        if (fscanf(output, "%31s %" SCNx64, fact->what, &fact->address) != 2)
            break;
        ready = strcmp(fact->what, "ready") == 0;
        program->count += !ready;
    }
    fclose(output);
    return ready;
}

static bool holds(const struct hi_range *ranges, size_t count, hi_addr address)
{
    for (size_t i = 0; i < count; i++)
        if (address >= ranges[i].start && address < ranges[i].end)
            return true;
    return false;
}

/* What roots make of an address. */
static const char *kind_of(const struct roots *roots, const struct program *program,
                           hi_addr address)
{
    static char text[32];
    const struct root_range *range = roots_range_at(roots, address);
    bool is_other = range && range->tid && range->tid != program->pid;
    if (range)
        snprintf(text, sizeof text, "%s%s", is_other ? "thread-" : "",
                 root_class_name(range->class));
    else if (holds(roots->dead.items, roots->dead.count, address))
        return "dead";
    else
        return holds(roots->nodes.items, roots->nodes.count, address) ? "node" : "nothing";
    return text;
}

static void check_facts(const char *name, const struct program *program, const struct roots *roots)
{
    char what[100];
    bool is_musl = strncmp(name, "musl", 4) == 0;
    for (size_t i = 0; i < program->count; i++) {
        const struct fact *fact = &program->facts[i];
        bool is_heap = strcmp(fact->what, "heap") == 0;
        /* musl gives stacks back at once, and keeps its records to itself */
        if (is_musl && strcmp(fact->what, "dead") == 0)
            continue;
        snprintf(what, sizeof what, "%s: %s", name, fact->what);
        /* what no reader has claimed yet is a node: the heap's place is that, and no data */
        is_text(kind_of(roots, program, fact->address), is_heap ? "node" : fact->what, what);
    }
    bool found = is_musl;
    for (size_t i = 0; i < roots->words.count; i++)
        found |= roots->words.items[i].value == 0x123456789abcd000 &&
                 roots->words.items[i].class == ROOT_KEPT;
    for (size_t i = 0; i < roots->ranges.count && !found; i++)
        found = roots->ranges.items[i].class == ROOT_TLS &&
                roots->ranges.items[i].end - roots->ranges.items[i].start < 0x2000 &&
                roots->ranges.items[i].tid == 0;
    ok(found, "%s: the result of an unjoined thread", name);
}

static void check(const char *name, bool fixed)
{
    struct program program;
    struct target *target = NULL;
    struct symbols *symbols = NULL;
    struct roots roots = {.missing_bytes = 0};
    struct hi_err err = {0};
    char title[64];
    snprintf(title, sizeof title, "%s%s", name, fixed ? ", fixed addresses" : "");
    if (ok(program_start(&program, name, fixed), "%s runs", title) &&
        ok(target_open_process(&target, program.pid, NULL, &err) == HI_OK &&
               symbols_open(&symbols, target, NULL, &err) == HI_OK &&
               roots_collect(&roots, target, symbols, NULL, &err) == HI_OK,
           "%s: roots %s", title, err.message)) {
        check_facts(title, &program, &roots);
        is_u64(roots.missing_bytes, 0, "nothing is missing");
    }
    roots_free(&roots);
    symbols_close(symbols);
    target_close(target);
    kill(program.pid, SIGKILL);
    waitpid(program.pid, NULL, 0);
}

static bool build(void)
{
    char path[100];
    snprintf(directory, sizeof directory, "/tmp/symbols.XXXXXX");
    if (!mkdtemp(directory))
        return false;
    snprintf(path, sizeof path, "%s/program.c", directory);
    FILE *file = fopen(path, "w");
    if (!file || fputs(source, file) < 0 || fclose(file) || !shell("cc -O1 -o pie program.c"))
        return false;
    shell("cc -O1 -fno-pie -no-pie -o nopie program.c");
    shell("cc -O1 -static -o static program.c");
    shell("cc -O1 -static -s -o static-stripped program.c");
    shell("cc -O1 -static-pie -fPIE -o static-pie program.c");
    shell("musl-gcc -O1 -o musl program.c");
    shell("musl-gcc -O1 -static -o musl-static program.c");
    return true;
}

int main(void)
{
    static const char *const names[] = {"pie",        "nopie", "static",     "static-stripped",
                                        "static-pie", "musl",  "musl-static"};
    bool built = build();
    for (size_t i = 0; built && i < sizeof names / sizeof *names; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        if (access(path, X_OK)) {
            ok(true, "%s # SKIP cannot be linked here", names[i]);
            continue;
        }
        check(names[i], false);
        check(names[i], true);
    }
    if (built)
        done();
    else
        printf("1..0 # SKIP cannot build programs\n");
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command) || tap_failures;
}
