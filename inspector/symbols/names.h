/*
 * names: function, inline chain, file and line of many code addresses at once.
 *
 * Works on files only (and on what was copied out of the target's memory before it was let go):
 * call it after target_release(). What it opens and indexes stays with the symbols object, so a
 * second batch is cheap; a batch is cheaper than its addresses one by one.
 *
 * An address becomes one frame or more: the innermost first, is_inline set for all but the last,
 * which is the function whose machine code it is. Sources, best first: DWARF (of the file, or its
 * debug file by build-id, .gnu_debuglink or debuginfod), symbol tables (also .gnu_debugdata), and
 * where nothing is known the module with offset and build-id. There is always at least one frame.
 *
 * Damaged files cost names, never more: everything is bounded.
 */
#ifndef SYMBOLS_NAMES_H
#define SYMBOLS_NAMES_H

#include "symbols/symbols.h"

/* A module as somebody else remembers it (the allocator's own table): it may be gone by now. */
struct module_mark {
    const char *path; /* "" if unknown */
    hi_addr start, end, bias;
    const unsigned char *build_id;
    size_t build_id_bytes; /* 0: unknown */
};

struct frame_place {
    hi_addr address;
    bool exact; /* the instruction itself; else a return address: the call before it is named */
    const struct module_mark *module; /* NULL: what is loaded there now */
};

struct frame_name {
    const char *function;  /* demangled; NULL: unknown */
    const char *linkage;   /* as the linker knows it, where that differs from function; else NULL */
    const char *file;      /* whole path as compiled; NULL: unknown */
    uint32_t line, column; /* 0: unknown */
    const char *module;    /* path as the target had it; NULL: in no module */
    const char *build_id;  /* of the module, hexadecimal; NULL: unknown */
    uint64_t offset;       /* in the module: address - bias; without a module the address */
    uint64_t function_offset; /* from the function's symbol; only where there is no line */
    bool is_inline;           /* inlined into the next frame */
};

/* Frames of places[i] are frames[spans[i].first] and .count - 1 more; equal places share them. */
struct name_span {
    uint32_t first, count;
};

struct names {
    struct frame_name *frames;
    size_t frame_count;
    struct name_span *spans; /* one a place */
    size_t count;
};

/* Name count places. Strings live as long as symbols. */
HI_MUST_USE enum hi_code names_of(struct symbols *symbols, const struct frame_place *places,
                                  size_t count, struct names *names, struct hi_err *err);
void names_free(struct names *names);

/* Frames of place index, innermost first; always one at least. */
static inline const struct frame_name *names_at(const struct names *names, size_t index,
                                                size_t *count)
{
    *count = names->spans[index].count;
    return &names->frames[names->spans[index].first];
}

/* "function file.c:12", "function+0x12 (libfoo.so)" or "libfoo.so+0x1234 (build-id ...)". */
void names_describe(const struct frame_name *name, char *buffer, size_t size);

#endif
