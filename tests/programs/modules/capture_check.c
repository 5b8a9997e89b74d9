/*
 * Preloaded into any program: at each malloc, calloc and realloc captures the call stack with the
 * allocator's own code, and looks at every n-th one with backtrace() as well.
 *
 *   CAPTURE_CHECK=FILE[,EVERY]  one line a process is added to FILE when it ends:
 *                               PROGRAM captures N compared N equal N guessed N cut N
 *                               and a few of the stacks that were not equal
 *   CAPTURE_TIME=FILE           nanoseconds a capture instead, by the time stamp counter
 *
 * Equal: the same addresses in the same order. Where the code of a frame is not described (made at
 * run time), backtrace() ends, and ours may go on with guessed frames: then what is before them
 * must be all that backtrace() found.
 */
#define _GNU_SOURCE
#include "allocator/call_stack.h"
#include "allocator/stack_table.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { FRAMES_MAX = 1100, DEPTH_MAX = 1024, SHOWN_MAX = 3 };

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);

struct hm_hot hm_hot;
static struct hm_root root;
static atomic_ulong captures, compared, equal, guessed, cut, ticks, depths;
static atomic_int shown;
static unsigned every = 1;
static bool ready, timing;
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

static uint32_t stack_frames(uint32_t id, uint64_t *frames, uint32_t capacity)
{
    uint32_t count = 0;
    for (; id && count < capacity; id = stack_hot.nodes[id].parent)
        frames[count++] = stack_hot.nodes[id].frame;
    return count;
}

static uintptr_t frame_address(uint64_t frame)
{
    return frame & ((1ULL << HM_FRAME_ADDRESS_BITS) - 1);
}

static uint32_t frame_flags(uint64_t frame)
{
    return frame >> HM_FRAME_ADDRESS_BITS & ((1u << HM_FRAME_FLAG_BITS) - 1);
}

static void show(int fd, const uint64_t *ours, uint32_t count, void *const *theirs,
                 uint32_t their_count)
{
    for (uint32_t i = 0; i < count || i < their_count; i++)
        dprintf(fd, "#  %2u %12lx%s%s %12lx\n", i, i < count ? frame_address(ours[i]) : 0,
                i < count && frame_flags(ours[i]) & HM_FRAME_GUESSED ? " guessed" : "",
                i < count && frame_flags(ours[i]) & HM_FRAME_CUT ? " cut" : "",
                i < their_count ? (uintptr_t)theirs[i] : 0);
    for (uint32_t i = 0; i < stack_hot.table->module_count; i++) {
        const struct hm_module *m =
            (const struct hm_module *)(uintptr_t)stack_hot.table->modules + i;
        dprintf(fd, "#  %lx-%lx %.*s\n", m->start, m->end, (int)m->path_bytes,
                (const char *)(uintptr_t)m->path);
    }
}

static void compare(uint32_t id, const struct call_site *site)
{
    static __thread void *raw[FRAMES_MAX + 16];
    static __thread uint64_t ours[FRAMES_MAX];
    uint32_t count = stack_frames(id, ours, FRAMES_MAX), first = 0, described = 0;
    uint32_t raw_count = (uint32_t)backtrace(raw, FRAMES_MAX + 16);
    while (first < raw_count && (uintptr_t)raw[first] != site->pc)
        first++;
    uint32_t theirs = raw_count - first;
    while (described < count && !(frame_flags(ours[described]) & HM_FRAME_GUESSED))
        described++;
    bool is_cut = frame_flags(ours[count - 1]) & HM_FRAME_CUT;
    bool same = described == (theirs < DEPTH_MAX ? theirs : DEPTH_MAX);
    for (uint32_t i = 0; same && i < described; i++)
        same = frame_address(ours[i]) == (uintptr_t)raw[first + i];
    compared++;
    depths += count;
    equal += same;
    guessed += described < count;
    cut += is_cut;
    if (!same && shown++ < SHOWN_MAX) {
        int fd = open(out_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
        show(fd, ours, count, raw + first, theirs);
        close(fd);
    }
}

static __attribute__((noinline)) void look(const struct call_site *site)
{
    if (timing) {
        uint64_t before = now_ticks();
        uint32_t id = call_stack_capture(site);
        __asm__ volatile("" ::"r"(id));
        ticks += now_ticks() - before;
        captures++;
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

EXPORT void *malloc(size_t bytes)
{
    LOOK();
    return __libc_malloc(bytes);
}

EXPORT void *calloc(size_t count, size_t bytes)
{
    LOOK();
    return __libc_calloc(count, bytes);
}

EXPORT void *realloc(void *p, size_t bytes)
{
    LOOK();
    return __libc_realloc(p, bytes);
}

__attribute__((constructor)) static void begin(void)
{
    const char *check = getenv("CAPTURE_CHECK"), *time_file = getenv("CAPTURE_TIME");
    void *warm[4];
    if (!check && !time_file)
        return;
    timing = time_file != NULL;
    snprintf(out_path, sizeof out_path, "%s", timing ? time_file : check);
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
    if (!ready)
        return;
    ready = false;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double ns = (double)(now.tv_sec - start_time.tv_sec) * 1e9 +
                (double)(now.tv_nsec - start_time.tv_nsec);
    double per_tick = ns / (double)(now_ticks() - start_ticks);
    unsigned long n = captures ? captures : 1;
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
