/*
 * Small loops over malloc, to be run with one allocator or another preloaded. Prints nanoseconds
 * for one operation (an allocation with its free) for each loop, and the memory that was needed.
 * Loops of one thread are measured in processor time, those of several by the clock.
 *
 *     malloc_loops [SCALE [NAME]]     1: some seconds in all; NAME: only loops that begin so
 *
 * Every loop writes to what it allocates and depends on it, so that nothing can be left out.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SET = 20000, RING = 1024 };

static double scale = 1;
static uint64_t sink;

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* A block of bytes, written at both ends; the compiler can't tell that it goes. */
static void *take(size_t bytes)
{
    char *block = malloc(bytes);
    if (!block)
        abort();
    block[0] = (char)bytes;
    block[bytes - 1] = 1;
    __asm__ volatile("" : "+r"(block)::"memory");
    return block;
}

/* One block at a time: the shortest way through. */
static void loop_pair(long count)
{
    for (long i = 0; i < count; i++)
        free(take(64));
}

static void loop_batch_of(long count, size_t bytes)
{
    static void *blocks[10000];
    for (long done = 0; done < count; done += 10000) {
        for (int i = 0; i < 10000; i++)
            blocks[i] = take(bytes);
        for (int i = 0; i < 10000; i++)
            free(blocks[i]);
    }
}

static void loop_batch(long count)
{
    loop_batch_of(count, 64);
}

/* A working set of mixed small sizes that lives long, replaced at random. */
static void loop_churn(long count)
{
    static char *set[SET];
    uint64_t random = 88172645463325252U;
    for (long i = 0; i < count; i++) {
        uint64_t r = random_next(&random);
        char **slot = &set[r % SET];
        if (*slot)
            sink += (uint64_t)(*slot)[0];
        free(*slot);
        *slot = take(16 + (r >> 32) % 512);
    }
    for (int i = 0; i < SET; i++) {
        free(set[i]);
        set[i] = NULL;
    }
}

static void loop_medium(long count)
{
    static char *set[256];
    uint64_t random = 88172645463325252U;
    for (long i = 0; i < count; i++) {
        uint64_t r = random_next(&random);
        free(set[r % 256]);
        set[r % 256] = take(4096 + (r >> 32) % 60000);
    }
    for (int i = 0; i < 256; i++) {
        free(set[i]);
        set[i] = NULL;
    }
}

static void loop_large(long count)
{
    uint64_t random = 88172645463325252U;
    for (long i = 0; i < count; i++)
        free(take((256 << 10) + random_next(&random) % (1 << 20)));
}

static void loop_calloc(long count)
{
    for (long i = 0; i < count; i++) {
        char *block = calloc(1, 600);
        __asm__ volatile("" : "+r"(block)::"memory");
        sink += (uint64_t)block[599];
        free(block);
    }
}

/* A buffer that grows as it is written. */
static void loop_realloc(long count)
{
    for (long done = 0; done < count; done += 24) {
        char *buffer = NULL;
        for (size_t bytes = 24; bytes < 400000; bytes += bytes / 2) {
            buffer = realloc(buffer, bytes);
            if (!buffer)
                abort();
            buffer[bytes - 1] = 1;
        }
        free(buffer);
    }
}

/* Blocks allocated by one thread and freed by another, through a ring. */
static struct {
    _Alignas(64) _Atomic long head;
    _Alignas(64) _Atomic long tail;
    void *slots[RING];
} ring;

/* The other side may not be running at all: let it. */
static void wait_a_little(int *turns)
{
    if (++*turns < 200)
        __builtin_ia32_pause();
    else
        sched_yield();
}

static void *consumer(void *count_pointer)
{
    long count = *(long *)count_pointer;
    for (long i = 0; i < count; i++) {
        for (int turns = 0; atomic_load_explicit(&ring.head, memory_order_acquire) <= i;)
            wait_a_little(&turns);
        free(ring.slots[i % RING]);
        atomic_store_explicit(&ring.tail, i + 1, memory_order_release);
    }
    return NULL;
}

static void loop_cross(long count)
{
    pthread_t thread;
    ring.head = ring.tail = 0;
    pthread_create(&thread, NULL, consumer, &count);
    for (long i = 0; i < count; i++) {
        void *block = take(64 + (size_t)(i % 8) * 32);
        for (int turns = 0; i - atomic_load_explicit(&ring.tail, memory_order_acquire) >= RING;)
            wait_a_little(&turns);
        ring.slots[i % RING] = block;
        atomic_store_explicit(&ring.head, i + 1, memory_order_release);
    }
    pthread_join(thread, NULL);
}

/* Threads that each churn a set of their own. */
static void *churner(void *count_pointer)
{
    long count = *(long *)count_pointer;
    char *set[512] = {0};
    uint64_t random = (uint64_t)(uintptr_t)set | 1;
    for (long i = 0; i < count; i++) {
        uint64_t r = random_next(&random);
        free(set[r % 512]);
        set[r % 512] = take(16 + (r >> 32) % 512);
    }
    for (int i = 0; i < 512; i++)
        free(set[i]);
    return NULL;
}

static void loop_threads(long count)
{
    pthread_t threads[4];
    long each = count / 4;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, churner, &each);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

/* Threads that start, allocate little, and end. */
static void *brief(void *unused)
{
    for (int i = 0; i < 50; i++)
        free(take(100));
    return unused;
}

static void loop_brief_threads(long count)
{
    for (long i = 0; i < count; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, brief, NULL);
        pthread_join(thread, NULL);
    }
}

static const struct loop {
    const char *name;
    void (*run)(long count);
    long count;
    clockid_t clock;
} loops[] = {
    {"pair 64", loop_pair, 10000000, CLOCK_PROCESS_CPUTIME_ID},
    {"batch 10000 x 64", loop_batch, 4000000, CLOCK_PROCESS_CPUTIME_ID},
    {"churn 16-528", loop_churn, 2000000, CLOCK_PROCESS_CPUTIME_ID},
    {"medium 4k-64k", loop_medium, 200000, CLOCK_PROCESS_CPUTIME_ID},
    {"large 256k-1.2M", loop_large, 50000, CLOCK_PROCESS_CPUTIME_ID},
    {"calloc 600", loop_calloc, 4000000, CLOCK_PROCESS_CPUTIME_ID},
    {"realloc to 400k", loop_realloc, 100000, CLOCK_PROCESS_CPUTIME_ID},
    {"cross-thread", loop_cross, 1000000, CLOCK_MONOTONIC},
    {"4 threads", loop_threads, 4000000, CLOCK_MONOTONIC},
    {"brief threads", loop_brief_threads, 2000, CLOCK_MONOTONIC},
};

/* Not ru_maxrss: that begins with what the process was before exec. */
static long peak_kib(void)
{
    char line[128];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    if (status)
        fclose(status);
    return kib;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        scale = strtod(argv[1], NULL);
    for (size_t i = 0; i < sizeof loops / sizeof loops[0]; i++) {
        long count = (long)((double)loops[i].count * scale) + 1;
        if (argc > 2 && strncmp(loops[i].name, argv[2], strlen(argv[2])) != 0)
            continue;
        uint64_t before = now_ns(loops[i].clock);
        loops[i].run(count);
        uint64_t spent = now_ns(loops[i].clock) - before;
        printf("%s\t%.2f\n", loops[i].name, (double)spent / (double)count);
    }
    printf("largest memory, MiB\t%.1f\n", (double)peak_kib() / 1024);
    return (int)(sink & 0);
}
