/* Several threads that allocate, free each other's blocks, lose some, and stop; two more rounds of
 * threads end before that, so that caches change hands. */
#include "programs/truth.h"

#include <pthread.h>

enum { THREADS = 6, SLOTS = 512, ROUNDS = 20000 };

/* Where threads meet: whoever finds a block in a slot takes it out. Ordinary data, thus roots. */
static void *slots[SLOTS];

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t some_size(uint64_t random)
{
    switch (random % 16) {
    case 0:
        return 33000 + random / 16 % 100000;
    case 1:
    case 2:
        return random / 16 % 8000;
    default:
        return random / 16 % 300;
    }
}

TRUTH_NOINLINE static void one_round(uint64_t *random)
{
    void *block = truth_malloc(some_size(next_random(random)));
    void *other = __atomic_exchange_n(&slots[next_random(random) % SLOTS], block, __ATOMIC_ACQ_REL);
    if (!other)
        return;
    switch (next_random(random) % 64) {
    case 0:
        if (__atomic_load_n(&truth_kept_count, __ATOMIC_RELAXED) < TRUTH_CAPACITY - THREADS)
            truth_keep(other);
        break;
    case 1:
        memset(other, 0, malloc_usable_size(other));
        truth_mark(other, TRUTH_DIRECT);
        break;
    default:
        truth_free(other);
    }
}

static void *worker(void *seed)
{
    uint64_t random = (uint64_t)(uintptr_t)seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (int i = 0; i < ROUNDS; i++)
        one_round(&random);
    if ((uintptr_t)seed < THREADS)
        truth_stand();
    return NULL;
}

/* Each round's stacks are larger than those before: libc gives no used one to the last threads,
 * where an ended thread's pointers would lie in gaps of living frames. */
TRUTH_NOINLINE static void run(uintptr_t first_seed, size_t stack_bytes, int ends)
{
    pthread_t threads[THREADS];
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) || pthread_attr_setstacksize(&attributes, stack_bytes))
        truth_fail("pthread_attr_setstacksize");
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], &attributes, worker, (void *)(first_seed + i)))
            truth_fail("pthread_create");
    for (int i = 0; ends && i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    truth_begin();
    run(100, 256 << 10, 1);
    run(200, 512 << 10, 1);
    run(0, 1 << 20, 0);
    truth_await(THREADS);
    truth_ready();
}
