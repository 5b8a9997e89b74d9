/*
 * gone_modules: modules that somebody remembers and that may be loaded no longer.
 *
 * A mark that fits a loaded module (same start and bias, same build-id where both have one, else
 * the same path) is that module. Otherwise a record is made for it, once, whose file is looked for
 * under its path and by its build-id. The file must carry that build-id; a mark without one is
 * believed when the file's segments span exactly what the mark says.
 */
#include "symbols/internal.h"

#include <inttypes.h>
#include <unistd.h>

static bool same_id(const struct module *module, const struct module_mark *mark)
{
    if (!mark->build_id_bytes && (!mark->path || !*mark->path))
        return module->start == mark->start; /* the program itself, as the dynamic linker has it */
    if (!module->build_id_bytes || !mark->build_id_bytes)
        return strcmp(module->path, mark->path ? mark->path : "") == 0;
    return module->build_id_bytes == mark->build_id_bytes &&
           memcmp(module->build_id, mark->build_id, mark->build_id_bytes) == 0;
}

static bool is_marked(const struct module_record *record, const struct module_mark *mark)
{
    return record->module.bias == mark->bias && same_id(&record->module, mark);
}

static bool span_fits(const struct module_mark *mark, const Elf64_Phdr *headers, size_t count)
{
    uint64_t low = UINT64_MAX, high = 0;
    for (size_t i = 0; i < count; i++) {
        if (headers[i].p_type != PT_LOAD || headers[i].p_memsz == 0)
            continue;
        low = headers[i].p_vaddr < low ? headers[i].p_vaddr : low;
        uint64_t end = headers[i].p_vaddr + headers[i].p_memsz;
        high = end > high ? end : high;
    }
    return low < high && mark->bias + (low & ~0xfffull) == (mark->start & ~0xfffull) &&
           mark->bias + ((high + 0xfff) & ~0xfffull) == ((mark->end + 0xfff) & ~0xfffull);
}

static bool file_is_marked(const struct module_mark *mark, const struct image *image)
{
    unsigned char id[BUILD_ID_MAX_BYTES];
    Elf64_Phdr headers[IMAGE_MAX_HEADERS];
    size_t count = image_program_headers(image, headers);
    if (!mark->build_id_bytes)
        return span_fits(mark, headers, count);
    return count && image_build_id(image, id) == mark->build_id_bytes &&
           memcmp(id, mark->build_id, mark->build_id_bytes) == 0;
}

static void find_by_path(struct symbols *symbols, struct module_record *record,
                         const struct module_mark *mark)
{
    int fd;
    struct image image;
    struct mapping mapping = {.start = mark->start, .end = mark->end, .path = record->path};
    if (target_open_file(symbols->target, &mapping, &fd, NULL) != HI_OK)
        return;
    enum hi_code code = image_open_fd(&image, fd, record->path, NULL);
    close(fd);
    if (code != HI_OK)
        return;
    if (file_is_marked(mark, &image))
        record->file = image;
    else
        image_close(&image);
}

static bool is_file_of(const void *mark, const struct image *image)
{
    return file_is_marked(mark, image);
}

static void find_by_id(const struct symbols *symbols, struct module_record *record,
                       const struct module_mark *mark)
{
    struct image image;
    if (!record->file.bytes &&
        module_image_by_build_id(symbols, &record->module, "", is_file_of, mark, &image))
        record->file = image;
}

/* What modules.c learns from the target's memory comes from the file here. */
static bool take_headers_of_file(struct module_record *record)
{
    Elf64_Phdr headers[IMAGE_MAX_HEADERS];
    size_t count = image_program_headers(&record->file, headers);
    if (!count || !image_header(&record->file, &record->header))
        return true;
    record->headers = malloc(count * sizeof *headers);
    if (!record->headers)
        return false;
    memcpy(record->headers, headers, count * sizeof *headers);
    record->header_count = count;
    record->origin = HEADERS_FROM_FILE;
    if (!record->module.build_id_bytes)
        record->module.build_id_bytes = image_build_id(&record->file, record->module.build_id);
    return module_take_segments(record);
}

static struct module_record *record_new(const struct module_mark *mark)
{
    struct module_record *record = calloc(1, sizeof *record);
    if (!record)
        return NULL;
    record->path = strdup(mark->path ? mark->path : "");
    record->load_order = SIZE_MAX;
    struct module *module = &record->module;
    module->kind = MODULE_LIBRARY;
    module->path = record->path;
    module->start = mark->start;
    module->end = mark->end;
    module->bias = mark->bias;
    if (mark->build_id_bytes <= sizeof module->build_id) {
        module->build_id_bytes = mark->build_id_bytes;
        memcpy(module->build_id, mark->build_id, mark->build_id_bytes);
    }
    if (record->path)
        return record;
    module_record_close(record);
    free(record);
    return NULL;
}

static struct module_record *add_gone(struct symbols *symbols, const struct module_mark *mark)
{
    struct module_record *record = record_new(mark);
    struct module_record **kept = record ? VECTOR_PUSH(&symbols->gone) : NULL;
    if (kept) {
        *kept = record;
        find_by_path(symbols, record, mark);
        if (!record->file.bytes)
            find_by_id(symbols, record, mark);
        record->module.has_file = record->file.bytes != NULL;
        if (!record->file.bytes || take_headers_of_file(record))
            return record;
        symbols->gone.count--;
    }
    if (record)
        module_record_close(record);
    free(record);
    return NULL;
}

struct module_record *module_record_marked(struct symbols *symbols, const struct module_mark *mark)
{
    for (size_t i = 0; i < symbols->modules.count; i++)
        if (is_marked(&symbols->modules.items[i], mark))
            return &symbols->modules.items[i];
    for (size_t i = 0; i < symbols->gone.count; i++)
        if (is_marked(symbols->gone.items[i], mark))
            return symbols->gone.items[i];
    return add_gone(symbols, mark);
}
