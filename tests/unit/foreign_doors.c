/*
 * jemalloc, stopped with a thread at a place of our choice: the first instruction of one of its
 * functions, or where that returns to. An endless jump is written there; the first thread that
 * comes by stays, in just that state, and the process is stopped, read and compared with what the
 * program booked. Random stops seldom meet most of these.
 *
 *   foreign_doors [FUNCTION...]    of heap_truth_rjem_named; FOREIGN_SEED repeats its choices
 */
#include "unit/truth_driver.h"

#include <inttypes.h>

enum { JUMP_BYTES = 2, ROUNDS = 2, WAIT_SECONDS = 1, WAIT_LONG_SECONDS = 60 };

/* A slab is made between the first two: they must be met. */
static const char *const functions[] = {
    "je_emap_register_interior",
    "je_bitmap_init",
    "je_tsd_tcache_data_init",
    "je_tsd_cleanup",
    "je_tcache_cleanup",
    "tcache_flush_cache",
    "je_arena_cache_bin_fill_small",
    "arena_slab_reg_alloc_batch",
    "je_tcache_bin_flush_small",
    "je_tcache_bin_flush_large",
    "je_arena_slab_dalloc",
    "je_emap_deregister_interior",
    "je_large_malloc",
    "je_large_dalloc_finish",
    "je_ecache_alloc",
    "je_ecache_dalloc",
    "je_extent_split_wrapper",
    "je_extent_merge_wrapper",
    "je_arena_decay",
    "tcache_event",
};
enum { MUST_MEET = 2 };

struct door {
    hi_addr address;
    int memory;
    unsigned char before[JUMP_BYTES];
};

static struct target *stop(struct truth_run *run)
{
    struct target *target = NULL;
    struct hi_err err = {0};
    struct target_options options = {0};
    if (target_open_process(&target, run->pid, &options, &err) != HI_OK)
        printf("# %s\n", err.message);
    return target;
}

/* The first thread between the two addresses, or NULL. */
static const struct thread *thread_in(const struct target *target, hi_addr start, hi_addr end)
{
    for (size_t i = 0; i < target_thread_count(target); i++) {
        const struct thread *thread = target_thread(target, i);
        if (thread->has_registers && thread->pc >= start && thread->pc < end)
            return thread;
    }
    return NULL;
}

/* Of a stopped process; nobody may stand where the second byte will be. */
static bool door_close(struct door *door, const struct target *target, hi_addr address)
{
    static const unsigned char jump[JUMP_BYTES] = {0xeb, 0xfe};
    door->address = address;
    return !thread_in(target, address + 1, address + JUMP_BYTES) &&
           pread(door->memory, door->before, JUMP_BYTES, (off_t)address) == JUMP_BYTES &&
           pwrite(door->memory, jump, JUMP_BYTES, (off_t)address) == JUMP_BYTES;
}

static void door_open(struct door *door)
{
    if (pwrite(door->memory, door->before, JUMP_BYTES, (off_t)door->address) != JUMP_BYTES)
        printf("# the text at 0x%" PRIx64 " can't be written\n", door->address);
}

/* The process, stopped when a thread is at the door, or after some seconds without one. */
static struct target *door_wait(struct truth_run *run, const struct door *door, int seconds)
{
    time_t end = time(NULL) + seconds;
    const struct timespec nap = {0, 2000000};
    struct target *target;
    while ((target = stop(run)) && !thread_in(target, door->address, door->address + 1) &&
           time(NULL) < end) {
        target_close(target);
        nanosleep(&nap, NULL);
    }
    return target;
}

static void judge(struct truth_run *run, struct target *target, struct truth_result *sum)
{
    struct truth_result one = {0};
    if (target_complete(target))
        one = truth_read(target, driver.reader, run->table, &run->before, false);
    else
        one.read = true; /* a thread sleeps in the kernel: it says nothing */
    sum->read &= one.read;
    result_add(sum, &one);
}

/* At the function, then where the call returns to. false: nobody came. */
static bool visit(struct truth_run *run, struct door *door, hi_addr function, int seconds,
                  struct truth_result *sum)
{
    hi_addr caller = 0;
    struct target *target = stop(run);
    while (target && !door_close(door, target, function)) {
        target_close(target);
        target = stop(run);
    }
    target_close(target);
    target = door_wait(run, door, seconds);
    const struct thread *thread = target ? thread_in(target, function, function + 1) : NULL;
    if (thread)
        judge(run, target, sum);
    door_open(door);
    bool is_closed = thread && target_read_u64(target, thread->sp, &caller, NULL) == HI_OK &&
                     door_close(door, target, caller);
    target_close(target);
    if (!is_closed)
        return thread != NULL;
    target = door_wait(run, door, WAIT_SECONDS);
    if (target)
        judge(run, target, sum);
    door_open(door);
    target_close(target);
    return true;
}

static void visit_often(struct truth_run *run, struct door *door, const char *name,
                        hi_addr function, bool must)
{
    struct truth_result sum = {.read = true};
    unsigned met = 0;
    for (unsigned i = 0; i < ROUNDS; i++)
        met += visit(run, door, function, must ? WAIT_LONG_SECONDS : WAIT_SECONDS, &sum);
    bool right = sum.read && !sum.missed && !sum.short_blocks && !sum.unnamed && !sum.findings &&
                 !sum.disagreeing;
    if (!ok(right && (met || !must), "%s: what was read is right (met %u times)", name, met))
        printf("# %" PRIu64 " missed, %" PRIu64 " short, %" PRIu64 " unnamed, %" PRIu64
               " findings, %" PRIu64 " checks\n",
               sum.missed, sum.short_blocks, sum.unnamed, sum.findings, sum.disagreeing);
}

static hi_addr function_address(struct symbols *symbols, const char *name)
{
    struct symbol symbol;
    return symbols_find(symbols, SYMBOLS_ANY_MODULE, name, &symbol, NULL) == HI_OK ? symbol.address
                                                                                   : 0;
}

static void doors_test(struct truth_run *run, const char *const *names, size_t count)
{
    struct hi_err err = {0};
    struct target_options options = {0};
    struct symbols *symbols = NULL;
    struct target *target = stop(run);
    hi_addr addresses[64] = {0};
    char path[64];
    bool is_open = target && symbols_open(&symbols, target, &options, &err) == HI_OK;
    for (size_t i = 0; is_open && i < count && i < 64; i++)
        addresses[i] = function_address(symbols, names[i]);
    symbols_close(symbols);
    target_close(target);
    snprintf(path, sizeof path, "/proc/%d/mem", (int)run->pid);
    struct door door = {.memory = open(path, O_RDWR | O_CLOEXEC)};
    if (!ok(is_open && door.memory >= 0, "its text can be written"))
        return;
    for (size_t i = 0; i < count && i < 64; i++) {
        if (addresses[i])
            visit_often(run, &door, names[i], addresses[i], names == functions && i < MUST_MEET);
        else
            printf("ok %d # SKIP this build has no %s\n", ++tap_count, names[i]);
    }
    close(door.memory);
}

int main(int argc, char **argv)
{
    static const struct mode mode = {
        "six threads", "heap_truth_rjem_named", 4000, "6", {"plain"}, 0};
    const char *seed = getenv("FOREIGN_SEED"), *build = getenv("BUILD");
    char program[600];
    snprintf(program, sizeof program, "%s/programs/%s", build ? build : "build", mode.program);
    random_state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL) * 1000003 + getpid();
    printf("# FOREIGN_SEED=%llu\n", (unsigned long long)random_state);
    if (access(program, X_OK) != 0) {
        printf("ok %d # SKIP no static jemalloc here\n", ++tap_count);
        return done();
    }
    struct truth_run run = {0};
    driver = (struct truth_driver){.reader = "jemalloc", .checks = 1, .wait = true};
    if (!ok(mode_start(&run, &mode, NULL, NULL, NULL) && truth_ready(&run), "the program runs"))
        return done();
    if (argc > 1)
        doors_test(&run, (const char *const *)argv + 1, (size_t)argc - 1);
    else
        doors_test(&run, functions, sizeof functions / sizeof *functions);
    truth_end(&run);
    return done();
}
