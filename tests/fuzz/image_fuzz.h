/*
 * Damaged processes: the stored images (tests/images) of one allocator with words changed at random
 * and reads that fail, walked by its reader. Any answer will do; a crash, a hang or a failure of
 * ours will not. What the fuzzers of the allocators share.
 */
#ifndef TESTS_FUZZ_IMAGE_FUZZ_H
#define TESTS_FUZZ_IMAGE_FUZZ_H

#include "fuzz.h"
#include "unit/image_damage.h"

enum { FUZZ_IMAGES = 64 };

static struct hostile fuzz_hostile[FUZZ_IMAGES];
static struct heap_image fuzz_image[FUZZ_IMAGES];

static bool fuzz_once(size_t count)
{
    struct hostile *hostile = &fuzz_hostile[next_random() % count];
    damage_words(hostile->image, 1 + (unsigned)(next_random() % (IMAGE_PATCHES - 1)));
    hostile->image->fail_read = next_random() % 4 ? 0 : 1 + next_random() % 2000;
    return damage_walk(hostile);
}

/* prefix: of the images' names. */
__attribute__((unused)) static int fuzz_main(const char *prefix, int argc, char **argv)
{
    char *paths[FUZZ_IMAGES];
    damage_random = next_random;
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
    struct fuzz fuzz = fuzz_begin(argc, argv);
    do {
        fuzz_run(&fuzz);
        if (!fuzz_once(count)) {
            printf("seed %" PRIu64 "\n", fuzz.seed + fuzz.runs);
            return 1;
        }
    } while (fuzz_goes_on(&fuzz));
    for (size_t i = 0; i < count; i++) {
        damage_close(&fuzz_hostile[i]);
        image_free(&fuzz_image[i]);
    }
    return fuzz_end(&fuzz, prefix);
}

#endif
