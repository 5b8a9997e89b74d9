/*
 * The root of a himalloc heap: constants and tables, decoded once, checked once.
 *
 * Everything that later loops and shifts rely on is made sound here: the unit shift, the codes of
 * the class map, the classes (a slab's blocks fit its units), the counts of the tables (at most
 * their capacities, and at most what this reader is willing to look at). A root that fails is not
 * understood as a whole, since without it nothing else has a meaning. Damage below it is local, and
 * becomes findings while walking.
 */
#include "heap/himalloc_heap.h"

#include <inttypes.h>

static uint64_t root_number(const struct himalloc *heap, enum schema_field field, const void *root)
{
    return schema_number(&heap->schema, field, root);
}

static enum hi_code root_codes(struct himalloc *heap, const void *root, struct hi_err *err)
{
    struct himalloc_codes *codes = &heap->codes;
    codes->free = (uint32_t)root_number(heap, F_ROOT_code_free, root);
    codes->purging = (uint32_t)root_number(heap, F_ROOT_code_purging, root);
    codes->large_head = (uint32_t)root_number(heap, F_ROOT_code_large_head, root);
    codes->large_rest = (uint32_t)root_number(heap, F_ROOT_code_large_rest, root);
    codes->slab_first = (uint32_t)root_number(heap, F_ROOT_code_slab_first, root);
    codes->slab_last = (uint32_t)root_number(heap, F_ROOT_code_slab_last, root);
    codes->named_first = (uint32_t)root_number(heap, F_ROOT_code_named_first, root);
    codes->named_last = (uint32_t)root_number(heap, F_ROOT_code_named_last, root);
    uint64_t shift = root_number(heap, F_ROOT_unit_shift, root);
    if (shift < 12 || shift > 30)
        return hi_fail(err, HI_UNSUPPORTED, "its root says units of 2^%" PRIu64 " bytes", shift);
    heap->unit_shift = (unsigned)shift;
    if (codes->slab_first > codes->slab_last || codes->slab_last > UINT8_MAX ||
        codes->named_first > codes->named_last || codes->named_last > UINT8_MAX ||
        codes->free > UINT8_MAX || codes->large_head > UINT8_MAX || codes->large_rest > UINT8_MAX ||
        codes->free == codes->large_head || codes->large_head == codes->large_rest)
        return hi_fail(err, HI_UNSUPPORTED, "its root's class map codes contradict each other");
    return HI_OK;
}

/* One class; false: it can't be (then slabs with its code are findings). */
static bool class_take(struct himalloc *heap, struct himalloc_class *class, const void *record)
{
    uint64_t bytes = schema_number(&heap->schema, F_CLASS_block_bytes, record);
    uint64_t count = schema_number(&heap->schema, F_CLASS_block_count, record);
    uint64_t units = schema_number(&heap->schema, F_CLASS_slab_units, record);
    if (bytes < 8 || bytes > UINT32_MAX || count == 0 || count > WINDOW_BYTES * 8 || units == 0 ||
        units > 4096 || bytes * count > units << heap->unit_shift)
        return false;
    *class = (struct himalloc_class){(uint32_t)bytes, (uint32_t)count, (uint32_t)units, 0};
    return true;
}

static enum hi_code root_classes(struct himalloc *heap, struct target *target, const void *root,
                                 struct hi_err *err)
{
    uint64_t count = root_number(heap, F_ROOT_class_count, root);
    hi_addr address = root_number(heap, F_ROOT_classes, root);
    size_t stride = heap->schema.stride[S_CLASS];
    if (count < 2 || count > HIMALLOC_MAX_CLASSES)
        return hi_fail(err, HI_UNSUPPORTED, "its root counts %" PRIu64 " size classes", count);
    unsigned char *table = malloc(stride * count);
    if (!table)
        return hi_no_memory(err);
    enum hi_code code = target_read(target, address, table, stride * count, err);
    uint32_t before = 0, sound = 0;
    heap->class_count = (uint32_t)count;
    for (uint32_t i = 1; code == HI_OK && i < count; i++) {
        struct himalloc_class *class = &heap->classes[i];
        if (!class_take(heap, class, table + i * stride))
            continue;
        class->slack = class->block_bytes > before ? class->block_bytes - before : 0;
        before = class->block_bytes;
        sound++;
    }
    free(table);
    if (code == HI_OK && sound == 0)
        return hi_fail(err, HI_UNSUPPORTED, "none of its %" PRIu64 " size classes makes sense",
                       count);
    return code;
}

/* The count of a table: at most its capacity and at most ours. */
static enum hi_code root_count(const struct himalloc *heap, const void *root,
                               enum schema_field count_field, enum schema_field capacity_field,
                               uint64_t most, uint64_t *count, struct hi_err *err)
{
    *count = root_number(heap, count_field, root);
    uint64_t capacity = root_number(heap, capacity_field, root);
    if (*count > capacity || *count > most)
        return hi_fail(err, HI_UNSUPPORTED,
                       "its root counts %" PRIu64 " entries in a table of %" PRIu64, *count,
                       capacity);
    return HI_OK;
}

static enum hi_code root_tables(struct himalloc *heap, const void *root, struct hi_err *err)
{
    heap->ranges = root_number(heap, F_ROOT_ranges, root);
    heap->arenas = root_number(heap, F_ROOT_arenas, root);
    heap->threads = root_number(heap, F_ROOT_threads, root);
    heap->bigs = root_number(heap, F_ROOT_bigs, root);
    heap->text.start = root_number(heap, F_ROOT_text_start, root);
    heap->text.end = root_number(heap, F_ROOT_text_end, root);
    heap->hot.start = root_number(heap, F_ROOT_hot_start, root);
    heap->hot.end = root_number(heap, F_ROOT_hot_end, root);
    heap->stack_table = root_number(heap, F_ROOT_stacks, root);
    heap->remarks = root_number(heap, F_ROOT_remarks, root);
    heap->remark_count = root_number(heap, F_ROOT_remark_count, root);
    uint64_t remark_most = root_number(heap, F_ROOT_remark_capacity, root);
    if (heap->remark_count > remark_most)
        heap->remark_count = remark_most;
    if (heap->remark_count > HIMALLOC_MAX_REMARKS)
        heap->remark_count = HIMALLOC_MAX_REMARKS;
    heap->helper = (pid_t)root_number(heap, F_ROOT_helper_tid, root);
    heap->busy =
        root_number(heap, F_ROOT_registry_lock, root) || root_number(heap, F_ROOT_span_lock, root);
    enum hi_code code = root_count(heap, root, F_ROOT_range_count, F_ROOT_range_capacity,
                                   HIMALLOC_MAX_RANGES, &heap->range_count, err);
    if (code == HI_OK)
        code = root_count(heap, root, F_ROOT_arena_count, F_ROOT_arena_capacity,
                          HIMALLOC_MAX_ARENAS, &heap->arena_count, err);
    if (code == HI_OK)
        code = root_count(heap, root, F_ROOT_thread_count, F_ROOT_thread_capacity,
                          HIMALLOC_MAX_THREADS, &heap->thread_count, err);
    if (code == HI_OK)
        code = root_count(heap, root, F_ROOT_big_count, F_ROOT_big_capacity, HIMALLOC_MAX_BIGS,
                          &heap->big_count, err);
    return code;
}

enum hi_code himalloc_decode(struct himalloc *heap, struct target *target, char *version,
                             size_t version_size, struct hi_err *err)
{
    void *root = malloc(heap->schema.stride[S_ROOT]);
    if (!root)
        return hi_no_memory(err);
    enum hi_code code = target_read(target, heap->root, root, heap->schema.stride[S_ROOT], err);
    if (code == HI_OK)
        code = root_codes(heap, root, err);
    if (code == HI_OK)
        code = root_classes(heap, target, root, err);
    if (code == HI_OK)
        code = root_tables(heap, root, err);
    if (code == HI_OK && schema_has(&heap->schema, F_ROOT_version)) {
        char text[32];
        schema_text(&heap->schema, F_ROOT_version, root, text, sizeof text);
        if (text[0])
            snprintf(version, version_size, "%s", text);
    }
    free(root);
    return code;
}
