/*
 * Layouts of glibc's malloc, x86-64: data, not code.
 *
 * Offsets are those of each release's own structures, by compiling them; the releases named in a
 * row have the same ones. The words that a reader needs and nothing else. A row is chosen by
 * evidence in the target (ptmalloc_find.c), never by a version number: distributions backport.
 */
#ifndef HEAP_PTMALLOC_LAYOUT_H
#define HEAP_PTMALLOC_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PTMALLOC_NONE UINT16_MAX /* the release has no such field */

enum {
    PTMALLOC_BINS = 127,        /* bin headers: unsorted, 62 small, 63 large, one unused */
    PTMALLOC_HEADER_BYTES = 16, /* prev_size, size: from chunk to what malloc returned */
    PTMALLOC_MIN_CHUNK_BYTES = 32,
    PTMALLOC_FASTBINS = 10,
    PTMALLOC_MAX_TCACHE_BINS = 76,
};
#define PTMALLOC_HEAP_MAX_BYTES (UINT64_C(64) << 20) /* unless huge pages say otherwise */

/* struct malloc_state: one an arena. */
struct ptmalloc_state_layout {
    const char *versions, *source;
    uint16_t mutex, flags, fastbins; /* bytes from the structure's start */
    uint16_t top, bins, next, attached, system_mem, bytes;
};

/* struct malloc_par: the one mp_. */
struct ptmalloc_par_layout {
    const char *versions, *source;
    uint16_t thp_page, hp_page; /* huge pages */
    uint16_t n_mmaps, mmapped_mem, sbrk_base, tcache_count, bytes;
    bool mremap_drifts; /* mmapped_mem grows by 16 too much with each mremap() */
};

/* struct tcache_perthread_struct. */
struct ptmalloc_tcache_layout {
    const char *versions, *source;
    uint16_t bins, count_bytes, entries, bytes;
    bool counts_down;              /* counts free slots, from mp_.tcache_count */
    bool keyed;                    /* entries carry a key of the process in their second word */
    uint16_t chunk_min, chunk_max; /* what it is allocated as; a rest under 32 bytes is not split */
    uint16_t small_bins;           /* bins below: one size each; from here on: sizes differ */
};

/* heap_info: the head of each mmapped heap of an arena that is not the main one. */
struct ptmalloc_heap_layout {
    const char *versions, *source;
    uint16_t bytes; /* also: the arena's place in its own first heap */
};

extern const struct ptmalloc_state_layout ptmalloc_state_layouts[];
extern const size_t ptmalloc_state_layout_count;
extern const struct ptmalloc_par_layout ptmalloc_par_layouts[];
extern const size_t ptmalloc_par_layout_count;
extern const struct ptmalloc_tcache_layout ptmalloc_tcache_layouts[];
extern const size_t ptmalloc_tcache_layout_count;
extern const struct ptmalloc_heap_layout ptmalloc_heap_layouts[];
extern const size_t ptmalloc_heap_layout_count;

#endif
