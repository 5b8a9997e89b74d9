/*
 * jemalloc's page tree: recognising it, and collecting the extent records that it names.
 *
 * A tree (page_tree.h) is jemalloc's when the records that its leaves name say that they hold the
 * pages under which they are filed. The layout class of the records is chosen by vote: the row
 * under which most of them agree with themselves (slabs: free count = set bits, whole number of
 * regions). Large blocks agree under several rows, so the vote goes on until slabs have had a say;
 * and each extent is asked once, since a large one is filed under as many pages as it has.
 */
#include "heap/evidence.h"
#include "heap/jemalloc.h"

enum {
    SAMPLES_WANTED = 256,
    SAMPLES_MOST = 16384, /* of a heap with hardly any slab */
    SLABS_WANTED = 16,    /* of which so many must be slabs, if there are so many */
    SAMPLES_WRONG = 8,    /* this many and none right: something else */
    RIGHT_LEAST = 3       /* pages */
};

static uint64_t low_bits(uint64_t value, unsigned shift, unsigned bits)
{
    return (value >> shift) & ((UINT64_C(1) << bits) - 1);
}

static bool bitmap_agrees(const struct jemalloc_extent *extent, unsigned regions)
{
    unsigned set = 0;
    for (unsigned i = 0; i < JEMALLOC_BITMAP_WORDS; i++) {
        uint64_t word = extent->bitmap[i];
        if (regions < (i + 1) * 64)
            word &= regions > i * 64 ? (UINT64_C(1) << (regions - i * 64)) - 1 : 0;
        set += (unsigned)__builtin_popcountll(word);
    }
    return set == extent->free_count;
}

bool jemalloc_extent_decode(const struct jemalloc *heap, const unsigned char *record,
                            struct jemalloc_extent *extent)
{
    const struct jemalloc_extent_layout *row = heap->extent;
    uint64_t bits = evidence_u64_at(record, 0);
    extent->address = evidence_u64_at(record, JEMALLOC_EXTENT_ADDRESS);
    extent->bytes = evidence_u64_at(record, JEMALLOC_EXTENT_SIZE) & ~UINT64_C(0xfff);
    extent->arena = (unsigned)(bits & 0xfff);
    extent->slab = bits >> JEMALLOC_SLAB_SHIFT & 1;
    extent->state = (unsigned)low_bits(bits, row->state_shift, row->state_bits);
    extent->size_class = (unsigned)low_bits(bits, row->size_class_shift, 8);
    extent->free_count = (unsigned)low_bits(bits, row->free_count_shift, 10);
    for (unsigned i = 0; i < JEMALLOC_BITMAP_WORDS; i++)
        extent->bitmap[i] = evidence_u64_at(record, JEMALLOC_EXTENT_BITMAP + i * 8);
    if (!extent->address || !extent->bytes ||
        extent->bytes > UINT64_C(1) << JEMALLOC_EXTENT_BITS_MAX ||
        extent->address + extent->bytes < extent->address)
        return false;
    extent->in_transit = extent->state == 0 && extent->size_class >= JEMALLOC_SIZE_CLASSES;
    if (extent->state != 0 || extent->in_transit)
        return extent->state <= JEMALLOC_STATE_MAX;
    uint64_t class_bytes = jemalloc_class_bytes(extent->size_class);
    if (!class_bytes)
        return false;
    if (!extent->slab) /* from 5.3.1 on large blocks need not fill their class */
        return extent->size_class == 0 ||
               jemalloc_class_bytes(extent->size_class - 1) < extent->bytes;
    return extent->size_class < JEMALLOC_BIN_COUNT && (extent->address & 0xfff) == 0 &&
           extent->bytes / class_bytes <= 64 * JEMALLOC_BITMAP_WORDS;
}

/* Does the record agree with itself under the row chosen? Stricter than decode: for the vote. */
static bool record_agrees(const struct jemalloc *heap, const unsigned char *record, bool *is_slab)
{
    struct jemalloc_extent extent;
    if (!jemalloc_extent_decode(heap, record, &extent) || extent.state >= 4)
        return false;
    if (extent.state != 0 || extent.in_transit || !extent.slab)
        return true;
    uint64_t class_bytes = jemalloc_class_bytes(extent.size_class);
    *is_slab = true;
    return extent.bytes % class_bytes == 0 &&
           bitmap_agrees(&extent, (unsigned)(extent.bytes / class_bytes));
}

static hi_addr leaf_pointer(const struct page_tree_shape *shape, uint64_t entry, uint64_t mask)
{
    if (shape->leaf_entry_bytes != 8)
        return entry;
    return (hi_addr)((int64_t)(entry << 16) >> 16) & ~mask;
}

hi_addr jemalloc_leaf_record(const struct jemalloc *heap, uint64_t entry)
{
    return leaf_pointer(heap->tree.shape, entry, heap->extent->pointer_mask);
}

/* -- recognising ---------------------------------------------------------------------------------
 */

struct sample {
    const struct heap_context *context;
    struct jemalloc *heap;
    const struct page_tree_shape *shape;
    unsigned asked, best;
    uint64_t last; /* entry that was asked about */
    bool last_right;
    unsigned pages_right; /* more pages of extents that were right */
    unsigned
        right[JEMALLOC_EXTENT_ROWS]; /* by row: filed under their page, and agree with themselves */
    unsigned slabs[JEMALLOC_EXTENT_ROWS]; /* of those: counts that agree with a bitmap */
};

/* Under this row: is the record behind a leaf entry one whose extent holds the page? */
static bool row_explains(const struct sample *sample, const struct jemalloc_extent_layout *row,
                         uint64_t entry, hi_addr page, bool *is_slab)
{
    unsigned char record[JEMALLOC_EXTENT_BYTES];
    struct target *target = sample->context->target;
    hi_addr place = leaf_pointer(sample->shape, entry, row->pointer_mask);
    if (!evidence_is_heap_address(target, place) ||
        target_read(target, place, record, sizeof record, NULL) != HI_OK)
        return false;
    hi_addr start = evidence_u64_at(record, JEMALLOC_EXTENT_ADDRESS) & ~UINT64_C(0xfff);
    uint64_t bytes = evidence_u64_at(record, JEMALLOC_EXTENT_SIZE) & ~UINT64_C(0xfff);
    sample->heap->extent = row;
    return start <= page && page - start < bytes && evidence_is_heap_address(target, start) &&
           evidence_is_heap_address(target, start + bytes - 1) &&
           record_agrees(sample->heap, record, is_slab);
}

/* What is not a slab agrees under most rows. */
static bool row_is_better(const struct sample *sample, unsigned row, unsigned than)
{
    return sample->slabs[row] != sample->slabs[than] ? sample->slabs[row] > sample->slabs[than]
                                                     : sample->right[row] > sample->right[than];
}

static bool sample_entry(void *context, uint64_t entry, hi_addr page)
{
    struct sample *sample = context;
    if (leaf_pointer(sample->shape, entry, JEMALLOC_WIDEST_POINTER_MASK) == 0)
        return true; /* no extent, only the size class that says so */
    if (entry == sample->last) {
        sample->pages_right += sample->last_right;
        return true;
    }
    sample->last = entry;
    sample->last_right = false;
    sample->asked++;
    for (unsigned row = 0; row < jemalloc_extent_count; row++) {
        bool is_slab = false;
        bool right = row_explains(sample, &jemalloc_extents[row], entry, page, &is_slab);
        sample->right[row] += right;
        sample->last_right |= right;
        sample->slabs[row] += right && is_slab;
        if (row_is_better(sample, row, sample->best))
            sample->best = row;
    }
    if (sample->right[sample->best] == 0)
        return sample->asked < SAMPLES_WRONG;
    return sample->asked <
           (sample->slabs[sample->best] < SLABS_WANTED ? SAMPLES_MOST : SAMPLES_WANTED);
}

/* jemalloc clears what it no longer files: nearly all must be right, and not by chance. */
static bool tree_judge(void *context, const struct page_tree_shape *shape, uint64_t key,
                       hi_addr table)
{
    struct sample sample = *(struct sample *)context;
    sample.shape = shape;
    page_tree_sample(sample.context, shape, key, table, sample_entry, &sample);
    sample.heap->extent = &jemalloc_extents[sample.best];
    return sample.right[sample.best] > 0 &&
           sample.right[sample.best] + sample.pages_right >= RIGHT_LEAST &&
           sample.right[sample.best] * 10 >= sample.asked * 9;
}

/* What hangs off one slot of the root may be large blocks only: all of the tree has a vote. */
static enum hi_code layout_choose(struct jemalloc *heap, const struct heap_context *context,
                                  struct hi_err *err)
{
    struct sample sample = {.context = context, .heap = heap, .shape = heap->tree.shape};
    enum hi_code code = page_tree_walk(&heap->tree, context, NULL, sample_entry, &sample, err);
    if (sample.right[sample.best])
        heap->extent = &jemalloc_extents[sample.best];
    return code == HI_NO_MEMORY ? code : HI_OK; /* what is wrong with the tree, walk() will tell */
}

enum hi_code jemalloc_tree_find(struct jemalloc *heap, const struct heap_context *context,
                                struct hi_err *err)
{
    struct sample sample = {.context = context, .heap = heap};
    enum hi_code code = page_tree_find(&heap->tree, context, jemalloc_trees, jemalloc_tree_count,
                                       tree_judge, &sample, err);
    if (code == HI_OK)
        code = layout_choose(heap, context, err);
    return code;
}

/* -- collecting ----------------------------------------------------------------------------------
 */

struct collection {
    struct jemalloc *heap;
    bool out_of_memory;
};

static bool record_collect(void *context, uint64_t entry, hi_addr page)
{
    struct collection *collection = context;
    struct jemalloc *heap = collection->heap;
    hi_addr record = jemalloc_leaf_record(heap, entry);
    (void)page;
    if (record == 0)
        return true;
    if (heap->records.count && heap->records.items[heap->records.count - 1] == record)
        return true;
    hi_addr *item = VECTOR_PUSH(&heap->records);
    if (item)
        *item = record;
    collection->out_of_memory = !item;
    return item != NULL;
}

static void records_sort(struct jemalloc *heap)
{
    if (heap->records.count < 2)
        return;
    qsort(heap->records.items, heap->records.count, sizeof *heap->records.items,
          evidence_by_address);
    size_t kept = 1;
    for (size_t i = 1; i < heap->records.count; i++) {
        if (heap->records.items[i] != heap->records.items[kept - 1])
            heap->records.items[kept++] = heap->records.items[i];
    }
    heap->records.count = kept;
}

enum hi_code jemalloc_tree_walk(struct jemalloc *heap, const struct heap_context *context,
                                struct hi_err *err)
{
    struct collection collection = {.heap = heap};
    enum hi_code code =
        page_tree_walk(&heap->tree, context, &heap->tables, record_collect, &collection, err);
    records_sort(heap);
    return collection.out_of_memory ? hi_no_memory(err) : code;
}
