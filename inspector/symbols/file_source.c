/*
 * file_source: bytes of modules that a dump left out, from their files.
 *
 * A kernel core has no text and no rodata, gcore's neither. The target asks here with mapping and
 * address; the answer comes from the module's checked file at the mapping's file offset, never from
 * a file that was only found by its name.
 *
 * Never the bytes of a page that could have been written: what was written is in the dump, or is
 * missing. A private page of a file is known to be unwritten when it lies in a mapping that the
 * program can't write to and that no segment of the module makes writable (RELRO was), or when the
 * dump took the program's private pages at all and this mapping had none (the kernel dumps a
 * private mapping whole as soon as one page of it was written). The thread's own stack stands for
 * "took private pages": it is always written.
 */
#include "symbols/internal.h"

static bool private_pages_were_dumped(const struct symbols *symbols)
{
    size_t count = target_thread_count(symbols->target);
    for (size_t i = 0; i < count; i++) {
        const struct thread *thread = target_thread(symbols->target, i);
        const struct mapping *stack =
            thread->has_registers ? target_mapping_at(symbols->target, thread->sp) : NULL;
        if (stack && !stack->path)
            return stack->dumped;
        if (stack && strcmp(stack->path, "[stack]") == 0)
            return stack->dumped;
    }
    return false;
}

static bool could_be_written(const struct module_record *record, hi_addr address)
{
    for (size_t i = 0; i < record->segments.count; i++) {
        const struct module_segment *segment = &record->segments.items[i];
        /* whole pages: the first and last are shared with what lies beside the segment */
        if (segment->protection & MAPPING_WRITE && address >= (segment->memory.start & ~0xfffull) &&
            address < ((segment->memory.end + 0xfff) & ~0xfffull))
            return true;
    }
    return false;
}

static bool may_serve(const struct symbols *symbols, const struct module_record *record,
                      const struct mapping *mapping, hi_addr address, size_t bytes)
{
    if (mapping->shared)
        return false;
    if (!(mapping->protection & MAPPING_WRITE) && !could_be_written(record, address) &&
        !could_be_written(record, address + bytes - 1))
        return true;
    return target_kind(symbols->target) == TARGET_CORE && private_pages_were_dumped(symbols);
}

static enum hi_code read_from_file(void *context, const struct mapping *mapping, hi_addr address,
                                   void *buffer, size_t bytes, struct hi_err *err)
{
    const struct symbols *symbols = context;
    const struct module_record *record = module_record_at(symbols, address);
    if (bytes == 0)
        return HI_OK;
    if (!record || !record->file.bytes || !mapping->path || address < mapping->start ||
        strcmp(mapping->path, record->path) != 0)
        return hi_fail(err, HI_NOT_FOUND, "no matching file for 0x%llx",
                       (unsigned long long)address);
    if (!may_serve(symbols, record, mapping, address, bytes))
        return hi_fail(err, HI_NOT_FOUND, "0x%llx may have been written since it was mapped",
                       (unsigned long long)address);
    uint64_t offset = mapping->file_offset + (address - mapping->start);
    const void *found = image_slice(&record->file, offset, bytes);
    if (!found)
        return hi_fail(err, HI_NOT_FOUND, "%s ends before 0x%llx", record->path,
                       (unsigned long long)offset);
    memcpy(buffer, found, bytes);
    return HI_OK;
}

void file_source_install(struct symbols *symbols)
{
    struct target_file_source source = {read_from_file, symbols};
    target_set_file_source(symbols->target, &source);
}

void file_source_remove(struct symbols *symbols)
{
    struct target_file_source none = {NULL, NULL};
    if (symbols->target)
        target_set_file_source(symbols->target, &none);
}
