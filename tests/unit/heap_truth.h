/*
 * Drives tests/programs/heap_truth and compares its own table with what a reader says.
 *
 * The table is shared memory that the program writes; while the program is stopped (or dead, with a
 * core beside) both sides stand still. Every booked block must be a live block's start of at least
 * the booked size. Every other live block must have a name: kept by the allocator (sink_kept),
 * a dtv (found here from the threads' descriptors, independently of the inspector), allocated
 * before main() (below main's first block in the same mapping, or live when main() had not begun),
 * or in flight: at most three for each locked slot (a realloc that moves holds two; an aligned
 * block is cut out of three). Where an allocator hands out pointers into its blocks (interior_ok),
 * a booked address may lie inside a block that has room behind it.
 */
#ifndef TESTS_UNIT_HEAP_TRUTH_H
#define TESTS_UNIT_HEAP_TRUTH_H

#include "heap/heap.h"
#include "programs/heap_truth.h"
#include "unit/tap.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct address_set {
    uint64_t *items;
    size_t count, capacity;
};

struct truth_run {
    pid_t pid;
    struct heap_truth *table;
    size_t table_bytes;
    struct address_set before; /* live before main() began, where that was asked */
};

struct truth_result {
    uint64_t booked, missed, short_blocks, extra, kept, dtv, before_main, in_hands, in_flight,
        locked, unnamed;
    uint64_t findings, disagreeing, checks;
    bool read;
    enum found_by found_by;
    char version[48];
};

/* arguments: program and what comes after FD SLOTS (threads, seed, modes), NULL-terminated. */
__attribute__((unused)) static bool truth_start(struct truth_run *run, const char *const *before,
                                                const char *program, uint64_t slots,
                                                const char *const *after, const char *directory)
{
    char fd_text[16], slots_text[24];
    const char *argv[32] = {0};
    size_t n = 0;
    int fd = memfd_create("heap_truth", 0);
    run->table_bytes = sizeof *run->table + slots * sizeof run->table->slots[0];
    if (fd < 0 || ftruncate(fd, (off_t)run->table_bytes) != 0)
        return false;
    run->table = mmap(NULL, run->table_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run->table == MAP_FAILED)
        return false;
    snprintf(fd_text, sizeof fd_text, "%d", fd);
    snprintf(slots_text, sizeof slots_text, "%llu", (unsigned long long)slots);
    for (size_t i = 0; before && before[i]; i++)
        argv[n++] = before[i];
    argv[n++] = program;
    argv[n++] = fd_text;
    argv[n++] = slots_text;
    for (size_t i = 0; after[i] && n < 31; i++)
        argv[n++] = after[i];
    run->pid = fork();
    if (run->pid == 0) {
        struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
        setrlimit(RLIMIT_CORE, &all);
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* it runs for ever */
        if (directory && chdir(directory) != 0)
            _exit(126);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    close(fd);
    return run->pid > 0;
}

/* The table is filled (true), or the program ended or two minutes passed (false). */
__attribute__((unused)) static bool truth_ready(struct truth_run *run)
{
    struct timespec nap = {0, 1000000};
    for (unsigned i = 0; i < 120000; i++) {
        int status;
        if (__atomic_load_n(&run->table->ready, __ATOMIC_ACQUIRE))
            return true;
        if (waitpid(run->pid, &status, WNOHANG) == run->pid) {
            printf("# heap_truth ended with status 0x%x\n", (unsigned)status);
            run->pid = 0;
            return false;
        }
        nanosleep(&nap, NULL);
    }
    return false;
}

__attribute__((unused)) static void truth_end(struct truth_run *run)
{
    if (run->pid > 0) {
        kill(run->pid, SIGKILL);
        waitpid(run->pid, NULL, 0);
    }
    munmap(run->table, run->table_bytes);
    free(run->before.items);
    *run = (struct truth_run){0};
}

/* -- comparing ----------------------------------------------------------------------------------
 */

static int truth_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void set_add(struct address_set *set, uint64_t address)
{
    uint64_t *item = vector_push(&set->items, &set->count, &set->capacity, sizeof *item);
    if (item)
        *item = address;
}

static bool set_has(const struct address_set *set, uint64_t address)
{
    return set->count && bsearch(&address, set->items, set->count, sizeof *set->items, truth_order);
}

static void set_sort(struct address_set *set)
{
    if (set->count)
        qsort(set->items, set->count, sizeof *set->items, truth_order);
}

/* Thread descriptors: a word that points to itself, again 16 bytes on; the dtv is between, and its
 * block starts 16 bytes before where it points. Also of ended threads whose stacks are kept. */
static void truth_dtvs(struct target *target, struct address_set *dtvs)
{
    enum { PIECE = 1 << 20 };
    unsigned char *memory = malloc(PIECE);
    for (size_t i = 0; memory && i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        struct hi_range content;
        if (!(mapping->protection & MAPPING_WRITE) || mapping->shared)
            continue;
        for (hi_addr at = mapping->start; at < mapping->end; at = content.end) {
            if (!target_next_content(target, at, mapping->end, &content))
                break;
            if (content.end - content.start > PIECE - 64)
                content.end = content.start + PIECE - 64;
            size_t got =
                target_read_some(target, content.start, memory, content.end - content.start + 64);
            for (size_t o = 0; o + 24 <= got; o += 64) {
                uint64_t words[3];
                memcpy(words, memory + o, sizeof words);
                if (words[0] == content.start + o && words[2] == words[0] && words[1] > 16)
                    set_add(dtvs, words[1] - 16);
            }
        }
    }
    free(memory);
    set_sort(dtvs);
}

static void truth_booked(const struct heap_truth *table, const struct blocks *blocks,
                         struct address_set *booked, struct truth_result *result)
{
    for (uint64_t i = 0; i < table->slot_count; i++) {
        const struct heap_truth_slot *slot = &table->slots[i];
        uint64_t address = slot->address ^ HEAP_TRUTH_KEY;
        struct block_place place;
        if (slot->lock) {
            result->locked++;
            continue;
        }
        if (address == 0)
            continue;
        result->booked++;
        bool live = blocks_at(blocks, address, &place) && blocks_is_live(blocks, place.block) &&
                    (place.offset == 0 || blocks_region_of(blocks, place.block)->interior_ok);
        set_add(booked, live ? address - place.offset : address);
        if (!live) {
            if (result->missed++ < 5)
                printf("# missed: 0x%" PRIx64 " of %" PRIu64 " bytes: %s\n", address, slot->size,
                       blocks_at(blocks, address, &place)
                           ? block_state_name(blocks_state(blocks, place.block))
                           : "no block");
            if (result->missed <= 5 && blocks_at(blocks, address, &place))
                printf("#   %" PRIu64 " bytes into a block of %" PRIu64 "\n", place.offset,
                       blocks_usable(blocks, place.block));
        } else if (blocks_usable(blocks, place.block) - place.offset < slot->size) {
            if (result->short_blocks++ < 5)
                printf("# short: 0x%" PRIx64 " has %" PRIu64 " of %" PRIu64 " bytes\n", address,
                       blocks_usable(blocks, place.block), slot->size);
        }
    }
    set_sort(booked);
}

static void truth_extras(struct target *target, const struct heaps *heaps,
                         const struct address_set *booked, const struct address_set *dtvs,
                         const struct address_set *kept, const struct address_set *before,
                         hi_addr first, struct truth_result *result)
{
    const struct mapping *mapping = target_mapping_at(target, first);
    uint64_t unnamed[64], count = 0;
    for (uint32_t b = 0; b < blocks_count(heaps->blocks); b++) {
        const struct region *region = blocks_region_of(heaps->blocks, b);
        if (region->shape == REGION_NODE || !blocks_is_live(heaps->blocks, b))
            continue;
        uint64_t address = blocks_address(heaps->blocks, b);
        if (set_has(booked, address))
            continue;
        result->extra++;
        if (set_has(kept, address))
            result->kept++;
        else if (set_has(dtvs, address))
            result->dtv++;
        else if (set_has(before, address) ||
                 (!before->count && address < first && mapping && address >= mapping->start))
            result->before_main++;
        else if (blocks_state(heaps->blocks, b) == BLOCK_IN_FLIGHT)
            result->in_hands++;
        else if (count < 64)
            unnamed[count++] = address;
        else
            count++;
    }
    result->in_flight = count < 3 * result->locked ? count : 3 * result->locked;
    result->unnamed = count - result->in_flight;
    for (uint64_t i = 0; i < count && i < 8 && result->unnamed; i++) {
        struct block_place place;
        if (blocks_at(heaps->blocks, unnamed[i], &place))
            printf("# not named: 0x%" PRIx64 ", %" PRIu64 " usable bytes, arena %u\n", unnamed[i],
                   blocks_usable(heaps->blocks, place.block),
                   blocks_region_of(heaps->blocks, place.block)->arena);
    }
}

static struct truth_result truth_compare(struct target *target, const struct heaps *heaps,
                                         const struct heap_truth *table,
                                         const struct address_set *before)
{
    struct truth_result result = {.read = true};
    struct address_set booked = {0}, dtvs = {0}, kept = {0};
    truth_booked(table, heaps->blocks, &booked, &result);
    truth_dtvs(target, &dtvs);
    for (size_t i = 0; i < heaps->kept.count; i++) { /* any address in the block */
        struct block_place place;
        hi_addr address = heaps->kept.items[i].address;
        bool is_block = blocks_at(heaps->blocks, address, &place);
        set_add(&kept, is_block ? address - place.offset : address);
    }
    set_sort(&kept);
    truth_extras(target, heaps, &booked, &dtvs, &kept, before, table->first ^ HEAP_TRUTH_KEY,
                 &result);
    result.findings = heaps->findings.count + heaps->findings_dropped;
    for (size_t i = 0; i < heaps->findings.count && i < 5; i++)
        printf("# finding: %s at 0x%" PRIx64 ": %s\n", heaps->findings.items[i].rule,
               heaps->findings.items[i].address, heaps->findings.items[i].detail);
    for (size_t h = 0; h < heaps->count; h++)
        for (size_t c = 0; c < heaps->heaps[h].check_count; c++) {
            const struct check *check = &heaps->heaps[h].checks[c];
            result.disagreeing += !check->agree;
            result.checks++;
            if (!check->agree)
                printf("# check %s: reported %" PRIu64 ", walked %" PRIu64 "\n", check->name,
                       check->reported, check->walked);
        }
    free(booked.items);
    free(dtvs.items);
    free(kept.items);
    return result;
}

/* Symbols and heaps of a target, opened. */
struct truth_opened {
    struct symbols *symbols;
    struct heaps *heaps;
};

static bool truth_open(struct truth_opened *opened, struct target *target, const char *only)
{
    struct hi_err err = {0};
    struct target_options options = {0};
    struct heaps_options heaps_options = {.only = only};
    *opened = (struct truth_opened){0};
    if (symbols_open(&opened->symbols, target, &options, &err) != HI_OK) {
        printf("# symbols: %s\n", err.message);
        return false;
    }
    struct heap_context context = {.target = target, .symbols = opened->symbols};
    enum hi_code code = heaps_open(&opened->heaps, &context, &heaps_options, &err);
    if (code == HI_OK && opened->heaps->count)
        return true;
    printf("# heaps: code %d, %s %s\n", code, err.message,
           opened->heaps ? opened->heaps->unknown : "");
    return false;
}

static void truth_close(struct truth_opened *opened)
{
    heaps_close(opened->heaps);
    symbols_close(opened->symbols);
}

/* Opens symbols and heaps of a target, compares, closes. describe: print what was found by what. */
__attribute__((unused)) static struct truth_result
truth_read(struct target *target, const char *only, const struct heap_truth *table,
           const struct address_set *before, bool describe)
{
    static const struct address_set nothing;
    struct truth_opened opened;
    struct truth_result result = {0};
    if (truth_open(&opened, target, only)) {
        const struct heaps *heaps = opened.heaps;
        result = truth_compare(target, heaps, table, before ? before : &nothing);
        result.found_by = heaps->heaps[0].found_by;
        snprintf(result.version, sizeof result.version, "%s", heaps->heaps[0].version);
        for (size_t i = 0; describe && i < heaps->count; i++)
            printf("# %s %s, %s, by %s, %u blocks\n", heaps->heaps[i].reader->name,
                   heaps->heaps[i].version, heaps->heaps[i].active ? "active" : "idle",
                   found_by_name(heaps->heaps[i].found_by), blocks_count(heaps->blocks));
    }
    truth_close(&opened);
    return result;
}

/* What is live before main() has allocated anything; then the program goes on. */
__attribute__((unused)) static bool truth_before(struct truth_run *run, const char *only)
{
    struct timespec nap = {0, 1000000};
    struct target *target = NULL;
    struct hi_err err = {0};
    struct target_options options = {0};
    struct truth_opened opened;
    for (unsigned i = 0; i < 10000 && !__atomic_load_n(&run->table->waiting, __ATOMIC_ACQUIRE); i++)
        nanosleep(&nap, NULL);
    if (target_open_process(&target, run->pid, &options, &err) != HI_OK) {
        printf("# %s\n", err.message);
        return false;
    }
    /* an allocator that was not asked for anything yet need not be found */
    if (truth_open(&opened, target, only)) {
        const struct blocks *blocks = opened.heaps->blocks;
        for (uint32_t b = 0; b < blocks_count(blocks); b++) {
            if (blocks_region_of(blocks, b)->shape != REGION_NODE && blocks_is_live(blocks, b))
                set_add(&run->before, blocks_address(blocks, b));
        }
    }
    truth_close(&opened);
    set_sort(&run->before);
    target_close(target);
    __atomic_store_n(&run->table->go, 1, __ATOMIC_RELEASE);
    return true;
}

#endif
