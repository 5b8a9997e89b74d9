/*
 * debug_info: finding and opening a module's DWARF, and the answer for one address.
 *
 * It is in the module's own file, or in its debug file (module_files.c finds and checks it). libdw
 * looks for a .dwo beside the file that it was opened from, so that file is opened again by its
 * name, when that still leads to the same bytes; else the mapped bytes serve.
 */
#include "symbols/debug_info.h"

#include "symbols/text_pool.h"
#include "symbols/unpack_sections.h"

#include <elfutils/libdwelf.h>
#include <fcntl.h>
#include <libelf.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SMALL_BUDGET = 1 << 20 };

static bool has_dwarf(const struct image *image)
{
    Elf64_Shdr section;
    return image->bytes &&
           (image_section(image, ".debug_info", 0, &section) ||
            image_section(image, ".zdebug_info", 0, &section)) &&
           section.sh_type != SHT_NOBITS;
}

static const struct image *image_with_dwarf(struct symbols *symbols, struct module_record *record)
{
    if (has_dwarf(&record->file))
        return &record->file;
    module_find_debug(symbols, record);
    if (!has_dwarf(&record->debug))
        module_fetch_debug(symbols, record);
    return has_dwarf(&record->debug) ? &record->debug : NULL;
}

/* -- opening -----------------------------------------------------------------------------------*/

/* The descriptor of image's file, or -1: its name leads elsewhere by now. */
static int reopen(const struct image *image)
{
    struct stat status;
    int fd = image->storage == IMAGE_MAPPED && image->path
                 ? open(image->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
                 : -1;
    if (fd < 0)
        return -1;
    if (fstat(fd, &status) == 0 && status.st_dev == image->device && status.st_ino == image->inode)
        return fd;
    close(fd);
    return -1;
}

static void take_section(struct debug_info *info, const char *name, struct bytes *bytes)
{
    size_t names;
    if (elf_getshdrstrndx(info->elf, &names) != 0)
        return;
    for (Elf_Scn *section = NULL; (section = elf_nextscn(info->elf, section));) {
        const Elf64_Shdr *header = elf64_getshdr(section);
        const char *found = header ? elf_strptr(info->elf, names, header->sh_name) : NULL;
        /* libdw has unpacked them in place; .zdebug_line keeps its name then */
        if (!found || (strcmp(found + 1, name) != 0 &&
                       (strncmp(found, ".z", 2) != 0 || strcmp(found + 2, name) != 0)))
            continue;
        const Elf_Data *data = elf_rawdata(section, NULL);
        if (data && data->d_buf && !(header->sh_flags & SHF_COMPRESSED))
            *bytes = (struct bytes){data->d_buf, data->d_size};
        return;
    }
}

/* -- the alternate file of dwz -----------------------------------------------------------------*/

struct alternate {
    const char *name; /* whole, or from the file's own folder */
    struct module by_id;
};

static bool try_alternate(struct debug_info *info, const struct alternate *wanted, const char *path)
{
    unsigned char id[BUILD_ID_MAX_BYTES];
    struct image *image = &info->alternate_image;
    if (image_open_path(image, path, NULL) != HI_OK)
        return false;
    if (image_build_id(image, id) == wanted->by_id.build_id_bytes &&
        memcmp(id, wanted->by_id.build_id, wanted->by_id.build_id_bytes) == 0)
        return true;
    image_close(image);
    return false;
}

static bool find_alternate(struct symbols *symbols, struct debug_info *info,
                           const struct alternate *wanted, const struct image *image)
{
    char path[2 * MODULE_PATH_ROOM], room[MODULE_PATH_ROOM] = "";
    for (size_t n = 0; module_build_id_path(symbols, &wanted->by_id, n, ".debug", path); n++)
        if (try_alternate(info, wanted, path))
            return true;
    const char *slash = image->path ? strrchr(image->path, '/') : NULL;
    bool is_found = false;
    if (wanted->name[0] == '/') {
        target_root(symbols, room, sizeof room);
        snprintf(path, sizeof path, "%s%s", room, wanted->name);
        is_found = try_alternate(info, wanted, path);
    } else if (slash) {
        snprintf(path, sizeof path, "%.*s/%s", (int)(slash - image->path), image->path,
                 wanted->name);
        is_found = try_alternate(info, wanted, path);
    }
    return is_found || (debuginfod_fetch(symbols, &wanted->by_id, path, sizeof path) &&
                        try_alternate(info, wanted, path));
}

/* libdw looks in places of its own when nothing is found here. */
static void open_alternate(struct symbols *symbols, struct debug_info *info,
                           const struct image *image)
{
    const void *id;
    struct alternate wanted = {0};
    ssize_t bytes = dwelf_dwarf_gnu_debugaltlink(info->dwarf, &wanted.name, &id);
    if (bytes < 2 || (size_t)bytes > BUILD_ID_MAX_BYTES)
        return;
    wanted.by_id.build_id_bytes = (size_t)bytes;
    memcpy(wanted.by_id.build_id, id, (size_t)bytes);
    if (!find_alternate(symbols, info, &wanted, image))
        return;
    struct image packed = info->alternate_image;
    if (sections_are_packed(&packed)) {
        bool is_done = sections_unpack(&packed, &info->alternate_image);
        image_close(&packed);
        if (!is_done)
            return;
    }
    info->alternate_elf =
        elf_memory((char *)(uintptr_t)info->alternate_image.bytes, info->alternate_image.size);
    if (info->alternate_elf)
        info->alternate = dwarf_begin_elf(info->alternate_elf, DWARF_C_READ, NULL);
    if (info->alternate)
        dwarf_setalt(info->dwarf, info->alternate);
}

static void find_text(struct debug_info *info, const struct module_record *record)
{
    info->text_start = UINT64_MAX;
    for (size_t i = 0; i < record->header_count; i++) {
        const Elf64_Phdr *h = &record->headers[i];
        if (h->p_type != PT_LOAD || !(h->p_flags & PF_X) || h->p_vaddr > UINT64_MAX - h->p_memsz)
            continue;
        uint64_t end = h->p_vaddr + h->p_memsz;
        info->text_start = h->p_vaddr < info->text_start ? h->p_vaddr : info->text_start;
        info->text_end = end > info->text_end ? end : info->text_end;
    }
}

static void close_info(struct debug_info *info)
{
    units_free(info);
    if (info->dwarf)
        dwarf_end(info->dwarf);
    if (info->elf)
        elf_end(info->elf);
    if (info->alternate)
        dwarf_end(info->alternate);
    if (info->alternate_elf)
        elf_end(info->alternate_elf);
    image_close(&info->alternate_image);
    image_close(&info->unpacked);
    if (info->fd >= 0)
        close(info->fd);
    free(info);
}

void debug_info_allow(struct debug_info *info, uint64_t file_bytes)
{
    info->budget += 4 * file_bytes;
}

static bool open_dwarf(struct debug_info *info, const struct image *image)
{
    elf_version(EV_CURRENT);
    if (sections_are_packed(image) && sections_unpack(image, &info->unpacked))
        image = &info->unpacked;
    else
        info->fd = reopen(image);
    if (info->fd >= 0)
        info->elf = elf_begin(info->fd, ELF_C_READ_MMAP, NULL);
    if (!info->elf)
        info->elf = elf_memory((char *)(uintptr_t)image->bytes, image->size);
    info->dwarf = info->elf ? dwarf_begin_elf(info->elf, DWARF_C_READ, NULL) : NULL;
    return info->dwarf != NULL;
}

static struct debug_info *open_info(struct symbols *symbols, struct module_record *record)
{
    const struct image *image = image_with_dwarf(symbols, record);
    struct debug_info *info = image ? calloc(1, sizeof *info) : NULL;
    if (!info)
        return NULL;
    info->fd = -1;
    info->texts = symbols->texts;
    find_text(info, record);
    if (!open_dwarf(info, image)) {
        close_info(info);
        return NULL;
    }
    open_alternate(symbols, info, image);
    take_section(info, "debug_line", &info->sections.line);
    take_section(info, "debug_line_str", &info->sections.line_str);
    take_section(info, "debug_str", &info->sections.str);
    info->sections.text_start = info->text_start;
    info->sections.text_end = info->text_end;
    info->budget = SMALL_BUDGET;
    debug_info_allow(info, info->unpacked.bytes ? info->unpacked.size : image->size);
    if (!units_read(info)) {
        close_info(info);
        return NULL;
    }
    return info;
}

struct debug_info *debug_info_of(struct symbols *symbols, struct module_record *record)
{
    if (!record->debug_tried) {
        record->debug_tried = true;
        record->debug_info = open_info(symbols, record);
    }
    return record->debug_info;
}

void debug_info_close(struct module_record *record)
{
    if (record->debug_info)
        close_info(record->debug_info);
    record->debug_info = NULL;
}

/* -- one address -------------------------------------------------------------------------------*/

static const char *path_of(const struct debug_info *info, const struct unit *unit, uint64_t number)
{
    char path[8192];
    struct line_file *file = unit->lines ? lines_file(unit->lines, number) : NULL;
    if (!file || !*file->name)
        return NULL;
    if (!file->path) {
        lines_path(unit->lines, file, unit->compile_directory, path, sizeof path);
        file->path = text_pool_keep(info->texts, path, strlen(path));
    }
    return file->path;
}

size_t debug_info_frames(struct debug_info *info, uint64_t vaddr, struct debug_frame *frames)
{
    struct unit *unit = units_find(info, vaddr);
    if (!unit)
        return 0;
    const struct line_row *row = unit->lines ? lines_find(unit->lines, vaddr) : NULL;
    uint32_t index = intervals_find(&unit->functions.by_address, vaddr);
    struct debug_frame *frame = frames;
    memset(frame, 0, sizeof *frame);
    if (row) {
        frame->file = path_of(info, unit, row->file);
        frame->line = row->line;
        frame->column = row->column;
    }
    /* parents have smaller indexes than their children: this ends */
    for (; index != SCOPE_NONE && frame < frames + FRAMES_MAX - 1; frame++) {
        struct scope *scope = &unit->functions.scopes.items[index];
        frame->name = scope_name(scope);
        frame->is_bare =
            frame->name && !name_is_mangled(frame->name) && (!unit->is_c || frame->name[0] == '_');
        frame->is_inline = scope->parent != SCOPE_NONE;
        if (!frame->is_inline)
            break;
        frame[1] = (struct debug_frame){.file = path_of(info, unit, scope->call_file),
                                        .line = scope->call_line,
                                        .column = scope->call_column};
        index = scope->parent;
    }
    return index == SCOPE_NONE && !row ? 0 : (size_t)(frame - frames) + 1;
}
