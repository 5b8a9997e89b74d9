/* Pointers that no plain scan sees: booked as lost, which they are without the option that undoes
 * the disguise.
 *
 *   truth_disguised high         tags in the top byte          --tag-mask=ff00000000000000
 *   truth_disguised low          tags in the low three bits    --tag-mask=7
 *   truth_disguised unaligned    in packed structures          --unaligned
 */
#include "programs/truth.h"

enum { BLOCKS = 40 };

static volatile uint64_t tagged[BLOCKS];
static volatile unsigned char packed[BLOCKS * 11 + 8];

static void *block_of(enum truth_state state, enum truth_state rest)
{
    return truth_chain(2, 200, state, rest);
}

TRUTH_NOINLINE static void high(void)
{
    for (uint64_t i = 0; i < BLOCKS; i++)
        tagged[i] = (uint64_t)(uintptr_t)block_of(TRUTH_DIRECT, TRUTH_INDIRECT) | (0x80 + i) << 56;
}

/* One to seven bytes in: held by the middle, as long as nobody says that these are tags. */
TRUTH_NOINLINE static void low(void)
{
    for (uint64_t i = 0; i < BLOCKS; i++)
        tagged[i] = (uint64_t)(uintptr_t)block_of(TRUTH_POSSIBLE, TRUTH_POSSIBLE) | (1 + i % 7);
}

TRUTH_NOINLINE static void unaligned(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        uint64_t address = (uint64_t)(uintptr_t)block_of(TRUTH_DIRECT, TRUTH_INDIRECT);
        int place = i * 11 + (i * 11 % 8 == 0);
        for (int byte = 0; byte < 8; byte++)
            packed[place + byte] = (unsigned char)(address >> 8 * byte);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    truth_begin();
    if (strcmp(what, "high") == 0)
        high();
    else if (strcmp(what, "low") == 0)
        low();
    else
        unaligned();
    truth_ready();
}
