/*
 * Threads that allocate, resize, hand over and free at random, each block filled with a pattern
 * made from its own address and size: any block handed out twice, moved wrongly or given less than
 * it asked for shows as a broken pattern.
 */
#include "tap.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, HELD = 700, SHARED = 256, ROUNDS = 300000 };

struct block {
    unsigned char *p;
    size_t size;
    unsigned char seed;
};

static _Atomic(struct block *) shared[SHARED];
static atomic_ulong broken, failed;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t random_size(uint64_t *state)
{
    uint64_t r = next_random(state);
    switch (r % 64) {
    case 0:
        return 32768 + (r >> 8) % 300000;
    case 1:
    case 2:
        return 4000 + (r >> 8) % 60000;
    case 3:
        return (r >> 8) % 2;
    default:
        return (r >> 8) % (16u << (r >> 40) % 8);
    }
}

/* Both ends of the block carry the pattern: enough to see an overlap, cheap enough for many. */
static void block_fill(struct block *b)
{
    size_t n = b->size < 64 ? b->size : 64;
    if (b->size) {
        memset(b->p, b->seed, n);
        memset(b->p + b->size - n, b->seed, n);
    }
}

static void block_check(const struct block *b, size_t size)
{
    size_t n = size < 64 ? size : 64;
    for (size_t i = 0; i < n; i++)
        if (b->p[i] != b->seed || (size == b->size && b->p[size - n + i] != b->seed)) {
            atomic_fetch_add(&broken, 1);
            return;
        }
}

static void block_make(struct block *b, uint64_t *state)
{
    uint64_t r = next_random(state);
    b->size = random_size(state);
    b->seed = (unsigned char)(r >> 16);
    if (r % 16 == 0) {
        size_t align = (size_t)16 << (r >> 8) % 10;
        b->p = memalign(align, b->size);
        if ((uintptr_t)b->p % align)
            atomic_fetch_add(&broken, 1);
    } else if (r % 16 == 1) {
        b->p = calloc(1, b->size);
        for (size_t i = 0; b->p && i < b->size; i += 97)
            if (b->p[i])
                atomic_fetch_add(&broken, 1);
    } else {
        b->p = malloc(b->size);
    }
    if (!b->p || (uintptr_t)b->p % 16 || malloc_usable_size(b->p) < b->size)
        atomic_fetch_add(&failed, 1);
    else
        block_fill(b);
}

static void block_resize(struct block *b, uint64_t *state)
{
    size_t size = random_size(state) + 1;
    unsigned char *p = realloc(b->p, size);
    if (!p) {
        atomic_fetch_add(&failed, 1);
        return;
    }
    b->p = p;
    size_t kept = size < b->size ? size : b->size;
    if (kept < b->size) {
        block_check(b, kept < 64 ? kept : 64);
        b->size = size;
    } else {
        block_check(b, b->size);
        b->size = size;
    }
    block_fill(b);
}

static void *worker(void *argument)
{
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)argument + 1);
    struct block *held = calloc(HELD, sizeof(*held));
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t r = next_random(&state);
        struct block *b = &held[r % HELD];
        if (!b->p) {
            block_make(b, &state);
        } else if ((r >> 20) % 8 == 0) {
            block_resize(b, &state);
        } else if ((r >> 20) % 8 == 1) {
            /* swap with what another thread left */
            struct block *mine = malloc(sizeof(*mine));
            *mine = *b;
            struct block *theirs = atomic_exchange(&shared[(r >> 32) % SHARED], mine);
            *b = theirs ? *theirs : (struct block){0};
            free(theirs);
        } else {
            block_check(b, b->size);
            free(b->p);
            b->p = NULL;
        }
    }
    for (int i = 0; i < HELD; i++)
        if (held[i].p) {
            block_check(&held[i], held[i].size);
            free(held[i].p);
        }
    free(held);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    int started = 0;
    for (int round = 0; round < 3; round++) {
        for (uintptr_t i = 0; i < THREADS; i++)
            started += pthread_create(&threads[i], NULL, worker, (void *)(i + 7 * round)) == 0;
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    ok(started == 3 * THREADS, "%d threads ran", started);
    ok(broken == 0, "no pattern was broken (%lu)", (unsigned long)broken);
    ok(failed == 0, "no allocation failed or was misaligned (%lu)", (unsigned long)failed);
    return done();
}
