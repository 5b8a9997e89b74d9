/*
 * unpack_sections: see unpack_sections.h.
 *
 * libdw would unpack every section when it opens a file, one after the other, also those that names
 * have no use for (locations are often the largest), and zstd only in newer versions. Here the
 * useful ones are unpacked by several threads. Together they may be 64 times the file (sound ones
 * are 3 to 10 times theirs); a section that is not what it says is left empty; of two of one name
 * the first counts.
 */
#include "symbols/unpack_sections.h"

#include "base/parallel.h"
#include "base/vector.h"

#include <stdatomic.h>
#include <zlib.h>
#include <zstd.h>

/* Some <elf.h> do not have it. */
enum { PACKED_BY_ZLIB = 1, PACKED_BY_ZSTD = 2, PACKED_NOT = 0 };
enum { BEST_RATIO = 64, WORTH_THREADS_BYTES = 1 << 20, SMALL_BYTES = 16 << 20 };

struct packed_section {
    Elf64_Shdr header;
    const char *name; /* without the z of .zdebug */
    const unsigned char *from;
    uint64_t from_bytes, bytes;
    unsigned kind;
    unsigned char *to;
};

struct job {
    VECTOR(struct packed_section) sections;
    atomic_size_t next;
};

static const char *const wanted[] = {
    ".debug_info",     ".debug_abbrev", ".debug_line", ".debug_line_str",    ".debug_str",
    ".debug_rnglists", ".debug_ranges", ".debug_addr", ".debug_str_offsets", ".gnu_debugaltlink",
};

/* The wanted name behind a section's, or NULL. */
static const char *wanted_name(const char *name, bool *is_old)
{
    *is_old = strncmp(name, ".zdebug_", 8) == 0;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (strcmp(wanted[i], name) == 0 || (*is_old && strcmp(wanted[i] + 1, name + 2) == 0))
            return wanted[i];
    return NULL;
}

/* -- what there is -----------------------------------------------------------------------------*/

static bool take_size(struct packed_section *section, uint64_t bytes, size_t head, unsigned kind)
{
    section->from += head;
    section->from_bytes -= head;
    section->bytes = bytes;
    section->kind = kind;
    return kind == PACKED_BY_ZLIB || kind == PACKED_BY_ZSTD;
}

static bool take_packing(struct packed_section *section, bool is_old)
{
    section->bytes = section->from_bytes;
    if (section->header.sh_flags & SHF_COMPRESSED) {
        Elf64_Chdr head;
        if (section->from_bytes < sizeof head)
            return false;
        memcpy(&head, section->from, sizeof head);
        return take_size(section, head.ch_size, sizeof head, head.ch_type);
    }
    if (is_old) {
        uint64_t bytes = 0;
        if (section->from_bytes < 12 || memcmp(section->from, "ZLIB", 4) != 0)
            return false;
        for (size_t i = 4; i < 12; i++)
            bytes = bytes << 8 | section->from[i];
        return take_size(section, bytes, 12, PACKED_BY_ZLIB);
    }
    return true;
}

/* The next section of use at or after *index. */
static bool next_section(const struct image *image, size_t *index, struct packed_section *section)
{
    Elf64_Ehdr header;
    Elf64_Shdr names;
    if (!image_header(image, &header) || !image_section_at(image, header.e_shstrndx, &names))
        return false;
    const char *text = image_section_bytes(image, &names);
    for (; text && image_section_at(image, *index, &section->header); ++*index) {
        uint64_t at = section->header.sh_name;
        bool is_old;
        if (at >= names.sh_size || !memchr(text + at, 0, names.sh_size - at))
            continue;
        section->name = wanted_name(text + at, &is_old);
        section->from = section->name ? image_section_bytes(image, &section->header) : NULL;
        section->from_bytes = section->header.sh_size;
        if (section->from && take_packing(section, is_old)) {
            ++*index;
            return true;
        }
    }
    return false;
}

bool sections_are_packed(const struct image *image)
{
    struct packed_section section = {0};
    for (size_t index = 1; next_section(image, &index, &section); section.kind = PACKED_NOT)
        if (section.kind != PACKED_NOT)
            return true;
    return false;
}

/* -- unpacking ---------------------------------------------------------------------------------*/

static void unpack(struct packed_section *section)
{
    uLongf bytes = section->bytes;
    size_t got = 0;
    if (section->kind == PACKED_NOT) {
        memcpy(section->to, section->from, section->bytes);
        got = section->bytes;
    } else if (section->kind == PACKED_BY_ZSTD) {
        got = ZSTD_decompress(section->to, section->bytes, section->from, section->from_bytes);
    } else if (section->kind == PACKED_BY_ZLIB &&
               uncompress(section->to, &bytes, section->from, section->from_bytes) == Z_OK) {
        got = bytes;
    }
    if (got != section->bytes)
        section->bytes = 0;
}

static void unpack_some(void *context, int worker)
{
    struct job *job = context;
    (void)worker;
    for (size_t i; (i = atomic_fetch_add(&job->next, 1)) < job->sections.count;)
        unpack(&job->sections.items[i]);
}

/* The largest first, so that no thread begins with it last. */
static int compare_size(const void *a, const void *b)
{
    const struct packed_section *left = a, *right = b;
    return left->bytes > right->bytes ? -1 : left->bytes < right->bytes;
}

static bool collect(const struct image *image, struct job *job)
{
    size_t index = 1;
    struct packed_section found = {0};
    for (; next_section(image, &index, &found); found.kind = PACKED_NOT) {
        bool is_second = false;
        for (size_t i = 0; i < job->sections.count; i++)
            is_second |= job->sections.items[i].name == found.name;
        if (is_second)
            continue;
        struct packed_section *section = VECTOR_PUSH(&job->sections);
        if (!section)
            return false;
        *section = found;
    }
    if (job->sections.count)
        qsort(job->sections.items, job->sections.count, sizeof *job->sections.items, compare_size);
    return job->sections.count > 0;
}

/* -- the file in memory: header, contents, names, section headers ------------------------------*/

static uint64_t align(uint64_t value)
{
    return (value + 15) & ~15ull;
}

struct file {
    unsigned char *bytes;
    uint64_t contents_bytes, names_at, headers_at, size;
};

static bool lay_out(struct file *file, const struct job *job, uint64_t packed_bytes)
{
    uint64_t most = packed_bytes * BEST_RATIO + SMALL_BYTES;
    uint64_t names = 1 + sizeof ".shstrtab", at = align(sizeof(Elf64_Ehdr));
    for (size_t i = 0; i < job->sections.count; i++) {
        if (job->sections.items[i].bytes > most || at > most)
            return false;
        at += align(job->sections.items[i].bytes);
        names += strlen(job->sections.items[i].name) + 1;
    }
    file->contents_bytes = at;
    file->names_at = at;
    file->headers_at = align(at + names);
    file->size = file->headers_at + (job->sections.count + 2) * sizeof(Elf64_Shdr);
    file->bytes = malloc(file->size);
    if (!file->bytes)
        return false;
    memset(file->bytes + at, 0, file->size - at);
    return true;
}

static uint32_t add_name(struct file *file, uint64_t *used, const char *name)
{
    uint32_t at = (uint32_t)*used;
    memcpy(file->bytes + file->names_at + at, name, strlen(name) + 1);
    *used += strlen(name) + 1;
    return at;
}

static void write_headers(struct file *file, const struct job *job, const struct image *image)
{
    Elf64_Ehdr header;
    uint64_t names = 1, count = job->sections.count;
    unsigned char *to = file->bytes + file->headers_at + sizeof(Elf64_Shdr);
    for (size_t i = 0; i < count; i++, to += sizeof(Elf64_Shdr)) {
        const struct packed_section *section = &job->sections.items[i];
        Elf64_Shdr one = section->header;
        one.sh_name = add_name(file, &names, section->name);
        one.sh_flags &= ~(uint64_t)SHF_COMPRESSED;
        one.sh_type = SHT_PROGBITS;
        one.sh_offset = (uint64_t)(section->to - file->bytes);
        one.sh_size = section->bytes;
        one.sh_link = one.sh_info = 0;
        one.sh_addralign = 1;
        memcpy(to, &one, sizeof one);
    }
    Elf64_Shdr last = {.sh_type = SHT_STRTAB, .sh_offset = file->names_at, .sh_addralign = 1};
    last.sh_name = add_name(file, &names, ".shstrtab");
    last.sh_size = names;
    memcpy(to, &last, sizeof last);
    image_header(image, &header);
    header.e_phnum = 0;
    header.e_phoff = 0;
    header.e_shoff = file->headers_at;
    header.e_shnum = (uint16_t)(count + 2);
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shstrndx = (uint16_t)(count + 1);
    memcpy(file->bytes, &header, sizeof header);
}

bool sections_unpack(const struct image *image, struct image *unpacked)
{
    struct job job = {0};
    struct file file = {0};
    memset(unpacked, 0, sizeof *unpacked);
    if (!collect(image, &job) || !lay_out(&file, &job, image->size)) {
        VECTOR_FREE(&job.sections);
        return false;
    }
    unsigned char *to = file.bytes + align(sizeof(Elf64_Ehdr));
    for (size_t i = 0; i < job.sections.count; i++) {
        job.sections.items[i].to = to;
        to += align(job.sections.items[i].bytes);
    }
    int jobs = file.contents_bytes > WORTH_THREADS_BYTES ? parallel_default_jobs() : 1;
    if ((size_t)jobs > job.sections.count)
        jobs = (int)job.sections.count;
    parallel_run(jobs, unpack_some, &job);
    write_headers(&file, &job, image);
    VECTOR_FREE(&job.sections);
    if (image_open_memory(unpacked, file.bytes, file.size, NULL) == HI_OK)
        return true;
    memset(unpacked, 0, sizeof *unpacked);
    return false;
}
