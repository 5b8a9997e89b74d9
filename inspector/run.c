/*
 * heapinspect run: a program with libhimalloc.so preloaded and HIMALLOC=leakcheck:exit.
 *
 * All the rest happens in the program itself when it ends (allocator/at_exit.c), which starts this
 * heapinspect again for the check. Here is only what a shell would do: set the environment, start,
 * pass signals on, wait, and hand on the exit status; a program that dies of a signal gives
 * 128 + its number. What the terminal sends (SIGINT, SIGQUIT) reaches the program by itself.
 *
 * HIMALLOC that is set already stays, in front of what is added: the last word is the command
 * line's. A statically linked program cannot be given a library, and one that gains privileges is
 * not let: that is said before it starts instead of silence at its end.
 */
#include "run.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile pid_t program_pid; /* for the handler below; 0: not started yet */

static void pass_on(int number)
{
    int saved = errno;
    if (program_pid > 0)
        kill(program_pid, number);
    errno = saved;
}

/* -- environment ------------------------------------------------------------------------------ */

static enum hi_code own_path(char *path, size_t size, struct hi_err *err)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);
    if (length < 0)
        return hi_fail(err, HI_SYSTEM, "cannot tell where heapinspect lies: %s", strerror(errno));
    path[length] = '\0';
    return HI_OK;
}

/* The library's path is read by ld.so from a list with spaces and colons between. */
static enum hi_code check_library(const char *path, struct hi_err *err)
{
    if (strpbrk(path, " :"))
        return hi_fail(err, HI_USAGE,
                       "%s: LD_PRELOAD cannot hold a path with spaces or colons; link to it from "
                       "another folder",
                       path);
    return HI_OK;
}

static enum hi_code find_library(const char *given, const char *own, char *path, struct hi_err *err)
{
    static const char *const places[] = {"", "/../lib", "/../lib64", "/../lib/x86_64-linux-gnu"};
    char found[PATH_MAX + 64];
    const char *slash = strrchr(own, '/');
    int folder = slash ? (int)(slash - own) : 0;
    if (given) {
        if (!realpath(given, path))
            return hi_fail(err, HI_SYSTEM, "--himalloc=%s: %s", given, strerror(errno));
        return check_library(path, err);
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(found, sizeof found, "%.*s%s/libhimalloc.so", folder, own, places[i]);
        if (access(found, R_OK) == 0 && realpath(found, path))
            return check_library(path, err);
    }
    return hi_fail(
        err, HI_NOT_FOUND,
        "libhimalloc.so was not found beside heapinspect (%.*s, ../lib); --himalloc=FILE "
        "names it",
        folder, own);
}

/* name=before SEPARATOR value, or name=value. */
static enum hi_code set_joined(const char *name, const char *before, char separator,
                               const char *value, struct hi_err *err)
{
    char *whole = NULL;
    int length = before && *before ? asprintf(&whole, "%s%c%s", before, separator, value)
                                   : asprintf(&whole, "%s", value);
    if (length < 0)
        return hi_no_memory(err);
    enum hi_code code = setenv(name, whole, 1) == 0 ? HI_OK : hi_no_memory(err);
    free(whole);
    return code;
}

static enum hi_code add_setting(char *settings, size_t size, const char *key, const char *value,
                                struct hi_err *err)
{
    size_t used = strlen(settings);
    if (!value)
        return HI_OK;
    if (strchr(value, ','))
        return hi_fail(err, HI_USAGE, "%s: a name with a comma cannot be passed on", value);
    if ((size_t)snprintf(settings + used, size - used, ",%s:%s", key, value) >= size - used)
        return hi_fail(err, HI_USAGE, "%s: the name is too long", value);
    return HI_OK;
}

static enum hi_code set_himalloc(const struct options *o, struct hi_err *err)
{
    char settings[3 * PATH_MAX] = "leakcheck:exit", number[8];
    snprintf(number, sizeof number, "%u", (unsigned)o->exit_code);
    enum hi_code code =
        add_setting(settings, sizeof settings, "exitcode", o->has_exit_code ? number : NULL, err);
    if (code == HI_OK)
        code = add_setting(settings, sizeof settings, "report", o->output, err);
    if (code == HI_OK)
        code = add_setting(settings, sizeof settings, "suppressions", o->suppressions, err);
    if (code == HI_OK)
        code = add_setting(settings, sizeof settings, "style", o->json ? "json" : o->style, err);
    if (code == HI_OK)
        code = set_joined("HIMALLOC", getenv("HIMALLOC"), ',', settings, err);
    return code;
}

static enum hi_code set_environment(const struct options *options, struct hi_err *err)
{
    char own[PATH_MAX], library[PATH_MAX];
    enum hi_code code = own_path(own, sizeof own, err);
    if (code == HI_OK)
        code = find_library(options->himalloc, own, library, err);
    if (code == HI_OK && setenv("HIMALLOC_INSPECTOR", own, 1) != 0)
        code = hi_no_memory(err);
    if (code == HI_OK)
        code = set_himalloc(options, err);
    if (code == HI_OK) {
        const char *before = getenv("LD_PRELOAD");
        code = set_joined("LD_PRELOAD", library, ':', before ? before : "", err);
    }
    return code;
}

/* -- before the start ------------------------------------------------------------------------- */

/* Where execvp would find it; false: that is for execvp to say. */
static bool find_program(const char *name, char *path, size_t size)
{
    const char *list = getenv("PATH");
    if (strchr(name, '/'))
        return (size_t)snprintf(path, size, "%s", name) < size;
    while (list && *list) {
        size_t length = strcspn(list, ":");
        int written = snprintf(path, size, "%.*s/%s", (int)length, list, name);
        if (written > 0 && (size_t)written < size && access(path, X_OK) == 0)
            return true;
        list += length + (list[length] == ':');
    }
    return false;
}

/* 64-bit ELF executables without an interpreter do not load libraries. */
static bool is_static(int file)
{
    Elf64_Ehdr head;
    if (pread(file, &head, sizeof head, 0) != (ssize_t)sizeof head ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64)
        return false;
    for (unsigned i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr segment;
        if (pread(file, &segment, sizeof segment, (off_t)(head.e_phoff + i * sizeof segment)) !=
                (ssize_t)sizeof segment ||
            segment.p_type == PT_INTERP)
            return false;
    }
    return true;
}

static enum hi_code check_program(const char *name, struct hi_err *err)
{
    char path[PATH_MAX];
    struct stat status;
    enum hi_code code = HI_OK;
    if (!find_program(name, path, sizeof path))
        return HI_OK;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return HI_OK;
    if (is_static(file))
        code = hi_fail(err, HI_UNSUPPORTED,
                       "%s is statically linked: himalloc cannot be loaded into it; link it with "
                       "libhimalloc.a and set HIMALLOC=leakcheck:exit",
                       path);
    else if (fstat(file, &status) == 0 && geteuid() != 0 && status.st_mode & (S_ISUID | S_ISGID))
        code = hi_fail(err, HI_UNSUPPORTED,
                       "%s gains privileges when it starts: the system does not let himalloc in",
                       path);
    close(file);
    return code;
}

/* -- start and wait --------------------------------------------------------------------------- */

static void handle(int number, void (*handler)(int))
{
    struct sigaction old, action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    if (sigaction(number, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
        sigaction(number, &action, NULL);
}

/* The program says how its check went; its children only what they lose. */
static enum hi_code let_it_say(void)
{
    char setting[32];
    snprintf(setting, sizeof setting, "say:%d", (int)getpid());
    return set_joined("HIMALLOC", getenv("HIMALLOC"), ',', setting, NULL);
}

static void start_program(char *const *program, const sigset_t *mask, int failure)
{
    int why = ENOMEM;
    sigprocmask(SIG_SETMASK, mask, NULL);
    if (let_it_say() == HI_OK) {
        execvp(program[0], program);
        why = errno;
    }
    ssize_t written = write(failure, &why, sizeof why);
    _exit(written == (ssize_t)sizeof why ? 2 : 3);
}

static enum hi_code wait_program(const char *name, int failure, int *status, struct hi_err *err)
{
    int why = 0, how = 0;
    ssize_t got;
    do
        got = read(failure, &why, sizeof why);
    while (got < 0 && errno == EINTR);
    while (waitpid(program_pid, &how, 0) < 0)
        if (errno != EINTR)
            return hi_fail(err, HI_SYSTEM, "%s: cannot wait for it: %s", name, strerror(errno));
    program_pid = 0; /* its number may be another's now */
    if (got == (ssize_t)sizeof why)
        return hi_fail(err, HI_SYSTEM, "cannot run %s: %s", name, strerror(why));
    *status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    return HI_OK;
}

static enum hi_code start_and_wait(char *const *program, int *status, struct hi_err *err)
{
    static const int passed[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM};
    int ends[2];
    sigset_t all, old;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return hi_fail(err, HI_SYSTEM, "cannot make a pipe: %s", strerror(errno));
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    program_pid = fork();
    if (program_pid == 0)
        start_program(program, &old, ends[1]);
    int why = errno;
    close(ends[1]);
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
        handle(passed[i], pass_on);
    handle(SIGINT, SIG_IGN);
    handle(SIGQUIT, SIG_IGN);
    sigprocmask(SIG_SETMASK, &old, NULL);
    enum hi_code code = program_pid < 0
                            ? hi_fail(err, HI_SYSTEM, "cannot start a process: %s", strerror(why))
                            : wait_program(program[0], ends[0], status, err);
    close(ends[0]);
    return code;
}

/* The library adds to its report; what is there from an earlier run goes. */
static enum hi_code empty_report(const char *path, struct hi_err *err)
{
    if (!path || strchr(path, '%'))
        return HI_OK;
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0)
        return hi_fail(err, HI_SYSTEM, "cannot write %s: %s", path, strerror(errno));
    close(file);
    return HI_OK;
}

enum hi_code run_program(const struct options *options, int *status, struct hi_err *err)
{
    enum hi_code code = check_program(options->program[0], err);
    if (code == HI_OK)
        code = set_environment(options, err);
    if (code == HI_OK)
        code = empty_report(options->output, err);
    return code == HI_OK ? start_and_wait(options->program, status, err) : code;
}
