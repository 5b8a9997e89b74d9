/*
 * The ptmalloc reader where a main arena has more than one piece, stopped in the middle of
 * sysmalloc() or of a cut from the top, and where a mapped chunk's old size reaches over other
 * memory: heaps in arrays, in the states in which glibc 2.36 was found by single steps and page
 * faults (the first touch of a new top takes long). Pieces on mappings, and on the break behind
 * memory that somebody else took.
 */
#include "unit/ptmalloc_image_check.h"

#include <stdlib.h>

#define ON_BREAK   (IMAGE_BREAK + IMAGE_BREAK_BYTES)
#define ON_MAPPING UINT64_C(0x7f1800000000)
enum { PAGE = 4096, FENCE = 0x11 };

static const struct image_release *const release = &image_releases[7];

/* What a thread in sysmalloc() has done of it. */
enum stage { TOP_MOVED, TOP_WRITTEN, OLD_TOP_CUT, ONE_FENCEPOST, BOTH_FENCEPOSTS, STAGES };
static const char *const stage_names[] = {"a top that nobody wrote", "a new top",
                                          "an old top less fenceposts", "one fencepost",
                                          "two fenceposts"};

static hi_addr top_slot(void)
{
    return IMAGE_MAIN + ptmalloc_state_layouts[release->state].top;
}

static hi_addr live(struct image *image, hi_addr at, uint64_t bytes)
{
    image->chunks[image->count++] = (struct image_chunk){at, bytes, IMAGE_LIVE};
    memset(image_at(image, at + 16), 0x51, bytes - 16);
    put64(image, at + 8, bytes | 1);
    return at + bytes;
}

/* The old top's last bytes become fenceposts, and what is in front of them is handed out. */
static void fence(struct image *image, hi_addr top, hi_addr end)
{
    live(image, top, end - top - 32);
    put64(image, end - 24, FENCE);
    put64(image, end - 8, FENCE);
}

/* The image, and pieces: on the break behind foreign memory of half a page, or on a mapping. */
static hi_addr pieces_build(struct image *image, bool on_break)
{
    image_build(image, release);
    fence(image, get64(image, top_slot()), IMAGE_BREAK + IMAGE_BREAK_BYTES);
    image->pieces_at = on_break ? ON_BREAK : ON_MAPPING;
    put32(image, IMAGE_MAIN, 1); /* the mutex */
    put32(image, IMAGE_MAIN + ptmalloc_state_layouts[release->state].flags, on_break ? 0 : 2);
    if (on_break)
        memset(image_at(image, image->pieces_at), 0x5e, 16);
    return image->pieces_at + (on_break ? 0x800 : 0);
}

static void judge(struct image *image, const char *format, ...)
{
    char name[160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    struct heaps *heaps = NULL;
    struct target *target = image_target(image);
    bool opened = image_open(target, &heaps) == HI_OK && heaps->count == 1;
    unsigned wrong = opened ? mistakes(image, heaps) : 1;
    if (!ok(opened && wrong == 0 && heaps->findings.count == 0, "%s (%u wrong)", name, wrong) &&
        opened)
        print_trouble(heaps);
    heaps_close(heaps);
    target_close(target);
}

/* Two blocks and the old top, of `bytes`, up to a page; the new top is the next piece. Behind the
 * first: nothing (as others leave it), or a mapped chunk. */
static void left_open(struct image *image, bool on_break, enum stage stage, uint64_t bytes,
                      bool followed)
{
    hi_addr end, at = pieces_build(image, on_break);
    at = live(image, at, 0x1230);
    at = live(image, at, 0x2010);
    end = (at + bytes + PAGE - 1) & ~(hi_addr)(PAGE - 1);
    at = live(image, at, end - at - bytes);
    hi_addr top = on_break ? end + 0x5010 : end + 3 * PAGE;
    uint64_t top_bytes = image->pieces_at + IMAGE_PIECES_BYTES - top;
    put64(image, at + 8, bytes | 1);
    put64(image, top_slot(), top);
    if (followed && !on_break) {
        put64(image, end + 8, PAGE | 2);
        put32(image, IMAGE_PAR + ptmalloc_par_layouts[release->par].n_mmaps, 4);
        put64(image, IMAGE_PAR + ptmalloc_par_layouts[release->par].mmapped_mem, 7 * PAGE);
    } else if (followed) {
        memset(image_at(image, end), 0x5e, 0x5010);
    }
    if (stage >= TOP_WRITTEN)
        put64(image, top + 8, top_bytes | 1);
    if (stage >= OLD_TOP_CUT)
        put64(image, at + 8, (bytes - 32) | 1);
    if (stage >= ONE_FENCEPOST)
        put64(image, end - 24, FENCE);
    if (stage >= BOTH_FENCEPOSTS)
        put64(image, end - 8, FENCE);
    judge(image, "%s, %s, %u bytes of old top%s", on_break ? "on the break" : "on mappings",
          stage_names[stage], (unsigned)bytes, followed ? ", something behind" : "");
}

/* Some blocks, and one more cut from the top, whose header is the old top's still; the new top is
 * not written. limit: nothing behind the piece. */
static void cut_from_top(struct image *image, bool on_break, bool limit, unsigned blocks)
{
    hi_addr at = pieces_build(image, on_break), end = image->pieces_at + IMAGE_PIECES_BYTES;
    for (unsigned i = 0; i < blocks; i++)
        at = live(image, at, 0x1230 + 0x100 * i);
    if (!limit)
        end -= 5 * PAGE;
    put64(image, at + 8, (end - at) | 1);
    put64(image, top_slot(), at + 0x2340);
    judge(image, "%s, %u blocks and a cut from the top, %s",
          on_break ? "on the break" : "on mappings", blocks,
          limit ? "with nothing behind" : "with memory behind");
}

/* A block was made smaller, and its rest has no header yet: a page that nobody touched. No list
 * names a chunk of this piece. The top is behind it, or (on mappings) in front. */
enum old_header { NO_OLD_HEADER, END_IN_REGISTER, SIZE_IN_REGISTER };

static void rest_unwritten(struct image *image, bool on_break, bool top_in_front,
                           enum old_header old)
{
    hi_addr at = pieces_build(image, on_break), end = image->pieces_at + IMAGE_PIECES_BYTES;
    hi_addr top = image->pieces_at + 9 * PAGE + 0x2340;
    if (top_in_front) {
        top = live(image, at, 0x2340);
        at += 5 * PAGE;
        put64(image, top + 8, (at - top) | 1);
    } else {
        live(image, image->pieces_at + 9 * PAGE, 0x2340);
        put64(image, top + 8, (end - top) | 1);
    }
    put64(image, top_slot(), top);
    at = live(image, live(image, at, 0x1230), 0x530);
    image->chunks[image->count - 1].kind = IMAGE_IN_HANDS;
    hi_addr rest = at, next = at + 0x2340;
    at = live(image, live(image, next, 0x20), 0x1110);
    end = ((at + PAGE + 0x40) & ~(hi_addr)(PAGE - 1));
    fence(image, at, end);
    if (old) { /* one in the rest that leads past the chunks behind it */
        put64(image, rest + 0x458, (at - rest - 0x450) | 1);
        image->registers[0] = old == END_IN_REGISTER ? next : (next - rest) | 1;
        image->registers[1] = rest;
    }
    judge(image, "%s, a rest without a header%s, the top %s",
          on_break ? "on the break" : "on mappings", old ? " but old ones" : "",
          top_in_front ? "in front" : "behind");
}

/* An aligned chunk that has moved and was made smaller since: its mapping's first page says the old
 * size, which reaches beyond memory, or over the chunks behind it. */
static void stale_behind_move(struct image *image, unsigned old_pages)
{
    image_build(image, release);
    hi_addr base = IMAGE_MAPPED + 2 * PAGE, chunk = base + 3 * PAGE - 16, last = base + 4 * PAGE;
    memset(image_at(image, base), 0, 6 * PAGE);
    put64(image, base + 8, (old_pages * PAGE) | 2);
    put64(image, chunk, 3 * PAGE - 16);
    put64(image, chunk + 8, (PAGE + 16) | 2);
    put64(image, last + 8, PAGE | 2);
    image->mapped_user[1] = chunk + 16;
    image->mapped_usable[1] = PAGE;
    image->mapped_user[2] = last + 16;
    /* a thread in munmap(), after the totals: they say nothing */
    put32(image, IMAGE_MAIN, 1);
    put32(image, IMAGE_PAR + ptmalloc_par_layouts[release->par].n_mmaps, 2);
    judge(image, "an aligned mapped chunk that has moved, over an old size of %u pages", old_pages);
}

/* A mapped chunk made smaller, whose header is not written yet, and a piece of the main arena where
 * its memory was. */
static void piece_behind_stale_size(struct image *image)
{
    hi_addr at = pieces_build(image, false), first = at + 2 * PAGE;
    const struct ptmalloc_par_layout *par = &ptmalloc_par_layouts[release->par];
    put64(image, at + 8, (5 * PAGE) | 2);
    at = live(image, live(image, first, 0x1230), 0x2010);
    put64(image, at + 8, (image->pieces_at + IMAGE_PIECES_BYTES - at) | 1);
    put64(image, top_slot(), at);
    put32(image, IMAGE_PAR + par->n_mmaps, 4);
    put64(image, IMAGE_PAR + par->mmapped_mem, 8 * PAGE);
    put64(image, IMAGE_MAIN + ptmalloc_state_layouts[release->state].system_mem,
          IMAGE_BREAK_BYTES + IMAGE_PIECES_BYTES - 2 * PAGE);
    judge(image, "a piece behind a size that is not yet written");
}

/* A block copied from the arena into a mapped chunk, with headers of before in it: one of them at a
 * page, with a chain that ends like an old top; while the new top is not written. */
static void old_headers_in_block(struct image *image)
{
    hi_addr at = pieces_build(image, false), top = at + 12 * PAGE;
    const struct ptmalloc_par_layout *par = &ptmalloc_par_layouts[release->par];
    put64(image, at + 8, (4 * PAGE) | 2);
    put64(image, at + PAGE + 8, 0x1231);
    put64(image, at + PAGE + 0x1230 + 8, 0xdd1);
    image->mapped_user[0] = at + 16;
    image->mapped_usable[0] = 4 * PAGE - 16;
    put32(image, IMAGE_PAR + par->n_mmaps, 4);
    put64(image, IMAGE_PAR + par->mmapped_mem, 10 * PAGE);
    put64(image, top_slot(), top);
    put64(image, IMAGE_MAIN + ptmalloc_state_layouts[release->state].system_mem,
          IMAGE_BREAK_BYTES + 4 * PAGE);
    judge(image, "old headers in a block, while the top is not written");
}

int main(void)
{
    static const unsigned tops[] = {0x20, 0x30, 0x40, 0xd20};
    struct image *image = malloc(sizeof *image);
    image_reader = ptmalloc_reader;
    image_reader.probe = image_probe;
    for (unsigned variant = 0; variant < 4; variant++)
        for (unsigned stage = 0; stage < STAGES; stage++)
            for (unsigned i = 0; i < sizeof tops / sizeof *tops; i++)
                left_open(image, variant & 1, (enum stage)stage, tops[i], variant & 2);
    for (unsigned variant = 0; variant < 12; variant++)
        cut_from_top(image, variant & 1, variant & 2, variant / 4);
    for (unsigned old = NO_OLD_HEADER; old <= SIZE_IN_REGISTER; old++) {
        rest_unwritten(image, true, false, (enum old_header)old);
        rest_unwritten(image, false, false, (enum old_header)old);
        rest_unwritten(image, false, true, (enum old_header)old);
    }
    for (unsigned pages = 4; pages < 40; pages += 3)
        stale_behind_move(image, pages);
    piece_behind_stale_size(image);
    old_headers_in_block(image);
    free(image);
    return done();
}
