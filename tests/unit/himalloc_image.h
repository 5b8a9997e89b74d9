/*
 * A small himalloc heap in an array, made by hand: two arenas (one named), slabs of three classes,
 * a large block, a big block, a stash, two thread caches. Its structures have an order and widths
 * of their own, which only the schema in it tells, so that a reader that knows offsets fails.
 *
 * Live at rest: see image_live(); the test compares with that list, block by block.
 */
#ifndef TESTS_UNIT_HIMALLOC_IMAGE_H
#define TESTS_UNIT_HIMALLOC_IMAGE_H

#include "allocator/himalloc_format.h"
#include "target/target.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { IMAGE_CLASSES = 4, IMAGE_UNIT = 65536, IMAGE_UNITS = 40, IMAGE_TOP = 13 };
enum { IMAGE_SLOTS = 64, IMAGE_RECORDS = 160, IMAGE_TID = 100, IMAGE_PC = 0x401000 };
#define IMAGE_META      UINT64_C(0x7f0000000000)
#define IMAGE_BASE      UINT64_C(0x7f0000100000)
#define IMAGE_BIG       UINT64_C(0x7e0000000000)
#define IMAGE_TEXT      UINT64_C(0x400000)
#define IMAGE_BIG_BYTES (UINT64_C(1) << 20)
#define IMAGE_NOTES     UINT64_C(0x7d0000000000)
#define IMAGE_ROOTS     UINT64_C(0x7c0000000000)
enum { IMAGE_NOTE_COUNT = 1024, IMAGE_NODES = 8, IMAGE_MODULES = 2 };

struct image_window {
    uint32_t empty;
    uint16_t head;
    uint16_t spare;
};
struct image_bin {
    uint64_t pend;
    struct image_window window;
};
struct image_thread {
    uint64_t mapping_bytes;
    struct image_bin bins[IMAGE_CLASSES];
    uint64_t hand;
    uint64_t tid;
    uint8_t arena;
};
struct image_central {
    uint64_t stash;
    uint16_t stash_count;
    uint16_t stash_capacity;
    uint32_t slab_count;
    uint64_t lock;
};
struct image_arena {
    char name[32];
    uint8_t kind;
    uint64_t large_units;
    struct image_central centrals[IMAGE_CLASSES];
};
struct image_unit {
    uint64_t bitmap;
    uint64_t usable_bytes;
    uint64_t requested_bytes;
    uint32_t free_count;
    uint32_t block_count;
    uint16_t head;
    uint16_t unit_count;
    uint8_t class_index;
    uint8_t arena;
};
struct image_range {
    uint32_t top_index;
    uint32_t unit_count;
    uint64_t units;
    uint64_t codes;
    uint64_t mapping_start;
    uint32_t note_stride;
    uint64_t notes;
    uint64_t base;
};
struct image_note {
    uint16_t requested;
    uint32_t freed;
    uint16_t stack;
};
struct image_stack_node {
    uint32_t parent;
    uint64_t frame;
};
struct image_module {
    uint64_t bias, start, end;
    uint8_t build_id[20];
    uint8_t build_id_bytes;
    uint16_t path_bytes;
    uint64_t path;
    uint32_t last_epoch;
    uint16_t first_epoch;
};
struct image_stack_table {
    uint64_t mapping_bytes, mapping_start;
    uint32_t lost;
    uint16_t module_count, module_capacity;
    uint32_t node_capacity, node_count;
    uint64_t modules, nodes;
    uint32_t sample_bytes;
    uint8_t mode;
};
struct image_remark {
    uint32_t bytes;
    uint8_t kind;
    char text[20];
    uint64_t address;
};
struct image_class {
    uint64_t slab_units;
    uint16_t block_bytes;
    uint16_t block_count;
};
struct image_big {
    uint64_t usable_bytes;
    uint64_t mapping_bytes;
    uint64_t address;
    uint64_t mapping_start;
    uint64_t requested_bytes;
    uint32_t stack;
    uint8_t arena;
};
struct image_root {
    uint64_t bigs;
    uint64_t text_end;
    uint64_t text_start;
    uint64_t ranges;
    uint64_t arenas;
    uint64_t threads;
    uint64_t classes;
    uint64_t remarks, stacks;
    uint8_t remark_count, remark_capacity;
    uint16_t range_count, range_capacity, arena_count, arena_capacity;
    uint16_t thread_count, thread_capacity, big_count, big_capacity;
    uint8_t class_count, unit_shift;
    uint8_t code_free, code_slab_first, code_slab_last, code_named_first, code_named_last;
    uint8_t code_large_head, code_large_rest, code_purging;
};

/* Everything that is metadata, in one piece. */
struct image {
    struct hm_preamble preamble;
    struct image_root root;
    struct image_range ranges[1];
    struct image_class classes[IMAGE_CLASSES];
    uint64_t arena_table[2], thread_table[2];
    struct image_arena arenas[2];
    struct image_big bigs[3];
    uint64_t stash[8];
    struct {
        struct image_thread record;
        uint64_t slots[IMAGE_SLOTS];
    } threads[2];
    uint8_t codes[IMAGE_UNITS];
    struct image_unit units[IMAGE_TOP];
    uint64_t bitmaps[IMAGE_TOP][16];
    struct image_stack_table stack_table;
    struct {
        struct image_stack_node nodes[IMAGE_NODES];
        struct image_module modules[IMAGE_MODULES];
        char paths[IMAGE_MODULES][16];
    } stacks;
    struct image_remark remarks[4];
    struct hm_schema_record schema[IMAGE_RECORDS];
};

/* Of units 0 and 1; apart, since the image itself is broken word by word. */
static struct image_note image_notes[IMAGE_TOP][IMAGE_NOTE_COUNT];

#define IMAGE_AT(member) (IMAGE_META + offsetof(struct image, member))

static inline void image_record(struct image *image, const char *structure, const char *field,
                                uint32_t offset, uint32_t size, uint32_t count, uint32_t kind)
{
    struct hm_schema_record *record = &image->schema[image->preamble.schema_record_count++];
    snprintf(record->structure, sizeof record->structure, "%s", structure);
    snprintf(record->field, sizeof record->field, "%s", field);
    record->offset = offset;
    record->size = size;
    record->count = count;
    record->kind = kind;
}

#define IMAGE_STRUCTURE(type)                                                                      \
    image_record(image, #type, "", 0, sizeof(struct image_##type), 0, HM_STRUCTURE)
#define IMAGE_FIELD(type, name, kind)                                                              \
    image_record(image, #type, #name, offsetof(struct image_##type, name),                         \
                 sizeof((struct image_##type *)0)->name, 1, kind)
#define IMAGE_ARRAY(type, name, length, kind)                                                      \
    image_record(image, #type, #name, offsetof(struct image_##type, name),                         \
                 sizeof((struct image_##type *)0)->name / (length), length, kind)
#define IMAGE_NUMBER(type, name) IMAGE_FIELD(type, name, HM_UINT)

static inline void image_schema_records(struct image *image)
{
    IMAGE_STRUCTURE(window);
    IMAGE_NUMBER(window, head);
    IMAGE_NUMBER(window, empty);
    IMAGE_STRUCTURE(bin);
    IMAGE_FIELD(bin, window, HM_RECORD);
    IMAGE_NUMBER(bin, pend);
    IMAGE_STRUCTURE(thread);
    IMAGE_NUMBER(thread, tid);
    IMAGE_NUMBER(thread, arena);
    IMAGE_NUMBER(thread, hand);
    IMAGE_NUMBER(thread, mapping_bytes);
    IMAGE_ARRAY(thread, bins, IMAGE_CLASSES, HM_RECORD);
    IMAGE_STRUCTURE(central);
    IMAGE_NUMBER(central, lock);
    IMAGE_NUMBER(central, stash_count);
    IMAGE_NUMBER(central, stash_capacity);
    IMAGE_NUMBER(central, stash);
    IMAGE_NUMBER(central, slab_count);
    IMAGE_STRUCTURE(arena);
    IMAGE_NUMBER(arena, kind);
    IMAGE_NUMBER(arena, large_units);
    IMAGE_ARRAY(arena, name, 32, HM_TEXT);
    IMAGE_ARRAY(arena, centrals, IMAGE_CLASSES, HM_RECORD);
    IMAGE_STRUCTURE(unit);
    IMAGE_NUMBER(unit, head);
    IMAGE_NUMBER(unit, unit_count);
    IMAGE_NUMBER(unit, arena);
    IMAGE_NUMBER(unit, class_index);
    IMAGE_NUMBER(unit, block_count);
    IMAGE_NUMBER(unit, free_count);
    IMAGE_FIELD(unit, bitmap, HM_ADDRESS);
    IMAGE_NUMBER(unit, requested_bytes);
    IMAGE_NUMBER(unit, usable_bytes);
}

static inline void image_schema_tables(struct image *image)
{
    IMAGE_STRUCTURE(range);
    IMAGE_NUMBER(range, base);
    IMAGE_NUMBER(range, unit_count);
    IMAGE_NUMBER(range, top_index);
    IMAGE_NUMBER(range, codes);
    IMAGE_NUMBER(range, units);
    IMAGE_NUMBER(range, mapping_start);
    IMAGE_NUMBER(range, notes);
    IMAGE_NUMBER(range, note_stride);
    IMAGE_STRUCTURE(big);
    IMAGE_NUMBER(big, address);
    IMAGE_NUMBER(big, mapping_start);
    IMAGE_NUMBER(big, mapping_bytes);
    IMAGE_NUMBER(big, requested_bytes);
    IMAGE_NUMBER(big, usable_bytes);
    IMAGE_NUMBER(big, arena);
    IMAGE_NUMBER(big, stack);
    IMAGE_STRUCTURE(class);
    IMAGE_NUMBER(class, block_bytes);
    IMAGE_NUMBER(class, block_count);
    IMAGE_NUMBER(class, slab_units);
    IMAGE_STRUCTURE(root);
    IMAGE_NUMBER(root, unit_shift);
    IMAGE_NUMBER(root, class_count);
    IMAGE_NUMBER(root, code_free);
    IMAGE_NUMBER(root, code_slab_first);
    IMAGE_NUMBER(root, code_slab_last);
    IMAGE_NUMBER(root, code_named_first);
    IMAGE_NUMBER(root, code_named_last);
    IMAGE_NUMBER(root, code_large_head);
    IMAGE_NUMBER(root, code_large_rest);
    IMAGE_NUMBER(root, code_purging);
    IMAGE_NUMBER(root, range_count);
    IMAGE_NUMBER(root, range_capacity);
    IMAGE_NUMBER(root, arena_count);
    IMAGE_NUMBER(root, arena_capacity);
    IMAGE_NUMBER(root, thread_count);
    IMAGE_NUMBER(root, thread_capacity);
    IMAGE_NUMBER(root, big_count);
    IMAGE_NUMBER(root, big_capacity);
    IMAGE_FIELD(root, ranges, HM_ADDRESS);
    IMAGE_FIELD(root, arenas, HM_ADDRESS);
    IMAGE_FIELD(root, threads, HM_ADDRESS);
    IMAGE_FIELD(root, bigs, HM_ADDRESS);
    IMAGE_FIELD(root, classes, HM_ADDRESS);
    IMAGE_FIELD(root, text_start, HM_ADDRESS);
    IMAGE_FIELD(root, text_end, HM_ADDRESS);
    IMAGE_FIELD(root, stacks, HM_ADDRESS);
    IMAGE_FIELD(root, remarks, HM_ADDRESS);
    IMAGE_NUMBER(root, remark_count);
    IMAGE_NUMBER(root, remark_capacity);
}

static inline void image_schema_stacks(struct image *image)
{
    IMAGE_STRUCTURE(note);
    IMAGE_NUMBER(note, stack);
    IMAGE_NUMBER(note, freed);
    IMAGE_NUMBER(note, requested);
    IMAGE_STRUCTURE(stack_node);
    IMAGE_NUMBER(stack_node, frame);
    IMAGE_NUMBER(stack_node, parent);
    IMAGE_STRUCTURE(module);
    IMAGE_NUMBER(module, start);
    IMAGE_NUMBER(module, end);
    IMAGE_NUMBER(module, bias);
    IMAGE_NUMBER(module, path);
    IMAGE_NUMBER(module, path_bytes);
    IMAGE_NUMBER(module, first_epoch);
    IMAGE_NUMBER(module, last_epoch);
    IMAGE_NUMBER(module, build_id_bytes);
    IMAGE_ARRAY(module, build_id, 20, HM_UINT);
    IMAGE_STRUCTURE(stack_table);
    IMAGE_NUMBER(stack_table, mode);
    IMAGE_NUMBER(stack_table, sample_bytes);
    IMAGE_NUMBER(stack_table, nodes);
    IMAGE_NUMBER(stack_table, node_count);
    IMAGE_NUMBER(stack_table, node_capacity);
    IMAGE_NUMBER(stack_table, modules);
    IMAGE_NUMBER(stack_table, module_count);
    IMAGE_NUMBER(stack_table, module_capacity);
    IMAGE_NUMBER(stack_table, lost);
    IMAGE_NUMBER(stack_table, mapping_start);
    IMAGE_NUMBER(stack_table, mapping_bytes);
    IMAGE_STRUCTURE(remark);
    IMAGE_NUMBER(remark, address);
    IMAGE_NUMBER(remark, bytes);
    IMAGE_NUMBER(remark, kind);
    IMAGE_ARRAY(remark, text, 20, HM_TEXT);
}

static inline uint64_t image_frame(hi_addr address, unsigned flags, uint64_t epoch)
{
    return address | (uint64_t)flags << HM_FRAME_ADDRESS_BITS |
           epoch << (HM_FRAME_ADDRESS_BITS + HM_FRAME_FLAG_BITS);
}

/* Stacks 3 = {30, 20, 10}, 4 = {40 guessed, 20, 10}, 5 = {50 exact, cut}; 20 and 50 lie in a module
 * that was there in epochs 2 to 5, where another one is now. */
static inline void image_stacks_fill(struct image *image)
{
    static const struct image_stack_node nodes[IMAGE_NODES] = {
        [1] = {0, 0x400010}, [2] = {1, 0x500020}, [3] = {2, 0x400030}, [4] = {2, 0x400040},
        [5] = {0, 0x500050}, [6] = {2, 0x400060}, [7] = {1, 0},
    };
    static const unsigned flags[IMAGE_NODES] = {
        [4] = HM_FRAME_GUESSED, [5] = HM_FRAME_EXACT | HM_FRAME_CUT};
    static const unsigned epochs[IMAGE_NODES] = {1, 1, 3, 9, 9, 6, 1, 1};
    for (unsigned i = 0; i < IMAGE_NODES; i++)
        image->stacks.nodes[i] = (struct image_stack_node){
            nodes[i].parent, image_frame(nodes[i].frame, flags[i], epochs[i])};
    image->stacks.modules[0] = (struct image_module){.bias = 0x4ff000,
                                                     .start = 0x500000,
                                                     .end = 0x501000,
                                                     .build_id = {0xab, 0xcd},
                                                     .build_id_bytes = 2,
                                                     .path_bytes = 7,
                                                     .path = IMAGE_AT(stacks.paths[0]),
                                                     .first_epoch = 2,
                                                     .last_epoch = 5};
    image->stacks.modules[1] = image->stacks.modules[0];
    image->stacks.modules[1].path = IMAGE_AT(stacks.paths[1]);
    image->stacks.modules[1].first_epoch = 6;
    image->stacks.modules[1].last_epoch = UINT32_MAX;
    memcpy(image->stacks.paths[0], "gone.so", 7);
    memcpy(image->stacks.paths[1], "here.so", 7);
    image->stack_table = (struct image_stack_table){.mapping_bytes = sizeof image->stacks,
                                                    .mapping_start = IMAGE_AT(stacks),
                                                    .module_count = IMAGE_MODULES,
                                                    .module_capacity = IMAGE_MODULES,
                                                    .node_count = IMAGE_NODES,
                                                    .node_capacity = IMAGE_NODES,
                                                    .modules = IMAGE_AT(stacks.modules),
                                                    .nodes = IMAGE_AT(stacks.nodes),
                                                    .sample_bytes = 4096,
                                                    .mode = HM_STACKS_FULL};
    image->root.stacks = IMAGE_AT(stack_table);
}

/* Blocks 10 to 19 of unit 0: live, of stack 3, with 40 + i bytes; block 20, cached: of 3, freed by
 * 4. The large block of unit 7: of 5; the big one of 4. Block 0 of unit 1 is ignored, all after
 * its middle; the root region lies in no heap. */
static inline void image_notes_fill(struct image *image)
{
    image->ranges[0].notes = IMAGE_NOTES;
    image->ranges[0].note_stride = sizeof image_notes[0];
    memset(image_notes, 0, sizeof image_notes);
    for (unsigned i = 10; i < 20; i++)
        image_notes[0][i] = (struct image_note){(uint16_t)(40 + i), 0, 3};
    image_notes[0][20] = (struct image_note){33, 4, 3};
    image_notes[7][0] = (struct image_note){1, 0, 5};
    image->bigs[1].stack = 4;
    image->remarks[0] =
        (struct image_remark){.kind = HM_REMARK_IGNORE, .address = IMAGE_BASE + IMAGE_UNIT + 700};
    image->remarks[1] =
        (struct image_remark){.kind = HM_REMARK_ROOT, .address = IMAGE_ROOTS + 8, .bytes = 4000};
    image->remarks[2] = (struct image_remark){
        .kind = HM_REMARK_TAG, .address = IMAGE_BASE + 30 * 64, .text = "session table"};
    image->root.remarks = IMAGE_AT(remarks);
    image->root.remark_count = 3;
    image->root.remark_capacity = 4;
}

static inline void image_root_fill(struct image *image)
{
    image->root = (struct image_root){
        .bigs = IMAGE_AT(bigs),
        .text_start = IMAGE_TEXT,
        .text_end = IMAGE_TEXT + 0x10000,
        .ranges = IMAGE_AT(ranges),
        .arenas = IMAGE_AT(arena_table),
        .threads = IMAGE_AT(thread_table),
        .classes = IMAGE_AT(classes),
        .range_count = 1,
        .range_capacity = 1,
        .arena_count = 2,
        .arena_capacity = 2,
        .thread_count = 2,
        .thread_capacity = 2,
        .big_count = 3,
        .big_capacity = 3,
        .class_count = IMAGE_CLASSES,
        .unit_shift = 16,
        .code_free = 9,
        .code_slab_first = 20,
        .code_slab_last = 22,
        .code_named_first = 30,
        .code_named_last = 32,
        .code_large_head = 1,
        .code_large_rest = 2,
        .code_purging = 3,
    };
    image->ranges[0] = (struct image_range){.top_index = IMAGE_TOP,
                                            .unit_count = IMAGE_UNITS,
                                            .units = IMAGE_AT(units),
                                            .codes = IMAGE_AT(codes),
                                            .mapping_start = IMAGE_META,
                                            .base = IMAGE_BASE};
    image->classes[1] = (struct image_class){1, 64, 1024};
    image->classes[2] = (struct image_class){1, 1024, 64};
    image->classes[3] = (struct image_class){4, 16384, 16};
}

static inline void image_slab(struct image *image, unsigned unit, unsigned class_index,
                              unsigned arena)
{
    const struct image_class *class = &image->classes[class_index];
    uint8_t code = (uint8_t)((arena ? 30 : 20) + class_index - 1);
    for (unsigned i = 0; i < class->slab_units; i++) {
        image->codes[unit + i] = code;
        image->units[unit + i].head = (uint16_t)unit;
    }
    image->units[unit].bitmap = IMAGE_AT(bitmaps) + unit * sizeof image->bitmaps[0];
    image->units[unit].block_count = class->block_count;
    image->units[unit].free_count = class->block_count;
    image->units[unit].class_index = (uint8_t)class_index;
    image->units[unit].arena = (uint8_t)arena;
    for (unsigned i = 0; i < class->block_count; i++)
        image->bitmaps[unit][i / 64] |= UINT64_C(1) << i % 64;
    image->arenas[arena].centrals[class_index].slab_count++;
}

static inline hi_addr image_block(const struct image *image, unsigned unit, unsigned index)
{
    return IMAGE_BASE + unit * (uint64_t)IMAGE_UNIT +
           index * (uint64_t)image->classes[image->units[unit].class_index].block_bytes;
}

static inline void image_take(struct image *image, unsigned unit, unsigned index)
{
    image->bitmaps[unit][index / 64] &= ~(UINT64_C(1) << index % 64);
    image->units[unit].free_count--;
}

static inline void image_blocks_fill(struct image *image)
{
    memset(image->codes, 9, sizeof image->codes);
    image_slab(image, 0, 1, 0);
    image_slab(image, 1, 2, 0);
    image_slab(image, 3, 3, 0);
    image_slab(image, 10, 1, 1);
    image->codes[7] = 1;
    image->codes[8] = image->codes[9] = 2;
    image->units[7] = (struct image_unit){
        .usable_bytes = 180000, .requested_bytes = 170000, .head = 7, .unit_count = 3};
    image->codes[11] = 3;
    image->codes[12] = 2; /* a large block being made or cut */
    image->bigs[1] = (struct image_big){.usable_bytes = IMAGE_BIG_BYTES - 4096,
                                        .requested_bytes = IMAGE_BIG_BYTES - 5000,
                                        .mapping_bytes = IMAGE_BIG_BYTES,
                                        .mapping_start = IMAGE_BIG,
                                        .address = IMAGE_BIG + 4096};
    for (unsigned i = 0; i < 100; i++)
        image_take(image, 0, i);
    for (unsigned i = 0; i < 64; i++)
        image_take(image, 1, i);
    image_take(image, 3, 15);
    image_take(image, 10, 1023);
}

/* Cached: blocks 0..9 of unit 0 in caches and stash, block 20 in a hand; 50 is cached and free. */
static inline void image_caches_fill(struct image *image)
{
    unsigned first = offsetof(struct image_thread, arena) + 1;
    first = (first + 7) / 8;
    for (unsigned t = 0; t < 2; t++) {
        image->threads[t].record.mapping_bytes = sizeof image->threads[t];
        image->threads[t].record.tid = IMAGE_TID + t;
        image->thread_table[t] = IMAGE_AT(threads) + t * sizeof image->threads[0];
        uint64_t *slot = (uint64_t *)(void *)&image->threads[t].record + first;
        for (unsigned i = 0; i < 4; i++)
            slot[i] = image_block(image, 0, 4 * t + i);
        struct image_bin *bin = &image->threads[t].record.bins[1];
        bin->window.head = (uint16_t)(first + 2);
        bin->window.empty = first + 4;
        bin->pend = first; /* a fill is under way: all four are free */
    }
    image->threads[1].record.hand = image_block(image, 0, 20);
    image->stash[0] = image_block(image, 0, 8);
    image->stash[1] = image_block(image, 0, 9);
    image->stash[2] = image_block(image, 0, 500);
    image->stash[3] = image_block(image, 0, 33); /* beyond the count: live */
    image->arenas[0].centrals[1].stash = IMAGE_AT(stash);
    image->arenas[0].centrals[1].stash_count = 3;
    image->arenas[0].centrals[1].stash_capacity = 8;
}

static inline void image_make(struct image *image)
{
    memset(image, 0, sizeof *image);
    image->preamble = (struct hm_preamble){.magic = HM_MAGIC,
                                           .byte_order = HM_BYTE_ORDER,
                                           .pointer_bytes = 8,
                                           .major = HM_MAJOR,
                                           .minor = 7,
                                           .self = IMAGE_META,
                                           .root = IMAGE_AT(root),
                                           .schema = IMAGE_AT(schema),
                                           .schema_record_bytes = sizeof(struct hm_schema_record),
                                           .preamble_bytes = sizeof(struct hm_preamble)};
    image->arena_table[0] = IMAGE_AT(arenas);
    image->arena_table[1] = IMAGE_AT(arenas) + sizeof image->arenas[0];
    image->arenas[0].kind = HM_ARENA_AUTOMATIC;
    image->arenas[1].kind = HM_ARENA_NAMED;
    memcpy(image->arenas[1].name, "index", 6);
    image->arenas[0].large_units = 3;
    image_root_fill(image);
    image_blocks_fill(image);
    image_caches_fill(image);
    image_stacks_fill(image);
    image_notes_fill(image);
    image_schema_records(image);
    image_schema_tables(image);
    image_schema_stacks(image);
}

/* Is block number index of the slab at unit live? (image at rest) */
static inline bool image_live(unsigned unit, unsigned index)
{
    switch (unit) {
    case 0:
        return index >= 10 && index < 100 && index != 20;
    case 1:
        return true;
    case 3:
        return index == 15;
    case 10:
        return index == 1023;
    default:
        return false;
    }
}

static inline struct target *image_target(const struct image *image)
{
    struct target_segment segments[] = {
        {IMAGE_META, image, sizeof *image, MAPPING_READ | MAPPING_WRITE, NULL},
        {IMAGE_BASE, NULL, IMAGE_UNITS * (size_t)IMAGE_UNIT, MAPPING_READ | MAPPING_WRITE, NULL},
        {IMAGE_BIG, NULL, IMAGE_BIG_BYTES, MAPPING_READ | MAPPING_WRITE, NULL},
        {IMAGE_TEXT, NULL, 0x10000, MAPPING_READ | MAPPING_EXECUTE, NULL},
        {IMAGE_NOTES, image_notes, sizeof image_notes, MAPPING_READ | MAPPING_WRITE, NULL},
        {IMAGE_ROOTS, NULL, 4096, MAPPING_READ | MAPPING_WRITE, NULL},
    };
    struct target *target = NULL;
    struct hi_err err;
    if (target_open_bytes(&target, segments, 6, &err) != HI_OK) {
        printf("Bail out! %s\n", err.message);
        return NULL;
    }
    return target;
}

#endif
