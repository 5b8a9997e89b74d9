/*
 * Finding mimalloc without symbols, also linked into a program under its own names.
 *
 *   v2  segments: at 32 MiB-aligned addresses of anonymous memory, a head whose first slice says
 *       that it is as long as the head says it is, whose slices end one where the next begins,
 *       and whose cookie is the address hidden by the same secret as in every other segment
 *   v3  the page map: a word in a module's data points to a page tree whose entries name page
 *       records that cover the address they are filed under
 *
 * The layout row is the one under which the heads, or the records, agree.
 */
#include "heap/mimalloc.h"

enum {
    SAMPLES_WANTED = 64,
    SAMPLES_WRONG = 8,
    RIGHT_LEAST = 2,
    SEGMENTS_MAX = 1 << 22,
};

static uint64_t field(const unsigned char *record, int offset, int bytes)
{
    uint64_t value = 0;
    if (offset != MIMALLOC_NO_FIELD)
        memcpy(&value, record + offset, (size_t)bytes);
    return value;
}

static hi_addr page_start(const struct mimalloc_page_layout *row, hi_addr record,
                          const unsigned char *bytes)
{
    uint64_t start = field(bytes, row->start, row->start_bytes);
    return row->start_bytes == 4 ? record + start * 8 : start;
}

bool mimalloc_page_decode(const struct mimalloc_page_layout *row, hi_addr record,
                          const unsigned char *bytes, struct mimalloc_page *page)
{
    *page = (struct mimalloc_page){
        .record = record,
        .start = page_start(row, record, bytes),
        .block_bytes = field(bytes, row->block_size, row->block_size_bytes),
        .capacity = (uint32_t)field(bytes, row->capacity, 2),
        .reserved = (uint32_t)field(bytes, row->reserved, 2),
        .used = (uint32_t)field(bytes, row->used, row->used_bytes),
        .free = field(bytes, row->free, 8),
        .local_free = field(bytes, row->local_free, 8),
        .thread_free = field(bytes, row->thread_free, 8) & ~UINT64_C(3),
        .heap = field(bytes, row->heap, 8),
        .interior = field(bytes, row->flags, 1) & 2,
    };
    return page->block_bytes >= 8 && page->block_bytes % 8 == 0 &&
           page->block_bytes < UINT64_C(1) << 46 && page->reserved > 0 &&
           page->capacity <= page->reserved && page->used <= page->capacity;
}

/* -- v2 ------------------------------------------------------------------------------------------
 */

/* The secret of the process if a segment of this layout is at address, else 0. */
static uint64_t segment_secret(struct target *target, hi_addr address,
                               const struct mimalloc_segment_layout *row)
{
    unsigned char head[MIMALLOC_SEGMENT_HEAD_BYTES];
    if (target_read(target, address, head, sizeof head, NULL) != HI_OK)
        return 0;
    uint64_t slices = field(head, row->slice_count, 8), info = field(head, row->info_slices, 8);
    uint64_t entries = field(head, row->entries, 8);
    uint32_t first = (uint32_t)field(head, row->slices + MIMALLOC_PAGE_SLICES, 4);
    uint32_t back = (uint32_t)field(head, row->slices + MIMALLOC_PAGE_SLICE_OFFSET, 4);
    bool right = slices > 0 && slices < UINT64_C(1) << 30 && info > 0 && info < slices &&
                 entries == (slices < MIMALLOC_SEGMENT_SLICES ? slices : MIMALLOC_SEGMENT_SLICES) &&
                 first == info && back == 0;
    return right ? field(head, row->cookie, 8) ^ address : 0;
}

static bool segment_push(struct mimalloc *heap, hi_addr address)
{
    hi_addr *item = heap->segments.count < SEGMENTS_MAX ? VECTOR_PUSH(&heap->segments) : NULL;
    if (item)
        *item = address;
    return item != NULL;
}

/* Does every slice begin where the one before ends, until the last? Numbers of another program may
 * look like a head; and 2.0 and 2.1.7 have the same heads, but records of different size. */
static bool slices_chain(struct target *target, hi_addr segment,
                         const struct mimalloc_segment_layout *row)
{
    uint64_t total, slice = 0;
    if (target_read_u64(target, segment + (hi_addr)row->slice_count, &total, NULL) != HI_OK)
        return false;
    for (unsigned steps = 0; steps < MIMALLOC_SEGMENT_SLICES; steps++) {
        uint32_t words[2]; /* slice_count, slice_offset */
        hi_addr record = segment + (hi_addr)row->slices + slice * row->page->bytes;
        if (slice >= MIMALLOC_SEGMENT_SLICES ||
            target_read(target, record, words, sizeof words, NULL) != HI_OK || words[0] == 0 ||
            words[1] != 0)
            return false;
        slice += words[0];
        if (slice + MIMALLOC_GUARD_SLICES >= total)
            return slice <= total;
    }
    return false;
}

/* All aligned addresses of one mapping. *secret: that of the segments so far, 0: none yet. The
 * first must be right in every slice, since it speaks for the others. */
static bool mapping_segments(struct mimalloc *heap, struct target *target,
                             const struct mapping *mapping, uint64_t *secret)
{
    const uint64_t step = UINT64_C(1) << MIMALLOC_SEGMENT_SHIFT;
    hi_addr at = (mapping->start + step - 1) & ~(step - 1);
    for (; at < mapping->end && at >= mapping->start; at += step) {
        uint64_t found = segment_secret(target, at, heap->segment);
        if (found == 0 || (*secret && found != *secret) ||
            (*secret == 0 && !slices_chain(target, at, heap->segment)))
            continue;
        *secret = found;
        if (!segment_push(heap, at))
            return false;
    }
    return true;
}

static bool segments_find(struct mimalloc *heap, struct target *target)
{
    for (size_t row = 0; row < mimalloc_segment_count; row++) {
        uint64_t secret = 0;
        heap->segment = &mimalloc_segments[row];
        heap->page = heap->segment->page;
        for (size_t i = 0; i < target_mapping_count(target); i++) {
            const struct mapping *mapping = target_mapping(target, i);
            if (evidence_is_heap_mapping(mapping) &&
                !mapping_segments(heap, target, mapping, &secret))
                return false;
        }
        if (heap->segments.count)
            return true;
    }
    heap->segment = NULL;
    return true;
}

/* -- v3 ------------------------------------------------------------------------------------------
 */

struct sample {
    const struct heap_context *context;
    struct mimalloc *heap;
    unsigned asked;
    unsigned right[4];
};

static bool page_covers(struct sample *sample, const struct mimalloc_page_layout *row,
                        hi_addr record, hi_addr address)
{
    unsigned char bytes[MIMALLOC_PAGE_BYTES_MAX];
    struct mimalloc_page page;
    if (!evidence_is_heap_address(sample->context->target, record) ||
        target_read(sample->context->target, record, bytes, row->bytes, NULL) != HI_OK ||
        !mimalloc_page_decode(row, record, bytes, &page))
        return false;
    hi_addr slice = UINT64_C(1) << MIMALLOC_SLICE_SHIFT;
    hi_addr end = page.start + page.reserved * page.block_bytes;
    return evidence_is_heap_address(sample->context->target, page.start) &&
           (page.start & ~(slice - 1)) <= address && address < end;
}

static bool sample_entry(void *context, uint64_t entry, hi_addr address)
{
    struct sample *sample = context;
    unsigned best = 0;
    sample->asked++;
    for (size_t row = 0; row < mimalloc_page_v3_count; row++) {
        sample->right[row] += page_covers(sample, &mimalloc_pages_v3[row], entry, address);
        best = sample->right[row] > best ? sample->right[row] : best;
    }
    return sample->asked < (best ? SAMPLES_WANTED : SAMPLES_WRONG);
}

static bool tree_judge(void *context, const struct page_tree_shape *shape, uint64_t key,
                       hi_addr table)
{
    struct sample sample = *(struct sample *)context;
    size_t best = 0;
    page_tree_sample(sample.context, shape, key, table, sample_entry, &sample);
    for (size_t row = 1; row < mimalloc_page_v3_count; row++) {
        if (sample.right[row] > sample.right[best])
            best = row;
    }
    sample.heap->page = &mimalloc_pages_v3[best];
    return sample.right[best] >= RIGHT_LEAST && sample.right[best] * 10 >= sample.asked * 8;
}

/* -- all of it -----------------------------------------------------------------------------------
 */

enum hi_code mimalloc_find(struct mimalloc *heap, const struct heap_context *context,
                           struct hi_err *err)
{
    if (!segments_find(heap, context->target))
        return hi_no_memory(err);
    if (heap->segment)
        return HI_OK;
    struct sample sample = {.context = context, .heap = heap};
    return page_tree_find(&heap->tree, context, &mimalloc_tree, 1, tree_judge, &sample, err);
}

bool mimalloc_page_has_late_return(const struct mimalloc *heap, struct evidence_cache *records,
                                   hi_addr block)
{
    const struct mimalloc_segment_layout *row = heap->segment;
    if (!row)
        return false;
    hi_addr segment = block & ~((UINT64_C(1) << MIMALLOC_SEGMENT_SHIFT) - 1);
    hi_addr record = segment + (hi_addr)row->slices +
                     ((block - segment) >> MIMALLOC_SLICE_SHIFT) * row->page->bytes;
    uint64_t word, back;
    if (!evidence_cache_u64(records, record, &word))
        return false;
    back = word >> 32; /* bytes to the record of the page's first slice */
    return back % 8 == 0 && back < record - segment &&
           evidence_cache_u64(records, record - back + (hi_addr)row->page->thread_free, &word) &&
           (word & MIMALLOC_DELAY_MASK) != MIMALLOC_DELAY_USE;
}

/* mov $imm32, %eax first (after an optional endbr64): v2 and v3 to 2024 say 209 for 2.0.9, since
 * then 30403 for 3.4.3. */
bool mimalloc_version(const struct heap_context *context, char *version, size_t size)
{
    static const unsigned char endbr[] = {0xf3, 0x0f, 0x1e, 0xfa};
    struct symbol symbol;
    unsigned char code[12];
    if (symbols_find(context->symbols, SYMBOLS_ANY_MODULE, "mi_version", &symbol, NULL) != HI_OK ||
        target_read(context->target, symbol.address, code, sizeof code, NULL) != HI_OK)
        return false;
    const unsigned char *at = memcmp(code, endbr, sizeof endbr) == 0 ? code + sizeof endbr : code;
    uint32_t number;
    memcpy(&number, at + 1, sizeof number);
    if (*at != 0xb8 || number < 100 || number > 99999)
        return false;
    unsigned base = number < 1000 ? 10 : 100;
    snprintf(version, size, "%u.%u.%u", number / (base * base), number / base % base,
             number % base);
    return true;
}
