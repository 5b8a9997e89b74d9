/*
 * A child process that puts values where a root should (or should not) see them, and the questions
 * asked about it. Each value is made of a secret that parent and child share, so that no other copy
 * of it exists in the child: not in its text, not in what the parent left on the stack.
 */
#ifndef TESTS_UNIT_ROOTS_TRUTH_H
#define TESTS_UNIT_ROOTS_TRUTH_H

#include "symbols/roots.h"
#include "unit/tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct truth {
    volatile uint64_t secret, ready;
    volatile hi_addr place[64]; /* where the child put a value, XOR TRUTH_MASK */
    volatile pid_t tid[64];
};

/* The sanitizer's terabytes of shadow memory make no core; live they do no harm. */
#ifdef __SANITIZE_ADDRESS__
enum { TRUTH_MAKES_CORES = 0 };
#else
enum { TRUTH_MAKES_CORES = 1 };
#endif

#define TRUTH_MASK 0xa5a5a5a5a5a5a5a5ull

static struct truth *truth;
static char truth_directory[64];

static inline uint64_t truth_value(int id)
{
    uint64_t x = (truth->secret + (uint64_t)id) * 0x9e3779b97f4a7c15ull;
    x ^= x >> 31;
    return x * 0xbf58476d1ce4e5b9ull | 1;
}

/* Overwrite what registers and the stack below may still hold of a value. */
__attribute__((noinline, unused)) static void truth_scrub(void)
{
    __asm__ volatile("vzeroall\n\txor %%eax,%%eax\n\txor %%ecx,%%ecx\n\txor %%edx,%%edx\n\t"
                     "xor %%esi,%%esi\n\txor %%edi,%%edi\n\txor %%r8d,%%r8d\n\txor %%r9d,%%r9d\n\t"
                     "xor %%r10d,%%r10d\n\txor %%r11d,%%r11d" ::
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0",
                           "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "memory");
}

__attribute__((noinline, unused)) static void truth_put(int id, volatile uint64_t *place)
{
    *place = truth_value(id);
    truth->place[id] = (hi_addr)(uintptr_t)place ^ TRUTH_MASK;
    truth->tid[id] = (pid_t)syscall(SYS_gettid);
}

/* Stays here for good, in a frame of its own. */
__attribute__((noinline, unused)) static void truth_park(void)
{
    truth_scrub();
    __atomic_fetch_add(&truth->ready, 1, __ATOMIC_SEQ_CST);
    for (;;)
        pause();
}

static inline void truth_setup(void)
{
    truth = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    uint64_t secret = 0;
    if (truth == MAP_FAILED || read(fd, &secret, sizeof secret) != sizeof secret)
        exit(99);
    close(fd);
    truth->secret = secret;
    snprintf(truth_directory, sizeof truth_directory, "/tmp/roots.XXXXXX");
    if (!mkdtemp(truth_directory))
        exit(99);
}

static inline void truth_end(void)
{
    DIR *directory = opendir(truth_directory);
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory)
        closedir(directory);
    rmdir(truth_directory);
}

static inline pid_t truth_start(void (*program)(void), uint64_t parked)
{
    memset((void *)truth->place, 0, sizeof truth->place);
    truth->ready = 0;
    truth->secret = truth->secret * 6364136223846793005u + 1; /* what we read before is stale */
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
        if (chdir(truth_directory) || setrlimit(RLIMIT_CORE, &all))
            _exit(97);
        program();
        _exit(98);
    }
    for (int i = 0; i < 10000 && truth->ready < parked; i++)
        usleep(1000);
    if (truth->ready < parked)
        printf("# only %d of %d threads are where they should be\n", (int)truth->ready,
               (int)parked);
    return child;
}

/* ---- views: the same questions live, in a kernel core, in a core by gdb ---- */

struct view {
    const char *name;
    struct target *target;
    struct symbols *symbols;
    struct roots roots;
};

static inline bool view_fill(struct view *view, unsigned classes)
{
    struct hi_err err = {0};
    struct root_options options = {classes};
    bool opened = symbols_open(&view->symbols, view->target, NULL, &err) == HI_OK &&
                  roots_collect(&view->roots, view->target, view->symbols, &options, &err) == HI_OK;
    return ok(opened, "%s: roots %s", view->name, err.message);
}

static inline void view_close(struct view *view)
{
    roots_free(&view->roots);
    symbols_close(view->symbols);
    target_close(view->target);
    memset(view, 0, sizeof *view);
}

/* Does [start, end) of the target hold value as an aligned word? */
static inline bool view_holds(struct view *view, hi_addr start, hi_addr end, uint64_t value)
{
    static uint64_t words[8192];
    for (hi_addr at = start; at < end;) {
        size_t wanted = end - at < sizeof words ? end - at : sizeof words;
        size_t got = target_read_some(view->target, at, words, wanted) / 8;
        for (size_t i = 0; i < got; i++)
            if (words[i] == value)
                return true;
        at = got ? at + got * 8 : (at | 0xfff) + 1;
    }
    return false;
}

/* A bit for each class of root in which the value stands. */
static inline unsigned view_classes(struct view *view, uint64_t value)
{
    unsigned classes = 0;
    for (size_t i = 0; i < view->roots.words.count; i++)
        if (view->roots.words.items[i].value == value)
            classes |= 1u << view->roots.words.items[i].class;
    for (size_t i = 0; i < view->roots.ranges.count; i++) {
        const struct root_range *range = &view->roots.ranges.items[i];
        if (view_holds(view, range->start, range->end, value))
            classes |= 1u << range->class;
    }
    return classes;
}

static inline const char *view_text(unsigned classes)
{
    static char text[200];
    text[0] = 0;
    for (int i = 0; i < ROOT_CLASS_COUNT; i++)
        if (classes >> i & 1)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", *text ? " " : "",
                     root_class_name((enum root_class)i));
    return *text ? text : "nowhere";
}

static inline void expect(struct view *view, int id, const char *wanted, const char *what)
{
    char name[200];
    snprintf(name, sizeof name, "%s: %s: %s", view->name, what, wanted);
    is_text(view_text(view_classes(view, truth_value(id))), wanted, name);
}

static inline void expect_tid(struct view *view, int id, const char *what)
{
    const struct root_range *range = roots_range_at(&view->roots, truth->place[id] ^ TRUTH_MASK);
    ok(range && range->tid == truth->tid[id], "%s: %s belongs to its thread", view->name, what);
}

static inline bool range_list_holds(const struct hi_range *ranges, size_t count, hi_addr address)
{
    for (size_t i = 0; i < count; i++)
        if (address >= ranges[i].start && address < ranges[i].end)
            return true;
    return false;
}

static inline bool view_is_node(struct view *view, int id)
{
    return range_list_holds(view->roots.nodes.items, view->roots.nodes.count,
                            truth->place[id] ^ TRUTH_MASK);
}

static inline bool view_is_dead(struct view *view, int id)
{
    return range_list_holds(view->roots.dead.items, view->roots.dead.count,
                            truth->place[id] ^ TRUTH_MASK);
}

/* Is there a kept word at or (up to 4 KiB) below where the value was put? */
static inline bool view_is_kept(struct view *view, int id)
{
    hi_addr place = truth->place[id] ^ TRUTH_MASK;
    for (size_t i = 0; i < view->roots.words.count; i++) {
        const struct root_word *word = &view->roots.words.items[i];
        if (word->class == ROOT_KEPT && word->value <= place && place - word->value < 4096)
            return true;
    }
    return false;
}

/* ---- asking a child live and in its cores ---- */

static inline bool truth_find_core(char *path, size_t size)
{
    DIR *directory = opendir(truth_directory);
    bool found = false;
    for (struct dirent *entry; directory && !found && (entry = readdir(directory));) {
        found = strncmp(entry->d_name, "core", 4) == 0;
        if (found)
            snprintf(path, size, "%s/%s", truth_directory, entry->d_name);
    }
    if (directory)
        closedir(directory);
    return found;
}

static inline void truth_ask_core(const char *name, void (*ask)(struct view *))
{
    char path[400];
    struct hi_err err = {0};
    struct view view = {.name = name};
    if (!truth_find_core(path, sizeof path)) {
        ok(true, "%s # SKIP no core was made", name);
        return;
    }
    if (ok(target_open_core(&view.target, path, NULL, &err) == HI_OK, "%s opens %s", name,
           err.message) &&
        view_fill(&view, ROOTS_DEFAULT))
        ask(&view);
    view_close(&view);
    unlink(path);
}

/* The child is gone afterwards. */
static inline void truth_ask(pid_t child, const char *name, void (*ask)(struct view *))
{
    char command[300], live[60], gdb[60], core[60];
    struct hi_err err = {0};
    snprintf(live, sizeof live, "%s, live", name);
    snprintf(gdb, sizeof gdb, "%s, gcore", name);
    snprintf(core, sizeof core, "%s, core", name);
    struct view view = {.name = live};
    if (ok(target_open_process(&view.target, child, NULL, &err) == HI_OK, "%s: %s", live,
           err.message) &&
        view_fill(&view, ROOTS_DEFAULT))
        ask(&view);
    view_close(&view);
    if (!TRUTH_MAKES_CORES) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        return;
    }
    snprintf(command, sizeof command, "gcore -o %s/core %d >/dev/null 2>&1", truth_directory,
             (int)child);
    if (system(command) == 0)
        truth_ask_core(gdb, ask);
    else
        ok(true, "%s # SKIP no gcore", gdb);
    int status;
    kill(child, SIGABRT);
    waitpid(child, &status, 0);
    truth_ask_core(core, ask);
}

#endif
