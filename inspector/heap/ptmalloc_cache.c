/*
 * ptmalloc: chunks that carry the in-use bit and are free all the same.
 *
 * Thread caches. Each thread's tcache is a block of the heap: counts, and heads of lists of what
 * malloc returned. Its address stands in the thread's TLS at an offset that differs from build to
 * build and is the same for all threads: every word below fs that points to a chunk of a tcache's
 * size with a tcache's content is a candidate, and the offset that most threads agree on wins. A
 * thread's own arena is found the same way. A thread that is just ending has cleared its slot and
 * still holds its lists; and threads' registers may be unknown. Live chunks of the size whose every
 * list runs over known blocks, with as many as the counts say (an ending one: no more), are taken
 * by their content when at least one list is not empty, the blocks have their bin's size and, where
 * entries carry a key, all agree.
 * An empty one of a thread that fork() left behind is known by its place.
 *
 * Fast bins (until 2.42): singly linked through fd, heads in the arena.
 *
 * Links are mangled since 2.32 (link ^ place >> 12; heads are plain). Which it is, is voted on by
 * the links themselves: read wrongly they leave the heap.
 *
 * malloc_consolidate() takes a whole fast bin off its head before it frees the chunks one by one: a
 * thread stopped there holds the rest of the list in a register or on top of its stack. For a
 * locked arena such words are followed, and believed when the chain ends as lists do.
 *
 * Damage: an entry that is no block is a finding and ends its list; counts that disagree by more
 * than the one that a stopped thread may be about to change are findings. Lists are bounded by the
 * number of blocks; chunks already cached end a list (a loop).
 */
#include "heap/ptmalloc.h"

enum { TLS_BYTES = 64 << 10, TLS_MAX_BYTES = 1 << 20, VOTERS = 64, STACK_WORDS = 64 };

/* -- reading a tcache ---------------------------------------------------------------------------
 */

struct tcache_content {
    uint32_t counts[PTMALLOC_MAX_TCACHE_BINS]; /* entries that it says it has */
    hi_addr entries[PTMALLOC_MAX_TCACHE_BINS];
    unsigned used, odd; /* bins with entries; bins whose count and head disagree */
};

static uint32_t tcache_count(const struct ptmalloc *p, const struct ptmalloc_tcache_layout *row,
                             const unsigned char *bytes, unsigned bin)
{
    uint16_t count = bytes[bin];
    if (row->count_bytes == 2)
        memcpy(&count, bytes + 2 * (size_t)bin, sizeof count);
    if (!row->counts_down)
        return count;
    uint64_t limit = p->tcache_count ? p->tcache_count : 16;
    return count <= limit ? (uint32_t)(limit - count) : UINT32_MAX;
}

static bool in_heap(const struct ptmalloc *p, hi_addr address)
{
    return address % CHUNK_ALIGN == 0 &&
           evidence_is_heap_mapping(target_mapping_at(p->target, address));
}

/* Could this block be a tcache of that layout? One bin may be half updated; odd says how many
 * disagree (an ending thread empties its lists and not its counts). */
static bool tcache_decode(struct ptmalloc *p, const struct ptmalloc_tcache_layout *row,
                          hi_addr address, struct tcache_content *content)
{
    unsigned char bytes[0x300];
    *content = (struct tcache_content){0};
    if (!evidence_cache_bytes(p->cache, address, bytes, row->bytes))
        return false;
    uint64_t limit = p->tcache_count ? p->tcache_count : UINT16_MAX;
    for (unsigned i = 0; i < row->bins; i++) {
        uint32_t count = tcache_count(p, row, bytes, i);
        memcpy(&content->entries[i], bytes + row->entries + 8 * (size_t)i, 8);
        content->counts[i] = count;
        if (content->entries[i] && !in_heap(p, content->entries[i]))
            return false;
        if (count > limit)
            return false;
        content->used += content->entries[i] != 0;
        content->odd += (count == 0) != (content->entries[i] == 0);
    }
    return true;
}

static bool tcache_read(struct ptmalloc *p, const struct ptmalloc_tcache_layout *row,
                        hi_addr address, struct tcache_content *content)
{
    return tcache_decode(p, row, address, content) && content->odd <= 1;
}

/* In memory that arenas claim, as far as they are known before the walk. */
static bool in_arena(const struct ptmalloc *p, hi_addr address)
{
    hi_addr top = p->arenas.count ? p->arenas.items[0].top : 0;
    if (p->sbrk_base && address >= p->sbrk_base && address < top)
        return true;
    for (size_t i = 0; i < p->heaps.count; i++)
        if (address - p->heaps.items[i].start < p->heaps.items[i].bytes)
            return true;
    return false;
}

/* The size in the chunk header before what malloc returned. */
static bool has_tcache_size(struct ptmalloc *p, const struct ptmalloc_tcache_layout *row,
                            hi_addr address)
{
    uint64_t word;
    if (!in_heap(p, address) || !evidence_cache_u64(p->cache, address - 8, &word))
        return false;
    uint64_t bytes = chunk_bytes(word);
    return !(word & CHUNK_IS_MMAPPED) && bytes >= row->chunk_min && bytes <= row->chunk_max;
}

static bool tcache_plausible(struct ptmalloc *p, const struct ptmalloc_tcache_layout *row,
                             hi_addr address)
{
    struct tcache_content content;
    uint64_t word;
    if (!in_heap(p, address))
        return false;
    if (in_arena(p, address) && !evidence_cache_u64(p->cache, address & ~UINT64_C(7), &word)) {
        p->unread = address;
        return false;
    }
    if (!tcache_read(p, row, address, &content))
        return false;
    /* its header may be damaged: then its content must speak */
    return has_tcache_size(p, row, address) || (content.used >= 2 && content.odd == 0);
}

/* -- by TLS -------------------------------------------------------------------------------------
 */

struct tls_copy {
    hi_addr start;
    size_t bytes;
    unsigned char *memory;
};

/* Static TLS below fs, clipped to its mapping: the main thread's may start in the same page. */
static bool tls_read(struct ptmalloc *p, const struct thread *thread, size_t want,
                     struct tls_copy *tls)
{
    hi_addr fs = thread->fs_base;
    const struct mapping *mapping = fs % 8 == 0 && fs ? target_mapping_at(p->target, fs - 1) : NULL;
    if (!mapping)
        return false;
    tls->start = fs - mapping->start > want ? fs - want : mapping->start;
    tls->bytes = fs - tls->start;
    return target_read(p->target, tls->start, tls->memory, tls->bytes, NULL) == HI_OK;
}

static size_t tls_bytes(const struct ptmalloc *p)
{
    uint64_t bytes = TLS_BYTES;
    for (size_t i = 0; p->symbols && i < symbols_module_count(p->symbols); i++) {
        uint64_t more = symbols_module(p->symbols, i)->tls_bytes;
        bytes += more < TLS_MAX_BYTES ? more : TLS_MAX_BYTES;
    }
    return bytes < TLS_MAX_BYTES ? bytes : TLS_MAX_BYTES;
}

typedef bool (*tls_test)(struct ptmalloc *p, const void *what, uint64_t value);

static bool tls_test_tcache(struct ptmalloc *p, const void *what, uint64_t value)
{
    return value && tcache_plausible(p, what, value);
}

static bool tls_test_arena(struct ptmalloc *p, const void *what, uint64_t value)
{
    (void)what;
    for (size_t i = 0; i < p->arenas.count && i < 4096; i++)
        if (p->arenas.items[i].address == value)
            return true;
    return false;
}

/* The offset below fs at which most threads' TLS passes the test; votes for it in *votes. */
static uint64_t tls_vote(struct ptmalloc *p, struct tls_copy *tls, tls_test test, const void *what,
                         uint32_t *votes)
{
    struct evidence_vote vote = {0};
    size_t want = tls_bytes(p), voters = 0;
    for (size_t t = 0; t < target_thread_count(p->target) && voters < VOTERS; t++) {
        const struct thread *thread = target_thread(p->target, t);
        if (!thread->has_registers || !tls_read(p, thread, want, tls))
            continue;
        voters++;
        for (size_t at = (size_t)(-tls->start & 7); at + 8 <= tls->bytes; at += 8) {
            uint64_t value;
            memcpy(&value, tls->memory + at, sizeof value);
            if (value && test(p, what, value))
                evidence_vote_cast(&vote, thread->fs_base - (tls->start + at));
        }
    }
    uint64_t offset = 0;
    *votes = evidence_vote_winner(&vote, &offset);
    return offset;
}

static bool tcache_push(struct ptmalloc *p, hi_addr address, pid_t tid)
{
    for (size_t i = 0; i < p->tcaches.count && i < 65536; i++)
        if (p->tcaches.items[i].address == address)
            return true;
    struct ptmalloc_tcache *tcache = VECTOR_PUSH(&p->tcaches);
    if (tcache)
        *tcache = (struct ptmalloc_tcache){address, tid};
    return tcache != NULL;
}

/* A release that has them: its mp_ has their limit. */
static bool has_tcaches(const struct ptmalloc *p)
{
    return !p->par || p->par->tcache_count != PTMALLOC_NONE;
}

enum hi_code ptmalloc_tcaches_find(struct ptmalloc *p, struct hi_err *err)
{
    struct tls_copy tls = {.memory = malloc(TLS_MAX_BYTES)};
    uint32_t best = 0;
    if (!tls.memory)
        return hi_no_memory(err);
    for (size_t i = 0; i < ptmalloc_tcache_layout_count && has_tcaches(p); i++) {
        uint32_t votes;
        uint64_t offset = tls_vote(p, &tls, tls_test_tcache, &ptmalloc_tcache_layouts[i], &votes);
        if (votes <= best)
            continue;
        best = votes;
        p->tcache = &ptmalloc_tcache_layouts[i];
        p->tls_offset = offset;
    }
    free(tls.memory);
    for (size_t t = 0; t < target_thread_count(p->target); t++) {
        const struct thread *thread = target_thread(p->target, t);
        uint64_t value, slot = thread->fs_base - (p->tls_offset ? p->tls_offset : 8);
        /* one that is just beginning or ending may have no memory there */
        if (!thread->has_registers || !target_mapping_at(p->target, slot))
            continue;
        p->tls_expected++;
        if (!evidence_cache_u64(p->cache, slot, &value))
            continue;
        p->tls_read++;
        if (p->tls_offset && value && tcache_plausible(p, p->tcache, value) &&
            !tcache_push(p, value, thread->tid))
            return hi_no_memory(err);
    }
    return HI_OK;
}

/* Which thread uses which arena. */
void ptmalloc_threads_attach(struct ptmalloc *p, struct heap_sink *sink)
{
    struct tls_copy tls = {.memory = malloc(TLS_MAX_BYTES)};
    uint32_t votes = 0;
    uint64_t offset = tls.memory ? tls_vote(p, &tls, tls_test_arena, NULL, &votes) : 0;
    free(tls.memory);
    for (size_t t = 0; t < target_thread_count(p->target) && votes; t++) {
        const struct thread *thread = target_thread(p->target, t);
        uint64_t value;
        if (!thread->has_registers ||
            !evidence_cache_u64(p->cache, thread->fs_base - offset, &value))
            continue;
        for (size_t i = 0; i < p->arenas.count; i++) {
            struct arena *arena = sink_arena_at(sink, p->arenas.items[i].index);
            if (p->arenas.items[i].address != value || !arena)
                continue;
            if (arena->tid_count < ARENA_MAX_TIDS)
                arena->tids[arena->tid_count] = thread->tid;
            arena->tid_count++;
            break;
        }
    }
}

/* -- links --------------------------------------------------------------------------------------
 */

static void link_vote(struct ptmalloc *p, hi_addr place, unsigned votes[2])
{
    uint64_t word;
    if (!evidence_cache_u64(p->cache, place, &word))
        return;
    hi_addr revealed = word ^ place >> 12;
    votes[0] += word == 0 || in_heap(p, word);
    votes[1] += revealed == 0 || in_heap(p, revealed);
}

void ptmalloc_links_vote(struct ptmalloc *p)
{
    unsigned votes[2] = {0, 0}; /* plain, mangled */
    for (size_t t = 0; t < p->tcaches.count && t < VOTERS; t++) {
        struct tcache_content content;
        if (!tcache_read(p, p->tcache, p->tcaches.items[t].address, &content))
            continue;
        for (unsigned i = 0; i < p->tcache->bins; i++)
            if (content.entries[i])
                link_vote(p, content.entries[i], votes);
    }
    for (size_t a = 0; a < p->arenas.count && a < VOTERS; a++)
        for (unsigned i = 0; i < PTMALLOC_FASTBINS; i++)
            if (in_heap(p, p->arenas.items[a].fastbins[i]))
                link_vote(p, p->arenas.items[a].fastbins[i] + PTMALLOC_HEADER_BYTES, votes);
    p->links_mangled =
        votes[0] == votes[1] ? p->tcache && p->tcache->counts_down : votes[1] > votes[0];
}

/* -- overlay ------------------------------------------------------------------------------------
 */

static bool is_block(const struct heap_sink *sink, hi_addr address, enum block_state *state)
{
    const struct blocks *blocks = sink_heaps(sink)->blocks;
    struct block_place place;
    if (!blocks_at(blocks, address, &place) || place.offset != 0)
        return false;
    const struct region *region = blocks_region_of(blocks, place.block);
    *state = blocks_state(blocks, place.block);
    /* a mapped chunk may be cached too: 2.42 and later with a large tcache_max */
    return region && region->shape != REGION_NODE;
}

/* One list of user addresses (header: bytes from entry to what malloc returned). Its length. */
static bool list_overlay(struct ptmalloc *p, struct heap_sink *sink, hi_addr head, unsigned header,
                         const char *rule, uint64_t *length)
{
    hi_addr at = head;
    for (*length = 0; at && *length < BLOCKS_MAX; ++*length) {
        enum block_state before;
        uint64_t word;
        hi_addr user = at + header;
        if (!is_block(sink, user, &before)) {
            p->lists_broken++;
            return sink_finding(sink, rule, user, "entry %llu of the list at 0x%llx is no block",
                                (unsigned long long)*length, (unsigned long long)head);
        }
        if (before == BLOCK_CACHED) {
            p->lists_broken++;
            return sink_finding(sink, rule, user, "entry %llu is in a list already",
                                (unsigned long long)*length);
        }
        if (!sink_overlay(sink, user, BLOCK_CACHED, NULL))
            return false;
        if (!evidence_map_get(&p->links, user, &word) && !evidence_cache_u64(p->cache, user, &word))
            return sink_finding(sink, rule, user, "entry %llu can't be read; the list ends there",
                                (unsigned long long)*length);
        at = ptmalloc_link(p, user, word);
    }
    return true;
}

static bool tcache_overlay(struct ptmalloc *p, struct heap_sink *sink,
                           const struct ptmalloc_tcache *tcache)
{
    struct tcache_content content;
    enum block_state state;
    if (!p->tcache || !tcache_decode(p, p->tcache, tcache->address, &content))
        return sink_finding(sink, "a thread cache is one", tcache->address, "it can't be read");
    if (is_block(sink, tcache->address, &state) && !sink_kept(sink, tcache->address, "tcache"))
        return false;
    unsigned off = 0;
    for (unsigned i = 0; i < p->tcache->bins; i++) {
        uint64_t length;
        if (!list_overlay(p, sink, content.entries[i], 0, "a thread cache holds blocks", &length))
            return false;
        p->tcache_reported += tcache->tid ? content.counts[i] : length;
        p->tcache_listed += length;
        if (length == content.counts[i])
            continue;
        uint64_t difference =
            length > content.counts[i] ? length - content.counts[i] : content.counts[i] - length;
        /* one by the thread that was stopped between link and count; an ending thread's own counts
         * are not kept up */
        if (tcache->tid && (difference > 1 || off++) &&
            !sink_finding(sink, "a thread cache's count is its list's length", tcache->address,
                          "bin %u counts %u, lists %llu", i, content.counts[i],
                          (unsigned long long)length))
            return false;
    }
    return true;
}

/* -- by content ---------------------------------------------------------------------------------
 */

struct key_check {
    uint64_t key;
    bool known, agree;
};

/* Is this a block that belongs into that bin? From small_bins on sizes differ. */
static bool entry_fits(struct ptmalloc *p, unsigned bin, hi_addr entry)
{
    uint64_t size;
    if (bin >= p->tcache->small_bins)
        return true;
    return evidence_cache_u64(p->cache, entry - 8, &size) &&
           chunk_bytes(size) == PTMALLOC_MIN_CHUNK_BYTES + (uint64_t)bin * CHUNK_ALIGN;
}

/* Every list of it runs over live blocks of one size and key, no longer than its count. */
static bool tcache_content_holds(struct ptmalloc *p, const struct heap_sink *sink, hi_addr address,
                                 struct key_check *key)
{
    struct tcache_content content;
    if (!tcache_decode(p, p->tcache, address, &content) || content.used == 0)
        return false;
    uint64_t limit = p->tcache_count ? p->tcache_count : UINT16_MAX;
    for (unsigned i = 0; i < p->tcache->bins; i++) {
        hi_addr at = content.entries[i];
        uint64_t length = 0, word, mark;
        for (; at && length <= limit; length++) {
            enum block_state state;
            if (!is_block(sink, at, &state) || state != BLOCK_LIVE || !entry_fits(p, i, at) ||
                !evidence_cache_u64(p->cache, at, &word) ||
                !evidence_cache_u64(p->cache, at + 8, &mark))
                return false;
            key->agree &= !key->known || mark == key->key || !p->tcache->keyed;
            key->key = mark;
            key->known = true;
            at = ptmalloc_link(p, at, word);
        }
        if (length > content.counts[i])
            return false;
    }
    return key->agree;
}

/* The first chunk of an arena's own heap is the thread cache of the thread that made the arena. In
 * a forked child that thread is gone, and its cache may be empty: nothing but its place and its
 * zeros speak for it. */
static bool tcache_is_arenas_first(struct ptmalloc *p, hi_addr address)
{
    struct tcache_content content;
    if (!tcache_decode(p, p->tcache, address, &content) || content.used || content.odd)
        return false;
    for (size_t i = 0; i < p->heaps.count; i++) {
        const struct ptmalloc_heap *heap = &p->heaps.items[i];
        hi_addr arena = p->arenas.items[heap->arena].address;
        if (address - heap->start < heap->bytes)
            return arena - heap->start < heap->bytes &&
                   address == ptmalloc_heap_first(p, heap) + PTMALLOC_HEADER_BYTES;
    }
    return false;
}

static bool tcaches_by_content(struct ptmalloc *p, struct heap_sink *sink)
{
    for (size_t i = 0; i < p->tcache_like.count && p->tcache; i++) {
        hi_addr address = p->tcache_like.items[i];
        struct key_check key = {.agree = true};
        size_t before = p->tcaches.count;
        if (!tcache_content_holds(p, sink, address, &key) && !tcache_is_arenas_first(p, address))
            continue;
        if (!tcache_push(p, address, 0))
            return false;
        if (p->tcaches.count > before &&
            !tcache_overlay(p, sink, &p->tcaches.items[p->tcaches.count - 1]))
            return false;
    }
    return true;
}

/* Without a thread's help: the layout under which some live chunk holds as a tcache. */
static void tcache_layout_by_content(struct ptmalloc *p, const struct heap_sink *sink)
{
    bool voted = p->links_mangled;
    for (size_t r = 0; r < ptmalloc_tcache_layout_count && !p->tcache; r++) {
        p->tcache = &ptmalloc_tcache_layouts[r];
        bool holds = false;
        for (size_t i = 0; i < p->tcache_like.count && !holds; i++)
            for (unsigned mangled = 0; mangled < 2 && !holds; mangled++) {
                struct key_check key = {.agree = true};
                p->links_mangled = mangled;
                holds = has_tcache_size(p, p->tcache, p->tcache_like.items[i]) &&
                        tcache_content_holds(p, sink, p->tcache_like.items[i], &key);
            }
        if (!holds)
            p->tcache = NULL;
    }
    if (!p->tcache) /* what fast bins say stands */
        p->links_mangled = voted;
}

/* -- a consolidation under way ------------------------------------------------------------------
 */

/* Length of the chain of fast chunks from here, if it ends as one does; 0: it is none. */
static uint64_t orphan_length(struct ptmalloc *p, const struct heap_sink *sink, hi_addr chunk)
{
    uint64_t length = 0, size = 0, first = 0, word;
    while (chunk && length < BLOCKS_MAX) {
        enum block_state state;
        hi_addr user = chunk + PTMALLOC_HEADER_BYTES;
        if (chunk % CHUNK_ALIGN || !is_block(sink, user, &state) || state != BLOCK_LIVE ||
            !evidence_cache_u64(p->cache, chunk + 8, &size) ||
            !evidence_cache_u64(p->cache, user, &word))
            return 0;
        first = first ? first : chunk_bytes(size);
        if (chunk_bytes(size) != first || first > 0xb0)
            return 0;
        chunk = ptmalloc_link(p, user, word);
        length++;
    }
    return p->links_mangled || length >= 2 ? length : 0;
}

static bool orphan_try(struct ptmalloc *p, struct heap_sink *sink, uint64_t value)
{
    uint64_t length;
    if (value < p->page_bytes || value % CHUNK_ALIGN || !orphan_length(p, sink, value))
        return true;
    return list_overlay(p, sink, value, PTMALLOC_HEADER_BYTES, "a fast bin holds blocks", &length);
}

static bool orphans_overlay(struct ptmalloc *p, struct heap_sink *sink)
{
    if (p->state->fastbins == PTMALLOC_NONE || !p->flux_budget)
        return true;
    for (size_t t = 0; t < target_thread_count(p->target); t++) {
        const struct thread *thread = target_thread(p->target, t);
        uint64_t stack[STACK_WORDS];
        if (!thread->has_registers)
            continue;
        size_t got = target_read_some(p->target, thread->sp, stack, sizeof stack) / 8;
        for (size_t i = 0; i < THREAD_REGISTER_COUNT; i++)
            if (!orphan_try(p, sink, thread->registers[i]))
                return false;
        for (size_t i = 0; i < got; i++)
            if (!orphan_try(p, sink, stack[i]))
                return false;
    }
    return true;
}

bool ptmalloc_overlay_caches(struct ptmalloc *p, struct heap_sink *sink)
{
    if (!p->tcache && p->tcache_like.count && has_tcaches(p))
        tcache_layout_by_content(p, sink);
    size_t known = p->tcache ? p->tcaches.count : 0;
    for (size_t i = 0; i < known; i++)
        if (!tcache_overlay(p, sink, &p->tcaches.items[i]))
            return false;
    for (size_t a = 0; a < p->arenas.count; a++)
        for (unsigned i = 0; i < PTMALLOC_FASTBINS; i++) {
            uint64_t length;
            if (!list_overlay(p, sink, p->arenas.items[a].fastbins[i], PTMALLOC_HEADER_BYTES,
                              "a fast bin holds blocks", &length))
                return false;
            p->fastbin_listed += length;
        }
    return tcaches_by_content(p, sink) && orphans_overlay(p, sink);
}

/* -- lists, one by one: only when something is wrong --------------------------------------------
 */

static bool anchor_push(struct ptmalloc_arena *arena, hi_addr chunk)
{
    hi_addr *anchor = VECTOR_PUSH(&arena->anchors);
    if (anchor)
        *anchor = chunk;
    return anchor != NULL;
}

static int address_order(const void *a, const void *b)
{
    hi_addr x = *(const hi_addr *)a, y = *(const hi_addr *)b;
    return x < y ? -1 : x > y;
}

/* Entries whose neighbour points back: a forged one does not. */
static bool anchors_of_bins(struct ptmalloc *p, struct ptmalloc_arena *arena, uint64_t *budget)
{
    for (unsigned i = 0; i < PTMALLOC_BINS; i++) {
        hi_addr bin = bin_address(p, arena->address, i), at = 0, before = bin, back = 0;
        if (!evidence_cache_u64(p->cache, bin + 16, &at))
            continue;
        for (; at && at != bin && *budget; --*budget) {
            if (!in_heap(p, at) || !evidence_cache_u64(p->cache, at + 24, &back) || back != before)
                break;
            if (!anchor_push(arena, at))
                return false;
            before = at;
            if (!evidence_cache_u64(p->cache, at + 16, &at))
                break;
        }
    }
    return true;
}

static bool anchors_of_list(struct ptmalloc *p, struct ptmalloc_arena *arena, hi_addr head,
                            unsigned header, uint64_t *budget)
{
    uint64_t word;
    for (hi_addr at = head; at && in_heap(p, at) && *budget; --*budget) {
        hi_addr user = at + header;
        if (!anchor_push(arena, user - PTMALLOC_HEADER_BYTES))
            return false;
        if (!evidence_cache_u64(p->cache, user, &word))
            return true;
        at = ptmalloc_link(p, user, word);
    }
    return true;
}

bool ptmalloc_anchors_collect(struct ptmalloc *p, struct ptmalloc_arena *arena)
{
    uint64_t budget = UINT64_C(1) << 22;
    if (arena->has_anchors)
        return true;
    arena->has_anchors = true;
    bool fine = anchors_of_bins(p, arena, &budget);
    for (unsigned i = 0; i < PTMALLOC_FASTBINS && fine; i++)
        fine = anchors_of_list(p, arena, arena->fastbins[i], PTMALLOC_HEADER_BYTES, &budget);
    for (size_t t = 0; t < p->tcaches.count && fine; t++) {
        struct tcache_content content;
        if (!tcache_read(p, p->tcache, p->tcaches.items[t].address, &content))
            continue;
        for (unsigned i = 0; i < p->tcache->bins && fine; i++)
            fine = anchors_of_list(p, arena, content.entries[i], 0, &budget);
    }
    if (arena->anchors.count)
        qsort(arena->anchors.items, arena->anchors.count, sizeof(hi_addr), address_order);
    return fine;
}

static bool bin_check(struct ptmalloc *p, struct heap_sink *sink, struct ptmalloc_arena *arena,
                      unsigned index, uint64_t *budget)
{
    hi_addr bin = bin_address(p, arena->address, index), at = 0, before = bin, back = 0;
    if (!evidence_cache_u64(p->cache, bin + 16, &at) || at == 0)
        return true;
    for (; *budget && at != bin; --*budget) {
        enum block_state state;
        if (!is_block(sink, at + PTMALLOC_HEADER_BYTES, &state) || state == BLOCK_LIVE)
            return sink_finding(sink, "a bin lists free chunks", at,
                                "in bin %u of the arena at 0x%llx, after 0x%llx", index,
                                (unsigned long long)arena->address, (unsigned long long)before);
        if (!evidence_cache_u64(p->cache, at + 24, &back) || back != before)
            return sink_finding(sink, "a bin's links lead back", at,
                                "bk is 0x%llx, came from 0x%llx", (unsigned long long)back,
                                (unsigned long long)before);
        before = at;
        if (!evidence_cache_u64(p->cache, at + 16, &at))
            return true;
    }
    return true;
}

bool ptmalloc_lists_check(struct ptmalloc *p, struct heap_sink *sink)
{
    for (size_t a = 0; a < p->arenas.count; a++) {
        struct ptmalloc_arena *arena = &p->arenas.items[a];
        uint64_t budget = arena->free_count * 2 + 2 * PTMALLOC_BINS;
        if (arena->forward_sum == arena->backward_sum || arena->locked || p->thread_inside)
            continue;
        for (unsigned i = 0; i < PTMALLOC_BINS; i++)
            if (!bin_check(p, sink, arena, i, &budget))
                return false;
    }
    return true;
}
