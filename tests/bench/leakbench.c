/*
 * leakbench: how long the verdict on a large heap takes, and how much memory.
 *
 *   leakbench [blocks=10000000] [most=512] [shape=random|local|list|tree|hash|rings] [lost=0]
 *             [layout=slab|chunks] [pointers=8] [threads=0] [writer=0] [deferred=1] [jobs=N]
 *             [rounds=3]
 *
 * A child fills slabs of 64 KiB with blocks of 16 to `most` bytes (as many of each size). The
 * parent knows the layout, stops the child and finds out what is lost: read, filter, resolve, mark,
 * direct and indirect. Beside that the bare read of the same bytes by as many threads
 * (process_vm_readv, 256 KiB at a time), since only ratios to it carry over to other machines. With
 * layout=chunks the same blocks are told as chunks with headers in one region, so that look-ups go
 * by rank. Memory: growth of the largest resident size, in bytes a block.
 *
 * Shapes. random: one word in `pointers` points to any block, from 4096 roots; local: 85 % of them
 * to one of the thousand blocks around. The others have as many links as they need, zeros else, in
 * random order: one list; a binary tree; a table of chains (two entries a bucket, each with a
 * value; the table is a root); rings of 8 blocks whose first blocks make up a tree. Of these,
 * `lost` blocks in a hundred (rings: rings) are left out, and the counts must come out exactly,
 * else the exit status is 1.
 *
 * deferred=0: words are looked up while the child stands still. threads: so many sleep in the child
 * while it is stopped. writer=1: one more writes all the time, values that are there already, and
 * says how long it stood still itself. The child's memory is asked for before and after: it must
 * not grow by being read.
 */
#include "base/parallel.h"
#include "graph/graph.h"

#include <inttypes.h>
#include <pthread.h>
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
#define STALL UINT64_C(0x0e0000000000) /* the writer's longest stall, in nanoseconds */
enum { SLAB_BYTES = 64 << 10, CLASSES_MOST = 64, ROOT_WORDS = 4096, SIZE_STEP = 16, RING = 8 };
enum { CHILD_READY = 9, BUCKET_ENTRIES = 2, SLEEPER_STACK_BYTES = 64 << 10 };

enum shape { SHAPE_RANDOM, SHAPE_LOCAL, SHAPE_LIST, SHAPE_TREE, SHAPE_HASH, SHAPE_RINGS, SHAPES };
static const char *const shape_names[] = {"random", "local", "list", "tree", "hash", "rings"};

struct plan {
    uint64_t wanted, most, pointers, lost_percent, threads, with_writer, deferred, jobs, rounds;
    enum shape shape;
    bool as_chunks;
    uint64_t blocks, slabs, classes_count, root_words;
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

/* Slab by slab the class that has the fewest blocks so far. A chunk's last word is not its own: of
 * those, the smallest has 32 bytes, so that two words can be links. */
static void plan_slabs(struct plan *p)
{
    uint64_t have[CLASSES_MOST] = {0}, room = p->wanted / 100 + 1000;
    p->classes = malloc(room);
    p->first = malloc(room * sizeof *p->first);
    for (p->blocks = 0; p->blocks < p->wanted; p->slabs++) {
        unsigned least = p->as_chunks ? 1 : 0;
        for (unsigned c = least + 1; c < p->classes_count; c++)
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

static uint64_t *words_of(const struct plan *p, uint64_t i)
{
    return (uint64_t *)(uintptr_t)p->addresses[i];
}

static void shuffle(const struct plan *p)
{
    uint64_t state = 88172645463325252u;
    for (uint64_t i = p->blocks - 1; i > 0; i--) {
        uint64_t k = random_next(&state) % (i + 1), other = p->addresses[k];
        p->addresses[k] = p->addresses[i];
        p->addresses[i] = other;
    }
}

/* How many of the blocks (or rings), the first ones, hang on the roots. */
static uint64_t held_of(const struct plan *p, uint64_t count)
{
    uint64_t lost = count / 100 * p->lost_percent;
    return count - lost;
}

static void fill_list(const struct plan *p)
{
    for (uint64_t i = 0; i + 1 < held_of(p, p->blocks); i++)
        *words_of(p, i) = p->addresses[i + 1];
}

static void fill_tree(const struct plan *p)
{
    uint64_t held = held_of(p, p->blocks);
    for (uint64_t i = 0; i < held; i++)
        for (uint64_t k = 0; k < 2; k++)
            if (2 * i + 1 + k < held)
                words_of(p, i)[k] = p->addresses[2 * i + 1 + k];
}

/* The first half are entries {next, value}, the others their values. */
static void fill_hash(const struct plan *p, uint64_t *buckets)
{
    uint64_t state = 1234567, entries = held_of(p, p->blocks) / 2;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t *bucket = &buckets[random_next(&state) % p->root_words];
        words_of(p, i)[0] = *bucket;
        words_of(p, i)[1] = p->addresses[entries + i];
        *bucket = p->addresses[i];
    }
}

/* Each block points to the next of its ring; the first and the second also to another ring. */
static void fill_rings(const struct plan *p)
{
    uint64_t rings = p->blocks / RING, held = held_of(p, rings);
    for (uint64_t r = 0; r < rings; r++) {
        for (uint64_t i = 0; i < RING; i++)
            words_of(p, r * RING + i)[0] = p->addresses[r * RING + (i + 1) % RING];
        for (uint64_t k = 0; k < 2; k++)
            if (r < held && 2 * r + 1 + k < held)
                words_of(p, r * RING + k)[1] = p->addresses[(2 * r + 1 + k) * RING];
    }
}

static void fill(const struct plan *p, uint64_t *roots)
{
    uint64_t state = 1234567;
    if (p->shape == SHAPE_RANDOM || p->shape == SHAPE_LOCAL) {
        fill_random(p);
        for (int i = 0; i < ROOT_WORDS; i++)
            roots[i] = p->addresses[random_next(&state) % p->blocks];
        return;
    }
    shuffle(p);
    if (p->shape == SHAPE_LIST)
        fill_list(p);
    else if (p->shape == SHAPE_TREE)
        fill_tree(p);
    else if (p->shape == SHAPE_RINGS)
        fill_rings(p);
    else
        fill_hash(p, roots);
    if (p->shape != SHAPE_HASH)
        roots[0] = p->addresses[0];
}

/* What must be lost: direct, indirect. Of a lost ring one block is direct. */
static bool lost_known(const struct plan *p, uint64_t *direct, uint64_t *indirect)
{
    uint64_t rings = p->blocks / RING, held = held_of(p, p->blocks);
    *indirect = 0;
    *direct = p->blocks - held;
    if (p->shape == SHAPE_HASH)
        *direct += held % 2;
    if (p->shape == SHAPE_RINGS) {
        *direct = rings - held_of(p, rings) + p->blocks % RING;
        *indirect = (rings - held_of(p, rings)) * (RING - 1);
    }
    return p->shape != SHAPE_RANDOM && p->shape != SHAPE_LOCAL;
}

static void *sleeper(void *unused)
{
    for (;;)
        pause();
    return unused;
}

/* Writes one word a page, all over the heap, and notices when it has stood still. */
static void *writer(void *plan)
{
    const struct plan *p = plan;
    volatile uint64_t *heap = (volatile uint64_t *)(uintptr_t)HEAP;
    uint64_t *stall = (uint64_t *)(uintptr_t)STALL;
    uint64_t state = 7, words = p->slabs * SLAB_BYTES / 8;
    double before = seconds_now();
    for (;;) {
        uint64_t at = random_next(&state) % words;
        heap[at] = heap[at];
        double now = seconds_now();
        uint64_t ns = (uint64_t)((now - before) * 1e9);
        if (ns > __atomic_load_n(stall, __ATOMIC_RELAXED))
            __atomic_store_n(stall, ns, __ATOMIC_RELAXED);
        before = now;
    }
    return NULL;
}

static void threads_start(struct plan *p)
{
    pthread_attr_t small;
    pthread_t thread;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, SLEEPER_STACK_BYTES);
    for (uint64_t i = 0; i < p->threads; i++)
        if (pthread_create(&thread, &small, sleeper, NULL) != 0)
            die("cannot start a thread");
    if (p->with_writer && pthread_create(&thread, &small, writer, p) != 0)
        die("cannot start the writer");
}

static _Noreturn void child_run(struct plan *p, int ready)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    map_at(HEAP, p->slabs * SLAB_BYTES);
    map_at(STALL, sizeof(uint64_t));
    uint64_t *roots = map_at(ROOTS, p->root_words * 8), block = 0;
    p->addresses = malloc(p->blocks * sizeof *p->addresses);
    if (!p->addresses)
        die("out of memory");
    for (uint64_t slab = 0; slab < p->slabs; slab++)
        for (uint32_t i = 0; i < SLAB_BYTES / class_bytes(p->classes[slab]); i++)
            p->addresses[block++] =
                HEAP + slab * SLAB_BYTES + (uint64_t)i * class_bytes(p->classes[slab]);
    fill(p, roots);
    free(p->addresses);
    threads_start(p);
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
    parallel_run((int)p->jobs, bare_work, &bare);
    return seconds_now() - start;
}

/* -- the verdict --------------------------------------------------------------------------------
 */

static uint64_t kib_in(const char *path, const char *key)
{
    char line[200];
    uint64_t value = 0;
    FILE *file = fopen(path, "r");
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

/* Counts are known but for random words: there some blocks are lost by chance. */
static bool counts_right(const struct plan *p, const struct graph *graph)
{
    uint64_t counts[5] = {0}, direct, indirect;
    for (uint64_t i = 0; i < p->blocks; i++)
        counts[graph_mark_of(graph, (hi_block)i)]++;
    bool known = lost_known(p, &direct, &indirect),
         right = !known || (counts[MARK_DIRECT] == direct && counts[MARK_INDIRECT] == indirect &&
                            counts[MARK_REACHABLE] + direct + indirect == p->blocks);
    printf("  edges %" PRIu64 "  reachable %" PRIu64 "  direct %" PRIu64 "  indirect %" PRIu64
           "%s\n",
           graph_stats(graph)->edges, counts[MARK_REACHABLE], counts[MARK_DIRECT],
           counts[MARK_INDIRECT],
           !known  ? ""
           : right ? "  (right)"
                   : "  (WRONG)");
    return right;
}

static struct graph *graph_of(const struct plan *p, struct target *target,
                              const struct heaps *heaps, const struct roots *roots, double bare)
{
    struct graph *graph;
    struct hi_err err;
    struct graph_options options = {.jobs = (int)p->jobs, .deferred = p->deferred != 0};
    double began = seconds_now(), cpu = cpu_now();
    if (graph_build(&graph, target, heaps, roots, &options, &err) != HI_OK)
        die(err.message);
    double built = seconds_now(), cpu_built = cpu_now();
    target_release(target);
    if (graph_mark(graph, NULL, NULL, &err) != HI_OK)
        die(err.message);
    double end = seconds_now(), cpu_end = cpu_now();
    printf("  read %.3f (%.2f of bare)  mark %.3f  verdict %.3f s (%.1f times bare %.3f)\n",
           built - began, (built - began) / bare, end - built, end - began, (end - began) / bare,
           bare);
    printf("  processor seconds: read %.3f  mark %.3f  stopped %.3f s\n", cpu_built - cpu,
           cpu_end - cpu_built, target_stopped_seconds(target));
    return graph;
}

static bool verdict(const struct plan *p, pid_t pid, double bare)
{
    struct target_options options = {0};
    struct target *target;
    struct hi_err err;
    struct heaps heaps = {0};
    struct roots roots = {0};
    uint64_t before = kib_in("/proc/self/status", "VmRSS:");
    if (blocks_new(&heaps.blocks, NULL) != HI_OK)
        die("out of memory");
    *VECTOR_PUSH(&roots.ranges) =
        (struct root_range){.class = ROOT_DATA, .start = ROOTS, .end = ROOTS + p->root_words * 8};
    double start = seconds_now();
    blocks_fill(heaps.blocks, p);
    double table = seconds_now() - start;
    if (target_open_process(&target, pid, &options, &err) != HI_OK)
        die(err.message);
    struct graph *graph = graph_of(p, target, &heaps, &roots, bare);
    printf("  table of blocks %.3f s  memory %.1f bytes a block\n", table,
           (double)(kib_in("/proc/self/status", "VmHWM:") - before) * 1024 / (double)p->blocks);
    bool right = counts_right(p, graph);
    graph_free(graph);
    target_close(target);
    blocks_free(heaps.blocks);
    VECTOR_FREE(&roots.ranges);
    return right;
}

/* The writer's own word in the child: read it, set it to 0. */
static uint64_t stall_take(pid_t pid)
{
    uint64_t ns = 0, zero = 0;
    struct iovec got = {&ns, sizeof ns}, none = {&zero, sizeof zero},
                 there = {(void *)(uintptr_t)STALL, sizeof ns};
    if (process_vm_readv(pid, &got, 1, &there, 1, 0) < 0 ||
        process_vm_writev(pid, &none, 1, &there, 1, 0) < 0)
        die("the writer's stall");
    return ns;
}

/* Each round in a process of its own: the largest resident size is one a process. */
static bool round_run(const struct plan *p, pid_t child)
{
    char path[64];
    int status = 1;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)child);
    fflush(stdout);
    uint64_t pss = kib_in(path, "Pss:");
    pid_t pid = fork();
    if (pid == 0) {
        double bare = bare_read(p, child);
        uint64_t quiet = p->with_writer ? stall_take(child) : 0;
        bool right = verdict(p, child, bare);
        if (p->with_writer)
            printf("  the writer stood still for %.3f s (before: %.3f s)\n",
                   (double)stall_take(child) * 1e-9, (double)quiet * 1e-9);
        fflush(stdout);
        _exit(right ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    printf("  the child's memory: %+" PRId64 " KiB\n", (int64_t)(kib_in(path, "Pss:") - pss));
    return status == 0;
}

static enum shape shape_named(const char *name)
{
    for (int i = 0; i < SHAPES; i++)
        if (strcmp(shape_names[i], name) == 0)
            return (enum shape)i;
    die("unknown shape");
    return SHAPE_RANDOM;
}

static void option_read(struct plan *p, const char *option)
{
    const char *value = strchr(option, '=');
    uint64_t number = value ? strtoull(value + 1, NULL, 10) : 0, ignored;
    const struct {
        const char *name;
        uint64_t *number;
    } numbers[] = {
        {"blocks", &p->wanted},     {"most", &p->most},       {"lost", &p->lost_percent},
        {"pointers", &p->pointers}, {"threads", &p->threads}, {"writer", &p->with_writer},
        {"deferred", &p->deferred}, {"jobs", &p->jobs},       {"rounds", &p->rounds},
        {"shape", &ignored},        {"layout", &ignored},
    };
    for (size_t i = 0; value && i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strlen(numbers[i].name) != (size_t)(value - option) ||
            strncmp(numbers[i].name, option, (size_t)(value - option)) != 0)
            continue;
        if (option[0] == 's')
            p->shape = shape_named(value + 1);
        else if (option[0] == 'l' && option[1] == 'a')
            p->as_chunks = strcmp(value + 1, "chunks") == 0;
        else
            *numbers[i].number = number;
        return;
    }
    die("usage: leakbench [blocks=N] [most=BYTES] [shape=random|local|list|tree|hash|rings] "
        "[lost=PERCENT] [layout=slab|chunks] [pointers=N] [threads=N] [writer=0|1] "
        "[deferred=0|1] [jobs=N] [rounds=N]");
}

/* What follows from the options. */
static void plan_finish(struct plan *p)
{
    p->classes_count = p->most / SIZE_STEP;
    if (!p->wanted || !p->pointers || p->wanted >= BLOCKS_MAX || p->lost_percent > 99 ||
        p->classes_count < 2 || p->classes_count > CLASSES_MOST || !p->jobs || p->jobs > 1024)
        die("blocks, most (32 to 1024), pointers, lost and jobs must be reasonable numbers");
    plan_slabs(p);
    p->root_words = ROOT_WORDS;
    if (p->shape == SHAPE_HASH)
        p->root_words += held_of(p, p->blocks) / 2 / BUCKET_ENTRIES;
}

int main(int argc, char **argv)
{
    struct plan p = {.wanted = 10000000, .most = 512, .pointers = 8, .rounds = 3, .deferred = 1};
    bool right = true;
    p.jobs = (uint64_t)parallel_default_jobs();
    for (int i = 1; i < argc; i++)
        option_read(&p, argv[i]);
    plan_finish(&p);
    if (getenv("LEAKBENCH_CHILD"))
        child_run(&p, CHILD_READY);
    printf("%" PRIu64 " blocks, %.2f GiB, %s, %d jobs", p.blocks,
           (double)(p.slabs * SLAB_BYTES) / (1 << 30), shape_names[p.shape], (int)p.jobs);
    if (p.shape == SHAPE_RANDOM || p.shape == SHAPE_LOCAL)
        printf(", one word in %" PRIu64 " a pointer", p.pointers);
    printf("%s%s\n", p.threads ? ", threads" : "", p.with_writer ? ", a writer" : "");
    pid_t child = child_start(argv);
    for (uint64_t i = 0; i < p.rounds; i++)
        right = round_run(&p, child) && right;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    free(p.classes);
    free(p.first);
    return right ? 0 : 1;
}
