/*
 * ptmalloc: what the parts of the reader share; nobody else includes it.
 *
 * - ptmalloc_layout.c: the offsets of each release: data
 * - ptmalloc_find.c: which modules hold a glibc malloc, its main_arena, mp_ and rows of layouts
 * - ptmalloc_arena.c: the ring of arenas, and the heaps of each
 * - ptmalloc_walk.c: chunk after chunk through one contiguous piece; damage and how to go on
 * - ptmalloc_chain.c: chains of headers, and where they may end
 * - ptmalloc_mmap.c: mapped chunks and pieces of the main arena that are linked nowhere
 * - ptmalloc_cache.c: thread caches and fast bins: what looks live and is not
 * - ptmalloc_reader.c: the reader: probe, walk, overlay, account
 */
#ifndef HEAP_PTMALLOC_H
#define HEAP_PTMALLOC_H

#include "heap/evidence.h"
#include "heap/ptmalloc_layout.h"

enum {
    CHUNK_PREV_INUSE = 1,
    CHUNK_IS_MMAPPED = 2,
    CHUNK_NON_MAIN = 4,
    CHUNK_FLAGS = 7,
    CHUNK_ALIGN = 16
};
enum { PTMALLOC_MAX_ARENAS = 1 << 16, PTMALLOC_MAX_HEAPS = 1 << 20 };

struct ptmalloc_arena {
    hi_addr address;
    bool is_main;
    bool locked;  /* its mutex was held: a thread stopped inside */
    bool in_flux; /* something half done was met */
    bool damaged;
    uint32_t flags;
    hi_addr top;
    uint64_t system_mem;
    hi_addr fastbins[PTMALLOC_FASTBINS];
    uint32_t index; /* in the sink */
    /* as walked */
    uint64_t system_walked, free_count;
    /* Sums over all free chunks and bin heads of a hash of (chunk, its fd) and of (its bk, chunk).
     * They are equal when every list is whole: see ptmalloc_walk.c. */
    uint64_t forward_sum, backward_sum;
    VECTOR(hi_addr) anchors; /* chunks known from lists: filled when damage asks for them */
    bool has_anchors;
};

/* A heap of an arena that is not the main one. */
struct ptmalloc_heap {
    hi_addr start;
    uint64_t bytes; /* in use: heap_info.size */
    uint32_t arena;
};

struct ptmalloc_tcache {
    hi_addr address; /* what malloc returned */
    pid_t tid;       /* 0: found by its content */
};

struct ptmalloc {
    struct target *target;
    struct symbols *symbols;
    const struct progress *progress;
    struct evidence_cache *cache;
    int jobs; /* threads that read; 0: all processors */
    const struct relay_guest *guest;
    size_t module;
    unsigned page_bytes;
    const struct ptmalloc_state_layout *state;
    const struct ptmalloc_par_layout *par;       /* NULL: mp_ was not found */
    const struct ptmalloc_tcache_layout *tcache; /* NULL: none, or not found */
    const struct ptmalloc_heap_layout *heap;     /* NULL: only the main arena */
    hi_addr main, par_address;
    uint64_t heap_max; /* alignment and largest size of heaps */
    uint64_t n_mmaps, mmapped_mem, sbrk_base, tcache_count, hp_page;
    bool thread_inside;   /* a thread was stopped in the library and not in a system call */
    uint32_t flux_budget; /* as many half done places can there be */
    bool links_mangled;   /* safe-linking: 2.32 and later */
    VECTOR(struct ptmalloc_arena) arenas; /* [0] is the main one */
    VECTOR(struct ptmalloc_heap) heaps;   /* address order */
    VECTOR(struct hi_range) claimed;      /* what was walked, address order after sorting */
    uint32_t mapped_arena;                /* in the sink: where mapped chunks go */
    hi_addr unread; /* a place of the allocator's own that could not be read; 0: none */
    uint64_t mapped_walked, mapped_bytes_walked;
    bool pieces_closed;    /* no piece counts that is left open (ptmalloc_chain.c) */
    unsigned moved_budget; /* pages tried as places of aligned chunks that have moved */
    /* thread caches */
    uint64_t tls_offset;             /* of the slot below fs; 0: not known */
    uint64_t tls_expected, tls_read; /* threads that have TLS; whose slot could be read */
    VECTOR(struct ptmalloc_tcache) tcaches;
    VECTOR(hi_addr) tcache_like; /* live chunks of a thread cache's size */
    struct evidence_map links;   /* first words of chunks that may lie in a fast bin */
    uint64_t tcache_reported, tcache_listed, fastbin_listed;
    uint64_t lists_broken;
};

static inline uint64_t chunk_bytes(uint64_t size_word)
{
    return size_word & ~(uint64_t)CHUNK_FLAGS;
}

/* The link that lies at `place`: what it points to. */
static inline hi_addr ptmalloc_link(const struct ptmalloc *p, hi_addr place, uint64_t word)
{
    return p->links_mangled ? word ^ place >> 12 : word;
}

static inline hi_addr bin_address(const struct ptmalloc *p, hi_addr arena, unsigned bin)
{
    return arena + p->state->bins + 16 * (hi_addr)bin - PTMALLOC_HEADER_BYTES;
}

/* Both ends of a link, hashed: sums of these over a list and over its mirror are equal. */
static inline uint64_t ptmalloc_edge(hi_addr from, hi_addr to)
{
    uint64_t x = (from + 0x9e3779b97f4a7c15) * UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 29;
    x = (x + to) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 32;
}

/* ptmalloc_find.c: the instance-th C library with a malloc of this kind. */
HI_MUST_USE enum hi_code ptmalloc_find(const struct heap_context *context, unsigned instance,
                                       struct probe *probe, struct hi_err *err);
/* With a known address of main_arena (tests; modules that have no symbols object): fills p. */
HI_MUST_USE enum hi_code ptmalloc_open_at(const struct heap_context *context, hi_addr main,
                                          hi_addr par, struct ptmalloc **p, struct hi_err *err);
bool ptmalloc_is_active(const struct ptmalloc *p);
void ptmalloc_close(void *state);
/* The words of an arena at `address`, p->state->bytes of them; false: unreadable. */
bool ptmalloc_state_read(struct ptmalloc *p, hi_addr address, unsigned char *bytes);

/* ptmalloc_arena.c */
HI_MUST_USE enum hi_code ptmalloc_arenas_read(struct ptmalloc *p, struct heap_sink *sink,
                                              struct hi_err *err);
HI_MUST_USE enum hi_code ptmalloc_heaps_read(struct ptmalloc *p, struct heap_sink *sink,
                                             struct hi_err *err);
/* First chunk of a heap. */
hi_addr ptmalloc_heap_first(const struct ptmalloc *p, const struct ptmalloc_heap *heap);

/* ptmalloc_walk.c, ptmalloc_chain.c: walks are written into the sink; false: stop (sink or memory
 * said so). */
struct ptmalloc_piece {
    struct ptmalloc_arena *arena;
    hi_addr first; /* chunk */
    hi_addr limit; /* end of memory that may hold chunks; afterwards: of what was walked */
    bool single;   /* does not go on behind fenceposts */
};
bool ptmalloc_walk_pieces(struct ptmalloc *p, struct heap_sink *sink, struct ptmalloc_piece *piece);
/* Does a chain of plausible headers lead from chunk to the top or a fencepost below limit? */
bool ptmalloc_chain_ends(struct ptmalloc *p, const struct ptmalloc_arena *arena, hi_addr chunk,
                         hi_addr limit, uint64_t *budget, hi_addr *end);
/* The same, or to a chunk that a list names: where a thread left a header half done further up. */
bool ptmalloc_chain_leads(struct ptmalloc *p, struct ptmalloc_arena *arena, hi_addr chunk,
                          hi_addr limit, uint64_t *budget);
/* The same behind one half done header: to the next chunk that a list names, or the piece's end. */
bool ptmalloc_chain_mends(struct ptmalloc *p, struct ptmalloc_arena *arena, hi_addr chunk,
                          hi_addr limit, uint64_t *budget);
bool ptmalloc_claim(struct ptmalloc *p, hi_addr start, hi_addr end);

/* ptmalloc_mmap.c */
bool ptmalloc_walk_mapped(struct ptmalloc *p, struct heap_sink *sink);

/* ptmalloc_cache.c */
enum hi_code ptmalloc_tcaches_find(struct ptmalloc *p, struct hi_err *err);
void ptmalloc_threads_attach(struct ptmalloc *p, struct heap_sink *sink);
void ptmalloc_links_vote(struct ptmalloc *p);
bool ptmalloc_overlay_caches(struct ptmalloc *p, struct heap_sink *sink);
/* Chunks that lists name, for damage: user addresses less the header. */
bool ptmalloc_anchors_collect(struct ptmalloc *p, struct ptmalloc_arena *arena);
bool ptmalloc_lists_check(struct ptmalloc *p, struct heap_sink *sink);

#endif
