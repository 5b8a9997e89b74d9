/*
 * ptmalloc: chains of headers, and where they may end.
 *
 * From a true chunk the sizes lead from header to header to the arena's top or to fenceposts, and
 * through every chunk that a list names (an anchor). Memory that is not the arena's does not. So a
 * chain that arrives says that its start is a chunk: that is how pieces of a main arena are found
 * that nothing links, and how a walk goes on behind damage.
 *
 * Half done by a stopped thread (the arena in flux), a chain may also end
 *   - at the end of a piece that is left open: sysmalloc() has a new piece, whose start is the top,
 *     and not written the fenceposts of the old one. It touches the new top's page before, which
 *     takes long enough to be met;
 *   - at the top, with a chunk that was cut from it and has the old top's size still;
 *   - at the rest of a chunk, which has no header yet: it mends where some header behind leads on.
 *
 * Bounds: each search has a budget of steps, which the caller gives.
 */
#include "heap/ptmalloc_walk.h"

/* Where the fenceposts from `at` on end: two of them; three, when of the old top 16 bytes were
 * left, too few for a chunk. Pieces of the main arena end with a page. */
hi_addr ptmalloc_fenceposts_end(struct ptmalloc *p, hi_addr at)
{
    uint64_t word;
    hi_addr end = at + 2 * PTMALLOC_HEADER_BYTES;
    if ((end + PTMALLOC_HEADER_BYTES) % p->page_bytes == 0 &&
        evidence_cache_u64(p->cache, end + 8, &word) && chunk_bytes(word) == PTMALLOC_HEADER_BYTES)
        end += PTMALLOC_HEADER_BYTES;
    return end;
}

/* Behind the first of them, at `at`. */
bool ptmalloc_are_fenceposts(struct ptmalloc *p, hi_addr at)
{
    uint64_t word;
    return ptmalloc_fenceposts_end(p, at) % p->page_bytes == 0 &&
           evidence_cache_u64(p->cache, at + PTMALLOC_HEADER_BYTES + 8, &word) &&
           chunk_bytes(word) == PTMALLOC_HEADER_BYTES;
}

/* Does a piece of the main arena end at `at`, without its fenceposts? The new top is the start of a
 * piece; the old one is whole, or less what fenceposts take, which are not or half written. */
bool ptmalloc_left_open(struct ptmalloc *p, const struct ptmalloc_arena *arena, hi_addr at,
                        hi_addr limit)
{
    enum { NONCONTIGUOUS = 2 };
    uint64_t word, rest = -at % p->page_bytes;
    if (!ptmalloc_in_flux(p, arena) || !arena->is_main || p->pieces_closed || at == arena->top ||
        (arena->flags & NONCONTIGUOUS && arena->top % p->page_bytes))
        return false;
    if (rest == 2 * PTMALLOC_HEADER_BYTES || rest == 3 * PTMALLOC_HEADER_BYTES)
        return true;
    return rest == 0 && (at >= limit || !evidence_cache_u64(p->cache, at + 8, &word) ||
                         !chunk_size_fits(arena, at, word, limit));
}

/* What was cut from the top still has the old top's size, up to the end of the piece. */
bool ptmalloc_over_top(const struct ptmalloc *p, const struct ptmalloc_arena *arena, hi_addr at,
                       uint64_t word)
{
    hi_addr end = at + chunk_bytes(word);
    return arena->top > at && arena->top < end && end % p->page_bytes == 0 && !p->pieces_closed &&
           ptmalloc_in_flux(p, arena);
}

bool ptmalloc_chain_ends(struct ptmalloc *p, const struct ptmalloc_arena *arena, hi_addr chunk,
                         hi_addr limit, uint64_t *budget, hi_addr *end)
{
    uint64_t word = 0, count = 0;
    hi_addr at = chunk;
    for (; *budget; --*budget, count++) {
        bool fits = at < limit && evidence_cache_u64(p->cache, at + 8, &word) &&
                    chunk_size_fits(arena, at, word, limit + 1);
        *end = at;
        if (at == arena->top)
            return true;
        if (at < limit && chunk_bytes(word) == PTMALLOC_HEADER_BYTES)
            break;
        if (!fits)
            return count >= 2 && ptmalloc_left_open(p, arena, at, limit);
        if (at == chunk && !(word & CHUNK_PREV_INUSE))
            return false;
        if (ptmalloc_over_top(p, arena, at, word))
            return true;
        at += chunk_bytes(word);
    }
    if (!*budget || at == chunk)
        return false;
    return ptmalloc_are_fenceposts(p, at) ||
           (count >= 2 && ptmalloc_left_open(p, arena, at, limit));
}

/* Do plausible headers lead from at exactly to goal? */
static bool chain_hits(struct ptmalloc *p, const struct ptmalloc_arena *arena, hi_addr at,
                       hi_addr goal, uint64_t *budget)
{
    uint64_t word;
    for (; *budget && at < goal; --*budget) {
        if (!evidence_cache_u64(p->cache, at + 8, &word) ||
            !chunk_size_fits(arena, at, word, goal + 1))
            return false;
        at += chunk_bytes(word);
    }
    return at == goal;
}

/* The first known chunk after `after`; limit: none. */
hi_addr ptmalloc_anchor_after(struct ptmalloc *p, struct ptmalloc_arena *arena, hi_addr after,
                              hi_addr limit)
{
    hi_addr best = limit;
    if (arena->top > after && arena->top < best)
        best = arena->top;
    if (!ptmalloc_anchors_collect(p, arena))
        return best;
    size_t low = 0, high = arena->anchors.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (arena->anchors.items[middle] <= after)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < arena->anchors.count && arena->anchors.items[low] < best)
        best = arena->anchors.items[low];
    return best;
}

bool ptmalloc_chain_leads(struct ptmalloc *p, struct ptmalloc_arena *arena, hi_addr chunk,
                          hi_addr limit, uint64_t *budget)
{
    uint64_t word;
    hi_addr end;
    if (chunk == arena->top)
        return true;
    if (!evidence_cache_u64(p->cache, chunk + 8, &word) || !(word & CHUNK_PREV_INUSE) ||
        !chunk_size_fits(arena, chunk, word, limit + 1))
        return false;
    if (ptmalloc_chain_ends(p, arena, chunk, limit, budget, &end))
        return true;
    hi_addr anchor = ptmalloc_anchor_after(p, arena, chunk, limit);
    return anchor < limit && chain_hits(p, arena, chunk, anchor, budget);
}

/* Do plausible headers lead from at to that chunk (limit: there is none), or to the piece's end? */
bool ptmalloc_chain_goes_on(struct ptmalloc *p, const struct ptmalloc_arena *arena, hi_addr at,
                            hi_addr anchor, hi_addr limit, uint64_t *budget)
{
    hi_addr end;
    return (anchor < limit && chain_hits(p, arena, at, anchor, budget)) ||
           ptmalloc_chain_ends(p, arena, at, limit, budget, &end);
}

bool ptmalloc_chain_mends(struct ptmalloc *p, struct ptmalloc_arena *arena, hi_addr chunk,
                          hi_addr limit, uint64_t *budget)
{
    enum { FAR = 1 << 20 };
    uint64_t word;
    hi_addr at = chunk;
    while (*budget && evidence_cache_u64(p->cache, at + 8, &word) &&
           chunk_size_fits(arena, at, word, limit)) {
        at += chunk_bytes(word);
        --*budget;
    }
    hi_addr anchor = ptmalloc_anchor_after(p, arena, at, limit);
    hi_addr until = anchor < limit && anchor - at < FAR ? anchor : at + FAR;
    if (at == chunk)
        return false;
    for (hi_addr q = at + CHUNK_ALIGN; q < until && q < limit && *budget;
         q += CHUNK_ALIGN, --*budget)
        if (ptmalloc_chain_goes_on(p, arena, q, anchor, limit, budget))
            return true;
    return false;
}
