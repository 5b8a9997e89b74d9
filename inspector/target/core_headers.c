/*
 * The ELF header and the table of segments of a core.
 *
 * Nothing in them is believed: the file may be cut off anywhere, and counts, offsets and sizes may
 * be any number. The number of segments is bounded by what the file has room for (more than 65,534
 * of them: the true count is in sh_info of section header 0). Where segments overlap, the one that
 * starts first keeps the bytes. A segment that wraps around the address space is cut there.
 */
#include "target/core.h"

#include <ctype.h>
#include <elf.h>
#include <inttypes.h>

enum { NOTE_SEGMENT_LIMIT = 16 };

static const char *machine_name(unsigned machine)
{
    static const struct {
        unsigned machine;
        const char *name;
    } names[] = {
        {EM_386, "i386"},    {EM_ARM, "arm"},         {EM_AARCH64, "aarch64"},
        {EM_PPC, "ppc"},     {EM_PPC64, "ppc64"},     {EM_S390, "s390"},
        {EM_MIPS, "mips"},   {EM_RISCV, "riscv"},     {EM_X86_64, "x86-64"},
        {EM_SPARC, "sparc"}, {EM_SPARCV9, "sparc64"}, {EM_LOONGARCH, "loongarch"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].machine == machine)
            return names[i].name;
    return "unknown";
}

static bool looks_like_text(const unsigned char *bytes, uint64_t count)
{
    for (uint64_t i = 0; i < count && i < 64; i++)
        if (!isprint(bytes[i]) && !isspace(bytes[i]) && bytes[i] < 0x80)
            return false;
    return true;
}

static enum hi_code check_type(unsigned type, const char *path, struct hi_err *err)
{
    if (type == ET_CORE)
        return HI_OK;
    if (type == ET_EXEC || type == ET_DYN)
        return hi_fail(err, HI_BAD_INPUT,
                       "%s is an executable or library, not a core; did you mean --exe=%s?", path,
                       path);
    return hi_fail(err, HI_BAD_INPUT, "%s is an ELF file of type %u, not a core", path, type);
}

enum hi_code core_headers_check(const void *bytes, uint64_t count, const char *path,
                                struct hi_err *err)
{
    const unsigned char *ident = bytes;
    Elf64_Ehdr header;
    if (count < SELFMAG || memcmp(ident, ELFMAG, SELFMAG) != 0)
        return hi_fail(err, HI_BAD_INPUT, "%s is %s, not a core", path,
                       looks_like_text(ident, count) ? "a text file" : "not an ELF file");
    if (count < sizeof header)
        return hi_fail(err, HI_BAD_INPUT, "%s is cut off within the ELF header", path);
    memcpy(&header, bytes, sizeof header);
    if (ident[EI_DATA] != ELFDATA2LSB)
        return hi_fail(err, HI_UNSUPPORTED,
                       "%s is of a big-endian machine; only x86-64 can be inspected", path);
    enum hi_code code = check_type(header.e_type, path, err);
    if (code != HI_OK)
        return code;
    if (ident[EI_CLASS] != ELFCLASS64)
        return hi_fail(err, HI_UNSUPPORTED,
                       "%s is the core of a 32-bit program (%s); only x86-64 can be inspected",
                       path, machine_name(header.e_machine));
    if (header.e_machine != EM_X86_64)
        return hi_fail(err, HI_UNSUPPORTED,
                       "%s is the core of another machine (%s); only x86-64 can be inspected", path,
                       machine_name(header.e_machine));
    return HI_OK;
}

static uint64_t segment_count(const struct core_image *image, const Elf64_Ehdr *header)
{
    Elf64_Shdr first;
    if (header->e_phnum != PN_XNUM)
        return header->e_phnum;
    if (header->e_shentsize != sizeof first ||
        !core_image_has(image, header->e_shoff, sizeof first))
        return PN_XNUM;
    memcpy(&first, image->bytes + header->e_shoff, sizeof first);
    return first.sh_info;
}

/* There is one in truth; a table full of them would have us read the same notes again and again. */
static bool push_note(struct core_headers *headers, const Elf64_Phdr *from)
{
    if (headers->notes.count == NOTE_SEGMENT_LIMIT) {
        headers->senseless++;
        return true;
    }
    struct hi_range *range = VECTOR_PUSH(&headers->notes);
    if (range)
        *range =
            (struct hi_range){from->p_offset, target_add_bytes(from->p_offset, from->p_filesz)};
    return range != NULL;
}

static bool push_segment(struct core_headers *headers, const Elf64_Phdr *from)
{
    uint64_t memory = from->p_memsz > from->p_filesz ? from->p_memsz : from->p_filesz;
    if (memory == 0)
        return true;
    hi_addr end = target_add_bytes(from->p_vaddr, memory);
    if (end - from->p_vaddr != memory || from->p_filesz > from->p_memsz ||
        target_add_bytes(from->p_offset, from->p_filesz) - from->p_offset != from->p_filesz)
        headers->senseless++;
    if (end == from->p_vaddr)
        return true;
    struct core_segment *segment = VECTOR_PUSH(&headers->segments);
    if (!segment)
        return false;
    *segment = (struct core_segment){
        .start = from->p_vaddr,
        .end = end,
        .offset = from->p_offset,
        .file_bytes = from->p_filesz < end - from->p_vaddr ? from->p_filesz : end - from->p_vaddr,
        .protection = (from->p_flags & PF_R ? MAPPING_READ : 0) |
                      (from->p_flags & PF_W ? MAPPING_WRITE : 0) |
                      (from->p_flags & PF_X ? MAPPING_EXECUTE : 0),
    };
    return true;
}

static int compare_segments(const void *left, const void *right)
{
    const struct core_segment *a = left, *b = right;
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static void drop_overlaps(struct core_headers *headers)
{
    struct core_segment *items = headers->segments.items;
    size_t kept = 0;
    if (headers->segments.count)
        qsort(items, headers->segments.count, sizeof *items, compare_segments);
    for (size_t i = 0; i < headers->segments.count; i++) {
        struct core_segment segment = items[i];
        hi_addr taken = kept ? items[kept - 1].end : 0;
        if (segment.start < taken) {
            uint64_t cut = taken - segment.start;
            headers->overlapping++;
            segment.start = taken;
            segment.offset = target_add_bytes(segment.offset, cut);
            segment.file_bytes -= cut < segment.file_bytes ? cut : segment.file_bytes;
        }
        if (segment.start < segment.end)
            items[kept++] = segment;
    }
    headers->segments.count = kept;
}

enum hi_code core_headers_read(struct core_headers *headers, const struct core_image *image,
                               const char *path, struct hi_err *err)
{
    Elf64_Ehdr header;
    enum hi_code code = core_headers_check(image->bytes, image->size, path, err);
    if (code != HI_OK)
        return code;
    memcpy(&header, image->bytes, sizeof header);
    if (header.e_phentsize != sizeof(Elf64_Phdr))
        return hi_fail(err, HI_BAD_INPUT, "%s has segment headers of %u bytes; it is damaged", path,
                       header.e_phentsize);
    uint64_t count = segment_count(image, &header);
    for (uint64_t i = 0; i < count; i++) {
        Elf64_Phdr segment;
        uint64_t at = target_add_bytes(header.e_phoff, i * sizeof segment);
        headers->is_cut = !core_image_has(image, at, sizeof segment);
        if (headers->is_cut)
            break;
        memcpy(&segment, image->bytes + at, sizeof segment);
        if ((segment.p_type == PT_LOAD && !push_segment(headers, &segment)) ||
            (segment.p_type == PT_NOTE && !push_note(headers, &segment)))
            return hi_no_memory(err);
    }
    drop_overlaps(headers);
    if (headers->segments.count == 0)
        return hi_fail(err, HI_BAD_INPUT, "%s %s", path,
                       headers->is_cut ? "is cut off before its table of segments"
                                       : "is a core without any memory in it");
    return HI_OK;
}

void core_headers_free(struct core_headers *headers)
{
    VECTOR_FREE(&headers->segments);
    VECTOR_FREE(&headers->notes);
}
