/*
 * Damaged heaps: the metadata of a small himalloc heap (tests/unit/himalloc_image.h) changed at
 * random, walked, and asked. Any answer will do; a crash, a hang or a failure of ours will not.
 *
 *   himalloc_fuzz [SECONDS [SEED]]
 */
#include "heap/heap.h"
#include "unit/himalloc_image.h"
#include "fuzz.h"

#include <inttypes.h>

enum { MOST_CHANGES = 12 };

const struct heap_reader *const heap_readers[] = {&himalloc_reader, NULL};

/* Numbers that a reader might stumble over: addresses of the heap, sizes, ends of the world. */
static uint64_t likely_number(void)
{
    switch (next_random() % 8) {
    case 0:
        return IMAGE_META + next_random() % (2 * sizeof(struct image));
    case 1:
        return IMAGE_BASE + next_random() % (IMAGE_UNITS * (uint64_t)IMAGE_UNIT);
    case 2:
        return IMAGE_BIG + next_random() % (2 * IMAGE_BIG_BYTES);
    case 3:
        return UINT64_C(1) << next_random() % 64;
    case 4:
        return -(next_random() % 64);
    case 5:
        return next_random() % 64;
    case 6:
        return next_random() % 65536;
    default:
        return next_random();
    }
}

static void damage(struct image *image)
{
    size_t limit = next_random() % 8 ? offsetof(struct image, schema) : sizeof *image;
    char *bytes = (char *)image;
    for (uint64_t changes = 1 + next_random() % MOST_CHANGES; changes > 0; changes--) {
        static const size_t widths[] = {1, 2, 4, 8};
        size_t width = widths[next_random() % 4];
        size_t at = next_random() % (limit / width) * width;
        uint64_t number = likely_number();
        if (next_random() % 16 == 0) { /* a stretch of it is somewhere else's */
            size_t from = next_random() % limit, count = next_random() % 256;
            count = count < limit - from ? count : limit - from;
            count = count < limit - at ? count : limit - at;
            memmove(bytes + at, bytes + from, count);
        } else {
            memcpy(bytes + at, &number, width);
        }
    }
}

/* Notes lie apart: some of them become something else, until the next run. */
static void damage_notes(void)
{
    size_t count = sizeof image_notes / sizeof image_notes[0][0];
    struct image_note *notes = &image_notes[0][0];
    for (unsigned i = 0; i < 8; i++)
        notes[next_random() % (i % 2 ? count : 64)] = (struct image_note){
            (uint16_t)likely_number(), (uint32_t)likely_number(), (uint16_t)likely_number()};
}

/* Who allocated: of this block, and of any number. */
static void ask_stacks(struct heaps *heaps, hi_block block)
{
    struct heap_context context = {0};
    struct heap_frame frames[HEAP_FRAMES_MOST];
    struct heap_detail detail = {0};
    struct hi_err err;
    if (heaps_detail(heaps, &context, block, &detail, &err) != HI_OK)
        return;
    uint64_t stacks[] = {detail.stack_id, detail.freed_stack_id, next_random() % 16,
                         likely_number()};
    for (size_t s = 0; s < sizeof stacks / sizeof *stacks; s++) {
        size_t count = heaps_stack(heaps, &context, 0, stacks[s], frames, HEAP_FRAMES_MOST);
        for (size_t i = 0; i < count; i++)
            if (frames[i].address == 0 || frames[i].address >> 47 ||
                (frames[i].module && memchr(frames[i].module->path, 0, 4096) == NULL))
                abort();
    }
}

static void ask(struct heaps *heaps)
{
    for (unsigned i = 0; i < 64; i++) {
        struct block_place place;
        hi_addr address = likely_number();
        if (blocks_at(heaps->blocks, address, &place) &&
            blocks_address(heaps->blocks, place.block) > address)
            abort();
        if (blocks_at(heaps->blocks, address, &place))
            ask_stacks(heaps, place.block);
    }
}

static bool walk_once(const struct image *image, uint64_t seed)
{
    struct target *target = image_target(image);
    if (!target)
        return false;
    struct heap_context context = {.target = target};
    struct hi_range node = {IMAGE_BASE, IMAGE_BASE + IMAGE_UNITS * (uint64_t)IMAGE_UNIT};
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
    static struct image sound, image;
    struct fuzz fuzz = fuzz_begin(argc, argv);
    image_make(&sound);
    do {
        fuzz_run(&fuzz);
        image = sound;
        static struct image fresh; /* makes the notes anew, too: a run must not depend on others */
        image_make(&fresh);
        damage(&image);
        damage_notes();
        if (!walk_once(&image, fuzz.seed + fuzz.runs))
            return 1;
    } while (fuzz_goes_on(&fuzz));
    return fuzz_end(&fuzz, "heaps");
}
