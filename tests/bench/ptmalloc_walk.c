/*
 * What a walk of glibc's heap costs beside reading its memory: a child holds COUNT blocks of 16 to
 * 512 bytes (every eighth freed), the parent reads the heap's memory in pieces of 1 MiB, then opens
 * the heaps. Each three times; the best counts.
 *
 *   ptmalloc_walk [COUNT]     10,000,000
 */
#include "heap/heap.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const struct heap_reader *const heap_readers[] = {&ptmalloc_reader, NULL};

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

static double read_all(struct target *target, uint64_t *bytes)
{
    enum { PIECE = 1 << 20 };
    static unsigned char buffer[PIECE];
    double start = now();
    *bytes = 0;
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        if (!mapping->path || strcmp(mapping->path, "[heap]") != 0)
            continue;
        for (hi_addr at = mapping->start; at < mapping->end; at += PIECE) {
            size_t want = mapping->end - at < PIECE ? mapping->end - at : PIECE;
            *bytes += target_read_some(target, at, buffer, want);
        }
    }
    return now() - start;
}

static double open_all(struct target *target, struct symbols *symbols, uint32_t *blocks)
{
    struct heap_context context = {.target = target, .symbols = symbols};
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
    double reading = 1e9, walking = 1e9;
    uint64_t bytes = 0;
    uint32_t blocks = 0;
    if (read(ready[0], &byte, 1) == 1 &&
        target_open_process(&target, pid, &options, &err) == HI_OK &&
        symbols_open(&symbols, target, &options, &err) == HI_OK) {
        open_all(target, symbols, &blocks); /* sorts the symbol tables */
        for (int i = 0; i < 3; i++) {
            double r = read_all(target, &bytes), w = open_all(target, symbols, &blocks);
            reading = r < reading ? r : reading;
            walking = w < walking ? w : walking;
        }
        printf("%u blocks in %.2f GiB: read in %.3f s, heaps opened in %.3f s (%+.0f%%), "
               "%.1f ns a block more\n",
               blocks, (double)bytes / (1 << 30), reading, walking, (walking / reading - 1) * 100,
               (walking - reading) * 1e9 / blocks);
    } else {
        fprintf(stderr, "%s\n", err.message);
    }
    symbols_close(symbols);
    target_close(target);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return blocks ? 0 : 1;
}
