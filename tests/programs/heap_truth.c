/*
 * heap_truth FD SLOTS THREADS SEED [MODE...]: allocates and frees for ever, by every entry point,
 * and keeps a table of every live block in the shared memory behind FD (heap_truth.h). Knows no
 * allocator.
 *
 *   MODE  plain     sizes to 2 KiB mostly, some to 64 KiB
 *         large     also blocks that get a mapping of their own, resized and aligned
 *         brk       takes the program break away now and then: holes in the main arena
 *         nobrk     blocks the program break by a mapping in its way
 *         abort     after SEED % 7919 + 20000 operations a thread: abort()
 *         wait      allocates nothing before the table says go
 *         stop      no further operations once the table is filled (for memory images)
 *
 * Threads share all slots: a block is freed by whom it meets. Workers end and new ones begin all
 * the time; what they leave behind is freed by others. No stdio after the start.
 */
#define _GNU_SOURCE
#include "heap_truth.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static struct heap_truth *table;
static uint64_t seed;
static bool mode_large, mode_brk, mode_nobrk, mode_abort, mode_stop, mode_wait;

struct random {
    uint64_t state;
};

static uint64_t next_random(struct random *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static size_t random_size(struct random *r)
{
    uint64_t kind = next_random(r) % 1000;
    if (kind < 600)
        return next_random(r) % 160;
    if (kind < 930)
        return next_random(r) % 2048;
    if (kind < 996 || !mode_large)
        return next_random(r) % 65536;
    return 100000 + next_random(r) % 900000;
}

/* Fill with what looks like nothing, so that stale content is not mistaken for headers by luck or
 * by design; ends are written, so that an overlap would break the heap. */
static void scribble(struct random *r, unsigned char *block, size_t size)
{
    memset(block, (int)(next_random(r) | 1), size < 256 ? size : 256);
    if (size)
        block[size - 1] = 0xa5;
}

static void *allocate(struct random *r, size_t size)
{
    void *block = NULL;
    size_t align = (size_t)16 << next_random(r) % (mode_large ? 12 : 8);
    switch (next_random(r) % 12) {
    case 0:
        return calloc(1, size);
    case 1:
        return calloc(size / 8 + 1, 8);
    case 2:
        return posix_memalign(&block, align, size) ? NULL : block;
    case 3:
        return aligned_alloc(align, size);
    case 4:
        return memalign(align, size);
    case 5:
        return size > 16384 ? malloc(size) : valloc(size);
    case 6:
        return realloc(NULL, size);
    default:
        return malloc(size);
    }
}

static void slot_book(struct heap_truth_slot *slot, void *block, size_t size)
{
    slot->size = size;
    atomic_signal_fence(memory_order_seq_cst);
    slot->address = (uint64_t)(uintptr_t)block ^ HEAP_TRUTH_KEY;
}

static void *slot_block(const struct heap_truth_slot *slot)
{
    return (void *)(uintptr_t)(slot->address ^ HEAP_TRUTH_KEY);
}

static void slot_new(struct random *r, struct heap_truth_slot *slot)
{
    size_t size = random_size(r);
    unsigned char *block = allocate(r, size);
    if (!block)
        return;
    scribble(r, block, size);
    slot_book(slot, block, size);
}

static void slot_change(struct random *r, struct heap_truth_slot *slot)
{
    uint64_t what = next_random(r) % 8;
    if (what < 2) {
        size_t size = random_size(r) + 1;
        unsigned char *block = realloc(slot_block(slot), size);
        if (block) {
            scribble(r, block, size);
            slot_book(slot, block, size);
        }
        return;
    }
    free(slot_block(slot));
    slot_book(slot, NULL, 0);
    if (what < 5)
        slot_new(r, slot);
}

static void slot_visit(struct random *r)
{
    struct heap_truth_slot *slot = &table->slots[next_random(r) % table->slot_count];
    if (__atomic_exchange_n(&slot->lock, 1, __ATOMIC_ACQUIRE))
        return;
    atomic_signal_fence(memory_order_seq_cst);
    if (slot_block(slot))
        slot_change(r, slot);
    else
        slot_new(r, slot);
    atomic_signal_fence(memory_order_seq_cst);
    __atomic_store_n(&slot->lock, 0, __ATOMIC_RELEASE);
}

static void operations(struct random *r, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        slot_visit(r);
    __atomic_fetch_add(&table->operations, count, __ATOMIC_RELAXED);
}

static void *worker(void *argument)
{
    struct random r = {(uint64_t)(uintptr_t)argument};
    operations(&r, 2000 + next_random(&r) % 20000);
    return NULL;
}

/* Some worker has ended: start another in its place. */
static void workers_turn(pthread_t *workers, unsigned count, struct random *r)
{
    for (unsigned i = 0; i < count; i++) {
        if (pthread_tryjoin_np(workers[i], NULL) != 0)
            continue;
        if (pthread_create(&workers[i], NULL, worker, (void *)(uintptr_t)next_random(r)))
            _exit(3);
    }
}

static void break_taken(struct random *r)
{
    unsigned char *hole = sbrk((intptr_t)(16 * (1 + next_random(r) % 8192)));
    if (hole != (void *)-1)
        memset(hole, 0x5e, 16);
}

static void break_blocked(void)
{
    unsigned char *end = sbrk(0);
    uintptr_t page = ((uintptr_t)end + 4095) & ~(uintptr_t)4095;
    if (mmap((void *)page, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
             0) == MAP_FAILED)
        _exit(4);
}

static void modes_read(char **modes)
{
    for (; *modes; modes++) {
        mode_large |= strcmp(*modes, "large") == 0;
        mode_brk |= strcmp(*modes, "brk") == 0;
        mode_nobrk |= strcmp(*modes, "nobrk") == 0;
        mode_abort |= strcmp(*modes, "abort") == 0;
        mode_stop |= strcmp(*modes, "stop") == 0;
        mode_wait |= strcmp(*modes, "wait") == 0;
    }
}

static void table_map(int fd, uint64_t slots)
{
    size_t bytes = sizeof *table + slots * sizeof table->slots[0];
    table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (table == MAP_FAILED)
        _exit(5);
    table->slot_count = slots;
    for (uint64_t i = 0; i < slots; i++)
        table->slots[i].address = HEAP_TRUTH_KEY;
    table->magic = HEAP_TRUTH_MAGIC;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    modes_read(argv + 5);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it never ends by itself: not without its driver */
    unsigned threads = (unsigned)strtoul(argv[3], NULL, 10);
    seed = strtoull(argv[4], NULL, 10);
    table_map((int)strtol(argv[1], NULL, 10), strtoull(argv[2], NULL, 10));
    table->waiting = mode_wait;
    while (mode_wait && !__atomic_load_n(&table->go, __ATOMIC_ACQUIRE))
        usleep(500);
    void *first = malloc(2000);
    table->first = (uint64_t)(uintptr_t)first ^ HEAP_TRUTH_KEY;
    free(first);
    struct random r = {seed};
    pthread_t workers[64];
    threads = threads > 64 ? 64 : threads;
    for (unsigned i = 0; i < threads; i++)
        if (pthread_create(&workers[i], NULL, worker, (void *)(uintptr_t)next_random(&r)))
            return 3;
    for (uint64_t round = 0;; round++) {
        if (mode_nobrk && round == 40)
            break_blocked();
        operations(&r, 500);
        if (mode_brk && next_random(&r) % 64 == 0)
            break_taken(&r);
        bool filled = table->operations > table->slot_count * 3;
        if (filled && mode_stop)
            for (unsigned i = 0; i < threads; i++)
                pthread_join(workers[i], NULL);
        if (filled)
            __atomic_store_n(&table->ready, 1, __ATOMIC_RELEASE);
        while (filled && mode_stop)
            pause();
        if (mode_abort && filled && round > seed % 7919 / 40)
            abort();
        workers_turn(workers, threads, &r);
    }
}
