/*
 * Many live blocks from a few calls, for estimates from samples. Prints, a line a call,
 *
 *     site FUNCTION BLOCKS BYTES
 *
 * and stands still. Half of what each allocates is freed again, so that what is live is not what
 * was allocated.
 */
#include "programs/truth.h"

#define SITE(name, count, bytes)                                                                   \
    TRUTH_NOINLINE static void name(void)                                                          \
    {                                                                                              \
        static void *volatile held[count] __attribute__((used));                                   \
        for (size_t i = 0; i < 2 * (size_t)(count); i++) {                                         \
            void *block = malloc(bytes);                                                           \
            if (!block)                                                                            \
                truth_fail("out of memory");                                                       \
            if (i % 2)                                                                             \
                free(block);                                                                       \
            else                                                                                   \
                held[i / 2] = block;                                                               \
        }                                                                                          \
        printf("site %s %d %zu\n", __func__, count, (size_t)(count) * (bytes));                    \
    }

SITE(small, 20000, 24)
SITE(medium, 4000, 1000)
SITE(large, 100, 100000)

int main(void)
{
    truth_begin();
    small();
    medium();
    large();
    truth_ready();
}
