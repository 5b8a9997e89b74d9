/* Blocks held only by a pointer into their middle are possible, and so is what only they hold. A
 * lost block held by the middle pointer of another lost one is indirect. One past the end of what
 * was asked for, and the start, are enough to be held. */
#include "programs/truth.h"

static void *volatile middle[64], *volatile past_end[64];

TRUTH_NOINLINE static void possible(void)
{
    for (int i = 0; i < 20; i++) {
        char *block = truth_malloc(200 + 40 * (size_t)i);
        middle[i] = block + 72;
        truth_mark(block, TRUTH_POSSIBLE);
        if (i % 4 == 0)
            ((void **)block)[1] = truth_chain(3, 120, TRUTH_POSSIBLE, TRUTH_POSSIBLE);
    }
    char *large = truth_malloc(300000);
    middle[30] = large + 150001 / 8 * 8;
    truth_mark(large, TRUTH_POSSIBLE);
}

/* A pointer to the start elsewhere makes the middle pointer harmless. */
TRUTH_NOINLINE static void both(void)
{
    char *block = truth_malloc(200);
    middle[40] = block + 80;
    truth_keep(block);
}

TRUTH_NOINLINE static void ends(void)
{
    for (int i = 0; i < 10; i++)
        past_end[i] = (char *)truth_malloc(100) + 100;
}

TRUTH_NOINLINE static void lost(void)
{
    char *child = truth_malloc(500);
    void **parent = truth_malloc(100);
    parent[3] = child + 240;
    truth_mark(child, TRUTH_INDIRECT);
    truth_mark(parent, TRUTH_DIRECT);
}

TRUTH_NOINLINE static void plant(void)
{
    possible();
    both();
    ends();
    lost();
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
