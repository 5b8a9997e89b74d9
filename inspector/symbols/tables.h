/*
 * tables: the symbols of one module, by name and by address.
 *
 * Opened in stages, each only when the one before had no answer:
 *   1 .dynsym   out of the file, or out of the target's memory
 *   2 .symtab   of the file
 *   3 .symtab   of the debug file, or of .gnu_debugdata
 * Questions by name ask one stage after the other, questions by address want them all.
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
};

/* The symbols of one stage, where the file or the target has them. */
struct table_source {
    const void *symbols; /* Elf64_Sym, may be unaligned; NULL: none */
    size_t count;
    const char *names;
    uint64_t names_bytes; /* up to the last NUL */
    const void *versions; /* uint16_t; NULL: none */
    enum symbol_source source;
    hi_addr bias;
    uint32_t *starts; /* of each symbol, how its name begins; NULL: nobody asked by name yet */
};

struct tables {
    enum tables_stage stage; /* opened up to here */
    struct table_source sources[STAGE_DEBUG + 1];
    VECTOR(struct table_entry) entries; /* of all stages, once somebody asks by address */
    uint32_t *by_address;               /* entries that have an address, sorted */
    hi_addr *reach;                     /* the furthest end among by_address[0..i] */
    size_t by_address_count;
    bool is_sorted;
};

struct module_record;

/* The best symbol of that name that a stage knows; false: none, or memory ran out. */
bool tables_by_name(struct symbols *symbols, struct module_record *record, enum tables_stage stage,
                    const char *name, struct table_entry *entry);
const struct table_entry *tables_by_address(struct symbols *symbols, struct module_record *record,
                                            hi_addr address);
void tables_free(struct tables *tables);

#endif
