/*
 * relocations: the relative ones of a module, as (place, value) in the target's addresses.
 *
 * They say which words of the writable data hold addresses inside the module, even in a stripped
 * file: DT_RELA entries of type R_X86_64_RELATIVE (value = bias + addend), and DT_RELR, a packed
 * list of places whose values stand in the file at the place itself.
 *
 * DT_RELR: an even word is the place of one relocation and the start of the next window, an odd
 * word is a bitmap of the 63 words from there on.
 */
#include "symbols/internal.h"

#include <elf.h>

struct walk {
    struct symbols *symbols;
    struct module_record *record;
    struct hi_range places;
    bool (*visit)(void *context, hi_addr place, hi_addr value);
    void *context;
};

static bool give(const struct walk *walk, hi_addr place, hi_addr value)
{
    if (place < walk->places.start || place >= walk->places.end)
        return true;
    return walk->visit(walk->context, place, value);
}

static bool walk_rela(const struct walk *walk)
{
    const struct dynamic *d = &walk->record->dynamic;
    hi_addr bias = walk->record->module.bias;
    uint64_t count = d->rela ? d->rela_bytes / sizeof(Elf64_Rela) : 0;
    const unsigned char *table =
        count ? module_bytes(walk->symbols, walk->record, d->rela, count * sizeof(Elf64_Rela))
              : NULL;
    for (uint64_t i = 0; table && i < count; i++) {
        Elf64_Rela entry;
        memcpy(&entry, table + i * sizeof entry, sizeof entry);
        if (ELF64_R_TYPE(entry.r_info) == R_X86_64_RELATIVE &&
            !give(walk, bias + entry.r_offset, bias + (uint64_t)entry.r_addend))
            return false;
    }
    return true;
}

static bool give_relr(const struct walk *walk, uint64_t vaddr)
{
    hi_addr bias = walk->record->module.bias, place = bias + vaddr;
    uint64_t value;
    if (place < walk->places.start || place >= walk->places.end)
        return true;
    if (walk->record->file.bytes) {
        const void *bytes = image_at_vaddr(&walk->record->file, vaddr, sizeof value);
        if (!bytes)
            return true;
        memcpy(&value, bytes, sizeof value);
        value += bias;
    } else if (target_read_u64(walk->symbols->target, place, &value, NULL) != HI_OK) {
        return true; /* no file: what stands there now is the best that is known */
    }
    return give(walk, place, value);
}

static bool walk_relr(const struct walk *walk)
{
    const struct dynamic *d = &walk->record->dynamic;
    uint64_t count = d->relr ? d->relr_bytes / 8 : 0, window = 0;
    const unsigned char *table =
        count ? module_bytes(walk->symbols, walk->record, d->relr, count * 8) : NULL;
    for (uint64_t i = 0; table && i < count; i++) {
        uint64_t word;
        memcpy(&word, table + i * 8, sizeof word);
        if (!(word & 1)) {
            if (!give_relr(walk, word))
                return false;
            window = word + 8;
            continue;
        }
        for (unsigned bit = 1; bit < 64; bit++)
            if (word >> bit & 1 && !give_relr(walk, window + (bit - 1) * 8))
                return false;
        window += 63 * 8;
    }
    return true;
}

enum hi_code symbols_relocations(struct symbols *symbols, size_t module, struct hi_range places,
                                 bool (*visit)(void *context, hi_addr place, hi_addr value),
                                 void *context, struct hi_err *err)
{
    if (module >= symbols->modules.count)
        return hi_fail(err, HI_NOT_FOUND, "no such module");
    struct module_record *record = &symbols->modules.items[module];
    struct walk walk = {symbols, record, places, visit, context};
    if (!record->dynamic.rela && !record->dynamic.relr)
        return hi_fail(err, HI_NOT_FOUND, "%s has no dynamic relocations", record->path);
    if (walk_rela(&walk))
        (void)walk_relr(&walk);
    return HI_OK;
}
