/*
 * Threads that come and go, destructors that free late, fork while others allocate, allocation in
 * signal handlers of a program that is not inside malloc, memory that goes back, a small RLIMIT_AS.
 */
#define _GNU_SOURCE
#include "tap.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- threads that come and go ---- */

static pthread_key_t late_key, later_key;

static void late_destructor(void *value)
{
    /* frees and allocates after our own destructor may have run */
    free(value);
    pthread_setspecific(later_key, malloc(100));
}

static void later_destructor(void *value)
{
    static __thread int rounds;
    free(value);
    if (++rounds < 4)
        pthread_setspecific(later_key, malloc((size_t)rounds * 1000));
}

static void *short_life(void *argument)
{
    void *blocks[50];
    for (int i = 0; i < 50; i++)
        blocks[i] = malloc((size_t)i * 60 + 1);
    pthread_setspecific(late_key, malloc(200));
    for (int i = 0; i < 50; i += 2)
        free(blocks[i]);
    for (int i = 3; i < 50; i += 2)
        free(blocks[i]);
    (void)argument;
    return blocks[1]; /* freed by the one who joins */
}

static void test_churn(void)
{
    pthread_key_create(&late_key, late_destructor);
    pthread_key_create(&later_key, later_destructor);
    size_t live_early = 0;
    int failures = 0;
    for (int round = 0; round < 400; round++) {
        pthread_t threads[4];
        void *result;
        for (int i = 0; i < 4; i++)
            failures += pthread_create(&threads[i], NULL, short_life, NULL) != 0;
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], &result);
            free(result);
        }
        if (round == 20)
            live_early = mallinfo2().uordblks;
    }
    size_t live = mallinfo2().uordblks;
    ok(failures == 0, "1600 threads came and went");
    ok(live <= live_early + 65536, "and left nothing behind (%zu, after 80 threads %zu)", live,
       live_early);
    ok(mallinfo2().arena < (size_t)16 << 20, "in a heap that did not grow (%zu)",
       mallinfo2().arena);
}

/* ---- fork while others allocate ---- */

static atomic_int stop;

static void *busy(void *argument)
{
    unsigned state = (unsigned)(uintptr_t)argument;
    void *held[128] = {0};
    while (!stop) {
        state = state * 1103515245 + 12345;
        unsigned i = (state >> 16) % 128;
        free(held[i]);
        held[i] = malloc((state >> 8) % 64 ? (state >> 10) % 3000 : 40000 + (state >> 10) % 200000);
    }
    for (int i = 0; i < 128; i++)
        free(held[i]);
    return NULL;
}

/* In the child: blocks with contents, and a block from before the fork still intact. */
static int child_works(const unsigned char *old)
{
    unsigned char *blocks[200];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 200; i++) {
            size_t n = i % 40 ? (size_t)i * 13 + 1 : 100000;
            if (!(blocks[i] = malloc(n)))
                return 2;
            memset(blocks[i], i, n);
        }
        for (int i = 0; i < 200; i++) {
            size_t n = i % 40 ? (size_t)i * 13 + 1 : 100000;
            if (blocks[i][0] != i || blocks[i][n / 2] != i || blocks[i][n - 1] != i)
                return 3;
            free(blocks[i]);
        }
    }
    for (int i = 0; i < 5000; i++)
        if (old[i] != 0x5a)
            return 4;
    return 0;
}

static int children_that_fail(int count)
{
    int bad = 0;
    unsigned char *old = malloc(5000);
    memset(old, 0x5a, 5000);
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(120);
            _exit(child_works(old));
        }
        int status = -1;
        waitpid(pid, &status, 0);
        bad += status != 0;
    }
    free(old);
    return bad;
}

static void test_fork(void)
{
    pthread_t threads[3];
    stop = 0;
    for (uintptr_t i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, busy, (void *)(i + 1));
    int bad = children_that_fail(300);
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    ok(bad == 0, "300 children of a process whose threads allocate go on allocating (%d bad)", bad);
}

/* The child gets back what the absent threads had cached. */
static void *cache_much(void *barrier)
{
    void *blocks[400];
    for (int i = 0; i < 400; i++)
        blocks[i] = malloc(96);
    for (int i = 0; i < 400; i++)
        free(blocks[i]);
    pthread_barrier_wait(barrier);
    pthread_barrier_wait(barrier);
    return NULL;
}

static void test_fork_recovers(void)
{
    pthread_barrier_t barrier;
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&thread, NULL, cache_much, &barrier);
    pthread_barrier_wait(&barrier);
    struct mallinfo2 parent = mallinfo2();
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 3000; i++)
            free(malloc((size_t)i)); /* slow paths */
        struct mallinfo2 child = mallinfo2();
        _exit(child.uordblks <= parent.uordblks + 4096 &&
                      child.fsmblks + 200 * 96 < parent.fsmblks + 100000
                  ? 0
                  : 1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    ok(status == 0, "blocks cached by absent threads are free in the child");
}

/* ---- signals ---- */

static atomic_int handled, handler_broken;

static void handler(int number)
{
    (void)number;
    unsigned char *p = malloc(handled % 3000 + 1);
    if (!p)
        handler_broken++;
    else
        memset(p, 1, 1);
    free(p);
    handled++;
}

/* The program waits in system calls, or computes; never inside malloc when the signal comes. */
static void test_signals(void)
{
    sigset_t alarm_set;
    sigemptyset(&alarm_set);
    sigaddset(&alarm_set, SIGALRM);
    signal(SIGALRM, handler);
    struct itimerval fast = {{0, 500}, {0, 500}}, off = {{0, 0}, {0, 0}};
    pthread_sigmask(SIG_BLOCK, &alarm_set, NULL);
    setitimer(ITIMER_REAL, &fast, NULL);
    double end = seconds() + 10;
    while (handled < 300 && seconds() < end) {
        void *p = malloc(500);
        pthread_sigmask(SIG_UNBLOCK, &alarm_set, NULL);
        for (volatile int i = 0; i < 20000; i++)
            ;
        pthread_sigmask(SIG_BLOCK, &alarm_set, NULL);
        free(p);
    }
    setitimer(ITIMER_REAL, &off, NULL);
    ok(handled >= 300 && handler_broken == 0, "handlers allocated %d times", handled);
}

/* ---- memory goes back ---- */

static size_t resident_kilobytes(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    size_t kilobytes = 0;
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "Rss: %zu", &kilobytes) == 1)
            break;
    if (file)
        fclose(file);
    return kilobytes;
}

static void test_memory_returns(void)
{
    enum { COUNT = 200000 };
    void **blocks = malloc(COUNT * sizeof(*blocks));
    memset(blocks, 0, COUNT * sizeof(*blocks));
    size_t before = resident_kilobytes();
    for (int i = 0; i < COUNT; i++)
        memset(blocks[i] = malloc(300 + (size_t)i % 500), 1, 300 + (size_t)i % 500);
    size_t full = resident_kilobytes();
    for (int i = 0; i < COUNT; i++)
        free(blocks[i]);
    double end = seconds() + 120;
    struct timespec pause = {0, 100000000};
    size_t now = resident_kilobytes();
    while (now > before + (full - before) / 20 && seconds() < end) {
        nanosleep(&pause, NULL);
        now = resident_kilobytes();
    }
    ok(full > before + 100000, "the heap was filled (%zu KiB)", full - before);
    ok(now <= before + (full - before) / 20,
       "95%% of it went back to the system without further calls (%zu KiB left)",
       now > before ? now - before : 0);
    free(blocks);
}

/* The helper thread that gave it back is gone when nothing is left to do. */
static void test_helper_ends(void)
{
    double end = seconds() + 120;
    struct timespec pause = {0, 100000000};
    int threads = 0;
    do {
        FILE *file = fopen("/proc/self/status", "r");
        char line[256];
        while (fgets(line, sizeof(line), file))
            if (sscanf(line, "Threads: %d", &threads) == 1)
                break;
        fclose(file);
        if (threads > 1)
            nanosleep(&pause, NULL);
    } while (threads > 1 && seconds() < end);
    ok(threads == 1, "an idle process has no helper thread");
}

/* ---- little address space ---- */

static int limited_child(void)
{
    struct rlimit limit = {(rlim_t)200 << 20, (rlim_t)200 << 20};
    if (setrlimit(RLIMIT_AS, &limit) != 0)
        return 9;
    char *const arguments[] = {(char *)"alloc_threads", (char *)"limited", NULL};
    execv("/proc/self/exe", arguments);
    return 8;
}

/* Under 200 MiB of address space: most of it can be had in blocks, then NULL, then again. */
static int limited_main(void)
{
    static void *blocks[4000];
    for (int round = 0; round < 2; round++) {
        int count = 0;
        while (count < 4000 && (blocks[count] = malloc(60000)) != NULL)
            memset(blocks[count++], 1, 60000);
        if (count < 1500 || count == 4000)
            return 1 + round;
        while (count > 0)
            free(blocks[--count]);
    }
    return malloc((size_t)300 << 20) ? 5 : 0;
}

static void test_limited(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(limited_child());
    int status = -1;
    waitpid(pid, &status, 0);
    ok(status == 0, "works within RLIMIT_AS of 200 MiB (status 0x%x)", status);
}

int main(int count, char **arguments)
{
    if (count > 1 && strcmp(arguments[1], "limited") == 0)
        return limited_main();
    test_churn();
    test_fork();
    test_fork_recovers();
    test_signals();
    test_memory_returns();
    test_helper_ends();
    test_limited();
    return done();
}
