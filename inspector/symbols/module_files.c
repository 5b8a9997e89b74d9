/*
 * module_files: which file on this machine is the one that the target has mapped.
 *
 * A file is only used when it is the same program:
 *   - program headers in the target's memory: the file's must be identical, byte for byte, and the
 *     build-ids (where either has one) too
 *   - headers not in the dump (gcore leaves them out): the file's own headers were used to find the
 *     module; then its PT_DYNAMIC must have the same tags as the target's memory, since that page
 *     is written by the dynamic linker and so always dumped
 * What does not match is left alone, with a note. Order of places:
 *   --exe (executable only; not matching is an error: the user said it)
 *   the mapping's own file: map_files, /proc/PID/root, sysroot (target_open_file)
 *   BUILD-ID below --debug-dir, sysroot + /usr/lib/debug, /usr/lib/debug (.build-id/xx/yyyy)
 * The vdso is a copy of its memory.
 *
 * Debug files: the same .build-id places with ".debug", then .gnu_debuglink beside the module, in
 * its .debug folder and below the debug directories; and for lines, never while a live target may
 * be stopped, from a debuginfod server. They must carry the same build-id; a module without one
 * needs the debuglink's CRC. .gnu_debugdata is unpacked with a bound on what comes out.
 */
#include "symbols/internal.h"

#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <lzma.h>
#include <unistd.h>
#include <zlib.h>

#define MINI_MAX_BYTES   (256u << 20)
#define MINI_MAX_MEMORY  (256u << 20)
#define LINK_MAX_BYTES   256
#define VDSO_MAX_BYTES   (64u << 10)
#define DYNAMIC_MAX_TAGS 256

/* -- is it the target's file? ------------------------------------------------------------------*/

static bool same_build_id(const struct module_record *record, const struct image *image)
{
    unsigned char id[BUILD_ID_MAX_BYTES];
    size_t bytes = image_build_id(image, id);
    return bytes == record->module.build_id_bytes &&
           memcmp(id, record->module.build_id, bytes) == 0;
}

static bool same_headers(const struct module_record *record, const struct image *image)
{
    Elf64_Phdr headers[IMAGE_MAX_HEADERS];
    size_t count = image_program_headers(image, headers);
    return count == record->header_count &&
           memcmp(headers, record->headers, count * sizeof *headers) == 0;
}

/* Tags, not values: some values are relocated in memory. */
static bool same_dynamic(struct symbols *symbols, const struct module_record *record,
                         const struct image *image)
{
    const Elf64_Phdr *header = module_header_of_type(record, PT_DYNAMIC);
    if (!header)
        return true;
    for (size_t i = 0; i < DYNAMIC_MAX_TAGS; i++) {
        uint64_t at = header->p_vaddr + i * sizeof(Elf64_Dyn);
        Elf64_Dyn ours, theirs;
        const void *bytes = image_at_vaddr(image, at, sizeof ours);
        if (!bytes || target_read(symbols->target, record->module.bias + at, &theirs, sizeof theirs,
                                  NULL) != HI_OK)
            return false;
        memcpy(&ours, bytes, sizeof ours);
        if (ours.d_tag != theirs.d_tag)
            return false;
        if (ours.d_tag == DT_NULL)
            return true;
    }
    return true;
}

/* A file of which only the debug sections were kept has headers, but not the bytes. */
static bool has_content(const struct image *image)
{
    Elf64_Shdr section;
    return !image_section(image, ".text", 0, &section) || section.sh_type != SHT_NOBITS;
}

static bool file_matches(struct symbols *symbols, struct module_record *record,
                         const struct image *image)
{
    if (!same_headers(record, image) || !has_content(image))
        return false;
    if (record->origin == HEADERS_FROM_FILE && !same_dynamic(symbols, record, image))
        return false;
    if (record->module.build_id_bytes)
        return same_build_id(record, image);
    /* the note may lie beyond the dumped page: identical headers vouch for it */
    record->module.build_id_bytes = image_build_id(image, record->module.build_id);
    return true;
}

static void take_file(struct symbols *symbols, struct module_record *record, struct image *image)
{
    if (!record->file.bytes && file_matches(symbols, record, image))
        record->file = *image;
    else
        image_close(image);
}

/* -- places ------------------------------------------------------------------------------------*/

/* The n-th place where debug files are kept; NULL: no more. */
const char *debug_folder(const struct symbols *symbols, size_t n, char *room)
{
    if (n == 0)
        return symbols->debug_directory ? symbols->debug_directory : debug_folder(symbols, 1, room);
    if (n == 1) {
        if (target_kind(symbols->target) == TARGET_PROCESS)
            snprintf(room, MODULE_PATH_ROOM, "/proc/%d/root/usr/lib/debug",
                     (int)target_pid(symbols->target));
        else
            snprintf(room, MODULE_PATH_ROOM, "%s/usr/lib/debug",
                     symbols->sysroot ? symbols->sysroot : "");
        return room;
    }
    return n == 2 ? "/usr/lib/debug" : NULL;
}

bool module_build_id_path(const struct symbols *symbols, const struct module *module, size_t n,
                          const char *suffix, char *path)
{
    char room[MODULE_PATH_ROOM], digits[2 * BUILD_ID_MAX_BYTES + 1];
    const char *root = debug_folder(symbols, n, room);
    if (!root)
        return false;
    for (size_t i = 0; i < module->build_id_bytes; i++)
        snprintf(digits + 2 * i, 3, "%02x", module->build_id[i]);
    snprintf(path, MODULE_PATH_ROOM, "%s/.build-id/%.2s/%s%s", root, digits, digits + 2, suffix);
    return true;
}

bool module_image_by_build_id(const struct symbols *symbols, const struct module *module,
                              const char *suffix, image_test *fits, const void *context,
                              struct image *image)
{
    char path[MODULE_PATH_ROOM];
    if (module->build_id_bytes < 2)
        return false;
    for (size_t n = 0; module_build_id_path(symbols, module, n, suffix, path); n++) {
        if (image_open_path(image, path, NULL) != HI_OK)
            continue;
        if (fits(context, image))
            return true;
        image_close(image);
    }
    return false;
}

struct file_wanted {
    struct symbols *symbols;
    struct module_record *record;
};

static bool is_file_of(const void *context, const struct image *image)
{
    const struct file_wanted *wanted = context;
    return file_matches(wanted->symbols, wanted->record, image);
}

static void find_by_build_id(struct symbols *symbols, struct module_record *record)
{
    const struct file_wanted wanted = {symbols, record};
    struct image image;
    if (module_image_by_build_id(symbols, &record->module, "", is_file_of, &wanted, &image))
        record->file = image;
}

static void find_by_mapping(struct symbols *symbols, struct module_record *record)
{
    int fd;
    struct image image;
    if (target_open_file(symbols->target, record->mapping, &fd, NULL) != HI_OK)
        return;
    enum hi_code code = image_open_fd(&image, fd, record->path, NULL);
    close(fd);
    if (code == HI_OK)
        take_file(symbols, record, &image);
    if (!record->file.bytes)
        target_add_note(symbols->target, "%s is not the file that the target has mapped",
                        record->path);
}

static enum hi_code find_by_option(struct symbols *symbols, struct module_record *record,
                                   struct hi_err *err)
{
    struct image image;
    enum hi_code code = image_open_path(&image, symbols->executable, err);
    if (code != HI_OK)
        return code;
    take_file(symbols, record, &image);
    if (record->file.bytes)
        return HI_OK;
    return hi_fail(err, HI_BAD_INPUT,
                   "%s is not the program of this target (%s): its build-id or its program headers "
                   "differ",
                   symbols->executable, record->path);
}

static void copy_vdso(struct symbols *symbols, struct module_record *record)
{
    size_t bytes = record->mapping->end - record->mapping->start;
    if (bytes > VDSO_MAX_BYTES)
        return;
    void *copy = malloc(bytes);
    if (copy && target_read(symbols->target, record->mapping->start, copy, bytes, NULL) == HI_OK) {
        if (image_open_memory(&record->file, copy, bytes, NULL) != HI_OK)
            memset(&record->file, 0, sizeof record->file);
    } else {
        free(copy);
    }
}

enum hi_code module_find_file(struct symbols *symbols, struct module_record *record,
                              struct hi_err *err)
{
    if (record->module.kind == MODULE_VDSO) {
        copy_vdso(symbols, record);
        return HI_OK;
    }
    if (record->module.kind == MODULE_EXECUTABLE && symbols->executable)
        return find_by_option(symbols, record, err);
    find_by_mapping(symbols, record);
    if (!record->file.bytes)
        find_by_build_id(symbols, record);
    return HI_OK;
}

/* -- debug files -------------------------------------------------------------------------------*/

static bool is_debug_of(const void *context, const struct image *image)
{
    return same_build_id(context, image);
}

static void debug_by_build_id(struct symbols *symbols, struct module_record *record)
{
    struct image image;
    if (!record->debug.bytes &&
        module_image_by_build_id(symbols, &record->module, ".debug", is_debug_of, record, &image))
        record->debug = image;
}

static uint32_t image_crc(const struct image *image)
{
    uLong crc = crc32(0, NULL, 0);
    for (size_t at = 0; at < image->size;) {
        size_t step = image->size - at < (1u << 30) ? image->size - at : 1u << 30;
        crc = crc32(crc, image->bytes + at, (uInt)step);
        at += step;
    }
    return (uint32_t)crc;
}

static void debug_try_link(struct module_record *record, const char *path, uint32_t crc)
{
    struct image image;
    if (record->debug.bytes || image_open_path(&image, path, NULL) != HI_OK)
        return;
    bool matches =
        record->module.build_id_bytes ? same_build_id(record, &image) : image_crc(&image) == crc;
    if (matches)
        record->debug = image;
    else
        image_close(&image);
}

static bool read_debuglink(const struct module_record *record, char *name, uint32_t *crc)
{
    Elf64_Shdr section;
    if (!record->file.bytes || !image_section(&record->file, ".gnu_debuglink", 0, &section) ||
        section.sh_size > LINK_MAX_BYTES || section.sh_size < 8)
        return false;
    const char *bytes = image_section_bytes(&record->file, &section);
    size_t length = bytes ? strnlen(bytes, section.sh_size - 4) : 0;
    if (length == 0 || length >= section.sh_size - 4 || memchr(bytes, '/', length))
        return false;
    memcpy(name, bytes, length + 1);
    memcpy(crc, bytes + section.sh_size - 4, sizeof *crc);
    return true;
}

void target_root(const struct symbols *symbols, char *room, size_t size)
{
    if (target_kind(symbols->target) == TARGET_PROCESS)
        snprintf(room, size, "/proc/%d/root", (int)target_pid(symbols->target));
    else
        snprintf(room, size, "%s", symbols->sysroot ? symbols->sysroot : "");
}

static void debug_by_link(struct symbols *symbols, struct module_record *record)
{
    char name[LINK_MAX_BYTES], path[2 * MODULE_PATH_ROOM], room[MODULE_PATH_ROOM];
    uint32_t crc;
    const char *slash = strrchr(record->path, '/');
    int folder = slash ? (int)(slash - record->path) : 0;
    if (!slash || folder > PATH_MAX || !read_debuglink(record, name, &crc))
        return;
    const char *root = room;
    target_root(symbols, room, sizeof room);
    snprintf(path, sizeof path, "%s%.*s/%s", root, folder, record->path, name);
    debug_try_link(record, path, crc);
    snprintf(path, sizeof path, "%s%.*s/.debug/%s", root, folder, record->path, name);
    debug_try_link(record, path, crc);
    for (size_t n = 0; (root = debug_folder(symbols, n, room)); n++) {
        snprintf(path, sizeof path, "%s%.*s/%s", root, folder, record->path, name);
        debug_try_link(record, path, crc);
    }
}

static bool unpack_xz(const void *packed, size_t packed_bytes, void **out, size_t *out_bytes)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    if (lzma_stream_decoder(&stream, MINI_MAX_MEMORY, 0) != LZMA_OK)
        return false;
    size_t room = 0;
    unsigned char *bytes = NULL;
    lzma_ret result = LZMA_OK;
    stream.next_in = packed;
    stream.avail_in = packed_bytes;
    while (result == LZMA_OK && room < MINI_MAX_BYTES) {
        size_t wanted = room ? room * 2 : 1u << 20;
        unsigned char *grown = realloc(bytes, wanted);
        if (!grown)
            break;
        bytes = grown;
        stream.next_out = bytes + stream.total_out;
        stream.avail_out = wanted - stream.total_out;
        room = wanted;
        result = lzma_code(&stream, LZMA_FINISH);
    }
    *out_bytes = stream.total_out;
    lzma_end(&stream);
    *out = bytes;
    if (result != LZMA_STREAM_END)
        free(bytes);
    return result == LZMA_STREAM_END;
}

static void unpack_mini(struct module_record *record)
{
    Elf64_Shdr section;
    void *bytes;
    size_t size;
    if (!record->file.bytes || !image_section(&record->file, ".gnu_debugdata", 0, &section))
        return;
    const void *packed = image_section_bytes(&record->file, &section);
    if (packed && unpack_xz(packed, section.sh_size, &bytes, &size) &&
        image_open_memory(&record->mini, bytes, size, NULL) != HI_OK)
        memset(&record->mini, 0, sizeof record->mini);
}

void module_find_debug(struct symbols *symbols, struct module_record *record)
{
    if (record->module.kind == MODULE_VDSO || record->debug.bytes || record->mini.bytes)
        return;
    debug_by_build_id(symbols, record);
    if (!record->debug.bytes)
        debug_by_link(symbols, record);
    if (!record->debug.bytes)
        unpack_mini(record);
}

void module_fetch_debug(struct symbols *symbols, struct module_record *record)
{
    char path[MODULE_PATH_ROOM];
    struct image image;
    if (record->module.kind == MODULE_VDSO || record->debug.bytes ||
        !debuginfod_fetch(symbols, &record->module, path, sizeof path) ||
        image_open_path(&image, path, NULL) != HI_OK)
        return;
    if (same_build_id(record, &image))
        record->debug = image;
    else
        image_close(&image);
}
