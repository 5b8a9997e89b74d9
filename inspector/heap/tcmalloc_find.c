/*
 * Finding gperftools' parts without symbols.
 *
 *   size classes   a run of int32 in a module's data: 0, 8, 16, ... rising to 256 KiB
 *   page map       a page tree in the same module whose leaves name spans that hold the pages they
 *                  are filed under; without size classes beside it, it is a likeness that other
 *                  programs' tables of pointers have by chance
 *   central lists  an array at a constant stride in which every entry holds its own class number
 *   thread caches  reached from a pointer in the data; every list of a cache holds the size of its
 *                  class, so eighty numbers in a row must agree; the others by their links
 */
#include "heap/tcmalloc.h"

enum {
    SAMPLES_WANTED = 256,
    SAMPLES_WRONG = 64, /* this many and none right: something else */

    RIGHT_LEAST = 2,
    SEGMENT_MAX = 64 * 1024 * 1024,
    CACHES_MAX = 65536,
};

/* -- size classes --------------------------------------------------------------------------------
 */

static unsigned class_run(const unsigned char *bytes, size_t available, uint32_t *sizes)
{
    unsigned count = 0;
    while (count < TCMALLOC_CLASSES_MAX && (count + 1) * 4 <= available) {
        uint32_t value;
        memcpy(&value, bytes + (size_t)count * 4, sizeof value);
        if (count ? value <= sizes[count - 1] || value % 8 : value != 0)
            break;
        sizes[count++] = value;
    }
    bool right = count >= TCMALLOC_CLASSES_MIN && sizes[1] == 8 && sizes[2] == 16 &&
                 sizes[count - 1] == TCMALLOC_LARGEST_SMALL;
    return right ? count : 0;
}

static void classes_find(struct tcmalloc *heap, const unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i + 12 <= bytes && !heap->class_count; i += 4) {
        if (data[i + 4] == 8 && data[i] == 0)
            heap->class_count = class_run(data + i, bytes - i, heap->class_bytes);
    }
}

/* The classes in the data of a module; heap remembers them for the module asked about last. */
static bool classes_of_module(struct tcmalloc *heap, const struct heap_context *context,
                              size_t module)
{
    if (heap->classes_module == module + 1)
        return heap->class_count > 0;
    heap->classes_module = module + 1;
    heap->class_count = 0;
    size_t count = symbols_segment_count(context->symbols, module);
    for (size_t i = 0; i < count && !heap->class_count; i++) {
        struct module_segment segment = symbols_segment(context->symbols, module, i);
        size_t bytes = (size_t)(segment.memory.end - segment.memory.start);
        bool fits = segment.protection & MAPPING_WRITE && bytes <= SEGMENT_MAX;
        unsigned char *data = fits ? malloc(bytes) : NULL;
        if (data)
            classes_find(heap, data,
                         target_read_some(context->target, segment.memory.start, data, bytes));
        free(data);
    }
    return heap->class_count > 0;
}

/* -- page map ------------------------------------------------------------------------------------
 */

struct judge {
    struct tcmalloc *heap;
    const struct heap_context *context;
};

struct sample {
    const struct heap_context *context;
    unsigned page_shift;
    unsigned asked, filed_right;
};

static bool sample_entry(void *context, uint64_t entry, hi_addr page)
{
    struct sample *sample = context;
    unsigned char span[TCMALLOC_SPAN_BYTES];
    sample->asked++;
    if ((entry & 7) == 0 &&
        target_read(sample->context->target, entry, span, sizeof span, NULL) == HI_OK) {
        uint64_t number = page >> sample->page_shift;
        uint64_t start = evidence_u64_at(span, TCMALLOC_SPAN_START);
        uint64_t length = evidence_u64_at(span, TCMALLOC_SPAN_LENGTH);
        sample->filed_right += start <= number && number - start < length && length < 1u << 31 &&
                               (span[TCMALLOC_SPAN_BITS] & TCMALLOC_LOCATION_MASK) != 3 &&
                               span[TCMALLOC_SPAN_SIZECLASS] < TCMALLOC_CLASSES_MAX;
    }
    return sample->asked < (sample->filed_right ? SAMPLES_WANTED : SAMPLES_WRONG);
}

static bool tree_judge(void *context, const struct page_tree_shape *shape, uint64_t key,
                       hi_addr table)
{
    struct judge *judge = context;
    if (!classes_of_module(judge->heap, judge->context, judge->heap->tree.module))
        return false;
    struct sample sample = {.context = judge->context, .page_shift = shape->page_shift};
    page_tree_sample(sample.context, shape, key, table, sample_entry, &sample);
    /* merged spans leave entries behind: many may be stale */
    return sample.filed_right >= RIGHT_LEAST && sample.filed_right * 8 >= sample.asked;
}

enum hi_code tcmalloc_tree_find(struct tcmalloc *heap, const struct heap_context *context,
                                struct hi_err *err)
{
    struct judge judge = {heap, context};
    return page_tree_find(&heap->tree, context, tcmalloc_trees, tcmalloc_tree_count, tree_judge,
                          &judge, err);
}

/* -- central lists -------------------------------------------------------------------------------
 */

static bool central_at(const struct tcmalloc *heap, const unsigned char *data, size_t bytes,
                       size_t place, size_t stride)
{
    for (unsigned class = 2; class < heap->class_count; class ++) {
        size_t at = place + (class - 1) * stride;
        if (at + 8 > bytes || evidence_u64_at(data, at) != class)
            return false;
    }
    return true;
}

/* place: of size_class_ in the entry of class 1. */
static void central_find(struct tcmalloc *heap, hi_addr start, const unsigned char *data,
                         size_t bytes)
{
    for (size_t i = 0; i + 8 <= bytes && heap->class_count; i += 8) {
        if (evidence_u64_at(data, i) != 1)
            continue;
        for (size_t stride = TCMALLOC_CENTRAL_STRIDE_MIN; stride <= TCMALLOC_CENTRAL_STRIDE_MAX;
             stride += 8) {
            if (i < stride + TCMALLOC_CENTRAL_CLASS || !central_at(heap, data, bytes, i, stride))
                continue;
            heap->central = start + i - TCMALLOC_CENTRAL_CLASS - stride;
            heap->central_stride = stride;
            return;
        }
    }
}

/* -- thread caches -------------------------------------------------------------------------------
 */

static bool is_cache(const struct tcmalloc *heap, struct evidence_cache *pages, hi_addr place)
{
    for (unsigned class = 1; class < heap->class_count; class ++) {
        uint64_t word;
        hi_addr at = place + (hi_addr) class * TCMALLOC_LIST_BYTES + TCMALLOC_LIST_SIZE;
        if (!evidence_cache_u64(pages, at, &word) || (uint32_t)word != heap->class_bytes[class])
            return false;
    }
    return heap->class_count > 0;
}

static bool cache_add(struct tcmalloc *heap, struct evidence_cache *pages, hi_addr place)
{
    for (size_t i = 0; i < heap->caches.count; i++) {
        if (heap->caches.items[i].place == place)
            return true;
    }
    if (heap->caches.count == CACHES_MAX || !is_cache(heap, pages, place))
        return true;
    struct tcmalloc_cache *item = VECTOR_PUSH(&heap->caches);
    if (item)
        *item = (struct tcmalloc_cache){place, TCMALLOC_NO_THREAD};
    return item != NULL;
}

/* Caches link to each other behind their lists; the list's length depends on the version. */
static bool links_follow(struct tcmalloc *heap, struct evidence_cache *pages, struct target *target)
{
    for (size_t i = 0; i < heap->caches.count; i++) {
        for (unsigned k = 0; k < 2; k++) {
            hi_addr links = heap->caches.items[i].place +
                            (hi_addr)tcmalloc_list_counts[k] * TCMALLOC_LIST_BYTES;
            for (unsigned at = 0; at < TCMALLOC_LINKS_BYTES; at += 8) {
                uint64_t word;
                if (evidence_cache_u64(pages, links + at, &word) && word &&
                    evidence_is_heap_address(target, word) && !cache_add(heap, pages, word))
                    return false;
            }
        }
    }
    return true;
}

static bool caches_find(struct tcmalloc *heap, struct target *target, struct evidence_cache *pages,
                        const unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i + 8 <= bytes && heap->caches.count == 0; i += 8) {
        uint64_t word = evidence_u64_at(data, i);
        if (word >= 4096 && (word & 7) == 0 && evidence_is_heap_address(target, word) &&
            !cache_add(heap, pages, word))
            return false;
    }
    return links_follow(heap, pages, target);
}

/* -- all of it -----------------------------------------------------------------------------------
 */

static bool segment_parts(struct tcmalloc *heap, const struct heap_context *context,
                          struct evidence_cache *pages, struct hi_range memory, bool caches)
{
    size_t wanted = (size_t)(memory.end - memory.start);
    unsigned char *data = wanted <= SEGMENT_MAX ? malloc(wanted) : NULL;
    if (!data)
        return wanted > SEGMENT_MAX;
    size_t bytes = target_read_some(context->target, memory.start, data, wanted);
    bool enough = true;
    if (caches) {
        enough = caches_find(heap, context->target, pages, data, bytes);
    } else {
        if (!heap->central)
            central_find(heap, memory.start, data, bytes);
    }
    free(data);
    return enough;
}

enum hi_code tcmalloc_parts_find(struct tcmalloc *heap, const struct heap_context *context,
                                 struct hi_err *err)
{
    struct evidence_cache *pages;
    enum hi_code code = evidence_cache_new(&pages, context->target, err);
    if (code != HI_OK)
        return code;
    size_t module = heap->tree.module, count = symbols_segment_count(context->symbols, module);
    bool enough = true;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < count && enough; i++) {
            struct module_segment segment = symbols_segment(context->symbols, module, i);
            if (segment.protection & MAPPING_WRITE)
                enough = segment_parts(heap, context, pages, segment.memory, pass == 1);
        }
    }
    evidence_cache_free(pages);
    return enough ? HI_OK : hi_no_memory(err);
}
