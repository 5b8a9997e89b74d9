/* graph: random heaps against a naive model that looks at every pair of blocks: marks, the number
 * and place of direct blocks, edges; the same for one worker and several; filter paths. */
#include "graph/filter.h"
#include "unit/graph_world.h"

enum { BLOCKS_MOST = 160, ROOTS_MOST = 12, DATA = 0x10000 };

static uint64_t seed = 88172645463325252u;

static uint64_t random_below(uint64_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % limit;
}

/* -- the model ----------------------------------------------------------------------------------
 */
struct model_block {
    hi_addr start;
    uint64_t usable, slack;
    bool live, node, interior_ok;
};
static struct model_block model[BLOCKS_MOST];
static unsigned model_count;
enum { NO_EDGE = 0, BY_START = 1, BY_COOKIE = 2, BY_TAGGED = 4, BY_INTERIOR = 8 };
static unsigned holds[BLOCKS_MOST + 1][BLOCKS_MOST]; /* last row: roots */
static uint64_t edge_counts[BLOCKS_MOST + 1];
static bool reach[BLOCKS_MOST][BLOCKS_MOST]; /* in the lost graph */
static enum mark wanted[BLOCKS_MOST];

static bool ends_at(const struct model_block *b, hi_addr word)
{
    return b->usable && b->start + b->usable == word;
}

/* Which live block a word holds and how, by the rules' own words. A dead one's start is its own. */
static unsigned model_resolve(hi_addr word, unsigned *target)
{
    for (unsigned i = 0; i < model_count; i++) {
        const struct model_block *b = &model[i];
        bool covers = word == b->start || (word >= b->start && word - b->start < b->usable);
        if (!covers)
            continue;
        *target = i;
        uint64_t offset = word - b->start;
        if (b->live)
            return offset == 0 || b->interior_ok || b->node || offset + b->slack >= b->usable
                       ? BY_START
                   : offset < 8                  ? BY_TAGGED
                   : offset == 8 || offset == 16 ? BY_COOKIE
                                                 : BY_INTERIOR;
        return NO_EDGE;
    }
    for (unsigned i = 0; i < model_count; i++) {
        if (!ends_at(&model[i], word) || !model[i].live)
            continue;
        *target = i;
        return BY_START;
    }
    return NO_EDGE;
}

static void model_word(unsigned from, hi_addr word)
{
    unsigned target, kind = model_resolve(word, &target);
    if (kind == NO_EDGE)
        return;
    holds[from][target] |= kind;
    edge_counts[from]++;
}

static bool model_accepts(hi_block block, unsigned kind)
{
    return (block * 7 + kind * 3) % 5 == 0;
}

static void model_reachable(bool *reached)
{
    for (bool more = true; more;) {
        more = false;
        for (unsigned from = 0; from <= model_count; from++) {
            unsigned row = from == model_count ? BLOCKS_MOST : from;
            for (unsigned to = 0; to < model_count; to++) {
                unsigned kinds = holds[row][to];
                bool held = (kinds & BY_START) ||
                            ((kinds & BY_COOKIE) && model_accepts(to, EDGE_COOKIE)) ||
                            ((kinds & BY_TAGGED) && model_accepts(to, EDGE_TAGGED)) ||
                            ((kinds & BY_INTERIOR) && model_accepts(to, EDGE_INTERIOR));
                if (!held || reached[to] || (from < model_count && !reached[from]))
                    continue;
                reached[to] = more = true;
            }
        }
    }
}

static void model_possible(const bool *reached, bool *possible)
{
    for (bool more = true; more;) {
        more = false;
        for (unsigned from = 0; from <= model_count; from++) {
            unsigned row = from == model_count ? BLOCKS_MOST : from;
            for (unsigned to = 0; to < model_count; to++) {
                if (!holds[row][to] || reached[to] || possible[to] ||
                    (from < model_count && !reached[from] && !possible[from]))
                    continue;
                possible[to] = more = true;
            }
        }
    }
}

/* Closure over the lost graph; a NODE is in it when a lost block leads to it. */
static void model_lost(const bool *reached, const bool *possible, bool *lost)
{
    for (unsigned i = 0; i < model_count; i++)
        lost[i] = model[i].live && !model[i].node && !reached[i] && !possible[i];
    for (bool more = true; more;) {
        more = false;
        for (unsigned from = 0; from < model_count; from++)
            for (unsigned to = 0; to < model_count; to++)
                if (lost[from] && holds[from][to] && model[to].node && !lost[to] && !reached[to] &&
                    !possible[to])
                    lost[to] = more = true;
    }
    memset(reach, 0, sizeof reach);
    for (unsigned i = 0; i < model_count; i++)
        for (unsigned k = 0; k < model_count; k++)
            reach[i][k] = lost[i] && lost[k] && (i == k || holds[i][k]);
    for (unsigned via = 0; via < model_count; via++)
        for (unsigned i = 0; i < model_count; i++)
            for (unsigned k = 0; reach[i][via] && k < model_count; k++)
                reach[i][k] |= reach[via][k];
}

static void model_marks(void)
{
    bool reached[BLOCKS_MOST] = {0}, possible[BLOCKS_MOST] = {0}, lost[BLOCKS_MOST];
    model_reachable(reached);
    model_possible(reached, possible);
    model_lost(reached, possible, lost);
    for (unsigned i = 0; i < model_count; i++) {
        wanted[i] = !model[i].live ? MARK_NOT_LIVE
                    : reached[i]   ? MARK_REACHABLE
                    : possible[i]  ? MARK_POSSIBLE
                                   : MARK_INDIRECT;
        if (wanted[i] == MARK_INDIRECT && model[i].node)
            wanted[i] = MARK_NOT_LIVE;
        if (wanted[i] != MARK_INDIRECT)
            continue;
        bool outside = false, lowest = true; /* held from outside its ring; lowest block in it */
        for (unsigned k = 0; k < model_count; k++) {
            outside |= reach[k][i] && !reach[i][k];
            lowest &= !(reach[k][i] && reach[i][k] && k < i && !model[k].node);
        }
        if (!outside && lowest)
            wanted[i] = MARK_DIRECT;
    }
}

/* -- a random world -----------------------------------------------------------------------------
 */

static void add_block(hi_addr start, uint64_t usable, const struct region *r, bool live)
{
    model[model_count++] = (struct model_block){
        .start = start,
        .usable = usable,
        .slack = r->slack,
        .live = live,
        .node = r->shape == REGION_NODE,
        .interior_ok = r->interior_ok,
    };
}

static hi_addr add_slab(struct world *w, hi_addr at)
{
    struct region r = {.start = at, .first = at, .shape = REGION_SLAB};
    r.stride = (uint32_t)(8 * (1 + random_below(random_below(8) ? 12 : 700)));
    r.usable = random_below(3) ? r.stride : r.stride - random_below(8);
    r.count = (uint32_t)(1 + random_below(20));
    r.slack = (uint32_t)(random_below(2) * random_below(20));
    r.interior_ok = random_below(6) == 0;
    r.end = at + (uint64_t)r.stride * r.count;
    uint64_t live = random_below(UINT64_MAX) | random_below(UINT64_MAX);
    for (uint32_t i = 0; i < r.count; i++)
        add_block(at + (uint64_t)i * r.stride, r.usable, &r, live >> i & 1);
    world_memory(w, at, r.end - at);
    world_region(w, &r, &live);
    return r.end;
}

static hi_addr add_chunks(struct world *w, hi_addr at)
{
    struct region r = {.start = at, .shape = REGION_CHUNKS, .gap = 8};
    struct block_chunk chunks[20];
    uint32_t count = (uint32_t)(1 + random_below(20));
    hi_addr address = at + 16;
    for (uint32_t i = 0; i < count; i++) {
        chunks[i] = (struct block_chunk){address, random_below(3) ? BLOCK_LIVE : BLOCK_FREE};
        address += 32 + 16 * random_below(random_below(10) ? 6 : 6000);
    }
    r.end = address;
    r.slack = (uint32_t)(random_below(2) * 15);
    for (uint32_t i = 0; i < count; i++) {
        hi_addr end = i + 1 < count ? chunks[i + 1].address - 8 : r.end;
        add_block(chunks[i].address, end - chunks[i].address, &r, chunks[i].state == BLOCK_LIVE);
    }
    world_memory(w, at, r.end - at);
    world_require(blocks_chunks_begin(w->heaps->blocks, &r, NULL) == HI_OK &&
                      blocks_chunks_add(w->heaps->blocks, chunks, count, NULL) == HI_OK &&
                      blocks_chunks_end(w->heaps->blocks, NULL) == HI_OK,
                  "chunks");
    return r.end;
}

static hi_addr add_one(struct world *w, hi_addr at)
{
    struct region r = {.start = at, .first = at};
    r.shape = random_below(2) ? REGION_SINGLE : REGION_NODE;
    r.usable = 8 * (1 + random_below(random_below(4) ? 100 : 50000));
    world_memory(w, at, r.usable);
    r.end = at + r.usable;
    if (r.shape == REGION_SINGLE)
        r.usable -= random_below(8);
    add_block(at, r.usable, &r, true);
    world_region(w, &r, NULL);
    return r.end;
}

/* An address of the kind that sets traps: starts, ends, cookies, middles, neighbours. */
static uint64_t tempting_word(void)
{
    const struct model_block *b = &model[random_below(model_count)];
    switch (random_below(9)) {
    case 0:
        return b->start + 8;
    case 1:
        return b->start + 16;
    case 2:
        return b->start + b->usable;
    case 3:
        return b->start + random_below(b->usable + 1);
    case 4:
        return b->start + b->usable - random_below(20);
    case 5:
        return b->start - 1;
    default:
        return b->start;
    }
}

static void plant(struct world *w)
{
    memset(holds, 0, sizeof holds);
    memset(edge_counts, 0, sizeof edge_counts);
    unsigned fat = (unsigned)random_below(model_count * 8);
    for (unsigned i = 0; i < model_count; i++) {
        uint64_t words = model[i].usable / 8;
        hi_addr first = (model[i].start + 7) & ~(hi_addr)7;
        hi_addr end = model[i].start + model[i].usable;
        if (end % 8 && random_below(2)) /* lies in the block only with its first bytes */
            world_put(w, end & ~(hi_addr)7, tempting_word());
        unsigned tries = i == fat ? 3000 : (unsigned)random_below(3);
        bool used[64] = {0};
        for (unsigned k = 0; k < tries && words; k++) {
            uint64_t at = i == fat ? k : random_below(words);
            if (random_below(6) == 0)
                at = words - 1;
            if (first + at * 8 + 8 > end || (i == fat && at != k))
                continue;
            if (i != fat && at < 64 && used[at])
                continue;
            if (i != fat && at >= 64 && k)
                continue; /* one far word a block is enough, and never written twice */
            if (at < 64)
                used[at] = true;
            uint64_t word = tempting_word();
            world_put(w, first + at * 8, word);
            if (model[i].live)
                model_word(i, word);
        }
    }
    unsigned roots = (unsigned)random_below(ROOTS_MOST);
    for (unsigned i = 0; i < roots; i++) {
        uint64_t word = tempting_word();
        world_put(w, DATA + 8 * i, word);
        model_word(BLOCKS_MOST, word);
    }
}

static void random_world(struct world *w)
{
    world_new(w);
    model_count = 0;
    world_memory(w, DATA, 4096);
    world_root_range(w, ROOT_DATA, DATA, DATA + 4096);
    hi_addr at = 0x100000;
    unsigned regions = 1 + (unsigned)random_below(7);
    for (unsigned i = 0; i < regions; i++) {
        at = (at + 15) & ~(hi_addr)15;
        at += random_below(2) * 4096 * random_below(1000);
        at += random_below(4) ? 0 : random_below(9) << 30;
        unsigned shape = (unsigned)random_below(3);
        at = shape == 0 ? add_slab(w, at) : shape == 1 ? add_chunks(w, at) : add_one(w, at);
    }
    plant(w);
    world_finish(w);
    model_marks();
}

static bool asked_twice;

static bool judge(void *context, hi_block block, enum edge_kind kind)
{
    unsigned *asked = context;
    asked_twice |= asked[block] >> kind & 1;
    asked[block] |= 1u << kind;
    return model_accepts(block, kind);
}

static bool same_marks(const struct world *w)
{
    static const char *const names[] = {"reachable", "possible", "direct", "indirect", "not live"};
    for (unsigned i = 0; i < model_count; i++) {
        enum mark got = graph_mark_of(w->graph, i);
        if (got == wanted[i])
            continue;
        printf("# block %u of %u at 0x%" PRIx64 ": got %s, wanted %s\n", i, model_count,
               model[i].start, names[got], names[wanted[i]]);
        return false;
    }
    return true;
}

static bool same_edges(const struct world *w)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < model_count; i++) {
        uint32_t count = graph_edge_count(w->graph, i);
        total += count;
        if (count != edge_counts[i])
            return false;
        unsigned kinds[BLOCKS_MOST] = {0};
        for (uint32_t k = 0; k < count; k++) {
            struct graph_edge edge = graph_edge(w->graph, i, k);
            kinds[edge.block] |= 1u << edge.kind;
        }
        if (memcmp(kinds, holds[i], sizeof kinds) != 0)
            return false;
    }
    return graph_root_edge_count(w->graph) == edge_counts[BLOCKS_MOST] &&
           graph_stats(w->graph)->edges == total;
}

/* Every lost block has a direct leader that leads to it; the list is complete and in order. */
static bool leaders_fit(const struct world *w)
{
    size_t listed = 0;
    for (unsigned i = 0; i < model_count; i++) {
        hi_block leader = graph_leader(w->graph, i);
        bool lost = wanted[i] == MARK_DIRECT || wanted[i] == MARK_INDIRECT;
        if (!lost && leader != BLOCK_NONE)
            return false;
        if (wanted[i] == MARK_DIRECT && leader != i)
            return false;
        if (wanted[i] == MARK_INDIRECT) {
            for (unsigned k = 0; k < model_count; k++)
                if (wanted[k] == MARK_DIRECT && reach[k][i]) {
                    if (leader != k)
                        return false;
                    break;
                }
        }
        if (model[i].node || (!lost && wanted[i] != MARK_POSSIBLE))
            continue;
        if (listed >= graph_lost_count(w->graph) || graph_lost(w->graph, listed).block != i ||
            graph_lost(w->graph, listed).mark != wanted[i])
            return false;
        listed++;
    }
    return listed == graph_lost_count(w->graph);
}

static void random_worlds(void)
{
    static const int jobs[] = {1, 2, 5};
    bool marks = true, edges = true, leaders = true;
    unsigned tally[5] = {0};
    for (int round = 0; round < 1500 && marks && edges && leaders; round++) {
        struct world w;
        random_world(&w);
        for (size_t j = 0; j < 2 * sizeof jobs / sizeof *jobs; j++) {
            unsigned asked[BLOCKS_MOST] = {0};
            w.options.jobs = jobs[j / 2];
            w.options.deferred = j % 2;
            world_build(&w, judge, asked);
            marks &= same_marks(&w);
            edges &= same_edges(&w);
            leaders &= leaders_fit(&w);
        }
        for (unsigned i = 0; i < model_count; i++)
            tally[wanted[i]]++;
        world_free(&w);
    }
    ok(marks, "marks are those of the naive model, for any number of workers, deferred or not");
    ok(edges, "so are edges");
    ok(leaders, "each lost block hangs off the lowest direct block that leads to it");
    ok(!asked_twice, "the judge is asked once for each block and kind");
    ok(tally[0] > 1000 && tally[1] > 1000 && tally[2] > 1000 && tally[3] > 1000,
       "all verdicts were met: %u reachable, %u possible, %u direct, %u indirect", tally[0],
       tally[1], tally[2], tally[3]);
}

/* -- the filter ---------------------------------------------------------------------------------
 */

static bool same_filter(filter_function filter, const struct filter_rule *rule,
                        const uint64_t *words, size_t count)
{
    uint32_t offsets[300 + FILTER_SLACK];
    uint64_t values[300 + FILTER_SLACK];
    size_t got = filter(rule, words, count, offsets, values), kept = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t word = words[i] & rule->keep;
        if (word < rule->low || word > rule->high)
            continue;
        if (kept >= got || offsets[kept] != i * 8 || values[kept] != word)
            return false;
        kept++;
    }
    return kept == got;
}

static void filters(void)
{
    static const char *const names[] = {"plain", "AVX2", "AVX-512"};
    static uint64_t words[300];
    for (unsigned path = 0; path < FILTER_PATH_COUNT; path++) {
        filter_function filter = filter_by_path((enum filter_path)path);
        if (!filter) {
            ok(true, "filter %s # SKIP this processor has none", names[path]);
            continue;
        }
        bool same = true;
        for (int round = 0; round < 3000; round++) {
            size_t count = random_below(300);
            struct filter_rule rule = {.keep = random_below(2) ? UINT64_MAX : ~UINT64_C(7) >> 8};
            rule.low = random_below(3) ? random_below(UINT64_MAX) >> random_below(64) : 0;
            rule.high = random_below(5) ? rule.low + (random_below(UINT64_MAX) >> random_below(64))
                                        : UINT64_MAX;
            rule.high = rule.high < rule.low ? UINT64_MAX : rule.high;
            for (size_t i = 0; i < count; i++) {
                uint64_t near[] = {rule.low,      rule.high,     rule.low - 1,
                                   rule.high + 1, rule.low + 64, random_below(UINT64_MAX)};
                words[i] = near[random_below(6)] | random_below(2) << 63;
            }
            same &= same_filter(filter, &rule, words, count);
        }
        ok(same, "filter %s keeps what it should", names[path]);
    }
}

int main(void)
{
    filters();
    random_worlds();
    return done();
}
