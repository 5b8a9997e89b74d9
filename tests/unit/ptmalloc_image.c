/*
 * The ptmalloc reader on heaps in arrays (ptmalloc_image.h): every row of the layouts exactly; and
 * damage of every word, and each read failing: an end with a code or a finding, and what was not
 * touched stays what it was.
 */
#include "unit/ptmalloc_image_check.h"

#include <stdlib.h>
#include <time.h>

static void check_release(struct image *image, const struct image_release *release)
{
    struct heaps *heaps = NULL;
    image_build(image, release);
    struct target *target = image_target(image);
    if (!ok(target && image_open(target, &heaps) == HI_OK && heaps->count == 1, "%s: opens",
            release->name)) {
        target_close(target);
        return;
    }
    const struct ptmalloc *p = heaps->heaps[0].state;
    is_u64(mistakes(image, heaps), 0, "every chunk is what it is");
    if (!ok(!noticed(heaps) && heaps->heaps[0].check_count >= 5, "no finding, all totals agree"))
        print_trouble(heaps);
    ok(p->state == &ptmalloc_state_layouts[release->state] &&
           p->par == &ptmalloc_par_layouts[release->par] &&
           p->heap == &ptmalloc_heap_layouts[release->heap] &&
           (release->tcache < 0 ? !p->tcache
                                : p->tcache == &ptmalloc_tcache_layouts[release->tcache]),
       "%s: the rows are its own (%s, %s, %s, %s)", release->name, p->state->versions,
       p->par ? p->par->versions : "none", p->heap ? p->heap->versions : "none",
       p->tcache ? p->tcache->versions : "none");
    ok(release->tcache < 0 ||
           (heaps->kept.count == 1 && heaps->kept.items[0].address == image->tcache),
       "%s: the thread cache is kept by name", release->name);
    ok(heaps->arenas.count == 3 && heaps->arenas.items[1].tid_count == 1 &&
           heaps->arenas.items[1].tids[0] == IMAGE_TID,
       "%s: the thread's arena", release->name);
    heaps_close(heaps);
    target_close(target);
}

/* -- damage -------------------------------------------------------------------------------------
 */

struct damage {
    unsigned opened, refused, silent_headers, far_mistakes, most;
};

static bool is_header(const struct image *image, hi_addr address)
{
    for (size_t i = 0; i < image->count; i++)
        if (image->chunks[i].address + 8 == address)
            return true;
    return false;
}

/* The new size ends where another chunk starts: two became one, and it is a heap as before. */
static bool is_still_a_heap(const struct image *image, hi_addr address, uint64_t value)
{
    hi_addr end = address - 8 + (value & ~UINT64_C(7));
    return !(value & 10) && is_header(image, end + 8) && end > address;
}

static void flip_word(struct image *image, hi_addr address, uint64_t value, struct damage *damage)
{
    uint64_t before = get64(image, address);
    struct heaps *heaps = NULL;
    put64(image, address, value);
    struct target *target = image_target(image);
    enum hi_code code = image_open(target, &heaps);
    put64(image, address, before);
    if (code == HI_OK && heaps->count == 1) {
        unsigned wrong = mistakes(image, heaps);
        damage->opened++;
        damage->most = wrong > damage->most ? wrong : damage->most;
        bool silent = is_header(image, address) && wrong && !noticed(heaps) &&
                      !is_still_a_heap(image, address, value);
        if (silent && damage->silent_headers++ < 3)
            printf("#   header at 0x%" PRIx64 ": 0x%" PRIx64 " for 0x%" PRIx64 "\n", address - 8,
                   value, before);
        if (is_header(image, address) && wrong > 16) {
            if (damage->far_mistakes++ < 3) {
                printf("#   header at 0x%" PRIx64 ": %u chunks wrong\n", address - 8, wrong);
                print_trouble(heaps);
            }
        }
    } else {
        damage->refused++;
    }
    heaps_close(heaps);
    target_close(target);
}

static void flip_all(struct image *image, const struct image_release *release)
{
    static const struct hi_range ranges[] = {
        {IMAGE_MAIN, IMAGE_MAIN + 0x8a0},
        {IMAGE_PAR, IMAGE_PAR + 0x90},
        {IMAGE_BREAK, IMAGE_BREAK + IMAGE_BREAK_BYTES},
        {IMAGE_HEAP, IMAGE_HEAP + IMAGE_HEAP_BYTES},
        {IMAGE_MAPPED, IMAGE_MAPPED + 0x20},
        {IMAGE_MAPPED + 0x2ff0, IMAGE_MAPPED + 0x3010},
        {IMAGE_FS - 0x80, IMAGE_FS},
    };
    struct damage damage = {0};
    image_build(image, release);
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
        for (hi_addr at = ranges[r].start; at < ranges[r].end; at += 8) {
            flip_word(image, at, ~get64(image, at), &damage);
            flip_word(image, at, get64(image, at) + 0x40, &damage);
            flip_word(image, at, IMAGE_BREAK + 0x800, &damage);
        }
    clock_gettime(CLOCK_MONOTONIC, &end);
    ok(damage.opened > 0, "%s: %u damaged heaps are read, %u refused, %ld s", release->name,
       damage.opened, damage.refused, (long)(end.tv_sec - start.tv_sec));
    is_u64(damage.silent_headers, 0, "a damaged chunk header is never silent");
    ok(damage.far_mistakes == 0,
       "%s: a damaged header costs no more than the chunks around it (%u times more; at most %u by "
       "any word)",
       release->name, damage.far_mistakes, damage.most);
}

/* A size word that is none: chunk and neighbours become suspect, in one range that says so. */
static void suspects(struct image *image)
{
    image_build(image, &image_releases[7]);
    struct heaps *heaps = NULL;
    const struct image_chunk *broken = NULL;
    for (size_t i = 4; i < image->count && !broken; i++)
        if (image->chunks[i].kind == IMAGE_LIVE)
            broken = &image->chunks[i];
    put64(image, broken->address + 8, UINT64_C(0x4141414141414141));
    struct target *target = image_target(image);
    ok(image_open(target, &heaps) == HI_OK && heaps->suspect.count == 1 &&
           heaps->suspect.items[0].start <= broken->address + 16 &&
           heaps->suspect.items[0].end >= broken->address + broken->bytes,
       "a smashed chunk lies in what is suspect");
    for (size_t i = 0; i < image->count; i++) {
        struct block_place place;
        hi_addr user = image->chunks[i].address + 16;
        if (!blocks_at(heaps->blocks, user, &place) || place.offset ||
            blocks_state(heaps->blocks, place.block) != BLOCK_SUSPECT)
            continue;
        const struct hi_range *range = &heaps->suspect.items[0];
        if (user < range->start || user >= range->end)
            ok(false, "0x%" PRIx64 " is suspect and in no range", user);
    }
    heaps_close(heaps);
    target_close(target);
}

/* A thread inside, after mremap() and before the new size: the old one covers two others. */
static void stale_size(struct image *image, const struct image_release *release)
{
    struct heaps *heaps = NULL;
    image_build(image, release);
    uint64_t before = get64(image, IMAGE_MAPPED + 8);
    put64(image, IMAGE_MAPPED + 8, before + 4 * 4096);
    put32(image, IMAGE_MAIN, 1); /* its mutex */
    struct target *target = image_target(image);
    bool opened = image_open(target, &heaps) == HI_OK && heaps->count == 1;
    ok(opened && mistakes(image, heaps) == 0, "%s: mapped chunks behind a stale size are found",
       release->name);
    heaps_close(heaps);
    target_close(target);
}

/* An aligned chunk that realloc() has moved and made larger: three pages behind its start, which
 * has the old header of four pages. */
static void moved(struct image *image, const struct image_release *release)
{
    struct heaps *heaps = NULL;
    image_build(image, release);
    bool new = release->mapped_new;
    hi_addr base = IMAGE_MAPPED + 2 * 4096, chunk = base + 3 * 4096 - 16, last = base + 5 * 4096;
    memset(image_at(image, base), 0, 6 * 4096);
    put64(image, base + 8, (4 * 4096 - (new ? 16 : 0)) | 2);
    put64(image, chunk, 3 * 4096 - 16);
    put64(image, chunk + 8, (2 * 4096 + 16 - (new ? 16 : 0)) | 2);
    put64(image, last + 8, (4096 - (new ? 16 : 0)) | 2);
    put64(image, IMAGE_PAR + ptmalloc_par_layouts[release->par].mmapped_mem, 8 * 4096);
    image->mapped_user[1] = chunk + 16;
    image->mapped_usable[1] = 2 * 4096 - (new ? 8 : 0);
    image->mapped_user[2] = last + 16;
    struct target *target = image_target(image);
    bool opened = image_open(target, &heaps) == HI_OK && heaps->count == 1;
    if (!ok(opened && mistakes(image, heaps) == 0 && !noticed(heaps),
            "%s: an aligned mapped chunk that has moved", release->name) &&
        opened)
        print_trouble(heaps);
    heaps_close(heaps);
    target_close(target);
}

static void fail_reads(struct image *image, const struct image_release *release)
{
    image_build(image, release);
    unsigned silent = 0, n = 0, tried = 0;
    for (n = 1; n < 100000; n++) {
        struct heaps *heaps = NULL;
        struct target *target = image_target(image);
        target_bytes_fail_read(target, n);
        enum hi_code code = image_open(target, &heaps);
        unsigned char byte;
        /* not reached any more: the failure still waits */
        bool waits = target_read(target, IMAGE_LIBC, &byte, 1, NULL) != HI_OK;
        tried++;
        if (code == HI_OK && heaps->count && mistakes(image, heaps) && !noticed(heaps))
            printf("#   read %u: %u chunks wrong\n", n, mistakes(image, heaps)), silent++;
        heaps_close(heaps);
        target_close(target);
        if (waits)
            break;
    }
    ok(tried > 10 && n < 100000, "%s: each of %u reads can fail", release->name, tried);
    is_u64(silent, 0, "and none of it goes unnoticed");
}

static void idle(struct image *image)
{
    struct heaps *heaps = NULL;
    const struct ptmalloc_state_layout *state = &ptmalloc_state_layouts[2];
    image_build(image, &image_releases[7]);
    memset(image->libc, 0, sizeof image->libc);
    put64(image, IMAGE_MAIN + state->next, IMAGE_MAIN);
    put64(image, IMAGE_MAIN + state->attached, 1);
    struct target *target = image_target(image);
    ok(image_open(target, &heaps) == HI_OK && heaps->count == 1 && !heaps->heaps[0].active &&
           heaps->findings.count == 0,
       "an arena that was never used is idle");
    heaps_close(heaps);
    target_close(target);
}

int main(void)
{
    struct image *image = malloc(sizeof *image);
    image_reader = ptmalloc_reader;
    image_reader.probe = image_probe;
    for (size_t i = 0; i < IMAGE_RELEASES; i++)
        check_release(image, &image_releases[i]);
    idle(image);
    suspects(image);
    stale_size(image, &image_releases[7]);
    stale_size(image, &image_releases[9]);
    moved(image, &image_releases[7]);
    moved(image, &image_releases[9]);
    flip_all(image, &image_releases[7]);
    flip_all(image, &image_releases[9]);
    fail_reads(image, &image_releases[7]);
    fail_reads(image, &image_releases[0]);
    free(image);
    return done();
}
