/*
 * lines: one unit's line table (.debug_line, DWARF 2 to 5): address to file, line and column.
 *
 * The bytes are not believed: each read is bounded by the table, and what is not understood ends
 * the table there. Sequences of code that the linker threw away are left out.
 */
#ifndef SYMBOLS_LINES_H
#define SYMBOLS_LINES_H

#include "symbols/intervals.h"

struct bytes {
    const unsigned char *at;
    size_t size;
};

/* Sections of the file, unpacked. */
struct line_sections {
    struct bytes line, line_str, str;
    uint64_t text_start, text_end; /* code lies in here */
};

struct line_row {
    uint64_t address;
    uint32_t line;
    uint32_t file : 20, column : 12;
};

struct line_sequence {
    uint64_t end;
    size_t first, count; /* of rows */
};

struct line_file {
    const char *name;
    uint64_t directory;
    const char *path; /* made when it is asked for; the owner's */
};

struct line_table {
    uint64_t offset; /* in .debug_line */
    unsigned version;
    VECTOR(const char *) directories;
    VECTOR(struct line_file) files;
    VECTOR(struct line_row) rows;
    VECTOR(struct line_sequence) sequences;
    struct interval_table by_address; /* to sequences */
};

/* false: memory ran out. A damaged table is kept as far as it goes. *steps counts bytes. */
bool lines_read(struct line_table *table, const struct line_sections *sections, uint64_t offset,
                uint64_t *steps);
void lines_free(struct line_table *table);
/* The row that address belongs to, or NULL. */
const struct line_row *lines_find(const struct line_table *table, uint64_t address);
/* Entry of a file number, by the rules of the table's version; NULL: none. */
struct line_file *lines_file(const struct line_table *table, uint64_t number);
/* Whole path of an entry, with the unit's DW_AT_comp_dir ("" if unknown) before it. */
void lines_path(const struct line_table *table, const struct line_file *file,
                const char *compile_directory, char *buffer, size_t size);

#endif
