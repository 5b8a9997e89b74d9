/*
 * What an idle process gives back, page by page: pages that lie wholly in blocks that were freed
 * are gone, by malloc_trim at once and by age without any call; every byte of every live block is
 * as it was, also while other threads allocate, free and destroy arenas as pages go.
 */
#define _GNU_SOURCE
#include "tap.h"

#include "himalloc.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BLOCKS = 120000 };

struct block {
    char *start;
    size_t bytes;
    uint64_t seed;
};

static struct block *blocks; /* [0, live) are live, the others freed */
static size_t block_count, live_count;
static int pagemap;

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- contents ---- */

static size_t stride = 1; /* of the bytes that are written and looked at */

static void block_write(const struct block *b)
{
    for (size_t i = 0; i < b->bytes; i += stride)
        b->start[i] = (char)(b->seed + i / 7 + 1);
}

static bool block_is_whole(const struct block *b)
{
    for (size_t i = 0; i < b->bytes; i += stride)
        if (b->start[i] != (char)(b->seed + i / 7 + 1))
            return false;
    return true;
}

/* ---- pages ---- */

static bool is_resident(uintptr_t page)
{
    uint64_t word = 0;
    if (pread(pagemap, &word, sizeof word, (off_t)(page / PAGE * sizeof word)) != sizeof word)
        return false;
    return word >> 63 || (word >> 62 & 1);
}

static int by_address(const void *a, const void *b)
{
    const struct block *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Of the pages that lie wholly in freed blocks: how many there are, and how many are resident. */
static size_t freed_pages(size_t *resident)
{
    struct block *freed = blocks + live_count;
    size_t count = block_count - live_count, pages = 0;
    *resident = 0;
    for (size_t i = 0, next; i < count; i = next) {
        uintptr_t start = (uintptr_t)freed[i].start, end = start;
        for (next = i; next < count && (uintptr_t)freed[next].start == end; next++)
            end += freed[next].bytes;
        for (uintptr_t p = (start + PAGE - 1) & ~(uintptr_t)(PAGE - 1); p + PAGE <= end;
             p += PAGE) {
            pages++;
            *resident += is_resident(p);
        }
    }
    return pages;
}

static size_t blocks_broken(void)
{
    size_t broken = 0;
    for (size_t i = 0; i < live_count; i++)
        broken += !block_is_whole(&blocks[i]);
    return broken;
}

/* ---- one thread ---- */

/* Blocks of `least` to `most` bytes, `percent` of them freed again in random order. */
static void blocks_make(size_t count, size_t least, size_t most, unsigned percent)
{
    uint64_t state = least * 1000003 + most;
    block_count = count;
    for (size_t i = 0; i < count; i++) {
        char *start = malloc(least + random_next(&state) % (most - least + 1));
        blocks[i] = (struct block){start, malloc_usable_size(start), random_next(&state)};
        block_write(&blocks[i]);
    }
    for (live_count = count; live_count > count - count * percent / 100; live_count--) {
        size_t i = random_next(&state) % live_count;
        struct block one = blocks[i];
        free(one.start);
        blocks[i] = blocks[live_count - 1];
        blocks[live_count - 1] = one;
    }
    qsort(blocks + live_count, block_count - live_count, sizeof *blocks, by_address);
}

static void blocks_end(void)
{
    while (live_count > 0)
        free(blocks[--live_count].start);
    malloc_trim(0);
}

static void test_trim(size_t count, size_t least, size_t most, unsigned percent)
{
    size_t resident, pages;
    blocks_make(count, least, most, percent);
    int trimmed = malloc_trim(0);
    pages = freed_pages(&resident);
    ok(trimmed == 1 && pages > 300, "%zu to %zu bytes: %u %% freed are %zu whole pages", least,
       most, percent, pages);
    is_u64(resident, 0, "malloc_trim gives back each of them");
    is_u64(blocks_broken(), 0, "and no byte of a live block");
    blocks_end();
}

/* Nothing is called but what looks. The thread's own cache keeps some blocks, and a page each. */
static void test_age(void)
{
    size_t resident, pages;
    blocks_make(BLOCKS, 16, 1024, 95);
    pages = freed_pages(&resident);
    ok(resident > pages / 2, "%zu of %zu pages in freed blocks are there at first", resident,
       pages);
    double end = seconds() + 120;
    do {
        usleep(200000);
        freed_pages(&resident);
    } while (resident > pages / 3 && seconds() < end);
    ok(resident <= pages / 3, "most are given back to the system by themselves (%zu are left)",
       resident);
    is_u64(blocks_broken(), 0, "every byte of a live block is as it was");
    blocks_end();
}

/* ---- threads ---- */

static atomic_bool stop;
static atomic_ulong broken, turns;

static void check_and_free(struct block *b, himalloc_arena *arena)
{
    if (b->start && !block_is_whole(b))
        broken++;
    if (arena)
        himalloc_arena_free(arena, b->start);
    else
        free(b->start);
    b->start = NULL;
}

/* Two sizes whose caches are short, so that blocks come and go between slabs and threads. */
static void *use_blocks(void *argument)
{
    enum { HELD = 600 };
    static __thread struct block held[HELD];
    uint64_t state = (uintptr_t)argument;
    while (!stop) {
        struct block *b = &held[random_next(&state) % HELD];
        if (b->start) {
            check_and_free(b, NULL);
        } else {
            size_t bytes = 4096 + random_next(&state) % 2 * 4096;
            *b = (struct block){malloc(bytes), bytes, random_next(&state)};
            block_write(b);
        }
        turns++;
    }
    for (int i = 0; i < HELD; i++)
        check_and_free(&held[i], NULL);
    return NULL;
}

/* An arena's slabs go all at once, and to whoever wants them. */
static void *use_arenas(void *argument)
{
    enum { HELD = 400 };
    static __thread struct block held[HELD];
    uint64_t state = (uintptr_t)argument;
    while (!stop) {
        himalloc_arena *arena = himalloc_arena_create("short-lived");
        for (int i = 0; i < HELD; i++) {
            size_t bytes = 16 + random_next(&state) % 6000;
            held[i] = (struct block){himalloc_arena_malloc(arena, bytes), bytes, i};
            block_write(&held[i]);
        }
        for (int i = 0; i < HELD; i++)
            if (i % 3)
                check_and_free(&held[i], arena);
        for (int i = 0; i < HELD; i += 3)
            broken += !block_is_whole(&held[i]);
        himalloc_arena_destroy(arena);
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[4];
    bool made = true;
    unsigned long trims = 0, first;
    stride = 512;
    for (uintptr_t i = 0; i < 4; i++)
        made &= pthread_create(&threads[i], NULL, i < 3 ? use_blocks : use_arenas,
                               (void *)(i * 7919 + 1)) == 0;
    double end = seconds() + 3;
    while (!turns)
        usleep(1000);
    for (first = turns;
         seconds() < end || ((trims <= 20 || turns == first) && seconds() < end + 120); trims++)
        malloc_trim(0);
    stop = true;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ok(made && trims > 20 && turns > first, "threads use their blocks while pages go");
    is_u64(broken, 0, "and find every byte as they left it");
    printf("# %lu sweeps, %lu turns\n", trims, turns);
}

int main(void)
{
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    blocks = mmap(NULL, BLOCKS * sizeof *blocks, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pagemap < 0 || blocks == MAP_FAILED)
        return 1;
    test_trim(BLOCKS, 16, 512, 100);
    test_trim(BLOCKS, 16, 512, 90);
    test_trim(BLOCKS, 40, 48, 99);
    test_trim(20000, 512, 4096, 50);
    test_trim(3000, 4000, 65536, 50);
    test_age();
    test_threads();
    return done();
}
