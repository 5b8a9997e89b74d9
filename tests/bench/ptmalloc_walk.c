/*
 * What a walk of glibc's heap costs beside reading its memory: a child holds COUNT blocks of 16 to
 * 512 bytes (every eighth freed), the parent reads the heap's memory in pieces of 1 MiB, then opens
 * the heaps; with one thread and with all. Each a few times; the best counts.
 *
 *   ptmalloc_walk [COUNT]     10,000,000
 */
#include "base/parallel.h"
#include "heap/heap.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const struct heap_reader *const heap_readers[] = {&ptmalloc_reader, NULL};

enum { ROUNDS = 4 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void child(size_t count, int ready)
{
    uint64_t state = 88172645463325252;
    void **blocks = calloc(count, sizeof *blocks);
    for (size_t i = 0; blocks && i < count; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        size_t size = 16 + state % 497;
        blocks[i] = malloc(size);
        if (blocks[i])
            memset(blocks[i], 1, size);
    }
    for (size_t i = 0; blocks && i < count; i += 8)
        free(blocks[i]);
    if (write(ready, "", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

struct bare {
    struct target *target;
    const struct mapping *heap;
    uint64_t next, bytes; /* shared by threads */
};

static void bare_work(void *context, int worker)
{
    enum { PIECE = 1 << 20 };
    struct bare *bare = context;
    unsigned char *buffer = malloc(PIECE);
    hi_addr at;
    (void)worker;
    while (buffer &&
           (at = bare->heap->start + __atomic_fetch_add(&bare->next, PIECE, __ATOMIC_RELAXED)) <
               bare->heap->end) {
        size_t want = bare->heap->end - at < PIECE ? bare->heap->end - at : PIECE;
        __atomic_fetch_add(&bare->bytes, target_read_some(bare->target, at, buffer, want),
                           __ATOMIC_RELAXED);
    }
    free(buffer);
}

static double read_all(struct target *target, int jobs, uint64_t *bytes)
{
    double start = now();
    *bytes = 0;
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        struct bare bare = {.target = target, .heap = target_mapping(target, i)};
        if (!bare.heap->path || strcmp(bare.heap->path, "[heap]") != 0)
            continue;
        parallel_run(jobs, bare_work, &bare);
        *bytes += bare.bytes;
    }
    return now() - start;
}

static double open_all(struct target *target, struct symbols *symbols, int jobs, uint32_t *blocks)
{
    struct heap_context context = {.target = target, .symbols = symbols, .jobs = jobs};
    struct heaps *heaps = NULL;
    struct hi_err err = {0};
    double start = now();
    if (heaps_open(&heaps, &context, NULL, &err) != HI_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 0;
    }
    double seconds = now() - start;
    *blocks = blocks_count(heaps->blocks);
    heaps_close(heaps);
    return seconds;
}

/* Both by as many threads, the best of a few times each, in turns. */
static void compare(struct target *target, struct symbols *symbols, int jobs)
{
    double reading = 1e9, walking = 1e9;
    uint64_t bytes = 0;
    uint32_t blocks = 0;
    for (int i = 0; i < ROUNDS; i++) {
        double r = read_all(target, jobs, &bytes), w = open_all(target, symbols, jobs, &blocks);
        reading = r < reading ? r : reading;
        walking = w < walking ? w : walking;
    }
    printf("%d thread%s: %u blocks in %.2f GiB: read in %.3f s, heaps opened in %.3f s (%+.0f%%), "
           "%.1f ns a block more\n",
           jobs, jobs == 1 ? "" : "s", blocks, (double)bytes / (1 << 30), reading, walking,
           (walking / reading - 1) * 100, (walking - reading) * 1e9 / blocks);
}

int main(int argc, char **argv)
{
    size_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000000;
    int ready[2];
    char byte;
    if (pipe(ready) != 0)
        return 2;
    pid_t pid = fork();
    if (pid == 0)
        child(count, ready[1]);
    struct target *target = NULL;
    struct symbols *symbols = NULL;
    struct target_options options = {0};
    struct hi_err err = {0};
    uint32_t blocks = 0;
    if (read(ready[0], &byte, 1) == 1 &&
        target_open_process(&target, pid, &options, &err) == HI_OK &&
        symbols_open(&symbols, target, &options, &err) == HI_OK) {
        open_all(target, symbols, 0, &blocks); /* sorts the symbol tables */
        compare(target, symbols, 1);
        if (parallel_default_jobs() > 1)
            compare(target, symbols, parallel_default_jobs());
    } else {
        fprintf(stderr, "%s\n", err.message);
    }
    symbols_close(symbols);
    target_close(target);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return blocks ? 0 : 1;
}
