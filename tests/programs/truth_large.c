/* Blocks over 1 MiB and over 64 MiB, kept, lost and freed, with pointers deep inside them. */
#include "programs/truth.h"

/* The child hangs near the end of a block most of which was never touched. */
TRUTH_NOINLINE static void *with_child(size_t bytes, enum truth_state own, enum truth_state child)
{
    char *block = truth_got_filled(calloc(1, bytes), bytes);
    void **place = (void **)(block + (bytes - 64) / 8 * 8);
    *place = truth_malloc(40);
    truth_mark(*place, child);
    truth_mark(block, own);
    return block;
}

TRUTH_NOINLINE static void plant(void)
{
    static const size_t sizes[] = {(1 << 20) + 1, 3 << 20, 33 << 20, (64 << 20) + 5, 200 << 20};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    void *freed[SIZES];
    for (size_t i = 0; i < SIZES; i++) {
        freed[i] = with_child(sizes[i], TRUTH_HELD, TRUTH_DIRECT);
        truth_keep(with_child(sizes[i], TRUTH_HELD, TRUTH_HELD));
        with_child(sizes[i], TRUTH_DIRECT, TRUTH_INDIRECT);
        /* behind a size that fills its pages this may be the address where the lost block ends */
        if (i == 0 || sizes[i - 1] % 4096)
            truth_keep(freed[i]);
    }
    /* last of all, so that no later block gets an address that something points to */
    for (size_t i = 0; i < SIZES; i++)
        truth_free(freed[i]);
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
