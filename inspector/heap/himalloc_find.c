/*
 * Finding himalloc in a target: himalloc_format.h, section 1.
 *
 * Evidence comes from the target's memory alone, so that neither the library's file nor symbols are
 * needed. First the note: every mapping that starts with an ELF header is asked for a note of
 * vendor "himalloc"; its descriptor leads to the anchor, and that to the preamble. The anchor must
 * lie in writable memory: a library that is merely mapped as a file (by a linker, by a debugger)
 * has the note as well, but no anchor. An anchor that holds 0 is an allocator that was never used.
 * Without a note that leads anywhere (a core without the library's first page), the preamble is
 * looked for at the aligned starts of readable mappings.
 *
 * A note whose preamble is not sound is an allocator that we can't read: said, never skipped. The
 * same preamble reached twice is one heap.
 */
#include "heap/himalloc_heap.h"

#include "allocator/himalloc_format.h"

#include <elf.h>
#include <inttypes.h>
#include <stdarg.h>

enum { FIND_MAX = 8, FIND_MAX_HEADERS = 256, FIND_MAX_NOTES = 4096 };

struct candidate {
    hi_addr preamble; /* 0: never used */
    bool lost;        /* the anchor can't be read */
};

struct candidates {
    struct candidate items[FIND_MAX];
    size_t count;
};

static void candidate_add(struct candidates *found, hi_addr preamble, bool lost)
{
    for (size_t i = 0; i < found->count; i++)
        if (found->items[i].preamble == preamble && found->items[i].lost == lost)
            return;
    if (found->count < FIND_MAX)
        found->items[found->count++] = (struct candidate){preamble, lost};
}

/* The descriptor's distance leads to the anchor, and the anchor to the preamble. */
static void anchor_follow(struct target *target, hi_addr descriptor, int64_t distance,
                          struct candidates *found)
{
    hi_addr anchor = descriptor + (uint64_t)distance, preamble;
    const struct mapping *mapping = target_mapping_at(target, anchor);
    if (mapping && !(mapping->protection & MAPPING_WRITE))
        return;
    if (target_read_u64(target, anchor, &preamble, NULL) == HI_OK)
        candidate_add(found, preamble, false);
    else if (mapping)
        candidate_add(found, anchor, true);
}

static void notes_search(struct target *target, hi_addr address, const unsigned char *notes,
                         size_t bytes, struct candidates *found)
{
    static const char vendor[] = "himalloc";
    size_t at = 0;
    while (bytes - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, notes + at, sizeof note);
        at += sizeof note;
        size_t name = at, name_bytes = ((size_t)note.n_namesz + 3) & ~(size_t)3;
        if (name_bytes > bytes - at)
            return;
        at += name_bytes;
        size_t descriptor = at, descriptor_bytes = ((size_t)note.n_descsz + 3) & ~(size_t)3;
        if (descriptor_bytes > bytes - at)
            return;
        at += descriptor_bytes;
        if (note.n_type != HM_NOTE_ROOT || note.n_namesz != sizeof vendor || note.n_descsz < 8 ||
            memcmp(notes + name, vendor, sizeof vendor) != 0)
            continue;
        int64_t distance;
        memcpy(&distance, notes + descriptor, sizeof distance);
        anchor_follow(target, address + descriptor, distance, found);
    }
}

static void segment_search(struct target *target, hi_addr address, uint64_t bytes,
                           struct candidates *found)
{
    unsigned char notes[FIND_MAX_NOTES];
    size_t wanted = bytes < sizeof notes ? (size_t)bytes : sizeof notes;
    size_t got = target_read_some(target, address, notes, wanted);
    if (got >= sizeof(Elf64_Nhdr))
        notes_search(target, address, notes, got, found);
}

/* All PT_NOTE segments of the module whose header stands at start. */
static void module_search(struct target *target, hi_addr start, struct candidates *found)
{
    Elf64_Ehdr header;
    if (target_read_some(target, start, &header, sizeof header) < sizeof header ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
        header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > FIND_MAX_HEADERS)
        return;
    Elf64_Phdr segments[FIND_MAX_HEADERS];
    size_t bytes = header.e_phnum * sizeof *segments;
    size_t count =
        target_read_some(target, start + header.e_phoff, segments, bytes) / sizeof *segments;
    uint64_t lowest = UINT64_MAX;
    for (size_t i = 0; i < count; i++)
        if (segments[i].p_type == PT_LOAD && segments[i].p_vaddr < lowest)
            lowest = segments[i].p_vaddr & ~UINT64_C(0xfff);
    for (size_t i = 0; i < count; i++)
        if (segments[i].p_type == PT_NOTE)
            segment_search(target, start + (segments[i].p_vaddr - lowest), segments[i].p_filesz,
                           found);
}

static bool preamble_read(struct target *target, hi_addr address, struct hm_preamble *preamble)
{
    return target_read_some(target, address, preamble, sizeof *preamble) == sizeof *preamble;
}

static bool preamble_is_sound(const struct hm_preamble *preamble, hi_addr address)
{
    return memcmp(preamble->magic, HM_MAGIC, sizeof preamble->magic) == 0 &&
           preamble->byte_order == HM_BYTE_ORDER && preamble->self == address;
}

static void magic_search(struct target *target, struct candidates *found)
{
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        struct hm_preamble preamble;
        if ((mapping->protection & MAPPING_READ) && mapping->start % HM_ROOT_ALIGN == 0 &&
            preamble_read(target, mapping->start, &preamble) &&
            preamble_is_sound(&preamble, mapping->start))
            candidate_add(found, mapping->start, false);
    }
}

static void candidates_find(struct target *target, struct candidates *found)
{
    bool any = false;
    for (size_t i = 0; i < target_mapping_count(target); i++) {
        const struct mapping *mapping = target_mapping(target, i);
        if ((mapping->protection & MAPPING_READ) && mapping->file_offset == 0 && !mapping->special)
            module_search(target, mapping->start, found);
    }
    for (size_t i = 0; i < found->count; i++)
        any |= !found->items[i].lost;
    if (!any) {
        struct candidates by_magic = {0};
        magic_search(target, &by_magic);
        if (by_magic.count > 0)
            *found = by_magic;
    }
}

HI_PRINTF(3, 4)
static enum hi_code not_understood(struct probe *probe, struct hi_err *err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(probe->unknown, sizeof probe->unknown, format, arguments);
    va_end(arguments);
    return hi_fail(err, HI_UNSUPPORTED, "%s", probe->unknown);
}

static enum hi_code preamble_check(struct target *target, const struct candidate *candidate,
                                   struct hm_preamble *preamble, struct probe *probe,
                                   struct hi_err *err)
{
    hi_addr address = candidate->preamble;
    if (candidate->lost)
        return not_understood(
            probe, err, "himalloc is here, but its anchor at 0x%" PRIx64 " can't be read", address);
    if (!preamble_read(target, address, preamble))
        return not_understood(probe, err,
                              "himalloc is here, but its root page at 0x%" PRIx64 " can't be read",
                              address);
    if (!preamble_is_sound(preamble, address))
        return not_understood(probe, err,
                              "himalloc is here, but its root page at 0x%" PRIx64 " is overwritten",
                              address);
    if (preamble->major != HM_MAJOR)
        return not_understood(probe, err,
                              "himalloc is here with heap format %u.%u; this program reads %u.x",
                              preamble->major, preamble->minor, HM_MAJOR);
    return HI_OK;
}

static enum hi_code heap_understand(struct himalloc *heap, struct target *target,
                                    const struct candidate *candidate, struct probe *probe,
                                    struct hi_err *err)
{
    struct hm_preamble preamble = {0};
    enum hi_code code = preamble_check(target, candidate, &preamble, probe, err);
    if (code != HI_OK)
        return code;
    struct hi_err why = {0};
    heap->active = true;
    heap->preamble = candidate->preamble;
    heap->root = preamble.root;
    snprintf(probe->version, sizeof probe->version, "%u.%u", preamble.major, preamble.minor);
    code = schema_read(&heap->schema, target, preamble.schema, preamble.schema_record_bytes,
                       preamble.schema_record_count, &why);
    if (code == HI_OK)
        code = himalloc_decode(heap, target, probe->version, sizeof probe->version, &why);
    if (code == HI_NO_MEMORY)
        return hi_no_memory(err);
    if (code != HI_OK)
        return not_understood(probe, err, "himalloc is here, but %s", why.message);
    return HI_OK;
}

enum hi_code himalloc_probe(const struct heap_context *context, unsigned instance,
                            struct probe *probe, struct hi_err *err)
{
    struct candidates found = {0};
    candidates_find(context->target, &found);
    if (instance >= found.count)
        return hi_fail(err, HI_NOT_FOUND, "no himalloc note and no himalloc root page");
    struct himalloc *heap = calloc(1, sizeof *heap);
    if (!heap)
        return hi_no_memory(err);
    const struct candidate *candidate = &found.items[instance];
    if (candidate->preamble != 0) {
        enum hi_code code = heap_understand(heap, context->target, candidate, probe, err);
        if (code != HI_OK) {
            himalloc_close(heap);
            return code;
        }
    }
    probe->found_by = FOUND_NATIVE;
    probe->active = heap->active;
    probe->state = heap;
    return HI_OK;
}

void himalloc_close(void *state)
{
    struct himalloc *heap = state;
    VECTOR_FREE(&heap->arena_table);
    VECTOR_FREE(&heap->arena_addresses);
    VECTOR_FREE(&heap->thread_addresses);
    VECTOR_FREE(&heap->sized);
    himalloc_stacks_free(&heap->stacks);
    free(heap);
}
