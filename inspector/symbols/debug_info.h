/*
 * debug_info: the DWARF of one module, indexed as far as it was asked for.
 *
 *   debug_info.c  finds and opens it, answers for one address
 *   units.c       compilation units by address
 *   functions.c   of one unit: functions and inlined calls by address
 *   lines.c       of one unit: files and lines by address
 *
 * Only symbols/ includes this. DIEs are iterated with libdw; its look-ups by address are not used
 * (they need .debug_aranges, lose inlined calls whose origin is in another unit, and are slow).
 *
 * A damaged file costs names. Work is bounded by a budget in proportion to the size of the file: a
 * sound one mentions each range and each row once.
 */
#ifndef SYMBOLS_DEBUG_INFO_H
#define SYMBOLS_DEBUG_INFO_H

#include "symbols/intervals.h"
#include "symbols/internal.h"
#include "symbols/lines.h"

#include <elfutils/libdw.h>

enum { SCOPE_NONE = UINT32_MAX, FRAMES_MAX = 256 };

/* A function's code, or a call that was inlined into it. */
struct scope {
    Dwarf_Die die;
    uint32_t parent; /* the scope around an inlined call; SCOPE_NONE for a function */
    uint32_t call_file, call_line, call_column;
    bool is_named;
    const char *name; /* once is_named; NULL: has none */
};

struct functions {
    VECTOR(struct scope) scopes;
    struct interval_table by_address; /* to scopes */
};

struct unit {
    Dwarf_Die die; /* the skeleton, where there is one */
    bool is_indexed, is_c;
    struct functions functions;
    struct line_table *lines; /* NULL: none; shared between units */
    const char *compile_directory;
};

struct debug_info {
    Dwarf *dwarf;
    Elf *elf;
    int fd;
    struct image unpacked;        /* the file's sections, where they were packed */
    struct image alternate_image; /* dwz: what several files share */
    Dwarf *alternate;
    Elf *alternate_elf;
    uint64_t text_start, text_end; /* code lies in here */
    uint64_t steps, budget;
    struct line_sections sections;
    VECTOR(struct unit) units;
    struct interval_table by_address; /* to units */
    VECTOR(struct line_table *) lines;
    uint32_t *line_slots; /* by offset: index of lines + 1; 0: empty */
    size_t line_slot_count;
    struct text_pool *texts; /* of the symbols object */
};

struct debug_frame {
    const char *name; /* for the linker where it has such a name; NULL: unknown */
    bool is_bare;     /* a name without namespace and parameters, in a language that has them, or
                         a library's inner name (__strdup): a symbol may say it better */
    const char *file; /* NULL: unknown */
    uint32_t line, column;
    bool is_inline;
};

/* Of record, opened on first use; NULL: there is none. */
struct debug_info *debug_info_of(struct symbols *symbols, struct module_record *record);
/* Frames at vaddr, innermost first, at most FRAMES_MAX; 0: nothing is known. The outermost has no
 * name where only the line is known. */
size_t debug_info_frames(struct debug_info *info, uint64_t vaddr, struct debug_frame *frames);

/* More to work through: a file of so many bytes. */
void debug_info_allow(struct debug_info *info, uint64_t file_bytes);

/* units.c; false: memory ran out */
bool units_read(struct debug_info *info);
struct unit *units_find(struct debug_info *info, uint64_t vaddr);
void units_free(struct debug_info *info);

/* functions.c; false: memory ran out */
bool functions_read(struct debug_info *info, struct unit *unit);
void functions_free(struct functions *functions);
const char *scope_name(struct scope *scope);
bool name_is_mangled(const char *name);

/* The ranges of a DIE that are code, each to add(); false: memory ran out or the budget has. */
struct die_code {
    Dwarf_Attribute low, high, ranges;
    bool has_low, has_high, has_ranges;
};
bool die_code_take(struct die_code *code, const Dwarf_Attribute *attribute);
bool die_code_add(struct debug_info *info, Dwarf_Die *die, const struct die_code *code,
                  interval_vector *intervals, uint32_t value, uint32_t depth);

#endif
