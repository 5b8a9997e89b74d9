/*
 * ptmalloc: chunk after chunk.
 *
 * A chunk is a header of two words (prev_size, size) and what malloc returned behind it. The low
 * bits of size are flags; chunk + size is the next chunk, whose bit 0 says whether this one is in
 * use, and whose prev_size repeats this one's size when it is not. A piece of memory ends at the
 * arena's top or at fenceposts: chunks of 16 or 0 bytes, which cannot be allocated. Behind the
 * fenceposts of the main arena lies memory that somebody else took with sbrk(); the arena goes on
 * at the first place from which a chain of headers leads to the top (or to the next fenceposts).
 *
 * What is pushed: every chunk as a block, live or free by the bit; the top as a free block. Chunks
 * in thread caches and fast bins carry the bit: ptmalloc_cache.c takes them back afterwards.
 *
 * Lists are checked without following them. Over all free chunks c and all bin heads two sums are
 * kept: hash(c, fd(c)) and hash(bk(c), c). Doubly linked lists are whole when both run over the
 * same set of pairs, so the sums agree; lists are followed only when they do not.
 *
 * Damage. A header that cannot be one (size off the grid, too small, beyond the piece, of the wrong
 * arena) loses its chunk, not the heap. The walk goes on at the first place behind it from which
 * plausible headers lead to the end of the piece or exactly to the next anchor: a chunk that a list
 * names, or the top (ptmalloc_chain.c). What lies between is one suspect block, and the first
 * chunks after it are suspect as well: stale headers inside the broken chunk can lead into the true
 * chain. Where a thread was stopped inside malloc (the mutex held; or unlocked, with the only
 * thread in the library), one such place a thread is a split that was not finished: in flight, not
 * damage. A footer that fits the chunk before it says where it ends.
 *
 * Bounds: a walk only moves up through the piece; searches have a budget of steps.
 */
#include "heap/ptmalloc_walk.h"

enum {
    WINDOW_MIN_BYTES = 16 << 10,
    WINDOW_MAX_BYTES = 512 << 10,
    SUSPECT_CHUNKS = 8,
    TCACHE_LIKE_MAX = 1 << 16
};
#define SEARCH_BUDGET ((uint64_t)1 << 24)

/* -- the window: target memory in large pieces --------------------------------------------------
 */

static bool window_move(struct walk *w, hi_addr at)
{
    size_t bytes = 0;
    const void *view = target_view(w->p->target, at, &bytes);
    if (view && bytes >= sizeof(struct chunk_words)) {
        w->window = view;
        w->window_start = at;
        w->window_bytes = bytes;
        return true;
    }
    /* longer while the walk goes straight on, shorter where chunks are larger than the window */
    bool straight = at - w->window_start <= w->window_bytes + WINDOW_MIN_BYTES;
    w->window_want = straight ? w->window_want * 2 : WINDOW_MIN_BYTES;
    if (w->window_want > WINDOW_MAX_BYTES)
        w->window_want = WINDOW_MAX_BYTES;
    size_t want = w->limit - at < w->window_want ? w->limit - at : w->window_want;
    w->window = w->buffer;
    w->window_start = at;
    w->window_bytes = target_read_some(w->p->target, at, w->buffer, want);
    return w->window_bytes >= PTMALLOC_HEADER_BYTES;
}

/* The header at `at`, and the two words behind it as far as there are any. */
static inline bool chunk_load(struct walk *w, hi_addr at, struct chunk *chunk)
{
    hi_addr offset = at - w->window_start;
    if (!w->window || at < w->window_start || offset + sizeof chunk->words > w->window_bytes) {
        if (at >= w->limit || w->limit - at < PTMALLOC_HEADER_BYTES || !window_move(w, at))
            return false;
        offset = 0;
    }
    chunk->address = at;
    chunk->words = (struct chunk_words){0};
    size_t have = w->window_bytes - offset;
    if (have >= sizeof chunk->words)
        memcpy(&chunk->words, w->window + offset, sizeof chunk->words);
    else
        memcpy(&chunk->words, w->window + offset, PTMALLOC_HEADER_BYTES);
    return true;
}

/* -- out to the sink ----------------------------------------------------------------------------
 */

static bool walk_flush(struct walk *w)
{
    bool fine = sink_chunks(w->sink, w->batch, w->batched);
    w->batched = 0;
    w->stopped |= !fine;
    return fine;
}

static inline bool walk_emit(struct walk *w, hi_addr chunk, enum block_state state)
{
    w->batch[w->batched++] = (struct block_chunk){chunk + PTMALLOC_HEADER_BYTES, state};
    return w->batched < WALK_BATCH || walk_flush(w);
}

/* A live chunk as large as a thread cache is remembered: its content may show that it is one. */
static bool tcache_like_push(struct walk *w, const struct chunk *chunk)
{
    if (w->p->tcache_like.count >= TCACHE_LIKE_MAX)
        return true;
    hi_addr *like = VECTOR_PUSH(&w->p->tcache_like);
    if (like)
        *like = chunk->address + PTMALLOC_HEADER_BYTES;
    w->stopped |= !like;
    return like != NULL;
}

/* A live chunk of a size whose fast bin is not empty, and whose first word can be a link of it. */
static bool fast_like_push(struct walk *w, const struct chunk *chunk)
{
    hi_addr user = chunk->address + PTMALLOC_HEADER_BYTES;
    hi_addr to = ptmalloc_link(w->p, user, chunk->words.fd);
    if (to && (to % CHUNK_ALIGN || to >> 47 || to < w->p->page_bytes))
        return true;
    bool fine = evidence_map_put(&w->p->links, user, chunk->words.fd);
    w->stopped |= !fine;
    return fine;
}

static inline bool may_be_fast(const struct walk *w, uint64_t bytes)
{
    size_t bin = bytes / CHUNK_ALIGN - 2;
    return bin < PTMALLOC_FASTBINS && w->arena->fastbins[bin] != 0;
}

static inline bool is_tcache_size(const struct walk *w, uint64_t bytes)
{
    return bytes - w->tcache_min <= w->tcache_span;
}

static bool emit_free(struct walk *w, const struct chunk *chunk, const struct chunk *next)
{
    uint64_t bytes = chunk_bytes(chunk->words.size);
    w->arena->free_count++;
    w->arena->forward_sum += ptmalloc_edge(chunk->address, chunk->words.fd);
    w->arena->backward_sum += ptmalloc_edge(chunk->words.bk, chunk->address);
    if (next->words.prev_size != bytes && !walk_in_flux(w) &&
        !sink_finding(w->sink, "a free chunk's footer repeats its size", next->address,
                      "prev_size 0x%llx, size 0x%llx at 0x%llx",
                      (unsigned long long)next->words.prev_size, (unsigned long long)bytes,
                      (unsigned long long)chunk->address))
        return false;
    return walk_emit(w, chunk->address, BLOCK_FREE);
}

/* chunk, by what the one after it says. */
static inline bool emit_chunk(struct walk *w, const struct chunk *chunk, const struct chunk *next)
{
    if (__builtin_expect(w->suspect_count > 0, 0)) {
        w->suspect_count = chunk->address >= w->suspect_until ? 0 : w->suspect_count - 1;
        if (w->suspect_count)
            return walk_emit(w, chunk->address, BLOCK_SUSPECT);
    }
    if (!(next->words.size & CHUNK_PREV_INUSE))
        return emit_free(w, chunk, next);
    uint64_t bytes = chunk_bytes(chunk->words.size);
    if (may_be_fast(w, bytes) && !fast_like_push(w, chunk))
        return false;
    if (is_tcache_size(w, bytes) && !tcache_like_push(w, chunk))
        return false;
    return walk_emit(w, chunk->address, BLOCK_LIVE);
}

/* -- what a header may be
 * ----------------------------------------------------------------------------------
 */

static inline bool is_fencepost(const struct walk *w, const struct chunk *chunk)
{
    uint64_t bytes = chunk_bytes(chunk->words.size);
    if (bytes == PTMALLOC_HEADER_BYTES)
        return !(chunk->words.size & CHUNK_IS_MMAPPED);
    return bytes == 0 && chunk->address + PTMALLOC_HEADER_BYTES == w->limit;
}

/* -- damage -------------------------------------------------------------------------------------
 */

bool walk_in_flux(const struct walk *w)
{
    return ptmalloc_in_flux(w->p, w->arena);
}

/* The chunk before `bad` was being split, or grown into the free one behind it: the rest ends where
 * a footer gives the size of the whole, of the rest, or of that free one; at the latest with the
 * next chunk that a list names. */
static hi_addr split_end(struct walk *w, hi_addr before, hi_addr bad)
{
    uint64_t budget = SEARCH_BUDGET, size, prev_size;
    hi_addr anchor = ptmalloc_anchor_after(w->p, w->arena, bad, w->limit);
    for (hi_addr q = bad + CHUNK_ALIGN; before && q <= anchor && q < w->limit && budget;
         q += CHUNK_ALIGN) {
        budget--;
        if (!evidence_cache_u64(w->p->cache, q, &prev_size) || prev_size % CHUNK_ALIGN ||
            prev_size < PTMALLOC_MIN_CHUNK_BYTES || prev_size > q - before || prev_size < q - bad)
            continue;
        if (evidence_cache_u64(w->p->cache, q + 8, &size) && !(size & CHUNK_PREV_INUSE) &&
            (anchor == w->limit ||
             ptmalloc_chain_goes_on(w->p, w->arena, q, anchor, w->limit, &budget)))
            return q;
    }
    return 0;
}

/* Where to go on after a header that is none; limit: nowhere in this piece. */
static hi_addr resync(struct walk *w, hi_addr bad)
{
    hi_addr anchor = ptmalloc_anchor_after(w->p, w->arena, bad, w->limit);
    uint64_t budget = SEARCH_BUDGET;
    for (hi_addr q = bad + CHUNK_ALIGN; q < anchor && budget; q += CHUNK_ALIGN) {
        budget--;
        if (!ptmalloc_chain_goes_on(w->p, w->arena, q, anchor, w->limit, &budget))
            continue;
        w->suspect_count = SUSPECT_CHUNKS + 1;
        w->suspect_until = anchor;
        return q;
    }
    return anchor;
}

/* The chunk behind a rest without a header, by what the thread that is at it has in its registers:
 * the chunk's address, or the rest's size. Old headers in the rest can lead on just as well. */
static hi_addr end_in_hands(struct walk *w, hi_addr bad)
{
    struct target *target = w->p->target;
    hi_addr anchor = ptmalloc_anchor_after(w->p, w->arena, bad, w->limit);
    uint64_t budget = SEARCH_BUDGET;
    for (size_t t = 0; t < target_thread_count(target); t++) {
        const struct thread *thread = target_thread(target, t);
        bool at_it = false;
        for (size_t i = 0; thread->has_registers && i < THREAD_REGISTER_COUNT; i++)
            at_it |= thread->registers[i] == bad;
        for (size_t i = 0; at_it && i < THREAD_REGISTER_COUNT; i++) {
            uint64_t word = thread->registers[i], bytes = chunk_bytes(word);
            const hi_addr ends[] = {word, bytes < w->limit - bad ? bad + bytes : 0};
            for (size_t k = 0; k < 2; k++)
                if (ends[k] > bad && ends[k] < w->limit && ends[k] % CHUNK_ALIGN == 0 &&
                    ends[k] <= anchor &&
                    ptmalloc_chain_goes_on(w->p, w->arena, ends[k], anchor, w->limit, &budget))
                    return ends[k];
        }
    }
    return 0;
}

/* Half done by a stopped thread: on behind it, and nothing there is doubted. */
static hi_addr walk_half_done(struct walk *w, hi_addr before, hi_addr bad)
{
    hi_addr end = end_in_hands(w, bad);
    if (!end)
        end = split_end(w, before, bad);
    if (!end) /* an aligned block's rest, that was in use before */
        end = resync(w, bad);
    w->suspect_count = 0;
    w->p->flux_budget--;
    w->arena->in_flux = true;
    return walk_emit(w, bad, BLOCK_IN_FLIGHT) ? end : w->limit;
}

/* The header at bad is none. The address where the walk goes on. */
static hi_addr walk_damage(struct walk *w, hi_addr before, hi_addr bad, const char *rule,
                           uint64_t seen)
{
    if (walk_in_flux(w) && w->p->flux_budget)
        return walk_half_done(w, before, bad);
    hi_addr resume = resync(w, bad);
    w->arena->damaged = true;
    sink_finding(w->sink, rule, bad, "size word 0x%llx; suspect up to 0x%llx",
                 (unsigned long long)seen, (unsigned long long)resume);
    walk_emit(w, bad, BLOCK_SUSPECT);
    return resume;
}

/* A header that could not be read: on at the next memory that is there. */
static hi_addr walk_gap(struct walk *w, hi_addr at)
{
    struct hi_range content;
    hi_addr from = (at | (w->p->page_bytes - 1)) + 1;
    w->arena->damaged = true;
    sink_finding(w->sink, "chunk headers can be read", at, "the walk goes on behind the gap");
    walk_emit(w, at, BLOCK_SUSPECT);
    if (from >= w->limit || !target_next_content(w->p->target, from, w->limit, &content))
        return w->limit;
    return resync(w, (content.start - CHUNK_ALIGN) & ~(hi_addr)(CHUNK_ALIGN - 1));
}

/* -- one piece ----------------------------------------------------------------------------------
 */

/* Where the memory behind a top ends whose header is not written yet: with the piece; or, where the
 * piece's end is not known either, with the page. */
static hi_addr top_end_guess(const struct walk *w, hi_addr top)
{
    unsigned page = w->p->page_bytes;
    hi_addr end = (top + PTMALLOC_MIN_CHUNK_BYTES + page - 1) & ~(hi_addr)(page - 1);
    return w->single && end < w->limit ? end : w->limit;
}

/* The top: a free block up to the end of the piece. */
static void walk_top(struct walk *w, const struct chunk *top)
{
    uint64_t bytes = chunk_bytes(top->words.size);
    hi_addr end = top->address + bytes;
    bool fits = bytes >= PTMALLOC_HEADER_BYTES && bytes <= w->limit - top->address &&
                end % w->p->page_bytes == 0;
    w->end = fits ? end : top_end_guess(w, top->address);
    if (!fits && !walk_in_flux(w)) {
        w->arena->damaged = true;
        sink_finding(w->sink, "the top chunk ends with its memory", top->address,
                     "size word 0x%llx", (unsigned long long)top->words.size);
    }
    if (w->end - top->address >= PTMALLOC_MIN_CHUNK_BYTES)
        walk_emit(w, top->address, BLOCK_FREE);
    w->region_end = w->end;
    w->at_fencepost = false;
}

static void walk_fencepost(struct walk *w, hi_addr at)
{
    w->region_end = at + 8; /* a chunk's user has the next one's first word */
    w->end = ptmalloc_fenceposts_end(w->p, at);
    w->at_fencepost = true;
}

/* The last chunk in front of `end`, where a piece is left open: the old top; but where that had 32
 * or 48 bytes, its header is what stands at `end`. */
static void walk_left_open(struct walk *w, hi_addr chunk, hi_addr end, uint64_t word)
{
    unsigned rest = -end % w->p->page_bytes;
    bool is_top = rest == 0 || (rest == 2 * PTMALLOC_HEADER_BYTES && word != CHUNK_PREV_INUSE &&
                                word != (PTMALLOC_HEADER_BYTES | CHUNK_PREV_INUSE));
    walk_emit(w, chunk, is_top ? BLOCK_IN_FLIGHT : BLOCK_LIVE);
    w->region_end = rest ? end + 8 : end;
    w->end = end + rest;
    w->at_fencepost = true;
    w->arena->in_flux = true;
}

/* Is this, behind a chunk that fits, where a piece ends that is left open? */
static bool is_left_open(struct walk *w, const struct chunk *next)
{
    if (chunk_size_fits(w->arena, next->address, next->words.size, w->limit) ||
        !ptmalloc_left_open(w->p, w->arena, next->address, w->limit))
        return false;
    return !is_fencepost(w, next) || !ptmalloc_are_fenceposts(w->p, next->address);
}

/* The top, after a chunk that was cut from it and has the old one's size. */
static bool walk_to_top(struct walk *w, struct chunk *chunk)
{
    w->arena->in_flux |= walk_in_flux(w);
    return walk_emit(w, chunk->address, BLOCK_IN_FLIGHT) && chunk_load(w, w->arena->top, chunk);
}

/* The next chunk after one that fits; false: the piece is done. */
static bool walk_next(struct walk *w, struct chunk *chunk)
{
    struct chunk next;
    hi_addr at = chunk->address + chunk_bytes(chunk->words.size);
    if (__builtin_expect(w->arena->top > chunk->address && w->arena->top < at, 0)) {
        /* cut from the top, whose new header stands, before the old one was rewritten */
        if (!walk_in_flux(w))
            sink_finding(w->sink, "chunks end at the top", chunk->address,
                         "size word 0x%llx reaches past the top",
                         (unsigned long long)chunk->words.size);
        return walk_to_top(w, chunk);
    }
    if (__builtin_expect(!chunk_load(w, at, &next), 0)) {
        walk_emit(w, chunk->address, BLOCK_LIVE);
        hi_addr resume = walk_gap(w, at);
        return resume < w->limit && !w->stopped && chunk_load(w, resume, chunk);
    }
    if (__builtin_expect(chunk_bytes(next.words.size) == 0 && is_fencepost(w, &next) &&
                             chunk_bytes(chunk->words.size) == PTMALLOC_MIN_CHUNK_BYTES,
                         0)) {
        /* the old top was too small to free: it became part of the fencepost */
        walk_fencepost(w, chunk->address);
        return false;
    }
    if (__builtin_expect(walk_in_flux(w), 0)) {
        if (is_left_open(w, &next)) {
            walk_left_open(w, chunk->address, next.address, next.words.size);
            return false;
        }
        if (!(next.words.size & CHUNK_PREV_INUSE) && !is_fencepost(w, &next) &&
            !chunk_size_fits(w->arena, at, next.words.size, w->limit)) {
            /* no header yet: it does not say that this one is free */
            bool emitted = walk_emit(w, chunk->address, BLOCK_IN_FLIGHT);
            *chunk = next;
            return emitted;
        }
    }
    if (!emit_chunk(w, chunk, &next))
        return false;
    *chunk = next;
    return true;
}

/* Plain live chunks from *chunk on, as far as the window shows them: two of three in most heaps,
 * and the reading of one header waits for the one before, so little is done for each (8 ns where
 * the general way takes 16). Ends in front of whatever is not plain. */
static void walk_straight(struct walk *w, struct chunk *chunk)
{
    const struct ptmalloc_arena *arena = w->arena;
    const uint64_t wrong = 8 | CHUNK_IS_MMAPPED | (arena->is_main ? CHUNK_NON_MAIN : 0);
    hi_addr at = chunk->address, end = w->window_start + w->window_bytes;
    uint64_t size = chunk->words.size;
    if (w->suspect_count || at < w->window_start || w->window_bytes < sizeof chunk->words)
        return;
    end -= sizeof chunk->words;
    end = w->pause_at < end ? w->pause_at : end;
    end = arena->top >= at && arena->top < end ? arena->top : end;
    for (;;) {
        uint64_t bytes = chunk_bytes(size), next;
        if (at >= end || size & wrong || bytes < PTMALLOC_MIN_CHUNK_BYTES || bytes >= end - at)
            break;
        memcpy(&next, w->window + (at + bytes - w->window_start) + 8, sizeof next);
        if (!(next & CHUNK_PREV_INUSE) || next < PTMALLOC_MIN_CHUNK_BYTES ||
            may_be_fast(w, bytes) || is_tcache_size(w, bytes) || w->batched + 1 >= WALK_BATCH)
            break;
        w->batch[w->batched++] = (struct block_chunk){at + PTMALLOC_HEADER_BYTES, BLOCK_LIVE};
        w->before = at;
        at += bytes;
        size = next;
    }
    if (at != chunk->address)
        chunk_load(w, at, chunk);
}

/* Does it reach to the end of the piece, which only the top and what is cut from it do? */
static bool reaches_limit(const struct walk *w, const struct chunk *chunk)
{
    return chunk_bytes(chunk->words.size) == w->limit - chunk->address &&
           chunk_size_fits(w->arena, chunk->address, chunk->words.size, w->limit + 1);
}

/* From w->chunk on, until the top, a fencepost or the limit: then w->done; or until the header that
 * comes next lies in another window. */
static void walk_on(struct walk *w)
{
    struct chunk chunk = w->chunk;
    w->done = true;
    while (!w->stopped) {
        walk_straight(w, &chunk);
        if (chunk.address == w->arena->top) {
            walk_top(w, &chunk);
            return;
        }
        if (__builtin_expect(!chunk_size_fits(w->arena, chunk.address, chunk.words.size, w->limit),
                             0)) {
            if (is_fencepost(w, &chunk)) {
                walk_fencepost(w, chunk.address);
                return;
            }
            if (reaches_limit(w, &chunk)) {
                if (ptmalloc_over_top(w->p, w->arena, chunk.address, chunk.words.size)) {
                    if (!walk_to_top(w, &chunk))
                        return;
                    continue;
                }
                if (ptmalloc_left_open(w->p, w->arena, w->limit, w->limit)) {
                    walk_left_open(w, chunk.address, w->limit, 0);
                    return;
                }
            }
            hi_addr resume =
                walk_damage(w, w->before, chunk.address, "a chunk header is one", chunk.words.size);
            if (resume >= w->limit || w->stopped || !chunk_load(w, resume, &chunk))
                return;
            w->before = 0;
            continue;
        }
        if (chunk.address + chunk_bytes(chunk.words.size) >= w->pause_at) {
            w->chunk = chunk;
            w->done = false;
            return;
        }
        w->before = chunk.address;
        if (!walk_next(w, &chunk))
            return;
    }
}

/* The walk's part of one window of a relay. */
static hi_addr walk_window(void *context, const struct relay_window *window)
{
    struct walk *w = context;
    hi_addr next = w->chunk.address + chunk_bytes(w->chunk.words.size);
    w->pause_at = window->end < w->limit ? window->end : UINT64_MAX;
    if (next < window->end || window->end == w->limit) {
        w->window = window->bytes;
        w->window_start = window->start;
        w->window_bytes = window->have;
        walk_on(w);
        next = w->chunk.address + chunk_bytes(w->chunk.words.size);
    }
    return w->done ? RELAY_DONE : next;
}

/* From first on, until the top, a fencepost or the limit. */
static void walk_chunks(struct walk *w, hi_addr first)
{
    size_t bytes;
    w->region_end = w->end = w->limit;
    w->at_fencepost = false;
    w->pause_at = UINT64_MAX;
    w->before = 0;
    if (!chunk_load(w, first, &w->chunk)) {
        walk_gap(w, first);
        return;
    }
    if ((w->p->jobs == 1 && !w->p->guest) || w->limit - first < RELAY_WORTH_BYTES ||
        target_view(w->p->target, first, &bytes)) {
        walk_on(w);
        return;
    }
    /* the first chunk is looked at here: what it needs next is known then */
    w->pause_at = first;
    walk_on(w);
    if (w->done)
        return;
    struct hi_range range = {first, w->limit};
    bool ran = relay_run(w->p->target, range, w->p->jobs, w->p->guest, walk_window, w);
    w->pause_at = UINT64_MAX;
    w->window = NULL; /* the relay's, and gone */
    w->window_bytes = 0;
    if (!ran)
        walk_on(w);
}

/* Of [from, last): where a chunk without one in front leads to a header that is half done. */
static hi_addr segment_half_done(struct walk *w, hi_addr from, hi_addr last, uint64_t *budget)
{
    struct ptmalloc *p = w->p;
    for (hi_addr q = from; q < last && *budget; q += CHUNK_ALIGN, --*budget) {
        uint64_t prev_size, word;
        if (evidence_cache_u64(p->cache, q, &prev_size) && prev_size == 0 &&
            evidence_cache_u64(p->cache, q + 8, &word) && word & CHUNK_PREV_INUSE &&
            chunk_size_fits(w->arena, q, word, w->limit) &&
            ptmalloc_chain_mends(p, w->arena, q, w->limit, budget))
            return q;
    }
    return last;
}

/* Behind fenceposts of the main arena: the first place from which a chain leads on. Its top may be
 * on a mapping by now, with more pieces between foreign memory here. */
static hi_addr segment_after(struct walk *w, hi_addr from)
{
    enum { NONCONTIGUOUS = 2 };
    uint64_t budget = SEARCH_BUDGET;
    bool ahead = w->arena->top >= from && w->arena->top < w->limit;
    hi_addr last = ahead ? w->arena->top : w->limit, q = from;
    if (!ahead && !(w->arena->flags & NONCONTIGUOUS))
        return last;
    for (; q < last && budget; q += CHUNK_ALIGN, budget--)
        if (ptmalloc_chain_leads(w->p, w->arena, q, w->limit, &budget)) {
            last = q;
            break;
        }
    return walk_in_flux(w) && w->p->flux_budget ? segment_half_done(w, from, last, &budget) : last;
}

bool ptmalloc_claim(struct ptmalloc *p, hi_addr start, hi_addr end)
{
    struct hi_range *range = VECTOR_PUSH(&p->claimed);
    if (range)
        *range = (struct hi_range){start, end};
    return range != NULL;
}

/* One segment as a region; w->end is where it ended. */
static bool walk_segment(struct walk *w, hi_addr first)
{
    struct region region = {.shape = REGION_CHUNKS,
                            .start = first + PTMALLOC_HEADER_BYTES,
                            .end = w->limit,
                            .gap = 8,
                            .slack = 16,
                            .arena = w->arena->index};
    if (region.start >= region.end)
        return true;
    if (!sink_metadata(w->sink, first, region.start) || !sink_chunks_begin(w->sink, &region))
        return false;
    walk_chunks(w, first);
    if (!walk_flush(w) || !sink_chunks_end_at(w->sink, w->region_end))
        return false;
    if (w->at_fencepost && !sink_metadata(w->sink, w->region_end, w->end))
        return false;
    return ptmalloc_claim(w->p, first, w->end) &&
           progress_step(w->p->progress, "reading", w->end, 0);
}

/* Sizes worth a look: the layout's; while that is not known, any layout's. */
static void tcache_sizes(struct walk *w)
{
    const struct ptmalloc_tcache_layout *first = &ptmalloc_tcache_layouts[0];
    const struct ptmalloc_tcache_layout *last =
        &ptmalloc_tcache_layouts[ptmalloc_tcache_layout_count - 1];
    if (w->p->tcache)
        first = last = w->p->tcache;
    w->tcache_min = first->chunk_min;
    w->tcache_span = last->chunk_max - first->chunk_min;
}

bool ptmalloc_walk_pieces(struct ptmalloc *p, struct heap_sink *sink, struct ptmalloc_piece *piece)
{
    struct walk *w = calloc(1, sizeof *w);
    if (!w || !(w->buffer = malloc(WINDOW_MAX_BYTES))) {
        free(w);
        return false;
    }
    w->p = p;
    w->sink = sink;
    w->arena = piece->arena;
    w->limit = w->end = piece->limit;
    w->window_want = WINDOW_MIN_BYTES;
    w->single = piece->single;
    tcache_sizes(w);
    bool fine = true;
    hi_addr first = piece->first;
    while (fine && first < piece->limit) {
        fine = walk_segment(w, first);
        if (!w->at_fencepost || !w->arena->is_main || piece->single)
            break;
        first = segment_after(w, w->end);
    }
    piece->limit = w->end;
    free(w->buffer);
    free(w);
    return fine;
}
