/*
 * tables: finding and sorting a module's symbols.
 *
 * Where .dynsym ends is not in PT_DYNAMIC: DT_HASH says it, with DT_GNU_HASH the longest chain has
 * to be followed. Both are the target's words, so the count is bounded by the module's span.
 * Names are pointers into the file's (or the copied) string table; the table is cut behind its last
 * NUL, so that no name runs past it.
 *
 * By name: a few names are looked for, most of which are in no table, and a target stands still
 * meanwhile. So no table of all names is made: four bytes of each symbol say how its name begins,
 * and where they fit, names are compared. An executable with 185,000 symbols takes 7 ms for all
 * names that allocators are known by; hashing its names took 37. A name counts up to '@' (a .symtab
 * may carry versions in names); outdated versions (hidden bit of DT_VERSYM) and local symbols stand
 * back behind default and global ones, among equals the first wins.
 *
 * By address: sorted by start. Symbols nest (aliases, an inner label); reach[i] is the furthest end
 * among the first i+1, which ends the walk back early. A symbol without a size counts up to the
 * next symbol, when nothing else covers the address.
 *
 * Indexes are 32 bits: a table of more symbols than that is cut.
 */
#include "symbols/tables.h"

#include "symbols/internal.h"

#include <elf.h>

enum { DYNSYM_MAX_COUNT = 1 << 24 };

/* -- opening -----------------------------------------------------------------------------------*/

static size_t count_by_gnu_hash(struct symbols *symbols, struct module_record *record, size_t limit)
{
    uint64_t at = record->dynamic.gnu_hash;
    uint32_t head[4]; /* buckets, first symbol, bloom words, shift */
    const void *bytes = module_bytes(symbols, record, at, sizeof head);
    if (!bytes)
        return 0;
    memcpy(head, bytes, sizeof head);
    uint64_t buckets = at + sizeof head + (uint64_t)head[2] * 8;
    const unsigned char *table =
        module_bytes(symbols, record, buckets, (uint64_t)head[0] * sizeof(uint32_t));
    uint32_t last = 0, value = 0;
    for (size_t i = 0; table && i < head[0]; i++) {
        memcpy(&value, table + i * 4, 4);
        last = value > last ? value : last;
    }
    if (last < head[1] || last >= limit)
        return last < limit ? last : 0;
    uint64_t chains = buckets + (uint64_t)head[0] * 4 - (uint64_t)head[1] * 4;
    for (; last < limit; last++) {
        const void *link = module_bytes(symbols, record, chains + (uint64_t)last * 4, 4);
        if (!link)
            return last;
        memcpy(&value, link, 4);
        if (value & 1)
            return last + 1;
    }
    return limit;
}

static size_t dynsym_count(struct symbols *symbols, struct module_record *record)
{
    const struct dynamic *d = &record->dynamic;
    size_t limit = (record->module.end - record->module.start) / sizeof(Elf64_Sym);
    limit = limit < DYNSYM_MAX_COUNT ? limit : DYNSYM_MAX_COUNT;
    if (d->hash) {
        uint32_t head[2]; /* buckets, chains = symbols */
        const void *bytes = module_bytes(symbols, record, d->hash, sizeof head);
        if (bytes) {
            memcpy(head, bytes, sizeof head);
            return head[1] < limit ? head[1] : limit;
        }
    }
    return d->gnu_hash ? count_by_gnu_hash(symbols, record, limit) : 0;
}

static void source_take(struct tables *tables, enum tables_stage stage,
                        const struct table_source *source)
{
    const char *last =
        source->names ? memrchr(source->names, 0, source->names_bytes) : NULL; /* ends each name */
    if (!source->symbols || !last)
        return;
    tables->sources[stage] = *source;
    tables->sources[stage].names_bytes = (uint64_t)(last - source->names) + 1;
}

static void open_section(struct module_record *record, const struct image *image, uint32_t type,
                         enum tables_stage stage, enum symbol_source kind)
{
    struct table_source source = {.source = kind, .bias = record->module.bias};
    Elf64_Shdr section, names;
    if (!image->bytes || !image_section(image, NULL, type, &section) ||
        section.sh_entsize != sizeof(Elf64_Sym) ||
        !image_section_at(image, section.sh_link, &names))
        return;
    source.symbols = image_section_bytes(image, &section);
    source.count = section.sh_size / sizeof(Elf64_Sym);
    source.names = image_section_bytes(image, &names);
    source.names_bytes = names.sh_size;
    source_take(&record->tables, stage, &source);
}

static void open_dynsym(struct symbols *symbols, struct module_record *record)
{
    const struct dynamic *d = &record->dynamic;
    struct table_source source = {.source = SYMBOL_DYNSYM, .bias = record->module.bias};
    if (!d->symtab || !d->strtab || !d->strtab_bytes) { /* not loaded now: the file's sections */
        open_section(record, &record->file, SHT_DYNSYM, STAGE_DYNSYM, SYMBOL_DYNSYM);
        return;
    }
    source.count = dynsym_count(symbols, record);
    if (source.count < 2)
        return;
    source.symbols = module_bytes(symbols, record, d->symtab, source.count * sizeof(Elf64_Sym));
    source.names = module_bytes(symbols, record, d->strtab, d->strtab_bytes);
    source.names_bytes = d->strtab_bytes;
    if (d->versym)
        source.versions = module_bytes(symbols, record, d->versym, source.count * 2);
    source_take(&record->tables, STAGE_DYNSYM, &source);
}

static void open_debug(struct symbols *symbols, struct module_record *record)
{
    Elf64_Shdr section;
    if (record->file.bytes && image_section(&record->file, NULL, SHT_SYMTAB, &section))
        return; /* not stripped: a debug file knows no more names */
    module_find_debug(symbols, record);
    open_section(record, record->debug.bytes ? &record->debug : &record->mini, SHT_SYMTAB,
                 STAGE_DEBUG, SYMBOL_DEBUGFILE);
}

static void tables_open(struct symbols *symbols, struct module_record *record,
                        enum tables_stage stage)
{
    struct tables *tables = &record->tables;
    if (tables->stage < STAGE_DYNSYM)
        open_dynsym(symbols, record);
    if (tables->stage < STAGE_SYMTAB && stage >= STAGE_SYMTAB)
        open_section(record, &record->file, SHT_SYMTAB, STAGE_SYMTAB, SYMBOL_SYMTAB);
    if (tables->stage < STAGE_DEBUG && stage >= STAGE_DEBUG)
        open_debug(symbols, record);
    if (tables->stage < stage)
        tables->stage = stage;
}

/* The i-th symbol of a table; false: it names nothing in the module. */
static bool source_entry(const struct table_source *source, size_t i, struct table_entry *entry)
{
    Elf64_Sym symbol;
    memcpy(&symbol, (const char *)source->symbols + i * sizeof symbol, sizeof symbol);
    unsigned type = ELF64_ST_TYPE(symbol.st_info);
    bool is_named = type == STT_NOTYPE || type == STT_FUNC || type == STT_OBJECT ||
                    type == STT_TLS || type == STT_GNU_IFUNC || type == STT_COMMON;
    if (!is_named || symbol.st_name >= source->names_bytes || symbol.st_shndx == SHN_UNDEF ||
        symbol.st_shndx == SHN_ABS || !source->names[symbol.st_name])
        return false;
    uint16_t version = 0;
    if (source->versions)
        memcpy(&version, (const char *)source->versions + i * 2, sizeof version);
    *entry = (struct table_entry){
        .name = source->names + symbol.st_name,
        .type = (uint8_t)type,
        .address = symbol.st_value + (type == STT_TLS ? 0 : source->bias),
        .size = symbol.st_size,
        .source = (uint8_t)source->source,
        .is_local = ELF64_ST_BIND(symbol.st_info) == STB_LOCAL,
        .is_outdated = (version & 0x8000) != 0,
    };
    return true;
}

/* -- by name -----------------------------------------------------------------------------------*/

/* Of the first 8 bytes of a name, up to its end or '@'; room: bytes that may be read. */
static uint32_t name_start(const char *name, uint64_t room)
{
    uint64_t word = 0;
    for (unsigned i = 0; i < 8 && i < room && name[i] && name[i] != '@'; i++)
        word = word << 8 | (unsigned char)name[i];
    word *= 0x9e3779b97f4a7c15u;
    return (uint32_t)(word >> 32);
}

static bool starts_make(struct table_source *source)
{
    source->starts = calloc(source->count + 1, sizeof *source->starts);
    for (size_t i = 0; source->starts && i < source->count; i++) {
        uint32_t name;
        memcpy(&name, (const char *)source->symbols + i * sizeof(Elf64_Sym), sizeof name);
        source->starts[i] = name < source->names_bytes
                                ? name_start(source->names + name, source->names_bytes - name)
                                : 0;
    }
    return source->starts != NULL;
}

/* Names are equal up to the version; name never carries one. */
static bool name_is(const char *entry, const char *name)
{
    size_t bytes = strcspn(name, "@");
    return strncmp(entry, name, bytes) == 0 && (entry[bytes] == 0 || entry[bytes] == '@');
}

/* Lower is better among entries of one name. */
static int entry_rank(const struct table_entry *entry)
{
    return (entry->is_outdated ? 4 : 0) + (entry->is_local ? 2 : 0) + (entry->type == STT_NOTYPE);
}

bool tables_by_name(struct symbols *symbols, struct module_record *record, enum tables_stage stage,
                    const char *name, struct table_entry *entry)
{
    tables_open(symbols, record, stage);
    struct table_source *source = &record->tables.sources[stage];
    if (!source->symbols || (!source->starts && !starts_make(source)))
        return false;
    uint32_t start = name_start(name, strlen(name));
    bool found = false;
    for (size_t i = 1; i < source->count; i++) {
        struct table_entry one;
        if (source->starts[i] == start && source_entry(source, i, &one) &&
            name_is(one.name, name) && (!found || entry_rank(&one) < entry_rank(entry))) {
            *entry = one;
            found = true;
        }
    }
    return found;
}

/* -- by address --------------------------------------------------------------------------------*/

static int compare_address(const void *a, const void *b, void *context)
{
    const struct tables *tables = context;
    const struct table_entry *left = &tables->entries.items[*(const uint32_t *)a];
    const struct table_entry *right = &tables->entries.items[*(const uint32_t *)b];
    if (left->address != right->address)
        return left->address < right->address ? -1 : 1;
    uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    return i < k ? -1 : i > k;
}

static bool entries_fill(struct tables *tables)
{
    for (int stage = STAGE_DYNSYM; stage <= STAGE_DEBUG; stage++) {
        const struct table_source *source = &tables->sources[stage];
        for (size_t i = 1; source->symbols && i < source->count; i++) {
            struct table_entry one, *entry;
            if (tables->entries.count >= UINT32_MAX - 1 || !source_entry(source, i, &one))
                continue;
            if (!(entry = VECTOR_PUSH(&tables->entries)))
                return false;
            *entry = one;
        }
    }
    return true;
}

static bool sort_by_address(struct tables *tables)
{
    tables->entries.count = 0;
    if (!entries_fill(tables))
        return false;
    size_t count = 0, all = tables->entries.count;
    free(tables->by_address);
    free(tables->reach);
    tables->by_address = malloc((all + 1) * sizeof *tables->by_address);
    tables->reach = malloc((all + 1) * sizeof *tables->reach);
    tables->by_address_count = 0;
    if (!tables->by_address || !tables->reach)
        return false;
    for (size_t i = 0; i < all; i++)
        if (tables->entries.items[i].type != STT_TLS)
            tables->by_address[count++] = (uint32_t)i;
    qsort_r(tables->by_address, count, sizeof *tables->by_address, compare_address, tables);
    hi_addr reach = 0;
    for (size_t i = 0; i < count; i++) {
        const struct table_entry *entry = &tables->entries.items[tables->by_address[i]];
        hi_addr end = entry->address + entry->size;
        reach = end > reach && end >= entry->address ? end : reach;
        tables->reach[i] = reach;
    }
    tables->by_address_count = count;
    tables->is_sorted = true;
    return true;
}

/* Is a a better name than b for one address? Smaller first, then global, typed, older source. */
static bool is_better(const struct table_entry *a, const struct table_entry *b)
{
    if (!b || a->size != b->size)
        return !b || a->size < b->size;
    if (entry_rank(a) != entry_rank(b))
        return entry_rank(a) < entry_rank(b);
    /* of aliases the plainest: malloc rather than __libc_malloc */
    size_t left = strspn(a->name, "_"), right = strspn(b->name, "_");
    return left != right ? left < right : a->source < b->source;
}

/* by_address[0..end) start at or below address. */
static const struct table_entry *cover(const struct tables *tables, size_t end, hi_addr address)
{
    const struct table_entry *best = NULL;
    for (size_t i = end, steps = 0; i-- > 0 && tables->reach[i] > address && steps < 4096;
         steps++) {
        const struct table_entry *entry = &tables->entries.items[tables->by_address[i]];
        if (best && entry->address < best->address && entry->size >= best->size)
            continue;
        if (address - entry->address < entry->size && is_better(entry, best))
            best = entry;
    }
    return best;
}

static bool same_segment(const struct module_record *record, hi_addr a, hi_addr b)
{
    for (size_t i = 0; i < record->segments.count; i++) {
        struct hi_range memory = record->segments.items[i].memory;
        if (a >= memory.start && a < memory.end)
            return b >= memory.start && b < memory.end;
    }
    return false;
}

const struct table_entry *tables_by_address(struct symbols *symbols, struct module_record *record,
                                            hi_addr address)
{
    struct tables *tables = &record->tables;
    tables_open(symbols, record, STAGE_DEBUG);
    if (!tables->is_sorted && !sort_by_address(tables))
        return NULL;
    size_t low = 0, high = tables->by_address_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tables->entries.items[tables->by_address[middle]].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    const struct table_entry *found = cover(tables, low, address);
    if (found || low == 0)
        return found;
    const struct table_entry *before = &tables->entries.items[tables->by_address[low - 1]];
    return before->size == 0 && same_segment(record, before->address, address) ? before : NULL;
}

void tables_free(struct tables *tables)
{
    VECTOR_FREE(&tables->entries);
    for (int stage = STAGE_DYNSYM; stage <= STAGE_DEBUG; stage++)
        free(tables->sources[stage].starts);
    free(tables->by_address);
    free(tables->reach);
    memset(tables, 0, sizeof *tables);
}
