/*
 * A heap read by several threads is the same heap: blocks, states, findings and totals of the plain
 * walk (one job) and of relays of 2 and 5 threads, for heaps of random blocks, some larger than a
 * window, some never touched, with random headers smashed in all but the first.
 */
#include "heap/heap.h"
#include "unit/seeded_child.h"
#include "unit/tap.h"

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

const struct heap_reader *const heap_readers[] = {&ptmalloc_reader, NULL};

enum { SEEDS = 10, BLOCKS = 16000 };

/* The C library's own, also where a sanitizer replaces malloc. */
void *__libc_malloc(size_t bytes);
void __libc_free(void *p);

static uint64_t state;

static uint64_t random_below(uint64_t limit)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % limit;
}

static void smash(uint64_t *header)
{
    const uint64_t words[] = {0,
                              UINT64_MAX,
                              0x11,
                              0x4000000000000021,
                              0x23,
                              *header + 8,
                              *header + 0x40001,
                              *header + 0x31,
                              0x21,
                              0x20};
    *header = words[random_below(sizeof words / sizeof *words)];
}

static void child(uint64_t seed, int ready)
{
    static uint64_t *blocks[BLOCKS];
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < BLOCKS; i++) {
        bool large = random_below(400) == 0;
        size_t size = large ? 20000 + random_below(700000) : 16 + random_below(900);
        blocks[i] = __libc_malloc(size);
        if (!blocks[i])
            _exit(3);
        for (size_t w = 0; !large && w < size / 8; w++)
            blocks[i][w] = random_below(3) ? random_below(300) : (uintptr_t)blocks[i / 2];
    }
    for (size_t i = 0; i < BLOCKS; i++)
        if (random_below(3) == 0) {
            __libc_free(blocks[i]);
            blocks[i] = NULL;
        }
    for (size_t i = seed ? 3 * seed : 0; i-- > 0;) {
        uint64_t *victim = blocks[random_below(BLOCKS)];
        if (victim)
            smash(victim - 1);
    }
    if (write(ready, "", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static struct heaps *walk(struct target *target, struct symbols *symbols, int jobs)
{
    struct heap_context context = {.target = target, .symbols = symbols, .jobs = jobs};
    struct heaps *heaps = NULL;
    struct hi_err err = {0};
    if (heaps_open(&heaps, &context, NULL, &err) != HI_OK)
        printf("# %s\n", err.message);
    return heaps;
}

static bool same_blocks(const struct heaps *a, const struct heaps *b)
{
    bool same = blocks_count(a->blocks) == blocks_count(b->blocks) &&
                blocks_region_count(a->blocks) == blocks_region_count(b->blocks);
    for (hi_block i = 0; same && i < blocks_count(a->blocks); i++)
        same = blocks_address(a->blocks, i) == blocks_address(b->blocks, i) &&
               blocks_usable(a->blocks, i) == blocks_usable(b->blocks, i) &&
               blocks_state(a->blocks, i) == blocks_state(b->blocks, i);
    return same;
}

static bool same_findings(const struct heaps *a, const struct heaps *b)
{
    bool same = a->findings.count == b->findings.count;
    for (size_t i = 0; same && i < a->findings.count; i++) {
        const struct finding *x = &a->findings.items[i], *y = &b->findings.items[i];
        same = strcmp(x->rule, y->rule) == 0 && x->address == y->address &&
               strcmp(x->detail, y->detail) == 0;
    }
    if (!same)
        for (size_t i = 0; i < a->findings.count || i < b->findings.count; i++) {
            if (i < a->findings.count)
                printf("#  plain %s 0x%" PRIx64 " %s\n", a->findings.items[i].rule,
                       a->findings.items[i].address, a->findings.items[i].detail);
            if (i < b->findings.count)
                printf("#  relay %s 0x%" PRIx64 " %s\n", b->findings.items[i].rule,
                       b->findings.items[i].address, b->findings.items[i].detail);
        }
    return same;
}

static bool same_totals(const struct heaps *a, const struct heaps *b)
{
    struct heap_totals x, y;
    heap_totals(a, 0, &x);
    heap_totals(b, 0, &y);
    bool same = memcmp(&x, &y, sizeof x) == 0 && a->arenas.count == b->arenas.count &&
                a->heaps[0].check_count == b->heaps[0].check_count &&
                a->metadata.count == b->metadata.count;
    for (size_t i = 0; same && i < a->heaps[0].check_count; i++)
        same = a->heaps[0].checks[i].walked == b->heaps[0].checks[i].walked &&
               a->heaps[0].checks[i].agree == b->heaps[0].checks[i].agree;
    for (size_t i = 0; same && i < a->arenas.count; i++)
        same = a->arenas.items[i].state == b->arenas.items[i].state;
    return same;
}

static void compare(struct target *target, struct symbols *symbols, uint64_t seed)
{
    struct heaps *plain = walk(target, symbols, 1);
    ok(plain && plain->count == 1 && blocks_count(plain->blocks) > 100, "seed %d: %u blocks",
       (int)seed, plain ? blocks_count(plain->blocks) : 0);
    if (seed == 0)
        ok(plain && plain->findings.count == 0 && blocks_count(plain->blocks) > BLOCKS / 2,
           "the first is whole");
    for (int jobs = 2; plain && jobs <= 5; jobs += 3) {
        struct heaps *relay = walk(target, symbols, jobs);
        ok(relay && same_blocks(plain, relay), "seed %d, %d jobs: the same blocks", (int)seed,
           jobs);
        ok(relay && same_findings(plain, relay), "seed %d, %d jobs: the same %u findings",
           (int)seed, jobs, (unsigned)plain->findings.count);
        ok(relay && same_totals(plain, relay), "seed %d, %d jobs: the same totals", (int)seed,
           jobs);
        heaps_close(relay);
    }
    heaps_close(plain);
}

int main(void)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        seed_run(seed, child, compare);
    return done();
}
