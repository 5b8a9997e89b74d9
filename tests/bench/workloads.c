/*
 * What programs do with malloc, each kind by itself, to be run with one allocator or another
 * preloaded: a fixed amount of work, so that time and peak memory can be compared.
 *
 *     workloads NAME [THREADS [SCALE]]     without a name: lists them
 *
 * Written in the spirit of the programs that allocators are usually compared with, and each says
 * which. Everything allocated is written to, a byte a page at least and both ends, and looked at
 * before it goes: a lost or shared block ends the run with status 1. Random numbers are the same in
 * every run, but threads meet as it happens.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MOST = 64, PAGE = 4096 };

static double scale = 1;
static int thread_count = 1;
static _Atomic uint64_t sink;

/* -- blocks that know themselves ----------------------------------------------------------------
 */

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t seed_of(int thread)
{
    return ((uint64_t)thread + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

/* Small ones are many: halves of the range again and again, four to six times. */
static size_t size_skewed(uint64_t *state, size_t most)
{
    uint64_t r = random_next(state);
    size_t limit = most >> (r >> 8) % 6;
    return 8 + (size_t)(r >> 16) % (limit > 8 ? limit - 8 : 1);
}

/* The first four bytes hold the size; so a block has 8 at least. */
static char *mark(char *block, size_t bytes)
{
    if (!block) {
        fprintf(stderr, "workloads: out of memory\n");
        exit(1);
    }
    for (size_t i = PAGE; i < bytes; i += PAGE)
        block[i] = 1;
    block[bytes - 1] = (char)bytes;
    *(uint32_t *)(void *)block = (uint32_t)bytes;
    return block;
}

static char *take(size_t bytes)
{
    return mark(malloc(bytes), bytes);
}

static void give(char *block)
{
    if (!block)
        return;
    uint32_t bytes = *(uint32_t *)(void *)block;
    if (bytes > 8 && block[bytes - 1] != (char)bytes) {
        fprintf(stderr, "workloads: a block of %u bytes was overwritten\n", bytes);
        exit(1);
    }
    free(block);
}

static long scaled(long count)
{
    return (long)((double)count * scale) + 1;
}

static void threads_run(void *(*work)(void *), int count)
{
    pthread_t threads[THREADS_MOST];
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) != 0)
            exit(1);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

/* -- one thread ---------------------------------------------------------------------------------
 */

/* Random lifetimes: some slots change all the time, most seldom (alloc-test). */
static void lifetimes(void)
{
    enum { SLOTS = 1 << 16 };
    char **slots = calloc(SLOTS, sizeof *slots);
    uint64_t state = seed_of(0);
    for (long i = scaled(12000000); i > 0; i--) {
        uint64_t r = random_next(&state), at = r % SLOTS;
        at = at * ((r >> 20) % SLOTS) / SLOTS;
        if (slots[at]) {
            give(slots[at]);
            slots[at] = NULL;
        } else
            slots[at] = take(size_skewed(&state, 1024));
    }
    for (int i = 0; i < SLOTS; i++)
        give(slots[i]);
    free(slots);
}

/* Few to many blocks of one size, all taken, then all given back (glibc's bench-malloc-simple). */
static void batches(void)
{
    static char *blocks[1600];
    static const int numbers[] = {25, 100, 400, 1600}, sizes[] = {16, 40, 128, 520, 2048};
    for (long round = scaled(700); round > 0; round--)
        for (int s = 0; s < 5; s++)
            for (int n = 0; n < 4; n++)
                for (int again = 1600 / numbers[n]; again > 0; again--) {
                    for (int i = 0; i < numbers[n]; i++)
                        blocks[i] = take((size_t)sizes[s]);
                    for (int i = 0; i < numbers[n]; i++)
                        give(blocks[i]);
                }
}

/* Formulas that are derived, copied and dropped again: tiny blocks, short lives, a small process
 * (cfrac, espresso). */
struct term {
    int operation; /* 0: a number, 1: x, else an operation on two terms */
    int number;
    struct term *parts[]; /* of an operation: left, right */
};

static struct term *term_new(int operation, int number, struct term *left, struct term *right)
{
    struct term *t = malloc(sizeof *t + (operation > 1 ? 2 : 0) * sizeof t->parts[0]);
    t->operation = operation;
    t->number = number;
    if (operation > 1) {
        t->parts[0] = left;
        t->parts[1] = right;
    }
    return t;
}

static struct term *term_copy(const struct term *t)
{
    return t->operation > 1
               ? term_new(t->operation, 0, term_copy(t->parts[0]), term_copy(t->parts[1]))
               : term_new(t->operation, t->number, NULL, NULL);
}

static struct term *term_derived(const struct term *t)
{
    if (t->operation < 2)
        return term_new(0, t->operation, NULL, NULL);
    if (t->operation == 2)
        return term_new(2, 0, term_derived(t->parts[0]), term_derived(t->parts[1]));
    return term_new(2, 0, term_new(3, 0, term_derived(t->parts[0]), term_copy(t->parts[1])),
                    term_new(3, 0, term_copy(t->parts[0]), term_derived(t->parts[1])));
}

static void term_free(struct term *t)
{
    if (t->operation > 1) {
        term_free(t->parts[0]);
        term_free(t->parts[1]);
    }
    free(t);
}

static int term_value(const struct term *t, int x)
{
    int left = t->operation > 1 ? term_value(t->parts[0], x) : 0;
    int right = t->operation > 1 ? term_value(t->parts[1], x) : 0;
    return t->operation == 0   ? t->number
           : t->operation == 1 ? x
           : t->operation == 2 ? left + right
                               : (int)((unsigned)left * (unsigned)right);
}

static struct term *term_random(uint64_t *state, int depth)
{
    uint64_t r = random_next(state);
    if (depth == 0 || r % 8 == 0)
        return term_new((int)(r >> 8) & 1, (int)(r >> 16) & 15, NULL, NULL);
    struct term *left = term_random(state, depth - 1);
    return term_new(2 + ((r >> 8) & 1), 0, left, term_random(state, depth - 1));
}

static void formulas(void)
{
    uint64_t state = seed_of(0);
    for (long i = scaled(8000); i > 0; i--) {
        struct term *t = term_random(&state, 7);
        for (int n = 0; n < 2; n++) {
            struct term *derived = term_derived(t);
            sink += (unsigned)term_value(derived, (int)i);
            term_free(t);
            t = derived;
        }
        term_free(t);
    }
}

/* A search tree that is built, walked often, and changed now and then: how blocks lie (barnes). */
struct node {
    uint64_t key;
    struct node *children[2];
    char payload[24];
};

static struct node **tree_place(struct node **place, uint64_t key)
{
    while (*place && (*place)->key != key)
        place = &(*place)->children[key > (*place)->key];
    return place;
}

static void tree_remove(struct node **place)
{
    struct node *node = *place, **least = &node->children[1];
    if (!node->children[0] || !node->children[1]) {
        *place = node->children[node->children[0] == NULL];
        free(node);
        return;
    }
    while ((*least)->children[0])
        least = &(*least)->children[0];
    node->key = (*least)->key;
    tree_remove(least);
}

static uint64_t tree_sum(const struct node *node)
{
    return node ? node->key + tree_sum(node->children[0]) + tree_sum(node->children[1]) : 0;
}

static void tree_free(struct node *node)
{
    if (!node)
        return;
    tree_free(node->children[0]);
    tree_free(node->children[1]);
    free(node);
}

static void tree(void)
{
    struct node *root = NULL;
    uint64_t state = seed_of(0);
    for (long i = 0; i < scaled(800000); i++) {
        uint64_t key = random_next(&state) % 150000;
        struct node **place = tree_place(&root, key);
        if (*place)
            tree_remove(place);
        else {
            *place = calloc(1, sizeof **place);
            (*place)->key = key;
        }
        if (i % 20000 == 0)
            sink += tree_sum(root);
    }
    tree_free(root);
}

/* Twenty blocks of 5 to 25 MiB, replaced at random (malloc-large). */
static void large(void)
{
    static char *slots[20];
    uint64_t state = seed_of(0);
    for (long i = scaled(150); i > 0; i--) {
        uint64_t r = random_next(&state);
        give(slots[r % 20]);
        slots[r % 20] = take((5 << 20) + (r >> 8) % (20 << 20));
    }
    for (int i = 0; i < 20; i++)
        give(slots[i]);
}

/* Blocks that must begin at 32 to 4096, in a set that is replaced at random. */
static void aligned(void)
{
    enum { SLOTS = 4096 };
    static char *slots[SLOTS];
    uint64_t state = seed_of(0);
    for (long i = scaled(8000000); i > 0; i--) {
        uint64_t r = random_next(&state);
        size_t to = (size_t)32 << ((r >> 16) % 64 == 0 ? (r >> 24) % 8 : (r >> 24) % 2);
        size_t bytes = (size_skewed(&state, 2048) + to - 1) / to * to;
        give(slots[r % SLOTS]);
        slots[r % SLOTS] = mark(aligned_alloc(to, bytes), bytes);
        if ((uintptr_t)slots[r % SLOTS] % to)
            exit(1);
    }
    for (int i = 0; i < SLOTS; i++)
        give(slots[i]);
}

/* Buffers that grow as they are written, some by a little, some by halves, up to some MiB. */
static void buffers(void)
{
    static char *slots[64];
    static size_t lengths[64];
    uint64_t state = seed_of(0);
    for (long i = scaled(150000); i > 0; i--) {
        uint64_t r = random_next(&state), at = r % 64;
        size_t longer = lengths[at] + (at % 2 ? lengths[at] / 2 : 0) + 16 + (r >> 8) % 1000;
        if (longer > (at == 1 ? 8U << 20 : 1U << 17)) {
            free(slots[at]);
            slots[at] = NULL;
            lengths[at] = 0;
            continue;
        }
        slots[at] = realloc(slots[at], longer);
        memset(slots[at] + lengths[at], (int)at, longer - lengths[at]);
        if (slots[at][0] != (char)at)
            exit(1);
        lengths[at] = longer;
    }
    for (int i = 0; i < 64; i++)
        free(slots[i]);
}

/* -- threads by themselves ----------------------------------------------------------------------
 */

/* A set of a thousand, sizes up to 32 KiB, small ones much more often (bench-malloc-thread). */
static void *churn_work(void *number)
{
    enum { SLOTS = 1024 };
    char *slots[SLOTS] = {0};
    uint64_t state = seed_of((int)(intptr_t)number);
    for (long i = scaled(20000000) / thread_count; i > 0; i--) {
        uint64_t r = random_next(&state);
        uint64_t inverse = 1 + (r >> 40) % 1024;
        give(slots[r % SLOTS]);
        slots[r % SLOTS] = take(8 + (32 << 10) / inverse);
    }
    for (int i = 0; i < SLOTS; i++)
        give(slots[i]);
    return NULL;
}

static void churn(void)
{
    threads_run(churn_work, thread_count);
}

/* Thousands of mixed small blocks, given back last first, first first or every other one; some stay
 * for a while (sh6bench, sh8bench). */
enum { MIXED_BATCH = 6000, MIXED_STAY = 8000 };

static void mixed_free(char **blocks, int how)
{
    if (how == 0)
        for (int i = MIXED_BATCH - 1; i >= 0; i--)
            give(blocks[i]);
    else if (how == 1)
        for (int i = 0; i < MIXED_BATCH; i++)
            give(blocks[i]);
    else
        for (int half = 0; half < 2; half++)
            for (int i = half; i < MIXED_BATCH; i += 2)
                give(blocks[i]);
}

static void *mixed_work(void *number)
{
    char **blocks = malloc(sizeof(char *) * MIXED_BATCH);
    char **stay = calloc(MIXED_STAY, sizeof *stay);
    uint64_t state = seed_of((int)(intptr_t)number), at = 0;
    for (long round = scaled(3000) / thread_count; round > 0; round--) {
        for (int i = 0; i < MIXED_BATCH; i++) {
            blocks[i] = take(size_skewed(&state, i % 64 ? 400 : 1500));
            if (i % 16 == 0) {
                give(stay[at]);
                stay[at] = blocks[i];
                blocks[i] = NULL;
                at = (at + 1) % MIXED_STAY;
            }
        }
        mixed_free(blocks, (int)(round % 3));
    }
    for (int i = 0; i < MIXED_STAY; i++)
        give(stay[i]);
    free(stay);
    free(blocks);
    return NULL;
}

static void mixed(void)
{
    threads_run(mixed_work, thread_count);
}

/* Does an allocator put blocks of two threads on one line of the cache? Each writes a block of its
 * own again and again (cache-thrash); in the second, blocks that one thread took (cache-scratch).
 */
static char *handed[THREADS_MOST];

static void *thrash_work(void *number)
{
    give(handed[(intptr_t)number]);
    for (long i = scaled(400000) / thread_count; i > 0; i--) {
        volatile char *block = take(8);
        for (int n = 0; n < 1000; n++)
            block[4 + n % 4]++;
        free((void *)block);
    }
    return NULL;
}

static void thrash(void)
{
    threads_run(thrash_work, thread_count);
}

static void scratch(void)
{
    for (int i = 0; i < thread_count; i++)
        handed[i] = take(8);
    threads_run(thrash_work, thread_count);
}

/* Threads that start, allocate little, and end (mleak). */
static void *brief_work(void *number)
{
    char *blocks[64];
    uint64_t state = seed_of((int)(intptr_t)number);
    for (int i = 0; i < 64; i++)
        blocks[i] = take(size_skewed(&state, 512));
    for (int i = 0; i < 64; i++)
        give(blocks[i]);
    return NULL;
}

static void brief(void)
{
    for (long i = scaled(10000) / thread_count; i > 0; i--)
        threads_run(brief_work, thread_count);
}

/* -- threads that hand blocks on ----------------------------------------------------------------
 */

/* A server whose threads replace what their predecessors took, and end after a while (larson). */
enum { SERVED = 5000 };
static char **served;

static void *server_work(void *number)
{
    char **slots = served + (intptr_t)number * SERVED;
    uint64_t state = seed_of((int)(intptr_t)number);
    for (long i = scaled(10000000) / 50 / thread_count; i > 0; i--) {
        uint64_t r = random_next(&state);
        give(slots[r % SERVED]);
        slots[r % SERVED] = take(8 + (r >> 32) % 992);
    }
    return NULL;
}

/* Thread i of the next generation has the blocks of i, and is started while others still work. */
static void *server_line(void *number)
{
    for (int generation = 0; generation < 50; generation++) {
        pthread_t next;
        if (pthread_create(&next, NULL, server_work, number) != 0)
            exit(1);
        pthread_join(next, NULL);
    }
    return NULL;
}

static void server(void)
{
    served = calloc((size_t)thread_count * SERVED, sizeof *served);
    for (int i = 0; i < thread_count * SERVED; i++)
        served[i] = take(8 + (size_t)i % 992);
    threads_run(server_line, thread_count);
    for (int i = 0; i < thread_count * SERVED; i++)
        give(served[i]);
    free(served);
}

/* Half of the threads allocate batches, the others free them (xmalloc-test). */
enum { PARCEL = 120, PARCELS = 64 };
struct parcel {
    struct parcel *next;
    char *blocks[PARCEL];
};
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct parcel *first;
    int count, producers;
} belt = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void produce(uint64_t *state)
{
    static const uint16_t sizes[] = {8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768};
    struct parcel *parcel = malloc(sizeof *parcel);
    for (int i = 0; i < PARCEL; i++)
        parcel->blocks[i] = take(sizes[random_next(state) % (sizeof sizes / sizeof sizes[0])]);
    pthread_mutex_lock(&belt.lock);
    while (belt.count >= PARCELS)
        pthread_cond_wait(&belt.changed, &belt.lock);
    parcel->next = belt.first;
    belt.first = parcel;
    if (belt.count++ == 0)
        pthread_cond_broadcast(&belt.changed);
    pthread_mutex_unlock(&belt.lock);
}

static void consume(void)
{
    for (;;) {
        pthread_mutex_lock(&belt.lock);
        while (!belt.first && belt.producers)
            pthread_cond_wait(&belt.changed, &belt.lock);
        struct parcel *parcel = belt.first;
        if (parcel) {
            belt.first = parcel->next;
            if (belt.count-- == PARCELS)
                pthread_cond_broadcast(&belt.changed);
        }
        pthread_mutex_unlock(&belt.lock);
        if (!parcel)
            return;
        for (int i = 0; i < PARCEL; i++)
            give(parcel->blocks[i]);
        free(parcel);
    }
}

static void *belt_work(void *number)
{
    uint64_t state = seed_of((int)(intptr_t)number);
    if ((intptr_t)number % 2) {
        consume();
        return NULL;
    }
    for (long i = scaled(60000) / (thread_count / 2); i > 0; i--)
        produce(&state);
    pthread_mutex_lock(&belt.lock);
    belt.producers--;
    pthread_cond_broadcast(&belt.changed);
    pthread_mutex_unlock(&belt.lock);
    return NULL;
}

static void belts(void)
{
    belt.producers = thread_count / 2;
    threads_run(belt_work, thread_count);
}

/* Sets of blocks of which some survive the thread, and slots that all exchange (mstress). */
enum { EXCHANGED = 1000, SURVIVORS = 500 };
static _Atomic(char *) exchanged[EXCHANGED];

static size_t stress_size(uint64_t *state)
{
    uint64_t r = random_next(state) % 1000;
    return size_skewed(state, r == 0 ? 64 << 10 : r < 20 ? 8 << 10 : 256);
}

static void *stress_work(void *number)
{
    enum { MOST = 10000 };
    char **held = calloc(MOST, sizeof *held);
    uint64_t state = seed_of((int)(intptr_t)number);
    long count = 0;
    for (long left = scaled(40000); left > 0; left--) {
        uint64_t r = random_next(&state);
        if (r % 100 < 60 && count < MOST)
            held[count++] = take(stress_size(&state));
        else if (r % 100 < 90 && count) {
            long at = (long)((r >> 20) % (uint64_t)count);
            give(held[at]);
            held[at] = held[--count];
        } else
            give(atomic_exchange(&exchanged[(r >> 20) % EXCHANGED], take(stress_size(&state))));
    }
    for (long i = 0; i < count; i++)
        if (i < SURVIVORS)
            give(atomic_exchange(&exchanged[i], held[i]));
        else
            give(held[i]);
    free(held);
    return NULL;
}

static void stress(void)
{
    for (int round = 0; round < 240 / thread_count; round++)
        threads_run(stress_work, thread_count);
    for (int i = 0; i < EXCHANGED; i++)
        give(atomic_exchange(&exchanged[i], NULL));
}

/* Random sizes up to 16,000; every second round a thread's blocks go to its neighbour (rptest). */
enum { ROUND_BLOCKS = 1000 };
static _Atomic(char **) desks[THREADS_MOST];

static void desk_clear(char **blocks)
{
    for (int i = 0; blocks && i < ROUND_BLOCKS; i++)
        give(blocks[i]);
    free(blocks);
}

static void *rounds_work(void *number)
{
    uint64_t state = seed_of((int)(intptr_t)number);
    int neighbour = ((int)(intptr_t)number + 1) % thread_count;
    for (long round = scaled(2500) / thread_count; round > 0; round--) {
        char **blocks = malloc(sizeof(char *) * ROUND_BLOCKS);
        for (int i = 0; i < ROUND_BLOCKS; i++)
            blocks[i] = take(size_skewed(&state, 16000));
        for (int i = 0; i < ROUND_BLOCKS; i++) {
            uint64_t at = random_next(&state) % ROUND_BLOCKS;
            give(blocks[at]);
            blocks[at] = take(size_skewed(&state, 16000));
        }
        if (round % 2)
            blocks = atomic_exchange(&desks[neighbour], blocks);
        desk_clear(blocks);
    }
    return NULL;
}

static void rounds(void)
{
    threads_run(rounds_work, thread_count);
    for (int i = 0; i < thread_count; i++)
        desk_clear(atomic_exchange(&desks[i], NULL));
}

static const struct workload {
    const char *name;
    void (*run)(void);
} workloads[] = {
    {"lifetimes", lifetimes}, {"batches", batches}, {"formulas", formulas}, {"tree", tree},
    {"large", large},         {"aligned", aligned}, {"buffers", buffers},   {"churn", churn},
    {"mixed", mixed},         {"thrash", thrash},   {"scratch", scratch},   {"brief", brief},
    {"server", server},       {"belts", belts},     {"stress", stress},     {"rounds", rounds},
};

int main(int argc, char **argv)
{
    if (argc > 2)
        thread_count = (int)strtol(argv[2], NULL, 10);
    if (argc > 3)
        scale = strtod(argv[3], NULL);
    if (thread_count < 1 || thread_count > THREADS_MOST)
        return 2;
    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++) {
        if (argc < 2)
            puts(workloads[i].name);
        else if (strcmp(workloads[i].name, argv[1]) == 0) {
            workloads[i].run();
            return 0;
        }
    }
    return argc < 2 ? 0 : 2;
}
