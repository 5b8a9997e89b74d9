/* The driver and the sink, with two toy readers over a table of bytes: what they push in good order
 * is counted and cut right, what they push wrongly becomes a finding with its address. */
#include "heap/heap.h"
#include "tests/unit/tap.h"

#include <signal.h>

enum {
    ARENA = 0x10000,
    SLAB = 0x20000,
    CHUNKS = 0x40000,
    SINGLE = 0x60000,
    META = 0x30000,
    OTHER = 0x90000,
};

static enum { TOY_SOUND, TOY_WRONG, TOY_FAULTS, TOY_UNSUPPORTED, TOY_ABSENT } toy_mode;
static unsigned closed;

static enum hi_code toy_probe(const struct heap_context *context, unsigned instance,
                              struct probe *probe, struct hi_err *err)
{
    (void)context;
    if (toy_mode == TOY_UNSUPPORTED && instance == 0) {
        snprintf(probe->unknown, sizeof probe->unknown, "toy 9 is newer than toy 1");
        return hi_fail(err, HI_UNSUPPORTED, "too new");
    }
    if (toy_mode == TOY_ABSENT || toy_mode == TOY_UNSUPPORTED || instance > 0)
        return hi_fail(err, HI_NOT_FOUND, "no more toys");
    snprintf(probe->version, sizeof probe->version, "1.0");
    probe->active = true;
    probe->state = &closed;
    return HI_OK;
}

static struct region slab_region(void)
{
    return (struct region){.start = SLAB,
                           .end = SLAB + 0x1000,
                           .first = SLAB,
                           .stride = 64,
                           .count = 64,
                           .usable = 64,
                           .shape = REGION_SLAB};
}

static bool push_sound(struct heap_sink *sink)
{
    struct arena arena = {.id = 7, .address = ARENA};
    struct region slab = slab_region();
    slab.arena = sink_arena(sink, &arena);
    arena.id = 8;
    uint32_t second = sink_arena(sink, &arena);
    uint64_t live = 0xff;
    struct region single = {.start = SINGLE,
                            .end = SINGLE + 0x2000,
                            .first = SINGLE + 16,
                            .count = 1,
                            .usable = 0x1ff0,
                            .arena = second,
                            .shape = REGION_SINGLE};
    struct region chunks = {
        .start = CHUNKS, .end = CHUNKS + 0x1000, .gap = 8, .arena = second, .shape = REGION_CHUNKS};
    struct block_chunk list[] = {
        {CHUNKS + 0x10, BLOCK_LIVE}, {CHUNKS + 0x50, BLOCK_FREE}, {CHUNKS + 0x90, BLOCK_LIVE}};
    return sink_region(sink, &single, NULL) && sink_region(sink, &slab, &live) &&
           sink_chunks_begin(sink, &chunks) && sink_chunks(sink, list, 3) &&
           sink_chunks_end(sink) && sink_metadata(sink, META + 0x100, META + 0x200) &&
           sink_metadata(sink, META, META + 0x100) &&
           sink_metadata(sink, META + 0x80, META + 0x300);
}

static bool push_wrong(struct heap_sink *sink)
{
    struct region overlap = slab_region(), nowhere = slab_region(), backwards = slab_region();
    nowhere.start = nowhere.first = OTHER;
    nowhere.end = OTHER + 0x1000;
    nowhere.arena = 99;
    backwards.start = 0x80000;
    backwards.end = 0x70000;
    struct region chunks = {.start = 0x50000, .end = 0x51000, .gap = 8, .shape = REGION_CHUNKS};
    struct block_chunk list[] = {
        {0x50010, BLOCK_LIVE}, {0x50008, BLOCK_LIVE}, {0x60010, BLOCK_LIVE}, {0x50100, BLOCK_LIVE}};
    return sink_region(sink, &overlap, NULL) && sink_region(sink, &nowhere, NULL) &&
           sink_region(sink, &backwards, NULL) && sink_chunks_begin(sink, &chunks) &&
           sink_chunks(sink, list, 4) && sink_chunks_end(sink) &&
           sink_chunks(sink, list, 4); /* outside begin and end: swallowed */
}

static enum hi_code toy_walk(const struct heap_context *context, struct heap *heap,
                             struct heap_sink *sink, struct hi_err *err)
{
    (void)heap;
    bool more = push_sound(sink);
    if (more && toy_mode == TOY_WRONG)
        more = push_wrong(sink);
    if (!more)
        return hi_fail(err, HI_STOPPED, "told to");
    uint64_t word;
    if (toy_mode == TOY_FAULTS)
        return target_read_u64(context->target, 0xdead0000, &word, err);
    return HI_OK;
}

static enum hi_code toy_overlay(const struct heap_context *context, struct heap *heap,
                                struct heap_sink *sink, struct hi_err *err)
{
    (void)context, (void)heap;
    enum block_state before = BLOCK_SUSPECT;
    bool more = sink_overlay(sink, SLAB + 64, BLOCK_CACHED, &before);
    is_u64(before, BLOCK_LIVE, "the state before an overlay is told");
    more = more && sink_overlay(sink, SLAB + 64 * 20, BLOCK_CACHED, &before); /* free already */
    is_u64(before, BLOCK_FREE, "also that of a block that was free already");
    if (toy_mode == TOY_WRONG)
        more = more && sink_overlay(sink, SLAB + 65, BLOCK_CACHED, NULL) &&
               sink_overlay(sink, 0xdead0000, BLOCK_CACHED, NULL) &&
               sink_overlay(sink, 0xa0000, BLOCK_CACHED, NULL); /* a node */
    return more ? HI_OK : hi_fail(err, HI_STOPPED, "told to");
}

static enum hi_code toy_account(const struct heap_context *context, struct heap *heap,
                                struct heap_sink *sink, struct hi_err *err)
{
    (void)context, (void)heap, (void)err;
    struct heap_totals totals;
    heap_totals(sink_heaps(sink), 0, &totals);
    sink_check(sink, "live blocks", 10, totals.live.blocks, totals.live.blocks == 10);
    return HI_OK;
}

static void toy_close(void *state)
{
    ++*(unsigned *)state;
}

static enum hi_code never_probe(const struct heap_context *context, unsigned instance,
                                struct probe *probe, struct hi_err *err)
{
    (void)context, (void)instance, (void)probe;
    return hi_fail(err, HI_NOT_FOUND, "never");
}

static const struct heap_reader toy_reader = {.name = "toy",
                                              .probe = toy_probe,
                                              .walk = toy_walk,
                                              .overlay = toy_overlay,
                                              .account = toy_account,
                                              .close = toy_close};
static const struct heap_reader never_reader = {.name = "never", .probe = never_probe};
const struct heap_reader *const heap_readers[] = {&never_reader, &toy_reader, NULL};

static struct target *toy_target(void)
{
    static const struct target_segment segment = {0x1000, NULL, 0x200000, MAPPING_READ, NULL};
    struct target *target = NULL;
    struct hi_err err;
    if (target_open_bytes(&target, &segment, 1, &err) != HI_OK)
        printf("Bail out! %s\n", err.message);
    return target;
}

static struct heaps *open_toys(struct target *target, const struct progress *progress,
                               const char *only, enum hi_code wanted)
{
    struct heap_context context = {.target = target, .progress = progress};
    struct hi_range nodes[] = {{0xa0000, 0xb0000}, {0x18000, 0x62000}};
    struct heaps_options options = {.only = only, .nodes = nodes, .node_count = 2};
    struct heaps *heaps = NULL;
    struct hi_err err = {0};
    enum hi_code code = heaps_open(&heaps, &context, &options, &err);
    if (!ok(code == wanted, "heaps_open ends as it should"))
        printf("#   code %d: %s\n", code, err.message);
    return heaps;
}

static const struct finding *finding_at(const struct heaps *heaps, hi_addr address)
{
    for (size_t i = 0; i < heaps->findings.count; i++)
        if (heaps->findings.items[i].address == address)
            return &heaps->findings.items[i];
    return NULL;
}

static void check_nodes(const struct heaps *heaps)
{
    static const struct hi_range wanted[] = {
        {0x18000, SLAB},           {SLAB + 0x1000, META}, {META + 0x300, CHUNKS},
        {CHUNKS + 0x1000, SINGLE}, {0xa0000, 0xb0000},
    };
    size_t found = 0;
    for (size_t i = 0; i < blocks_region_count(heaps->blocks); i++) {
        const struct region *region = blocks_region(heaps->blocks, i);
        if (region->shape != REGION_NODE)
            continue;
        if (found < 5)
            ok(region->start == wanted[found].start && region->end == wanted[found].end,
               "node %zu is what heaps left of its mapping", found);
        found++;
    }
    is_u64(found, 5, "nodes");
}

static void test_sound(void)
{
    toy_mode = TOY_SOUND;
    struct target *target = toy_target();
    struct heaps *heaps = open_toys(target, NULL, NULL, HI_OK);
    is_u64(heaps->count, 1, "one heap");
    is_u64(heaps->arenas.count, 2, "two arenas");
    is_u64(heaps->findings.count, 0, "no findings");
    is_u64(heaps->metadata.count, 1, "metadata that overlaps is one range");
    is_u64(heaps->metadata.items[0].start, META, "from its first byte");
    is_u64(heaps->metadata.items[0].end, META + 0x300, "to its last");
    struct heap_totals first, second, all;
    arena_totals(heaps, 0, &first);
    arena_totals(heaps, 1, &second);
    heap_totals(heaps, 0, &all);
    is_u64(first.live.blocks, 7, "live blocks of arena 0: 8 less the cached one");
    is_u64(first.cached.blocks, 1, "cached blocks");
    is_u64(first.cached.bytes, 64, "cached bytes");
    is_u64(first.free.blocks, 56, "free blocks");
    is_u64(second.live.blocks, 3, "live blocks of arena 1");
    is_u64(second.free.bytes, 0x38, "free bytes of arena 1");
    is_u64(all.live.blocks, 10, "live blocks of the heap");
    is_u64(all.live.bytes, first.live.bytes + second.live.bytes, "bytes add up");
    ok(heaps->heaps[0].check_count == 1 && heaps->heaps[0].checks[0].agree, "the account agrees");
    check_nodes(heaps);
    closed = 0;
    heaps_close(heaps);
    is_u64(closed, 1, "the reader's state is closed once");
    target_close(target);
}

static void test_wrong(void)
{
    toy_mode = TOY_WRONG;
    struct target *target = toy_target();
    struct heaps *heaps = open_toys(target, NULL, "toy", HI_OK);
    static const hi_addr wrong[] = {SLAB,    OTHER,     0x80000,    0x50008,
                                    0x60010, SLAB + 65, 0xdead0000, 0xa0000};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ok(finding_at(heaps, wrong[i]) != NULL, "a finding at 0x%" PRIx64, wrong[i]);
    is_u64(heaps->findings.count, sizeof wrong / sizeof *wrong, "and no others");
    struct block_place place;
    ok(blocks_at(heaps->blocks, 0x50010, &place) && place.offset == 0, "good chunks are kept");
    ok(blocks_at(heaps->blocks, 0x50100, &place) && place.offset == 0, "also after bad ones");
    const struct region *node = blocks_region_at(heaps->blocks, 0xa0000);
    ok(node && node->shape == REGION_NODE, "the node is there");
    ok(node && blocks_state(heaps->blocks, node->base) == BLOCK_LIVE, "and can't be cached");
    heaps_close(heaps);
    target_close(target);
}

static void test_others(void)
{
    struct target *target = toy_target();
    toy_mode = TOY_FAULTS;
    struct heaps *heaps = open_toys(target, NULL, NULL, HI_OK);
    ok(finding_at(heaps, 0xdead0000) != NULL, "what a reader can't read is a finding");
    struct heap_totals totals;
    heap_totals(heaps, 0, &totals);
    is_u64(totals.live.blocks, 10, "what it pushed before stands");
    heaps_close(heaps);
    toy_mode = TOY_UNSUPPORTED;
    heaps = open_toys(target, NULL, NULL, HI_OK);
    is_u64(heaps->count, 0, "an unknown version is no heap");
    is_text(heaps->unknown, "toy 9 is newer than toy 1", "and is named");
    heaps_close(heaps);
    toy_mode = TOY_SOUND;
    heaps = open_toys(target, NULL, "never", HI_OK);
    is_u64(heaps->count, 0, "--allocator keeps the others out");
    heaps_close(heaps);
    volatile sig_atomic_t stop = 1;
    struct progress progress = {.stop = &stop};
    heaps = open_toys(target, &progress, NULL, HI_STOPPED);
    ok(heaps != NULL, "an interrupt leaves what is known");
    if (heaps)
        is_u64(blocks_count(heaps->blocks), 0, "here: nothing yet");
    heaps_close(heaps);
    target_close(target);
}

int main(void)
{
    test_sound();
    test_wrong();
    test_others();
    return done();
}
