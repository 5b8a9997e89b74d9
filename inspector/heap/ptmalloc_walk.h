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

/* May what looks wrong in this arena be half done? */
bool walk_in_flux(const struct walk *w);

#endif
