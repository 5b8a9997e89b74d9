/*
 * Stored processes (tests/images: a heap_truth each, on builds of allocators that this system may
 * not have) and what the readers say of them: every block as the program booked it. And hostile
 * bytes: words of them changed, each read failing, noise: an answer or a message in bounded time.
 *
 *   foreign_images                             all of tests/images; IMAGE_SECONDS (3) of damage a
 *                                              reader; IMAGE_SEED repeats its choices
 *   foreign_images READER LIBRARY FILE [SEED]  make one: run from a folder with heap_truth in it
 *                                              (ptmalloc: LIBRARY is a loader beside its libc)
 */
#include "unit/image_damage.h"
#include "unit/truth_driver.h"

enum { SLOWEST_SECONDS = 10 }; /* of a processor, also with sanitizers; 0.2 without */

static bool has_vote(const struct truth_result *one)
{
    return one->read && !one->missed && !one->short_blocks && !one->unnamed && !one->findings &&
           !one->disagreeing && one->booked;
}

/* -- making -------------------------------------------------------------------------------------
 */

static int make(const char *reader, const char *library, const char *file)
{
    char preload[1100], folder[1024];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(library, '/') - library), library);
    const char *const preloaded[] = {"/usr/bin/env", "-i", preload, NULL};
    /* the threshold must not grow: some blocks shall be mappings of their own */
    const char *const loaded[] = {"/usr/bin/env",
                                  "-i",
                                  "GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072",
                                  "MALLOC_MMAP_THRESHOLD_=131072",
                                  library,
                                  "--library-path",
                                  folder,
                                  NULL};
    const char *const *before = strcmp(reader, "ptmalloc") == 0 ? loaded : preloaded;
    struct mode mode = {"image", "heap_truth", 200, "2", {"large"}, 0};
    struct truth_run run = {0};
    driver = (struct truth_driver){.reader = reader, .wait = true};
    if (!mode_start(&run, &mode, NULL, before, NULL) || !truth_ready(&run))
        return 1;
    struct target *target = NULL;
    struct target_options options = {0};
    struct timespec nap = {0, (long)(random_next() % 30000000)};
    nanosleep(&nap, NULL);
    if (target_open_process(&target, run.pid, &options, NULL) != HI_OK)
        return 1;
    struct truth_result one = truth_read(target, reader, run.table, &run.before, true);
    bool made = has_vote(&one) && image_save(target, reader, &one, &run, file);
    target_close(target);
    truth_end(&run);
    return made ? 0 : 1;
}

/* -- as they are --------------------------------------------------------------------------------
 */

static void sound(struct heap_image *image, const char *name)
{
    struct target *target = image_target(image);
    struct address_set before = {.items = (uint64_t *)(uintptr_t)image->before,
                                 .count = image->head->before};
    struct truth_result one = truth_read(target, image->head->reader, image->table, &before, false);
    if (!ok(has_vote(&one), "%s: all of %" PRIu64 " live blocks, %" PRIu64 " others by name", name,
            one.booked, one.extra))
        printf("# %" PRIu64 " missed, %" PRIu64 " short, %" PRIu64 " unnamed, %" PRIu64
               " findings, %" PRIu64 " checks\n",
               one.missed, one.short_blocks, one.unnamed, one.findings, one.disagreeing);
    if (strcmp(image->head->reader, "ptmalloc") == 0) /* its mp_ was found as well */
        ok(one.checks >= 5, "%s: %" PRIu64 " totals, found by %s", name, one.checks,
           found_by_name(one.found_by));
    target_close(target);
}

/* Each arena has an address, and the first thread (which allocated) is named by one of them. */
static void arenas(struct heap_image *image, const char *name)
{
    struct target *target = image_target(image);
    struct truth_opened opened;
    unsigned without = 0, owned = strcmp(image->head->reader, "mimalloc") == 0;
    bool is_open = truth_open(&opened, target, image->head->reader);
    for (size_t i = 0; is_open && i < opened.heaps->arenas.count; i++) {
        const struct arena *arena = &opened.heaps->arenas.items[i];
        without += arena->address == 0 && strcmp(arena->name, "mapped") != 0;
        for (uint32_t k = 0; k < arena->tid_count && k < ARENA_MAX_TIDS; k++)
            owned += arena->tids[k] == target_thread(target, 0)->tid;
    }
    ok(is_open && without == 0 && owned == 1, "%s: arenas have addresses, and the first thread one",
       name);
    truth_close(&opened);
    target_close(target);
}

/* -- hostile ------------------------------------------------------------------------------------
 */

static void words(struct hostile *hostile, double seconds, unsigned most)
{
    bool fine = true;
    for (double end = damage_clock(CLOCK_MONOTONIC) + seconds;
         fine && damage_clock(CLOCK_MONOTONIC) < end;) {
        damage_words(hostile->image, 1 + (unsigned)(random_next() % most));
        fine = damage_walk(hostile);
    }
    hostile->image->patch_count = 0;
    ok(fine, "up to %u words changed: always an answer", most);
}

static void reads(struct hostile *hostile, double seconds)
{
    bool fine = damage_walk(hostile);
    uint64_t all = hostile->image->reads;
    for (double end = damage_clock(CLOCK_MONOTONIC) + seconds;
         fine && damage_clock(CLOCK_MONOTONIC) < end;) {
        hostile->image->fail_read = 1 + random_next() % all;
        fine = damage_walk(hostile);
    }
    hostile->image->fail_read = 0;
    ok(fine, "one of %" PRIu64 " reads fails: always an answer", all);
}

static void damage(struct heap_image *image, const char *name, double seconds)
{
    struct hostile hostile;
    if (!ok(damage_open(&hostile, image), "%s: opens", name))
        return;
    words(&hostile, seconds / 2, 1);
    words(&hostile, seconds / 4, IMAGE_PATCHES - 1);
    reads(&hostile, seconds / 4);
    printf("# %s: %" PRIu64 " tries: %" PRIu64 " with findings, %" PRIu64
           " not understood, %" PRIu64 " not found, %" PRIu64 " without a word, slowest %.3f s\n",
           name, hostile.tries, hostile.findings, hostile.unknown, hostile.absent, hostile.silent,
           hostile.slowest);
    ok(hostile.slowest < SLOWEST_SECONDS, "%s: in bounded time", name);
    damage_close(&hostile);
}

int main(int argc, char **argv)
{
    enum { MOST = 256 };
    char *names[MOST];
    const char *seed = argc > 4 ? argv[4] : getenv("IMAGE_SEED");
    const char *seconds = getenv("IMAGE_SECONDS");
    random_state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL) * 1000003 + getpid();
    printf("# IMAGE_SEED=%llu\n", (unsigned long long)random_state);
    damage_random = random_next;
    if (argc > 3)
        return make(argv[1], argv[2], argv[3]);
    size_t count = damage_images("", names, MOST);
    double each = (seconds ? strtod(seconds, NULL) : 8) / (count ? (double)count : 1);
    ok(count > 0, "%zu images", count);
    for (size_t i = 0; i < count; i++) {
        struct heap_image image;
        const char *name = strrchr(names[i], '/') + 1;
        if (ok(image_load(&image, names[i]), "%s", name)) {
            sound(&image, name);
            arenas(&image, name);
            damage(&image, name, each);
        }
        image_free(&image);
        free(names[i]);
    }
    return done();
}
