/*
 * tables: the symbols of one module, by name (hash) and by address (sorted).
 *
 * Filled in stages, each only when the one before had no answer:
 *   1 .dynsym   out of the file, or out of the target's memory
 *   2 .symtab   of the file
 *   3 .symtab   of the debug file, or of .gnu_debugdata
 * Questions by address want all stages, questions by name stop at the first that knows it.
 */
#ifndef SYMBOLS_TABLES_H
#define SYMBOLS_TABLES_H

#include "base/vector.h"
#include "symbols/symbols.h"

enum tables_stage { STAGE_NONE, STAGE_DYNSYM, STAGE_SYMTAB, STAGE_DEBUG };

struct table_entry {
    const char *name;
    hi_addr address; /* TLS: offset in the module's block */
    uint64_t size;
    uint8_t type;     /* STT_... */
    uint8_t source;   /* enum symbol_source */
    bool is_local;    /* STB_LOCAL */
    bool is_outdated; /* not the default version of its name */
    uint32_t hash;    /* of the name up to '@' */
};

struct tables {
    enum tables_stage stage; /* filled up to here */
    VECTOR(struct table_entry) entries;
    uint64_t *slots; /* by name: hash in the high half, entry index + 1 in the low; 0: empty */
    size_t slot_count;
    uint32_t *by_address; /* entries that have an address, sorted */
    hi_addr *reach;       /* the furthest end among by_address[0..i] */
    size_t by_address_count;
    bool is_sorted;
};

struct module_record;

/* Fill up to stage. Missing tables leave nothing behind; false: memory ran out. */
bool tables_fill(struct symbols *symbols, struct module_record *record, enum tables_stage stage);
/* Among what is filled. */
const struct table_entry *tables_by_name(struct tables *tables, const char *name);
const struct table_entry *tables_by_address(struct symbols *symbols, struct module_record *record,
                                            hi_addr address);
void tables_free(struct tables *tables);

#endif
