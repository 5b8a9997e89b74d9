/*
 * A graph of words that the walk brought along is the graph that a second reading makes: the same
 * edges of each block, marks and sums, for heaps of random blocks in a child: some with hundreds of
 * references, some larger than a window, some freed, with references into their middle and to
 * nowhere; and with smashed headers in all but the first. The last of each is made as `leaks` does:
 * the process runs on before the edges of what was kept are made.
 */
#include "graph/graph.h"
#include "graph/harvest.h"
#include "heap/heap.h"
#include "unit/seeded_child.h"
#include "unit/tap.h"

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

const struct heap_reader *const heap_readers[] = {&ptmalloc_reader, NULL};

enum { SEEDS = 6, BLOCKS = 16000 };

/* The C library's own, also where a sanitizer replaces malloc. */
void *__libc_malloc(size_t bytes);
void __libc_free(void *p);

static uint64_t *blocks[BLOCKS];
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

/* To a block, into one, somewhere, or to a stack. */
static uint64_t reference(uint64_t i)
{
    uint64_t kind = random_below(20), to = (uintptr_t)blocks[random_below(i + 1)];
    if (kind < 3)
        return to + random_below(40);
    return kind == 3 ? random_below(UINT64_MAX) : kind == 4 ? (uintptr_t)&kind : to;
}

static void child(uint64_t seed, int ready)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < BLOCKS; i++) {
        bool large = random_below(400) == 0;
        size_t size = large ? 20000 + random_below(700000) : 16 + random_below(900);
        blocks[i] = __libc_malloc(size);
        if (!blocks[i])
            _exit(3);
        for (size_t w = 0; (!large || size < 300000) && w < size / 8; w++)
            blocks[i][w] = random_below(3) ? random_below(300) : reference(i);
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

static struct heaps *walk(struct target *target, struct symbols *symbols, int jobs,
                          const struct relay_guest *guest)
{
    struct heap_context context = {
        .target = target, .symbols = symbols, .jobs = jobs, .guest = guest};
    struct heaps *heaps = NULL;
    struct hi_err err = {0};
    if (heaps_open(&heaps, &context, NULL, &err) != HI_OK)
        printf("# %s\n", err.message);
    return heaps;
}

static struct graph *graph_of(struct target *target, const struct heaps *heaps, int jobs,
                              struct harvest *harvest, const struct roots *roots, bool release)
{
    struct graph_options options = {.jobs = jobs, .deferred = true, .harvest = harvest};
    struct graph *graph = NULL;
    struct hi_err err = {0};
    if (graph_build(&graph, target, heaps, roots, &options, &err) != HI_OK)
        printf("# %s\n", err.message);
    if (release)
        target_release(target);
    if (graph && graph_mark(graph, NULL, NULL, &err) != HI_OK)
        printf("# %s\n", err.message);
    return graph;
}

static bool same_edges(const struct graph *a, const struct graph *b, uint32_t count, unsigned *fat)
{
    for (hi_block i = 0; i < count; i++) {
        uint32_t edges = graph_edge_count(a, i);
        *fat += edges > 254;
        if (edges != graph_edge_count(b, i))
            return false;
        for (uint32_t k = 0; k < edges; k++) {
            struct graph_edge x = graph_edge(a, i, k), y = graph_edge(b, i, k);
            if (x.block != y.block || x.kind != y.kind)
                return false;
        }
    }
    return true;
}

static bool same_marks(const struct graph *a, const struct graph *b, uint32_t count)
{
    const struct graph_stats *x = graph_stats(a), *y = graph_stats(b);
    bool same = x->words == y->words && x->edges == y->edges && x->root_edges == y->root_edges &&
                x->missing_bytes == y->missing_bytes && x->followed == y->followed;
    for (hi_block i = 0; same && i < count; i++)
        same = graph_mark_of(a, i) == graph_mark_of(b, i);
    return same;
}

static void compare(struct target *target, struct symbols *symbols, uint64_t seed)
{
    struct roots roots = {0};
    struct root_range *range = VECTOR_PUSH(&roots.ranges);
    *range = (struct root_range){
        .class = ROOT_DATA, .start = (uintptr_t)blocks, .end = (uintptr_t)(blocks + BLOCKS / 2)};
    struct heaps *plain = walk(target, symbols, 1, NULL);
    struct graph *graph = plain ? graph_of(target, plain, 1, NULL, &roots, false) : NULL;
    uint32_t count = plain ? blocks_count(plain->blocks) : 0;
    unsigned fat = 0;
    ok(graph && count > 100, "seed %d: %u blocks", (int)seed, count);
    for (int jobs = 1; graph && jobs <= 5; jobs += 2) {
        struct harvest *harvest = harvest_new(target_process_size(target_pid(target)), jobs, 0);
        if (!harvest || !harvest_open(harvest, target))
            exit(99);
        struct heaps *heaps = walk(target, symbols, jobs, &harvest->guest);
        uint64_t kept = harvest->words_used;
        struct graph *kin = graph_of(target, heaps, jobs, harvest, &roots, jobs == 5);
        ok(kept > 1000 && blocks_count(heaps->blocks) == count, "seed %d, %d jobs: %d words kept",
           (int)seed, jobs, (int)kept);
        ok(same_edges(graph, kin, count, &fat), "seed %d, %d jobs: the same edges", (int)seed,
           jobs);
        ok(same_marks(graph, kin, count), "seed %d, %d jobs: the same marks", (int)seed, jobs);
        graph_free(kin);
        heaps_close(heaps);
    }
    ok(fat > 10, "some blocks have many edges");
    graph_free(graph);
    heaps_close(plain);
    VECTOR_FREE(&roots.ranges);
}

int main(void)
{
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        seed_run(seed, child, compare);
    return done();
}
