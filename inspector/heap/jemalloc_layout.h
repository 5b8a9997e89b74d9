/*
 * jemalloc layouts: data, no code. One row a layout class; jemalloc.h says what the words mean.
 * Read from jemalloc's sources and checked against the DWARF of builds of each version named.
 */
#ifndef HEAP_JEMALLOC_LAYOUT_H
#define HEAP_JEMALLOC_LAYOUT_H

#include "heap/page_tree.h"

/* extent_structs.h (5.0 to 5.2), edata.h (5.3): 128 bytes, bits packed into the first word. */
struct jemalloc_extent_layout {
    const char *versions;
    unsigned state_shift, state_bits; /* 0 active, 1 dirty, 2 muzzy, 3 retained */
    unsigned size_class_shift;        /* 8 bits */
    unsigned free_count_shift;        /* 10 bits */
    uint64_t pointer_mask;            /* what of a packed leaf entry is not address */
};

/* tcache_structs.h, cache_bin.h. Where a thread's cache proves itself, and its bins. */
enum jemalloc_cache_kind {
    JEMALLOC_CACHE_SLOW,       /* 5.3: tcache -> tcache_slow -> tcache; stack grows down */
    JEMALLOC_CACHE_DESCRIPTOR, /* 5.1, 5.2: descriptor with pointers to its own bins */
    JEMALLOC_CACHE_RING,       /* 5.0: only a ring of caches */
};

struct jemalloc_cache_layout {
    const char *versions;
    enum jemalloc_cache_kind kind;
    unsigned self_offset;  /* SLOW: of tcache in tcache_slow; DESCRIPTOR: of bins_small in tcache;
                              RING: of the link */
    unsigned small_offset; /* bins of small classes */
    unsigned small_count;  /* most of them that there can be */
    unsigned large_offset; /* bins of large classes; 0: they follow the small ones */
    unsigned large_count;
    unsigned count_offset; /* DESCRIPTOR, RING: of ncached in a bin */
    unsigned stack_offset; /* of stack_head or avail in a bin */
    unsigned block_offset; /* SLOW: of dyn_alloc in tcache_slow */
    unsigned tsd_before;   /* of tcache in tsd, which holds nothing of the program's */
    unsigned tsd_bytes;
    unsigned arena_offset; /* of the arena's address in tcache_slow (SLOW), in tcache */
    unsigned decay_before; /* of arenas_tdata before tcache: a block of the allocator's; 0: none */
};

enum {
    JEMALLOC_WIDEST_POINTER_MASK = 0x7f,
    JEMALLOC_EXTENT_BYTES = 128,
    JEMALLOC_EXTENT_BITS_MAX = 42, /* no extent is larger than 4 TiB */
    JEMALLOC_EXTENT_ADDRESS = 8,   /* e_addr */
    JEMALLOC_EXTENT_SIZE = 16,     /* e_size_esn: size | serial number in the low 12 bits */
    JEMALLOC_EXTENT_BITMAP = 64,   /* slab_data: a set bit is a free region */
    JEMALLOC_BITMAP_WORDS = 8,
    JEMALLOC_SLAB_SHIFT = 12, /* in the first word: arena 0-11, slab 12 */
    JEMALLOC_BIN_BYTES = 24,
    JEMALLOC_FULL_LOW_BITS = 18,  /* 5.3: of low_bits_full */
    JEMALLOC_EMPTY_LOW_BITS = 20, /* 5.3: of low_bits_empty in a bin */
    JEMALLOC_BIN_COUNT = 36,      /* small size classes */
    JEMALLOC_SIZE_CLASSES = 232,
    JEMALLOC_STATE_MAX = 5, /* 4, 5: being merged or moved */
    JEMALLOC_ARENAS_MAX = 4096,
};

/* include/jemalloc/internal/rtree.h. A leaf entry of 8 bytes has size class and slab bit packed in.
 */
extern const struct page_tree_shape jemalloc_trees[];
extern const size_t jemalloc_tree_count;
extern const struct jemalloc_extent_layout jemalloc_extents[];
enum { JEMALLOC_EXTENT_ROWS = 8 }; /* room for */
extern const size_t jemalloc_extent_count;
extern const struct jemalloc_cache_layout jemalloc_caches[];
extern const size_t jemalloc_cache_count;

/* Bytes of a size class (sc.c, size_classes.sh: quantum 16, four classes a doubling); 0: none. */
uint64_t jemalloc_class_bytes(unsigned size_class);

#endif
