/*
 * lines: the line number program, decoded to rows.
 *
 * Terms: a table (one a unit, named by its offset) has a header with directories and files, and a
 * program whose opcodes move an address and a line; rows are what it emits. A sequence is a run of
 * rows with growing addresses, ended by one that belongs to no line. A row covers the addresses up
 * to the next row; of rows with one address the last counts, since the others cover nothing.
 *
 * Sequences of discarded sections begin at 0 or at an address beyond all code (the linkers' marks
 * for "not here"); they and those whose addresses go backwards are dropped. An opcode emits one row
 * at most, so that a table has never more rows than bytes.
 *
 * DWARF 5 counts files from 0 and lists the compilation directory as directory 0; before, files are
 * counted from 1 and directory 0 is the unit's own.
 */
#include "symbols/lines.h"

#include "symbols/cursor.h"

#include <dwarf.h>
#include <stdio.h>

enum { FILES_MAX = (1 << 20) - 1, COLUMN_MAX = (1 << 12) - 1, FORMATS_MAX = 16 };

struct program {
    struct line_table *table;
    const struct line_sections *sections;
    struct cursor cursor;
    bool is_64;
    unsigned address_bytes, minimum_bytes, operations, opcode_base, line_range;
    int line_base;
    const unsigned char *lengths; /* operands of the standard opcodes */
    /* the machine */
    uint64_t address, operation, file, line, column;
    size_t first; /* row of the sequence */
    bool is_sorted, failed /* no memory */;
};

/* -- header ------------------------------------------------------------------------------------*/

static const char *text_at(struct bytes section, uint64_t offset)
{
    if (offset >= section.size || !memchr(section.at + offset, 0, section.size - offset))
        return NULL;
    return (const char *)section.at + offset;
}

/* One value of a DWARF 5 entry: text for strings, number for the rest. */
static void read_form(struct program *p, uint64_t form, const char **text, uint64_t *number)
{
    struct cursor *cursor = &p->cursor;
    switch (form) {
    case DW_FORM_string:
        *text = cursor_string(cursor);
        break;
    case DW_FORM_line_strp:
        *text = text_at(p->sections->line_str, cursor_fixed(cursor, p->is_64 ? 8 : 4));
        break;
    case DW_FORM_strp:
        *text = text_at(p->sections->str, cursor_fixed(cursor, p->is_64 ? 8 : 4));
        break;
    case DW_FORM_udata:
        *number = cursor_unsigned(cursor);
        break;
    case DW_FORM_data1:
        *number = cursor_fixed(cursor, 1);
        break;
    case DW_FORM_data2:
        *number = cursor_fixed(cursor, 2);
        break;
    case DW_FORM_data4:
        *number = cursor_fixed(cursor, 4);
        break;
    case DW_FORM_data8:
        *number = cursor_fixed(cursor, 8);
        break;
    case DW_FORM_data16:
        cursor_skip(cursor, 16);
        break;
    case DW_FORM_block:
        cursor_skip(cursor, cursor_unsigned(cursor));
        break;
    default:
        cursor->failed = true;
    }
}

static void add_directory(struct program *p, const char *name)
{
    const char **directory = VECTOR_PUSH(&p->table->directories);
    p->failed |= !directory;
    if (directory)
        *directory = name ? name : "";
}

static void add_file(struct program *p, const char *name, uint64_t directory)
{
    struct line_file *file = VECTOR_PUSH(&p->table->files);
    p->failed |= !file;
    if (file)
        *file = (struct line_file){name ? name : "", directory, NULL};
}

static void read_entries(struct program *p, bool is_files)
{
    struct cursor *cursor = &p->cursor;
    uint64_t content[FORMATS_MAX] = {0}, form[FORMATS_MAX] = {0};
    size_t formats = cursor_fixed(cursor, 1);
    cursor->failed |= formats > FORMATS_MAX;
    for (size_t i = 0; i < formats && !cursor->failed; i++) {
        content[i] = cursor_unsigned(cursor);
        form[i] = cursor_unsigned(cursor);
    }
    uint64_t count = cursor_unsigned(cursor);
    /* an entry has a byte at least */
    cursor->failed |= count > (uint64_t)(cursor->end - cursor->at) || (count && !formats);
    for (uint64_t k = 0; k < count && !cursor->failed && !p->failed; k++) {
        const char *name = NULL;
        uint64_t directory = 0;
        for (size_t i = 0; i < formats; i++) {
            const char *text = NULL;
            uint64_t number = 0;
            read_form(p, form[i], &text, &number);
            name = content[i] == DW_LNCT_path ? text : name;
            directory = content[i] == DW_LNCT_directory_index ? number : directory;
        }
        if (is_files)
            add_file(p, name, directory);
        else
            add_directory(p, name);
    }
}

static void read_old_file(struct program *p, const char *name)
{
    uint64_t directory = cursor_unsigned(&p->cursor);
    cursor_unsigned(&p->cursor); /* time */
    cursor_unsigned(&p->cursor); /* length */
    if (!p->cursor.failed)
        add_file(p, name, directory);
}

static void read_old_entries(struct program *p)
{
    const char *name;
    add_directory(p, NULL);
    add_file(p, NULL, 0);
    while (!p->failed && (name = cursor_string(&p->cursor)) && *name)
        add_directory(p, name);
    while (!p->failed && (name = cursor_string(&p->cursor)) && *name)
        read_old_file(p, name);
}

static bool read_header(struct program *p)
{
    struct cursor *cursor = &p->cursor;
    uint64_t length = cursor_fixed(cursor, 4);
    p->is_64 = length == 0xffffffff;
    if (p->is_64)
        length = cursor_fixed(cursor, 8);
    if (cursor->failed)
        return false;
    if (length < (uint64_t)(cursor->end - cursor->at))
        cursor->end = cursor->at + length;
    unsigned version = p->table->version = (unsigned)cursor_fixed(cursor, 2);
    p->address_bytes = 8;
    if (version >= 5) {
        p->address_bytes = (unsigned)cursor_fixed(cursor, 1);
        cursor_skip(cursor, 1);
    }
    uint64_t header = cursor_fixed(cursor, p->is_64 ? 8 : 4);
    if (cursor->failed || version < 2 || version > 5 || p->address_bytes != 8 ||
        header > (uint64_t)(cursor->end - cursor->at))
        return false;
    const unsigned char *start = cursor->at + header;
    p->minimum_bytes = (unsigned)cursor_fixed(cursor, 1);
    p->operations = version >= 4 ? (unsigned)cursor_fixed(cursor, 1) : 1;
    cursor_skip(cursor, 1); /* default is_stmt */
    p->line_base = (int)cursor_fixed(cursor, 1);
    p->line_base -= p->line_base > INT8_MAX ? 256 : 0;
    p->line_range = (unsigned)cursor_fixed(cursor, 1);
    p->opcode_base = (unsigned)cursor_fixed(cursor, 1);
    if (cursor->failed || !p->operations || !p->line_range || !p->opcode_base)
        return false;
    p->lengths = cursor_skip(cursor, p->opcode_base - 1);
    if (version >= 5) {
        read_entries(p, false);
        read_entries(p, true);
    } else {
        read_old_entries(p);
    }
    bool is_read = !cursor->failed && !p->failed;
    cursor->at = start;
    return is_read;
}

/* -- the machine -------------------------------------------------------------------------------*/

static void reset(struct program *p)
{
    p->address = p->operation = p->column = 0;
    p->file = p->line = 1;
    p->first = p->table->rows.count;
    p->is_sorted = true;
}

static void advance(struct program *p, uint64_t operations)
{
    if (p->operations == 1) {
        p->address += operations * p->minimum_bytes;
        return;
    }
    operations += p->operation;
    p->address += p->minimum_bytes * (operations / p->operations);
    p->operation = operations % p->operations;
}

static void emit(struct program *p)
{
    struct line_table *table = p->table;
    if (table->rows.count > p->first)
        p->is_sorted &= p->address >= table->rows.items[table->rows.count - 1].address;
    struct line_row *row = VECTOR_PUSH(&table->rows);
    p->failed |= !row;
    if (!row)
        return;
    row->address = p->address;
    row->line = p->line > UINT32_MAX ? 0 : (uint32_t)p->line;
    row->file = p->file > FILES_MAX ? FILES_MAX : (uint32_t)p->file;
    row->column = p->column > COLUMN_MAX ? 0 : (uint32_t)p->column;
}

static void end_sequence(struct program *p)
{
    struct line_table *table = p->table;
    size_t count = table->rows.count - p->first;
    uint64_t start = count ? table->rows.items[p->first].address : 0;
    bool is_code = start >= p->sections->text_start && p->address <= p->sections->text_end &&
                   start < p->address;
    p->is_sorted &= !count || p->address >= table->rows.items[table->rows.count - 1].address;
    struct line_sequence *sequence =
        count && is_code && p->is_sorted ? VECTOR_PUSH(&table->sequences) : NULL;
    if (sequence)
        *sequence = (struct line_sequence){p->address, p->first, count};
    else
        table->rows.count = p->first;
    reset(p);
}

static void run_extended(struct program *p)
{
    uint64_t length = cursor_unsigned(&p->cursor);
    const unsigned char *body = cursor_skip(&p->cursor, length);
    if (!body || length == 0)
        return;
    struct cursor inner = {.at = body + 1, .end = body + length};
    switch (*body) {
    case DW_LNE_end_sequence:
        end_sequence(p);
        break;
    case DW_LNE_set_address:
        p->address = cursor_fixed(&inner, length - 1 < 8 ? length - 1 : 8);
        p->operation = 0;
        break;
    case DW_LNE_define_file: {
        const char *name = cursor_string(&inner);
        uint64_t directory = cursor_unsigned(&inner);
        if (!inner.failed && p->table->version < 5)
            add_file(p, name, directory);
        break;
    }
    default: /* discriminators, and what comes after us */
        break;
    }
}

static void run_standard(struct program *p, unsigned opcode)
{
    struct cursor *cursor = &p->cursor;
    switch (opcode) {
    case DW_LNS_copy:
        emit(p);
        break;
    case DW_LNS_advance_pc:
        advance(p, cursor_unsigned(cursor));
        break;
    case DW_LNS_advance_line:
        p->line = (uint64_t)((int64_t)p->line + (cursor_signed(cursor) % INT32_MAX)) & UINT32_MAX;
        break;
    case DW_LNS_set_file:
        p->file = cursor_unsigned(cursor);
        break;
    case DW_LNS_set_column:
        p->column = cursor_unsigned(cursor);
        break;
    case DW_LNS_const_add_pc:
        advance(p, (255 - p->opcode_base) / p->line_range);
        break;
    case DW_LNS_fixed_advance_pc:
        p->address += cursor_fixed(cursor, 2);
        p->operation = 0;
        break;
    default: /* flags, and what comes after us */
        for (unsigned i = p->lengths[opcode - 1]; i; i--)
            cursor_unsigned(cursor);
    }
}

static void run(struct program *p)
{
    struct cursor *cursor = &p->cursor;
    reset(p);
    while (cursor->at < cursor->end && !cursor->failed && !p->failed) {
        unsigned opcode = *cursor->at++;
        if (opcode >= p->opcode_base) {
            unsigned special = opcode - p->opcode_base;
            advance(p, special / p->line_range);
            p->line += (uint64_t)(int64_t)(p->line_base + (int)(special % p->line_range));
            p->line &= UINT32_MAX;
            emit(p);
        } else if (opcode == 0) {
            run_extended(p);
        } else {
            run_standard(p, opcode);
        }
    }
    p->table->rows.count = p->first; /* a sequence without an end */
}

/* -- the public side ---------------------------------------------------------------------------*/

static bool index_sequences(struct line_table *table)
{
    interval_vector intervals = {0};
    bool is_done = true;
    for (size_t i = 0; i < table->sequences.count && is_done; i++) {
        const struct line_sequence *sequence = &table->sequences.items[i];
        struct interval *interval = VECTOR_PUSH(&intervals);
        is_done = interval != NULL;
        if (interval)
            *interval = (struct interval){table->rows.items[sequence->first].address, sequence->end,
                                          (uint32_t)i, 0};
    }
    is_done = is_done && intervals_flatten(&intervals, &table->by_address);
    VECTOR_FREE(&intervals);
    return is_done;
}

bool lines_read(struct line_table *table, const struct line_sections *sections, uint64_t offset,
                uint64_t *steps)
{
    memset(table, 0, sizeof *table);
    table->offset = offset;
    if (offset >= sections->line.size)
        return true;
    struct program program = {.table = table, .sections = sections};
    program.cursor.at = sections->line.at + offset;
    program.cursor.end = sections->line.at + sections->line.size;
    if (read_header(&program))
        run(&program);
    *steps += (uint64_t)(program.cursor.at - sections->line.at) - offset;
    return !program.failed && index_sequences(table);
}

void lines_free(struct line_table *table)
{
    VECTOR_FREE(&table->directories);
    VECTOR_FREE(&table->files);
    VECTOR_FREE(&table->rows);
    VECTOR_FREE(&table->sequences);
    intervals_free(&table->by_address);
}

const struct line_row *lines_find(const struct line_table *table, uint64_t address)
{
    uint32_t index = intervals_find(&table->by_address, address);
    if (index == INTERVAL_NONE)
        return NULL;
    const struct line_sequence *sequence = &table->sequences.items[index];
    const struct line_row *rows = &table->rows.items[sequence->first];
    size_t low = 0, high = sequence->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (rows[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &rows[low - 1] : NULL;
}

struct line_file *lines_file(const struct line_table *table, uint64_t number)
{
    if (number >= table->files.count || (number == 0 && table->version < 5))
        return NULL;
    return &table->files.items[number];
}

void lines_path(const struct line_table *table, const struct line_file *file,
                const char *compile_directory, char *buffer, size_t size)
{
    const char *directory =
        file->directory < table->directories.count ? table->directories.items[file->directory] : "";
    bool is_whole = file->name[0] == '/', is_rooted = is_whole || directory[0] == '/';
    if (is_whole)
        directory = "";
    if (is_rooted)
        compile_directory = "";
    snprintf(buffer, size, "%s%s%s%s%s", compile_directory, *compile_directory ? "/" : "",
             directory, *directory ? "/" : "", file->name);
}
