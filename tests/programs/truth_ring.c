/* Rings: each lost one has exactly one direct member, the rest of it is indirect. */
#include "programs/truth.h"

TRUTH_NOINLINE static void two_way_ring(size_t count)
{
    void **first = truth_ring(count, 64, TRUTH_RING), **block = first;
    do {
        void **next = block[0];
        next[1] = block;
        block = next;
    } while (block != first);
    truth_rings++;
}

TRUTH_NOINLINE static void plant(void)
{
    truth_keep(truth_ring(50, 32, TRUTH_HELD));
    truth_ring(1, 32, TRUTH_RING); /* a block that points to itself */
    truth_ring(2, 80, TRUTH_RING);
    truth_ring(50, 32, TRUTH_RING);
    truth_ring(3000, 48, TRUTH_RING);
    truth_rings += 4;
    two_way_ring(30);
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
