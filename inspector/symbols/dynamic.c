/*
 * dynamic: PT_DYNAMIC of a module, and the dynamic linker's list of modules.
 *
 * PT_DYNAMIC is read from the target's memory, since only there DT_DEBUG is set and since it is
 * there without the file. glibc's ld.so writes the bias into the pointer entries, musl's does not,
 * and nobody does it for the vdso: a value inside the module's span is taken as an address, another
 * one as a vaddr.
 *
 * The list (struct r_debug, <link.h>: version, first link_map; link_map: bias, name, dynamic
 * section, next) gives the order in which symbols are looked up. It is walked for at most as many
 * steps as there are mappings: a damaged list may loop.
 */
#include "symbols/internal.h"

#include <elf.h>

enum { DYNAMIC_MAX_ENTRIES = 1024 };

static uint64_t to_vaddr(const struct module *module, uint64_t value)
{
    return value >= module->start && value < module->end ? value - module->bias : value;
}

static void take_entry(const struct module *module, struct dynamic *dynamic, const Elf64_Dyn *entry)
{
    uint64_t value = entry->d_un.d_val, vaddr = to_vaddr(module, value);
    switch (entry->d_tag) {
    case DT_SYMTAB:
        dynamic->symtab = vaddr;
        break;
    case DT_STRTAB:
        dynamic->strtab = vaddr;
        break;
    case DT_STRSZ:
        dynamic->strtab_bytes = value;
        break;
    case DT_HASH:
        dynamic->hash = vaddr;
        break;
    case DT_GNU_HASH:
        dynamic->gnu_hash = vaddr;
        break;
    case DT_VERSYM:
        dynamic->versym = vaddr;
        break;
    case DT_RELA:
        dynamic->rela = vaddr;
        break;
    case DT_RELASZ:
        dynamic->rela_bytes = value;
        break;
    case 36: /* DT_RELR, too new for some <elf.h> */
        dynamic->relr = vaddr;
        break;
    case 35: /* DT_RELRSZ */
        dynamic->relr_bytes = value;
        break;
    case DT_SONAME:
        dynamic->has_soname = true;
        dynamic->soname = value;
        break;
    case DT_NEEDED:
        dynamic->needed_count++;
        break;
    case DT_DEBUG:
        dynamic->debug = value;
        break;
    case DT_FLAGS_1:
        dynamic->flags_1 = value;
        break;
    default:
        break;
    }
}

void module_read_dynamic(struct symbols *symbols, struct module_record *record)
{
    const Elf64_Phdr *header = module_header_of_type(record, PT_DYNAMIC);
    if (!header)
        return;
    hi_addr at = record->module.bias + header->p_vaddr;
    for (size_t i = 0; i < DYNAMIC_MAX_ENTRIES && (i + 1) * sizeof(Elf64_Dyn) <= header->p_memsz;
         i++) {
        Elf64_Dyn entry;
        if (target_read(symbols->target, at + i * sizeof entry, &entry, sizeof entry, NULL) !=
                HI_OK ||
            entry.d_tag == DT_NULL)
            return;
        take_entry(&record->module, &record->dynamic, &entry);
    }
}

/* -- load order --------------------------------------------------------------------------------*/

struct r_debug_head {
    uint32_t version, pad;
    uint64_t first;
};

struct link_map_head {
    uint64_t bias, name, dynamic, next, previous;
};

static struct module_record *record_with_dynamic(struct symbols *symbols, hi_addr dynamic)
{
    for (size_t i = 0; i < symbols->modules.count; i++) {
        struct module_record *record = &symbols->modules.items[i];
        const Elf64_Phdr *header = module_header_of_type(record, PT_DYNAMIC);
        if (header && record->module.bias + header->p_vaddr == dynamic)
            return record;
    }
    return NULL;
}

static void number_by_list(struct symbols *symbols, hi_addr debug)
{
    struct r_debug_head head;
    if (!debug || target_read(symbols->target, debug, &head, sizeof head, NULL) != HI_OK)
        return;
    hi_addr at = head.first;
    size_t steps = target_mapping_count(symbols->target) + 16;
    for (size_t i = 1; at && i < steps; i++) {
        struct link_map_head map;
        if (target_read(symbols->target, at, &map, sizeof map, NULL) != HI_OK)
            return;
        struct module_record *record = record_with_dynamic(symbols, map.dynamic);
        if (record && record->load_order == SIZE_MAX)
            record->load_order = i;
        at = map.next;
    }
}

static int compare_load(const void *a, const void *b)
{
    const struct module_record *left = a, *right = b;
    if (left->load_order != right->load_order)
        return left->load_order < right->load_order ? -1 : 1;
    return left->module.start < right->module.start ? -1 : left->module.start > right->module.start;
}

/* Without DT_DEBUG in the executable (ld.so ./program: there the kernel started ld.so) the dynamic
 * linker's own variable leads to the list. */
static hi_addr find_debug(struct symbols *symbols)
{
    for (size_t i = 0; i < symbols->modules.count; i++) {
        struct module_record *record = &symbols->modules.items[i];
        if (record->module.kind == MODULE_EXECUTABLE && record->dynamic.debug)
            return record->dynamic.debug;
    }
    for (size_t i = 0; i < symbols->modules.count; i++) {
        struct module_record *record = &symbols->modules.items[i];
        struct table_entry entry;
        if (record->module.is_dynamic_linker &&
            tables_by_name(symbols, record, STAGE_DYNSYM, "_r_debug", &entry))
            return entry.address;
    }
    return 0;
}

/* The first of the list is the program, whoever was started. */
static void settle_executable(struct symbols *symbols)
{
    struct module_record *first = NULL;
    for (size_t i = 0; i < symbols->modules.count; i++)
        if (symbols->modules.items[i].load_order == 1)
            first = &symbols->modules.items[i];
    if (!first || first->module.kind == MODULE_EXECUTABLE)
        return;
    for (size_t i = 0; i < symbols->modules.count; i++)
        if (symbols->modules.items[i].module.kind == MODULE_EXECUTABLE)
            symbols->modules.items[i].module.kind = MODULE_LIBRARY;
    first->module.kind = MODULE_EXECUTABLE;
}

void modules_sort_by_load(struct symbols *symbols)
{
    number_by_list(symbols, find_debug(symbols));
    settle_executable(symbols);
    for (size_t i = 0; i < symbols->modules.count; i++)
        if (symbols->modules.items[i].module.kind == MODULE_EXECUTABLE)
            symbols->modules.items[i].load_order = 0;
    if (symbols->modules.count)
        qsort(symbols->modules.items, symbols->modules.count, sizeof *symbols->modules.items,
              compare_load);
}
