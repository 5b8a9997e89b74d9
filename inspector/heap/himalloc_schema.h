/* Fields of himalloc's records, found by name in the schema that the target carries. */
#ifndef HEAP_HIMALLOC_SCHEMA_H
#define HEAP_HIMALLOC_SCHEMA_H

#include "target/target.h"

/* Structures: S(constant, name). Fields: F(constant, structure, name, kind, least count); O: may be
 * missing, reads as 0. A structure may be missing when all its fields may. */
#define SCHEMA_STRUCTURES(S)                                                                       \
    S(ROOT, "root")                                                                                \
    S(RANGE, "range")                                                                              \
    S(UNIT, "unit")                                                                                \
    S(CLASS, "class")                                                                              \
    S(ARENA, "arena")                                                                              \
    S(CENTRAL, "central")                                                                          \
    S(THREAD, "thread")                                                                            \
    S(BIN, "bin")                                                                                  \
    S(WINDOW, "window")                                                                            \
    S(BIG, "big")                                                                                  \
    S(NOTE, "note")                                                                                \
    S(STACK_NODE, "stack_node")                                                                    \
    S(MODULE, "module")                                                                            \
    S(STACK_TABLE, "stack_table")                                                                  \
    S(REMARK, "remark")

#define SCHEMA_FIELDS(F, O)                                                                        \
    O(ROOT, version, TEXT)                                                                         \
    F(ROOT, unit_shift, UINT)                                                                      \
    F(ROOT, class_count, UINT)                                                                     \
    F(ROOT, code_free, UINT)                                                                       \
    F(ROOT, code_slab_first, UINT)                                                                 \
    F(ROOT, code_slab_last, UINT)                                                                  \
    F(ROOT, code_named_first, UINT)                                                                \
    F(ROOT, code_named_last, UINT)                                                                 \
    F(ROOT, code_large_head, UINT)                                                                 \
    F(ROOT, code_large_rest, UINT)                                                                 \
    F(ROOT, code_purging, UINT)                                                                    \
    F(ROOT, range_count, UINT)                                                                     \
    F(ROOT, range_capacity, UINT)                                                                  \
    F(ROOT, arena_count, UINT)                                                                     \
    F(ROOT, arena_capacity, UINT)                                                                  \
    F(ROOT, thread_count, UINT)                                                                    \
    F(ROOT, thread_capacity, UINT)                                                                 \
    F(ROOT, big_count, UINT)                                                                       \
    F(ROOT, big_capacity, UINT)                                                                    \
    F(ROOT, ranges, ADDRESS)                                                                       \
    F(ROOT, arenas, ADDRESS)                                                                       \
    F(ROOT, threads, ADDRESS)                                                                      \
    F(ROOT, bigs, ADDRESS)                                                                         \
    F(ROOT, classes, ADDRESS)                                                                      \
    O(ROOT, text_start, ADDRESS)                                                                   \
    O(ROOT, text_end, ADDRESS)                                                                     \
    O(ROOT, hot_start, ADDRESS)                                                                    \
    O(ROOT, hot_end, ADDRESS)                                                                      \
    O(ROOT, registry_lock, UINT)                                                                   \
    O(ROOT, span_lock, UINT)                                                                       \
    O(ROOT, helper_tid, UINT)                                                                      \
    O(ROOT, stacks, ADDRESS)                                                                       \
    O(ROOT, remarks, ADDRESS)                                                                      \
    O(ROOT, remark_count, UINT)                                                                    \
    O(ROOT, remark_capacity, UINT)                                                                 \
    F(RANGE, base, ADDRESS)                                                                        \
    F(RANGE, unit_count, UINT)                                                                     \
    F(RANGE, top_index, UINT)                                                                      \
    F(RANGE, codes, ADDRESS)                                                                       \
    F(RANGE, units, ADDRESS)                                                                       \
    F(RANGE, mapping_start, ADDRESS)                                                               \
    O(RANGE, notes, ADDRESS)                                                                       \
    O(RANGE, note_stride, UINT)                                                                    \
    F(UNIT, head, UINT)                                                                            \
    F(UNIT, unit_count, UINT)                                                                      \
    F(UNIT, arena, UINT)                                                                           \
    F(UNIT, class_index, UINT)                                                                     \
    F(UNIT, block_count, UINT)                                                                     \
    O(UNIT, free_count, UINT)                                                                      \
    F(UNIT, bitmap, ADDRESS)                                                                       \
    O(UNIT, requested_bytes, UINT)                                                                 \
    F(UNIT, usable_bytes, UINT)                                                                    \
    F(CLASS, block_bytes, UINT)                                                                    \
    F(CLASS, block_count, UINT)                                                                    \
    F(CLASS, slab_units, UINT)                                                                     \
    F(ARENA, kind, UINT)                                                                           \
    O(ARENA, large_units, UINT)                                                                    \
    O(ARENA, name, TEXT)                                                                           \
    F(ARENA, centrals, RECORD)                                                                     \
    O(CENTRAL, lock, UINT)                                                                         \
    F(CENTRAL, stash_count, UINT)                                                                  \
    O(CENTRAL, stash_capacity, UINT)                                                               \
    F(CENTRAL, stash, ADDRESS)                                                                     \
    O(CENTRAL, slab_count, UINT)                                                                   \
    F(THREAD, tid, UINT)                                                                           \
    O(THREAD, arena, UINT)                                                                         \
    F(THREAD, hand, ADDRESS)                                                                       \
    O(THREAD, large_units, UINT)                                                                   \
    F(THREAD, mapping_bytes, UINT)                                                                 \
    F(THREAD, bins, RECORD)                                                                        \
    F(BIN, window, RECORD)                                                                         \
    F(BIN, pend, UINT)                                                                             \
    F(WINDOW, head, UINT)                                                                          \
    F(WINDOW, empty, UINT)                                                                         \
    F(BIG, address, ADDRESS)                                                                       \
    F(BIG, mapping_start, ADDRESS)                                                                 \
    F(BIG, mapping_bytes, UINT)                                                                    \
    O(BIG, requested_bytes, UINT)                                                                  \
    F(BIG, usable_bytes, UINT)                                                                     \
    O(BIG, arena, UINT)                                                                            \
    O(BIG, stack, UINT)                                                                            \
    O(NOTE, stack, UINT)                                                                           \
    O(NOTE, freed, UINT)                                                                           \
    O(NOTE, requested, UINT)                                                                       \
    O(STACK_NODE, frame, UINT)                                                                     \
    O(STACK_NODE, parent, UINT)                                                                    \
    O(MODULE, start, ADDRESS)                                                                      \
    O(MODULE, end, ADDRESS)                                                                        \
    O(MODULE, bias, ADDRESS)                                                                       \
    O(MODULE, path, ADDRESS)                                                                       \
    O(MODULE, path_bytes, UINT)                                                                    \
    O(MODULE, first_epoch, UINT)                                                                   \
    O(MODULE, last_epoch, UINT)                                                                    \
    O(MODULE, build_id_bytes, UINT)                                                                \
    O(MODULE, build_id, UINT)                                                                      \
    O(STACK_TABLE, mode, UINT)                                                                     \
    O(STACK_TABLE, sample_bytes, UINT)                                                             \
    O(STACK_TABLE, nodes, ADDRESS)                                                                 \
    O(STACK_TABLE, node_count, UINT)                                                               \
    O(STACK_TABLE, node_capacity, UINT)                                                            \
    O(STACK_TABLE, modules, ADDRESS)                                                               \
    O(STACK_TABLE, module_count, UINT)                                                             \
    O(STACK_TABLE, module_capacity, UINT)                                                          \
    O(STACK_TABLE, lost, UINT)                                                                     \
    O(STACK_TABLE, mapping_start, ADDRESS)                                                         \
    O(STACK_TABLE, mapping_bytes, UINT)                                                            \
    O(REMARK, address, ADDRESS)                                                                    \
    O(REMARK, bytes, UINT)                                                                         \
    O(REMARK, kind, UINT)                                                                          \
    O(REMARK, text, TEXT)

#define SCHEMA_STRUCTURE_CONSTANT(constant, name) S_##constant,
enum schema_structure { SCHEMA_STRUCTURES(SCHEMA_STRUCTURE_CONSTANT) S_COUNT };
#define SCHEMA_FIELD_CONSTANT(structure, name, kind) F_##structure##_##name,
enum schema_field { SCHEMA_FIELDS(SCHEMA_FIELD_CONSTANT, SCHEMA_FIELD_CONSTANT) F_COUNT };

struct schema_place {
    uint32_t offset, size, count; /* count 0: the target does not have it */
};

struct schema {
    uint32_t stride[S_COUNT]; /* bytes of a record */
    struct schema_place places[F_COUNT];
};

enum { SCHEMA_MAX_STRIDE = 1 << 20 };

/* Resolve every wanted field. HI_UNSUPPORTED: one is missing or of another kind; err says which.
 * HI_FAULT: the schema could not be read. */
HI_MUST_USE enum hi_code schema_read(struct schema *schema, struct target *target, hi_addr address,
                                     uint32_t record_bytes, uint32_t record_count,
                                     struct hi_err *err);
/* A number of a record of at least the structure's stride. 0 when the target does not have it. */
static inline uint64_t schema_number(const struct schema *schema, enum schema_field field,
                                     const void *record)
{
    const struct schema_place *place = &schema->places[field];
    const char *at = (const char *)record + place->offset;
    uint64_t number = 0; /* little endian: the low bytes come first */
    if (place->count == 0)
        return 0;
    if (place->size == sizeof(uint32_t)) /* as most are, of hundreds of thousands of records */
        memcpy(&number, at, sizeof(uint32_t));
    else
        memcpy(&number, at, place->size);
    return number;
}
bool schema_has(const struct schema *schema, enum schema_field field);
/* The embedded record number index, or NULL beyond the count. */
const void *schema_record(const struct schema *schema, enum schema_field field, const void *record,
                          uint32_t index);
/* Single bytes, count of them at most size: how many there are. */
size_t schema_bytes(const struct schema *schema, enum schema_field field, const void *record,
                    unsigned char *bytes, size_t size);
/* Text, cut to size - 1 bytes and to what can be printed. */
void schema_text(const struct schema *schema, enum schema_field field, const void *record,
                 char *buffer, size_t size);

#endif
