/*
 * Images of processes (heap_image.h) with words of them changed and reads that fail: what the unit
 * test and the fuzzers do to the readers.
 */
#ifndef TESTS_UNIT_IMAGE_DAMAGE_H
#define TESTS_UNIT_IMAGE_DAMAGE_H

#include "unit/heap_image.h"

#include <dirent.h>

static uint64_t (*damage_random)(void); /* set by whoever includes this */

struct hostile {
    struct heap_image *image;
    struct symbols *symbols;
    struct target *target;
    uint64_t tries, heaps, findings, unknown, absent, silent;
    double slowest;
};

static double damage_clock(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool damage_is_told(const struct heaps *heaps)
{
    bool something = heaps->findings.count > 0 || heaps->unknown[0];
    for (size_t h = 0; h < heaps->count; h++)
        for (size_t c = 0; c < heaps->heaps[h].check_count; c++)
            something |= !heaps->heaps[h].checks[c].agree;
    return something;
}

/* One walk over whatever it has become. false: a failure of ours. */
static bool damage_walk(struct hostile *hostile)
{
    struct heap_context context = {
        .target = hostile->target, .symbols = hostile->symbols, .jobs = 1};
    struct heaps_options options = {.only = hostile->image->head->reader};
    struct heaps *heaps = NULL;
    struct hi_err err = {0};
    double start = damage_clock(CLOCK_PROCESS_CPUTIME_ID); /* on one thread */
    hostile->image->reads = 0;
    enum hi_code code = heaps_open(&heaps, &context, &options, &err);
    double took = damage_clock(CLOCK_PROCESS_CPUTIME_ID) - start;
    hostile->slowest = took > hostile->slowest ? took : hostile->slowest;
    hostile->tries++;
    if (heaps) {
        hostile->heaps += heaps->count > 0;
        hostile->findings += heaps->count > 0 && damage_is_told(heaps);
        hostile->unknown += heaps->count == 0 && heaps->unknown[0];
        hostile->absent += heaps->count == 0 && !heaps->unknown[0];
        hostile->silent += heaps->count > 0 && !damage_is_told(heaps);
    }
    if (code != HI_OK)
        printf("# code %d: %s\n", code, err.message);
    heaps_close(heaps);
    return code == HI_OK;
}

static uint64_t hostile_word(const struct heap_image *image, uint64_t before)
{
    size_t page = damage_random() % image->head->pages;
    uint64_t other;
    memcpy(&other, image->pages + page * IMAGE_PAGE + damage_random() % (IMAGE_PAGE / 8) * 8, 8);
    switch (damage_random() % 8) {
    case 0:
        return ~before;
    case 1:
        return before ^ UINT64_C(1) << damage_random() % 64;
    case 2:
        return 0;
    case 3:
        return UINT64_MAX;
    case 4:
        return before + 8;
    case 5:
        return image->page_addresses[page] + damage_random() % IMAGE_PAGE;
    case 6:
        return other;
    default:
        return damage_random();
    }
}

static bool is_scribble(uint64_t word)
{
    return word == 0 || word == (word & 0xff) * UINT64_C(0x0101010101010101);
}

/* Some word that is neither 0 nor the program's scribbling. */
static hi_addr random_place(const struct heap_image *image, uint64_t *word)
{
    for (unsigned i = 0; i < 100000; i++) {
        size_t page = damage_random() % image->head->pages;
        size_t at = damage_random() % (IMAGE_PAGE / 8) * 8;
        memcpy(word, image->pages + page * IMAGE_PAGE + at, 8);
        if (!is_scribble(*word))
            return image->page_addresses[page] + at;
    }
    return 0;
}

/* Change so many words. */
static void damage_words(struct heap_image *image, unsigned count)
{
    for (image->patch_count = 0; image->patch_count < count; image->patch_count++) {
        uint64_t word;
        image->patches[image->patch_count].address = random_place(image, &word);
        image->patches[image->patch_count].value = hostile_word(image, word);
    }
}

static bool damage_open(struct hostile *hostile, struct heap_image *image)
{
    struct target_options options = {0};
    *hostile = (struct hostile){.image = image, .target = image_target(image)};
    return symbols_open(&hostile->symbols, hostile->target, &options, NULL) == HI_OK;
}

static void damage_close(struct hostile *hostile)
{
    symbols_close(hostile->symbols);
    target_close(hostile->target);
}

static int damage_by_name(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* The stored images whose names begin like this. */
static size_t damage_images(const char *prefix, char **paths, size_t most)
{
    static const char folder_name[] = "tests/images";
    size_t count = 0;
    DIR *folder = opendir(folder_name);
    for (struct dirent *entry; folder && (entry = readdir(folder)) && count < most;) {
        const char *end = strrchr(entry->d_name, '.');
        size_t bytes = sizeof folder_name + strlen(entry->d_name) + 1;
        if (!end || strcmp(end, ".image") != 0 ||
            strncmp(entry->d_name, prefix, strlen(prefix)) != 0 || !(paths[count] = malloc(bytes)))
            continue;
        snprintf(paths[count++], bytes, "%s/%s", folder_name, entry->d_name);
    }
    if (folder)
        closedir(folder);
    qsort(paths, count, sizeof *paths, damage_by_name);
    return count;
}

#endif
