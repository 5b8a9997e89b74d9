/* graph: each rule of what holds what, one test a rule. */
#include "unit/graph_world.h"

#include <limits.h>

enum {
    HEAP = 0x100000, /* 64 slots of 64 bytes, all live unless the test says otherwise */
    SLOT = 64,
    ARRAYS = 0x200000, /* 8 slots of 256 bytes, slack 15 */
    DATA = 0x10000,    /* a page of globals */
    STACK = 0x20000,
    MAP = 0x900000, /* two pages that no allocator owns */
    MAP2 = 0xa00000,
};

static hi_addr slot(unsigned i)
{
    return HEAP + (hi_addr)i * SLOT;
}

static hi_addr array(unsigned i)
{
    return ARRAYS + (hi_addr)i * 256;
}

static uint64_t slots_live, metadata_at;

/* Only slots 0..n-1 are live: the others would all be leaks. */
static void open_world(struct world *w, unsigned live)
{
    world_new(w);
    world_memory(w, HEAP, 4096);
    world_memory(w, ARRAYS, 4096);
    world_memory(w, DATA, 4096);
    world_memory(w, STACK, 4096);
    world_memory(w, MAP, 8192);
    world_memory(w, MAP2, 4096);
    slots_live = live < 64 ? ~(~UINT64_C(0) << live) : ~UINT64_C(0);
    metadata_at = 0;
    world_root_range(w, ROOT_DATA, DATA, DATA + 4096);
}

static void finish(struct world *w, graph_judge judge)
{
    struct region slab = {.start = HEAP, .end = HEAP + 4096, .first = HEAP, .stride = SLOT};
    slab.usable = SLOT;
    slab.count = 64;
    slab.shape = REGION_SLAB;
    world_region(w, &slab, &slots_live);
    struct region arrays = {.start = ARRAYS, .end = ARRAYS + 4096, .first = ARRAYS, .stride = 256};
    arrays.usable = 248;
    arrays.count = 8;
    arrays.slack = 15;
    arrays.shape = REGION_SLAB;
    world_region(w, &arrays, NULL);
    struct region node = {.start = MAP, .end = MAP + 8192, .shape = REGION_NODE};
    world_region(w, &node, NULL);
    struct region node2 = {.start = MAP2, .end = MAP2 + 4096, .shape = REGION_NODE};
    world_region(w, &node2, NULL);
    if (metadata_at)
        world_metadata(w, metadata_at, metadata_at + 32);
    world_finish(w);
    world_build(w, judge, NULL);
}

static const char *mark_name(enum mark mark)
{
    static const char *const names[] = {"reachable", "possible", "direct", "indirect", "not live"};
    return names[mark];
}

static void is_mark(const struct world *w, hi_addr address, enum mark wanted, const char *what)
{
    is_text(mark_name(world_mark(w, address)), mark_name(wanted), what);
}

static void is_leader(const struct world *w, hi_addr address, hi_addr leader, const char *what)
{
    is_u64(graph_leader(w->graph, world_block(w, address)), world_block(w, leader), what);
}

static void chain(void)
{
    struct world w;
    open_world(&w, 5);
    world_put(&w, DATA + 8, slot(0));
    world_put(&w, slot(0) + 56, slot(1));
    world_put(&w, slot(2), slot(3));
    world_put(&w, slot(3) + 16, slot(4));
    finish(&w, NULL);
    is_mark(&w, slot(0), MARK_REACHABLE, "a global holds");
    is_mark(&w, slot(1), MARK_REACHABLE, "the last word of a block holds");
    is_mark(&w, slot(2), MARK_DIRECT, "head of a lost chain");
    is_mark(&w, slot(3), MARK_INDIRECT, "its second");
    is_mark(&w, slot(4), MARK_INDIRECT, "its third");
    is_leader(&w, slot(4), slot(2), "the third hangs off the head");
    is_u64(graph_leader(w.graph, world_block(&w, slot(0))), BLOCK_NONE, "a reachable one of none");
    is_mark(&w, slot(5), MARK_NOT_LIVE, "a free slot is not live");
    world_free(&w);
}

static void doubtful(void)
{
    struct world w;
    open_world(&w, 6);
    world_put(&w, DATA, slot(0));
    world_put(&w, slot(8), slot(0));      /* held in truth */
    world_put(&w, slot(8) + 8, slot(1));  /* by its start */
    world_put(&w, slot(9), slot(2) + 24); /* by its middle */
    world_put(&w, slot(1), slot(3));
    world_put(&w, slot(4), slot(5));
    world_put(&w, slot(10), slot(4)); /* behind the damage: free */
    world_suspect(&w, slot(8), slot(10));
    for (unsigned i = 0; i < 8; i++)
        world_put(&w, DATA + 64 + 8 * i, array(i));
    finish(&w, NULL);
    is_mark(&w, slot(0), MARK_REACHABLE, "what a root holds stays reachable");
    is_mark(&w, slot(1), MARK_POSSIBLE, "what only a damaged part of a heap holds is possible");
    is_mark(&w, slot(2), MARK_POSSIBLE, "also by its middle");
    is_mark(&w, slot(3), MARK_POSSIBLE, "and what that holds");
    is_mark(&w, slot(4), MARK_DIRECT, "what a free slot points to is lost");
    is_mark(&w, slot(8), MARK_NOT_LIVE, "the damaged part itself is no block");
    bool seen = false;
    for (size_t i = 0; i < graph_root_edge_count(w.graph); i++) {
        struct root_edge edge = graph_root_edge(w.graph, i);
        seen |= edge.class == ROOT_SUSPECT && edge.block == world_block(&w, slot(1)) &&
                edge.place == slot(8) + 8;
    }
    ok(seen, "and it says who holds");
    world_free(&w);
}

/* What the program itself said holds: a part of a block, of a mapping, of memory of nobody. */
static void held(void)
{
    struct world w;
    open_world(&w, 8);
    world_memory(&w, 0xb00000, 4096);
    world_put(&w, slot(0), slot(1)); /* the ignored one and what it holds */
    world_put(&w, slot(2), slot(3)); /* a region that begins in the middle of a block */
    world_put(&w, MAP + 4096, slot(4));
    world_put(&w, 0xb00100, slot(5));
    world_put(&w, 0xb00200, slot(6)); /* behind the region */
    for (unsigned i = 0; i < 8; i++)
        world_put(&w, DATA + 64 + 8 * i, array(i));
    world_held(&w, slot(0), slot(0) + SLOT);
    world_held(&w, slot(2) + 8, slot(2) + 16);
    world_held(&w, MAP, MAP + 8);
    world_held(&w, 0xb00100, 0xb00200);
    finish(&w, NULL);
    is_mark(&w, slot(0), MARK_REACHABLE, "an ignored block is no leak");
    is_mark(&w, slot(1), MARK_REACHABLE, "... nor is what it holds");
    is_mark(&w, slot(2), MARK_REACHABLE, "a block that a root region touches");
    is_mark(&w, slot(3), MARK_REACHABLE, "... with what it holds");
    is_mark(&w, slot(4), MARK_REACHABLE, "what a mapping holds that one touches");
    is_mark(&w, slot(5), MARK_REACHABLE, "what a root region in nobody's memory holds");
    is_mark(&w, slot(6), MARK_DIRECT, "... and not what stands behind it");
    is_mark(&w, slot(7), MARK_DIRECT, "a block behind the ignored ones");
    bool named = false;
    for (size_t i = 0; i < graph_root_edge_count(w.graph); i++) {
        struct root_edge edge = graph_root_edge(w.graph, i);
        named |= edge.class == ROOT_KEPT && edge.block == world_block(&w, slot(5)) &&
                 edge.place == 0xb00100 && strcmp(edge.name, "root region") == 0;
    }
    ok(named, "and it says who holds");
    world_free(&w);
}

static void near_starts(void)
{
    struct world w;
    open_world(&w, 5);
    world_put(&w, DATA, slot(0) + 3); /* behind a header: of 3 bytes, of 16, */
    world_put(&w, DATA + 8, slot(1) + 16);
    world_put(&w, DATA + 16, slot(2) + 24); /* no header that we know */
    world_put(&w, DATA + 24, slot(3) + 5);  /* and held in truth */
    world_put(&w, DATA + 32, slot(3));
    world_put(&w, slot(4), slot(4) + 3); /* lost */
    for (unsigned i = 0; i < 8; i++)
        world_put(&w, DATA + 64 + 8 * i, array(i));
    finish(&w, NULL);
    is_u64(graph_stats(w.graph)->possible_near_start, 2, "possible, and held close to the start");
    world_free(&w);
}

static void rings(void)
{
    struct world w;
    open_world(&w, 10);
    world_put(&w, slot(1), slot(2)); /* a ring with a tail */
    world_put(&w, slot(2), slot(1));
    world_put(&w, slot(2) + 8, slot(0));
    world_put(&w, slot(3), slot(4)); /* two rings, the later holds the earlier */
    world_put(&w, slot(4), slot(3));
    world_put(&w, slot(5), slot(6));
    world_put(&w, slot(6), slot(5));
    world_put(&w, slot(6) + 8, slot(4));
    world_put(&w, slot(7), slot(7));      /* itself */
    world_put(&w, slot(8), slot(9));      /* a ring that a chain's head holds */
    world_put(&w, slot(9), slot(8) + 24); /* also through the middle of a block */
    world_put(&w, array(0), slot(9));
    for (unsigned i = 1; i < 8; i++)
        world_put(&w, DATA + 8 * i, array(i));
    finish(&w, NULL);
    is_mark(&w, slot(1), MARK_DIRECT, "a ring: its lowest member is direct");
    is_mark(&w, slot(2), MARK_INDIRECT, "the other is not");
    is_mark(&w, slot(0), MARK_INDIRECT, "nor its tail, though lower");
    is_leader(&w, slot(0), slot(1), "the tail hangs off the ring");
    is_mark(&w, slot(5), MARK_DIRECT, "two rings joined: the holding one is direct");
    is_mark(&w, slot(3), MARK_INDIRECT, "the held one is indirect");
    is_mark(&w, slot(4), MARK_INDIRECT, "all of it");
    is_leader(&w, slot(3), slot(5), "it hangs off the other ring");
    is_mark(&w, slot(7), MARK_DIRECT, "a block that only holds itself is direct");
    is_mark(&w, array(0), MARK_DIRECT, "what holds a ring from outside is direct");
    is_mark(&w, slot(8), MARK_INDIRECT, "the ring then is indirect");
    is_mark(&w, slot(9), MARK_INDIRECT, "all of it, too");
    is_u64(graph_lost_count(w.graph), 11, "all are listed");
    world_free(&w);
}

static void places(void)
{
    struct world w;
    open_world(&w, 12);
    world_put(&w, DATA, slot(0) + 24);
    world_put(&w, DATA + 8, slot(2) + 8);
    world_put(&w, DATA + 16, slot(3) + 16);
    world_put(&w, slot(0), slot(4));    /* START from a possible block */
    world_put(&w, DATA + 24, slot(12)); /* 12 is free: dangling, not the end of 11 */
    world_put(&w, DATA + 32, slot(10)); /* is live: not the end of 9 */
    world_put(&w, DATA + 40, array(0) + 248);
    world_put(&w, DATA + 48, array(1) + 234);
    world_put(&w, DATA + 56, array(2) + 232);
    world_put(&w, DATA + 64, array(3) + 249); /* between blocks */
    world_put(&w, DATA + 72, array(4) + 233); /* the least that was asked of a block of this size */
    world_put(&w, DATA + 80, array(7) + 248);
    finish(&w, NULL);
    is_mark(&w, slot(0), MARK_POSSIBLE, "held by its middle: possible");
    is_mark(&w, slot(2), MARK_POSSIBLE, "8 bytes in: possible when nobody judges");
    is_mark(&w, slot(3), MARK_POSSIBLE, "16 bytes in: the same");
    is_mark(&w, slot(4), MARK_POSSIBLE, "what a possible block holds is possible");
    is_mark(&w, slot(11), MARK_DIRECT, "the start of a free slot is no end of the one before");
    is_mark(&w, slot(10), MARK_REACHABLE, "the start of a live block is its own");
    is_mark(&w, slot(9), MARK_DIRECT, "and not its neighbour's end");
    is_mark(&w, array(0), MARK_REACHABLE, "one past the usable end");
    is_mark(&w, array(1), MARK_REACHABLE, "within the slack: may be the end of what was asked");
    is_mark(&w, array(2), MARK_POSSIBLE, "just before the slack: possible");
    is_mark(&w, array(4), MARK_REACHABLE, "the first byte of the slack, too");
    is_mark(&w, array(3), MARK_DIRECT, "between two blocks: holds none");
    is_mark(&w, array(7), MARK_REACHABLE, "one past the end of a slab's last block");
    world_free(&w);
}

/* Blocks of their own: whether the address behind one can be the end of what was asked for. */
static void ends_of_singles(void)
{
    struct world w;
    open_world(&w, 0);
    struct region single = {.start = MAP - 8192, .end = MAP - 4096, .first = MAP - 8192};
    single.shape = REGION_SINGLE;
    single.usable = 4096;
    single.count = 1;
    world_region(&w, &single, NULL);
    single.start = single.first = MAP - 16384;
    single.end = MAP - 12288;
    single.end_unasked = true;
    single.slack = 96;
    world_region(&w, &single, NULL);
    single.start = single.first = MAP - 24576;
    single.end = MAP - 20480;
    world_region(&w, &single, NULL);
    world_put(&w, DATA, MAP - 4096);
    world_put(&w, DATA + 8, MAP - 12288);
    world_put(&w, DATA + 16, MAP - 20480 - 96);
    finish(&w, NULL);
    is_mark(&w, MAP - 8192, MARK_REACHABLE, "the end of a block whose last byte was asked for");
    is_mark(&w, MAP - 16384, MARK_DIRECT, "behind bytes that nobody asked for is no end");
    is_mark(&w, MAP - 24576, MARK_REACHABLE, "where they begin is one");
    world_free(&w);
}

static void switches(void)
{
    struct world w;
    open_world(&w, 4);
    world_put(&w, DATA, slot(0) + 24);
    world_put(&w, DATA + 8 + 3, slot(1)); /* not aligned */
    world_put(&w, DATA + 24, slot(2) | UINT64_C(0xab) << 56 | 1);
    world_put(&w, slot(2) + 13, slot(3));
    finish(&w, NULL);
    is_mark(&w, slot(1), MARK_DIRECT, "an unaligned word holds nothing");
    is_mark(&w, slot(2), MARK_DIRECT, "nor does one with bits in it");
    w.options.interior_reachable = true;
    world_build(&w, NULL, NULL);
    is_mark(&w, slot(0), MARK_REACHABLE, "--interior=reachable");
    w.options = (struct graph_options){.jobs = 2, .unaligned = true};
    world_build(&w, NULL, NULL);
    is_mark(&w, slot(1), MARK_REACHABLE, "--unaligned: in a root");
    is_mark(&w, slot(3), MARK_INDIRECT, "--unaligned: in a block");
    w.options = (struct graph_options){.jobs = 1, .tag_mask = UINT64_C(0xff) << 56 | 7};
    world_build(&w, NULL, NULL);
    is_mark(&w, slot(2), MARK_REACHABLE, "--tag-mask");
    world_free(&w);
}

static void mappings(void)
{
    struct world w;
    open_world(&w, 8);
    world_put(&w, DATA, MAP + 4500); /* by its middle */
    world_put(&w, MAP + 8184, slot(0));
    world_put(&w, MAP2, slot(1)); /* nobody holds MAP2 */
    finish(&w, NULL);
    is_mark(&w, slot(0), MARK_REACHABLE, "a mapping that is held by its middle holds");
    is_mark(&w, slot(1), MARK_DIRECT, "what only an unheld mapping holds is direct");
    is_mark(&w, MAP2, MARK_NOT_LIVE, "a mapping is no leak");
    is_u64(graph_lost_count(w.graph), 7 + 8, "nor in the list");
    world_free(&w);
    open_world(&w, 4);
    world_put(&w, slot(2), MAP2 + 8); /* a lost block that holds a mapping that holds a block */
    world_put(&w, MAP2, slot(1));
    world_put(&w, MAP2 + 16, MAP);
    world_put(&w, MAP + 16, slot(3));
    world_put(&w, MAP + 24, slot(2)); /* ... and closes a ring */
    finish(&w, NULL);
    is_mark(&w, slot(2), MARK_DIRECT, "a ring through mappings: the lowest block is direct");
    is_mark(&w, slot(1), MARK_INDIRECT, "held through a lost block's mapping");
    is_mark(&w, slot(3), MARK_INDIRECT, "through two of them");
    is_leader(&w, slot(3), slot(2), "and belongs to that block");
    is_mark(&w, slot(0), MARK_DIRECT, "unless nobody holds it");
    world_free(&w);
}

static void not_sources(void)
{
    struct world w;
    open_world(&w, 64);
    slots_live &= ~(UINT64_C(1) << 5); /* 5 is free and still points to 6 */
    world_put(&w, DATA, slot(5));
    world_put(&w, slot(5), slot(6));
    world_put(&w, DATA + 8, slot(7));
    metadata_at = slot(7) + 16; /* the allocator's own words, in a live block */
    world_put(&w, slot(7) + 16, slot(8));
    world_put(&w, slot(7) + 48, slot(9));
    world_put(&w, DATA + 512, slot(10));
    world_metadata(&w, DATA + 512, DATA + 520);
    world_root_range(&w, ROOT_ANON, HEAP - 4096, ARRAYS + 4096); /* round two heaps */
    world_put(&w, slot(11), slot(12));
    world_put(&w, array(2), slot(13));
    finish(&w, NULL);
    is_mark(&w, slot(12), MARK_INDIRECT, "a block inside of a root range is no root");
    is_mark(&w, slot(13), MARK_INDIRECT, "nor one in the next region");
    is_mark(&w, slot(6), MARK_DIRECT, "a free block holds nothing");
    is_mark(&w, slot(8), MARK_DIRECT, "metadata in a block holds nothing");
    is_mark(&w, slot(9), MARK_REACHABLE, "the words behind it do");
    is_mark(&w, slot(10), MARK_DIRECT, "metadata among globals holds nothing");
    world_free(&w);
}

static void words(void)
{
    struct world w;
    open_world(&w, 8);
    world_root_word(&w, ROOT_REGISTER, slot(0));
    world_root_word(&w, ROOT_VECTOR, slot(1));
    world_root_word(&w, ROOT_REGISTER, slot(2) + 24);
    world_root_word(&w, ROOT_KEPT, slot(3) + 24);
    world_root_word(&w, ROOT_REGISTER, UINT64_MAX);
    struct heap_kept *kept = VECTOR_PUSH(&w.heaps->kept);
    *kept = (struct heap_kept){slot(4), "tcache"};
    finish(&w, NULL);
    is_mark(&w, slot(0), MARK_REACHABLE, "a register holds");
    is_mark(&w, slot(1), MARK_REACHABLE, "a vector register holds");
    is_mark(&w, slot(2), MARK_POSSIBLE, "a register by the middle: possible");
    is_mark(&w, slot(3), MARK_REACHABLE, "what libraries keep is held by any place");
    is_mark(&w, slot(4), MARK_REACHABLE, "what an allocator keeps is held");
    is_u64(graph_root_edge_count(w.graph), 5, "each is a root edge");
    struct root_edge edge = graph_root_edge(w.graph, 4);
    ok(edge.class == ROOT_KEPT && edge.name && strcmp(edge.name, "tcache") == 0 &&
           edge.block == world_block(&w, slot(4)),
       "and has its name");
    world_free(&w);
}

static void stack_in_block(void)
{
    struct world w;
    open_world(&w, 8);
    world_root_range(&w, ROOT_STACK, array(1) + 104, array(1) + 248);
    world_put(&w, array(1) + 96, slot(0));
    world_put(&w, array(1) + 104, slot(1));
    world_root_range(&w, ROOT_STACK, array(2) + 64, array(2) + 128); /* two stacks in one */
    world_root_range(&w, ROOT_STACK, array(2) + 192, array(2) + 248);
    world_put(&w, array(2) + 136, slot(2));
    world_root_range(&w, ROOT_STACK, MAP + 4096, MAP + 8192);
    world_put(&w, MAP + 64, slot(3)); /* perhaps another stack of a pool */
    world_put(&w, MAP + 5000, slot(4));
    finish(&w, NULL);
    is_mark(&w, array(1), MARK_REACHABLE, "a block that a thread runs on is held");
    is_mark(&w, slot(1), MARK_REACHABLE, "it holds from the stack pointer on");
    is_mark(&w, slot(0), MARK_DIRECT, "and not below");
    is_mark(&w, slot(2), MARK_REACHABLE, "between two stacks in one block all holds");
    is_mark(&w, slot(3), MARK_REACHABLE, "below a stack in a mapping too");
    is_mark(&w, slot(4), MARK_REACHABLE, "and above it");
    world_free(&w);
}

/* Accepts a cookie of slot 1, any place of slot 3 and a tag of slot 6. */
static bool judge_some(void *context, hi_block block, enum edge_kind kind)
{
    (void)context;
    return (block == 1 && kind == EDGE_COOKIE) || block == 3 || (block == 6 && kind == EDGE_TAGGED);
}

static void judge(void)
{
    struct world w;
    open_world(&w, 8);
    world_put(&w, DATA, slot(0) + 8);
    world_put(&w, DATA + 8, slot(1) + 8);
    world_put(&w, slot(1), slot(2));
    world_put(&w, slot(2), slot(3) + 32);
    world_put(&w, slot(3), slot(4));
    world_put(&w, slot(0), slot(5));
    world_put(&w, slot(0) + 8, slot(4));
    world_put(&w, DATA + 16, slot(6) + 7);
    world_put(&w, DATA + 24, slot(7) + 1);
    finish(&w, judge_some);
    is_mark(&w, slot(0), MARK_POSSIBLE, "what the judge turns down stays possible");
    is_mark(&w, slot(5), MARK_POSSIBLE, "with what it holds");
    is_mark(&w, slot(1), MARK_REACHABLE, "what it accepts is reachable");
    is_mark(&w, slot(2), MARK_REACHABLE, "with what it holds, too");
    is_mark(&w, slot(3), MARK_REACHABLE, "it is asked again about what came up by that");
    is_mark(&w, slot(4), MARK_REACHABLE, "reachable wins over possible");
    is_mark(&w, slot(6), MARK_REACHABLE, "a tag in the low bits is shown as such");
    is_mark(&w, slot(7), MARK_POSSIBLE, "and possible when turned down");
    world_free(&w);
}

struct seen {
    unsigned blocks, roots;
    hi_block from;
    hi_addr place;
};

static bool count_referrer(void *context, hi_block from, enum edge_kind kind,
                           const struct root_edge *root)
{
    struct seen *seen = context;
    (void)kind;
    if (root) {
        seen->roots++;
        seen->place = root->place;
    } else {
        seen->blocks++;
        seen->from = from;
    }
    return true;
}

static void referrers(void)
{
    struct world w;
    struct seen seen = {0};
    open_world(&w, 8);
    world_put(&w, DATA + 160, slot(3));
    world_put(&w, slot(6) + 8, slot(3) + 1);
    finish(&w, NULL);
    graph_referrers(w.graph, world_block(&w, slot(3)), count_referrer, &seen);
    is_u64(seen.roots, 1, "one root refers");
    is_u64(seen.place, DATA + 160, "from its place");
    is_u64(seen.blocks, 1, "one block refers");
    is_u64(seen.from, world_block(&w, slot(6)), "the right one");
    const struct graph_stats *stats = graph_stats(w.graph);
    is_u64(stats->edges, 1, "edges are counted");
    is_u64(stats->words, 8 * 8 + 8 * 31 + 4096 / 8 * 4, "words are counted");
    is_u64(stats->outside_heap, stats->words - 2, "and what is no address of a block");
    world_free(&w);
}

/* Interrupts at the n-th sign of life. */
struct interrupt {
    volatile sig_atomic_t stop;
    int left;
};

static void interrupt_later(void *context, const char *phase, uint64_t step, uint64_t total)
{
    struct interrupt *interrupt = context;
    (void)phase, (void)step, (void)total;
    if (interrupt->left-- == 0)
        interrupt->stop = 1;
}

static void interrupts(void)
{
    struct interrupt interrupt = {.left = INT_MAX};
    struct progress progress = {interrupt_later, &interrupt, &interrupt.stop};
    struct world w;
    open_world(&w, 8);
    world_put(&w, DATA,
              slot(0)); /* a level each: a list, what is possible, what a lost one holds */
    world_put(&w, slot(0), slot(1));
    world_put(&w, slot(1), slot(2));
    world_put(&w, slot(2), slot(3) + 32);
    world_put(&w, slot(4), slot(5));
    world_put(&w, slot(6), slot(7));
    world_put(&w, slot(7), slot(6));
    w.options.progress = &progress;
    finish(&w, NULL);
    bool empty = true;
    int stopped = 0;
    enum hi_code code = HI_STOPPED;
    for (int n = 0; code == HI_STOPPED && n < 100; n++) {
        interrupt = (struct interrupt){.left = n};
        code = graph_mark(w.graph, NULL, NULL, NULL);
        stopped += code == HI_STOPPED;
        for (unsigned i = 0; code == HI_STOPPED && i < 8; i++)
            empty &= world_mark(&w, slot(i)) == MARK_NOT_LIVE;
        empty &= code == HI_OK || graph_lost_count(w.graph) == 0;
    }
    ok(stopped >= 5, "marking hears an interrupt at each of its steps");
    ok(empty, "and leaves no marks then");
    ok(code == HI_OK && world_mark(&w, slot(6)) == MARK_DIRECT, "marking again is possible");
    interrupt = (struct interrupt){.left = 0};
    world_read(&w);
    ok(!graph_stats(w.graph)->complete, "an interrupted graph says so");
    world_free(&w);
}

int main(void)
{
    chain();
    doubtful();
    near_starts();
    held();
    rings();
    places();
    ends_of_singles();
    switches();
    mappings();
    not_sources();
    words();
    stack_in_block();
    judge();
    referrers();
    interrupts();
    return done();
}
