/*
 * image: reading an ELF file that may lie.
 *
 * Files come from the target's machine, from --exe, --sysroot and debug directories, out of an xz
 * section, or out of the target's memory (vdso). Each may be cut, or made by somebody who means
 * harm. Rules here:
 *   - one gate: image_slice(offset, bytes) checks offset + bytes against the size without overflow
 *   - structures are copied out (memcpy), so that no alignment is assumed
 *   - a count from a header is only believed when the table of that count fits in the file
 *   - names are compared inside their string table, never past it
 * A file that is made shorter while it is mapped can still end us with SIGBUS; files are replaced
 * by rename in practice, and reading a copy of each would cost more than it guards.
 */
#include "symbols/image.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool image_header_is_usable(const Elf64_Ehdr *header)
{
    return memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 &&
           header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_ident[EI_DATA] == ELFDATA2LSB &&
           header->e_machine == EM_X86_64 &&
           (header->e_phnum == 0 || header->e_phentsize == sizeof(Elf64_Phdr)) &&
           (header->e_shnum == 0 || header->e_shentsize == sizeof(Elf64_Shdr));
}

static enum hi_code check_header(struct image *image, struct hi_err *err)
{
    Elf64_Ehdr header;
    if (image_header(image, &header) && image_header_is_usable(&header))
        return HI_OK;
    const char *path = image->path ? image->path : "(memory)";
    enum hi_code code = hi_fail(err, HI_BAD_INPUT, "%s is not an x86-64 ELF file", path);
    image_close(image);
    return code;
}

enum hi_code image_open_fd(struct image *image, int fd, const char *path, struct hi_err *err)
{
    memset(image, 0, sizeof *image);
    struct stat status;
    if (fstat(fd, &status) != 0)
        return hi_fail(err, HI_SYSTEM, "%s: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode) || status.st_size < (off_t)sizeof(Elf64_Ehdr))
        return hi_fail(err, HI_BAD_INPUT, "%s is not an x86-64 ELF file", path);
    /* private and writable: libdw may want to relocate a copy in place */
    void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return hi_fail(err, HI_SYSTEM, "%s: %s", path, strerror(errno));
    image->bytes = bytes;
    image->size = (size_t)status.st_size;
    image->storage = IMAGE_MAPPED;
    image->path = strdup(path);
    image->device = status.st_dev;
    image->inode = status.st_ino;
    return check_header(image, err);
}

enum hi_code image_open_path(struct image *image, const char *path, struct hi_err *err)
{
    memset(image, 0, sizeof *image);
    /* NONBLOCK: a fifo in the place of a file must not hold us up */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return hi_fail(err, errno == ENOENT || errno == ENOTDIR ? HI_NOT_FOUND : HI_SYSTEM,
                       "%s: %s", path, strerror(errno));
    enum hi_code code = image_open_fd(image, fd, path, err);
    close(fd);
    return code;
}

enum hi_code image_open_memory(struct image *image, void *bytes, size_t size, struct hi_err *err)
{
    memset(image, 0, sizeof *image);
    image->bytes = bytes;
    image->size = size;
    image->storage = IMAGE_OWNED;
    return check_header(image, err);
}

void image_close(struct image *image)
{
    /* the casts take back what was ours to write before it became a const view */
    if (image->storage == IMAGE_MAPPED)
        munmap((void *)(uintptr_t)image->bytes, image->size);
    else if (image->storage == IMAGE_OWNED)
        free((void *)(uintptr_t)image->bytes);
    free(image->path);
    memset(image, 0, sizeof *image);
}

const void *image_slice(const struct image *image, uint64_t offset, uint64_t bytes)
{
    if (!image->bytes || offset > image->size || bytes > image->size - offset)
        return NULL;
    return image->bytes + offset;
}

bool image_header(const struct image *image, Elf64_Ehdr *header)
{
    const void *bytes = image_slice(image, 0, sizeof *header);
    if (bytes)
        memcpy(header, bytes, sizeof *header);
    return bytes != NULL;
}

size_t image_program_headers(const struct image *image, Elf64_Phdr *headers)
{
    Elf64_Ehdr header;
    if (!image_header(image, &header) || header.e_phnum > IMAGE_MAX_HEADERS)
        return 0;
    uint64_t bytes = (uint64_t)header.e_phnum * sizeof *headers;
    const void *table = image_slice(image, header.e_phoff, bytes);
    if (!table)
        return 0;
    memcpy(headers, table, bytes);
    return header.e_phnum;
}

const void *image_at_vaddr(const struct image *image, uint64_t vaddr, uint64_t bytes)
{
    Elf64_Phdr headers[IMAGE_MAX_HEADERS];
    size_t count = image_program_headers(image, headers);
    for (size_t i = 0; i < count; i++) {
        const Elf64_Phdr *h = &headers[i];
        if (h->p_type != PT_LOAD || vaddr < h->p_vaddr || vaddr - h->p_vaddr >= h->p_filesz)
            continue;
        uint64_t skip = vaddr - h->p_vaddr;
        if (bytes > h->p_filesz - skip || h->p_offset > UINT64_MAX - skip)
            return NULL;
        return image_slice(image, h->p_offset + skip, bytes);
    }
    return NULL;
}

static size_t section_count(const struct image *image, const Elf64_Ehdr *header)
{
    if (header->e_shoff == 0)
        return 0;
    size_t count = header->e_shnum;
    if (count == 0) { /* more than fit in 16 bits: the first header says */
        const void *first = image_slice(image, header->e_shoff, sizeof(Elf64_Shdr));
        Elf64_Shdr section;
        if (!first)
            return 0;
        memcpy(&section, first, sizeof section);
        count = section.sh_size;
    }
    if (count > image->size / sizeof(Elf64_Shdr))
        return 0;
    return image_slice(image, header->e_shoff, count * sizeof(Elf64_Shdr)) ? count : 0;
}

bool image_section_at(const struct image *image, size_t index, Elf64_Shdr *section)
{
    Elf64_Ehdr header;
    if (!image_header(image, &header) || index >= section_count(image, &header))
        return false;
    memcpy(section, image_slice(image, header.e_shoff + index * sizeof *section, sizeof *section),
           sizeof *section);
    return true;
}

const void *image_section_bytes(const struct image *image, const Elf64_Shdr *section)
{
    if (section->sh_type == SHT_NOBITS)
        return NULL;
    return image_slice(image, section->sh_offset, section->sh_size);
}

static bool section_is_named(const struct image *image, const Elf64_Shdr *names,
                             const Elf64_Shdr *section, const char *name)
{
    const char *table = image_section_bytes(image, names);
    size_t bytes = strlen(name) + 1;
    return table && section->sh_name <= names->sh_size &&
           bytes <= names->sh_size - section->sh_name &&
           memcmp(table + section->sh_name, name, bytes) == 0;
}

bool image_section(const struct image *image, const char *name, uint32_t type, Elf64_Shdr *section)
{
    Elf64_Ehdr header;
    if (!image_header(image, &header))
        return false;
    Elf64_Shdr names = {0};
    if (name && !image_section_at(image, header.e_shstrndx, &names))
        return false;
    size_t count = section_count(image, &header);
    for (size_t i = 1; i < count; i++) {
        if (!image_section_at(image, i, section))
            return false;
        if (name ? section_is_named(image, &names, section, name) : section->sh_type == type)
            return true;
    }
    return false;
}

/* Both 4- and 8-byte aligned note segments exist; the GNU build-id note reads alike in both as long
 * as no odd-sized note stands before it in an 8-byte aligned one. Notes with odd sizes are rounded
 * to 4, which is what every linker emits for build-ids. */
size_t notes_build_id(const void *notes, size_t bytes, unsigned char *id)
{
    const unsigned char *at = notes;
    while (bytes >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, at, sizeof note);
        at += sizeof note;
        bytes -= sizeof note;
        uint64_t name = ((uint64_t)note.n_namesz + 3) & ~3ull;
        uint64_t content = ((uint64_t)note.n_descsz + 3) & ~3ull;
        if (name > bytes || note.n_descsz > bytes - name)
            return 0;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && memcmp(at, "GNU", 4) == 0 &&
            note.n_descsz > 0 && note.n_descsz <= BUILD_ID_MAX_BYTES) {
            memcpy(id, at + name, note.n_descsz);
            return note.n_descsz;
        }
        if (content > bytes - name)
            return 0;
        at += name + content;
        bytes -= name + content;
    }
    return 0;
}

static size_t build_id_by_section(const struct image *image, unsigned char *id)
{
    Elf64_Ehdr header;
    size_t count = image_header(image, &header) ? section_count(image, &header) : 0;
    for (size_t i = 1; i < count; i++) {
        Elf64_Shdr section;
        if (!image_section_at(image, i, &section) || section.sh_type != SHT_NOTE)
            continue;
        const void *notes = image_section_bytes(image, &section);
        size_t found = notes ? notes_build_id(notes, section.sh_size, id) : 0;
        if (found)
            return found;
    }
    return 0;
}

/* By sections first: in a .debug file the program headers name bytes that aren't there. */
size_t image_build_id(const struct image *image, unsigned char *id)
{
    size_t found = build_id_by_section(image, id);
    if (found)
        return found;
    Elf64_Phdr headers[IMAGE_MAX_HEADERS];
    size_t count = image_program_headers(image, headers);
    for (size_t i = 0; i < count && !found; i++) {
        if (headers[i].p_type != PT_NOTE)
            continue;
        const void *notes = image_slice(image, headers[i].p_offset, headers[i].p_filesz);
        found = notes ? notes_build_id(notes, headers[i].p_filesz, id) : 0;
    }
    return found;
}
