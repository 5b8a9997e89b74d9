/*
 * What lies where: mappings from segments and NT_FILE, and for each stretch of them where its
 * bytes are.
 *
 * Both lists are sorted and disjoint; one sweep over their borders gives parts that are inside or
 * outside of a segment, inside or outside of a file. A part within p_filesz is in the core, or was
 * cut off when the core ends before. A part behind p_filesz has one of four meanings, which the
 * header alone can't tell:
 *
 *   named file     text, rodata, a data page that nobody wrote: the file has it (EXTENT_FILE)
 *   shared memory  a file without a name: it is gone (EXTENT_FILTERED)
 *   no access      PROT_NONE and nothing written: never touched (EXTENT_ZERO)
 *   anonymous      never touched, or left out: the kernel writes anonymous memory whole once a page
 *                  of it was touched, so it reads as zeros (EXTENT_ZERO). MADV_DONTDUMP looks the
 *                  same and can't be told. But when a thread's own stack is left out, which it has
 *                  certainly touched, coredump_filter excluded anonymous memory altogether: then
 *                  all of it is EXTENT_FILTERED.
 *
 * gdb's gcore leaves text and rodata out without a segment: NT_FILE alone names them. Of their
 * protection nothing is known, so they are taken for readable and executable. It writes PROT_NONE
 * memory in full and marked readable, which can't be told from true content and does no harm.
 */
#include "target/core.h"

#include <elf.h>

#define VSYSCALL_ADDRESS 0xffffffffff600000ULL

struct part {
    hi_addr start, end;
    const struct core_segment *segment; /* NULL: gcore left it out */
    const struct core_file *file;       /* NULL: anonymous */
};

struct maker {
    struct core_layout *layout;
    struct target *target;
    const struct core_image *image;
    uint64_t vdso, stack; /* addresses within, 0: not known */
};

/* ---- extents ---- */

static bool push_extent(struct maker *maker, hi_addr start, hi_addr end, uint64_t offset,
                        enum core_extent_kind kind)
{
    if (start >= end)
        return true;
    struct core_extent *extent = VECTOR_PUSH(&maker->layout->extents);
    if (!extent)
        return false;
    *extent = (struct core_extent){start, end, offset, kind};
    if (kind == EXTENT_TRUNCATED)
        maker->layout->truncated_bytes += end - start;
    if (kind == EXTENT_TRUNCATED || kind == EXTENT_FILTERED)
        return target_push_missing(maker->target, start, end);
    return true;
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static bool is_shared_memory(const char *path)
{
    return starts_with(path, "/dev/zero") || starts_with(path, "/memfd:") ||
           starts_with(path, "/SYSV") || starts_with(path, "/anon_hugepage");
}

static enum core_extent_kind kind_without_bytes(const struct maker *maker, const struct part *part)
{
    if (part->file)
        return is_shared_memory(part->file->path) ? EXTENT_FILTERED : EXTENT_FILE;
    bool writable = part->segment->protection & MAPPING_WRITE;
    return writable && maker->layout->anonymous_filtered ? EXTENT_FILTERED : EXTENT_ZERO;
}

/* Up to three: in the core, cut off, not written. */
static bool push_extents(struct maker *maker, const struct part *part)
{
    const struct core_segment *segment = part->segment;
    if (!segment)
        return push_extent(maker, part->start, part->end, 0, kind_without_bytes(maker, part));
    hi_addr data_end = segment->start + segment->file_bytes;
    data_end = data_end < part->end ? data_end : part->end;
    data_end = data_end > part->start ? data_end : part->start;
    uint64_t offset = target_add_bytes(segment->offset, part->start - segment->start);
    uint64_t in_file = offset < maker->image->size ? maker->image->size - offset : 0;
    hi_addr there_end = data_end - part->start < in_file ? data_end : part->start + in_file;
    maker->layout->dumped_bytes += data_end - part->start;
    return push_extent(maker, part->start, there_end, offset, EXTENT_DATA) &&
           push_extent(maker, there_end, data_end, 0, EXTENT_TRUNCATED) &&
           push_extent(maker, data_end, part->end, 0, kind_without_bytes(maker, part));
}

/* ---- mappings ---- */

static const char *name_of(const struct maker *maker, const struct part *part)
{
    if (part->file)
        return part->file->path;
    if (maker->vdso && maker->vdso >= part->start && maker->vdso < part->end)
        return "[vdso]";
    if (maker->stack && maker->stack >= part->start && maker->stack < part->end)
        return "[stack]";
    return part->start == VSYSCALL_ADDRESS ? "[vsyscall]" : NULL;
}

static bool push_part(struct maker *maker, const struct part *part)
{
    const char *name = name_of(maker, part);
    const struct core_segment *segment = part->segment;
    struct mapping *mapping = target_push_mapping(maker->target, part->start, part->end, name);
    if (!mapping)
        return false;
    mapping->protection = segment ? segment->protection : MAPPING_READ | MAPPING_EXECUTE;
    mapping->special = name && starts_with(name, "[v");
    if (part->file)
        mapping->file_offset = part->file->offset + (part->start - part->file->start);
    mapping->dumped =
        segment && part->start - segment->start < segment->file_bytes &&
        target_add_bytes(segment->offset, part->start - segment->start) < maker->image->size;
    return push_extents(maker, part);
}

static hi_addr lower(hi_addr a, hi_addr b)
{
    return a < b ? a : b;
}

static bool sweep(struct maker *maker, const struct core_headers *headers,
                  const struct core_notes *notes)
{
    size_t s = 0, f = 0;
    const struct core_segment *segments = headers->segments.items;
    const struct core_file *files = notes->files.items;
    for (hi_addr at = 0;;) {
        while (s < headers->segments.count && segments[s].end <= at)
            s++;
        while (f < notes->files.count && files[f].end <= at)
            f++;
        const struct core_segment *segment = s < headers->segments.count ? &segments[s] : NULL;
        const struct core_file *file = f < notes->files.count ? &files[f] : NULL;
        if (!segment && !file)
            return true;
        hi_addr next =
            lower(segment ? segment->start : UINT64_MAX, file ? file->start : UINT64_MAX);
        at = next > at ? next : at;
        bool in_segment = segment && segment->start <= at, in_file = file && file->start <= at;
        hi_addr segment_border = in_segment ? segment->end : segment ? segment->start : UINT64_MAX;
        hi_addr file_border = in_file ? file->end : file ? file->start : UINT64_MAX;
        struct part part = {at, lower(segment_border, file_border), in_segment ? segment : NULL,
                            in_file ? file : NULL};
        if (!push_part(maker, &part))
            return false;
        at = part.end;
    }
}

/* ---- what a thread's stack tells ---- */

static const struct core_segment *segment_at(const core_segments *segments, hi_addr address)
{
    size_t low = 0, high = segments->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (segments->items[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < segments->count && segments->items[low].start <= address)
        return &segments->items[low];
    return NULL;
}

static void look_at_stacks(struct maker *maker, const struct core_headers *headers)
{
    struct target *target = maker->target;
    size_t without_stack = 0;
    for (size_t i = 0; i < target->threads.count; i++) {
        const struct core_segment *segment =
            segment_at(&headers->segments, target->threads.items[i].sp);
        without_stack += !segment;
        if (segment && segment->file_bytes == 0 && (segment->protection & MAPPING_WRITE))
            maker->layout->anonymous_filtered = true;
    }
    if (maker->layout->anonymous_filtered)
        target_add_note(target, "the core was written without anonymous memory: heaps and stacks "
                                "are not in it (see coredump_filter in core(5))");
    if (without_stack) {
        target->incomplete = true;
        target_add_note(target, "the stacks of %zu threads are not in the core", without_stack);
    }
}

enum hi_code core_layout_make(struct core_layout *layout, struct target *target,
                              const struct core_image *image, const struct core_headers *headers,
                              const struct core_notes *notes, struct hi_err *err)
{
    struct maker maker = {.layout = layout, .target = target, .image = image};
    target_auxv(target, AT_SYSINFO_EHDR, &maker.vdso);
    target_auxv(target, AT_RANDOM, &maker.stack);
    look_at_stacks(&maker, headers);
    if (!sweep(&maker, headers, notes))
        return hi_no_memory(err);
    return target_seal(target, err);
}

void core_layout_free(struct core_layout *layout)
{
    VECTOR_FREE(&layout->extents);
}

const struct core_extent *core_layout_at(const struct core_layout *layout, hi_addr address)
{
    size_t low = 0, high = layout->extents.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (layout->extents.items[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < layout->extents.count ? &layout->extents.items[low] : NULL;
}
