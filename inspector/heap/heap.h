/*
 * heap: the contract between readers (one an allocator) and everything else.
 *
 * A reader knows one allocator. It says whether that allocator is in the target and where its roots
 * are (probe), then walks it and pushes what it finds into a sink: arenas, regions of blocks with
 * their states, metadata ranges, totals that the allocator keeps of itself, findings. It never
 * stores blocks, prints, or knows who asked. Analyses never know an allocator.
 *
 * heaps_open() drives them, once, while a live target is stopped:
 *
 *   1. probe    every reader in the table of readers.c. Found several: all are walked, into one
 *               table of blocks. Found, but not understood: heaps.unknown, said loudly.
 *   2. walk     reads metadata, pushes arenas and regions. A reader reads in large pieces (tables,
 *               bitmaps, whole heaps for chunk walks), never a word at a time in a loop of system
 *               calls.
 *   3. finish   the table of blocks is numbered (blocks.h)
 *   4. overlay  blocks that the walk took for live and that lie in a thread cache, fast bin or
 *               transfer list become cached: by address. Separate from walk because caches cross
 *               arenas and regions. A cached address that is no block start is a finding.
 *   5. account  the allocator's own totals beside ours (checks)
 *   6. later, on demand, only for what is shown: detail(): requested size, stack, thread; stack():
 *               the frames of one
 *
 * Damage: a reader never gives up the whole for a part. What contradicts a rule becomes a finding
 * (rule, address, what was seen), the walk picks up at the next safe place and what lies between is
 * pushed as SUSPECT (then it holds, doubtfully) or left out. A thread stopped inside the allocator
 * makes its arena IN_FLUX, not damaged. Every loop has a bound from the target's own geometry
 * (bytes of mappings), never from a count in the target's memory alone.
 *
 * Roots and versions are evidence, in this order: native (a self-description), dwarf, symbol,
 * relocation, pattern; the report says which.
 */
#ifndef HEAP_HEAP_H
#define HEAP_HEAP_H

#include "base/vector.h"
#include "heap/blocks.h"
#include "symbols/names.h"

enum found_by { FOUND_NATIVE, FOUND_DWARF, FOUND_SYMBOL, FOUND_RELOCATION, FOUND_PATTERN };
const char *found_by_name(enum found_by found_by);

enum arena_state { ARENA_OK, ARENA_IN_FLUX, ARENA_DAMAGED };
const char *arena_state_name(enum arena_state state); /* "ok", "in flux", "damaged" */

enum { ARENA_MAX_TIDS = 16 };
struct arena {
    uint32_t id;     /* the allocator's own number */
    uint16_t heap;   /* set by the sink */
    hi_addr address; /* of its control structure */
    char name[32];   /* named arenas; "" else */
    enum arena_state state;
    uint64_t system_bytes;      /* obtained from the system, as walked */
    pid_t tids[ARENA_MAX_TIDS]; /* the first owner threads */
    uint32_t tid_count;         /* all of them */
};

/* Read, but contradicts a rule of the format. */
struct finding {
    uint16_t heap;
    const char *rule; /* static text: "class map code", "tcache entry is a chunk" */
    hi_addr address;  /* the place that is wrong */
    char detail[120]; /* what was seen and what would be right */
};

struct check {
    const char *name; /* static text: "system_mem", "n_mmaps", "live blocks" */
    uint64_t reported, walked;
    bool agree; /* within what a stopped thread can leave half done */
};

/* What the program itself said holds: [start, end) is searched like a root, and live blocks that
 * touch it are held, with all that they point to. */
struct heap_held {
    hi_addr start, end;
    const char *name; /* static text: "ignored block", "root region" */
};

/* A frame of a call stack as the allocator remembers it. */
struct heap_frame {
    hi_addr address;
    bool exact;   /* the interrupted instruction itself; else a return address */
    bool guessed; /* found without unwind information */
    bool cut;     /* the walk ended here, before the outermost frame */
    const struct module_mark *module; /* what was loaded there then; NULL: not known */
};

/* Which allocations remember their call stack, from now on. */
enum heap_stacks { HEAP_STACKS_NONE, HEAP_STACKS_SAMPLED, HEAP_STACKS_FULL };
const char *heap_stacks_name(enum heap_stacks stacks); /* "none", "sampled", "full" */

/* A live block that the allocator or the C library keeps for itself: never a leak. */
struct heap_kept {
    hi_addr address;
    const char *name; /* static text: "tcache" */
};

struct blocks_total {
    uint64_t blocks, bytes;
};

enum { HEAP_MAX_CHECKS = 24 };
struct heap {
    const struct heap_reader *reader;
    void *state;      /* the reader's own */
    char version[48]; /* "2.36", "1.0" */
    enum found_by found_by;
    bool active;              /* has been used at all */
    bool bytes_are_requested; /* else usable */
    uint64_t metadata_bytes, system_bytes;
    enum heap_stacks stacks;
    uint64_t sample_bytes;      /* sampled: mean bytes from one to the next */
    uint64_t blocks_with_stack; /* live or not: those that may know one */
    uint64_t stacks_lost;       /* found no room in the allocator's table */
    struct check checks[HEAP_MAX_CHECKS];
    size_t check_count;
};

/* The heaps of a target, walked. */
enum { HEAPS_MAX = 16, HEAPS_MAX_FINDINGS = 10000 };
struct heaps {
    struct heap heaps[HEAPS_MAX];
    size_t count;
    struct blocks *blocks;
    VECTOR(struct arena) arenas;      /* of all heaps; heap.arena index = position among its own */
    VECTOR(struct hi_range) metadata; /* sorted, disjoint: never scanned, never a node */
    VECTOR(struct finding) findings;  /* at most HEAPS_MAX_FINDINGS */
    uint64_t findings_dropped;
    VECTOR(struct heap_kept) kept; /* roots of class ROOT_KEPT, for the graph */
    VECTOR(struct heap_held) held; /* the same, and what they point to is held as well */
    /* Threads of the allocators' own: what their registers and stacks hold is no reference. */
    VECTOR(pid_t) own_threads;
    /* Blocks in state SUSPECT, neighbours joined, address order: what lies there may be live, so
     * what it references is not called lost. */
    VECTOR(struct hi_range) suspect;
    struct heap_totals *totals; /* one an arena; ask heap_totals(), arena_totals() */
    char unknown[256]; /* an allocator that is present and not understood, with the evidence */
};

/* What a probe learns. */
struct probe {
    enum found_by found_by;
    bool active;
    char version[48];
    char unknown[256]; /* present but not understood: why, one sentence */
    void *state;       /* goes to heap->state; freed by close() */
};

/* What readers may use of the target. */
struct heap_context {
    struct target *target;
    struct symbols *symbols;
    const struct progress *progress;
    int jobs;                        /* threads for long walks; 0: all processors */
    const struct relay_guest *guest; /* sees what a relay (relay.h) reads; NULL: nobody */
};

struct heap_sink; /* heap/sink.c */

struct heap_detail {
    bool has_requested;
    uint64_t requested;
    pid_t allocated_by_tid;            /* 0: unknown */
    uint64_t stack_id, freed_stack_id; /* 0: none */
    bool is_sampled;                   /* it stands for others of its size that were not picked */
    const char *tag;                   /* the program's word for it, the reader's; NULL: none */
};

struct heap_reader {
    const char *name; /* "himalloc", "ptmalloc", ... as in the JSON */
    /* HI_OK: found (probe filled). HI_NOT_FOUND: not in this target. HI_UNSUPPORTED: it is there
     * and not understood: probe->unknown says it. Other codes: failure of the run. A target may
     * hold several instances of one allocator (linked in twice): instance 0, 1, ... until
     * NOT_FOUND. */
    enum hi_code (*probe)(const struct heap_context *context, unsigned instance,
                          struct probe *probe, struct hi_err *err);
    enum hi_code (*walk)(const struct heap_context *context, struct heap *heap,
                         struct heap_sink *sink, struct hi_err *err);
    enum hi_code (*overlay)(const struct heap_context *context, struct heap *heap,
                            struct heap_sink *sink, struct hi_err *err); /* may be NULL */
    enum hi_code (*account)(const struct heap_context *context, struct heap *heap,
                            struct heap_sink *sink, struct hi_err *err); /* may be NULL */
    /* Cold facts on one block, when the allocator has them. May be NULL. A live target may have
     * been released: read what is needed in walk and keep it. */
    enum hi_code (*detail)(const struct heap_context *context, struct heap *heap, hi_addr block,
                           struct heap_detail *detail, struct hi_err *err);
    /* The frames of a stack_id, innermost first, at most `most`: how many. Every one is checked:
     * an address of the process's, and no more frames than the allocator ever keeps. May be NULL;
     * works after a live target was released. */
    size_t (*stack)(const struct heap_context *context, struct heap *heap, uint64_t stack_id,
                    struct heap_frame *frames, size_t most);
    /* Usable less requested bytes of all live blocks of a region, as far as requests are known; so
     * that totals need not ask for each block. May be NULL. */
    uint64_t (*spare)(const struct heap *heap, const struct blocks *blocks,
                      const struct region *region);
    void (*close)(void *state);
};

/* The table of readers; readers.c. NULL-terminated. */
extern const struct heap_reader *const heap_readers[];
extern const struct heap_reader himalloc_reader;
extern const struct heap_reader jemalloc_reader;
extern const struct heap_reader tcmalloc_reader;
extern const struct heap_reader mimalloc_reader;
extern const struct heap_reader ptmalloc_reader;

/* -- the sink: what readers call ------------------------------------------------------------------
 * Functions return false when the walk should end (memory out, user interrupt); the reader then
 * returns HI_STOPPED and the driver knows why. Contradictory input becomes a finding by itself. */
uint32_t sink_arena(struct heap_sink *sink, const struct arena *arena); /* its index in the heap */
struct arena *sink_arena_at(struct heap_sink *sink, uint32_t index);    /* to amend; may move */
/* SLAB, SINGLE: live_bits one a slot (NULL: all live). region->heap and base are set here. */
bool sink_region(struct heap_sink *sink, const struct region *region, const uint64_t *live_bits);
bool sink_chunks_begin(struct heap_sink *sink, const struct region *region);
bool sink_chunks(struct heap_sink *sink, const struct block_chunk *chunks, size_t count);
bool sink_chunks_end(struct heap_sink *sink);
bool sink_chunks_end_at(struct heap_sink *sink, hi_addr end); /* ended earlier than it said */
/* Adds to heap->metadata_bytes too. */
bool sink_metadata(struct heap_sink *sink, hi_addr start, hi_addr end);
HI_PRINTF(4, 5)
bool sink_finding(struct heap_sink *sink, const char *rule, hi_addr address, const char *format,
                  ...);
/* Only in overlay(). true also when address is no block start (a finding is made). *before may be
 * NULL. A block that was free already stays free and makes no finding. */
bool sink_overlay(struct heap_sink *sink, hi_addr address, enum block_state state,
                  enum block_state *before);
/* The block around address is the allocator's own (a stack of cached blocks, a tcache): it counts
 * as reachable, and what it points to is not held by it: old pointers lie in it. walk() or
 * overlay(). */
bool sink_kept(struct heap_sink *sink, hi_addr address, const char *name);
/* A thread that the allocator made for itself. */
bool sink_own_thread(struct heap_sink *sink, pid_t tid);
/* [start, end) holds what is in it because the program said so. walk() or overlay(). */
bool sink_held(struct heap_sink *sink, hi_addr start, hi_addr end, const char *name);
void sink_check(struct heap_sink *sink, const char *name, uint64_t reported, uint64_t walked,
                bool agree);
/* Totals of what was walked. arena: index in heaps->arenas. */
struct heap_totals {
    struct blocks_total live, free, cached; /* in flight is live, suspect is nothing */
};
void heap_totals(const struct heaps *heaps, size_t heap, struct heap_totals *totals);
void arena_totals(const struct heaps *heaps, size_t arena, struct heap_totals *totals);
const struct heaps *sink_heaps(const struct heap_sink *sink);

/* Probe and walk everything. only: a reader's name or NULL (--allocator). nodes: anonymous mappings
 * to be graph nodes (roots.h); parts that heaps claim are cut out. Finds no heap: HI_OK, count 0.
 * HI_STOPPED: *heaps holds what is known. Other codes: *heaps is NULL. options may be NULL. */
struct heaps_options {
    const char *only;
    const struct hi_range *nodes;
    size_t node_count;
    bool totals_later; /* heaps_count() follows: a stopped target need not wait for that */
};
HI_MUST_USE enum hi_code heaps_open(struct heaps **heaps, const struct heap_context *context,
                                    const struct heaps_options *options, struct hi_err *err);
/* The totals; nothing is read for them. */
HI_MUST_USE enum hi_code heaps_count(struct heaps *heaps, int jobs, struct hi_err *err);
void heaps_close(struct heaps *heaps);
HI_MUST_USE enum hi_code heaps_detail(struct heaps *heaps, const struct heap_context *context,
                                      hi_block block, struct heap_detail *detail,
                                      struct hi_err *err);
/* Frames of a stack that heaps_detail() named, of the heap with that index; 0: none known. */
enum { HEAP_FRAMES_MOST = 1024 };
size_t heaps_stack(struct heaps *heaps, const struct heap_context *context, size_t heap,
                   uint64_t stack_id, struct heap_frame *frames, size_t most);

#endif
