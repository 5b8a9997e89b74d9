/*
 * heap_accounts SEED THREADS [LEFT]: a heap with everything in it, at rest, and what the C library
 * itself says of it: prints mallinfo2() and malloc_info(), then "ready", and stands still. Another
 * allocator that is loaded is asked too: jemalloc's mallctl, gperftools' MallocExtension,
 * mimalloc's visits of each thread's heap ("NAME NUMBER", a line each).
 *
 * Every thread allocates and frees at random, keeps a part, leaves fast chunks and cached ones, and
 * waits. LEFT: the program break is blocked when the top has so many bytes left. Thresholds are
 * glibc's own or those of GLIBC_TUNABLES. Nothing is allocated after the numbers were taken: stdout
 * has a buffer of its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { SLOTS = 3000, ROUNDS = 60000, MOST_THREADS = 16 };

static void *slots[MOST_THREADS + 1][SLOTS];
static pthread_barrier_t done;
static uint64_t seed;

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static size_t some_size(uint64_t random)
{
    switch (random % 64) {
    case 0:
        return random / 64 % 60000;
    case 1:
    case 2:
    case 3:
        return random / 64 % 4000;
    default:
        return random / 64 % 300;
    }
}

static void churn(void **own, uint64_t state)
{
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t random = next_random(&state);
        void **slot = &own[random % SLOTS];
        free(*slot);
        *slot = next_random(&state) % 3 ? malloc(some_size(next_random(&state))) : NULL;
    }
    for (int i = 0; i < 8; i++) { /* each a mapping of its own */
        void **slot = &own[next_random(&state) % SLOTS];
        free(*slot);
        *slot = i % 3 == 2 ? memalign(8192, 200000) : malloc(150000 + next_random(&state) % 900000);
        memset(*slot, 1, 1000);
    }
    for (int i = 0; i < 200; i++) { /* more than a cache takes: fast chunks */
        void **slot = &own[next_random(&state) % SLOTS];
        free(*slot);
        *slot = NULL;
    }
}

/* -- what other allocators say ------------------------------------------------------------------
 */

struct mi_area { /* mi_heap_area_t */
    void *blocks;
    size_t reserved, committed, used, block_size;
};

static atomic_size_t mi_blocks, mi_bytes;

/* Looked up before anything is counted: a name that is not there costs memory. */
static struct {
    void *(*mi_heap)(void);
    bool (*mi_visit)(const void *heap, bool blocks, void *visit, void *argument);
    int (*mallctl)(const char *name, void *value, size_t *size, void *to, size_t to_size);
    int (*tc_property)(const char *name, size_t *value);
} others;

static void others_find(void)
{
    *(void **)&others.mi_heap = dlsym(NULL, "mi_heap_get_default");
    *(void **)&others.mi_visit = dlsym(NULL, "mi_heap_visit_blocks");
    *(void **)&others.mallctl = dlsym(NULL, "mallctl");
    *(void **)&others.tc_property = dlsym(NULL, "MallocExtension_GetNumericProperty");
}

static bool mi_area_visit(const void *heap, const struct mi_area *area, void *block, size_t bytes,
                          void *argument)
{
    (void)heap;
    (void)argument;
    if (area && block) {
        atomic_fetch_add(&mi_blocks, 1);
        atomic_fetch_add(&mi_bytes, bytes);
    }
    return true;
}

/* A thread's own heap: by each thread. */
static void mi_visit(void)
{
    if (others.mi_heap && others.mi_visit)
        others.mi_visit(others.mi_heap(), true, (void *)mi_area_visit, NULL);
}

static void mi_print(void)
{
    if (mi_blocks)
        printf("mi.blocks %zu\nmi.bytes %zu\n", mi_blocks, mi_bytes);
}

static void jemalloc_print(void)
{
    static const char *const names[] = {"stats.allocated", "stats.active",   "stats.mapped",
                                        "stats.resident",  "stats.retained", "stats.metadata"};
    uint64_t epoch = 1;
    if (!others.mallctl || others.mallctl("epoch", NULL, NULL, &epoch, sizeof epoch) != 0)
        return;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t value = 0, size = sizeof value;
        if (others.mallctl(names[i], &value, &size, NULL, 0) == 0)
            printf("%s %zu\n", names[i], value);
    }
}

static void tcmalloc_print(void)
{
    static const char *const names[] = {"generic.current_allocated_bytes",
                                        "generic.heap_size",
                                        "tcmalloc.pageheap_free_bytes",
                                        "tcmalloc.pageheap_unmapped_bytes",
                                        "tcmalloc.current_total_thread_cache_bytes",
                                        "tcmalloc.central_cache_free_bytes",
                                        "tcmalloc.transfer_cache_free_bytes"};
    for (size_t i = 0; others.tc_property && i < sizeof names / sizeof *names; i++) {
        size_t value = 0;
        if (others.tc_property(names[i], &value))
            printf("%s %zu\n", names[i], value);
    }
}

static void *worker(void *number)
{
    churn(slots[(uintptr_t)number], seed * 1000 + (uintptr_t)number);
    mi_visit();
    pthread_barrier_wait(&done);
    pause();
    return NULL;
}

/* 48 bytes leave 16 before the fenceposts: too few for a chunk. */
static void break_blocked(size_t left)
{
    unsigned char *block = malloc(24);
    size_t top = (size_t)((unsigned char *)sbrk(0) - (block + 16));
    void *rest = malloc(top - left - 8);
    unsigned char *end = sbrk(0);
    void *wall =
        mmap(end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (rest != block + 32 || wall != end)
        _exit(3);
    slots[0][0] = block;
    slots[0][1] = rest;
    slots[0][2] = malloc(1000); /* on a mapping */
}

static void accounts_print(void)
{
    struct mallinfo2 m = mallinfo2();
    printf("arena %zu\nordblks %zu\nsmblks %zu\nhblks %zu\nhblkhd %zu\nfsmblks %zu\nuordblks %zu\n"
           "fordblks %zu\nkeepcost %zu\n",
           m.arena, m.ordblks, m.smblks, m.hblks, m.hblkhd, m.fsmblks, m.uordblks, m.fordblks,
           m.keepcost);
    malloc_info(0, stdout);
    jemalloc_print();
    tcmalloc_print();
    mi_visit(); /* after everything that allocates */
    mi_print();
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static char buffer[1 << 20];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    others_find();
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    unsigned threads = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 3;
    threads = threads > MOST_THREADS ? MOST_THREADS : threads;
    pthread_barrier_init(&done, NULL, threads + 1);
    for (uintptr_t i = 1; i <= threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)i))
            return 1;
    }
    if (argc > 3)
        break_blocked(strtoul(argv[3], NULL, 10));
    churn(slots[0], seed * 1000);
    pthread_barrier_wait(&done);
    accounts_print();
    for (;;)
        pause();
}
