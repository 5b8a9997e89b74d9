/*
 * The core as one array of bytes.
 *
 * A plain file is mapped as it is: the page cache holds it, and reading costs no copy. Compressed
 * ones (told by their first bytes, whatever they are called) and pipes go through unpack.c into a
 * file without a name, which is then mapped.
 */
#include "target/core.h"
#include "target/unpack.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_BYTES = 64 };

bool core_image_has(const struct core_image *image, uint64_t offset, uint64_t count)
{
    return offset <= image->size && count <= image->size - offset;
}

void core_image_close(struct core_image *image)
{
    if (image->bytes)
        munmap((void *)(uintptr_t)image->bytes, image->size);
    if (image->fd >= 0)
        close(image->fd);
    image->bytes = NULL;
    image->fd = -1;
}

/* How long the core should be, from as many program headers as the first block holds. */
static bool check_head(const void *head, size_t bytes, uint64_t *wanted, struct hi_err *err)
{
    Elf64_Ehdr header;
    if (core_headers_check(head, bytes, "the unpacked file", err) != HI_OK)
        return false;
    memcpy(&header, head, sizeof header);
    if (header.e_phnum == PN_XNUM || header.e_phentsize != sizeof(Elf64_Phdr))
        return true;
    uint64_t end = 0, at = header.e_phoff;
    for (unsigned i = 0; i < header.e_phnum; i++, at += sizeof(Elf64_Phdr)) {
        Elf64_Phdr segment;
        if (at > bytes || bytes - at < sizeof segment)
            return true; /* not all of them in sight: no bound */
        memcpy(&segment, (const char *)head + at, sizeof segment);
        uint64_t segment_end = target_add_bytes(segment.p_offset, segment.p_filesz);
        if (segment_end > end)
            end = segment_end;
    }
    *wanted = end > at ? end : at;
    return true;
}

static void note_damage(struct target *target, const struct unpacked *unpacked,
                        enum packing packing, const char *path)
{
    if (unpacked->is_cut)
        target_add_note(target,
                        "%s is cut off: its %s stream has no end; what could be unpacked "
                        "is used",
                        path, packing_name(packing));
    if (unpacked->is_damaged)
        target_add_note(target,
                        "%s is damaged: its %s stream makes no sense before byte %" PRIu64
                        "; what could be unpacked is used",
                        path, packing_name(packing), unpacked->input_bytes);
    if (unpacked->is_cut || unpacked->is_damaged)
        target->incomplete = true;
}

static enum hi_code unpack_image(struct core_image *image, struct target *target,
                                 enum packing packing, const char *path,
                                 const struct progress *progress, struct hi_err *err)
{
    struct unpacked unpacked;
    struct hi_err own;
    enum hi_code code =
        unpack_file(image->fd, packing, path, check_head, progress, &unpacked, err ? err : &own);
    if (code != HI_OK)
        return code;
    close(image->fd);
    image->fd = unpacked.fd;
    image->size = unpacked.bytes;
    if (image->size == 0)
        return hi_fail(err, HI_BAD_INPUT, "%s is a damaged %s file: nothing could be unpacked",
                       path, packing_name(packing));
    note_damage(target, &unpacked, packing, path);
    return HI_OK;
}

static enum hi_code open_path(struct core_image *image, const char *path, struct stat *file,
                              struct hi_err *err)
{
    image->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (image->fd < 0 || fstat(image->fd, file) != 0)
        return hi_fail(err, errno == ENOENT ? HI_NOT_FOUND : HI_REFUSED, "cannot open %s: %s", path,
                       strerror(errno));
    if (S_ISDIR(file->st_mode))
        return hi_fail(err, HI_BAD_INPUT, "%s is a directory; give a core file", path);
    if (S_ISREG(file->st_mode) && file->st_size == 0)
        return hi_fail(err, HI_BAD_INPUT,
                       "%s is empty: the dump was not written (disk full, or a limit of 0?)", path);
    return HI_OK;
}

static bool take_anything(const void *head, size_t bytes, uint64_t *wanted, struct hi_err *err)
{
    (void)head, (void)bytes, (void)wanted, (void)err;
    return true;
}

/* What can't be mapped nor read twice (a pipe) is copied into a file without a name. */
static enum hi_code settle_image(struct core_image *image, const char *path,
                                 const struct progress *progress, struct hi_err *err)
{
    struct unpacked copied;
    enum hi_code code =
        unpack_file(image->fd, PACKING_NONE, path, take_anything, progress, &copied, err);
    if (code != HI_OK)
        return code;
    close(image->fd);
    image->fd = copied.fd;
    image->size = copied.bytes;
    return copied.bytes ? HI_OK : hi_fail(err, HI_BAD_INPUT, "nothing came out of %s", path);
}

/* Look at the first bytes: a core, a packed one, or neither. */
static enum hi_code read_image(struct core_image *image, struct target *target, const char *path,
                               const struct progress *progress, struct hi_err *err)
{
    unsigned char head[HEAD_BYTES];
    ssize_t got = pread(image->fd, head, sizeof head, 0);
    if (got < 0)
        return hi_fail(err, HI_SYSTEM, "cannot read %s: %s", path, strerror(errno));
    enum packing packing = packing_detect(head, (size_t)got);
    if (packing == PACKING_NONE)
        return core_headers_check(head, (size_t)got, path, err);
    return unpack_image(image, target, packing, path, progress, err);
}

enum hi_code core_image_open(struct core_image *image, struct target *target, const char *path,
                             const struct progress *progress, struct hi_err *err)
{
    struct stat file = {0};
    enum hi_code code = open_path(image, path, &file, err);
    image->size = (uint64_t)file.st_size;
    if (code == HI_OK && !S_ISREG(file.st_mode))
        code = settle_image(image, path, progress, err);
    if (code == HI_OK)
        code = read_image(image, target, path, progress, err);
    if (code != HI_OK)
        return code;
    void *bytes = mmap(NULL, image->size, PROT_READ, MAP_PRIVATE, image->fd, 0);
    if (bytes == MAP_FAILED)
        return hi_fail(err, HI_SYSTEM, "cannot map %s: %s", path, strerror(errno));
    image->bytes = bytes;
    return HI_OK;
}
