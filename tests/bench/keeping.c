/*
 * What a program keeps: resident memory beyond that of its start, in MiB, at four moments, and
 * bytes used a byte requested. Between them it sleeps, and calls nothing of malloc.
 *
 *     keeping [BLOCKS [SECONDS]]     1000000 blocks of 16 to 512 bytes; 10 seconds
 *
 * Nine tenths are freed in random order, then the rest. The list of blocks is a mapping of its own.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t random_state = 88172645463325252U;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static double resident_mib(void)
{
    char text[128] = {0};
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (n <= 0)
        abort();
    close(file);
    char *second = strchr(text, ' ');
    return (double)strtoull(second, NULL, 10) * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

static void free_until(char **blocks, size_t *count, size_t left)
{
    while (*count > left) {
        size_t i = random_next() % *count;
        free(blocks[i]);
        blocks[i] = blocks[--*count];
    }
}

int main(int argc, char **argv)
{
    size_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000, requested = 0;
    unsigned seconds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 10;
    char **blocks = mmap(NULL, count * sizeof *blocks, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (blocks == MAP_FAILED)
        return 1;
    double start = resident_mib(), at[5];
    for (size_t i = 0; i < count; i++) {
        size_t bytes = 16 + random_next() % 497;
        requested += bytes;
        blocks[i] = malloc(bytes);
        if (!blocks[i])
            return 1;
        memset(blocks[i], 1, bytes);
    }
    at[0] = resident_mib() - start;
    free_until(blocks, &count, count / 10);
    at[1] = resident_mib() - start;
    sleep(seconds);
    at[2] = resident_mib() - start;
    free_until(blocks, &count, 0);
    at[3] = resident_mib() - start;
    sleep(seconds);
    at[4] = resident_mib() - start;
    printf("used a byte requested\t%.3f\nall live, MiB\t%.1f\n90%% freed at random\t%.1f\n"
           "%u idle seconds later\t%.1f\nall freed\t%.1f\nidle again: %% of the peak\t%.1f\n",
           at[0] * (1 << 20) / (double)requested, at[0], at[1], seconds, at[2], at[3],
           100 * at[4] / at[0]);
    return 0;
}
