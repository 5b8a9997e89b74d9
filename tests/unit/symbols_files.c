/*
 * Where names and bytes come from when files are stripped, static, moved, replaced or not there.
 * One small program, built in each way; it prints the addresses of what it has, stops, and is asked
 * live and in a kernel core.
 */
#include "symbols/symbols.h"
#include "unit/tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char source[] =
    "#include <stdio.h>\n#include <unistd.h>\n#include <stdlib.h>\n"
    "int exported_word = 1; static int hidden_word = 2;\n"
    "static const char rodata[] = \""
    "rodata of the program\" ;\n"
    "static int *pointer = &hidden_word;\n"
    "__attribute__((noinline)) static int hidden_function(int x) {\n"
    "    __asm__ volatile(\"\" : \"+r\"(x)); return x + hidden_word; }\n"
    "int main(int argc, char **argv) {\n"
    "    printf(\"%p %p %p %p %p\\n\", (void *)hidden_function, (void *)&hidden_word,\n"
    "           (void *)&exported_word, (void *)rodata, (void *)&pointer);\n"
    "    fflush(stdout); (void)argv; exported_word = hidden_function(argc) + *pointer + "
    "!malloc(9);\n"
    "    for (;;) pause(); }\n";

static char directory[64];

struct run {
    pid_t pid;
    hi_addr function, hidden, exported, rodata, pointer;
    char core[400];
};

static bool shell(const char *command)
{
    char line[2000];
    snprintf(line, sizeof line, "cd %s && { %s ; } >/dev/null 2>&1", directory, command);
    return system(line) == 0;
}

static bool run_start(struct run *run, const char *program)
{
    int ends[2];
    memset(run, 0, sizeof *run);
    if (pipe2(ends, O_CLOEXEC))
        return false;
    fflush(stdout);
    run->pid = fork();
    if (run->pid == 0) {
        struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
        char path[300];
        dup2(ends[1], 1);
        snprintf(path, sizeof path, "%s/%s", directory, program);
        if (!chdir(directory) && !setrlimit(RLIMIT_CORE, &all))
            execl(path, path, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    int got = fscanf(output, "%" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64,
                     &run->function, &run->hidden, &run->exported, &run->rodata, &run->pointer);
    fclose(output);
    return got == 5;
}

/* End it with a core. */
static bool run_abort(struct run *run)
{
    kill(run->pid, SIGABRT);
    waitpid(run->pid, NULL, 0);
    run->pid = 0;
    DIR *open_directory = opendir(directory);
    for (struct dirent *entry; open_directory && (entry = readdir(open_directory));)
        if (strncmp(entry->d_name, "core", 4) == 0)
            snprintf(run->core, sizeof run->core, "%s/%s", directory, entry->d_name);
    closedir(open_directory);
    return run->core[0] != 0;
}

/* A core by gdb, while it lives on. */
static bool run_gcore(struct run *run)
{
    char command[200];
    snprintf(command, sizeof command, "gcore -o by-gdb %d", (int)run->pid);
    snprintf(run->core, sizeof run->core, "%s/by-gdb.%d", directory, (int)run->pid);
    return shell(command) && access(run->core, R_OK) == 0;
}

static void run_forget_core(struct run *run)
{
    if (run->core[0])
        unlink(run->core);
    run->core[0] = 0;
}

static void run_end(struct run *run)
{
    if (run->pid) {
        kill(run->pid, SIGKILL);
        waitpid(run->pid, NULL, 0);
    }
    run_forget_core(run);
}

struct view {
    struct target *target;
    struct symbols *symbols;
    struct hi_err err;
};

static bool view_open(struct view *view, const struct run *run, const char *executable,
                      const char *debug_directory)
{
    struct target_options options = {.executable = executable, .debug_directory = debug_directory};
    memset(view, 0, sizeof *view);
    enum hi_code code = run->core[0]
                            ? target_open_core(&view->target, run->core, &options, &view->err)
                            : target_open_process(&view->target, run->pid, &options, &view->err);
    return code == HI_OK &&
           symbols_open(&view->symbols, view->target, &options, &view->err) == HI_OK;
}

static void view_close(struct view *view)
{
    symbols_close(view->symbols);
    target_close(view->target);
}

static hi_addr address_of(struct view *view, const char *name)
{
    struct symbol symbol;
    return symbols_find(view->symbols, 0, name, &symbol, NULL) == HI_OK ? symbol.address : 0;
}

static bool is_function_at(struct view *view, hi_addr address, const char *name)
{
    char text[100];
    symbols_describe(view->symbols, address, text, sizeof text);
    if (strcmp(text, name) != 0)
        printf("#   %s\n", text);
    return strcmp(text, name) == 0;
}

static bool reads_rodata(struct view *view, const struct run *run)
{
    static const char wanted[] = "rodata of the program";
    char text[sizeof wanted] = "";
    return target_read(view->target, run->rodata, text, sizeof text, NULL) == HI_OK &&
           strcmp(text, wanted) == 0;
}

static void expect_hidden(struct view *view, const struct run *run, bool known, const char *what)
{
    is_u64(address_of(view, "hidden_function"), known ? run->function : 0, what);
    if (known)
        ok(is_function_at(view, run->function + 2, "hidden_function+0x2") &&
               address_of(view, "hidden_word") == run->hidden,
           "%s: by address, and data", what);
}

static bool see_relocation(void *context, hi_addr place, hi_addr value)
{
    (void)place;
    *(hi_addr *)context = value;
    return false;
}

static void expect_relocation(struct view *view, const struct run *run, const char *what)
{
    hi_addr value = 0;
    struct hi_range place = {run->pointer, run->pointer + 8};
    enum hi_code code = symbols_relocations(view->symbols, 0, place, see_relocation, &value, NULL);
    /* a program at fixed addresses has none */
    if (symbols_module(view->symbols, 0)->bias)
        is_u64(code == HI_OK ? value : 0, run->hidden, what);
    else
        ok(value == 0, "%s: none", what);
}

/* Live and from a core; names of static symbols known or not. */
static void check(const char *name, const char *program, const char *debug_directory, bool known,
                  bool is_static)
{
    struct run run;
    struct view view;
    char what[100];
    static const char *const views[] = {"live", "gcore", "core"};
    for (int from = 0; from < 3; from++) {
        snprintf(what, sizeof what, "%s, %s", name, views[from]);
        if (from == 0 && !ok(run_start(&run, program), "%s runs", name))
            return run_end(&run);
        if ((from == 1 && !run_gcore(&run)) || (from == 2 && !run_abort(&run))) {
            ok(true, "%s # SKIP no core was made", what);
            continue;
        }
        if (!ok(view_open(&view, &run, NULL, debug_directory), "%s: open %s", what,
                view.err.message)) {
            view_close(&view);
            break;
        }
        const struct module *module = symbols_module(view.symbols, 0);
        ok(module->kind == MODULE_EXECUTABLE && module->has_file &&
               module->is_static == is_static && run.hidden >= module->start &&
               run.hidden < module->end,
           "%s: the executable", what);
        expect_hidden(&view, &run, known, what);
        ok(reads_rodata(&view, &run), "%s: rodata can be read", what);
        expect_relocation(&view, &run, "a relocation says what a static pointer holds");
        view_close(&view);
        run_forget_core(&run);
    }
    run_end(&run);
}

static void test_places(void)
{
    check("plain", "plain", NULL, true, false);
    check("no pie", "nopie", NULL, true, false);
    if (shell("test -x relr"))
        check("packed relocations", "relr", NULL, true, false);
    if (shell("test -x static"))
        check("static", "static", NULL, true, true);
    if (shell("test -x staticpie"))
        check("static pie", "staticpie", NULL, true, true);
    check("stripped, debug link beside it", "linked", NULL, true, false);
    check("stripped, debug link in .debug", "inner/linked", NULL, true, false);
    check("stripped, nothing", "bare", NULL, false, false);
    char debug[100];
    snprintf(debug, sizeof debug, "%s/debug", directory);
    check("stripped, --debug-dir", "bare", debug, true, false);
    if (shell("test -x mini"))
        check("stripped, .gnu_debugdata", "mini", NULL, true, false);
    else
        ok(true, "mini # SKIP no xz");
    check("a debug file of another build", "wronglink", NULL, false, false);
}

static void test_no_sections(void)
{
    struct run run;
    struct view view;
    ok(run_start(&run, "headless"), "without section headers: runs");
    if (ok(view_open(&view, &run, NULL, NULL), "open %s", view.err.message)) {
        is_u64(address_of(&view, "exported_word"), run.exported, "an exported name is still known");
        is_u64(address_of(&view, "hidden_word"), 0, "a hidden one is not");
    }
    view_close(&view);
    run_end(&run);
}

static bool has_note(struct view *view, const char *part)
{
    for (size_t i = 0; i < target_note_count(view->target); i++)
        if (strstr(target_note(view->target, i), part))
            return true;
    return false;
}

/* The file of a core is another build now, then gone; --exe helps. */
static void test_replaced(bool by_gdb)
{
    struct run run;
    struct view view;
    char path[100], other[100];
    uint64_t word;
    snprintf(path, sizeof path, "%s/kept", directory);
    snprintf(other, sizeof other, "%s/nopie", directory);
    ok(shell("cp plain moved && cp plain kept") && run_start(&run, "moved") &&
           (by_gdb ? run_gcore(&run) : run_abort(&run)),
       "a core of a program, by %s", by_gdb ? "gdb" : "the kernel");
    ok(shell("rm moved && cp nopie moved"), "that was replaced");
    if (ok(view_open(&view, &run, NULL, NULL), "opens: %s", view.err.message)) {
        ok(!symbols_module(view.symbols, 0)->has_file, "the other file is not used");
        ok(has_note(&view, "/moved is not the file"), "and a note says so");
        ok(target_read_u64(view.target, run.rodata, &word, NULL) == HI_FAULT,
           "its rodata can't be read");
        is_u64(address_of(&view, "hidden_word"), 0, "nor hidden names");
    }
    view_close(&view);
    if (ok(view_open(&view, &run, path, NULL), "with --exe: %s", view.err.message)) {
        expect_hidden(&view, &run, true, "names by --exe");
        ok(reads_rodata(&view, &run), "rodata by --exe");
    }
    view_close(&view);
    ok(!view_open(&view, &run, other, NULL) && view.err.code == HI_BAD_INPUT &&
           strstr(view.err.message, "is not the program of this target"),
       "--exe of another program: %s", view.err.message);
    view_close(&view);
    ok(!view_open(&view, &run, "/etc/passwd", NULL) && view.err.code == HI_BAD_INPUT,
       "--exe of a text file: %s", view.err.message);
    view_close(&view);
    shell("rm moved");
    ok(view_open(&view, &run, NULL, NULL) && !symbols_module(view.symbols, 0)->has_file,
       "without any file: %s", view.err.message);
    view_close(&view);
    run_end(&run);
}

/* The same program with another number in it: nothing but the build-id tells them apart. */
static void test_twin(void)
{
    struct run run;
    struct view view;
    ok(shell("cp plain moved") && run_start(&run, "moved") && run_gcore(&run) &&
           shell("rm moved && cp twin moved"),
       "a core by gdb of a program that was replaced by its twin");
    /* gdb may leave out the page of the headers */
    if (ok(view_open(&view, &run, NULL, NULL), "opens: %s", view.err.message))
        ok(!symbols_module(view.symbols, 0)->has_file || has_note(&view, "could not be checked"),
           "the twin is not used, or said to be unchecked");
    view_close(&view);
    run_forget_core(&run);
    ok(run_abort(&run) && shell("rm moved && cp twin moved"),
       "a core of a program that was replaced by its twin");
    if (ok(view_open(&view, &run, NULL, NULL), "opens: %s", view.err.message)) {
        ok(!symbols_module(view.symbols, 0)->has_file, "the twin is not used");
        ok(!has_note(&view, "could not be checked"), "and that is certain");
    }
    view_close(&view);
    run_end(&run);
}

/* Then the program headers decide; and a file without content is no program's file. */
static void test_without_build_id(void)
{
    struct run run;
    struct view view;
    char path[100];
    ok(shell("cp noid moved") && run_start(&run, "moved") && run_abort(&run),
       "a core of a program without build-id");
    if (ok(view_open(&view, &run, NULL, NULL), "opens: %s", view.err.message))
        ok(symbols_module(view.symbols, 0)->has_file && reads_rodata(&view, &run),
           "its file is known by its headers");
    view_close(&view);
    ok(shell("rm moved && cp othernoid moved"), "it is replaced");
    if (ok(view_open(&view, &run, NULL, NULL), "opens: %s", view.err.message))
        ok(!symbols_module(view.symbols, 0)->has_file, "the other file is not used");
    view_close(&view);
    ok(shell("rm moved && objcopy --only-keep-debug noid moved"), "replaced by its debug part");
    if (ok(view_open(&view, &run, NULL, NULL), "opens: %s", view.err.message))
        ok(!symbols_module(view.symbols, 0)->has_file, "which is not used for its bytes");
    view_close(&view);
    snprintf(path, sizeof path, "%s/moved", directory);
    ok(!view_open(&view, &run, path, NULL) && view.err.code == HI_BAD_INPUT, "nor as --exe: %s",
       view.err.message);
    view_close(&view);
    run_end(&run);
}

/* ld.so ./program: the kernel has started the dynamic linker. */
static void test_by_linker(void)
{
    struct run run;
    struct view view;
    if (!shell("ld=$(readelf -l plain | sed -n 's/.*interpreter: \\(.*\\)]/\\1/p') && "
               "printf '#!/bin/sh\\nexec %s ./plain\\n' $ld > started && chmod +x started") ||
        !run_start(&run, "started")) {
        ok(true, "started by the dynamic linker # SKIP");
        return;
    }
    if (ok(view_open(&view, &run, NULL, NULL), "started by the dynamic linker: %s",
           view.err.message)) {
        const struct module *module = symbols_module(view.symbols, 0);
        ok(module->kind == MODULE_EXECUTABLE && run.function >= module->start &&
               run.function < module->end,
           "the program is the executable");
        expect_hidden(&view, &run, true, "its names");
    }
    view_close(&view);
    run_end(&run);
}

/* A running program whose file was replaced: the old file is what counts. */
static void test_deleted(void)
{
    struct run run;
    struct view view;
    ok(shell("cp plain moved") && run_start(&run, "moved") && shell("rm moved && cp nopie moved"),
       "a program whose file is replaced while it runs");
    if (ok(view_open(&view, &run, NULL, NULL), "opens: %s", view.err.message)) {
        bool has_file = symbols_module(view.symbols, 0)->has_file;
        ok(has_file, "its own file is found");
        expect_hidden(&view, &run, has_file, "names of the deleted file");
    }
    view_close(&view);
    run_end(&run);
}

static bool build(void)
{
    char path[100];
    snprintf(directory, sizeof directory, "/tmp/symbols.XXXXXX");
    if (!mkdtemp(directory))
        return false;
    snprintf(path, sizeof path, "%s/program.c", directory);
    FILE *file = fopen(path, "w");
    if (!file || fputs(source, file) < 0 || fclose(file))
        return false;
    if (!shell("cc -O1 -rdynamic -fPIE -pie -Wl,--build-id=sha1 -o plain program.c && "
               "cc -O1 -DX=2 -fno-pie -no-pie -Wl,--build-id=sha1 -o nopie program.c && "
               "cc -O1 -fPIE -pie -Wl,--build-id=none -o noid program.c && "
               "sed 's/hidden_word = 2/hidden_word = 3/' program.c > twin.c && "
               "cc -O1 -rdynamic -fPIE -pie -Wl,--build-id=sha1 -o twin twin.c && "
               "cc -O1 -rdynamic -g -fPIE -pie -Wl,--build-id=none -o othernoid program.c"))
        return false;
    shell("cc -O1 -fPIE -pie -Wl,-z,pack-relative-relocs -o relr program.c && "
          "readelf -d relr | grep RELR || rm -f relr");
    shell("cc -O1 -static -Wl,--build-id=sha1 -o static program.c");
    shell("cc -O1 -static-pie -fPIE -Wl,--build-id=sha1 -o staticpie program.c");
    return shell("objcopy --only-keep-debug plain linked.debug && mkdir -p inner/.debug && "
                 "objcopy --strip-all --add-gnu-debuglink=linked.debug plain linked && "
                 "cp linked inner/ && cp linked.debug inner/.debug/ && "
                 "objcopy --strip-all plain bare && "
                 "id=$(readelf -n plain | sed -n 's/.*Build ID: //p') && "
                 "d=debug/.build-id/$(echo $id | cut -c1-2) && mkdir -p $d && "
                 "cp linked.debug $d/$(echo $id | cut -c3-).debug && "
                 /* a link to the debug file of another build, with a right checksum */
                 "objcopy --only-keep-debug nopie wrong.debug && "
                 "objcopy --strip-all --add-gnu-debuglink=wrong.debug plain wronglink && "
                 /* e_shoff, e_shnum and e_shstrndx set to 0 */
                 "cp bare headless && "
                 "head -c 8 /dev/zero | dd of=headless bs=1 seek=40 conv=notrunc && "
                 "head -c 4 /dev/zero | dd of=headless bs=1 seek=60 conv=notrunc") &&
           (shell("objcopy --strip-debug linked.debug symbols && "
                  "cc -O1 -c -o unused.o program.c && objcopy -S --remove-section .comment "
                  "--keep-symbol hidden_function --keep-symbol hidden_word linked.debug symbols && "
                  "xz -k symbols && "
                  "objcopy --strip-all --add-section .gnu_debugdata=symbols.xz plain mini") ||
            shell("rm -f mini"));
}

int main(void)
{
    if (!build()) {
        printf("1..0 # SKIP cannot build programs\n");
    } else {
        test_places();
        test_no_sections();
        test_replaced(false);
        if (shell("command -v gcore"))
            test_replaced(true);
        if (shell("command -v gcore"))
            test_twin();
        test_without_build_id();
        test_deleted();
        test_by_linker();
        done();
    }
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command) || tap_failures;
}
