/*
 * leakbench: how long the verdict on a large heap takes, and how much memory.
 *
 *   leakbench [blocks=10000000] [shape=random|local|list|tree] [layout=slab|chunks] [jobs=N]
 *             [pointers=8] [rounds=3]
 *
 * A child fills slabs of 64 KiB with blocks of 16 to 512 bytes (as many of each size); one word in
 * `pointers` points to a block. The parent knows the layout, stops the child and finds out what is
 * lost: read, filter, resolve, mark, direct and indirect. Beside that the bare read of the same
 * bytes by as many threads (process_vm_readv, 256 KiB at a time), since only ratios to it carry
 * over to other machines. With layout=chunks the same blocks are told as chunks with headers in one
 * region, so that look-ups go by rank. Memory: growth of the largest resident size, in bytes a
 * block.
 */
#include "base/parallel.h"
#include "graph/graph.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HEAP  UINT64_C(0x100000000000)
#define ROOTS UINT64_C(0x0f0000000000)
enum { SLAB_BYTES = 64 << 10, CLASSES = 32, ROOT_WORDS = 4096, SIZE_STEP = 16, CHILD_READY = 9 };

enum shape { SHAPE_RANDOM, SHAPE_LOCAL, SHAPE_LIST, SHAPE_TREE };
static const char *const shape_names[] = {"random", "local", "list", "tree"};

struct plan {
    uint64_t wanted, blocks, slabs, pointers;
    enum shape shape;
    bool as_chunks;
    int jobs, rounds;
    uint8_t *classes;    /* of each slab */
    uint64_t *first;     /* number of each slab's first block */
    uint64_t *addresses; /* of each block: only in the child */
};

static uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void die(const char *what)
{
    fprintf(stderr, "leakbench: %s\n", what);
    exit(2);
}

static uint32_t class_bytes(unsigned class)
{
    return (class + 1) * SIZE_STEP;
}

/* Slab by slab the class that has the fewest blocks so far. */
static void plan_slabs(struct plan *p)
{
    uint64_t have[CLASSES] = {0}, room = p->wanted / 100 + 1000;
    p->classes = malloc(room);
    p->first = malloc(room * sizeof *p->first);
    for (p->blocks = 0; p->blocks < p->wanted; p->slabs++) {
        unsigned least = 0;
        for (unsigned c = 1; c < CLASSES; c++)
            least = have[c] < have[least] ? c : least;
        if (p->slabs >= room)
            die("too many slabs");
        p->classes[p->slabs] = (uint8_t)least;
        p->first[p->slabs] = p->blocks;
        have[least] += SLAB_BYTES / class_bytes(least);
        p->blocks += SLAB_BYTES / class_bytes(least);
    }
}

static double cpu_now(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* -- the child ----------------------------------------------------------------------------------
 */

static void *map_at(uint64_t address, size_t bytes)
{
    void *memory = mmap((void *)(uintptr_t)address, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        die("cannot map the heap");
    return memory;
}

static uint64_t pick(const struct plan *p, uint64_t from, uint64_t *state)
{
    if (p->shape == SHAPE_LOCAL && random_next(state) % 100 < 85) {
        uint64_t low = from < 500 ? 0 : from - 500, to = low + random_next(state) % 1000;
        return p->addresses[to < p->blocks ? to : p->blocks - 1];
    }
    return p->addresses[random_next(state) % p->blocks];
}

static void fill_random(const struct plan *p)
{
    uint64_t state = 88172645463325252u;
    for (uint64_t slab = 0, block = 0; slab < p->slabs; slab++) {
        uint32_t bytes = class_bytes(p->classes[slab]);
        for (uint32_t i = 0; i < SLAB_BYTES / bytes; i++, block++) {
            uint64_t *words = (uint64_t *)(uintptr_t)p->addresses[block];
            for (uint32_t k = 0; k < bytes / 8; k++) {
                uint64_t r = random_next(&state);
                words[k] = r >> 32 << 32 >> 32 < UINT64_C(0x100000000) / p->pointers
                               ? pick(p, block, &state)
                               : r & 0xffff;
            }
        }
    }
}

/* One list through all blocks in random order. */
static void fill_list(const struct plan *p)
{
    uint64_t state = 88172645463325252u;
    for (uint64_t i = p->blocks - 1; i > 0; i--) {
        uint64_t k = random_next(&state) % (i + 1), other = p->addresses[k];
        p->addresses[k] = p->addresses[i];
        p->addresses[i] = other;
    }
    for (uint64_t i = 0; i + 1 < p->blocks; i++)
        *(uint64_t *)(uintptr_t)p->addresses[i] = p->addresses[i + 1];
}

static void fill_tree(const struct plan *p)
{
    for (uint64_t i = 0; i < p->blocks; i++)
        for (uint64_t k = 0; k < 2; k++)
            if (2 * i + 1 + k < p->blocks)
                ((uint64_t *)(uintptr_t)p->addresses[i])[k] = p->addresses[2 * i + 1 + k];
}

static _Noreturn void child_run(struct plan *p, int ready)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    map_at(HEAP, p->slabs * SLAB_BYTES);
    uint64_t *roots = map_at(ROOTS, ROOT_WORDS * 8), state = 1234567;
    p->addresses = malloc(p->blocks * sizeof *p->addresses);
    if (!p->addresses)
        die("out of memory");
    uint64_t block = 0;
    for (uint64_t slab = 0; slab < p->slabs; slab++)
        for (uint32_t i = 0; i < SLAB_BYTES / class_bytes(p->classes[slab]); i++)
            p->addresses[block++] =
                HEAP + slab * SLAB_BYTES + (uint64_t)i * class_bytes(p->classes[slab]);
    if (p->shape == SHAPE_LIST)
        fill_list(p);
    else if (p->shape == SHAPE_TREE)
        fill_tree(p);
    else
        fill_random(p);
    roots[0] = p->addresses[0];
    for (int i = 1; i < ROOT_WORDS && (p->shape == SHAPE_RANDOM || p->shape == SHAPE_LOCAL); i++)
        roots[i] = p->addresses[random_next(&state) % p->blocks];
    free(p->addresses);
    if (write(ready, "r", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

/* The child is a program of its own, so that it shares no pages with us copy-on-write: those would
 * be read in another way. */
static pid_t child_start(char **argv)
{
    int ready[2];
    char byte;
    if (pipe(ready) != 0)
        die("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ready[1], CHILD_READY);
        setenv("LEAKBENCH_CHILD", "1", 1);
        execv("/proc/self/exe", argv);
        _exit(1);
    }
    close(ready[1]);
    if (pid < 0 || read(ready[0], &byte, 1) != 1)
        die("the child failed");
    close(ready[0]);
    return pid;
}

/* -- the measure: a bare read -------------------------------------------------------------------
 */

struct bare {
    pid_t pid;
    uint64_t bytes, next;
};

static void bare_work(void *context, int worker)
{
    struct bare *bare = context;
    const size_t piece = 256 << 10;
    char *buffer = malloc(piece);
    uint64_t at;
    (void)worker;
    memset(buffer, 1, piece);
    while ((at = __atomic_fetch_add(&bare->next, piece, __ATOMIC_RELAXED)) < bare->bytes) {
        size_t bytes = bare->bytes - at < piece ? bare->bytes - at : piece;
        struct iovec local = {buffer, bytes}, remote = {(void *)(uintptr_t)(HEAP + at), bytes};
        if (process_vm_readv(bare->pid, &local, 1, &remote, 1, 0) != (ssize_t)bytes)
            die("process_vm_readv");
    }
    free(buffer);
}

static double bare_read(const struct plan *p, pid_t pid)
{
    struct bare bare = {.pid = pid, .bytes = p->slabs * SLAB_BYTES};
    double start = seconds_now();
    parallel_run(p->jobs, bare_work, &bare);
    return seconds_now() - start;
}

/* -- the verdict --------------------------------------------------------------------------------
 */

static uint64_t status_kib(const char *key)
{
    char line[200];
    uint64_t value = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(line + strlen(key), NULL, 10);
    if (file)
        fclose(file);
    return value;
}

/* The first 8 bytes of what follows a chunk would be its header; here they are only left out. */
static void chunks_fill(struct blocks *blocks, const struct plan *p)
{
    struct region region = {
        .start = HEAP,
        .end = HEAP + p->slabs * SLAB_BYTES,
        .gap = 8,
        .slack = 15,
        .shape = REGION_CHUNKS,
    };
    struct block_chunk chunks[SLAB_BYTES / SIZE_STEP];
    if (blocks_chunks_begin(blocks, &region, NULL) != HI_OK)
        die("blocks_chunks_begin");
    for (uint64_t i = 0; i < p->slabs; i++) {
        uint32_t bytes = class_bytes(p->classes[i]), count = SLAB_BYTES / bytes;
        for (uint32_t k = 0; k < count; k++)
            chunks[k] =
                (struct block_chunk){HEAP + i * SLAB_BYTES + (uint64_t)k * bytes, BLOCK_LIVE};
        if (blocks_chunks_add(blocks, chunks, count, NULL) != HI_OK)
            die("blocks_chunks_add");
    }
    if (blocks_chunks_end(blocks, NULL) != HI_OK || blocks_finish(blocks, NULL) != HI_OK)
        die("blocks_finish");
}

static void blocks_fill(struct blocks *blocks, const struct plan *p)
{
    if (p->as_chunks) {
        chunks_fill(blocks, p);
        return;
    }
    for (uint64_t i = 0; i < p->slabs; i++) {
        uint32_t bytes = class_bytes(p->classes[i]);
        struct region region = {
            .start = HEAP + i * SLAB_BYTES,
            .end = HEAP + (i + 1) * SLAB_BYTES,
            .first = HEAP + i * SLAB_BYTES,
            .stride = bytes,
            .usable = bytes,
            .slack = 15,
            .count = SLAB_BYTES / bytes,
            .shape = REGION_SLAB,
        };
        if (blocks_add(blocks, &region, NULL, NULL) != HI_OK)
            die("blocks_add");
    }
    if (blocks_finish(blocks, NULL) != HI_OK)
        die("blocks_finish");
}

static void verdict(const struct plan *p, pid_t pid, double bare)
{
    struct target_options options = {0};
    struct target *target;
    struct hi_err err;
    struct heaps heaps = {0};
    struct roots roots = {0};
    struct graph *graph;
    uint64_t before = status_kib("VmRSS:");
    if (blocks_new(&heaps.blocks, NULL) != HI_OK)
        die("out of memory");
    *VECTOR_PUSH(&roots.ranges) =
        (struct root_range){.class = ROOT_DATA, .start = ROOTS, .end = ROOTS + ROOT_WORDS * 8};
    double start = seconds_now();
    blocks_fill(heaps.blocks, p);
    double table = seconds_now() - start;
    if (target_open_process(&target, pid, &options, &err) != HI_OK)
        die(err.message);
    double began = seconds_now(), cpu = cpu_now();
    struct graph_options wanted = {.jobs = p->jobs};
    if (graph_build(&graph, target, &heaps, &roots, &wanted, &err) != HI_OK)
        die(err.message);
    double built = seconds_now(), cpu_built = cpu_now();
    target_release(target);
    if (graph_mark(graph, NULL, NULL, &err) != HI_OK)
        die(err.message);
    double end = seconds_now(), cpu_end = cpu_now();
    uint64_t counts[5] = {0};
    for (uint64_t i = 0; i < p->blocks; i++)
        counts[graph_mark_of(graph, (hi_block)i)]++;
    const struct graph_stats *s = graph_stats(graph);
    printf("  table %.3f  read+resolve %.3f (%.2f of bare)  mark %.3f  verdict %.3f s (%.1f times "
           "bare %.3f)\n",
           table, built - began, (built - began) / bare, end - built, end - began,
           (end - began) / bare, bare);
    printf("  processor seconds: read+resolve %.3f  mark %.3f\n", cpu_built - cpu,
           cpu_end - cpu_built);
    printf("  edges %" PRIu64 "  reachable %" PRIu64 "  direct %" PRIu64 "  indirect %" PRIu64
           "  memory %.1f bytes a block\n",
           s->edges, counts[MARK_REACHABLE], counts[MARK_DIRECT], counts[MARK_INDIRECT],
           (double)(status_kib("VmHWM:") - before) * 1024 / (double)p->blocks);
    graph_free(graph);
    target_close(target);
    blocks_free(heaps.blocks);
    VECTOR_FREE(&roots.ranges);
}

/* Each round in a process of its own: the largest resident size is one a process. */
static void round_run(const struct plan *p, pid_t child)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        double bare = bare_read(p, child);
        verdict(p, child, bare);
        fflush(stdout);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void option_read(struct plan *p, const char *option)
{
    const char *value = strchr(option, '=');
    size_t length = value ? (size_t)(value - option) : 0;
    uint64_t number = value ? strtoull(value + 1, NULL, 10) : 0;
    if (length == 6 && strncmp(option, "blocks", 6) == 0)
        p->wanted = number;
    else if (length == 4 && strncmp(option, "jobs", 4) == 0)
        p->jobs = (int)number;
    else if (length == 6 && strncmp(option, "rounds", 6) == 0)
        p->rounds = (int)number;
    else if (length == 8 && strncmp(option, "pointers", 8) == 0)
        p->pointers = number;
    else if (length == 6 && strncmp(option, "layout", 6) == 0)
        p->as_chunks = strcmp(value + 1, "chunks") == 0;
    else if (length == 5 && strncmp(option, "shape", 5) == 0) {
        for (p->shape = SHAPE_RANDOM; strcmp(shape_names[p->shape], value + 1) != 0; p->shape++)
            if (p->shape == SHAPE_TREE)
                die("unknown shape");
    } else
        die("usage: leakbench [blocks=N] [shape=random|local|list|tree] [layout=slab|chunks] "
            "[jobs=N] [pointers=N] [rounds=N]");
}

int main(int argc, char **argv)
{
    struct plan p = {.wanted = 10000000, .pointers = 8, .rounds = 3};
    p.jobs = parallel_default_jobs();
    for (int i = 1; i < argc; i++)
        option_read(&p, argv[i]);
    if (!p.wanted || !p.pointers || p.wanted >= BLOCKS_MAX)
        die("blocks and pointers must be reasonable numbers");
    plan_slabs(&p);
    if (getenv("LEAKBENCH_CHILD"))
        child_run(&p, CHILD_READY);
    printf("%" PRIu64 " blocks, %.2f GiB, %s, one word in %" PRIu64 " a pointer, %d jobs\n",
           p.blocks, (double)(p.slabs * SLAB_BYTES) / (1 << 30), shape_names[p.shape], p.pointers,
           p.jobs);
    pid_t child = child_start(argv);
    for (int i = 0; i < p.rounds; i++)
        round_run(&p, child);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    free(p.classes);
    free(p.first);
    return 0;
}
