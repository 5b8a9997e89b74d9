/*
 * call_stack: which calls led here, as one number, at the price of a few loads.
 *
 * A walk (stack_walk.c) from frame to frame is exact, and costs some 5 ns a frame. Most captures of
 * a program have most of their stack in common with one shortly before. What a walk finds is a
 * function of where it starts (pc, stack pointer, and frame pointer if it is needed), of the code,
 * and of the words of the stack that it reads; of each frame the return address, and the saved
 * frame pointer where a frame further out needs that. So:
 *
 *   kept stack   each thread keeps its last walk: frames, and the words read with their addresses.
 *                A new walk that comes to a frame of it (same pc, stack pointer, frame pointer if
 *                needed) compares the words of all frames further out. If they are the same, so are
 *                these frames, and their node; this is proof, not likelihood.
 *   memo         stacks that were found, by pc and stack pointer of the site: all words are
 * compared, and the number is there without any step.
 *
 * Words are compared in the order in which a walk reads them, and no further than the first that
 * differs: as long as all before are the same, the next one lies in the same frame as then, and so
 * can be read. That holds on any stack. A frame whose step rests on more than words (enum walk_how:
 * WALK_OPAQUE) leaves a word that is never the same.
 *
 * Whether a frame needs its frame pointer is known when the frames further out are, so frames and
 * words are kept from the outermost on; words are compared from the end.
 *
 * What was walked is made a number frame by frame from the outermost on; a small table of frames
 * and their nodes (children) stands before the stack table's own, which is far away in memory.
 *
 * Where it lies. A thread that captures for the KEEP_AFTER-th time gets a slot of the stack table's
 * mapping for its state; others, and signal handlers that interrupt a capture (`busy`), borrow one
 * and keep nothing. Nothing is on the program's stack but a few words, and stale ones in a slot are
 * the inspector's metadata. Nothing is locked; the number comes from stack_table.c.
 *
 * What a small program pays. A state is 160 KiB, of which it begins with one page: frames, words
 * and steps of a stack of up to DEPTH_FEW frames, and a few children. One that is kept has memos on
 * the second, and their words behind them as they come. Deeper stacks, and threads with many walks,
 * get the large arrays, and what was in the small ones goes along (state_deepen, state_broaden). So
 * the samples of a program of 2 MiB cost some 7 pages here: a state, rows of unwinding (3 to 5,
 * cfi_rows.c), and two of the stack table; 48 when all arrays were large from the start.
 *
 * Code that changes: stack_hot.generation, see cfi_rows.c. A thread that finds another one than its
 * own forgets everything; a walk across a change is done again.
 *
 * A stack of more than DEPTH_MAX frames is cut behind the DEPTH_MAX innermost ones. A signal
 * handler that leaves by longjmp out of an interrupted capture leaves `busy` set: the thread then
 * borrows for good, which is slower, and right.
 */
#include "call_stack.h"

#include "stack_walk.h"

#include <string.h>

enum {
    DEPTH_MAX = 1024,
    DEPTH_FEW = 26,
    STEP_WORDS_MAX = 3,
    MEMO_COUNT = 32,
    MEMO_WORDS = 64,
    MEMO_ROOM = 8, /* words come so many at a time */
    POOL_WORDS = 2048,
    CHILD_BITS = 9,
    CHILD_FEW_BITS = 6,
    BROAD_AFTER = 256, /* walks */
    KEEP_AFTER = 64,
    TRIES = 3,
    OWN_FRAMES_MAX = 8,
};

struct kept_frame {
    uintptr_t pc, sp, bp;
    uint32_t node;
    uint16_t word_end; /* words of this frame and those further out */
    uint8_t flags;
    uint8_t needs_bp;
};

struct kept_word {
    uintptr_t address;
    uint64_t value;
};

struct memo {
    uintptr_t pc, sp, bp;
    struct kept_word *words; /* in the order of reading */
    uint32_t node;
    uint8_t word_count, room;
    uint8_t needs_bp;
};

/* Nodes that were asked for lately, in the thread's own cache lines. */
struct child {
    uint64_t frame;
    uint32_t parent, node;
};

struct capture_state {
    uint32_t generation, frame_count;
    uintptr_t low, high;       /* of a stack: known to be readable */
    struct kept_frame *frames; /* outermost first; `depth` of them, as below */
    struct kept_word *words;
    struct walk_step *steps; /* of the walk in hand, innermost first */
    struct child *children;
    uint16_t depth, pool_used;
    uint8_t child_shift;
    uint32_t walk_count;
    struct kept_frame few_frames[DEPTH_FEW];
    struct kept_word few_words[DEPTH_FEW * STEP_WORDS_MAX];
    struct walk_step few_steps[DEPTH_FEW];
    struct child few_children[1 << CHILD_FEW_BITS];
    /* what only a state needs that is kept */
    struct memo memos[MEMO_COUNT] __attribute__((aligned(PAGE_BYTES)));
    struct kept_word pool[POOL_WORDS]; /* of memos */
    struct kept_frame all_frames[DEPTH_MAX];
    struct kept_word all_words[DEPTH_MAX * STEP_WORDS_MAX];
    struct walk_step all_steps[DEPTH_MAX];
    struct child all_children[1 << CHILD_BITS];
};
_Static_assert(offsetof(struct capture_state, memos) == PAGE_BYTES, "a small walk needs a page");
_Static_assert(sizeof(struct capture_state) <= STACK_SLOT_BYTES, "a slot holds a state");

static __thread struct {
    struct capture_state *state; /* kept for this thread, or NULL */
    uint32_t count;
    uint8_t busy, ended;
} tls;

extern char text_start[] __asm__("__start_himalloc_text")
    __attribute__((weak, visibility("hidden")));
extern char text_end[] __asm__("__stop_himalloc_text") __attribute__((weak, visibility("hidden")));

/* ---- words ---- */

static const uint64_t never = 0; /* the address of the word that is never 1 */

/* How many of the first `count` kept words still stand from the end on: 0, if all; else one more
 * than the index of the first that does not. */
static inline uint32_t words_differ(const struct kept_word *words, uint32_t count)
{
    while (count > 0 && *(const uint64_t *)words[count - 1].address == words[count - 1].value)
        count--;
    return count;
}

static inline bool memo_holds(const struct memo *m, const struct call_site *site)
{
    if (m->pc != site->pc || m->sp != site->sp || (m->needs_bp && m->bp != site->bp))
        return false;
#pragma GCC unroll 4 /* 26 ns for 40 frames; one by one 28 to 34, as the loop happens to lie */
    for (uint32_t i = 0; i < m->word_count; i++)
        if (*(const uint64_t *)m->words[i].address != m->words[i].value)
            return false;
    return true;
}

static inline struct memo *memo_of(struct capture_state *s, const struct call_site *site)
{
    uint64_t hash = (site->pc ^ site->sp << 20) * 0x9e3779b97f4a7c15ULL;
    return &s->memos[hash >> 59];
}
_Static_assert(MEMO_COUNT == 1 << (64 - 59), "memo_of");

static void memos_forget(struct capture_state *s)
{
    s->pool_used = 0;
    for (uint32_t i = 0; i < MEMO_COUNT; i++)
        s->memos[i].pc = s->memos[i].room = 0;
}

/* Room for more words than it has; where there is none left, all memos begin again. */
static void memo_widen(struct capture_state *s, struct memo *m, uint32_t count)
{
    count = (uint32_t)round_up(count, MEMO_ROOM);
    if (s->pool_used + count > POOL_WORDS)
        memos_forget(s);
    m->words = &s->pool[s->pool_used];
    m->room = (uint8_t)count;
    s->pool_used = (uint16_t)(s->pool_used + count);
}

static void memo_fill(struct capture_state *s, const struct call_site *site)
{
    const struct kept_frame *leaf = &s->frames[s->frame_count - 1];
    struct memo *m = memo_of(s, site);
    if (leaf->word_end > MEMO_WORDS)
        return;
    if (UNLIKELY(leaf->word_end > m->room))
        memo_widen(s, m, leaf->word_end);
    m->pc = site->pc;
    m->sp = site->sp;
    m->bp = site->bp;
    m->node = leaf->node;
    m->needs_bp = leaf->needs_bp;
    m->word_count = (uint8_t)leaf->word_end;
    for (uint32_t i = 0; i < leaf->word_end; i++)
        m->words[i] = s->words[leaf->word_end - 1 - i];
}

/* ---- the state as a whole ---- */

static struct capture_state *state_take(void)
{
    struct capture_state *s = stack_slot_take();
    if (!s)
        return NULL;
    s->frame_count = 0;
    s->low = s->high = 0;
    s->generation = __atomic_load_n(&stack_hot.generation, __ATOMIC_ACQUIRE);
    if (s->depth)
        return s; /* as the last one left it */
    s->frames = s->few_frames;
    s->words = s->few_words;
    s->steps = s->few_steps;
    s->children = s->few_children;
    s->depth = DEPTH_FEW;
    s->child_shift = 64 - CHILD_FEW_BITS;
    return s;
}

/* To the large arrays, with all that is in the small ones. Does nothing more than once. */
static COLD void state_deepen(struct capture_state *s)
{
    if (s->depth == DEPTH_MAX)
        return;
    memcpy(s->all_frames, s->few_frames, sizeof(s->few_frames));
    memcpy(s->all_words, s->few_words, sizeof(s->few_words));
    memcpy(s->all_steps, s->few_steps, sizeof(s->few_steps));
    s->frames = s->all_frames;
    s->words = s->all_words;
    s->steps = s->all_steps;
    s->depth = DEPTH_MAX;
}

static COLD void state_broaden(struct capture_state *s)
{
    s->child_shift = 64 - CHILD_BITS;
    s->children = s->all_children;
}

static void state_reset(struct capture_state *s, uint32_t generation)
{
    s->frame_count = 0;
    s->generation = generation;
    memos_forget(s);
}

/* ---- from steps to kept frames ---- */

struct builder {
    struct capture_state *s;
    uint32_t word_count;
    uint32_t node;
    bool needs_bp;
    uintptr_t pc, sp, bp; /* of the frame further out */
};

static inline void word_add(struct builder *b, uintptr_t address, uint64_t value)
{
    b->s->words[b->word_count++] = (struct kept_word){address, value};
}

/* The words that the step rests on, last read first; and whether it needs rbp. */
static void build_rare(struct builder *b, const struct walk_step *step)
{
    enum { UCONTEXT_BP = 120, UCONTEXT_SP = 160, UCONTEXT_PC = 168 };
    switch (step->how) {
    case WALK_DRAP:
        if (b->needs_bp)
            word_add(b, step->bp, b->bp);
        word_add(b, b->sp - 8, b->pc);
        word_add(b, step->bp - row_number(step->row), b->sp);
        b->needs_bp = true;
        break;
    case WALK_SIGNAL:
        if (b->needs_bp)
            word_add(b, step->sp + UCONTEXT_BP, b->bp);
        word_add(b, step->sp + UCONTEXT_SP, b->sp);
        word_add(b, step->sp + UCONTEXT_PC, b->pc);
        b->needs_bp = false;
        break;
    case WALK_GUESS:
        if (b->needs_bp)
            word_add(b, step->bp, b->bp);
        word_add(b, step->bp + 8, b->pc);
        b->needs_bp = true;
        break;
    case WALK_END:
        b->needs_bp = false;
        break;
    case WALK_ZERO:
        b->needs_bp = (step->row & ROW_KIND_MASK) == ROW_BP;
        word_add(b, (b->needs_bp ? step->bp : step->sp) + row_number(step->row) - 8, 0);
        break;
    default:
        word_add(b, (uintptr_t)&never, 1);
        b->needs_bp = true;
    }
}

static inline uint32_t child_of(struct capture_state *s, uint32_t parent, uint64_t frame)
{
    uint64_t hash = (frame ^ (uint64_t)parent << 20) * 0x9e3779b97f4a7c15ULL;
    struct child *c = &s->children[hash >> s->child_shift];
    if (c->frame != frame || c->parent != parent)
        *c = (struct child){frame, parent, stack_table_child(parent, frame)};
    return c->node;
}

static inline void build_one(struct builder *b, const struct walk_step *step)
{
    if (LIKELY(step->how == WALK_ROW)) {
        uint32_t slot = row_slot(step->row);
        if (slot && b->needs_bp)
            word_add(b, b->sp - 8 * (uintptr_t)slot, b->bp);
        word_add(b, b->sp - 8, b->pc);
        b->needs_bp = (step->row & ROW_KIND_MASK) == ROW_BP || (!slot && b->needs_bp);
    } else {
        build_rare(b, step);
    }
    uint64_t flags = step->flags | (step->how == WALK_CUT ? HM_FRAME_CUT : 0u);
    uint64_t frame = step->pc | flags << HM_FRAME_ADDRESS_BITS;
    if (UNLIKELY(step->row & ROW_EPOCHED))
        frame |= (uint64_t)stack_table_epoch(step->pc - !(step->flags & HM_FRAME_EXACT))
                 << (HM_FRAME_ADDRESS_BITS + HM_FRAME_FLAG_BITS);
    b->node = child_of(b->s, b->node, frame);
    b->pc = step->pc;
    b->sp = step->sp;
    b->bp = step->bp;
}

/* Puts the steps inside of the `base` outermost kept frames. */
static uint32_t build(struct capture_state *s, uint32_t base, uint32_t count)
{
    struct builder b = {.s = s};
    if (base > 0) {
        const struct kept_frame *f = &s->frames[base - 1];
        b = (struct builder){s, f->word_end, f->node, f->needs_bp, f->pc, f->sp, f->bp};
    }
    struct kept_frame *out = &s->frames[base];
    for (uint32_t i = count; i-- > 0; out++) {
        build_one(&b, &s->steps[i]);
        *out = (struct kept_frame){
            b.pc, b.sp, b.bp, b.node, (uint16_t)b.word_count, s->steps[i].flags, b.needs_bp};
    }
    s->frame_count = base + count;
    return b.node;
}

/* ---- the walk ---- */

/* The kept frame that the walk is at: its index + 1; 0: none. *k: none further in can be it. */
static inline uint32_t match(const struct capture_state *s, const struct walk *w, uint32_t *k)
{
    uint32_t i = *k;
    while (i > 0 && s->frames[i - 1].sp < w->sp)
        i--;
    if (i > 0) {
        const struct kept_frame *f = &s->frames[i - 1];
        if (f->sp == w->sp && f->pc == w->pc && f->flags == w->flags &&
            (!f->needs_bp || f->bp == w->bp)) {
            uint32_t differ = words_differ(s->words, f->word_end);
            if (differ == 0)
                return *k = i;
            while (i > 0 && s->frames[i - 1].word_end >= differ)
                i--;
        }
    }
    *k = i;
    return 0;
}

/* Steps up to a kept frame, or the end; how many. *base: the kept frame's index + 1. */
static uint32_t walk_steps(struct capture_state *s, struct walk *w, uint32_t kept, uint32_t *base)
{
    uint32_t count = 0, k = kept, room = s->depth;
    for (;;) {
        if ((*base = match(s, w, &k)) != 0)
            return count;
        struct walk_step *step = &s->steps[count++];
        *step =
            (struct walk_step){.pc = w->pc, .sp = w->sp, .bp = w->bp, .flags = (uint8_t)w->flags};
        enum walk_how how = walk_step(w, &step->row);
        step->how = (uint8_t)how;
        if (how >= WALK_END)
            return count;
        if (UNLIKELY(count == room)) {
            if (room == DEPTH_MAX) {
                step->how = WALK_CUT;
                return count;
            }
            state_deepen(s);
            room = s->depth;
        }
    }
}

static struct walk walk_start(const struct capture_state *s, const struct call_site *site)
{
    struct walk w = {.pc = site->pc,
                     .sp = site->sp,
                     .bp = site->bp,
                     .low = s->low,
                     .high = s->high,
                     .other_low = s->low,
                     .other_high = s->high};
    if (w.sp - w.low >= w.high - w.low) { /* what lies below the stack pointer is in use */
        w.low = (w.sp - 8) & ~(uintptr_t)(PAGE_BYTES - 1);
        w.high = w.low + PAGE_BYTES;
    }
    return w;
}

/* A walk that needs more registers than it has, or is too deep, begins again and keeps nothing. */
static NOINLINE uint32_t capture_whole(struct capture_state *s, const struct call_site *site,
                                       bool blind)
{
    struct walk w = walk_start(s, site);
    uint32_t base, count = 0;
    state_deepen(s);
    count = blind ? walk_with_all_registers(w.pc, w.sp, s->steps, DEPTH_MAX)
                  : walk_steps(s, &w, 0, &base);
    if (count == 0)
        s->steps[count++] = (struct walk_step){.pc = site->pc, .how = WALK_CUT};
    if (s->steps[count - 1].how == WALK_BLIND)
        s->steps[count - 1].how = WALK_CUT;
    uint32_t node = build(s, 0, count);
    s->frame_count = 0;
    return node;
}

static uint32_t capture_once(struct capture_state *s, const struct call_site *site)
{
    struct walk w = walk_start(s, site);
    uint32_t base, count;
    count = walk_steps(s, &w, s->frame_count, &base);
    s->low = w.low;
    s->high = w.high;
    if (UNLIKELY(base + count >= DEPTH_MAX || (count && s->steps[count - 1].how == WALK_BLIND)))
        return capture_whole(s, site, s->steps[count - 1].how == WALK_BLIND);
    if (UNLIKELY(base + count > s->depth))
        state_deepen(s);
    return build(s, base, count);
}

static NOINLINE uint32_t capture_walk(struct capture_state *s, const struct call_site *site,
                                      bool keep)
{
    for (uint32_t i = 0;; i++) {
        uint32_t generation = __atomic_load_n(&stack_hot.generation, __ATOMIC_ACQUIRE);
        if (UNLIKELY(generation != s->generation))
            state_reset(s, generation);
        uint32_t node = capture_once(s, site);
        bool same = generation == __atomic_load_n(&stack_hot.generation, __ATOMIC_ACQUIRE);
        if (same && keep && s->frame_count)
            memo_fill(s, site);
        if (keep && UNLIKELY(++s->walk_count == BROAD_AFTER))
            state_broaden(s);
        if (same || i == TRIES)
            return node;
    }
}

/* Without a state of the thread's own. */
static NOINLINE uint32_t capture_borrowed(const struct call_site *site)
{
    struct capture_state *s = state_take();
    if (!s)
        return stack_table_child(0, site->pc | STACK_FLAG(HM_FRAME_CUT));
    uint32_t node = capture_walk(s, site, false);
    stack_slot_give(s, false);
    return node;
}

/* With the thread's own, when nobody is at it. */
static inline uint32_t capture_kept(struct capture_state *s, const struct call_site *site)
{
    tls.busy = 1;
    STORE_ORDER();
    const struct memo *m = memo_of(s, site);
    uint32_t node;
    if (LIKELY(memo_holds(m, site) &&
               s->generation == __atomic_load_n(&stack_hot.generation, __ATOMIC_RELAXED)))
        node = m->node;
    else
        node = capture_walk(s, site, true);
    STORE_ORDER();
    tls.busy = 0;
    return node;
}

static bool state_keep(void)
{
    tls.busy = 1;
    STORE_ORDER();
    struct capture_state *s = state_take();
    if (s) {
        s->walk_count = 0;
        memos_forget(s);
    }
    tls.state = s;
    tls.count = 0;
    STORE_ORDER();
    tls.busy = 0;
    return s != NULL;
}

static NOINLINE uint32_t capture_first(const struct call_site *site)
{
    if (UNLIKELY(!__atomic_load_n(&stack_hot.table, __ATOMIC_ACQUIRE)))
        return STACK_NODE_NONE;
#if !defined(__x86_64__)
    return stack_table_child(0, site->pc | STACK_FLAG(HM_FRAME_CUT));
#endif
    if (!tls.busy && !tls.ended && !tls.state && ++tls.count >= KEEP_AFTER && state_keep())
        return capture_kept(tls.state, site);
    return capture_borrowed(site);
}

static inline bool is_own(const struct call_site *site)
{
    return site->pc - (uintptr_t)text_start < (uintptr_t)text_end - (uintptr_t)text_start;
}

/* The site behind the frames of the allocator itself: there are some where the compiler did not
 * make jumps of last calls. */
static NOINLINE uint32_t capture_behind_own(const struct call_site *site)
{
    struct walk w = {.pc = site->pc, .sp = site->sp, .bp = site->bp};
    struct call_site behind = *site;
    uint32_t row;
    if (!__atomic_load_n(&stack_hot.table, __ATOMIC_ACQUIRE))
        return STACK_NODE_NONE;
    for (int i = 0; is_own(&behind); i++) {
        if (i == OWN_FRAMES_MAX || walk_step(&w, &row) >= WALK_END)
            return stack_table_child(0, site->pc | STACK_FLAG(HM_FRAME_CUT));
        behind = (struct call_site){w.pc, w.sp, w.bp};
    }
    return call_stack_capture(&behind);
}

uint32_t call_stack_capture(const struct call_site *site)
{
    if (UNLIKELY(is_own(site)))
        return capture_behind_own(site);
    struct capture_state *s = tls.state;
    if (UNLIKELY(!s || tls.busy))
        return capture_first(site);
    return capture_kept(s, site);
}

/* ---- start and end ---- */

bool call_stack_start(uint32_t mode, uint64_t sample_bytes)
{
    if (!stack_hot.table && !stack_table_make(mode, sample_bytes))
        return false;
    struct hm_stack_table *table = stack_hot.table;
    table->mode = mode;
    table->sample_bytes = sample_bytes;
    __atomic_store_n(&hm_hot.root->stacks, (uintptr_t)table, __ATOMIC_RELEASE);
    return true;
}

void call_stack_thread_end(void)
{
    struct capture_state *s = tls.state;
    tls.ended = 1;
    if (!s || tls.busy)
        return;
    tls.state = NULL;
    stack_slot_give(s, true);
}

void call_stack_forked(void)
{
    stack_table_forked();
}

void call_stack_unloaded(void)
{
    if (__atomic_load_n(&stack_hot.table, __ATOMIC_ACQUIRE))
        cfi_rows_unloaded();
}
