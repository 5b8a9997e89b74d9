/*
 * A small heap of glibc in arrays, made by hand for any row of the layouts: a main arena on the
 * break, a second arena with a heap of its own, a thread cache with entries, a fast bin, free
 * chunks in a bin, mapped chunks (one of them aligned, with its stale first header). The test knows
 * every chunk's state.
 */
#ifndef TESTS_UNIT_PTMALLOC_IMAGE_H
#define TESTS_UNIT_PTMALLOC_IMAGE_H

#include "heap/ptmalloc.h"

#include <string.h>

#define IMAGE_LIBC   UINT64_C(0x7f1234000000)
#define IMAGE_MAIN   (IMAGE_LIBC + 0x100)
#define IMAGE_PAR    (IMAGE_LIBC + 0xc00)
#define IMAGE_BREAK  UINT64_C(0x555555559000)
#define IMAGE_HEAP   UINT64_C(0x7f0004000000)
#define IMAGE_MAPPED UINT64_C(0x7f1000000000)
#define IMAGE_TLS    UINT64_C(0x7f2000000000)
#define IMAGE_FS     (IMAGE_TLS + 0x740)
enum {
    IMAGE_LIBC_BYTES = 0x2000,
    IMAGE_BREAK_BYTES = 0x3000,
    IMAGE_HEAP_BYTES = 0x3000,
    IMAGE_MAPPED_BYTES = 0x8000,
    IMAGE_TLS_BYTES = 0x1000,
    IMAGE_PIECES_BYTES = 0x10000,
    IMAGE_TCACHE_SLOT = 0x48,
    IMAGE_ARENA_SLOT = 0x38,
    IMAGE_MAX_CHUNKS = 600,
    IMAGE_TID = 4711,
};

enum image_kind { IMAGE_LIVE, IMAGE_FREE, IMAGE_FAST, IMAGE_CACHED, IMAGE_TCACHE, IMAGE_IN_HANDS };

struct image_release {
    const char *name;
    unsigned state, par, heap; /* rows */
    int tcache;                /* row; -1: none */
    bool mangled, mapped_new;
};

struct image_chunk {
    hi_addr address; /* chunk */
    uint64_t bytes;
    enum image_kind kind;
};

struct image {
    struct image_release release;
    unsigned char libc[IMAGE_LIBC_BYTES], brk[IMAGE_BREAK_BYTES], heap[IMAGE_HEAP_BYTES];
    unsigned char mapped[IMAGE_MAPPED_BYTES], tls[IMAGE_TLS_BYTES];
    unsigned char pieces[IMAGE_PIECES_BYTES]; /* more memory of the main arena */
    hi_addr pieces_at;                        /* 0: it is not there */
    uint64_t registers[2];                    /* of the thread: rbx, rsi */
    struct image_chunk chunks[IMAGE_MAX_CHUNKS];
    size_t count;
    hi_addr tcache, mapped_user[3];
    uint64_t mapped_usable[3];
};

static unsigned char *image_at(struct image *image, hi_addr address)
{
    if (address - IMAGE_LIBC < IMAGE_LIBC_BYTES)
        return image->libc + (address - IMAGE_LIBC);
    if (address - IMAGE_BREAK < IMAGE_BREAK_BYTES)
        return image->brk + (address - IMAGE_BREAK);
    if (address - IMAGE_HEAP < IMAGE_HEAP_BYTES)
        return image->heap + (address - IMAGE_HEAP);
    if (address - IMAGE_MAPPED < IMAGE_MAPPED_BYTES)
        return image->mapped + (address - IMAGE_MAPPED);
    if (image->pieces_at && address - image->pieces_at < IMAGE_PIECES_BYTES)
        return image->pieces + (address - image->pieces_at);
    return image->tls + (address - IMAGE_TLS) % IMAGE_TLS_BYTES;
}

static void put64(struct image *image, hi_addr address, uint64_t value)
{
    memcpy(image_at(image, address), &value, sizeof value);
}

static uint64_t get64(struct image *image, hi_addr address)
{
    uint64_t value;
    memcpy(&value, image_at(image, address), sizeof value);
    return value;
}

static void put32(struct image *image, hi_addr address, uint32_t value)
{
    memcpy(image_at(image, address), &value, sizeof value);
}

static uint64_t image_link(const struct image *image, hi_addr place, uint64_t value)
{
    return image->release.mangled ? value ^ place >> 12 : value;
}

/* One arena's pattern of chunks from first to its top, and what lists name them. */
static hi_addr image_fill(struct image *image, hi_addr arena, hi_addr first, hi_addr end,
                          unsigned non_main)
{
    static const unsigned sizes[] = {0x20, 0x90, 0x30, 0x40, 0x110, 0x20, 0x60, 0x20, 0x70, 0x30};
    const struct ptmalloc_state_layout *state = &ptmalloc_state_layouts[image->release.state];
    bool has_fast = state->fastbins != PTMALLOC_NONE, before_free = false;
    hi_addr at = first, bin = arena + state->bins - 16, last_free = bin;
    hi_addr fast[PTMALLOC_FASTBINS] = {0};
    put64(image, bin + 16, bin);
    for (unsigned n = 0; at + 0x700 < end; n++) {
        struct image_chunk *chunk = &image->chunks[image->count++];
        uint64_t bytes = sizes[n % 10];
        enum image_kind kind = n % 10 == 1 ? IMAGE_FREE : n % 7 == 3 ? IMAGE_FAST : IMAGE_LIVE;
        if (n % 11 == 5 && image->release.tcache >= 0)
            kind = IMAGE_CACHED;
        if (kind == IMAGE_FAST && (!has_fast || bytes > 0x80))
            kind = IMAGE_LIVE;
        if (n == 0 && image->release.tcache >= 0 && !image->tcache) {
            kind = IMAGE_TCACHE;
            bytes = ptmalloc_tcache_layouts[image->release.tcache].chunk_min;
            image->tcache = at + 16;
        }
        *chunk = (struct image_chunk){at, bytes, kind};
        memset(image_at(image, at + 16), 0x41 + n % 26, bytes - 16);
        put64(image, at + 8, bytes | (before_free ? 0 : 1) | (kind == IMAGE_FREE ? 0 : non_main));
        if (kind == IMAGE_FREE) {
            put64(image, at + 16, bin); /* fd of the last */
            put64(image, at + 24, last_free);
            put64(image, last_free + 16, at);
            put64(image, bin + 24, at);
            last_free = at;
            put64(image, at + bytes, bytes);
        } else if (kind == IMAGE_FAST) {
            unsigned i = (unsigned)(bytes / 16) - 2;
            put64(image, at + 16, image_link(image, at + 16, fast[i]));
            fast[i] = at;
            put64(image, arena + state->fastbins + 8 * (hi_addr)i, at);
        }
        before_free = kind == IMAGE_FREE;
        at += bytes;
    }
    if (before_free) { /* the top has no free neighbour */
        image->chunks[image->count++] = (struct image_chunk){at, 0x20, IMAGE_LIVE};
        put64(image, at + 8, 0x20 | non_main);
        at += 0x20;
    }
    put64(image, at + 8, (end - at) | 1);
    return at;
}

static void image_arena(struct image *image, hi_addr arena, hi_addr next, uint64_t system,
                        uint32_t flags)
{
    const struct ptmalloc_state_layout *state = &ptmalloc_state_layouts[image->release.state];
    for (unsigned i = 0; i < PTMALLOC_BINS; i++) {
        hi_addr bin = arena + state->bins + 16 * (hi_addr)i - 16;
        put64(image, bin + 16, bin);
        put64(image, bin + 24, bin);
    }
    put64(image, arena + state->next, next);
    put32(image, arena + state->flags, flags);
    if (state->attached != PTMALLOC_NONE)
        put64(image, arena + state->attached, 1);
    put64(image, arena + state->system_mem, system);
    put64(image, arena + state->system_mem + 8, system);
}

static void image_tcache(struct image *image)
{
    if (image->release.tcache < 0)
        return;
    const struct ptmalloc_tcache_layout *row = &ptmalloc_tcache_layouts[image->release.tcache];
    unsigned char counts[2 * PTMALLOC_MAX_TCACHE_BINS] = {0};
    memset(image_at(image, image->tcache), 0, row->bytes);
    for (size_t i = 0; i < image->count; i++) {
        const struct image_chunk *chunk = &image->chunks[i];
        unsigned bin = (unsigned)(chunk->bytes / 16) - 2;
        hi_addr user = chunk->address + 16, head = image->tcache + row->entries + 8 * (hi_addr)bin;
        if (chunk->kind != IMAGE_CACHED)
            continue;
        put64(image, user, image_link(image, user, get64(image, head)));
        put64(image, user + 8, UINT64_C(0x6b65796b65796b65));
        put64(image, head, user);
        counts[bin]++;
    }
    for (unsigned i = 0; i < row->bins; i++) {
        uint16_t count = row->counts_down ? (uint16_t)(16 - counts[i]) : counts[i];
        memcpy(image_at(image, image->tcache + (hi_addr)i * row->count_bytes), &count,
               row->count_bytes);
    }
    put64(image, IMAGE_FS - IMAGE_TCACHE_SLOT, image->tcache);
}

/* A plain one of two pages, one aligned to 4096 in three, and one of one page. */
static void image_mapped(struct image *image)
{
    static const unsigned pages[] = {2, 3, 1};
    hi_addr base = IMAGE_MAPPED;
    bool new = image->release.mapped_new;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t total = pages[i] * UINT64_C(4096), lead = i == 1 ? 4080 : 0;
        put64(image, base + 8, (total - (new ? 16 : 0)) | 2);
        if (lead) {
            put64(image, base + lead, lead);
            put64(image, base + lead + 8, (total - lead - (new ? 16 : 0)) | 2);
        }
        image->mapped_user[i] = base + lead + 16;
        image->mapped_usable[i] = total - lead - 16 - (new ? 8 : 0);
        base += total;
    }
}

static void image_par(struct image *image)
{
    const struct ptmalloc_par_layout *par = &ptmalloc_par_layouts[image->release.par];
    put64(image, IMAGE_PAR, 131072);
    put64(image, IMAGE_PAR + 8, 131072);
    put64(image, IMAGE_PAR + 16, 131072);
    put64(image, IMAGE_PAR + 24, 8);
    put32(image, IMAGE_PAR + par->n_mmaps, 3);
    put32(image, IMAGE_PAR + par->n_mmaps + 4, 65536);
    put32(image, IMAGE_PAR + par->n_mmaps + 8, 5);
    put64(image, IMAGE_PAR + par->mmapped_mem, 6 * 4096);
    put64(image, IMAGE_PAR + par->mmapped_mem + 8, 9 * 4096);
    put64(image, IMAGE_PAR + par->sbrk_base, IMAGE_BREAK);
    if (par->tcache_count == PTMALLOC_NONE)
        return;
    put64(image, IMAGE_PAR + par->tcache_count - 16, 64);
    put64(image, IMAGE_PAR + par->tcache_count - 8, 1033);
    put64(image, IMAGE_PAR + par->tcache_count,
          image->release.tcache >= 0 && ptmalloc_tcache_layouts[image->release.tcache].counts_down
              ? 16
              : 7);
}

static void image_build(struct image *image, const struct image_release *release)
{
    memset(image, 0, sizeof *image);
    image->release = *release;
    const struct ptmalloc_state_layout *state = &ptmalloc_state_layouts[release->state];
    unsigned head = ptmalloc_heap_layouts[release->heap].bytes;
    hi_addr second = IMAGE_HEAP + head;
    image_arena(image, IMAGE_MAIN, second, IMAGE_BREAK_BYTES, 0);
    image_arena(image, second, IMAGE_MAIN, IMAGE_HEAP_BYTES, 2);
    put64(image, IMAGE_HEAP, second);
    put64(image, IMAGE_HEAP + 16, IMAGE_HEAP_BYTES);
    put64(image, IMAGE_HEAP + 24, IMAGE_HEAP_BYTES);
    hi_addr top = image_fill(image, IMAGE_MAIN, IMAGE_BREAK, IMAGE_BREAK + IMAGE_BREAK_BYTES, 0);
    put64(image, IMAGE_MAIN + state->top, top);
    hi_addr first = (second + state->bytes + 15) & ~UINT64_C(15);
    top = image_fill(image, second, first, IMAGE_HEAP + IMAGE_HEAP_BYTES, 4);
    put64(image, second + state->top, top);
    image_tcache(image);
    image_mapped(image);
    image_par(image);
    put64(image, IMAGE_FS - IMAGE_ARENA_SLOT, second);
}

static struct target *image_target(struct image *image)
{
    enum { RW = MAPPING_READ | MAPPING_WRITE };
    bool on_break = image->pieces_at == IMAGE_BREAK + IMAGE_BREAK_BYTES;
    const struct target_segment segments[] = {
        {IMAGE_BREAK, image->brk, IMAGE_BREAK_BYTES, RW, "[heap]"},
        {IMAGE_HEAP, image->heap, IMAGE_HEAP_BYTES, RW, NULL},
        {IMAGE_MAPPED, image->mapped, IMAGE_MAPPED_BYTES, RW, NULL},
        {IMAGE_LIBC, image->libc, IMAGE_LIBC_BYTES, RW, "/lib/libc.so.6"},
        {IMAGE_TLS, image->tls, IMAGE_TLS_BYTES, RW, NULL},
        {image->pieces_at, image->pieces, IMAGE_PIECES_BYTES, RW, on_break ? "[heap]" : NULL},
    };
    size_t count = sizeof segments / sizeof *segments - !image->pieces_at;
    struct thread thread = {.tid = IMAGE_TID, .has_registers = true, .fs_base = IMAGE_FS};
    struct target *target = NULL;
    enum { RBX = 5, RSI = 13 };
    thread.registers[RBX] = image->registers[0];
    thread.registers[RSI] = image->registers[1];
    if (target_open_bytes(&target, segments, count, NULL) != HI_OK ||
        target_add_registers(target, &thread, NULL) != HI_OK)
        return NULL;
    return target;
}

/* The reader with its roots given, and a row of each kind. */
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

static const struct image_release image_releases[] = {
    {"2.17", 0, 4, 1, -1, false, false}, {"2.23", 1, 4, 1, -1, false, false},
    {"2.25", 1, 3, 1, -1, false, false}, {"2.26", 1, 2, 1, 0, false, false},
    {"2.29", 2, 2, 1, 0, false, false},  {"2.31", 2, 2, 1, 1, false, false},
    {"2.34", 2, 2, 1, 1, true, false},   {"2.41", 2, 1, 0, 1, true, false},
    {"2.42", 2, 1, 0, 2, true, false},   {"2.43", 3, 0, 0, 2, true, true},
};
enum { IMAGE_RELEASES = sizeof image_releases / sizeof *image_releases };

#endif
