/* What the parts of the himalloc reader share: the decoded root, arenas, and a window to read by.
 */
#ifndef HEAP_HIMALLOC_HEAP_H
#define HEAP_HIMALLOC_HEAP_H

#include "heap/heap.h"
#include "heap/himalloc_schema.h"

enum { HIMALLOC_MAX_CLASSES = 256, HIMALLOC_MAX_ARENAS = 65536, HIMALLOC_MAX_RANGES = 256 };
enum { HIMALLOC_MAX_REMARKS = 1 << 20, HIMALLOC_MAX_MODULES = 1 << 16 };
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

/* A large block: the size it was asked for (0: not known), and who asked. */
struct himalloc_sized {
    hi_addr address;
    uint64_t requested;
    uint32_t stack;
    bool is_sampled;
};

/* Kinds of arenas that matter to a reader; others are like named ones. */
enum {
    HIMALLOC_ARENA_GONE = 0,
    HIMALLOC_ARENA_AUTOMATIC = 1,
    HIMALLOC_ARENA_SAMPLED = 3,
    HIMALLOC_ARENA_IGNORED = 4,
};

/* What the allocator remembers of one block. stack 0: nothing. */
struct himalloc_note {
    uint32_t stack, freed, requested;
};

/* Blocks of one slab, or one large block, with notes: first .. first + count - 1. */
struct himalloc_noted {
    hi_addr start;
    uint32_t stride, count; /* the slots that may have one; a slab's others have none */
    uint64_t first;         /* index of its first note */
    bool is_sampled;
};

/* The program's word for a block. */
struct himalloc_tag {
    hi_addr address; /* as said; after the overlay: the block's start, or 0 */
    char text[64];
};

/* Who allocated: the notes of blocks, read whole, and the table that their numbers lead into. */
struct himalloc_stacks {
    VECTOR(struct himalloc_noted) noted; /* by start, after the walk */
    struct himalloc_note *notes;
    size_t note_count, note_capacity;
    size_t last;                      /* of noted, asked for last: lists ask in address order */
    VECTOR(struct himalloc_tag) tags; /* by address, after the overlay */
    uint64_t *frames;                 /* of nodes [0, node_count) */
    uint32_t *parents;
    uint32_t node_count;
    struct module_mark *modules;
    struct himalloc_epochs {
        uint32_t first, last;
    } * epochs;  /* of each module */
    char *texts; /* their paths and build-ids */
    size_t module_count, last_module;
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
    hi_addr stack_table, remarks; /* 0: none */
    uint64_t remark_count;
    pid_t helper; /* the allocator's own thread; 0: none */
    struct himalloc_stacks stacks;
    struct hi_range text, hot;
    bool busy; /* a lock is held, or a thread's pc is inside the allocator */
    VECTOR(struct himalloc_arena) arena_table; /* by the allocator's number */
    VECTOR(hi_addr) arena_addresses;
    VECTOR(hi_addr) thread_addresses;
    VECTOR(struct himalloc_sized) sized;
    uint64_t walked_slabs, walked_free, said_free; /* blocks free in slabs: bitmap, free_count */
    uint64_t thread_large_units; /* of large blocks by way of pockets, less those put back */
    uint64_t damaged;            /* slabs and large blocks */
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
/* himalloc_notes.c: what is remembered of each block. */
HI_MUST_USE bool himalloc_notes_reserve(struct himalloc_stacks *stacks, size_t count);
void himalloc_notes_settle(struct himalloc_stacks *stacks);
int himalloc_sized_order(const void *a, const void *b);
const struct himalloc_note *himalloc_note_of(struct himalloc_stacks *stacks, hi_addr block);
enum hi_code himalloc_detail(const struct heap_context *context, struct heap *heap, hi_addr block,
                             struct heap_detail *detail, struct hi_err *err);
uint64_t himalloc_spare(const struct heap *heap, const struct blocks *blocks,
                        const struct region *region);
/* himalloc_stacks.c: the table of call stacks. Its mode first, since that says which notes are to
 * be believed; its contents last. false: memory is out, or the sink said stop. */
HI_MUST_USE bool himalloc_stacks_mode(struct himalloc *own, struct heap *heap,
                                      struct target *target, struct heap_sink *sink);
HI_MUST_USE bool himalloc_stacks_read(struct himalloc *own, struct heap *heap,
                                      struct target *target, struct heap_sink *sink);
void himalloc_stacks_free(struct himalloc_stacks *stacks);
size_t himalloc_stack(const struct heap_context *context, struct heap *heap, uint64_t stack_id,
                      struct heap_frame *frames, size_t most);
/* himalloc_remarks.c: what the program said of addresses; after blocks are numbered. */
HI_MUST_USE bool himalloc_remarks_read(struct himalloc *own, struct target *target,
                                       struct heap_sink *sink);
const char *himalloc_tag_of(const struct himalloc_stacks *stacks, hi_addr block);
/* The allocator's number of an arena to the sink's; damaged numbers go to the first. */
uint32_t himalloc_arena_index(const struct himalloc *heap, uint64_t arena);

#endif
