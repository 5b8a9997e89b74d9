/* ptmalloc_walk.c's own state of one walk; nobody else includes it. */
#ifndef HEAP_PTMALLOC_WALK_H
#define HEAP_PTMALLOC_WALK_H

#include "heap/ptmalloc.h"
#include "heap/relay.h"

enum { WALK_BATCH = 2048 };

struct chunk_words {
    uint64_t prev_size, size, fd, bk;
};

struct chunk {
    hi_addr address;
    struct chunk_words words;
};

struct walk {
    struct ptmalloc *p;
    struct heap_sink *sink;
    struct ptmalloc_arena *arena;
    hi_addr limit;      /* of the piece */
    hi_addr end;        /* where the segment ended, fenceposts and top included */
    hi_addr region_end; /* where its blocks end */
    bool at_fencepost;
    bool single;  /* a piece whose end is not known before it is walked */
    bool stopped; /* the sink or our memory said so */
    /* what was read last */
    const unsigned char *window;
    unsigned char *buffer;
    hi_addr window_start;
    size_t window_bytes, window_want;
    /* where it stands while it waits for another window */
    struct chunk chunk; /* not yet emitted */
    hi_addr before;     /* the chunk before that one; 0: none */
    hi_addr pause_at;   /* headers from here on are for another window */
    bool done;
    /* after damage: so many chunks, or up to there, are suspect */
    unsigned suspect_count;
    hi_addr suspect_until;
    uint64_t tcache_min, tcache_span;
    size_t batched;
    struct block_chunk batch[WALK_BATCH];
};

static inline bool chunk_size_fits(const struct ptmalloc_arena *arena, hi_addr at, uint64_t word,
                                   hi_addr limit)
{
    uint64_t bytes = chunk_bytes(word);
    return bytes >= PTMALLOC_MIN_CHUNK_BYTES && bytes % CHUNK_ALIGN == 0 &&
           !(word & CHUNK_IS_MMAPPED) && !(word & CHUNK_NON_MAIN && arena->is_main) &&
           bytes < limit - at;
}

/* Where a thread was stopped inside malloc, things may be half done. */
static inline bool ptmalloc_in_flux(const struct ptmalloc *p, const struct ptmalloc_arena *arena)
{
    return arena->locked || p->thread_inside;
}

/* ptmalloc_chain.c, of the walk alone. Fenceposts, of which the first stands at `at`: */
hi_addr ptmalloc_fenceposts_end(struct ptmalloc *p, hi_addr at);
bool ptmalloc_are_fenceposts(struct ptmalloc *p, hi_addr at);
/* Does a piece of the main arena end at `at`, without its fenceposts? */
bool ptmalloc_left_open(struct ptmalloc *p, const struct ptmalloc_arena *arena, hi_addr at,
                        hi_addr limit);
/* Was this cut from the top, with the old top's size up to the end of the piece still? */
bool ptmalloc_over_top(const struct ptmalloc *p, const struct ptmalloc_arena *arena, hi_addr at,
                       uint64_t word);
/* The first known chunk after `after`; limit: none. */
hi_addr ptmalloc_anchor_after(struct ptmalloc *p, struct ptmalloc_arena *arena, hi_addr after,
                              hi_addr limit);
/* Do plausible headers lead from at to that chunk (limit: there is none), or to the piece's end? */
bool ptmalloc_chain_goes_on(struct ptmalloc *p, const struct ptmalloc_arena *arena, hi_addr at,
                            hi_addr anchor, hi_addr limit, uint64_t *budget);

/* May what looks wrong in this arena be half done? */
bool walk_in_flux(const struct walk *w);

#endif
