/*
 * modules: what is loaded where, by the target's own mappings and memory.
 *
 * A module begins with a mapping of file offset 0 whose memory (or, where a dump left it out, whose
 * file) starts with an ELF header. That alone is not enough: profilers and debuggers map whole ELF
 * files as data. So its program headers must describe the mappings around it:
 *   - every PT_LOAD with file bytes lies in a mapping, and most of them in one of the same path and
 *     of the file offset that the header says (most: programs put their text on huge pages)
 *   - executable segments are executable (where the target knows protections)
 * bias is where vaddr 0 would be: address = bias + p_vaddr.
 *
 * Segments are clipped to the span of the PT_LOADs; spans beyond 47 bits, wrapped ones and headers
 * by the hundred are not modules. Overlapping modules (a lie, or a library mapped into another's
 * hole) are both kept; look-ups take the one that begins later and has a segment there.
 */
#include "symbols/internal.h"

#include <elf.h>
#include <unistd.h>

#define ADDRESS_SPACE_END (1ull << 47)
#define VDSO_MAX_BYTES    (64u << 10)

static uint64_t page_down(const struct symbols *symbols, uint64_t value)
{
    return value & ~((uint64_t)target_page_bytes(symbols->target) - 1);
}

static uint64_t page_up(const struct symbols *symbols, uint64_t value)
{
    return page_down(symbols, value + target_page_bytes(symbols->target) - 1);
}

const Elf64_Phdr *module_header_of_type(const struct module_record *record, uint32_t type)
{
    for (size_t i = 0; i < record->header_count; i++)
        if (record->headers[i].p_type == type)
            return &record->headers[i];
    return NULL;
}

/* -- reading headers ---------------------------------------------------------------------------*/

static bool take_headers(struct module_record *record, const void *headers, size_t count)
{
    record->headers = malloc(count * sizeof *record->headers);
    if (!record->headers)
        return false;
    memcpy(record->headers, headers, count * sizeof *record->headers);
    record->header_count = count;
    return true;
}

static bool headers_from_memory(struct symbols *symbols, struct module_record *record, hi_addr at)
{
    Elf64_Phdr headers[IMAGE_MAX_HEADERS];
    Elf64_Ehdr *header = &record->header;
    if (target_read(symbols->target, at, header, sizeof *header, NULL) != HI_OK ||
        !image_header_is_usable(header) || header->e_phnum == 0 ||
        header->e_phnum > IMAGE_MAX_HEADERS || header->e_phoff > (1u << 20))
        return false;
    size_t bytes = header->e_phnum * sizeof *headers;
    if (target_read(symbols->target, at + header->e_phoff, headers, bytes, NULL) != HI_OK)
        return false;
    record->origin = HEADERS_FROM_MEMORY;
    return take_headers(record, headers, header->e_phnum);
}

static bool headers_from_file(struct symbols *symbols, struct module_record *record)
{
    int fd;
    struct image image;
    if (record->mapping->special ||
        target_open_file(symbols->target, record->mapping, &fd, NULL) != HI_OK)
        return false;
    enum hi_code code = image_open_fd(&image, fd, record->mapping->path, NULL);
    close(fd);
    if (code != HI_OK)
        return false;
    Elf64_Phdr headers[IMAGE_MAX_HEADERS];
    size_t count = image_program_headers(&image, headers);
    record->origin = HEADERS_FROM_FILE;
    bool taken =
        count && image_header(&image, &record->header) && take_headers(record, headers, count);
    image_close(&image);
    return taken;
}

/* -- do the headers describe the mappings? -----------------------------------------------------*/

/* The load segment whose content begins with the file's own header gives the bias. */
static bool find_bias(struct module_record *record, hi_addr at)
{
    for (size_t i = 0; i < record->header_count; i++) {
        const Elf64_Phdr *h = &record->headers[i];
        if (h->p_type != PT_LOAD || h->p_offset >= 0x1000 || h->p_vaddr < h->p_offset)
            continue;
        record->module.bias = at - (h->p_vaddr - h->p_offset);
        return record->header.e_type == ET_DYN || record->module.bias == 0;
    }
    return false;
}

static bool find_span(struct symbols *symbols, struct module_record *record)
{
    uint64_t low = UINT64_MAX, high = 0;
    for (size_t i = 0; i < record->header_count; i++) {
        const Elf64_Phdr *h = &record->headers[i];
        if (h->p_type != PT_LOAD || h->p_memsz == 0)
            continue;
        if (h->p_memsz > ADDRESS_SPACE_END || h->p_vaddr > ADDRESS_SPACE_END - h->p_memsz ||
            h->p_filesz > h->p_memsz)
            return false;
        if (h->p_vaddr < low)
            low = h->p_vaddr;
        if (h->p_vaddr + h->p_memsz > high)
            high = h->p_vaddr + h->p_memsz;
    }
    if (low >= high)
        return false;
    record->module.start = record->module.bias + page_down(symbols, low);
    record->module.end = record->module.bias + page_up(symbols, high);
    return record->module.start < record->module.end && record->module.end <= ADDRESS_SPACE_END;
}

static bool same_file(const struct mapping *a, const struct mapping *b)
{
    return a->path && b->path && strcmp(a->path, b->path) == 0 && a->device == b->device &&
           a->inode == b->inode;
}

static bool segment_is_mapped(struct symbols *symbols, const struct module_record *record,
                              const Elf64_Phdr *h, bool *as_file)
{
    hi_addr at = record->module.bias + page_down(symbols, h->p_vaddr);
    const struct mapping *mapping = target_mapping_at(symbols->target, at);
    *as_file = mapping && same_file(mapping, record->mapping) &&
               mapping->file_offset + (at - mapping->start) == page_down(symbols, h->p_offset);
    if (!mapping)
        return false;
    /* a core may know nothing of the protection of what it left out */
    bool known = target_kind(symbols->target) == TARGET_PROCESS || mapping->dumped;
    return !(h->p_flags & PF_X) || !known || (mapping->protection & MAPPING_EXECUTE);
}

static bool headers_fit_mappings(struct symbols *symbols, const struct module_record *record)
{
    size_t loads = 0, mapped = 0;
    for (size_t i = 0; i < record->header_count; i++) {
        const Elf64_Phdr *h = &record->headers[i];
        if (h->p_type != PT_LOAD || h->p_filesz == 0)
            continue;
        bool as_file;
        if (!segment_is_mapped(symbols, record, h, &as_file))
            return false;
        loads++;
        mapped += as_file;
    }
    return loads > 0 && mapped * 2 >= loads;
}

/* -- a module out of its headers ---------------------------------------------------------------*/

static unsigned protection_of(uint32_t flags)
{
    return (flags & PF_R ? MAPPING_READ : 0u) | (flags & PF_W ? MAPPING_WRITE : 0u) |
           (flags & PF_X ? MAPPING_EXECUTE : 0u);
}

bool module_take_segments(struct module_record *record)
{
    hi_addr bias = record->module.bias;
    for (size_t i = 0; i < record->header_count; i++) {
        const Elf64_Phdr *h = &record->headers[i];
        if (h->p_type != PT_LOAD || h->p_memsz == 0)
            continue;
        struct module_segment *segment = VECTOR_PUSH(&record->segments);
        if (!segment)
            return false;
        segment->memory = (struct hi_range){bias + h->p_vaddr, bias + h->p_vaddr + h->p_memsz};
        segment->file_bytes = h->p_filesz;
        segment->protection = protection_of(h->p_flags);
    }
    return true;
}

static void take_build_id(struct symbols *symbols, struct module_record *record)
{
    unsigned char notes[1024];
    struct module *module = &record->module;
    for (size_t i = 0; i < record->header_count && !module->build_id_bytes; i++) {
        const Elf64_Phdr *h = &record->headers[i];
        if (h->p_type != PT_NOTE || h->p_filesz > sizeof notes)
            continue;
        if (target_read(symbols->target, module->bias + h->p_vaddr, notes, h->p_filesz, NULL) ==
            HI_OK)
            module->build_id_bytes = notes_build_id(notes, h->p_filesz, module->build_id);
    }
}

static void take_ranges(struct symbols *symbols, struct module_record *record)
{
    struct module *module = &record->module;
    const Elf64_Phdr *relro = module_header_of_type(record, PT_GNU_RELRO);
    if (relro && relro->p_memsz <= module->end - module->start) {
        /* the part that ld.so protects: whole pages */
        hi_addr start = page_down(symbols, module->bias + relro->p_vaddr);
        hi_addr end = page_down(symbols, module->bias + relro->p_vaddr + relro->p_memsz);
        if (start >= module->start && end <= module->end && start < end)
            module->relro = (struct hi_range){start, end};
    }
    const Elf64_Phdr *tls = module_header_of_type(record, PT_TLS);
    if (tls) {
        module->tls_bytes = tls->p_memsz;
        module->tls_align = tls->p_align;
    }
}

static void take_kind(struct symbols *symbols, struct module_record *record)
{
    struct module *module = &record->module;
    uint64_t headers = 0, entry = 0;
    const char *executable = target_executable(symbols->target);
    bool known = target_auxv(symbols->target, AT_PHDR, &headers);
    if (!known)
        known = target_auxv(symbols->target, AT_ENTRY, &entry);
    hi_addr place = headers ? headers : entry;
    if (record->mapping->special)
        module->kind = MODULE_VDSO;
    else if (known ? place >= module->start && place < module->end
                   : executable && strcmp(executable, record->path) == 0)
        module->kind = MODULE_EXECUTABLE;
    else
        module->kind = MODULE_LIBRARY;
    module->is_static = module->kind == MODULE_EXECUTABLE &&
                        !module_header_of_type(record, PT_INTERP) && !record->dynamic.needed_count;
}

/* A dynamic linker started by hand (ld.so ./program) has its entry taken for the program's. */
static void take_names(struct symbols *symbols, struct module_record *record)
{
    struct module *module = &record->module;
    const char *name = strrchr(record->path, '/');
    name = name ? name + 1 : record->path;
    if (record->dynamic.has_soname) {
        uint64_t at = record->dynamic.strtab + record->dynamic.soname;
        const char *soname = record->dynamic.soname < record->dynamic.strtab_bytes
                                 ? module_bytes(symbols, record, at, 1)
                                 : NULL;
        uint64_t left = record->dynamic.strtab_bytes - record->dynamic.soname;
        if (soname)
            soname = module_bytes(symbols, record, at, left < 64 ? left : 64);
        if (soname && memchr(soname, 0, left < 64 ? left : 64))
            name = soname;
    }
    bool musl = strncmp(name, "libc.musl-", 10) == 0 || strncmp(name, "ld-musl-", 8) == 0;
    uint64_t base;
    module->is_libc = musl || strcmp(name, "libc.so.6") == 0 || strcmp(name, "libc.so") == 0;
    module->is_dynamic_linker =
        musl || strncmp(name, "ld-linux-", 9) == 0 ||
        (target_auxv(symbols->target, AT_BASE, &base) && base && base == module->start);
}

static bool candidate_read(struct symbols *symbols, struct module_record *record)
{
    hi_addr at = record->mapping->start;
    if (!headers_from_memory(symbols, record, at) && !headers_from_file(symbols, record))
        return false;
    return find_bias(record, at) && find_span(symbols, record) &&
           (record->mapping->special || headers_fit_mappings(symbols, record));
}

static enum hi_code add_candidate(struct symbols *symbols, const struct mapping *mapping,
                                  struct hi_err *err)
{
    struct module_record record = {.mapping = mapping};
    if (!candidate_read(symbols, &record)) {
        module_record_close(&record);
        return HI_OK;
    }
    record.path = strdup(mapping->path);
    record.load_order = SIZE_MAX;
    bool taken = record.path && module_take_segments(&record);
    enum hi_code code = taken ? HI_OK : hi_no_memory(err);
    if (code == HI_OK) {
        record.module.path = record.path;
        take_build_id(symbols, &record);
        take_ranges(symbols, &record);
        module_read_dynamic(symbols, &record);
        take_kind(symbols, &record);
        code = module_find_file(symbols, &record, err);
    }
    if (code == HI_OK) {
        record.module.has_file = record.file.bytes != NULL;
        take_names(symbols, &record);
        struct module_record *kept = VECTOR_PUSH(&symbols->modules);
        if (kept) {
            *kept = record;
            return HI_OK;
        }
        code = hi_no_memory(err);
    }
    module_record_close(&record);
    return code;
}

static bool may_begin_module(const struct mapping *mapping)
{
    if (!mapping->path)
        return false;
    if (mapping->special)
        return strcmp(mapping->path, "[vdso]") == 0;
    return mapping->file_offset == 0 && mapping->path[0] != '[';
}

static int compare_start(const void *a, const void *b, void *context)
{
    const struct symbols *symbols = context;
    hi_addr left = symbols->modules.items[*(const size_t *)a].module.start;
    hi_addr right = symbols->modules.items[*(const size_t *)b].module.start;
    return left < right ? -1 : left > right;
}

static enum hi_code index_by_address(struct symbols *symbols, struct hi_err *err)
{
    size_t count = symbols->modules.count;
    symbols->by_address = calloc(count + 1, sizeof *symbols->by_address);
    if (!symbols->by_address)
        return hi_no_memory(err);
    for (size_t i = 0; i < count; i++)
        symbols->by_address[i] = i;
    qsort_r(symbols->by_address, count, sizeof *symbols->by_address, compare_start, symbols);
    return HI_OK;
}

static void note_files(struct symbols *symbols)
{
    size_t missing = 0, unchecked = 0, count = 0;
    for (size_t i = 0; i < symbols->modules.count; i++) {
        const struct module *module = &symbols->modules.items[i].module;
        count += module->kind != MODULE_VDSO;
        missing += module->kind != MODULE_VDSO && !module->has_file;
        unchecked += module->has_file && symbols->modules.items[i].origin == HEADERS_FROM_FILE;
    }
    if (unchecked)
        target_add_note(symbols->target,
                        "the files of %zu modules could not be checked by build-id: it is not in "
                        "the dump; they fit by name and layout",
                        unchecked);
    if (missing && target_kind(symbols->target) != TARGET_BYTES)
        target_add_note(symbols->target,
                        "%zu of %zu modules have no matching file here: names and read-only data "
                        "of theirs are missing (--sysroot, --exe or --debug-dir may help)",
                        missing, count);
}

enum hi_code modules_discover(struct symbols *symbols, struct hi_err *err)
{
    size_t count = target_mapping_count(symbols->target);
    for (size_t i = 0; i < count; i++) {
        const struct mapping *mapping = target_mapping(symbols->target, i);
        if (!may_begin_module(mapping))
            continue;
        enum hi_code code = add_candidate(symbols, mapping, err);
        if (code != HI_OK)
            return code;
    }
    modules_sort_by_load(symbols);
    note_files(symbols);
    return index_by_address(symbols, err);
}

/* -- look-ups ----------------------------------------------------------------------------------*/

static bool record_holds(const struct symbols *symbols, const struct module_record *record,
                         hi_addr address)
{
    for (size_t i = 0; i < record->segments.count; i++) {
        struct hi_range memory = record->segments.items[i].memory;
        if (address >= page_down(symbols, memory.start) && address < page_up(symbols, memory.end))
            return true;
    }
    return false;
}

struct module_record *module_record_at(const struct symbols *symbols, hi_addr address)
{
    size_t low = 0, high = symbols->modules.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (symbols->modules.items[symbols->by_address[middle]].module.start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    /* one module may lie in the hole of another: look a few further down */
    for (size_t tries = 0; low > 0 && tries < 8; tries++) {
        struct module_record *record = &symbols->modules.items[symbols->by_address[--low]];
        if (record_holds(symbols, record, address))
            return record;
    }
    return NULL;
}

const void *module_bytes(struct symbols *symbols, struct module_record *record, uint64_t vaddr,
                         uint64_t bytes)
{
    if (record->file.bytes)
        return image_at_vaddr(&record->file, vaddr, bytes);
    const struct module *module = &record->module;
    hi_addr address = module->bias + vaddr;
    if (bytes == 0 || address < module->start || address >= module->end ||
        bytes > module->end - address)
        return NULL;
    void **kept = VECTOR_PUSH(&record->owned);
    if (!kept)
        return NULL;
    *kept = malloc(bytes);
    if (*kept && target_read(symbols->target, address, *kept, bytes, NULL) == HI_OK)
        return *kept;
    free(*kept);
    record->owned.count--;
    return NULL;
}

void module_record_close(struct module_record *record)
{
    frames_close(record);
    debug_info_close(record);
    tables_free(&record->tables);
    image_close(&record->file);
    image_close(&record->debug);
    image_close(&record->mini);
    for (size_t i = 0; i < record->owned.count; i++)
        free(record->owned.items[i]);
    VECTOR_FREE(&record->owned);
    VECTOR_FREE(&record->segments);
    free(record->headers);
    free(record->path);
}
