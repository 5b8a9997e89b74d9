/* What the reader says of a heap in arrays (ptmalloc_image.h), beside what it is. */
#ifndef TESTS_UNIT_PTMALLOC_IMAGE_CHECK_H
#define TESTS_UNIT_PTMALLOC_IMAGE_CHECK_H

#include "unit/ptmalloc_image.h"
#include "unit/tap.h"

static enum hi_code image_open(struct target *target, struct heaps **heaps)
{
    struct heap_context context = {.target = target};
    struct hi_err err = {0};
    return heaps_open(heaps, &context, NULL, &err);
}

static enum block_state wanted_state(enum image_kind kind)
{
    if (kind == IMAGE_FREE)
        return BLOCK_FREE;
    return kind == IMAGE_FAST || kind == IMAGE_CACHED ? BLOCK_CACHED : BLOCK_LIVE;
}

static bool state_holds(enum block_state state, enum image_kind kind)
{
    return kind == IMAGE_IN_HANDS ? state == BLOCK_LIVE || state == BLOCK_IN_FLIGHT
                                  : state == wanted_state(kind);
}

/* Chunks that are not what the image says. */
static unsigned mistakes(const struct image *image, const struct heaps *heaps)
{
    unsigned wrong = 0;
    for (size_t i = 0; i < image->count; i++) {
        const struct image_chunk *chunk = &image->chunks[i];
        struct block_place place;
        bool right = blocks_at(heaps->blocks, chunk->address + 16, &place) && place.offset == 0 &&
                     state_holds(blocks_state(heaps->blocks, place.block), chunk->kind) &&
                     blocks_usable(heaps->blocks, place.block) == chunk->bytes - 8;
        wrong += !right;
    }
    for (unsigned i = 0; i < 3; i++) {
        struct block_place place;
        bool right = blocks_at(heaps->blocks, image->mapped_user[i], &place) && place.offset == 0 &&
                     blocks_is_live(heaps->blocks, place.block) &&
                     blocks_usable(heaps->blocks, place.block) == image->mapped_usable[i];
        wrong += !right;
    }
    return wrong;
}

__attribute__((unused)) static bool noticed(const struct heaps *heaps)
{
    bool seen = heaps->findings.count > 0 || heaps->count == 0;
    for (size_t h = 0; h < heaps->count; h++)
        for (size_t c = 0; c < heaps->heaps[h].check_count; c++)
            seen |= !heaps->heaps[h].checks[c].agree;
    for (size_t a = 0; a < heaps->arenas.count; a++)
        seen |= heaps->arenas.items[a].state != ARENA_OK;
    return seen;
}

static void print_trouble(const struct heaps *heaps)
{
    for (size_t i = 0; i < heaps->findings.count && i < 6; i++)
        printf("#   %s: 0x%" PRIx64 ": %s\n", heaps->findings.items[i].rule,
               heaps->findings.items[i].address, heaps->findings.items[i].detail);
    for (size_t c = 0; heaps->count && c < heaps->heaps[0].check_count; c++)
        printf("#   %s %s: %" PRIu64 " %" PRIu64 "\n",
               heaps->heaps[0].checks[c].agree ? "agree" : "DIFFER", heaps->heaps[0].checks[c].name,
               heaps->heaps[0].checks[c].reported, heaps->heaps[0].checks[c].walked);
}

#endif
