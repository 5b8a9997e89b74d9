/*
 * The emitter: see writer.h for what it promises.
 *
 * State is small: the output buffer, and one bit a nesting level that says whether a comma is due.
 * Values are made in a stack buffer, then placed by the pattern. Nothing is allocated after open,
 * so ten million lines cost ten million times a few memcpy.
 */
#include "report/writer.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 16, DEEPEST = 60, LONGEST_NUMBER = 64, STRING_COLUMNS_MAX = 512 };

struct writer {
    int descriptor;
    enum writer_shape shape;
    bool colour;
    int error; /* errno of the first failed write; 0: none */
    unsigned depth;
    uint64_t has_items; /* bit d: a comma is due at depth d */
    size_t used;
    char buffer[BUFFER_BYTES];
};

enum hi_code writer_open(struct writer **writer, int descriptor, enum writer_shape shape,
                         bool colour, struct hi_err *err)
{
    struct writer *w = malloc(sizeof *w);
    if (!w)
        return hi_no_memory(err);
    w->descriptor = descriptor;
    w->shape = shape;
    w->colour = colour && shape == WRITER_TEXT;
    w->error = 0;
    w->depth = 0;
    w->has_items = 0;
    w->used = 0;
    *writer = w;
    return HI_OK;
}

static void flush(struct writer *w)
{
    size_t done = 0;
    while (!w->error && done < w->used) {
        ssize_t n = write(w->descriptor, w->buffer + done, w->used - done);
        if (n > 0)
            done += (size_t)n;
        else if (n < 0 && errno != EINTR)
            w->error = errno;
    }
    w->used = 0;
}

static void put(struct writer *w, const char *bytes, size_t count)
{
    if (count <= BUFFER_BYTES - w->used) {
        memcpy(w->buffer + w->used, bytes, count);
        w->used += count;
        return;
    }
    while (count) {
        if (w->used == BUFFER_BYTES)
            flush(w);
        size_t room = BUFFER_BYTES - w->used, part = count < room ? count : room;
        memcpy(w->buffer + w->used, bytes, part);
        w->used += part;
        bytes += part;
        count -= part;
    }
}

static void put_text(struct writer *w, const char *text)
{
    put(w, text, strlen(text));
}

enum hi_code writer_close(struct writer *writer, struct hi_err *err)
{
    flush(writer);
    int error = writer->error;
    free(writer);
    if (error && error != EPIPE)
        return hi_fail(err, HI_SYSTEM, "cannot write the answer: %s", strerror(error));
    return HI_OK;
}

bool writer_is_json(const struct writer *writer)
{
    return writer->shape == WRITER_JSON;
}

bool writer_has_colour(const struct writer *writer)
{
    return writer->colour;
}

bool writer_is_over(const struct writer *writer)
{
    return writer->error != 0;
}

/* -- strings: bytes of the target are never trusted ------------------------------------------- */

/* Bytes of the UTF-8 sequence at text (0: none that is valid). text ends in a NUL. */
static size_t utf8_length(const unsigned char *text)
{
    unsigned char first = text[0];
    size_t length = first < 0x80   ? 1
                    : first < 0xc2 ? 0
                    : first < 0xe0 ? 2
                    : first < 0xf0 ? 3
                    : first < 0xf5 ? 4
                                   : 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (first == 0xe0 && text[1] < 0xa0) || (first == 0xf0 && text[1] < 0x90);
    bool surrogate = first == 0xed && text[1] >= 0xa0;
    bool beyond = first == 0xf4 && text[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : length;
}

static void put_json_control(struct writer *w, unsigned char c)
{
    char escape[8];
    int length = snprintf(escape, sizeof escape, "\\u%04x", c);
    put(w, escape, (size_t)length);
}

/* Bytes at the start of text that JSON takes as they are. */
static size_t plain_length(const unsigned char *text)
{
    size_t length = 0;
    while (text[length] >= 0x20 && text[length] < 0x7f && text[length] != '"' &&
           text[length] != '\\')
        length++;
    return length;
}

static void put_json_string(struct writer *w, const char *value)
{
    put(w, "\"", 1);
    for (const unsigned char *p = (const unsigned char *)value; *p;) {
        size_t plain = plain_length(p);
        put(w, (const char *)p, plain);
        p += plain;
        if (!*p)
            break;
        size_t length = utf8_length(p);
        if (length == 0) {
            put_text(w, "\\ufffd");
            length = 1;
        } else if (*p == '"' || *p == '\\') {
            put(w, "\\", 1);
            put(w, (const char *)p, 1);
        } else if (*p < 0x20 || *p == 0x7f) {
            put_json_control(w, *p);
        } else {
            put(w, (const char *)p, length);
        }
        p += length;
    }
    put(w, "\"", 1);
}

/* For a terminal: what is not printable becomes \xNN. Two-byte C1 controls are escaped as well.
 * Returns the columns used, with one a character (wide ones are rare in paths and names). */
static size_t make_printable(const char *value, char *out, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    size_t used = 0, columns = 0;
    for (const unsigned char *p = (const unsigned char *)value; *p && used + 5 < size; columns++) {
        size_t length = utf8_length(p);
        bool control = *p < 0x20 || *p == 0x7f || (p[0] == 0xc2 && p[1] < 0xa0);
        if (length == 0 || control) {
            memcpy(out + used, "\\x", 2);
            out[used + 2] = digits[*p >> 4];
            out[used + 3] = digits[*p & 15];
            used += 4;
            columns += 3;
            p++;
        } else {
            memcpy(out + used, p, length);
            used += length;
            p += length;
        }
    }
    out[used] = '\0';
    return columns;
}

/* -- structure -------------------------------------------------------------------------------- */

static void put_key(struct writer *w, const char *key)
{
    uint64_t bit = UINT64_C(1) << w->depth;
    if (w->has_items & bit)
        put(w, ", ", 2);
    w->has_items |= bit;
    if (key) { /* ours: nothing to escape */
        put(w, "\"", 1);
        put_text(w, key);
        put(w, "\": ", 3);
    }
}

static void begin(struct writer *w, const char *key, const char *bracket)
{
    if (w->shape != WRITER_JSON)
        return;
    if (w->depth == 0)
        w->has_items = 0;
    put_key(w, key);
    put(w, bracket, 1);
    if (w->depth < DEEPEST)
        w->depth++;
    w->has_items &= ~(UINT64_C(1) << w->depth);
}

static void end(struct writer *w, const char *bracket)
{
    if (w->shape != WRITER_JSON)
        return;
    put(w, bracket, 1);
    if (w->depth)
        w->depth--;
}

void writer_object_begin(struct writer *writer, const char *key)
{
    begin(writer, key, "{");
}

void writer_object_end(struct writer *writer)
{
    end(writer, "}");
}

void writer_list_begin(struct writer *writer, const char *key)
{
    begin(writer, key, "[");
}

void writer_list_end(struct writer *writer)
{
    end(writer, "]");
}

/* -- patterns --------------------------------------------------------------------------------- */

struct pattern {
    const char *before, *after;
    size_t before_bytes;
    unsigned width;
    bool pad_right;
    bool has_place;
};

static struct pattern parse_pattern(const char *text)
{
    struct pattern p = {.before = text, .after = ""};
    const char *open = strchr(text, '{'), *shut = open ? strchr(open, '}') : NULL;
    p.before_bytes = shut ? (size_t)(open - text) : strlen(text);
    if (!shut)
        return p;
    p.has_place = true;
    p.after = shut + 1;
    const char *digits = open + 1;
    if (*digits == ':')
        digits++;
    if (*digits == '-') {
        p.pad_right = true;
        digits++;
    }
    for (; *digits >= '0' && *digits <= '9'; digits++)
        p.width = p.width * 10 + (unsigned)(*digits - '0');
    return p;
}

static void put_spaces(struct writer *w, size_t count)
{
    static const char spaces[] = "                                ";
    for (; count; count -= count < 32 ? count : 32)
        put(w, spaces, count < 32 ? count : 32);
}

static void put_pattern(struct writer *w, const char *pattern, const char *value, size_t columns)
{
    struct pattern p = parse_pattern(pattern);
    put(w, p.before, p.before_bytes);
    if (!p.has_place)
        return;
    size_t padding = columns < p.width ? p.width - columns : 0;
    if (!p.pad_right)
        put_spaces(w, padding);
    put_text(w, value);
    if (p.pad_right)
        put_spaces(w, padding);
    put_text(w, p.after);
}

/* One field that isn't a string: json and text already made. */
static void put_field(struct writer *w, const char *key, const char *pattern, const char *json,
                      const char *text)
{
    if (w->shape == WRITER_JSON) {
        put_key(w, key);
        put_text(w, json);
    } else if (pattern) {
        put_pattern(w, pattern, text, strlen(text));
    }
}

/* -- values ----------------------------------------------------------------------------------- */

/* Decimal digits of value at the end of a buffer of LONGEST_NUMBER; group: 1,234,567. */
static const char *decimal(uint64_t value, bool group, char *buffer)
{
    size_t at = LONGEST_NUMBER - 1;
    unsigned digits = 0;
    buffer[at] = '\0';
    do {
        if (group && digits && digits % 3 == 0)
            buffer[--at] = ',';
        buffer[--at] = (char)('0' + value % 10);
        value /= 10;
        digits++;
    } while (value && at > 1);
    return buffer + at;
}

static const char *hexadecimal(uint64_t value, char *buffer)
{
    size_t at = LONGEST_NUMBER - 1;
    buffer[at] = '\0';
    do {
        buffer[--at] = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value && at > 2);
    buffer[--at] = 'x';
    buffer[--at] = '0';
    return buffer + at;
}

void human_bytes(uint64_t bytes, char *buffer)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    double value = (double)bytes;
    while (value >= 1023.95 && unit < 6) {
        value /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(buffer, HUMAN_BYTES_SIZE, "%u B", (unsigned)bytes);
    else
        snprintf(buffer, HUMAN_BYTES_SIZE, "%.1f %s", value, units[unit]);
}

void writer_number(struct writer *writer, const char *key, const char *pattern, uint64_t value)
{
    char buffer[LONGEST_NUMBER];
    bool json = writer->shape == WRITER_JSON;
    const char *digits = decimal(value, !json, buffer);
    put_field(writer, key, pattern, digits, digits);
}

void writer_plain(struct writer *writer, const char *key, const char *pattern, uint64_t value)
{
    char buffer[LONGEST_NUMBER];
    const char *digits = decimal(value, false, buffer);
    put_field(writer, key, pattern, digits, digits);
}

void writer_bytes(struct writer *writer, const char *key, const char *pattern, uint64_t value)
{
    char buffer[LONGEST_NUMBER], human[HUMAN_BYTES_SIZE] = "";
    if (writer->shape == WRITER_TEXT)
        human_bytes(value, human);
    put_field(writer, key, pattern, decimal(value, false, buffer), human);
}

void writer_exact_bytes(struct writer *writer, const char *key, const char *pattern, uint64_t value)
{
    char buffer[LONGEST_NUMBER], human[HUMAN_BYTES_SIZE], both[2 * LONGEST_NUMBER];
    human_bytes(value, human);
    if (value < 1024)
        snprintf(both, sizeof both, "%s", human);
    else
        snprintf(both, sizeof both, "%s bytes (%s)", decimal(value, true, buffer), human);
    put_field(writer, key, pattern, decimal(value, false, buffer), both);
}

void writer_address(struct writer *writer, const char *key, const char *pattern, hi_addr value)
{
    char buffer[LONGEST_NUMBER];
    const char *digits = hexadecimal(value, buffer);
    if (writer->shape != WRITER_JSON) {
        put_field(writer, key, pattern, NULL, digits);
        return;
    }
    put_key(writer, key);
    put(writer, "\"", 1);
    put_text(writer, digits);
    put(writer, "\"", 1);
}

void writer_string(struct writer *writer, const char *key, const char *pattern, const char *value)
{
    char printable[4 * STRING_COLUMNS_MAX];
    if (writer->shape == WRITER_JSON) {
        put_key(writer, key);
        if (value)
            put_json_string(writer, value);
        else
            put_text(writer, "null");
    } else if (pattern) {
        size_t columns = make_printable(value ? value : "-", printable, sizeof printable);
        put_pattern(writer, pattern, printable, columns);
    }
}

void writer_bool(struct writer *writer, const char *key, const char *when_true,
                 const char *when_false, bool value)
{
    const char *text = value ? when_true : when_false;
    put_field(writer, key, text, value ? "true" : "false", "");
}

void writer_seconds(struct writer *writer, const char *key, const char *pattern, double value)
{
    char buffer[LONGEST_NUMBER];
    if (!(value >= 0 && value < 1e12))
        value = 0;
    snprintf(buffer, sizeof buffer, "%.3f", value);
    put_field(writer, key, pattern, buffer, buffer);
}

void writer_null(struct writer *writer, const char *key, const char *text)
{
    put_field(writer, key, text, "null", "");
}

/* -- text only -------------------------------------------------------------------------------- */

void writer_text(struct writer *writer, const char *text)
{
    if (writer->shape == WRITER_TEXT)
        put_text(writer, text);
}

void writer_style(struct writer *writer, enum writer_style style)
{
    static const char *const codes[STYLE_COUNT] = {
        [STYLE_PLAIN] = "\033[0m",    [STYLE_TITLE] = "\033[1m",  [STYLE_QUIET] = "\033[90m",
        [STYLE_LIVE] = "\033[32m",    [STYLE_FREE] = "\033[90m",  [STYLE_CACHED] = "\033[36m",
        [STYLE_WARNING] = "\033[33m", [STYLE_BAD] = "\033[1;31m",
    };
    if (writer->colour)
        put_text(writer, codes[style]);
}

void writer_colour(struct writer *writer, unsigned foreground)
{
    char code[24];
    if (!writer->colour)
        return;
    int length = snprintf(code, sizeof code, "\033[38;5;%um", foreground & 255);
    put(writer, code, (size_t)length);
}

void writer_json_line(struct writer *writer)
{
    if (writer->shape == WRITER_JSON)
        put(writer, "\n", 1);
}
