/* Programs that end in every way. Each says what it has lost ("lost BLOCKS USABLE_BYTES", just
 * before its end), so that a check at the end can be held against it.
 *
 *     exit_check HOW      see the table below; the status is 3 where nothing else is said
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK_BYTES = 568, LINE_COUNT = 50 };

/* One block that holds another; both are lost with this frame. */
__attribute__((noinline)) static void lose(void)
{
    void *volatile *outer = malloc(BLOCK_BYTES);
    *outer = malloc(BLOCK_BYTES);
    printf("lost 2 %d\n", 2 * BLOCK_BYTES);
    outer = NULL;
    __asm__ volatile("" : : "r"(outer) : "memory");
}

__attribute__((noinline)) static void cover_tracks(void)
{
    char stack[8192];
    memset(stack, 0, sizeof stack);
    __asm__ volatile("" : : "r"(stack) : "memory");
}

static void lose_and_say(void)
{
    lose();
    cover_tracks();
    for (int i = 0; i < LINE_COUNT; i++)
        printf("line %d of the program's own output\n", i);
}

static int end_clean(void)
{
    static void *volatile held;
    held = malloc(BLOCK_BYTES);
    puts("clean");
    return held ? 3 : 4;
}

static int end_leak(void)
{
    lose_and_say();
    return 3;
}

static void *given_back;
static void give_back(void)
{
    free(*(void **)given_back);
    free(given_back);
    given_back = NULL;
}

/* Held by nothing but a handler's knowledge until the very end. */
static int end_freed_late(void)
{
    given_back = malloc(BLOCK_BYTES);
    *(void **)given_back = malloc(BLOCK_BYTES);
    atexit(give_back);
    return 3;
}

static void lose_quietly(void)
{
    *(void *volatile *)given_back =
        NULL; /* the last reference, in the last handler of the program */
}

static int end_lost_late(void)
{
    given_back = calloc(1, BLOCK_BYTES);
    *(void *volatile *)given_back = malloc(BLOCK_BYTES);
    cover_tracks();
    atexit(lose_quietly);
    printf("lost 1 %d\n", BLOCK_BYTES);
    return 3;
}

static int end_fork(void)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        lose_and_say();
        exit(4);
    }
    waitpid(child, &status, 0);
    printf("child %d %d\n", (int)child, WEXITSTATUS(status));
    return 3;
}

__attribute__((noreturn)) static int end_server(void)
{
    lose_and_say();
    fflush(stdout);
    for (;;)
        pause();
}

static void *end_other_thread(void *unused)
{
    (void)unused;
    exit(3);
}

static int end_thread(void)
{
    pthread_t thread;
    lose_and_say();
    pthread_create(&thread, NULL, end_other_thread, NULL);
    pthread_join(thread, NULL);
    return 5;
}

/* Several at once: the process ends once, with one check. */
static int end_threads(void)
{
    pthread_t threads[4];
    lose_and_say();
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, end_other_thread, NULL);
    pthread_join(threads[0], NULL);
    return 5;
}

/* Only a vector register, which means nothing any more, still has the address. */
static int end_vector(void)
{
    void *block = malloc(BLOCK_BYTES);
    printf("lost 1 %d\n", BLOCK_BYTES);
    fflush(stdout);
    cover_tracks();
#if defined(__x86_64__)
    __asm__ volatile("movq %0, %%xmm15" : : "r"(block) : "xmm15");
    __asm__ volatile("xor %0, %0" : "+r"(block));
#endif
    return 3;
}

static void *end_last(void *main_thread)
{
    pthread_join(*(pthread_t *)main_thread, NULL);
    return NULL; /* the last thread: exit(0) */
}

/* main's thread is gone; the process ends with its last one. */
static int end_leader_gone(void)
{
    static pthread_t self;
    pthread_t thread;
    self = pthread_self();
    lose_and_say();
    pthread_create(&thread, NULL, end_last, &self);
    pthread_exit(NULL);
}

/* Not one descriptor left to open. */
static int end_all_used(void)
{
    lose_and_say();
    while (dup(STDOUT_FILENO) >= 0)
        ;
    return 3;
}

/* stdout points to memory that was given back, and is something else now. */
static int end_stdout_gone(void)
{
    FILE *other = fopen("/dev/null", "w");
    lose_and_say();
    fflush(stdout);
    stdout = other;
    fclose(other);
    for (size_t bytes = 216; bytes <= 600; bytes += 16) { /* one of them takes its place */
        char *volatile text = malloc(bytes);
        memset(text, 0x41, bytes);
    }
    return 3;
}

static int end_closed(void)
{
    lose_and_say();
    fclose(stderr);
    return 3;
}

/* Descriptor 2 is somebody's data. */
static int end_reused(void)
{
    lose_and_say();
    close(STDERR_FILENO);
    int file = open("data", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    return file == STDERR_FILENO && write(file, "data", 4) == 4 ? 3 : 5;
}

static int end_all_closed(void)
{
    lose_and_say();
    fflush(stdout);
    close_range(0, ~0u, 0);
    return 3;
}

static int end_underscore(void)
{
    lose_and_say();
    fflush(stdout);
    _exit(3);
}

static int end_quick(void)
{
    lose_and_say();
    fflush(stdout);
    quick_exit(3);
}

static int end_abort(void)
{
    lose_and_say();
    fflush(stdout);
    abort();
}

static int reader_started[2];
static void *read_input(void *unused)
{
    (void)unused;
    close(reader_started[1]);
    return (void *)(intptr_t)getchar(); /* holds the lock of stdin for ever */
}

static int end_reading(void)
{
    pthread_t thread;
    char byte;
    lose_and_say();
    if (pipe(reader_started) != 0)
        return 5;
    pthread_create(&thread, NULL, read_input, NULL);
    ssize_t got = read(reader_started[0], &byte, 1);
    while (ftrylockfile(stdin) == 0) { /* until that thread is in getchar() */
        funlockfile(stdin);
        sched_yield();
    }
    return got == 0 ? 3 : 5;
}

static void say_child(int number)
{
    (void)number;
    static const char text[] = "SIGCHLD\n";
    ssize_t written = write(STDOUT_FILENO, text, sizeof text - 1);
    (void)written;
}

static int end_child_signal(void)
{
    signal(SIGCHLD, say_child);
    return end_leak();
}

static int end_child_ignored(void)
{
    signal(SIGCHLD, SIG_IGN);
    return end_leak();
}

static void *reap_all(void *unused)
{
    (void)unused;
    for (;;)
        if (waitpid(-1, NULL, 0) > 0)
            say_child(0);
        else
            usleep(100);
    return NULL;
}

static int end_reaper(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, reap_all, NULL);
    return end_leak();
}

static int end_undumpable(void)
{
    prctl(PR_SET_DUMPABLE, 0);
    return end_leak();
}

static void end_by_hand(int number)
{
    (void)number;
    _exit(9);
}

static int end_own_handler(void)
{
    signal(SIGTERM, end_by_hand);
    return end_server();
}

static int end_ignoring(void)
{
    puts(signal(SIGTERM, SIG_DFL) == SIG_IGN ? "it was ignored" : "it was not ignored");
    return 3;
}

/* Terminated anywhere, most often inside malloc or free. */
__attribute__((noreturn)) static int end_busy(void)
{
    void *volatile blocks[64] = {NULL};
    puts("busy");
    fflush(stdout);
    for (unsigned i = 0;; i++) {
        free(blocks[i % 64]);
        blocks[i % 64] = malloc(i % 3000 * (i % 5));
    }
}

static const struct {
    const char *name;
    int (*end)(void);
} ways[] = {
    {"clean", end_clean},
    {"leak", end_leak},
    {"freed_late", end_freed_late},
    {"lost_late", end_lost_late},
    {"fork", end_fork},
    {"server", end_server},
    {"own_handler", end_own_handler},
    {"ignoring", end_ignoring},
    {"busy", end_busy},
    {"thread", end_thread},
    {"threads", end_threads},
    {"vector", end_vector},
    {"leader_gone", end_leader_gone},
    {"all_used", end_all_used},
    {"stdout_gone", end_stdout_gone},
    {"closed", end_closed},
    {"reused", end_reused},
    {"all_closed", end_all_closed},
    {"_exit", end_underscore},
    {"quick", end_quick},
    {"abort", end_abort},
    {"reading", end_reading},
    {"child_signal", end_child_signal},
    {"child_ignored", end_child_ignored},
    {"reaper", end_reaper},
    {"undumpable", end_undumpable},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof ways / sizeof *ways; i++)
        if (strcmp(argv[1], ways[i].name) == 0)
            return ways[i].end();
    fputs("exit_check: no such way to end\n", stderr);
    return 96;
}
