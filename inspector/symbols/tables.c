/*
 * tables: filling, hashing and sorting a module's symbols.
 *
 * Where .dynsym ends is not in PT_DYNAMIC: DT_HASH says it, with DT_GNU_HASH the longest chain has
 * to be followed. Both are the target's words, so the count is bounded by the module's span.
 * Names are pointers into the file's (or the copied) string table; the table is cut behind its last
 * NUL, so that no name runs past it.
 *
 * By name: open addressing over entry indexes, keyed by the name up to '@' (a .symtab may carry
 * versions in names). Entries come in by stage, so the first of a name wins; outdated versions
 * (hidden bit of DT_VERSYM) and local symbols stand back behind default and global ones.
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

struct symbol_source_table {
    const Elf64_Sym *symbols; /* may be unaligned: copied one by one */
    size_t count;
    const char *names;
    uint64_t names_bytes;
    const uint16_t *versions; /* NULL: none */
    enum symbol_source source;
    hi_addr bias;
};

/* -- filling -----------------------------------------------------------------------------------*/

static bool symbol_is_wanted(const Elf64_Sym *symbol, const char *name)
{
    unsigned type = ELF64_ST_TYPE(symbol->st_info);
    if (symbol->st_shndx == SHN_UNDEF || symbol->st_shndx == SHN_ABS || !*name)
        return false;
    return type == STT_NOTYPE || type == STT_FUNC || type == STT_OBJECT || type == STT_TLS ||
           type == STT_GNU_IFUNC || type == STT_COMMON;
}

static uint32_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name && *name != '@'; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return (uint32_t)(hash ^ hash >> 32);
}

static bool add_symbol(struct tables *tables, const struct symbol_source_table *table,
                       const Elf64_Sym *symbol, size_t index)
{
    const char *name = table->names + symbol->st_name;
    if (tables->entries.count >= UINT32_MAX - 1)
        return true;
    struct table_entry *entry = VECTOR_PUSH(&tables->entries);
    if (!entry)
        return false;
    entry->name = name;
    entry->hash = hash_name(name);
    entry->type = ELF64_ST_TYPE(symbol->st_info);
    entry->address = symbol->st_value + (entry->type == STT_TLS ? 0 : table->bias);
    entry->size = symbol->st_size;
    entry->source = (uint8_t)table->source;
    entry->is_local = ELF64_ST_BIND(symbol->st_info) == STB_LOCAL;
    if (table->versions) {
        uint16_t version;
        memcpy(&version, (const char *)table->versions + index * 2, sizeof version);
        entry->is_outdated = version & 0x8000;
    }
    return true;
}

static bool add_table(struct tables *tables, struct symbol_source_table *table)
{
    const char *last = table->names ? memrchr(table->names, 0, table->names_bytes) : NULL;
    if (!last)
        return true;
    table->names_bytes = (uint64_t)(last - table->names) + 1;
    for (size_t i = 1; i < table->count; i++) {
        Elf64_Sym symbol;
        memcpy(&symbol, (const char *)table->symbols + i * sizeof symbol, sizeof symbol);
        if (symbol.st_name >= table->names_bytes ||
            !symbol_is_wanted(&symbol, table->names + symbol.st_name))
            continue;
        if (!add_symbol(tables, table, &symbol, i))
            return false;
    }
    return true;
}

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

static bool fill_section(struct module_record *record, const struct image *image, uint32_t type,
                         enum symbol_source source)
{
    struct symbol_source_table table = {.source = source, .bias = record->module.bias};
    Elf64_Shdr section, names;
    if (!image->bytes || !image_section(image, NULL, type, &section) ||
        section.sh_entsize != sizeof(Elf64_Sym) ||
        !image_section_at(image, section.sh_link, &names))
        return true;
    table.symbols = image_section_bytes(image, &section);
    table.count = section.sh_size / sizeof(Elf64_Sym);
    table.names = image_section_bytes(image, &names);
    table.names_bytes = names.sh_size;
    return !table.symbols || !table.names || add_table(&record->tables, &table);
}

static bool fill_dynsym(struct symbols *symbols, struct module_record *record)
{
    const struct dynamic *d = &record->dynamic;
    struct symbol_source_table table = {.source = SYMBOL_DYNSYM, .bias = record->module.bias};
    if (!d->symtab || !d->strtab || !d->strtab_bytes) /* not loaded now: the file's sections */
        return fill_section(record, &record->file, SHT_DYNSYM, SYMBOL_DYNSYM);
    table.count = dynsym_count(symbols, record);
    if (table.count < 2)
        return true;
    table.symbols = module_bytes(symbols, record, d->symtab, table.count * sizeof(Elf64_Sym));
    table.names = module_bytes(symbols, record, d->strtab, d->strtab_bytes);
    table.names_bytes = d->strtab_bytes;
    if (d->versym)
        table.versions = module_bytes(symbols, record, d->versym, table.count * 2);
    return !table.symbols || !table.names || add_table(&record->tables, &table);
}

static bool fill_debug(struct symbols *symbols, struct module_record *record)
{
    Elf64_Shdr section;
    if (record->file.bytes && image_section(&record->file, NULL, SHT_SYMTAB, &section))
        return true; /* not stripped: a debug file knows no more names */
    module_find_debug(symbols, record);
    return fill_section(record, &record->debug, SHT_SYMTAB, SYMBOL_DEBUGFILE) &&
           (record->debug.bytes ||
            fill_section(record, &record->mini, SHT_SYMTAB, SYMBOL_DEBUGFILE));
}

/* -- by name -----------------------------------------------------------------------------------*/

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

/* The slot of name, or the empty one where it would go. */
static uint64_t *slot_of(const struct tables *tables, const char *name, uint32_t hash)
{
    size_t mask = tables->slot_count - 1, at = hash & mask;
    for (; tables->slots[at]; at = (at + 1) & mask)
        if (tables->slots[at] >> 32 == hash &&
            name_is(tables->entries.items[(uint32_t)tables->slots[at] - 1].name, name))
            break;
    return &tables->slots[at];
}

static void hash_insert(struct tables *tables, uint32_t index)
{
    const struct table_entry *entry = &tables->entries.items[index];
    uint64_t *slot = slot_of(tables, entry->name, entry->hash);
    if (*slot) {
        /* a later stage does not displace what an earlier one exports */
        const struct table_entry *other = &tables->entries.items[(uint32_t)*slot - 1];
        if (other->source != entry->source || entry_rank(entry) >= entry_rank(other))
            return;
    }
    *slot = (uint64_t)entry->hash << 32 | (index + 1);
}

static bool hash_build(struct tables *tables)
{
    size_t wanted = 16;
    while (wanted < tables->entries.count * 2)
        wanted *= 2;
    free(tables->slots);
    tables->slots = calloc(wanted, sizeof *tables->slots);
    tables->slot_count = tables->slots ? wanted : 0;
    for (size_t i = 0; tables->slots && i < tables->entries.count; i++)
        hash_insert(tables, (uint32_t)i);
    return tables->slots != NULL;
}

const struct table_entry *tables_by_name(struct tables *tables, const char *name)
{
    if (!tables->slot_count)
        return NULL;
    uint64_t slot = *slot_of(tables, name, hash_name(name));
    return slot ? &tables->entries.items[(uint32_t)slot - 1] : NULL;
}

bool tables_fill(struct symbols *symbols, struct module_record *record, enum tables_stage stage)
{
    struct tables *tables = &record->tables;
    if (tables->stage >= stage)
        return true;
    size_t before = tables->entries.count;
    bool filled = true;
    if (tables->stage < STAGE_DYNSYM)
        filled = fill_dynsym(symbols, record);
    if (filled && tables->stage < STAGE_SYMTAB && stage >= STAGE_SYMTAB)
        filled = fill_section(record, &record->file, SHT_SYMTAB, SYMBOL_SYMTAB);
    if (filled && stage >= STAGE_DEBUG)
        filled = fill_debug(symbols, record);
    if (!filled)
        return false;
    tables->stage = stage;
    if (tables->entries.count == before && tables->slots)
        return true;
    tables->is_sorted = false;
    return hash_build(tables);
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

static bool sort_by_address(struct tables *tables)
{
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
    if (!tables_fill(symbols, record, STAGE_DEBUG) ||
        (!tables->is_sorted && !sort_by_address(tables)))
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
    free(tables->slots);
    free(tables->by_address);
    free(tables->reach);
    memset(tables, 0, sizeof *tables);
}
