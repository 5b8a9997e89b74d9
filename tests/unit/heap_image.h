/*
 * A process in a file: its mappings, the pages of them that are not zero, its threads' registers,
 * and what the program itself booked (heap_truth.h). Smaller than a core, and readable in any state
 * of damage: words can be changed and reads made to fail without a copy.
 *
 * File: zstd; then struct image_head, and arrays of the records below in their order.
 */
#ifndef TESTS_UNIT_HEAP_IMAGE_H
#define TESTS_UNIT_HEAP_IMAGE_H

#include "symbols/symbols.h"
#include "target/backend.h"
#include "unit/heap_truth.h"

#include <zstd.h>

enum { IMAGE_PAGE = 4096, IMAGE_PATCHES = 64, IMAGE_PATH = 96 };
#define IMAGE_MAGIC UINT64_C(0x31474d4950414548) /* "HEAPIMG1" */
#define IMAGE_LIMIT ((size_t)256 << 20)

struct image_head {
    uint64_t magic, mappings, threads, pages, before, table_bytes;
    char reader[16], version[48];
};

struct image_mapping {
    uint64_t start, end, file_offset;
    uint32_t protection;
    uint8_t shared, special, unused[2];
    char path[IMAGE_PATH]; /* "": anonymous */
};

struct image_thread {
    uint64_t tid, registers[THREAD_REGISTER_COUNT];
};

struct heap_image {
    unsigned char *bytes; /* of the whole file, unpacked */
    const struct image_head *head;
    const struct image_mapping *mappings;
    const struct image_thread *threads;
    const uint64_t *page_addresses; /* rising */
    const uint64_t *before;
    struct heap_truth *table;
    unsigned char *pages;
    /* damage */
    struct {
        hi_addr address;
        uint64_t value;
    } patches[IMAGE_PATCHES];
    size_t patch_count;
    uint64_t reads, fail_read; /* fail_read: this one fails, 0: none */
};

/* -- reading one --------------------------------------------------------------------------------
 */

/* Index of the first stored page at or after address. */
static size_t image_page_from(const struct heap_image *image, hi_addr address)
{
    size_t low = 0, high = image->head->pages;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (image->page_addresses[middle] < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static unsigned char *image_page(const struct heap_image *image, hi_addr page)
{
    size_t index = image_page_from(image, page);
    bool there = index < image->head->pages && image->page_addresses[index] == page;
    return there ? image->pages + index * IMAGE_PAGE : NULL;
}

static void image_patch_into(const struct heap_image *image, hi_addr address, unsigned char *buffer,
                             size_t bytes)
{
    for (size_t i = 0; i < image->patch_count; i++) {
        const unsigned char *value = (const unsigned char *)&image->patches[i].value;
        for (unsigned k = 0; k < 8; k++) {
            hi_addr at = image->patches[i].address + k - address;
            if (at < bytes)
                buffer[at] = value[k];
        }
    }
}

static size_t image_read_some(struct target *target, hi_addr address, void *buffer, size_t bytes)
{
    struct heap_image *image = target->state;
    size_t got = 0;
    if (++image->reads == image->fail_read)
        return 0;
    while (got < bytes) {
        hi_addr at = address + got, page = at & ~(hi_addr)(IMAGE_PAGE - 1);
        const struct mapping *mapping = target_mapping_at(target, at);
        size_t part = IMAGE_PAGE - (size_t)(at - page);
        part = part < bytes - got ? part : bytes - got;
        const unsigned char *stored = mapping ? image_page(image, page) : NULL;
        if (stored)
            memcpy((char *)buffer + got, stored + (at - page), part);
        else if (mapping && (mapping->protection & MAPPING_WRITE) && !mapping->shared)
            memset((char *)buffer + got, 0, part);
        else
            break;
        got += part;
    }
    image_patch_into(image, address, buffer, got);
    return got;
}

static size_t image_contents(struct target *target, hi_addr from, hi_addr end,
                             struct hi_range *ranges, size_t capacity)
{
    struct heap_image *image = target->state;
    size_t count = 0, i = image_page_from(image, from & ~(hi_addr)(IMAGE_PAGE - 1));
    while (i < image->head->pages && count < capacity && image->page_addresses[i] < end) {
        struct hi_range range = {image->page_addresses[i], image->page_addresses[i] + IMAGE_PAGE};
        for (i++; i < image->head->pages && image->page_addresses[i] == range.end; i++)
            range.end += IMAGE_PAGE;
        range.start = range.start < from ? from : range.start;
        range.end = range.end > end ? end : range.end;
        if (range.start < range.end)
            ranges[count++] = range;
    }
    return count;
}

static const struct target_backend image_backend = {
    .kind = TARGET_BYTES, .read_some = image_read_some, .contents = image_contents};

/* A target that reads the image: it must not outlive it. */
static struct target *image_target(struct heap_image *image)
{
    struct target *target = target_new(&image_backend, image, NULL);
    for (uint64_t i = 0; target && i < image->head->mappings; i++) {
        const struct image_mapping *from = &image->mappings[i];
        struct mapping *to =
            target_push_mapping(target, from->start, from->end, *from->path ? from->path : NULL);
        if (!to)
            abort();
        to->protection = from->protection;
        to->shared = from->shared;
        to->special = from->special;
        to->file_offset = from->file_offset;
        to->dumped = true;
    }
    if (!target || target_seal(target, NULL) != HI_OK)
        abort();
    for (uint64_t i = 0; i < image->head->threads; i++) {
        struct thread thread = {.tid = (pid_t)image->threads[i].tid, .has_registers = true};
        thread_set_registers(&thread, image->threads[i].registers);
        if (target_add_registers(target, &thread, NULL) != HI_OK)
            abort();
    }
    image->reads = 0;
    return target;
}

/* Parts of the file one after the other; NULL: it is too short. */
static void *image_part(unsigned char **at, unsigned char *end, size_t bytes)
{
    unsigned char *part = *at;
    if (bytes > (size_t)(end - part))
        return NULL;
    *at += bytes;
    return part;
}

static bool image_load(struct heap_image *image, const char *path)
{
    static const struct heap_image nothing;
    *image = nothing;
    FILE *file = fopen(path, "rb");
    size_t packed_bytes = 0, room = 4 << 20;
    unsigned char *packed = malloc(room);
    if (file) {
        packed_bytes = fread(packed, 1, room, file);
        fclose(file);
    }
    unsigned long long bytes = ZSTD_getFrameContentSize(packed, packed_bytes);
    if (packed_bytes && bytes < IMAGE_LIMIT)
        image->bytes = malloc((size_t)bytes);
    size_t got =
        image->bytes ? ZSTD_decompress(image->bytes, (size_t)bytes, packed, packed_bytes) : 0;
    free(packed);
    unsigned char *at = image->bytes, *end = at + got;
    if (!at || got != bytes || !(image->head = image_part(&at, end, sizeof *image->head)) ||
        image->head->magic != IMAGE_MAGIC)
        return false;
    const struct image_head *head = image->head;
    image->mappings = image_part(&at, end, head->mappings * sizeof *image->mappings);
    image->threads = image_part(&at, end, head->threads * sizeof *image->threads);
    image->page_addresses = image_part(&at, end, head->pages * 8);
    image->before = image_part(&at, end, head->before * 8);
    image->table = image_part(&at, end, head->table_bytes);
    image->pages = image_part(&at, end, head->pages * IMAGE_PAGE);
    return image->pages != NULL;
}

static void image_free(struct heap_image *image)
{
    free(image->bytes);
    image->bytes = NULL;
}

/* -- writing one --------------------------------------------------------------------------------
 */

struct image_buffer {
    unsigned char *items;
    size_t count, capacity;
};

static void image_put(struct image_buffer *buffer, const void *bytes, size_t count)
{
    if (buffer->count + count > buffer->capacity) {
        buffer->capacity = 2 * (buffer->count + count);
        buffer->items = realloc(buffer->items, buffer->capacity);
        if (!buffer->items)
            abort();
    }
    memcpy(buffer->items + buffer->count, bytes, count);
    buffer->count += count;
}

/* Written before it was made read-only: relocated data, right below a module's data. */
static bool image_is_relro(struct target *target, size_t index)
{
    const struct mapping *mapping = target_mapping(target, index);
    const struct mapping *next = target_mapping_at(target, mapping->end);
    return next && mapping->path && next->path && strcmp(mapping->path, next->path) == 0 &&
           (next->protection & MAPPING_WRITE) && !(mapping->protection & MAPPING_EXECUTE);
}

/* Memory that the process could write, and the first page of each module. */
__attribute__((unused)) static void
image_put_pages(struct target *target, struct image_buffer *addresses, struct image_buffer *pages)
{
    static const unsigned char zeros[IMAGE_PAGE];
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        unsigned char page[IMAGE_PAGE];
        if (mapping->shared || mapping->special)
            continue;
        struct hi_range content = {mapping->start, mapping->start};
        while (target_next_content(target, content.end, mapping->end, &content)) {
            for (hi_addr at = content.start; at < content.end; at += IMAGE_PAGE) {
                bool written = (mapping->protection & MAPPING_WRITE) || image_is_relro(target, i);
                if (!written && at != mapping->start)
                    break;
                if (target_read(target, at, page, sizeof page, NULL) != HI_OK ||
                    memcmp(page, zeros, sizeof page) == 0 ||
                    (!written && memcmp(page, "\177ELF", 4) != 0))
                    continue;
                image_put(addresses, &at, sizeof at);
                image_put(pages, page, sizeof page);
            }
        }
    }
}

__attribute__((unused)) static bool image_save(struct target *target, const char *reader,
                                               const struct truth_result *result,
                                               const struct truth_run *run, const char *path)
{
    struct image_buffer all = {0}, addresses = {0}, pages = {0};
    image_put_pages(target, &addresses, &pages);
    struct image_head head = {.magic = IMAGE_MAGIC,
                              .mappings = target_mapping_count(target),
                              .threads = target_thread_count(target),
                              .pages = addresses.count / 8,
                              .before = run->before.count,
                              .table_bytes = run->table_bytes};
    snprintf(head.reader, sizeof head.reader, "%s", reader);
    snprintf(head.version, sizeof head.version, "%s", result->version);
    image_put(&all, &head, sizeof head);
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        struct image_mapping to = {.start = mapping->start,
                                   .end = mapping->end,
                                   .file_offset = mapping->file_offset,
                                   .protection = mapping->protection,
                                   .shared = mapping->shared,
                                   .special = mapping->special};
        snprintf(to.path, sizeof to.path, "%s", mapping->path ? mapping->path : "");
        image_put(&all, &to, sizeof to);
    }
    for (size_t i = 0; i < target_thread_count(target); i++) {
        const struct thread *thread = target_thread(target, i);
        struct image_thread to = {.tid = 1000 + i};
        memcpy(to.registers, thread->registers, sizeof to.registers);
        image_put(&all, &to, sizeof to);
    }
    image_put(&all, addresses.items, addresses.count);
    image_put(&all, run->before.items, run->before.count * 8);
    image_put(&all, run->table, run->table_bytes);
    image_put(&all, pages.items, pages.count);
    size_t bound = ZSTD_compressBound(all.count);
    unsigned char *packed = malloc(bound);
    size_t bytes = packed ? ZSTD_compress(packed, bound, all.items, all.count, 22) : 0;
    FILE *file = fopen(path, "wb");
    bool saved = file && fwrite(packed, 1, bytes, file) == bytes;
    if (file)
        fclose(file);
    printf("# %s: %llu pages, %zu bytes\n", path, (unsigned long long)head.pages, bytes);
    free(all.items);
    free(addresses.items);
    free(pages.items);
    free(packed);
    return saved;
}

#endif
