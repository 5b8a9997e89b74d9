/* Rings with tails. What hangs off a ring is indirect; what leads into one is direct itself, and
 * leaves the ring no direct member of its own. */
#include "programs/truth.h"

TRUTH_NOINLINE static void tails_out(void)
{
    void **block = truth_ring(10, 64, TRUTH_RING);
    truth_rings++;
    for (int i = 0; i < 10; i++, block = block[0])
        block[2 + i % 3] = truth_chain(5, 56, TRUTH_INDIRECT, TRUTH_INDIRECT);
}

TRUTH_NOINLINE static void tail_in(void)
{
    void **block = truth_ring(20, 64, TRUTH_INDIRECT);
    void **head = truth_malloc(24);
    head[1] = block;
    truth_mark(head, TRUTH_DIRECT);
}

/* The tail of a kept ring is kept. */
TRUTH_NOINLINE static void kept(void)
{
    void **block = truth_ring(10, 64, TRUTH_HELD);
    block[3] = truth_chain(5, 56, TRUTH_HELD, TRUTH_HELD);
    truth_keep(block);
}

TRUTH_NOINLINE static void plant(void)
{
    tails_out();
    tail_in();
    kept();
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
