/*
 * frames: where a function's caller had its stack pointer, by .eh_frame (libdw).
 *
 * One question only (symbols.h): with a return address and the stack pointer at that point, the
 * canonical frame address. Answered for frames whose CFA is an offset from the stack pointer, which
 * is what C libraries are compiled to; frames that count from another register are HI_NOT_FOUND,
 * since the caller has no registers of an outer frame to offer.
 *
 * libdw's own look-ups by address are not used (linear scans); its CFI table is a binary search
 * over .eh_frame_hdr. Without a file, a copy of the module's mapped segments serves, laid out as a
 * file: what libdw needs is found by program headers alone.
 */
#include "symbols/internal.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <inttypes.h>
#include <libelf.h>

enum { DWARF_RSP = 7, MEMORY_IMAGE_MAX_BYTES = 64 << 20 };

struct frames {
    Elf *elf;
    Dwarf_CFI *cfi;
    struct image copy; /* when there is no file */
};

void frames_close(struct module_record *record)
{
    struct frames *frames = record->frames;
    record->frames = NULL;
    if (!frames)
        return;
    /* a CFI table got by dwarf_getcfi_elf is ours to end */
    if (frames->cfi)
        dwarf_cfi_end(frames->cfi);
    if (frames->elf)
        elf_end(frames->elf);
    image_close(&frames->copy);
    free(frames);
}

/* The read-only segments of the target's memory at their file offsets; the rest stays zero. */
static bool copy_memory(struct symbols *symbols, struct module_record *record, struct image *copy)
{
    uint64_t size = 0;
    for (size_t i = 0; i < record->header_count; i++) {
        const Elf64_Phdr *h = &record->headers[i];
        if (h->p_type != PT_LOAD || h->p_offset > MEMORY_IMAGE_MAX_BYTES ||
            h->p_filesz > MEMORY_IMAGE_MAX_BYTES - h->p_offset)
            continue;
        size = h->p_offset + h->p_filesz > size ? h->p_offset + h->p_filesz : size;
    }
    unsigned char *bytes = size >= sizeof(Elf64_Ehdr) ? calloc(1, size) : NULL;
    if (!bytes)
        return false;
    for (size_t i = 0; i < record->header_count; i++) {
        const Elf64_Phdr *h = &record->headers[i];
        if (h->p_type == PT_LOAD && !(h->p_flags & PF_W) && h->p_offset <= size &&
            h->p_filesz <= size - h->p_offset)
            (void)target_read_some(symbols->target, record->module.bias + h->p_vaddr,
                                   bytes + h->p_offset, h->p_filesz);
    }
    /* section headers are never mapped */
    memset(bytes + offsetof(Elf64_Ehdr, e_shoff), 0, sizeof(Elf64_Off));
    memset(bytes + offsetof(Elf64_Ehdr, e_shnum), 0, 2 * sizeof(Elf64_Half));
    return image_open_memory(copy, bytes, size, NULL) == HI_OK;
}

static struct frames *frames_open(struct symbols *symbols, struct module_record *record)
{
    if (record->frames || record->frames_tried)
        return record->frames;
    record->frames_tried = true;
    struct frames *frames = calloc(1, sizeof *frames);
    record->frames = frames;
    if (!frames)
        return NULL;
    const struct image *image = &record->file;
    if (!image->bytes && copy_memory(symbols, record, &frames->copy))
        image = &frames->copy;
    elf_version(EV_CURRENT);
    if (image->bytes)
        frames->elf = elf_memory((char *)(uintptr_t)image->bytes, image->size);
    if (frames->elf)
        frames->cfi = dwarf_getcfi_elf(frames->elf);
    if (!frames->cfi)
        frames_close(record);
    return record->frames;
}

/* CFA = stack pointer + offset, or false. */
static bool offset_from_sp(Dwarf_Frame *frame, int64_t *offset)
{
    Dwarf_Op *ops;
    size_t count;
    if (dwarf_frame_cfa(frame, &ops, &count) != 0 || count != 1)
        return false;
    if (ops[0].atom == DW_OP_bregx && ops[0].number == DWARF_RSP) {
        *offset = (int64_t)ops[0].number2;
        return true;
    }
    if (ops[0].atom == DW_OP_breg0 + DWARF_RSP) {
        *offset = (int64_t)ops[0].number;
        return true;
    }
    return false;
}

enum hi_code symbols_frame_cfa(struct symbols *symbols, hi_addr pc, hi_addr sp, hi_addr *cfa,
                               struct hi_err *err)
{
    struct module_record *record = module_record_at(symbols, pc);
    struct frames *frames = record ? frames_open(symbols, record) : NULL;
    Dwarf_Frame *frame = NULL;
    int64_t offset;
    /* a return address belongs to the call before it */
    if (!frames || dwarf_cfi_addrframe(frames->cfi, pc - 1 - record->module.bias, &frame) != 0)
        return hi_fail(err, HI_NOT_FOUND, "no unwind information for 0x%" PRIx64, pc);
    bool known = offset_from_sp(frame, &offset);
    free(frame);
    if (!known || offset < 8 || offset > (1 << 20))
        return hi_fail(err, HI_NOT_FOUND, "the frame at 0x%" PRIx64 " is not counted from sp", pc);
    *cfa = sp + (uint64_t)offset;
    return HI_OK;
}
