/*
 * leakcheck: this process, as it is, looked at by heapinspect.
 *
 * Three processes take part:
 *
 *     the program      waits in wait4(), all its memory as the check finds it
 *       └ watcher      shares the program's memory, runs on a stack of its own; waits as well
 *           └ heapinspect -p PROGRAM leaks ...
 *
 * Why a watcher: heapinspect, as the program's own child, would send it SIGCHLD, be reaped by
 * another thread's wait(-1), or be lost where SIGCHLD is ignored. The watcher is a child without an
 * exit signal, which only wait4(__WALL) sees; it never calls exec, which would give it one. It must
 * not be made with CLONE_VFORK: a process suspended so cannot be stopped and looked at.
 *
 * Watcher and the moments before exec live in the program's memory, which may be in any state:
 * another thread inside malloc, stdio locked, a signal handler half way. So they use stacks in a
 * mapping of their own and bare system calls: no allocation, no lock, no errno, no TLS. All signals
 * are blocked around both clones: a handler of the program must never run in them.
 *
 * heapinspect gets the program's environment but for what would load this library into it, its
 * standard input is empty, and its output is the report: the file that was asked for (appended to,
 * because forked children write there as well), or standard error. That one is often closed by now
 * (programs that check for write errors do so last thing), so a duplicate is kept from the start.
 * Descriptor 2 is used if it is still the same file, or if it was led elsewhere on purpose: a
 * terminal, a pipe, a log that is appended to. A plain file that happens to have number 2 is left
 * alone.
 *
 * What does not belong to the program's view of its memory is kept out of the answer: vector
 * registers are dead in a function call, but still hold what memcpy moved last, so they are cleared
 * before the wait.
 */
#define _GNU_SOURCE
#include "leakcheck.h"

#include "options.h"
#include "pages.h"
#include "state.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

extern char **environ;

enum {
    STACK_BYTES = 32 << 10,
    VECTOR_STATE_BYTES = 4096,
    STYLE_MAX = 32,
    ARGUMENTS_MOST = 16,
    ENVIRONMENT_MOST = 1 << 16,
    SAVED_DESCRIPTOR_LEAST = 200, /* where no program that counts its descriptors meets it */
    STATUS_NO_EXEC = 127,
    STATUS_NO_REPORT = 126,
};

/* Settled at the start. "": none. */
static struct {
    char inspector[PATH_MAX], report[PATH_MAX], suppressions[PATH_MAX], style[STYLE_MAX];
    char profile[PATH_MAX];
    const char *embedded;
    char dump[PATH_MAX]; /* HEAPPROFILE's prefix */
    uint32_t dump_pid, dump_count;
    bool is_ready, is_dumping;
    int error_descriptor; /* duplicate of standard error, -1: none */
    dev_t error_device;
    ino_t error_inode;
} plan LARGE_VARIABLE;

/* One check: everything that watcher and child read. At the start of their mapping. */
struct launch {
    char stacks[2][STACK_BYTES]; /* the watcher's, the child's */
    char vector_state[VECTOR_STATE_BYTES];
    int output; /* -1: report */
    char report[PATH_MAX + 64];
    char pid[16];
    char suppressions[PATH_MAX + 32], style[STYLE_MAX + 16], profile[PATH_MAX + 64];
    char embedded[48];
    char *arguments[ARGUMENTS_MOST];
    char *environment[];
};

/* ---- text ---- */

struct text {
    char *bytes;
    size_t length, size;
    bool cut;
};

static void text_add(struct text *text, const char *part, size_t length)
{
    if (length >= text->size - text->length) {
        text->cut = true;
        return;
    }
    memcpy(text->bytes + text->length, part, length);
    text->length += length;
    text->bytes[text->length] = 0;
}

static void text_add_string(struct text *text, const char *part)
{
    text_add(text, part, strlen(part));
}

static void text_add_number(struct text *text, uint32_t number)
{
    char digits[12];
    size_t at = sizeof(digits);
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    text_add(text, digits + at, sizeof(digits) - at);
}

/* ---- standard error ---- */

static bool is_saved_error(const struct stat *file)
{
    return file->st_dev == plan.error_device && file->st_ino == plan.error_inode;
}

/* Where a line for the user goes, or -1. */
static int error_descriptor(void)
{
    struct stat file;
    long flags = pages_syscall(SYS_fcntl, STDERR_FILENO, F_GETFL, 0, 0, 0, 0);
    if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && fstat(STDERR_FILENO, &file) == 0 &&
        (is_saved_error(&file) || !S_ISREG(file.st_mode) || flags & O_APPEND))
        return STDERR_FILENO;
    if (plan.error_descriptor >= 0 && fstat(plan.error_descriptor, &file) == 0 &&
        is_saved_error(&file))
        return plan.error_descriptor;
    return -1;
}

static void complain(const char *what, const char *name)
{
    char bytes[PATH_MAX + 128];
    struct text line = {.bytes = bytes, .size = sizeof(bytes)};
    text_add_string(&line,
                    plan.is_dumping ? "himalloc: no heap profile: " : "himalloc: no leak check: ");
    text_add_string(&line, what);
    text_add_string(&line, name);
    text_add_string(&line, "\n");
    pages_syscall(SYS_write, error_descriptor(), (long)bytes, (long)line.length, 0, 0, 0);
}

/* ---- at the start ---- */

/* A path that holds wherever the program goes; "" when it is too long. */
static void keep_path(char *to, const char *path, size_t length)
{
    struct text text = {.bytes = to, .size = PATH_MAX};
    to[0] = 0;
    if (length == 0)
        return;
    if (path[0] != '/' && getcwd(to, PATH_MAX - 1)) {
        text.length = strlen(to);
        text_add_string(&text, "/");
    }
    text_add(&text, path, length);
    if (text.cut)
        to[0] = 0;
}

/* folder (of that length) + rest, if it can be run. */
static bool try_inspector(const char *folder, size_t length, const char *rest)
{
    char path[PATH_MAX];
    struct text text = {.bytes = path, .size = sizeof(path)};
    struct stat file;
    text_add(&text, folder, length);
    text_add_string(&text, rest);
    if (text.cut || access(path, X_OK) != 0 || stat(path, &file) != 0 || !S_ISREG(file.st_mode))
        return false;
    keep_path(plan.inspector, path, text.length);
    return true;
}

static bool find_on_path(void)
{
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t length = strcspn(path, ":");
        if (length && try_inspector(path, length, "/heapinspect"))
            return true;
        path += length;
        path += *path == ':';
    }
    return false;
}

extern int dladdr(const void *address, Dl_info *info) __attribute__((weak));

/* The file that this code was loaded from: the library, or a program linked with it. */
static size_t own_folder(char *path)
{
    Dl_info info;
    if (dladdr && dladdr((void *)(uintptr_t)leakcheck_prepare, &info) && info.dli_fname &&
        strchr(info.dli_fname, '/')) {
        keep_path(path, info.dli_fname, strlen(info.dli_fname));
    } else {
        ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
        path[length > 0 ? length : 0] = 0;
    }
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

static void find_inspector(void)
{
    static const char *const places[] = {"/heapinspect", "/../bin/heapinspect",
                                         "/../../bin/heapinspect"};
    const char *given = getenv("HIMALLOC_INSPECTOR");
    if (given && *given) {
        keep_path(plan.inspector, given, strlen(given));
        return;
    }
    char path[PATH_MAX];
    size_t length = own_folder(path);
    for (size_t i = 0; length && i < sizeof(places) / sizeof(places[0]); i++)
        if (try_inspector(path, length, places[i]))
            return;
    find_on_path();
}

static void keep_error_descriptor(void)
{
    struct stat file;
    plan.error_descriptor = -1;
    if (fstat(STDERR_FILENO, &file) != 0)
        return;
    plan.error_device = file.st_dev;
    plan.error_inode = file.st_ino;
    plan.error_descriptor = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, SAVED_DESCRIPTOR_LEAST);
}

/* gperftools writes what is lost to a file that pprof reads, named after program and process. */
static void name_profile(void)
{
    const char *folder = getenv("HEAP_CHECK_DUMP_DIRECTORY");
    struct text text = {.bytes = plan.profile, .size = sizeof(plan.profile)};
    folder = folder && *folder ? folder : "/tmp";
    if (access(folder, W_OK) != 0)
        return;
    keep_path(plan.profile, folder, strlen(folder));
    text.length = strlen(plan.profile);
    text_add_string(&text, "/");
    text_add_string(&text, program_invocation_short_name);
    text_add_string(&text, ".%p._main_-end.heap");
    if (text.cut)
        plan.profile[0] = 0;
}

/* Suppressions that the program brings along, as LeakSanitizer knows them. */
extern const char *__lsan_default_suppressions(void) __attribute__((weak, visibility("default")));
/* Whether it wants no check. */
extern int __lsan_is_turned_off(void) __attribute__((weak, visibility("default")));

bool leakcheck_is_turned_off(void)
{
    return __lsan_is_turned_off && __lsan_is_turned_off();
}

static void keep_dump(void)
{
    const struct option_text *prefix = &options_heapprofile.prefix;
    char path[PATH_MAX];
    if (prefix->length == 0 || prefix->length >= sizeof(path))
        return;
    memcpy(path, prefix->text, prefix->length);
    path[0] = (char)(path[0] & 0x7f);
    keep_path(plan.dump, path, prefix->length);
    if (!options_heapprofile.is_child)
        plan.dump_pid = (uint32_t)pages_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

void leakcheck_prepare(void)
{
    const struct options_leakcheck *o = &options_leakcheck;
    plan.is_ready = true;
    find_inspector();
    keep_dump();
    keep_error_descriptor();
    keep_path(plan.report, o->report.text, o->report.length);
    keep_path(plan.suppressions, o->suppressions.text, o->suppressions.length);
    keep_path(plan.profile, o->profile.text, o->profile.length);
    if (o->heapcheck && !o->profile.length)
        name_profile();
    if (__lsan_default_suppressions)
        plan.embedded = __lsan_default_suppressions();
    if (o->style.length && o->style.length < sizeof(plan.style))
        memcpy(plan.style, o->style.text, o->style.length);
}

/* ---- the command ---- */

/* %p is the process id, %% a percent sign. */
static void fill_path(struct text *text, const char *path, const char *pid)
{
    for (const char *p = path; *p; p++) {
        if (p[0] == '%' && p[1] == 'p') {
            text_add_string(text, pid);
            p++;
        } else {
            text_add(text, p, 1);
            p += p[0] == '%' && p[1] == '%';
        }
    }
}

static void fill_report(struct launch *launch)
{
    struct text text = {.bytes = launch->report, .size = sizeof(launch->report)};
    fill_path(&text, plan.report, launch->pid);
}

static void fill_profile(struct launch *launch)
{
    struct text text = {.bytes = launch->profile, .size = sizeof(launch->profile)};
    text_add_string(&text, "--profile=");
    fill_path(&text, plan.profile, launch->pid);
}

/* The inspector reads it where it is. */
static void fill_embedded(struct launch *launch)
{
    struct text text = {.bytes = launch->embedded, .size = sizeof(launch->embedded)};
    uintptr_t address = (uintptr_t)plan.embedded;
    text_add_string(&text, "--suppressions-at=0x");
    for (int shift = 60; shift >= 0; shift -= 4)
        text_add(&text, &"0123456789abcdef"[address >> shift & 15], 1);
}

static void join(char *to, size_t size, const char *option, const char *value)
{
    struct text text = {.bytes = to, .size = size};
    text_add_string(&text, option);
    text_add_string(&text, value);
}

/* Where nothing is lost: a file that was asked for says so, standard error on demand. */
static bool says_clean(uint32_t pid)
{
    return options_leakcheck.say_always || options_leakcheck.say_pid == pid || plan.report[0];
}

static void fill_arguments(struct launch *launch, uint32_t pid)
{
    /* the kernel does not write to them, and execve takes them without const */
    static char options[][24] = {"leaks", "-q", "--progress=never", "--if-found", "--json", "-p"};
    char **next = launch->arguments;
    *next++ = plan.inspector;
    *next++ = options[5];
    *next++ = launch->pid;
    for (int i = 0; i < 3; i++)
        *next++ = options[i];
    if (!says_clean(pid))
        *next++ = options[3];
    if (strcmp(plan.style, "json") == 0) {
        *next++ = options[4];
    } else if (plan.style[0]) {
        join(launch->style, sizeof(launch->style), "--style=", plan.style);
        *next++ = launch->style;
    }
    if (plan.suppressions[0]) {
        join(launch->suppressions, sizeof(launch->suppressions),
             "--suppressions=", plan.suppressions);
        *next++ = launch->suppressions;
    }
    if (plan.profile[0]) {
        fill_profile(launch);
        *next++ = launch->profile;
    }
    if (plan.embedded && plan.embedded[0]) {
        fill_embedded(launch);
        *next++ = launch->embedded;
    }
    *next = NULL;
}

/* PREFIX.0001.heap, of a child PREFIX_PID.0001.heap. */
static void name_dump(struct launch *launch, uint32_t pid)
{
    struct text text = {.bytes = launch->profile, .size = sizeof(launch->profile)};
    text_add_string(&text, plan.dump);
    if (pid != plan.dump_pid) {
        text_add_string(&text, "_");
        text_add_string(&text, launch->pid);
    }
    uint32_t number = ++plan.dump_count;
    text_add_string(&text, ".");
    for (uint32_t least = 1000; least > 1 && number < least; least /= 10)
        text_add_string(&text, "0");
    text_add_number(&text, number);
    text_add_string(&text, ".heap");
}

static void fill_dump(struct launch *launch, uint32_t pid, const char *why)
{
    static char words[][24] = {"-p", "export", "-q", "--progress=never", "--format=gperftools",
                               "-o"};
    char bytes[PATH_MAX + 128], **next = launch->arguments;
    struct text line = {.bytes = bytes, .size = sizeof(bytes)};
    name_dump(launch, pid);
    *next++ = plan.inspector;
    *next++ = words[0];
    *next++ = launch->pid;
    for (int i = 1; i < 6; i++)
        *next++ = words[i];
    *next++ = launch->profile;
    *next = NULL;
    text_add_string(&line, "Dumping heap profile to ");
    text_add_string(&line, launch->profile);
    text_add_string(&line, why);
    pages_syscall(SYS_write, error_descriptor(), (long)bytes, (long)line.length, 0, 0, 0);
}

static bool is_for_us(const char *variable)
{
    static const char *const names[] = {
        "LD_PRELOAD=", "LD_AUDIT=", "HIMALLOC=", "HEAPCHECK=", "HEAPPROFILE="};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static size_t environment_count(void)
{
    size_t count = 0;
    while (environ && environ[count] && count < ENVIRONMENT_MOST)
        count++;
    return count;
}

static void fill_environment(struct launch *launch, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!is_for_us(environ[i]))
            launch->environment[kept++] = environ[i];
    launch->environment[kept] = NULL;
}

static struct launch *launch_make(uint32_t pid, size_t *bytes)
{
    size_t count = environment_count();
    *bytes = sizeof(struct launch) + (count + 1) * sizeof(char *);
    struct launch *launch = pages_map(*bytes);
    if (!launch)
        return NULL;
    struct text text = {.bytes = launch->pid, .size = sizeof(launch->pid)};
    text_add_number(&text, pid);
    launch->output = plan.report[0] ? -1 : error_descriptor();
    fill_report(launch);
    fill_arguments(launch, pid);
    fill_environment(launch, count);
    return launch;
}

/* ---- the two children ---- */

/* Handlers of the program are none of the children's; what it ignores counts for heapinspect too,
 * but for SIGCHLD. */
static void reset_signals(void)
{
    struct {
        uintptr_t handler;
        unsigned long flags, restorer;
        uint64_t mask;
    } action, plain = {0};
    for (int number = 1; number <= 64; number++) {
        if (pages_syscall(SYS_rt_sigaction, number, 0, (long)&action, 8, 0, 0) != 0)
            continue;
        if (number == SIGCHLD || action.handler > (uintptr_t)SIG_IGN)
            pages_syscall(SYS_rt_sigaction, number, (long)&plain, 0, 8, 0, 0);
    }
}

static void leave(int status) __attribute__((noreturn));
static void leave(int status)
{
    for (;;)
        pages_syscall(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

/* The program's files are none of heapinspect's, and its limit may be reached. */
static void close_others(unsigned kept)
{
#ifdef SYS_close_range
    if (kept > 3)
        pages_syscall(SYS_close_range, 3, kept - 1, 0, 0, 0, 0);
    pages_syscall(SYS_close_range, kept >= 3 ? kept + 1 : 3, ~0u, 0, 0, 0, 0);
#else
    (void)kept;
#endif
}

static int become_inspector(void *context)
{
    struct launch *launch = context;
    uint64_t none = 0;
    long output = launch->output;
    close_others(output > 0 ? (unsigned)output : 0);
    if (plan.report[0])
        output = pages_syscall(SYS_openat, AT_FDCWD, (long)launch->report,
                               O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666, 0, 0);
    long input =
        pages_syscall(SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDWR | O_CLOEXEC, 0, 0, 0);
    if (plan.report[0] && output < 0)
        leave(STATUS_NO_REPORT);
    output = output < 0 ? input : output; /* nobody can see it, and the verdict still counts */
    /* out of the way of 0 to 2, whatever of these is open */
    output = pages_syscall(SYS_fcntl, output, F_DUPFD_CLOEXEC, 3, 0, 0, 0);
    input = pages_syscall(SYS_fcntl, input, F_DUPFD_CLOEXEC, 3, 0, 0, 0);
    if (output < 0)
        leave(STATUS_NO_REPORT);
    pages_syscall(SYS_dup3, input, STDIN_FILENO, 0, 0, 0, 0);
    pages_syscall(SYS_dup3, output, STDOUT_FILENO, 0, 0, 0, 0);
    pages_syscall(SYS_dup3, output, STDERR_FILENO, 0, 0, 0, 0);
    pages_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, sizeof(none), 0, 0);
    pages_syscall(SYS_execve, (long)plan.inspector, (long)launch->arguments,
                  (long)launch->environment, 0, 0, 0);
    leave(STATUS_NO_EXEC);
}

/* The exit status of a process that ended, 2 for one that was killed or could not be waited for. */
static int wait_for(long pid, int flags)
{
    int status = 0;
    long got;
    do
        got = pages_syscall(SYS_wait4, pid, (long)&status, flags, 0, 0, 0);
    while (got == -EINTR);
    return got == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

static int watch(void *context)
{
    struct launch *launch = context;
    reset_signals();
    long child = clone(become_inspector, launch->stacks[1] + STACK_BYTES,
                       CLONE_VM | CLONE_VFORK | SIGCHLD, launch);
    leave(child > 0 ? wait_for(child, 0) : 2);
}

/* ---- the program ---- */

#if defined(__x86_64__)
/* XRSTOR from an image that has no component: all of them take their initial values. */
static void forget_vectors(char *state)
{
    enum { SSE_AVX_AVX512 = 0xe6, MXCSR_OFFSET = 24 };
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return;
    __asm__ volatile("stmxcsr (%0)" : : "r"(state + MXCSR_OFFSET) : "memory");
    __asm__ volatile("xrstor (%0)"
                     :
                     : "r"(state), "a"(SSE_AVX_AVX512), "d"(0)
                     : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}
#else
static void forget_vectors(char *state)
{
    (void)state;
}
#endif

static int launch_run(struct launch *launch)
{
    uint64_t all = ~0ULL, old = 0;
    pages_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&old, sizeof(all), 0, 0);
    long watcher = clone(watch, launch->stacks[0] + STACK_BYTES, CLONE_VM, launch);
    pages_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&old, 0, sizeof(old), 0, 0);
    if (watcher < 0) {
        complain("no process can be started", "");
        return -1;
    }
    forget_vectors(launch->vector_state);
    return wait_for(watcher, __WALL);
}

static enum leakcheck_verdict verdict_of(int status, const struct launch *launch)
{
    if (status == STATUS_NO_EXEC)
        complain("cannot run ", plan.inspector);
    else if (status == STATUS_NO_REPORT)
        complain("cannot write ", plan.report[0] ? launch->report : "to standard error");
    return status == 0 ? LEAKCHECK_CLEAN : status == 1 ? LEAKCHECK_LEAKS : LEAKCHECK_UNKNOWN;
}

/* why: NULL for a check, else for a heap profile. */
static enum leakcheck_verdict look(const char *why)
{
    uint32_t pid = (uint32_t)pages_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
    size_t bytes;
    if (!plan.is_ready)
        leakcheck_prepare();
    if (!plan.inspector[0]) {
        complain("heapinspect was not found; HIMALLOC_INSPECTOR can name it", "");
        return LEAKCHECK_UNKNOWN;
    }
    struct launch *launch = launch_make(pid, &bytes);
    if (!launch) {
        complain("no memory", "");
        return LEAKCHECK_UNKNOWN;
    }
    if (why)
        fill_dump(launch, pid, why);
    /* a descendant must be allowed to look: also where only ancestors may (Yama), and in a process
     * that changed its user */
    long dumpable = pages_syscall(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0, 0);
    if (dumpable == 0)
        pages_syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0, 0);
    pages_syscall(SYS_prctl, PR_SET_PTRACER, (long)PR_SET_PTRACER_ANY, 0, 0, 0, 0);
    enum leakcheck_verdict verdict = verdict_of(launch_run(launch), launch);
    pages_syscall(SYS_prctl, PR_SET_PTRACER, 0, 0, 0, 0, 0);
    if (dumpable == 0)
        pages_syscall(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);
    pages_unmap(launch, bytes);
    return verdict;
}

enum leakcheck_verdict leakcheck_run(void)
{
    return look(NULL);
}

void leakcheck_dump(const char *why)
{
    plan.is_dumping = true;
    if (look(why) == LEAKCHECK_UNKNOWN)
        complain("heapinspect failed", "");
    plan.is_dumping = false;
}
