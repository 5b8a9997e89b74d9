/*
 * The program that is stepped: threads that allocate, free and reallocate at random in one shared
 * table of blocks, so that most frees are of other threads' blocks; rounds of threads that start
 * and end. Sizes are few, and large enough that caches and stashes hold eight to a dozen blocks and
 * a slab eight or sixteen: fills, flushes, stash traffic, slabs made and released happen all the
 * time.
 *
 *   victim SEED ROUNDS THREADS CALLS [named | big | waves | switching]
 *
 * named: some of the blocks come from a named arena, and each round makes and destroys one. big:
 * some have several megabytes, which with little address space get mappings of their own. waves:
 * each call is a wave of two dozen blocks of one size, taken and given back: caches run empty and
 * over. switching: whether stacks are kept, of which blocks, changes all the time.
 *
 * Each block carries its address; who takes a block out of the table checks it.
 */
#define _GNU_SOURCE
#include "allocator/himalloc.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { TABLE = 40, MOST_THREADS = 8 };

struct entry {
    uint64_t *block;
    size_t bytes;
};

static _Atomic(struct entry *) table[TABLE];
static struct entry entries[TABLE * 4 + MOST_THREADS * 4];
static _Atomic unsigned entries_used;
static __thread uint64_t random_state;
static unsigned calls_each;
static himalloc_arena *named;
static int big, waves, switching;

static uint64_t random_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static size_t random_size(void)
{
    static const size_t sizes[] = {24000, 24000, 32768, 32768, 32768, 20000, 20000,
                                   16384, 48,    600,   9000,  70000, 200000};
    size_t size = sizes[random_number() % (sizeof sizes / sizeof *sizes)];
    if (random_number() % 64 == 0)
        size = 700000 + random_number() % 500000;
    if (big && random_number() % 8 == 0)
        size = 4300000 + random_number() % 3000000;
    return size - random_number() % 16;
}

static void mark(struct entry *entry)
{
    entry->block[0] = (uintptr_t)entry->block;
}

static void check(const struct entry *entry)
{
    if (entry->block[0] != (uintptr_t)entry->block) {
        static const char message[] = "a block was overwritten\n";
        fwrite(message, 1, sizeof message - 1, stderr);
        abort();
    }
}

static void *block_new(size_t bytes)
{
    void *block = NULL;
    if (named && random_number() % 4 == 0)
        return random_number() % 4 ? himalloc_arena_malloc(named, bytes)
                                   : himalloc_arena_calloc(named, 1, bytes);
    switch (random_number() % 16) {
    case 0:
        return calloc(bytes / 8 + 1, 8);
    case 1:
        return aligned_alloc(64, bytes);
    case 2:
        return posix_memalign(&block, 4096, bytes) == 0 ? block : NULL;
    case 3:
        return memalign(131072, bytes);
    case 4:
        return realloc(NULL, bytes);
    default:
        return malloc(bytes);
    }
}

static void entry_change(struct entry *entry)
{
    size_t bytes = entry->bytes;
    switch (random_number() % 4) {
    case 0:
        bytes = random_size();
        break;
    case 1:
        bytes += bytes / 2; /* grows, perhaps in place */
        break;
    case 2:
        bytes = bytes / 2 + 16;
        break;
    default:
        bytes += 8;
    }
    if (bytes > (big ? 9000000u : 2000000u))
        bytes = 100000;
    uint64_t *block = named && random_number() % 8 == 0
                          ? himalloc_arena_realloc(named, entry->block, bytes)
                          : realloc(entry->block, bytes);
    if (!block)
        abort();
    if (block[0] != (uintptr_t)entry->block)
        abort();
    entry->block = block;
    entry->bytes = bytes;
    mark(entry);
}

static struct entry *entry_spare(void)
{
    for (;;) {
        struct entry *entry =
            &entries[atomic_fetch_add(&entries_used, 1) % (sizeof entries / sizeof *entries)];
        if (!entry->block && !__atomic_exchange_n(&entry->bytes, 1, __ATOMIC_ACQ_REL))
            return entry;
    }
}

static void entry_drop(struct entry *entry)
{
    check(entry);
    if (named && random_number() % 8 == 0)
        himalloc_arena_free(named, entry->block);
    else
        free(entry->block);
    entry->block = NULL;
    __atomic_store_n(&entry->bytes, 0, __ATOMIC_RELEASE);
}

static struct entry *entry_new(void)
{
    size_t bytes = random_size();
    struct entry *entry = entry_spare();
    entry->block = block_new(bytes);
    entry->bytes = bytes;
    if (!entry->block)
        abort();
    mark(entry);
    return entry;
}

static void one_call(void)
{
    if (switching && random_number() % 16 == 0)
        himalloc_stacks((enum himalloc_stacks_mode)(random_number() % 3), 20000);
    struct entry *entry = atomic_exchange(&table[random_number() % TABLE], NULL);
    if (!entry) {
        entry = entry_new();
    } else if (random_number() % 2) {
        entry_drop(entry);
        return;
    } else {
        check(entry);
        entry_change(entry);
    }
    entry = atomic_exchange(&table[random_number() % TABLE], entry);
    if (entry)
        entry_drop(entry);
}

static void one_wave(void)
{
    uint64_t *blocks[28];
    unsigned count = 20 + (unsigned)(random_number() % 9);
    size_t bytes = random_number() % 2 ? 32768 : 28000;
    for (unsigned i = 0; i < count; i++) {
        blocks[i] = malloc(bytes);
        if (!blocks[i])
            abort();
        blocks[i][0] = i;
    }
    for (unsigned i = 0; i < count; i++) {
        if (blocks[i][0] != i)
            abort();
        free(blocks[i]);
    }
}

static void *work(void *argument)
{
    random_state = (uintptr_t)argument;
    for (unsigned i = 0; i < calls_each; i++)
        if (waves)
            one_wave();
        else
            one_call();
    return NULL;
}

/* One big block through every way of growing and shrinking. */
static void resize_big(void)
{
    char *block = NULL;
    static const size_t megabytes[] = {5, 6, 7, 4, 9, 5, 12, 4};
    for (size_t i = 0; i < sizeof megabytes / sizeof *megabytes; i++) {
        block = realloc(block, megabytes[i] << 20);
        if (!block || (i > 0 && block[100] != 7))
            abort();
        block[100] = 7;
        if (i == 3 && !mmap(block + (4 << 20), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
            abort(); /* in the way of growing in place */
    }
    free(block);
}

int main(int count, char **arguments)
{
    if (count < 5)
        return 2;
    uint64_t seed = strtoull(arguments[1], NULL, 10) * 2654435761u + 1;
    unsigned rounds = (unsigned)strtoul(arguments[2], NULL, 10);
    unsigned threads = (unsigned)strtoul(arguments[3], NULL, 10);
    calls_each = (unsigned)strtoul(arguments[4], NULL, 10);
    if (threads > MOST_THREADS)
        return 2;
    if (count > 5 && strcmp(arguments[5], "named") == 0)
        named = himalloc_arena_create("victim");
    big = count > 5 && strcmp(arguments[5], "big") == 0;
    waves = count > 5 && strcmp(arguments[5], "waves") == 0;
    switching = count > 5 && strcmp(arguments[5], "switching") == 0;
    if (big)
        resize_big();
    for (unsigned round = 0; round < rounds; round++) {
        pthread_t workers[MOST_THREADS];
        for (unsigned i = 1; i < threads; i++)
            if (pthread_create(&workers[i], NULL, work,
                               (void *)(uintptr_t)(seed + round * 100 + i)) != 0)
                return 3;
        himalloc_arena *other = named ? himalloc_arena_create("round") : NULL;
        if (other)
            himalloc_arena_free(other, himalloc_arena_malloc(other, 100));
        work((void *)(uintptr_t)(seed + round * 100));
        for (unsigned i = 1; i < threads; i++)
            pthread_join(workers[i], NULL);
        if (other)
            himalloc_arena_destroy(other);
        if (round % 3 == 2)
            malloc_trim(0);
    }
    return 0;
}
