/*
 * The himalloc reader on a heap in an array (himalloc_image.h): exact when it is sound, and on
 * every kind of damage an end with a code or a finding: each word of the metadata changed in turn,
 * each read made to fail in turn, everything overwritten with noise.
 */
#include "heap/heap.h"
#include "tests/unit/himalloc_image.h"
#include "tests/unit/tap.h"

#include <time.h>

const struct heap_reader *const heap_readers[] = {&himalloc_reader, NULL};

static enum hi_code try_open(struct target *target, struct heaps **heaps, struct hi_err *err)
{
    struct heap_context context = {.target = target};
    struct hi_range nodes[] = {{IMAGE_META, IMAGE_META + sizeof(struct image)},
                               {IMAGE_BASE, IMAGE_BASE + IMAGE_UNITS * (uint64_t)IMAGE_UNIT},
                               {IMAGE_BIG, IMAGE_BIG + IMAGE_BIG_BYTES}};
    struct heaps_options options = {.nodes = nodes, .node_count = 3};
    return heaps_open(heaps, &context, &options, err);
}

static struct heaps *open_image(struct target *target)
{
    struct heaps *heaps = NULL;
    struct hi_err err = {0};
    if (!ok(try_open(target, &heaps, &err) == HI_OK, "the image opens"))
        printf("#   %s\n", err.message);
    return heaps;
}

static void print_findings(const struct heaps *heaps)
{
    for (size_t i = 0; i < heaps->findings.count && i < 10; i++)
        printf("#   %s: 0x%" PRIx64 ": %s\n", heaps->findings.items[i].rule,
               heaps->findings.items[i].address, heaps->findings.items[i].detail);
}

static bool has_finding(const struct heaps *heaps, const char *rule, hi_addr address)
{
    for (size_t i = 0; i < heaps->findings.count; i++)
        if (strcmp(heaps->findings.items[i].rule, rule) == 0 &&
            heaps->findings.items[i].address == address)
            return true;
    return false;
}

static unsigned slab_mistakes(const struct image *image, const struct heaps *heaps, unsigned unit)
{
    unsigned mistakes = 0;
    for (unsigned i = 0; i < image->units[unit].block_count; i++) {
        struct block_place place;
        hi_addr address = image_block(image, unit, i);
        bool found = blocks_at(heaps->blocks, address, &place) && place.offset == 0;
        mistakes += !found || blocks_is_live(heaps->blocks, place.block) != image_live(unit, i);
    }
    return mistakes;
}

static void check_large(struct heaps *heaps, hi_addr address, uint64_t usable, uint64_t requested,
                        const char *what)
{
    struct block_place place = {.block = BLOCK_NONE};
    bool found = blocks_at(heaps->blocks, address, &place) && place.offset == 0;
    ok(found && blocks_is_live(heaps->blocks, place.block), "%s block is live", what);
    if (!found)
        return;
    is_u64(blocks_usable(heaps->blocks, place.block), usable, "with its usable size");
    struct heap_detail detail;
    struct hi_err err;
    enum hi_code code = heaps_detail(heaps, &(struct heap_context){0}, place.block, &detail, &err);
    ok(code == HI_OK && detail.has_requested && detail.requested == requested,
       "and the size it was asked for");
}

static void test_sound(const struct image *image)
{
    struct target *target = image_target(image);
    struct heaps *heaps = open_image(target);
    is_u64(heaps->count, 1, "one heap");
    is_text(heaps->heaps[0].version, "1.7", "of this version");
    if (!ok(heaps->findings.count == 0, "no findings"))
        print_findings(heaps);
    is_u64(heaps->arenas.count, 2, "two arenas");
    is_text(heaps->arenas.items[1].name, "index", "one has a name");
    static const unsigned slabs[] = {0, 1, 3, 10};
    for (size_t i = 0; i < sizeof slabs / sizeof *slabs; i++)
        is_u64(slab_mistakes(image, heaps, slabs[i]), 0, "every block of a slab is what it is");
    check_large(heaps, IMAGE_BASE + 7 * IMAGE_UNIT, 180000, 170000, "the large");
    check_large(heaps, IMAGE_BIG + 4096, IMAGE_BIG_BYTES - 4096, IMAGE_BIG_BYTES - 5000, "the big");
    struct heap_totals totals;
    heap_totals(heaps, 0, &totals);
    is_u64(totals.live.blocks, 89 + 64 + 1 + 1 + 2, "live blocks");
    is_u64(totals.cached.blocks, 11, "cached blocks: slots, stash and hand");
    for (size_t i = 0; i < heaps->heaps[0].check_count; i++)
        ok(heaps->heaps[0].checks[i].agree, "account agrees: %s", heaps->heaps[0].checks[i].name);
    for (size_t i = 0; i < blocks_region_count(heaps->blocks); i++)
        if (blocks_region(heaps->blocks, i)->shape == REGION_NODE)
            ok(false, "no part of the heap is a node: 0x%" PRIx64,
               blocks_region(heaps->blocks, i)->start);
    heaps_close(heaps);
    target_close(target);
}

/* -- who allocated ---------------------------------------------------------------------------- */

static struct heap_detail detail_at(struct heaps *heaps, hi_addr address)
{
    struct block_place place = {.block = BLOCK_NONE};
    struct heap_detail detail = {0};
    struct hi_err err;
    if (!blocks_at(heaps->blocks, address, &place) ||
        heaps_detail(heaps, &(struct heap_context){0}, place.block, &detail, &err) != HI_OK)
        ok(false, "0x%" PRIx64 " has details", address);
    return detail;
}

static void check_stack(struct heaps *heaps, uint64_t id, const hi_addr *addresses, size_t count)
{
    struct heap_frame frames[8];
    size_t got = heaps_stack(heaps, &(struct heap_context){0}, 0, id, frames, 8);
    bool same = got == count;
    for (size_t i = 0; same && i < count; i++)
        same = frames[i].address == addresses[i];
    ok(same, "stack %" PRIu64 " has its %zu frames", id, count);
}

static void test_stacks(const struct image *sound)
{
    struct image image = *sound;
    image.stacks.nodes[6].parent = 7;
    struct target *target = image_target(&image);
    struct heaps *heaps = open_image(target);
    struct heap_frame frames[8];
    check_stack(heaps, 3, (hi_addr[]){0x400030, 0x500020, 0x400010}, 3);
    check_stack(heaps, 4, (hi_addr[]){0x400040, 0x500020, 0x400010}, 3);
    check_stack(heaps, 5, (hi_addr[]){0x500050}, 1);
    check_stack(heaps, 6, (hi_addr[]){0x400060}, 1); /* its caller comes after it */
    check_stack(heaps, 7, NULL, 0);                  /* no address */
    check_stack(heaps, IMAGE_NODES, NULL, 0);
    check_stack(heaps, UINT64_MAX, NULL, 0);
    heaps_stack(heaps, &(struct heap_context){0}, 0, 4, frames, 8);
    ok(frames[0].guessed && !frames[1].guessed && !frames[2].cut && !frames[0].exact, "flags");
    ok(frames[1].module && strcmp(frames[1].module->path, "gone.so") == 0 &&
           frames[1].module->build_id_bytes == 2 && frames[1].module->build_id[1] == 0xcd &&
           frames[1].module->bias == 0x4ff000,
       "the module that was there then");
    ok(!frames[0].module, "no module: not known");
    heaps_stack(heaps, &(struct heap_context){0}, 0, 5, frames, 8);
    ok(frames[0].exact && frames[0].cut && frames[0].module &&
           strcmp(frames[0].module->path, "here.so") == 0,
       "the module that is there now");
    is_u64(heaps_stack(heaps, &(struct heap_context){0}, 0, 3, frames, 2), 2, "no more than asked");
    ok(frames[1].cut, "... and said to be cut");
    ok(has_finding(heaps, "a frame's caller comes before it", IMAGE_AT(stacks.nodes[6])),
       "a caller that comes later is a finding");
    heaps_close(heaps);
    target_close(target);
}

static void test_notes(const struct image *image)
{
    struct target *target = image_target(image);
    struct heaps *heaps = open_image(target);
    struct heap_detail live = detail_at(heaps, image_block(image, 0, 13));
    struct heap_detail freed = detail_at(heaps, image_block(image, 0, 20));
    struct heap_detail none = detail_at(heaps, image_block(image, 0, 21));
    ok(live.has_requested && live.requested == 53 && live.stack_id == 3, "a live block's note");
    ok(freed.stack_id == 3 && freed.freed_stack_id == 4, "a freed block's note");
    ok(!none.has_requested && none.stack_id == 0, "none where nothing was noted");
    is_u64(detail_at(heaps, IMAGE_BASE + 7 * IMAGE_UNIT).stack_id, 5, "the large one's stack");
    is_u64(detail_at(heaps, IMAGE_BIG + 4096).stack_id, 4, "the big one's");
    is_u64(detail_at(heaps, image_block(image, 1, 3)).stack_id, 0, "a slab without notes");
    struct heap_detail tagged = detail_at(heaps, image_block(image, 0, 30));
    is_text(tagged.tag ? tagged.tag : "", "session table", "the program's word for a block");
    ok(!live.tag, "... and for no other");
    struct heap_totals totals;
    heap_totals(heaps, 0, &totals);
    uint64_t noted = 10 * 40 + (10 + 19) * 5;
    is_u64(totals.live.bytes,
           79 * 64 + noted + 64 * 1024 + 16384 + 64 + 170000 + IMAGE_BIG_BYTES - 5000,
           "live bytes are requested ones where they are known");
    ok(heaps->heaps[0].bytes_are_requested && heaps->heaps[0].stacks == HEAP_STACKS_FULL, "full");
    is_u64(heaps->heaps[0].blocks_with_stack, 13, "blocks that know who allocated them");
    is_u64(heaps->held.count, 2, "an ignored block and a root region hold");
    ok(heaps->held.items[0].start == IMAGE_BASE + IMAGE_UNIT &&
           heaps->held.items[0].end == IMAGE_BASE + IMAGE_UNIT + 1024 &&
           heaps->held.items[1].start == IMAGE_ROOTS + 8 &&
           heaps->held.items[1].end == IMAGE_ROOTS + 4008,
       "... what was said, by the block that it lies in");
    heaps_close(heaps);
    target_close(target);
}

/* Kinds of arenas: sampled blocks stand for others, ignored ones hold. */
static void test_kinds(const struct image *sound)
{
    struct image image = *sound;
    image.arenas[0].kind = HM_ARENA_SAMPLED;
    image.arenas[1].kind = HM_ARENA_IGNORED;
    image.stack_table.mode = HM_STACKS_SAMPLED;
    struct target *target = image_target(&image);
    struct heaps *heaps = open_image(target);
    ok(detail_at(heaps, image_block(&image, 0, 13)).is_sampled, "a sampled slab's block");
    ok(detail_at(heaps, IMAGE_BASE + 7 * IMAGE_UNIT).is_sampled, "a sampled large block");
    ok(!heaps->heaps[0].bytes_are_requested && heaps->heaps[0].sample_bytes == 4096, "sampled");
    is_u64(detail_at(heaps, IMAGE_BIG + 4096).is_sampled, 1,
           "in sampled mode all with a stack are");
    ok(heaps->held.count == 3 && heaps->held.items[0].start == IMAGE_BASE + 10 * IMAGE_UNIT,
       "an ignored arena's slab holds");
    heaps_close(heaps);
    target_close(target);
}

/* Notes of automatic slabs are old when not all allocations are noted; others never are. */
static void test_modes(const struct image *sound)
{
    struct image image = *sound;
    image.stack_table.mode = HM_STACKS_OFF;
    struct target *target = image_target(&image);
    struct heaps *heaps = open_image(target);
    is_u64(detail_at(heaps, image_block(&image, 0, 13)).stack_id, 0, "a note of before");
    is_u64(detail_at(heaps, IMAGE_BASE + 7 * IMAGE_UNIT).stack_id, 5, "a large block's note");
    ok(detail_at(heaps, IMAGE_BASE + 7 * IMAGE_UNIT).is_sampled, "... is a sample");
    heaps_close(heaps);
    target_close(target);
    image.arenas[0].kind = HM_ARENA_NAMED;
    target = image_target(&image);
    heaps = open_image(target);
    is_u64(detail_at(heaps, image_block(&image, 0, 13)).stack_id, 3, "one of a named arena");
    heaps_close(heaps);
    target_close(target);
}

/* Without these structures in its schema a heap is as good as before there were any. */
static void test_older(const struct image *sound)
{
    struct image image = *sound;
    for (unsigned i = 0; i < image.preamble.schema_record_count; i++)
        for (size_t k = 0; k < 5; k++) {
            static const char *const newer[] = {"note", "stack_node", "module", "stack_table",
                                                "remark"};
            if (strcmp(image.schema[i].structure, newer[k]) == 0)
                image.schema[i].structure[0] = 'x';
        }
    struct target *target = image_target(&image);
    struct heaps *heaps = open_image(target);
    ok(heaps->findings.count == 0 && heaps->heaps[0].stacks == HEAP_STACKS_NONE &&
           heaps->held.count == 0,
       "nothing is missed");
    ok(detail_at(heaps, IMAGE_BASE + 7 * IMAGE_UNIT).has_requested, "what was known is known");
    heaps_close(heaps);
    target_close(target);
}

/* A thread inside the allocator with a block in a register: in flight, its arena in flux. */
static void test_in_flight(const struct image *image)
{
    struct target *target = image_target(image);
    struct thread thread = {.tid = IMAGE_TID, .has_registers = true, .pc = IMAGE_PC};
    struct hi_err err;
    thread.registers[16] = IMAGE_PC;
    thread.registers[10] = image_block(image, 0, 40); /* rax */
    if (target_add_registers(target, &thread, &err) != HI_OK)
        printf("Bail out! %s\n", err.message);
    struct heaps *heaps = open_image(target);
    struct block_place place = {.block = BLOCK_NONE};
    blocks_at(heaps->blocks, image_block(image, 0, 40), &place);
    is_u64(blocks_state(heaps->blocks, place.block), BLOCK_IN_FLIGHT, "in flight by register");
    is_u64(heaps->arenas.items[0].state, ARENA_IN_FLUX, "its arena is in flux");
    is_u64(heaps->arenas.items[1].state, ARENA_OK, "the other one is not");
    is_u64(heaps->arenas.items[0].tid_count, 2, "threads of the arena");
    heaps_close(heaps);
    target_close(target);
}

static void expect_finding(const struct image *image, const char *rule, hi_addr address)
{
    struct target *target = image_target(image);
    struct heaps *heaps = open_image(target);
    if (!ok(has_finding(heaps, rule, address), "finding: %s", rule))
        print_findings(heaps);
    heaps_close(heaps);
    target_close(target);
}

/* One crime a rule: the finding names the rule and the place. */
static void test_crimes(const struct image *sound)
{
    struct image image;
#define CRIME(change, rule, place)                                                                 \
    do {                                                                                           \
        image = *sound;                                                                            \
        change;                                                                                    \
        expect_finding(&image, rule, place);                                                       \
    } while (0)
    CRIME(image.codes[1] = 77, "class map codes are known", IMAGE_AT(codes[1]));
    CRIME(image.units[0].head = 5, "a unit names its slab's first unit", IMAGE_AT(units[0]));
    CRIME(image.units[0].class_index = 2, "a slab's class is that of its code", IMAGE_AT(units[0]));
    CRIME(image.units[0].block_count = 9, "a slab's block count is that of its class",
          IMAGE_AT(units[0]));
    CRIME(image.units[0].arena = 9, "a block's arena exists", IMAGE_AT(units[0]));
    CRIME(image.units[0].bitmap = 16, "a slab's bitmap can be read", 16);
    CRIME(image.bitmaps[3][0] |= 1u << 20, "bits behind a slab's last block are 0",
          IMAGE_AT(bitmaps[3]));
    CRIME(image.units[7].usable_bytes = 1 << 20, "a large block fits its units",
          IMAGE_AT(units[7]));
    CRIME(image.units[7].unit_count = 5, "a large block fits its units", IMAGE_AT(units[7]));
    CRIME(image.bigs[1].address = 4096, "a big block lies in its mapping", IMAGE_AT(bigs[1]));
    CRIME(image.bigs[1].mapping_bytes = UINT64_MAX, "a big block lies in its mapping",
          IMAGE_AT(bigs[1]));
    CRIME(image.arena_table[1] = 8, "an arena can be read", 8);
    CRIME(image.thread_table[1] = image.thread_table[0], "thread records are distinct",
          IMAGE_AT(thread_table));
    CRIME(image.threads[0].record.bins[1].window.empty = 9999, "a bin's slots lie in its record",
          IMAGE_AT(threads[0]));
    CRIME(image.stash[1] += 8, "a cached address is a block", image.stash[1]);
    CRIME(image.stash[1] = image_block(&image, 1, 3), "a cached block is of its cache's class",
          IMAGE_AT(stash[1]));
    CRIME(image.arenas[0].centrals[1].stash_count = 9, "a stash holds no more than it can",
          IMAGE_AT(arenas[0]));
    CRIME(image.ranges[0].top_index = 41, "a range lies in the address space", IMAGE_AT(ranges));
#undef CRIME
}

static void expect_unknown(const struct image *image, const char *wanted)
{
    struct target *target = image_target(image);
    struct heaps *heaps = open_image(target);
    is_u64(heaps->count, 0, "no heap");
    if (!ok(strstr(heaps->unknown, wanted) != NULL, "but said: %s", wanted))
        printf("#   \"%s\"\n", heaps->unknown);
    heaps_close(heaps);
    target_close(target);
}

static struct hm_schema_record *schema_find(struct image *image, const char *structure,
                                            const char *field)
{
    for (size_t i = 0; i < IMAGE_RECORDS; i++)
        if (strcmp(image->schema[i].structure, structure) == 0 &&
            strcmp(image->schema[i].field, field) == 0)
            return &image->schema[i];
    printf("Bail out! no %s.%s\n", structure, field);
    return &image->schema[0];
}

/* Versions and schemas that this reader can't follow are named, not guessed at. */
static void test_unknown(const struct image *sound)
{
    struct image image = *sound;
    image.preamble.major = 2;
    expect_unknown(&image, "heap format 2.7; this program reads 1.x");
    image = *sound;
    schema_find(&image, "unit", "bitmap")->field[0] = 'B';
    expect_unknown(&image, "\"unit.bitmap\"");
    image = *sound;
    schema_find(&image, "bin", "")->structure[0] = 'x';
    expect_unknown(&image, "\"bin\"");
    image = *sound;
    schema_find(&image, "root", "bigs")->size = 3;
    expect_unknown(&image, "\"root.bigs\"");
    image = *sound;
    schema_find(&image, "range", "codes")->offset = UINT32_MAX;
    expect_unknown(&image, "\"range.codes\" outside");
    image = *sound;
    schema_find(&image, "thread", "bins")->count = UINT32_MAX;
    expect_unknown(&image, "\"thread.bins\" outside");
    image = *sound;
    image.root.big_count = 60000;
    expect_unknown(&image, "60000 entries in a table of 3");
    image = *sound;
    image.preamble.schema = 16;
    expect_unknown(&image, "himalloc is here, but");
}

/* What a newer minor version may add: unknown structures, fields and wider schema records. */
static void test_newer(const struct image *sound)
{
    struct image image = *sound;
    image_record(&image, "profile", "", 0, 4096, 3, HM_STRUCTURE);
    image_record(&image, "profile", "stacks", 8, 8, 1, HM_ADDRESS);
    image_record(&image, "unit", "stack_ids", 4000, 8, 1, HM_ADDRESS);
    image_record(&image, "root", "colour", 0, 3, 7, 99);
    test_sound(&image);
}

struct outcome {
    unsigned opened, findings, unknown, absent, silent;
};

/* Open whatever it has become: any end is fine but a crash, a hang or a failure of ours. */
static void survive(const struct image *image, struct outcome *outcome, uint64_t nth)
{
    struct target *target = image_target(image);
    struct heaps *heaps = NULL;
    struct hi_err err = {0};
    if (nth)
        target_bytes_fail_read(target, nth);
    enum hi_code code = try_open(target, &heaps, &err);
    outcome->opened += code == HI_OK;
    if (heaps) {
        bool disagree = false;
        for (size_t i = 0; heaps->count && i < heaps->heaps[0].check_count; i++)
            disagree |= !heaps->heaps[0].checks[i].agree;
        outcome->findings += heaps->findings.count > 0 || disagree;
        outcome->unknown += heaps->unknown[0] != '\0';
        outcome->absent += heaps->count == 0 && !heaps->unknown[0];
        outcome->silent +=
            heaps->count > 0 && !heaps->findings.count && !disagree && !heaps->unknown[0];
    }
    heaps_close(heaps);
    target_close(target);
}

static void test_each_word(const struct image *sound)
{
    static const uint64_t masks[] = {1, UINT64_C(1) << 13, UINT64_C(1) << 40, UINT64_MAX};
    struct outcome outcome = {0};
    unsigned tries = 0;
    struct image image;
    for (size_t mask = 0; mask < sizeof masks / sizeof *masks; mask++)
        for (size_t at = 0; at + 8 <= sizeof image; at += 8) {
            image = *sound;
            uint64_t word;
            memcpy(&word, (char *)&image + at, 8);
            word = mask == 3 ? UINT64_MAX : word ^ masks[mask];
            memcpy((char *)&image + at, &word, 8);
            survive(&image, &outcome, 0);
            tries++;
        }
    is_u64(outcome.opened, tries, "each word of the metadata changed in turn: always an answer");
    printf("# %u tries: %u with findings, %u not understood, %u not found, %u without a word\n",
           tries, outcome.findings, outcome.unknown, outcome.absent, outcome.silent);
}

static void test_noise(const struct image *sound)
{
    struct outcome outcome = {0};
    uint64_t seed = 88172645463325252ull;
    struct image image;
    for (unsigned i = 0; i < 500; i++) {
        image = *sound;
        size_t from = sizeof image.preamble + (i % 2 ? sizeof image.root : 0);
        for (size_t at = from; at + 8 <= offsetof(struct image, schema); at += 8) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            if (i % 5 == 0 || seed % 5 == 0)
                memcpy((char *)&image + at, &seed, 8);
        }
        survive(&image, &outcome, 0);
    }
    is_u64(outcome.opened, 500, "noise in the metadata: always an answer");
    is_u64(outcome.silent, 0, "and never without a word");
}

static void test_each_read(const struct image *sound)
{
    struct outcome outcome = {0}, before;
    unsigned silent_failures = 0;
    uint64_t nth = 1;
    for (; nth < 2000; nth++) {
        before = outcome;
        survive(sound, &outcome, nth);
        if (outcome.silent > before.silent) {
            silent_failures++;
            if (silent_failures > 200)
                break;
        }
    }
    is_u64(outcome.opened, nth - (nth < 2000 ? 0 : 1), "each read fails in turn: always an answer");
    ok(outcome.findings > 5 && outcome.unknown + outcome.absent > 2, "failed reads are told");
    printf("# %u with findings, %u not understood, %u not found\n", outcome.findings,
           outcome.unknown, outcome.absent);
}

/* A class map that claims slab after slab in memory that is reserved and not there: told, and not
 * believed block by block. */
static void test_more_than_memory(const struct image *sound)
{
    enum { CLAIMED = 1 << 20 };
    static unsigned char codes[CLAIMED];
    struct image image = *sound;
    memset(codes, 20, sizeof codes);
    image.ranges[0].base = UINT64_C(0x7d0000000000);
    image.ranges[0].codes = UINT64_C(0x7c0000000000);
    image.ranges[0].unit_count = image.ranges[0].top_index = CLAIMED;
    struct target_segment segments[] = {
        {IMAGE_META, &image, sizeof image, MAPPING_READ | MAPPING_WRITE, NULL},
        {UINT64_C(0x7c0000000000), codes, sizeof codes, MAPPING_READ, NULL},
        {UINT64_C(0x7d0000000000), NULL, (size_t)CLAIMED * IMAGE_UNIT, 0, NULL},
    };
    struct target *target = NULL;
    struct hi_err err;
    if (target_open_bytes(&target, segments, 3, &err) != HI_OK)
        printf("Bail out! %s\n", err.message);
    struct heaps *heaps = open_image(target);
    bool told = false;
    for (size_t i = 0; i < heaps->findings.count; i++)
        told |= strcmp(heaps->findings.items[i].rule, "units in use fit into memory") == 0;
    ok(told, "finding: units in use fit into memory");
    ok(blocks_region_count(heaps->blocks) < 8192, "a million claimed slabs are not stored");
    heaps_close(heaps);
    target_close(target);
}

/* A root page that is gone although the note is there can't be made here: see the format tests. */
int main(void)
{
    static struct image image;
    image_make(&image);
    test_sound(&image);
    test_newer(&image);
    test_stacks(&image);
    test_notes(&image);
    test_kinds(&image);
    test_modes(&image);
    test_older(&image);
    test_in_flight(&image);
    test_crimes(&image);
    test_more_than_memory(&image);
    test_unknown(&image);
    test_each_word(&image);
    test_noise(&image);
    test_each_read(&image);
    return done();
}
