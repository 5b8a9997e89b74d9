/*
 * symbols: what the target's files say. Modules (executable, libraries, vdso), name <-> address,
 * bytes of sections that a dump left out, and where a C library frame begins.
 *
 * The only folder, with target's core reader, that includes elfutils. Everything is read from files
 * that are checked against the target: build-id of the mapped first page against the file's; a
 * file that does not match is not used, and a note says so. Files may be missing altogether: then
 * modules have names and ranges, and look-ups answer HI_NOT_FOUND. Where the target's memory holds
 * the dynamic symbol table (it does in a live process), that serves without the file.
 *
 * Heap readers get look-up functions (struct symbol_lookup below), never an Elf or a Dwfl.
 *
 * Opening installs the file source of target.h, so that text and rodata of a core can be read.
 * Opening is cheap (program headers only); symbol tables are sorted on first use.
 * Thread safety: one thread at a time.
 */
#ifndef SYMBOLS_SYMBOLS_H
#define SYMBOLS_SYMBOLS_H

#include "target/target.h"

struct symbols;

enum module_kind { MODULE_EXECUTABLE, MODULE_LIBRARY, MODULE_VDSO };

struct module {
    enum module_kind kind;
    const char *path;   /* as the target had it; never NULL, "" if unknown */
    hi_addr start, end; /* first to last mapped byte of it */
    hi_addr bias;       /* address = bias + p_vaddr */
    unsigned char build_id[32];
    size_t build_id_bytes;           /* 0: none */
    bool has_file;                   /* a matching file was found */
    bool is_static;                  /* executable without PT_INTERP and without DT_NEEDED */
    bool is_libc, is_dynamic_linker; /* by soname and tell-tale symbols */
    struct hi_range relro;           /* PT_GNU_RELRO in the target; empty: none */
    uint64_t tls_bytes, tls_align;   /* PT_TLS memory size; 0: none */
};

enum symbol_source { SYMBOL_DYNSYM = 1, SYMBOL_SYMTAB, SYMBOL_DEBUGFILE, SYMBOL_DWARF };

struct symbol {
    const char *name; /* as in the table (mangled); owned by symbols */
    hi_addr address;  /* in the target */
    uint64_t size;
    bool is_function, is_object, is_tls; /* is_tls: address is the offset in the module's TLS */
    enum symbol_source source;
    size_t module; /* index */
};

HI_MUST_USE enum hi_code symbols_open(struct symbols **symbols, struct target *target,
                                      const struct target_options *options, struct hi_err *err);
void symbols_close(struct symbols *symbols);

size_t symbols_module_count(const struct symbols *symbols);
const struct module *symbols_module(const struct symbols *symbols, size_t index);
/* The module with a mapped byte at address, or NULL. */
const struct module *symbols_module_at(const struct symbols *symbols, hi_addr address);

/* A defined symbol by exact name; module: an index, or SYMBOLS_ANY_MODULE in load order. Looks in
 * .dynsym, .symtab, then a separate debug file (build-id, .gnu_debuglink, .gnu_debugdata). */
#define SYMBOLS_ANY_MODULE ((size_t)-1)
HI_MUST_USE enum hi_code symbols_find(struct symbols *symbols, size_t module, const char *name,
                                      struct symbol *symbol, struct hi_err *err);
/* The symbol that covers address, the innermost when several do. HI_NOT_FOUND when none. */
HI_MUST_USE enum hi_code symbols_at(struct symbols *symbols, hi_addr address, struct symbol *symbol,
                                    struct hi_err *err);
/* "function+0x12", "libfoo.so.1+0x1234", or "0x..." into buffer; demangled by libiberty. */
void symbols_describe(struct symbols *symbols, hi_addr address, char *buffer, size_t size);
/* Only the demangled name. */
void symbols_demangle(const char *name, char *buffer, size_t size);

/* Bytes at a module's p_vaddr from its file, for rodata and relocation hunting. */
HI_MUST_USE enum hi_code symbols_read_file(struct symbols *symbols, size_t module, uint64_t vaddr,
                                           void *buffer, size_t bytes, struct hi_err *err);

/* Segments of a module as the program headers have them, in the target's addresses. */
struct module_segment {
    struct hi_range memory; /* p_vaddr .. + p_memsz */
    uint64_t file_bytes;    /* p_filesz */
    unsigned protection;    /* MAPPING_READ ... as the headers say */
};
size_t symbols_segment_count(const struct symbols *symbols, size_t module);
struct module_segment symbols_segment(const struct symbols *symbols, size_t module, size_t index);

/* Dynamic relocations whose place lies in [start, end): (place, addend) pairs of relative ones, in
 * the target's addresses (RELA addend or in-place value + bias). visit returns false to stop. */
HI_MUST_USE enum hi_code
symbols_relocations(struct symbols *symbols, size_t module, struct hi_range places,
                    bool (*visit)(void *context, hi_addr place, hi_addr value), void *context,
                    struct hi_err *err);

/* With a return address pc inside a function and the stack slot that holds it, the caller's frame
 * start (CFA) of the function by its .eh_frame: CFA = what sp was before the call into it.
 * sp: the stack pointer in that function after its callee returned (slot + 8). */
HI_MUST_USE enum hi_code symbols_frame_cfa(struct symbols *symbols, hi_addr pc, hi_addr sp,
                                           hi_addr *cfa, struct hi_err *err);

#endif
