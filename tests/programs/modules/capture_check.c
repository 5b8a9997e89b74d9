/*
 * Preloaded into any program: at each malloc, calloc and realloc captures the call stack with the
 * allocator's own code, and looks at every n-th one with backtrace() as well.
 *
 *   CAPTURE_CHECK=FILE[,EVERY]  one line a process is added to FILE when it ends:
 *                               PROGRAM captures N compared N equal N guessed N cut N
 *                               and a few of the stacks that were not equal
 *   CAPTURE_TIME=FILE           nanoseconds a capture instead, by the time stamp counter
 *   CAPTURE_ONLY=1              captures and nothing else, for measuring the whole program
 *
 * Equal: the same addresses in the same order. Where the code of a frame is not described (made at
 * run time), backtrace() ends, and ours may go on with guessed frames: then what is before them
 * must be all that backtrace() found.
 */
#define _GNU_SOURCE
#include "programs/capture_compare.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { SHOWN_MAX = 3, TICKS_MAX = 30000 };

struct hm_hot hm_hot;
static struct hm_root root;
static atomic_ulong captures, compared, equal, guessed, cut, ticks, depths, timed;
static atomic_int shown;
static unsigned every = 1;
static bool ready, timing, only;
static char out_path[256];
static __thread unsigned turn;
static __thread bool inside;
static struct timespec start_time;
static uint64_t start_ticks;

static uint64_t now_ticks(void)
{
#if defined(__x86_64__)
    unsigned aux;
    return __builtin_ia32_rdtscp(&aux);
#else
    return 0;
#endif
}

static void show(const struct compared_stack *s)
{
    int fd = open(out_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    for (uint32_t i = 0; i < s->our_count || i < s->their_count; i++) {
        uint64_t ours = i < s->our_count ? s->ours[i] : 0;
        dprintf(fd, "#  %2u %12lx%s%s %12lx\n", i, frame_address(ours),
                frame_flags(ours) & HM_FRAME_GUESSED ? " guessed" : "",
                frame_flags(ours) & HM_FRAME_CUT ? " cut" : "",
                i < s->their_count ? (uintptr_t)s->theirs[s->their_first + i] : 0);
    }
    for (uint32_t i = 0; i < stack_hot.table->module_count; i++) {
        const struct hm_module *m =
            (const struct hm_module *)(uintptr_t)stack_hot.table->modules + i;
        dprintf(fd, "#  %lx-%lx %.*s\n", m->start, m->end, (int)m->path_bytes,
                (const char *)(uintptr_t)m->path);
    }
    close(fd);
}

static void compare(uint32_t id, const struct call_site *site)
{
    static __thread struct compared_stack stack;
    compare_stack(&stack, id, site);
    compared++;
    depths += stack.our_count;
    equal += stack.equal;
    guessed += stack.described_count < stack.our_count;
    cut += stack.cut;
    if (!stack.equal && shown++ < SHOWN_MAX)
        show(&stack);
}

static __attribute__((noinline)) void look(const struct call_site *site)
{
    if (only) {
        call_stack_capture(site);
        return;
    }
    if (timing) {
        uint64_t before = now_ticks();
        uint32_t id = call_stack_capture(site);
        __asm__ volatile("" ::"r"(id));
        uint64_t took = now_ticks() - before;
        captures++;
        if (took < TICKS_MAX) { /* else it was interrupted */
            ticks += took;
            timed++;
        }
        return;
    }
    int saved = errno;
    uint32_t id = call_stack_capture(site);
    bool errno_kept = errno == saved;
    captures++;
    inside = true;
    if (!errno_kept || id == 0)
        abort();
    if (++turn % every == 0)
        compare(id, site);
    inside = false;
    errno = saved;
}

#define LOOK()                                                                                     \
    do {                                                                                           \
        struct call_site site_ = CALL_SITE();                                                      \
        if (ready && !inside)                                                                      \
            look(&site_);                                                                          \
    } while (0)

/* The program's own allocator, which may not be the C library's. */
static void next(void **function, const char *name)
{
    if (!*function)
        *function = dlsym(RTLD_NEXT, name);
}

EXPORT void *malloc(size_t bytes)
{
    LOOK();
    static void *(*next_malloc)(size_t);
    next((void **)&next_malloc, "malloc");
    return next_malloc(bytes);
}

EXPORT void *calloc(size_t count, size_t bytes)
{
    LOOK();
    static void *(*next_calloc)(size_t, size_t);
    next((void **)&next_calloc, "calloc");
    return next_calloc(count, bytes);
}

EXPORT void *realloc(void *p, size_t bytes)
{
    LOOK();
    static void *(*next_realloc)(void *, size_t);
    next((void **)&next_realloc, "realloc");
    return next_realloc(p, bytes);
}

__attribute__((constructor)) static void begin(void)
{
    const char *check = getenv("CAPTURE_CHECK"), *time_file = getenv("CAPTURE_TIME");
    void *warm[4];
    only = getenv("CAPTURE_ONLY") != NULL;
    if (!check && !time_file && !only)
        return;
    timing = time_file != NULL;
    snprintf(out_path, sizeof out_path, "%s", timing ? time_file : only ? "" : check);
    char *comma = strchr(out_path, ',');
    if (comma) {
        *comma = 0;
        every = (unsigned)strtoul(comma + 1, NULL, 10);
        every = every ? every : 1;
    }
    inside = true;
    backtrace(warm, 4); /* loads what it needs */
    inside = false;
    hm_hot.root = &root;
    clock_gettime(CLOCK_MONOTONIC, &start_time);
    start_ticks = now_ticks();
    ready = call_stack_start(HM_STACKS_FULL, 0);
}

static double tick_cost(void)
{
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 1000; i++) {
        uint64_t before = now_ticks();
        uint64_t took = now_ticks() - before;
        least = took < least ? took : least;
    }
    return (double)least;
}

__attribute__((destructor)) static void finish(void)
{
    char line[400];
    struct timespec now;
    if (!ready || only)
        return;
    ready = false;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double ns =
        (double)(now.tv_sec - start_time.tv_sec) * 1e9 + (double)(now.tv_nsec - start_time.tv_nsec);
    double per_tick = ns / (double)(now_ticks() - start_ticks);
    unsigned long n = timed ? timed : 1;
    int bytes = timing ? snprintf(line, sizeof line, "%s captures %lu ns %.1f nodes %u\n",
                                  program_invocation_short_name, captures,
                                  ((double)ticks / (double)n - tick_cost()) * per_tick,
                                  stack_hot.table->node_count)
                       : snprintf(line, sizeof line,
                                  "%s captures %lu compared %lu equal %lu guessed %lu cut %lu "
                                  "depth %.1f nodes %u\n",
                                  program_invocation_short_name, captures, compared, equal, guessed,
                                  cut, (double)depths / (double)(compared ? compared : 1),
                                  stack_hot.table->node_count);
    int fd = open(out_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (write(fd, line, (size_t)bytes) != bytes)
        abort();
    close(fd);
}
