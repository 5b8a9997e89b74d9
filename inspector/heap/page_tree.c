/* Finding and walking the tree from page to record; the theory is in page_tree.h. */
#include "heap/page_tree.h"
#include "heap/evidence.h"

enum {
    KEYS_MAX = 4096,
    READ_BYTES = 256 * 1024,
    SAMPLE_BYTES = 4096, /* a judge is asked often and mostly says no at once */
    LEVELS_MAX = 3,
    ROOT_ALIGN = 4096,
    SLOTS_AROUND = 16, /* of a root that are looked at on either side */
};

/* How far an address is shifted to be the key of a level, its low bits cut. */
static unsigned level_shift(const struct page_tree_shape *shape, unsigned level)
{
    unsigned shift = shape->address_bits;
    for (unsigned i = 0; i <= level; i++)
        shift -= shape->bits[i];
    return shift;
}

static unsigned entry_bytes(const struct page_tree_shape *shape, unsigned level)
{
    return level == shape->levels - 1 ? shape->leaf_entry_bytes : 8;
}

/* -- walking -------------------------------------------------------------------------------------
 */

struct descent {
    struct target *target;
    const struct progress *progress;
    const struct page_tree_shape *shape;
    struct page_tree_tables *tables;
    page_tree_visit visit;
    void *context;
    unsigned char *buffers[LEVELS_MAX];
    size_t read_bytes;
    struct hi_range window; /* only entries that stand for addresses in here */
    uint64_t entries_left;  /* a right tree files no more pages than there are */
    bool out_of_memory;
};

static bool table_descend(struct descent *descent, unsigned level, hi_addr table, hi_addr covers);

static bool entry_follow(struct descent *descent, unsigned level, uint64_t entry, hi_addr covers)
{
    if (descent->entries_left == 0)
        return false;
    descent->entries_left--;
    if (level == descent->shape->levels - 1)
        return descent->visit(descent->context, entry, covers);
    if (!evidence_is_heap_address(descent->target, entry))
        return true;
    if (progress_stopped(descent->progress))
        return false;
    if (descent->tables) {
        hi_addr *item = VECTOR_PUSH(&descent->tables->items);
        descent->out_of_memory = !item;
        if (!item)
            return false;
        *item = entry;
    }
    return table_descend(descent, level + 1, entry, covers);
}

/* Where in a table the entries of the window are. */
static struct hi_range table_window(const struct descent *descent, unsigned level, hi_addr table,
                                    hi_addr covers)
{
    unsigned size = entry_bytes(descent->shape, level);
    unsigned shift = level_shift(descent->shape, level);
    uint64_t count = UINT64_C(1) << descent->shape->bits[level];
    uint64_t first = 0, last = count;
    if (descent->window.start > covers)
        first = (descent->window.start - covers) >> shift;
    if (descent->window.end < covers)
        last = 0;
    else if ((descent->window.end - 1 - covers) >> shift < count)
        last = ((descent->window.end - 1 - covers) >> shift) + 1;
    return (struct hi_range){table + first * size, table + last * size};
}

/* Every entry that is not 0, where the table has content. At most LEVELS_MAX deep. */
static bool table_descend(struct descent *descent, unsigned level, hi_addr table, hi_addr covers)
{
    unsigned size = entry_bytes(descent->shape, level);
    unsigned shift = level_shift(descent->shape, level);
    struct hi_range part = table_window(descent, level, table, covers);
    unsigned char *buffer = descent->buffers[level];
    struct hi_range range;
    for (hi_addr at = part.start;
         at < part.end && target_next_content(descent->target, at, part.end, &range);) {
        at = range.start + (size - (range.start - table) % size) % size;
        size_t wanted =
            range.end - at > descent->read_bytes ? descent->read_bytes : (size_t)(range.end - at);
        size_t got = target_read_some(descent->target, at, buffer, wanted);
        for (size_t i = 0; i + size <= got; i += size) {
            uint64_t entry = evidence_u64_at(buffer, i);
            if (entry &&
                !entry_follow(descent, level, entry, covers + (((at - table + i) / size) << shift)))
                return false;
        }
        at += wanted;
    }
    return true;
}

/* Twice the pages of anonymous memory: entries of memory that was given back may still stand. */
static uint64_t entries_most(struct target *target, const struct page_tree_shape *shape)
{
    enum { ENTRIES_SPARE = 1 << 20 };
    uint64_t pages = 0;
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        if (evidence_is_heap_mapping(mapping))
            pages += (mapping->end - mapping->start) >> shape->page_shift;
    }
    return 2 * pages + ENTRIES_SPARE;
}

static bool buffers_get(struct descent *descent, size_t read_bytes)
{
    unsigned char *memory = malloc(LEVELS_MAX * read_bytes);
    descent->read_bytes = read_bytes;
    for (unsigned i = 0; i < LEVELS_MAX; i++)
        descent->buffers[i] = memory ? memory + i * read_bytes : NULL;
    return memory != NULL;
}

void page_tree_sample(const struct heap_context *context, const struct page_tree_shape *shape,
                      uint64_t key, hi_addr table, page_tree_visit visit, void *visit_context)
{
    struct descent descent = {.target = context->target,
                              .progress = context->progress,
                              .shape = shape,
                              .entries_left = UINT64_MAX,
                              .visit = visit,
                              .context = visit_context};
    hi_addr covers = key << level_shift(shape, 0);
    hi_addr end = covers + (UINT64_C(1) << level_shift(shape, 0));
    if (!buffers_get(&descent, SAMPLE_BYTES))
        return;
    for (size_t i = 0; i < target_mapping_count(context->target); i++) {
        const struct mapping *mapping = target_mapping(context->target, i);
        if (!evidence_is_heap_mapping(mapping) || mapping->end <= covers || mapping->start >= end)
            continue;
        descent.window = (struct hi_range){mapping->start, mapping->end};
        if (!table_descend(&descent, 1, table, covers))
            break;
    }
    free(descent.buffers[0]);
}

enum hi_code page_tree_walk(const struct page_tree *tree, const struct heap_context *context,
                            struct page_tree_tables *tables, page_tree_visit visit,
                            void *visit_context, struct hi_err *err)
{
    struct descent descent = {.target = context->target,
                              .progress = context->progress,
                              .shape = tree->shape,
                              .tables = tables,
                              .window = {0, UINT64_MAX},
                              .entries_left = entries_most(context->target, tree->shape),
                              .visit = visit,
                              .context = visit_context};
    if (!buffers_get(&descent, READ_BYTES))
        return hi_no_memory(err);
    bool whole = table_descend(&descent, 0, tree->root, 0);
    free(descent.buffers[0]);
    if (descent.out_of_memory)
        return hi_no_memory(err);
    if (!whole && descent.entries_left == 0)
        return hi_fail(err, HI_BAD_INPUT, "the page tree at %#llx names more pages than there are",
                       (unsigned long long)tree->root);
    return whole ? HI_OK : HI_STOPPED;
}

bool page_tree_entry(const struct page_tree *tree, struct target *target, hi_addr address,
                     uint64_t *entry)
{
    *entry = tree->root;
    for (unsigned level = 0; level < tree->shape->levels; level++) {
        uint64_t key = address >> level_shift(tree->shape, level);
        key &= (UINT64_C(1) << tree->shape->bits[level]) - 1;
        if ((level && !evidence_is_heap_address(target, *entry)) ||
            target_read_u64(target, *entry + key * entry_bytes(tree->shape, level), entry, NULL) !=
                HI_OK)
            return false;
    }
    return true;
}

/* -- finding -------------------------------------------------------------------------------------
 */

/* Is there room for a whole table below the root? Spares the judge most of the candidates. */
static bool table_fits(struct target *target, const struct page_tree_shape *shape, hi_addr table)
{
    hi_addr end = table + (UINT64_C(1) << shape->bits[1]) * entry_bytes(shape, 1);
    for (hi_addr at = table; at >= table;) {
        const struct mapping *mapping = target_mapping_at(target, at);
        if (!evidence_is_heap_mapping(mapping))
            return false;
        if (mapping->end >= end)
            return end > table;
        at = mapping->end;
    }
    return false;
}

struct search {
    const struct heap_context *context;
    struct page_tree *tree;
    page_tree_judge judge;
    void *judge_context;
    struct hi_range segment;
    size_t key_count;
    uint64_t keys[KEYS_MAX]; /* root slots under which anonymous memory would be filed, rising */
    hi_addr read_start;      /* what of the segment is in buffer */
    size_t read_bytes;
    unsigned char buffer[READ_BYTES];
};

static void keys_collect(struct search *search, unsigned shift)
{
    struct target *target = search->context->target;
    search->key_count = 0;
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        if (!evidence_is_heap_mapping(mapping))
            continue;
        for (uint64_t key = mapping->start >> shift; key <= (mapping->end - 1) >> shift; key++) {
            if (search->key_count && search->keys[search->key_count - 1] >= key)
                continue;
            if (search->key_count == KEYS_MAX)
                return;
            search->keys[search->key_count++] = key;
        }
    }
}

/* The slots of a root are 0 or point to anonymous memory. Words of another kind mostly have
 * neighbours that do neither: how many on either side could be slots. */
struct neighbours {
    uint64_t before, after;
    uint64_t words[2 * SLOTS_AROUND + 1];
    bool known;
};

static struct neighbours look_around(struct search *search, hi_addr place)
{
    struct target *target = search->context->target;
    struct neighbours found = {.before = SLOTS_AROUND, .after = SLOTS_AROUND};
    hi_addr from = place - SLOTS_AROUND * 8;
    uint64_t *words = found.words;
    if (place - search->segment.start < SLOTS_AROUND * 8)
        return found; /* at the edge: the judge will tell */
    if (from >= search->read_start &&
        from - search->read_start + sizeof found.words <= search->read_bytes)
        memcpy(words, search->buffer + (from - search->read_start), sizeof found.words);
    else if (target_read_some(target, from, words, sizeof found.words) != sizeof found.words)
        return found;
    found.known = true;
    for (unsigned i = SLOTS_AROUND; i-- > 0;) {
        const uint64_t before = words[i], after = words[2 * SLOTS_AROUND - i];
        if (before && found.before == SLOTS_AROUND && !evidence_is_heap_address(target, before))
            found.before = SLOTS_AROUND - 1 - i;
        if (after && found.after == SLOTS_AROUND && !evidence_is_heap_address(target, after))
            found.after = SLOTS_AROUND - 1 - i;
    }
    return found;
}

static bool is_key(const struct search *search, uint64_t key)
{
    size_t low = 0, high = search->key_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (search->keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low < search->key_count && search->keys[low] == key;
}

/* Slot `key` of a root of `slots`: are its neighbours slots, as far as the root reaches? And are
 * they 0 where nothing is mapped? (Some may be left of memory that was given back.) */
static bool fits_in_root(const struct search *search, const struct neighbours *around, uint64_t key,
                         uint64_t slots)
{
    enum { LEFT_BEHIND = 2 };
    uint64_t before = key < SLOTS_AROUND ? key : SLOTS_AROUND;
    uint64_t after = slots - 1 - key < SLOTS_AROUND ? slots - 1 - key : SLOTS_AROUND;
    unsigned right = 0, wrong = 0;
    for (uint64_t i = SLOTS_AROUND - before; around->known && i <= SLOTS_AROUND + after; i++) {
        bool in_use = around->words[i] != 0, may_be = is_key(search, key + i - SLOTS_AROUND);
        right += in_use && may_be;
        wrong += in_use && !may_be;
    }
    return around->before >= before && around->after >= after && wrong <= right + LEFT_BEHIND;
}

static bool word_is_slot(struct search *search, hi_addr place, uint64_t word)
{
    const struct page_tree_shape *shape = search->tree->shape;
    uint64_t slots = UINT64_C(1) << shape->bits[0], root_bytes = 8 * slots;
    if (!table_fits(search->context->target, shape, word))
        return false;
    struct neighbours around = look_around(search, place);
    for (size_t i = 0; i < search->key_count && search->keys[i] < slots; i++) {
        uint64_t back = 8 * search->keys[i];
        if (back > place - search->segment.start ||
            place - back + root_bytes > search->segment.end ||
            !fits_in_root(search, &around, search->keys[i], slots))
            continue;
        if (search->judge(search->judge_context, shape, search->keys[i], word)) {
            search->tree->root = place - back;
            return true;
        }
    }
    return false;
}

/* word points to the root itself: ask about its first slots that are in use. */
static bool word_is_root(struct search *search, uint64_t word)
{
    const struct page_tree_shape *shape = search->tree->shape;
    if (word % ROOT_ALIGN) /* it has pages of its own */
        return false;
    for (size_t i = 0; i < search->key_count; i++) {
        uint64_t table;
        if (target_read_u64(search->context->target, word + 8 * search->keys[i], &table, NULL) !=
                HI_OK ||
            !evidence_is_heap_address(search->context->target, table))
            continue;
        if (!table_fits(search->context->target, shape, table))
            return false;
        if (!search->judge(search->judge_context, shape, search->keys[i], table))
            return false;
        search->tree->root = word;
        return true;
    }
    return false;
}

static bool segment_search(struct search *search)
{
    struct target *target = search->context->target;
    struct hi_range range;
    for (hi_addr at = search->segment.start;
         target_next_content(target, at, search->segment.end, &range);) {
        at = range.start;
        size_t wanted = range.end - at > READ_BYTES ? READ_BYTES : (size_t)(range.end - at);
        size_t got = target_read_some(target, at, search->buffer, wanted);
        search->read_start = at;
        search->read_bytes = got;
        for (size_t i = 0; i + 8 <= got; i += 8) {
            uint64_t word = evidence_u64_at(search->buffer, i);
            if (word >= 4096 && (word & 7) == 0 && evidence_is_heap_address(target, word) &&
                (search->tree->shape->indirect ? word_is_root(search, word)
                                               : word_is_slot(search, at + i, word)))
                return true;
        }
        at += wanted;
    }
    return false;
}

static bool module_search(struct search *search, const struct page_tree_shape *shapes, size_t count)
{
    struct symbols *symbols = search->context->symbols;
    size_t module = search->tree->module;
    for (size_t i = 0; i < symbols_segment_count(symbols, module); i++) {
        struct module_segment segment = symbols_segment(symbols, module, i);
        search->segment = segment.memory;
        for (size_t k = 0; (segment.protection & MAPPING_WRITE) && k < count; k++) {
            if (!shapes[k].indirect &&
                segment.memory.end - segment.memory.start < UINT64_C(8) << shapes[k].bits[0])
                continue;
            search->tree->shape = &shapes[k];
            keys_collect(search, level_shift(&shapes[k], 0));
            if (segment_search(search))
                return true;
        }
    }
    return false;
}

enum hi_code page_tree_find(struct page_tree *tree, const struct heap_context *context,
                            const struct page_tree_shape *shapes, size_t shape_count,
                            page_tree_judge judge, void *judge_context, struct hi_err *err)
{
    struct search *search = malloc(sizeof *search);
    if (!search)
        return hi_no_memory(err);
    search->context = context;
    search->tree = tree;
    search->judge = judge;
    search->judge_context = judge_context;
    bool found = false;
    for (size_t count = symbols_module_count(context->symbols); tree->module < count;
         tree->module++) {
        found = module_search(search, shapes, shape_count);
        if (found || progress_stopped(context->progress))
            break;
    }
    free(search);
    return found ? HI_OK : HI_NOT_FOUND;
}
