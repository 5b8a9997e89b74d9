/*
 * Damaged processes: the stored images (tests/images) of one allocator with words changed at random
 * and reads that fail, walked by its reader. Any answer will do; a crash, a hang or a failure of
 * ours will not. What the fuzzers of the allocators share.
 */
#ifndef TESTS_FUZZ_IMAGE_FUZZ_H
#define TESTS_FUZZ_IMAGE_FUZZ_H

#include "unit/image_damage.h"

enum { FUZZ_LIMIT_SECONDS = 20, FUZZ_IMAGES = 64 };

static uint64_t random_state;

static uint64_t random_next(void)
{
    uint64_t z = (random_state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ z >> 27;
}

static struct hostile fuzz_hostile[FUZZ_IMAGES];
static struct heap_image fuzz_image[FUZZ_IMAGES];

static bool fuzz_once(size_t count)
{
    struct hostile *hostile = &fuzz_hostile[random_next() % count];
    damage_words(hostile->image, 1 + (unsigned)(random_next() % (IMAGE_PATCHES - 1)));
    hostile->image->fail_read = random_next() % 4 ? 0 : 1 + random_next() % 2000;
    alarm(FUZZ_LIMIT_SECONDS); /* dies by SIGALRM: a hang */
    return damage_walk(hostile);
}

/* prefix: of the images' names. */
__attribute__((unused)) static int fuzz_main(const char *prefix, int argc, char **argv)
{
    time_t seconds = argc > 1 ? strtol(argv[1], NULL, 10) : 5;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL) << 20;
    char *paths[FUZZ_IMAGES];
    damage_random = random_next;
    size_t count = damage_images(prefix, paths, FUZZ_IMAGES);
    for (size_t i = 0; i < count; i++) {
        if (!image_load(&fuzz_image[i], paths[i]) || !damage_open(&fuzz_hostile[i], &fuzz_image[i]))
            return 1;
        free(paths[i]);
    }
    if (count == 0) {
        printf("no images: run it in the top folder\n");
        return 1;
    }
    uint64_t runs = 0;
    time_t end = time(NULL) + seconds;
    do {
        random_state = seed + runs; /* a failing run's seed alone repeats it */
        if (!fuzz_once(count)) {
            printf("seed %" PRIu64 "\n", seed + runs);
            return 1;
        }
        runs++;
    } while (time(NULL) < end);
    for (size_t i = 0; i < count; i++) {
        damage_close(&fuzz_hostile[i]);
        image_free(&fuzz_image[i]);
    }
    printf("%s: %" PRIu64 " runs from seed %" PRIu64 "\n", prefix, runs, seed);
    return 0;
}

#endif
