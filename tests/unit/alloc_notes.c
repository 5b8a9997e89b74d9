/*
 * Full mode: every live block says who allocated it and how much was asked for, a free one who
 * freed it, whatever the way was. The heap is read by the format, from inside.
 *
 * Who asks is a function of its own each time, so that the innermost frame must lie in it.
 */
#define _GNU_SOURCE
#include "tap.h"

#include "alloc_root.h"
#include "himalloc.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FUNCTION_BYTES = 400 }; /* at most */

void *_Znwm(size_t bytes);
void *_ZnamSt11align_val_t(size_t bytes, size_t alignment);
void _ZdlPv(void *p);

/* A function that calls `call` and is known by its address; nothing of it is a tail call. */
#define CALLER(name, parameters, call)                                                             \
    __attribute__((noipa)) static void *name parameters                                            \
    {                                                                                              \
        void *volatile result = call;                                                              \
        return result;                                                                             \
    }

static himalloc_arena *arena;
CALLER(by_malloc, (void *p, size_t n), ((void)p, malloc(n)))
CALLER(by_calloc, (void *p, size_t n), ((void)p, calloc(n, 1)))
CALLER(by_aligned, (void *p, size_t n), ((void)p, aligned_alloc(256, n)))
CALLER(by_memalign, (void *p, size_t n), ((void)p, memalign(4096, n)))
CALLER(by_valloc, (void *p, size_t n), ((void)p, valloc(n)))
CALLER(by_new, (void *p, size_t n), ((void)p, _Znwm(n)))
CALLER(by_new_aligned, (void *p, size_t n), ((void)p, _ZnamSt11align_val_t(n, 64)))
CALLER(by_arena, (void *p, size_t n), ((void)p, himalloc_arena_malloc(arena, n)))
CALLER(by_arena_calloc, (void *p, size_t n), ((void)p, himalloc_arena_calloc(arena, 1, n)))
CALLER(by_realloc, (void *p, size_t n), realloc(p, n))
CALLER(by_reallocarray, (void *p, size_t n), reallocarray(p, 1, n))

__attribute__((noipa)) static void *by_posix_memalign(void *p, size_t n)
{
    int failed = posix_memalign(&p, 128, n);
    return failed ? NULL : p;
}

__attribute__((noipa)) static void by_free(void *p)
{
    free(p);
    __asm__ volatile("");
}

typedef void *(*caller)(void *, size_t);

static bool lies_in(uint32_t stack, uintptr_t function)
{
    return innermost(stack) - function < FUNCTION_BYTES;
}

/* Of a large or big block the record says what was asked for. */
static uint64_t requested_of(const void *p)
{
    if (!range_of(p))
        return big_of(p)->requested_bytes;
    return code_of(p) == heap_root->code_large_head ? unit_of(p)->requested_bytes
                                                    : note_of(p).requested;
}

static bool is_noted(const void *p, size_t bytes, caller function, const char *what)
{
    struct hm_note note = note_of(p);
    bool right = lies_in(note.stack, (uintptr_t)function) && requested_of(p) == bytes;
    static int told;
    if (!right && ++told < 10)
        printf("# %s: %zu bytes at %p: stack %u, from %#lx (function %#lx), requested %lu\n", what,
               bytes, p, note.stack, (long)innermost(note.stack), (long)(uintptr_t)function,
               (unsigned long)requested_of(p));
    return right;
}

static const size_t sizes[] = {0,    1,    16,    17,    100,   600,   1000,   4096,    5000,
                               8192, 8193, 20000, 32000, 32768, 32769, 100000, 1000000, 9000000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void test_ways(void)
{
    static const struct {
        const char *name;
        caller function;
    } ways[] = {{"malloc", by_malloc},
                {"calloc", by_calloc},
                {"aligned_alloc", by_aligned},
                {"memalign", by_memalign},
                {"posix_memalign", by_posix_memalign},
                {"valloc", by_valloc},
                {"operator new", by_new},
                {"operator new[] aligned", by_new_aligned},
                {"himalloc_arena_malloc", by_arena},
                {"himalloc_arena_calloc", by_arena_calloc},
                {"realloc(NULL)", by_realloc},
                {"reallocarray(NULL)", by_reallocarray}};
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        int wrong = 0;
        for (int round = 0; round < 3; round++)
            for (int s = 0; s < SIZES; s++) {
                void *p = ways[w].function(NULL, sizes[s]);
                wrong += !is_noted(p, sizes[s], ways[w].function, ways[w].name);
                wrong += malloc_usable_size(p) < sizes[s];
                by_free(p);
            }
        ok(wrong == 0, "%s: stack and size of blocks of all sizes (%d wrong)", ways[w].name, wrong);
    }
}

static void test_big(void)
{
    size_t bytes = (size_t)70 << 30;
    void *p = by_malloc(NULL, bytes);
    if (!p) {
        ok(true, "a mapping of its own # SKIP no room");
        return;
    }
    ok(!range_of(p) && is_noted(p, bytes, by_malloc, "big"), "a block in a mapping of its own");
    by_free(p);
}

/* Freed blocks remember both until they are used again. */
static void test_freed(void)
{
    void *held[300];
    int wrong = 0;
    for (unsigned i = 0; i < 300; i++)
        held[i] = by_malloc(NULL, 200 + i % 7);
    for (int i = 0; i < 300; i++)
        by_free(held[i]);
    for (unsigned i = 0; i < 300; i++) {
        struct hm_note note = note_of(held[i]);
        wrong += !lies_in(note.stack, (uintptr_t)by_malloc) ||
                 !lies_in(note.freed, (uintptr_t)by_free) || note.requested != 200 + i % 7;
    }
    ok(wrong == 0, "free blocks say who had them and who freed them (%d wrong)", wrong);
    for (int i = 0; i < 300; i++) {
        void *p = by_calloc(NULL, 201);
        wrong += !is_noted(p, 201, by_calloc, "again");
        held[i] = p;
    }
    ok(wrong == 0, "and nothing of that when they are live again");
    for (int i = 0; i < 300; i++)
        by_free(held[i]);
}

/* Of free units the first note is 0. */
static bool leaves_a_note(const void *p)
{
    struct hm_range *r = range_of(p);
    if (!r || code_of(p) != heap_root->code_free)
        return false;
    uint64_t unit = ((uintptr_t)p - r->base) >> heap_root->unit_shift;
    const struct hm_note *note = (struct hm_note *)(r->notes + unit * r->note_stride);
    return note->stack != 0 || note->freed != 0;
}

static void test_realloc(void)
{
    int wrong = 0;
    for (int s = 1; s < SIZES; s++)
        for (int t = 1; t < SIZES; t++) {
            void *p = by_malloc(NULL, sizes[s]);
            void *q = by_realloc(p, sizes[t]);
            wrong += !is_noted(q, sizes[t], by_realloc, "realloc");
            wrong += leaves_a_note(p);
            by_free(q);
            wrong += leaves_a_note(q);
        }
    ok(wrong == 0, "realloc, in place or not (%d wrong)", wrong);
    void *p = by_arena(NULL, 100);
    p = by_realloc(p, 40000);
    ok(is_noted(p, 40000, by_realloc, "arena") && kind_of(p) == HM_ARENA_NAMED,
       "realloc in an arena stays there");
    by_free(p);
    p = by_malloc(NULL, 100);
    uint32_t before = note_of(p).stack;
    void *volatile none = realloc(p, (size_t)PTRDIFF_MAX);
    ok(!none && note_of(p).stack == before && note_of(p).requested == 100,
       "a realloc that fails changes nothing");
    by_free(p);
}

static void *thread_blocks[1000];

static void *thread_main(void *unused)
{
    for (int i = 0; i < 1000; i++)
        thread_blocks[i] = by_malloc(NULL, 24 + (size_t)i);
    return unused;
}

static void test_threads(void)
{
    pthread_t thread;
    int wrong = 0;
    pthread_create(&thread, NULL, thread_main, NULL);
    pthread_join(thread, NULL);
    for (int i = 0; i < 1000; i++)
        wrong += !is_noted(thread_blocks[i], 24 + (size_t)i, by_malloc, "thread");
    ok(wrong == 0, "blocks of a thread that is gone");
    for (int i = 0; i < 1000; i++)
        by_free(thread_blocks[i]);
    for (int i = 0; i < 1000; i++)
        if (code_of(thread_blocks[i]) != heap_root->code_free)
            wrong += note_of(thread_blocks[i]).stack != 0 &&
                     !lies_in(note_of(thread_blocks[i]).freed, (uintptr_t)by_free);
    ok(wrong == 0, "freed by another thread");
}

static void *volatile from_handler;

static void handler(int number)
{
    (void)number;
    from_handler = by_malloc(NULL, 77);
}

static void test_signal_and_fork(void)
{
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
    ok(is_noted(from_handler, 77, by_malloc, "handler"), "malloc in a signal handler");
    by_free(from_handler);
    pid_t pid = fork();
    if (pid == 0) {
        void *p = by_malloc(NULL, 123);
        _exit(is_noted(p, 123, by_malloc, "child") ? 0 : 1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    ok(status == 0, "malloc in a forked child");
}

/* Blocks that were allocated while nobody looked have no note, and no old one either. */
static void test_switching(void)
{
    void *held[2000];
    int stale = 0, missing = 0;
    for (int i = 0; i < 2000; i++)
        held[i] = by_malloc(NULL, 333);
    for (int i = 0; i < 2000; i++)
        by_free(held[i]);
    ok(himalloc_stacks(HIMALLOC_STACKS_OFF, 0) == 0, "off");
    for (int i = 0; i < 2000; i++)
        held[i] = by_malloc(NULL, 330);
    ok(himalloc_stacks(HIMALLOC_STACKS_FULL, 0) == 0, "and full again");
    for (int i = 0; i < 2000; i++)
        stale += note_of(held[i]).stack != 0 || note_of(held[i]).freed != 0;
    ok(stale == 0, "blocks of the time between have no notes (%d of 2000 have)", stale);
    for (int i = 0; i < 2000; i++)
        by_free(held[i]);
    for (int i = 0; i < 2000; i++)
        missing += !is_noted(held[i] = by_malloc(NULL, 331), 331, by_malloc, "again");
    ok(missing == 0, "and have right ones when they are allocated again");
    for (int i = 0; i < 2000; i++)
        by_free(held[i]);
}

static void test_twice(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        fclose(stderr);
        close(2);
        void *held[2000], *volatile p;
        for (int i = 0; i < 2000; i++)
            held[i] = malloc(40);
        p = held[5];
        for (int i = 0; i < 2000; i++)
            free(held[i]);
        free(p);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT,
       "a second free is found however much was freed between");
}

int main(void)
{
    free(malloc(1));
    if (!ok(root_find(), "the heap describes itself"))
        return done();
    ok(himalloc_stacks(HIMALLOC_STACKS_FULL, 0) == 0, "full mode");
    const struct hm_stack_table *table = (struct hm_stack_table *)heap_root->stacks;
    ok(table && table->mode == HM_STACKS_FULL, "is told to readers");
    arena = himalloc_arena_create("part");
    test_ways();
    test_big();
    test_freed();
    test_realloc();
    test_threads();
    test_signal_and_fork();
    test_switching();
    test_twice();
    return done();
}
