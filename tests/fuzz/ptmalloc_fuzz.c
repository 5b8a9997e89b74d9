/*
 * Damaged heaps of glibc: a small heap in arrays (tests/unit/ptmalloc_image.h), of any row of the
 * layouts, is changed at random, or is random altogether, and is walked and asked. Any answer will
 * do; a crash, a hang or a failure of ours will not.
 *
 *   ptmalloc_fuzz [SECONDS [SEED]]
 */
#include "unit/ptmalloc_image.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { RUN_LIMIT_SECONDS = 10, MOST_CHANGES = 12 };

static enum hi_code image_probe(const struct heap_context *context, unsigned instance,
                                struct probe *probe, struct hi_err *err)
{
    struct ptmalloc *p;
    if (instance)
        return HI_NOT_FOUND;
    enum hi_code code = ptmalloc_open_at(context, IMAGE_MAIN, IMAGE_PAR, &p, err);
    if (code != HI_OK)
        return code;
    probe->state = p;
    probe->active = ptmalloc_is_active(p);
    return HI_OK;
}

static struct heap_reader image_reader;
const struct heap_reader *const heap_readers[] = {&image_reader, NULL};

static const struct image_release releases[] = {
    {"2.17", 0, 4, 1, -1, false, false}, {"2.23", 1, 4, 1, -1, false, false},
    {"2.26", 1, 2, 1, 0, false, false},  {"2.31", 2, 2, 1, 1, false, false},
    {"2.34", 2, 2, 1, 1, true, false},   {"2.41", 2, 1, 0, 1, true, false},
    {"2.42", 2, 1, 0, 2, true, false},   {"2.43", 3, 0, 0, 2, true, true},
};
enum { RELEASES = sizeof releases / sizeof *releases };

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

static uint64_t random_state;

static uint64_t next_random(void)
{
    uint64_t x = random_state += 0x9e3779b97f4a7c15ULL;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

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
    alarm(RUN_LIMIT_SECONDS); /* dies by SIGALRM: a hang */
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
    time_t seconds = argc > 1 ? strtol(argv[1], NULL, 10) : 5;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL) << 20;
    time_t end = time(NULL) + seconds;
    static struct image sound[RELEASES], image;
    uint64_t runs = 0;
    image_reader = ptmalloc_reader;
    image_reader.probe = image_probe;
    for (size_t i = 0; i < RELEASES; i++)
        image_build(&sound[i], &releases[i]);
    do {
        random_state = seed + runs; /* a failing run's seed alone repeats it */
        image = sound[next_random() % RELEASES];
        damage(&image);
        if (!walk_once(&image, seed + runs))
            return 1;
        runs++;
    } while (time(NULL) < end);
    printf("ptmalloc_fuzz: %" PRIu64 " runs from seed %" PRIu64 "\n", runs, seed);
    return 0;
}
