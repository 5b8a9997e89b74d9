/*
 * Damaged heaps of glibc: a small heap in arrays (tests/unit/ptmalloc_image.h), of any row of the
 * layouts, is changed at random, or is random altogether, and is walked and asked. Any answer will
 * do; a crash, a hang or a failure of ours will not.
 *
 *   ptmalloc_fuzz [SECONDS [SEED]]
 */
#include "unit/ptmalloc_image.h"
#include "fuzz.h"

#include <inttypes.h>

enum { MOST_CHANGES = 12 };

/* What can be changed: all memory of an image, as one array of words. */
static const struct {
    hi_addr start;
    uint64_t bytes;
} parts[] = {{IMAGE_LIBC, 0x1000},
             {IMAGE_BREAK, IMAGE_BREAK_BYTES},
             {IMAGE_HEAP, IMAGE_HEAP_BYTES},
             {IMAGE_MAPPED, IMAGE_MAPPED_BYTES},
             {IMAGE_TLS, 0x800}};
enum { PARTS = sizeof parts / sizeof *parts };

static hi_addr some_address(void)
{
    uint64_t part = next_random() % PARTS;
    return parts[part].start + next_random() % (parts[part].bytes / 8) * 8;
}

/* Numbers that a reader might stumble over: addresses, sizes with flags, ends of the world. */
static uint64_t likely_number(void)
{
    switch (next_random() % 8) {
    case 0:
    case 1:
        return some_address();
    case 2:
        return some_address() & ~UINT64_C(15);
    case 3:
        return (next_random() % 64) * 16 + next_random() % 8;
    case 4:
        return UINT64_C(1) << next_random() % 64;
    case 5:
        return -(next_random() % 64);
    case 6:
        return next_random() % 65536;
    default:
        return next_random();
    }
}

/* Words at random over a stretch. */
static void noise(struct image *image, hi_addr at, uint64_t words)
{
    for (; words > 0 && at % 4096 < 4088; words--, at += 8)
        put64(image, at, next_random() % 2 ? likely_number() : 0);
}

static void damage(struct image *image)
{
    for (uint64_t changes = 1 + next_random() % MOST_CHANGES; changes > 0; changes--) {
        switch (next_random() % 16) {
        case 0: /* from elsewhere */
            put64(image, some_address(), get64(image, some_address()));
            break;
        case 1:
            noise(image, some_address(), next_random() % 64);
            break;
        default:
            put64(image, some_address(), likely_number());
        }
    }
    if (next_random() % 64 == 0) /* of the heap, no byte is left */
        for (hi_addr at = IMAGE_BREAK; at < IMAGE_BREAK + IMAGE_BREAK_BYTES; at += 8)
            put64(image, at, likely_number());
}

static void ask(const struct heaps *heaps)
{
    for (unsigned i = 0; i < 64; i++) {
        struct block_place place;
        hi_addr address = likely_number();
        if (blocks_at(heaps->blocks, address, &place) &&
            blocks_address(heaps->blocks, place.block) > address)
            abort();
    }
}

static bool walk_once(struct image *image, uint64_t seed)
{
    struct target *target = image_target(image);
    if (!target)
        return false;
    if (next_random() % 8 == 0)
        target_bytes_fail_read(target, (unsigned)(1 + next_random() % 200));
    struct heap_context context = {.target = target};
    struct hi_range node = {IMAGE_MAPPED, IMAGE_MAPPED + IMAGE_MAPPED_BYTES};
    struct heaps_options options = {.nodes = &node, .node_count = 1};
    struct heaps *heaps = NULL;
    struct hi_err err = {0};
    enum hi_code code = heaps_open(&heaps, &context, &options, &err);
    if (code == HI_OK)
        ask(heaps);
    else
        fprintf(stderr, "seed %" PRIu64 ": code %d: %s\n", seed, code, err.message);
    heaps_close(heaps);
    target_close(target);
    return code == HI_OK;
}

int main(int argc, char **argv)
{
    static struct image sound[IMAGE_RELEASES], image;
    struct fuzz fuzz = fuzz_begin(argc, argv);
    image_reader = ptmalloc_reader;
    image_reader.probe = image_probe;
    for (size_t i = 0; i < IMAGE_RELEASES; i++)
        image_build(&sound[i], &image_releases[i]);
    do {
        fuzz_run(&fuzz);
        image = sound[next_random() % IMAGE_RELEASES];
        damage(&image);
        if (!walk_once(&image, fuzz.seed + fuzz.runs))
            return 1;
    } while (fuzz_goes_on(&fuzz));
    return fuzz_end(&fuzz, "heaps");
}
