/* What the parts of the himalloc reader share: the decoded root, arenas, and a window to read by.
 */
#ifndef HEAP_HIMALLOC_HEAP_H
#define HEAP_HIMALLOC_HEAP_H

#include "heap/heap.h"
#include "heap/himalloc_schema.h"

enum { HIMALLOC_MAX_CLASSES = 256, HIMALLOC_MAX_ARENAS = 65536, HIMALLOC_MAX_RANGES = 256 };
enum { HIMALLOC_MAX_THREADS = 1 << 20, HIMALLOC_MAX_BIGS = 1 << 20, HIMALLOC_MAX_HOT_BYTES = 4096 };

struct himalloc_class {
    uint32_t block_bytes, block_count, slab_units; /* slab_units 0: no such class */
    uint32_t slack;
};

struct himalloc_codes {
    uint32_t free, purging, large_head, large_rest;
    uint32_t slab_first, slab_last, named_first, named_last;
};

struct himalloc_arena {
    uint32_t index;                                 /* of the sink; UINT32_MAX: gone */
    uint64_t kind, slabs, large_units, free_blocks; /* as the allocator says */
    bool busy;                                      /* a lock of it is held */
    uint64_t walked_slabs, walked_large_units, system_bytes;
};

/* A large block and the size it was asked for. */
struct himalloc_sized {
    hi_addr address;
    uint64_t requested;
};

struct himalloc {
    bool active; /* else: loaded, and never used */
    hi_addr preamble, root;
    struct schema schema;
    unsigned unit_shift;
    struct himalloc_codes codes;
    uint32_t class_count;
    struct himalloc_class classes[HIMALLOC_MAX_CLASSES];
    uint64_t range_count, arena_count, thread_count, big_count;
    hi_addr ranges, arenas, threads, bigs;
    struct hi_range text, hot;
    bool busy; /* a lock is held, or a thread's pc is inside the allocator */
    VECTOR(struct himalloc_arena) arena_table; /* by the allocator's number */
    VECTOR(hi_addr) arena_addresses;
    VECTOR(hi_addr) thread_addresses;
    VECTOR(struct himalloc_sized) sized;
    uint64_t walked_slabs, walked_free, said_free; /* blocks free in slabs: bitmap, free_count */
    uint64_t damaged;                              /* slabs and large blocks */
};

/* Reads that go forward through a table: a buffer that grows while they do. */
struct window {
    struct target *target;
    hi_addr start;
    size_t bytes, step;
    unsigned char *buffer;
};
enum { WINDOW_BYTES = 256 << 10 };

HI_MUST_USE enum hi_code himalloc_window_open(struct window *window, struct target *target,
                                              struct hi_err *err);
void himalloc_window_close(struct window *window);
/* count bytes at address, valid until the next call; NULL: they can't be read. */
const void *himalloc_window_at(struct window *window, hi_addr address, size_t count);

/* himalloc_find.c */
enum hi_code himalloc_probe(const struct heap_context *context, unsigned instance,
                            struct probe *probe, struct hi_err *err);
void himalloc_close(void *state);
/* himalloc_root.c */
HI_MUST_USE enum hi_code himalloc_decode(struct himalloc *heap, struct target *target,
                                         char *version, size_t version_size, struct hi_err *err);
/* himalloc_caches.c */
enum hi_code himalloc_overlay(const struct heap_context *context, struct heap *heap,
                              struct heap_sink *sink, struct hi_err *err);
enum hi_code himalloc_account(const struct heap_context *context, struct heap *heap,
                              struct heap_sink *sink, struct hi_err *err);
/* The allocator's number of an arena to the sink's; damaged numbers go to the first. */
uint32_t himalloc_arena_index(const struct himalloc *heap, uint64_t arena);

#endif
