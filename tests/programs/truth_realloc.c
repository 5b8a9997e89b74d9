/* realloc: grown in place, moved, shrunk, from and to nothing; kept and lost; small to huge. */
#include "programs/truth.h"

/* Book what realloc did: the old address is gone unless it is the new one. */
TRUTH_NOINLINE static void *regrow(void *pointer, size_t bytes)
{
    truth_mark(pointer, TRUTH_FREED);
    void *moved = truth_got_filled(realloc(pointer, bytes), bytes);
    size_t usable = malloc_usable_size(moved);
    memset((char *)moved + bytes, 0, usable - bytes);
    return moved;
}

/* A block that goes through sizes and holds a child in its first word all the while. */
TRUTH_NOINLINE static void through(const size_t *sizes, size_t count, int lost)
{
    void **block = truth_malloc(sizes[0]);
    block[0] = truth_malloc(72);
    truth_mark(block[0], lost ? TRUTH_INDIRECT : TRUTH_HELD);
    for (size_t i = 1; i < count; i++) {
        block = regrow(block, sizes[i]);
        if (sizes[i] > sizes[i - 1])
            memset((char *)block + sizes[i - 1], 0, sizes[i] - sizes[i - 1]);
    }
    truth_mark(block, lost ? TRUTH_DIRECT : TRUTH_HELD);
    if (!lost)
        truth_keep(block);
}

TRUTH_NOINLINE static void plant(void)
{
    static const size_t grow[] = {16, 24, 100, 1000, 5000, 33000, 70000, 200000, 2000000, 9000000};
    static const size_t shrink[] = {9000000, 3000000, 400000, 70000, 33000, 5000, 1000, 100, 16};
    static const size_t saw[] = {100, 90, 112, 40000, 39000, 41000, 64, 300000, 290000, 310000};
    enum { N = sizeof grow / sizeof grow[0], M = sizeof shrink / sizeof shrink[0] };
    for (int lost = 0; lost < 2; lost++) {
        for (size_t count = 1; count <= N; count++)
            through(grow, count, lost);
        for (size_t count = 1; count <= M; count++)
            through(shrink, count, lost);
        for (size_t count = 1; count <= sizeof saw / sizeof saw[0]; count++)
            through(saw, count, lost);
    }
    truth_keep(truth_got(realloc(NULL, 333), 333));
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
