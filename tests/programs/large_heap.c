/* A heap to measure: large_heap [blocks=10000000] [seed=1]
 *
 * Blocks of 16 to 512 bytes; the first two words of each are its children in a binary tree over all
 * that are held, of the rest one word in eight points to some held block. Every 50th block is lost:
 * nothing points to it, while it points to others. So as many are direct as "expect direct" says,
 * none is indirect, and nothing is freed. Prints "ready PID" and waits to be killed, or to be told
 * by SIGUSR1 to end: then checkers that are linked in or preloaded do their work. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { LOST_ONE_IN = 50, POINTER_ONE_IN = 8, LEAST_BYTES = 16, MOST_BYTES = 512 };

static void *volatile root;
static uint64_t state;

static uint64_t random_below(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

struct block {
    void **words;
    uint32_t word_count;
};

static void fill(const struct block *blocks, uint64_t held, uint64_t i)
{
    void **words = blocks[i].words;
    memset(words, 0, blocks[i].word_count * sizeof *words);
    for (uint64_t w = 0; w < 2; w++)
        if (i < held && 2 * i + 1 + w < held)
            words[w] = blocks[2 * i + 1 + w].words;
    for (uint32_t w = 2; w < blocks[i].word_count; w++)
        if (random_below(POINTER_ONE_IN) == 0)
            words[w] = blocks[random_below(held)].words;
}

static void plant(uint64_t count)
{
    uint64_t held = count - count / LOST_ONE_IN, front = 0, back = held;
    struct block *blocks = mmap(NULL, count * sizeof *blocks, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (blocks == MAP_FAILED)
        _exit(97);
    for (uint64_t i = 0; i < count; i++) {
        size_t bytes = LEAST_BYTES + random_below(MOST_BYTES - LEAST_BYTES + 1);
        uint64_t at = i % LOST_ONE_IN == LOST_ONE_IN - 1 ? back++ : front++;
        blocks[at] = (struct block){malloc(bytes), (uint32_t)(bytes / sizeof(void *))};
        if (!blocks[at].words)
            _exit(97);
    }
    for (uint64_t i = 0; i < count; i++)
        fill(blocks, held, i);
    root = blocks[0].words;
    munmap(blocks, count * sizeof *blocks);
    printf("expect direct %llu\n", (unsigned long long)(count - held));
}

int main(int count, char **arguments)
{
    uint64_t blocks = count > 1 ? strtoull(arguments[1], NULL, 0) : 10000000;
    state = (count > 2 ? strtoull(arguments[2], NULL, 0) : 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    sigset_t told;
    int signal_number;
    sigemptyset(&told);
    sigaddset(&told, SIGUSR1);
    sigprocmask(SIG_BLOCK, &told, NULL);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    plant(blocks);
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    sigwait(&told, &signal_number);
    return 0;
}
