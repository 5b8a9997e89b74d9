/* The public face of symbols/: opening, and questions by name and by address; see symbols.h. */
#include "symbols/internal.h"
#include "symbols/name_memo.h"

#include <elf.h>
#include <inttypes.h>

static char *copy_text(const char *text, bool *failed)
{
    char *copy = text ? strdup(text) : NULL;
    *failed |= text && !copy;
    return copy;
}

enum hi_code symbols_open(struct symbols **result, struct target *target,
                          const struct target_options *options, struct hi_err *err)
{
    struct symbols *symbols = calloc(1, sizeof *symbols);
    *result = NULL;
    if (!symbols)
        return hi_no_memory(err);
    bool failed = false;
    symbols->target = target;
    symbols->texts = text_pool_new();
    symbols->memo = name_memo_new();
    failed = !symbols->texts || !symbols->memo;
    if (options) {
        symbols->executable = copy_text(options->executable, &failed);
        symbols->sysroot = copy_text(options->sysroot, &failed);
        symbols->debug_directory = copy_text(options->debug_directory, &failed);
    }
    enum hi_code code = failed ? hi_no_memory(err) : modules_discover(symbols, err);
    if (code != HI_OK) {
        symbols_close(symbols);
        return code;
    }
    file_source_install(symbols);
    *result = symbols;
    return HI_OK;
}

void symbols_close(struct symbols *symbols)
{
    if (!symbols)
        return;
    file_source_remove(symbols);
    for (size_t i = 0; i < symbols->modules.count; i++)
        module_record_close(&symbols->modules.items[i]);
    VECTOR_FREE(&symbols->modules);
    for (size_t i = 0; i < symbols->gone.count; i++) {
        module_record_close(symbols->gone.items[i]);
        free(symbols->gone.items[i]);
    }
    VECTOR_FREE(&symbols->gone);
    text_pool_free(symbols->texts);
    name_memo_free(symbols->memo);
    free(symbols->by_address);
    free(symbols->executable);
    free(symbols->sysroot);
    free(symbols->debug_directory);
    free(symbols);
}

size_t symbols_module_count(const struct symbols *symbols)
{
    return symbols->modules.count;
}

const struct module *symbols_module(const struct symbols *symbols, size_t index)
{
    return index < symbols->modules.count ? &symbols->modules.items[index].module : NULL;
}

const struct module *symbols_module_at(const struct symbols *symbols, hi_addr address)
{
    const struct module_record *record = module_record_at(symbols, address);
    return record ? &record->module : NULL;
}

size_t symbols_segment_count(const struct symbols *symbols, size_t module)
{
    return module < symbols->modules.count ? symbols->modules.items[module].segments.count : 0;
}

struct module_segment symbols_segment(const struct symbols *symbols, size_t module, size_t index)
{
    struct module_segment none = {0};
    return index < symbols_segment_count(symbols, module)
               ? symbols->modules.items[module].segments.items[index]
               : none;
}

static void take_symbol(const struct symbols *symbols, const struct module_record *record,
                        const struct table_entry *entry, struct symbol *symbol)
{
    memset(symbol, 0, sizeof *symbol);
    symbol->name = entry->name;
    symbol->address = entry->address;
    symbol->size = entry->size;
    symbol->is_function = entry->type == STT_FUNC || entry->type == STT_GNU_IFUNC;
    symbol->is_object = entry->type == STT_OBJECT || entry->type == STT_COMMON;
    symbol->is_tls = entry->type == STT_TLS;
    symbol->source = (enum symbol_source)entry->source;
    symbol->module = (size_t)(record - symbols->modules.items);
}

/* Stage by stage over all modules: what a library exports comes before what another hides. */
enum hi_code symbols_find(struct symbols *symbols, size_t module, const char *name,
                          struct symbol *symbol, struct hi_err *err)
{
    bool any = module == SYMBOLS_ANY_MODULE;
    size_t first = any ? 0 : module, end = any ? symbols->modules.count : module + 1;
    if (!any && module >= symbols->modules.count)
        return hi_fail(err, HI_NOT_FOUND, "no such module");
    for (int stage = STAGE_DYNSYM; stage <= STAGE_DEBUG; stage++) {
        for (size_t i = first; i < end; i++) {
            struct module_record *record = &symbols->modules.items[i];
            struct table_entry entry;
            if (tables_by_name(symbols, record, (enum tables_stage)stage, name, &entry)) {
                take_symbol(symbols, record, &entry, symbol);
                return HI_OK;
            }
        }
    }
    return hi_fail(err, HI_NOT_FOUND, "no symbol %s in %s", name,
                   any ? "the target" : symbols->modules.items[module].path);
}

enum hi_code symbols_at(struct symbols *symbols, hi_addr address, struct symbol *symbol,
                        struct hi_err *err)
{
    struct module_record *record = module_record_at(symbols, address);
    const struct table_entry *entry = record ? tables_by_address(symbols, record, address) : NULL;
    if (!entry)
        return hi_fail(err, HI_NOT_FOUND, "no symbol at 0x%" PRIx64, address);
    take_symbol(symbols, record, entry, symbol);
    return HI_OK;
}

void symbols_describe(struct symbols *symbols, hi_addr address, char *buffer, size_t size)
{
    struct symbol symbol = {.name = ""};
    if (symbols_at(symbols, address, &symbol, NULL) == HI_OK) {
        symbols_demangle(symbol.name, buffer, size);
        size_t used = strlen(buffer);
        if (address != symbol.address && used + 1 < size)
            snprintf(buffer + used, size - used, "+0x%" PRIx64, address - symbol.address);
        return;
    }
    const struct module *module = symbols_module_at(symbols, address);
    const char *slash = module ? strrchr(module->path, '/') : NULL;
    if (module)
        snprintf(buffer, size, "%s+0x%" PRIx64, slash ? slash + 1 : module->path,
                 address - module->bias);
    else
        snprintf(buffer, size, "0x%" PRIx64, address);
}

enum hi_code symbols_read_file(struct symbols *symbols, size_t module, uint64_t vaddr, void *buffer,
                               size_t bytes, struct hi_err *err)
{
    const struct module_record *record =
        module < symbols->modules.count ? &symbols->modules.items[module] : NULL;
    const void *found = record ? image_at_vaddr(&record->file, vaddr, bytes) : NULL;
    if (!found)
        return hi_fail(err, HI_NOT_FOUND, "%s: no file with bytes at 0x%" PRIx64,
                       record ? record->path : "no such module", vaddr);
    memcpy(buffer, found, bytes);
    return HI_OK;
}
