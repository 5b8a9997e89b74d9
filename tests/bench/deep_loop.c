/*
 * A loop that does nothing but allocate and free, from a stack of a given depth: the worst case for
 * whoever writes down the stack of each allocation.
 *
 *     deep_loop [CALLS [DEPTH]]     5000000 calls, 20 frames deep
 */
#include <stdint.h>
#include <stdlib.h>

static void *volatile kept[64];

static __attribute__((noinline)) uintptr_t allocate(unsigned call)
{
    unsigned place = call * 7 % 64;
    free(kept[place]);
    kept[place] = malloc(call % 100 + 16);
    return (uintptr_t)kept[place];
}

/* The sum keeps each call from being a jump. */
static __attribute__((noinline, noclone)) uintptr_t descend(unsigned depth, unsigned calls)
{
    uintptr_t sum = depth;
    if (depth > 1)
        return sum + descend(depth - 1, calls);
    for (unsigned call = 0; call < calls; call++)
        sum += allocate(call);
    return sum;
}

int main(int argc, char **argv)
{
    unsigned calls = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 5000000;
    unsigned depth = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 20;
    return descend(depth, calls) == 1;
}
