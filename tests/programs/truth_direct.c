/* Blocks of every size class, kept and lost side by side; blocks of no bytes as well. */
#include "programs/truth.h"

TRUTH_NOINLINE static void plant(void)
{
    for (size_t bytes = 0; bytes <= 40000; bytes += 1 + bytes / 5) {
        for (int i = 0; i < 3; i++) {
            truth_keep(truth_malloc(bytes));
            truth_mark(truth_malloc(bytes), TRUTH_DIRECT);
        }
    }
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
