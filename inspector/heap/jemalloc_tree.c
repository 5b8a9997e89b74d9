/*
 * jemalloc's page tree: finding it without symbols, and walking it.
 *
 * The root is an array of pointers in the allocator's .bss (arena_emap_global.rtree in 5.3,
 * extents_rtree before), indexed by the top bits of an address. So: take a word W at place P of
 * some module's writable data that points to anonymous memory, and an address region k of the
 * size of one root slot (1 GiB in the two-level tree) in which there is anonymous memory. If W is
 * slot k of a root, the root is at P - 8k, and must lie in the same data segment as a whole. Few
 * pairs pass that. Then the table behind W is asked: do the records that it names describe the
 * pages under which they are filed? One wrong pair in a thousand would have to pass several such
 * questions by chance.
 *
 * The layout class of the records is chosen by vote: the row under which most records agree with
 * themselves (slabs: free count = set bits, whole number of regions).
 *
 * Bounds: tables are read only where they have content, root slots are bounded by the layout, and
 * records by what the tables hold. A lie costs a finding, not the walk.
 */
#include "heap/jemalloc.h"

enum {
    SAMPLES_WANTED = 64,
    KEYS_MAX = 4096,
    READ_BYTES = 256 * 1024,
};

static bool anonymous_writable(struct target *target, hi_addr address)
{
    const struct mapping *mapping = target_mapping_at(target, address);
    return mapping && !mapping->path && (mapping->protection & MAPPING_WRITE);
}

static uint64_t low_bits(uint64_t value, unsigned shift, unsigned bits)
{
    return (value >> shift) & ((UINT64_C(1) << bits) - 1);
}

static uint64_t word_at(const unsigned char *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
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
    uint64_t bits = word_at(record);
    extent->address = word_at(record + JEMALLOC_EXTENT_ADDRESS);
    extent->bytes = word_at(record + JEMALLOC_EXTENT_SIZE) & ~UINT64_C(0xfff);
    extent->arena = (unsigned)(bits & 0xfff);
    extent->slab = bits >> JEMALLOC_SLAB_SHIFT & 1;
    extent->state = (unsigned)low_bits(bits, row->state_shift, row->state_bits);
    extent->size_class = (unsigned)low_bits(bits, row->size_class_shift, 8);
    extent->free_count = (unsigned)low_bits(bits, row->free_count_shift, 10);
    for (unsigned i = 0; i < JEMALLOC_BITMAP_WORDS; i++)
        extent->bitmap[i] = word_at(record + JEMALLOC_EXTENT_BITMAP + i * 8);
    if (!extent->address || !extent->bytes || extent->bytes > UINT64_C(1) << 47 ||
        extent->address + extent->bytes < extent->address)
        return false;
    if (extent->state != 0)
        return extent->state <= 4;
    uint64_t class_bytes = jemalloc_class_bytes(extent->size_class);
    if (!class_bytes)
        return false;
    if (!extent->slab)
        return class_bytes <= extent->bytes;
    return extent->size_class < JEMALLOC_BIN_COUNT && (extent->address & 0xfff) == 0 &&
           extent->bytes / class_bytes <= 64 * JEMALLOC_BITMAP_WORDS;
}

/* Does the record agree with itself under the row chosen? Stricter than decode: for the vote. */
static bool record_agrees(const struct jemalloc *heap, const unsigned char *record)
{
    struct jemalloc_extent extent;
    if (!jemalloc_extent_decode(heap, record, &extent) || extent.state == 4)
        return false;
    if (extent.state != 0 || !extent.slab)
        return true;
    uint64_t class_bytes = jemalloc_class_bytes(extent.size_class);
    return extent.bytes % class_bytes == 0 &&
           bitmap_agrees(&extent, (unsigned)(extent.bytes / class_bytes));
}

static hi_addr leaf_pointer(const struct jemalloc_tree_layout *tree, uint64_t entry, uint64_t mask)
{
    if (tree->leaf_entry_bytes != 8)
        return entry;
    return (hi_addr)((int64_t)(entry << 16) >> 16) & ~mask;
}

static unsigned level_shift(const struct jemalloc_tree_layout *tree, unsigned level)
{
    unsigned shift = tree->address_bits;
    for (unsigned i = 0; i <= level; i++)
        shift -= tree->bits[i];
    return shift;
}

/* -- voting --------------------------------------------------------------------------------------
 */

struct sample {
    struct target *target;
    struct jemalloc *heap;
    unsigned asked, filed_right;
    unsigned agreed[8]; /* a row of jemalloc_extents */
};

/* Is the record behind a leaf entry one whose extent holds the page that the entry stands for? */
static void sample_entry(struct sample *sample, uint64_t entry, hi_addr page)
{
    unsigned char record[JEMALLOC_EXTENT_BYTES];
    uint64_t mask = sample->heap->tree->leaf_entry_bytes == 8 ? 0x7f : 0;
    hi_addr place = leaf_pointer(sample->heap->tree, entry, mask);
    sample->asked++;
    if (target_read(sample->target, place, record, sizeof record, NULL) != HI_OK)
        return;
    hi_addr start = word_at(record + JEMALLOC_EXTENT_ADDRESS) & ~UINT64_C(0xfff);
    uint64_t bytes = word_at(record + JEMALLOC_EXTENT_SIZE) & ~UINT64_C(0xfff);
    if (start > page || page - start >= bytes)
        return;
    sample->filed_right++;
    const struct jemalloc_extent_layout *chosen = sample->heap->extent;
    for (size_t row = 0; row < jemalloc_extent_count; row++) {
        sample->heap->extent = &jemalloc_extents[row];
        sample->agreed[row] += record_agrees(sample->heap, record);
    }
    sample->heap->extent = chosen;
}

static void sample_leaf(struct sample *sample, hi_addr leaf, hi_addr covers)
{
    const struct jemalloc_tree_layout *tree = sample->heap->tree;
    unsigned entry_bytes = tree->leaf_entry_bytes;
    hi_addr end = leaf + ((uint64_t)entry_bytes << tree->bits[tree->levels - 1]);
    struct hi_range range;
    unsigned char page[4096];
    for (hi_addr at = leaf; sample->asked < SAMPLES_WANTED && at < end &&
                            target_next_content(sample->target, at, end, &range);) {
        at = range.start;
        hi_addr stop = range.end - at > sizeof page ? at + sizeof page : range.end;
        size_t bytes = target_read_some(sample->target, at, page, (size_t)(stop - at));
        for (size_t i = 0; i + entry_bytes <= bytes && sample->asked < SAMPLES_WANTED;
             i += entry_bytes) {
            if (word_at(page + i))
                sample_entry(sample, word_at(page + i),
                             covers + (((at - leaf + i) / entry_bytes) << JEMALLOC_PAGE_SHIFT));
        }
        at = stop;
    }
}

/* The table in root slot `key` is table: follow it to a leaf and ask. */
static void sample_slot(struct sample *sample, uint64_t key, hi_addr table)
{
    const struct jemalloc_tree_layout *tree = sample->heap->tree;
    hi_addr covers = key << level_shift(tree, 0);
    if (tree->levels == 2) {
        sample_leaf(sample, table, covers);
        return;
    }
    unsigned slots = 1u << tree->bits[1];
    for (unsigned slot = 0; slot < slots && sample->asked < SAMPLES_WANTED; slot += 512) {
        uint64_t words[512];
        if (target_read(sample->target, table + slot * 8, words, sizeof words, NULL) != HI_OK)
            return;
        for (unsigned i = 0; i < 512 && sample->asked < SAMPLES_WANTED; i++) {
            if (words[i] && anonymous_writable(sample->target, words[i]))
                sample_leaf(sample, words[i],
                            covers + ((uint64_t)(slot + i) << level_shift(tree, 1)));
        }
    }
}

static bool slot_convinces(struct jemalloc *heap, struct target *target, uint64_t key,
                           hi_addr table)
{
    struct sample sample = {.target = target, .heap = heap};
    heap->extent = &jemalloc_extents[0];
    sample_slot(&sample, key, table);
    if (sample.filed_right == 0 || sample.filed_right * 2 < sample.asked)
        return false;
    size_t best = 0;
    for (size_t row = 1; row < jemalloc_extent_count; row++) {
        if (sample.agreed[row] > sample.agreed[best])
            best = row;
    }
    heap->extent = &jemalloc_extents[best];
    return sample.agreed[best] * 2 > sample.filed_right;
}

/* -- finding -------------------------------------------------------------------------------------
 */

/* The root slots under which anonymous memory would be filed. */
static size_t keys_collect(struct target *target, unsigned shift, uint64_t *keys)
{
    size_t count = 0;
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        if (mapping->path || !(mapping->protection & MAPPING_WRITE))
            continue;
        for (uint64_t key = mapping->start >> shift; key <= (mapping->end - 1) >> shift; key++) {
            if (count && keys[count - 1] >= key)
                continue;
            if (count == KEYS_MAX)
                return count;
            keys[count++] = key;
        }
    }
    return count;
}

struct search {
    struct target *target;
    struct jemalloc *heap;
    struct hi_range segment;
    uint64_t keys[KEYS_MAX];
    size_t key_count;
};

static bool word_is_slot(struct search *search, hi_addr place, uint64_t word)
{
    uint64_t root_bytes = UINT64_C(8) << search->heap->tree->bits[0];
    for (size_t i = 0; i < search->key_count; i++) {
        uint64_t back = 8 * search->keys[i];
        if (back > place - search->segment.start || place - back + root_bytes > search->segment.end)
            continue;
        if (slot_convinces(search->heap, search->target, search->keys[i], word)) {
            search->heap->root = place - back;
            return true;
        }
    }
    return false;
}

static bool segment_search(struct search *search)
{
    unsigned char *buffer = malloc(READ_BYTES);
    struct hi_range range;
    bool found = false;
    for (hi_addr at = search->segment.start;
         buffer && !found &&
         target_next_content(search->target, at, search->segment.end, &range);) {
        at = range.start;
        size_t wanted = range.end - at > READ_BYTES ? READ_BYTES : (size_t)(range.end - at);
        size_t bytes = target_read_some(search->target, at, buffer, wanted);
        for (size_t i = 0; i + 8 <= bytes && !found; i += 8) {
            uint64_t word = word_at(buffer + i);
            if (word >= 4096 && (word & 7) == 0 && anonymous_writable(search->target, word))
                found = word_is_slot(search, at + i, word);
        }
        at += wanted;
    }
    free(buffer);
    return found;
}

/* From the module's segment on to the end of the anonymous memory behind it (.bss). */
static bool module_search(struct search *search, const struct heap_context *context, size_t module)
{
    for (size_t i = 0; i < symbols_segment_count(context->symbols, module); i++) {
        struct module_segment segment = symbols_segment(context->symbols, module, i);
        if (!(segment.protection & MAPPING_WRITE))
            continue;
        search->segment = segment.memory;
        for (size_t tree = 0; tree < jemalloc_tree_count; tree++) {
            search->heap->tree = &jemalloc_trees[tree];
            if (segment.memory.end - segment.memory.start < UINT64_C(8)
                                                                << search->heap->tree->bits[0])
                continue;
            search->key_count =
                keys_collect(context->target, level_shift(search->heap->tree, 0), search->keys);
            if (segment_search(search))
                return true;
        }
    }
    return false;
}

enum hi_code jemalloc_tree_find(struct jemalloc *heap, size_t *module,
                                const struct heap_context *context, struct hi_err *err)
{
    struct search *search = calloc(1, sizeof *search);
    if (!search)
        return hi_no_memory(err);
    search->target = context->target;
    search->heap = heap;
    size_t count = symbols_module_count(context->symbols);
    bool found = false;
    while (*module < count && !(found = module_search(search, context, *module)))
        ++*module;
    free(search);
    if (found)
        heap->module = *module;
    return found ? HI_OK : HI_NOT_FOUND;
}

/* -- walking -------------------------------------------------------------------------------------
 */

static bool record_push(struct jemalloc *heap, hi_addr record)
{
    if (heap->records.count && heap->records.items[heap->records.count - 1] == record)
        return true;
    hi_addr *item = VECTOR_PUSH(&heap->records);
    if (item)
        *item = record;
    return item != NULL;
}

static bool table_push(struct jemalloc *heap, hi_addr table)
{
    hi_addr *item = VECTOR_PUSH(&heap->tables);
    if (item)
        *item = table;
    return item != NULL;
}

/* Every non-zero entry of a table of `bytes`, in content only; visit returns false to stop. */
static bool table_visit(struct target *target, hi_addr table, uint64_t bytes, unsigned entry_bytes,
                        unsigned char *buffer, bool (*visit)(void *context, uint64_t entry),
                        void *context)
{
    struct hi_range range;
    for (hi_addr at = table; target_next_content(target, at, table + bytes, &range);) {
        at = range.start;
        size_t wanted = range.end - at > READ_BYTES ? READ_BYTES : (size_t)(range.end - at);
        size_t got = target_read_some(target, at, buffer, wanted);
        for (size_t i = 0; i + entry_bytes <= got; i += entry_bytes) {
            uint64_t entry = word_at(buffer + i);
            if (entry && !visit(context, entry))
                return false;
        }
        at += wanted;
    }
    return true;
}

struct descent {
    struct target *target;
    struct jemalloc *heap;
    unsigned level;
    const struct progress *progress;
    unsigned char *buffers[3];
};

static bool entry_follow(void *context, uint64_t entry)
{
    struct descent *descent = context;
    const struct jemalloc_tree_layout *tree = descent->heap->tree;
    unsigned level = descent->level;
    if (level == tree->levels - 1)
        return record_push(descent->heap,
                           leaf_pointer(tree, entry, descent->heap->extent->pointer_mask));
    if (!anonymous_writable(descent->target, entry))
        return true;
    if (progress_stopped(descent->progress) || !table_push(descent->heap, entry))
        return false;
    descent->level = level + 1;
    bool leaf = descent->level == tree->levels - 1;
    unsigned bytes = leaf ? tree->leaf_entry_bytes : 8;
    bool go_on = table_visit(descent->target, entry, (uint64_t)bytes << tree->bits[descent->level],
                             bytes, descent->buffers[descent->level], entry_follow, descent);
    descent->level = level;
    return go_on;
}

static int by_address(const void *left, const void *right)
{
    hi_addr a = *(const hi_addr *)left, b = *(const hi_addr *)right;
    return a < b ? -1 : a > b;
}

static void records_sort(struct jemalloc *heap)
{
    if (heap->records.count < 2)
        return;
    qsort(heap->records.items, heap->records.count, sizeof *heap->records.items, by_address);
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
    struct descent descent = {
        .target = context->target, .heap = heap, .progress = context->progress};
    unsigned char *memory = malloc(3 * READ_BYTES);
    if (!memory)
        return hi_no_memory(err);
    for (unsigned i = 0; i < 3; i++)
        descent.buffers[i] = memory + i * READ_BYTES;
    bool whole = table_visit(context->target, heap->root, UINT64_C(8) << heap->tree->bits[0], 8,
                             descent.buffers[0], entry_follow, &descent);
    free(memory);
    records_sort(heap);
    if (whole)
        return HI_OK;
    return progress_stopped(context->progress) ? HI_STOPPED : hi_no_memory(err);
}
