/*
 * What the files of symbols/ share: the record behind each struct module. Only symbols/ includes
 * it.
 *
 * modules.c finds modules in the mappings, module_files.c their files, tables.c their symbols;
 * symbols.c answers the public questions. Order of struct symbols.modules: load order (the dynamic
 * linker's list), executable first; what is not on the list (vdso, dlmopen) comes last.
 */
#ifndef SYMBOLS_INTERNAL_H
#define SYMBOLS_INTERNAL_H

#include "symbols/image.h"
#include "symbols/names.h"
#include "symbols/symbols.h"
#include "symbols/tables.h"

/* What PT_DYNAMIC says, as p_vaddr (bias taken off); 0: not there. */
struct dynamic {
    uint64_t symtab, strtab, strtab_bytes, hash, gnu_hash, versym;
    uint64_t rela, rela_bytes, relr, relr_bytes;
    uint64_t soname; /* offset in strtab */
    uint64_t debug;  /* DT_DEBUG: address of struct r_debug, in memory only */
    bool has_soname;
    size_t needed_count;
    uint64_t flags_1;
};

/* Where the program headers came from, and so what a file can be checked against. */
enum header_origin { HEADERS_FROM_MEMORY, HEADERS_FROM_FILE };

enum { MODULE_PATH_ROOM = 4096 + 128 };

struct module_record {
    struct module module;
    char *path;
    const struct mapping *mapping; /* the one that holds the ELF header */
    enum header_origin origin;
    Elf64_Ehdr header;
    Elf64_Phdr *headers; /* header_count of them */
    size_t header_count;
    VECTOR(struct module_segment) segments;
    struct dynamic dynamic;
    struct image file;  /* matches the target; bytes NULL: none found */
    struct image debug; /* separate debug file */
    struct image mini;  /* unpacked .gnu_debugdata */
    struct tables tables;
    VECTOR(void *) owned; /* copies of target memory that tables point into */
    void *frames;         /* frames.c: Dwarf_CFI and what it needs */
    bool frames_tried;
    struct debug_info *debug_info; /* DWARF, opened on first use */
    bool debug_tried;
    size_t load_order;
};

struct symbols {
    struct target *target;
    char *executable, *sysroot, *debug_directory;
    VECTOR(struct module_record) modules;
    size_t *by_address;      /* indexes of modules, sorted by start */
    struct text_pool *texts; /* names and paths that were asked for */
    struct name_memo *memo;
    int64_t fetched_ms; /* spent on debuginfod servers */
    VECTOR(struct module_record *)
    gone; /* gone_modules.c: remembered by others, not loaded */
};

/* modules.c */
HI_MUST_USE enum hi_code modules_discover(struct symbols *symbols, struct hi_err *err);
struct module_record *module_record_at(const struct symbols *symbols, hi_addr address);
void module_record_close(struct module_record *record);
/* Segments out of the headers; false: memory ran out. */
bool module_take_segments(struct module_record *record);
/* bytes at vaddr out of the file, else out of the target's memory; NULL: neither. Lives as long as
 * the module. */
const void *module_bytes(struct symbols *symbols, struct module_record *record, uint64_t vaddr,
                         uint64_t bytes);
const Elf64_Phdr *module_header_of_type(const struct module_record *record, uint32_t type);

/* dynamic.c */
void module_read_dynamic(struct symbols *symbols, struct module_record *record);
/* Sort symbols->modules as the dynamic linker loaded them. */
void modules_sort_by_load(struct symbols *symbols);

/* module_files.c */
/* Find record's file and check it. HI_BAD_INPUT: --exe names another program. No file: HI_OK. */
HI_MUST_USE enum hi_code module_find_file(struct symbols *symbols, struct module_record *record,
                                          struct hi_err *err);
/* The separate debug file into record->debug, and .gnu_debugdata into record->mini. */
void module_find_debug(struct symbols *symbols, struct module_record *record);
/* The same from a server: takes seconds. */
void module_fetch_debug(struct symbols *symbols, struct module_record *record);

/* The n-th path (room for MODULE_PATH_ROOM) where the file of record's build-id may be; false: no
 * more. The build-id must have two bytes at least. */
bool module_build_id_path(const struct symbols *symbols, const struct module *module, size_t n,
                          const char *suffix, char *path);
/* The first of them that fits; the caller closes it. false: none. */
typedef bool image_test(const void *context, const struct image *image);
bool module_image_by_build_id(const struct symbols *symbols, const struct module *module,
                              const char *suffix, image_test *fits, const void *context,
                              struct image *image);

/* The n-th folder of debug files, maybe put into room (MODULE_PATH_ROOM); NULL: no more. */
const char *debug_folder(const struct symbols *symbols, size_t n, char *room);
/* Before paths that the target has. */
void target_root(const struct symbols *symbols, char *room, size_t size);

/* debuginfod.c: the path of a debug file that was fetched by build-id; false: none. */
bool debuginfod_fetch(struct symbols *symbols, const struct module *module, char *path,
                      size_t size);

/* gone_modules.c: the record of a module that somebody remembers; NULL: memory ran out. */
struct module_record *module_record_marked(struct symbols *symbols, const struct module_mark *mark);

/* file_source.c */
void file_source_install(struct symbols *symbols);
void file_source_remove(struct symbols *symbols);

/* frames.c */
void frames_close(struct module_record *record);

/* debug_info.c */
void debug_info_close(struct module_record *record);

#endif
