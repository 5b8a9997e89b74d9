/* Blocks held only by local variables of live frames, in main and in a thread; and a block whose
 * only pointer lies in dead stack below the stack pointer: lost. */
#include "programs/truth.h"

#include <pthread.h>

static uint64_t buried[16];

/* The outermost call writes nothing: what lies right below the stack pointer is the red zone, which
 * counts as stack. */
TRUTH_NOINLINE static void bury(int depth)
{
    void *volatile dead[512];
    uint64_t mask = depth < 4 ? TRUTH_MASK : 0;
    for (int i = 0; i < 512; i++)
        dead[i] = (void *)(uintptr_t)(buried[i % 16] ^ mask);
    if (depth > 0)
        bury(depth - 1);
    (void)dead[0];
}

TRUTH_NOINLINE static void lose(void)
{
    for (int i = 0; i < 16; i++) {
        void *block = truth_malloc(160);
        buried[i] = truth_masked(block);
        truth_mark(block, TRUTH_DIRECT);
    }
}

/* Like truth_stand(), but the dead stack stays as it is. */
TRUTH_NOINLINE static void stand_on_graves(void)
{
    bury(4);
    long level = truth_vector_level();
    __asm__ volatile(TRUTH_CLEAR_VECTORS TRUTH_WAIT
                     : "+a"(level)
                     : [standing] "m"(truth_standing)
                     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
    __builtin_unreachable();
}

TRUTH_NOINLINE static void deep(int depth, void (*last)(void))
{
    void *volatile local[4] = {0};
    local[2] = truth_chain(2, 72, TRUTH_HELD, TRUTH_HELD);
    if (depth > 0)
        deep(depth - 1, last);
    else
        last();
    (void)local[2];
}

static void *thread_main(void *unused)
{
    deep(20, truth_stand);
    return unused;
}

static void finish(void)
{
    lose();
    truth_tell();
    stand_on_graves();
}

int main(void)
{
    pthread_t thread;
    truth_begin();
    if (pthread_create(&thread, NULL, thread_main, NULL))
        truth_fail("pthread_create");
    truth_await(1);
    deep(20, finish);
}
