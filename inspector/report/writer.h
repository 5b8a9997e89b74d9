/*
 * writer: one sequence of calls, two shapes. A report says each thing once; the writer makes it
 * text for a person or JSON for a program, so that the two cannot drift apart.
 *
 *   writer_object_begin(w, "live");                      text:  4 blocks, 1.2 KiB
 *   writer_number(w, "blocks", "{} blocks, ", 4);        JSON:  "live": {"blocks": 4,
 *   writer_bytes(w, "bytes", "{}", 1234);                                "bytes": 1234}
 *   writer_object_end(w);
 *
 * Every field has a key and a pattern. JSON: "key": value. Text: the pattern, where {} stands for
 * the value made for people (1,234 or 1.2 KiB), {:8} and {:-8} pad it to eight columns on the left
 * or on the right. Glue that is text only (titles, line ends, colours) is writer_text() and
 * writer_style(). A field whose value is no use on a screen has the pattern NULL; there are few
 * (schema names), and each says why.
 *
 * JSON is valid whatever the strings hold: control characters are escaped and bytes that aren't
 * UTF-8 become U+FFFD. In text, control characters of the target's strings are shown escaped, never
 * sent to the terminal. Numbers are integers below 2^64; seconds have three decimals.
 *
 * Output goes through one buffer to a file descriptor; the first failed write is kept, the rest is
 * dropped, and writer_close() says so. EPIPE is no error: nobody reads any more (writer_is_over).
 */
#ifndef REPORT_WRITER_H
#define REPORT_WRITER_H

#include "base/error.h"

enum writer_shape { WRITER_TEXT, WRITER_JSON };

enum writer_style {
    STYLE_PLAIN,
    STYLE_TITLE, /* bold */
    STYLE_QUIET, /* grey */
    STYLE_LIVE,
    STYLE_FREE,
    STYLE_CACHED,
    STYLE_WARNING,
    STYLE_BAD,
    STYLE_COUNT
};

struct writer;

HI_MUST_USE enum hi_code writer_open(struct writer **writer, int descriptor,
                                     enum writer_shape shape, bool colour, struct hi_err *err);
/* Flush and free. HI_SYSTEM when some of it could not be written (disk full). */
HI_MUST_USE enum hi_code writer_close(struct writer *writer, struct hi_err *err);
bool writer_is_json(const struct writer *writer);
bool writer_has_colour(const struct writer *writer);
bool writer_is_over(const struct writer *writer); /* nothing more can be written: stop the loop */

/* key: NULL inside a list and for the outermost object. */
void writer_object_begin(struct writer *writer, const char *key);
void writer_object_end(struct writer *writer);
void writer_list_begin(struct writer *writer, const char *key);
void writer_list_end(struct writer *writer);

void writer_number(struct writer *writer, const char *key, const char *pattern, uint64_t value);
/* Text: without separators: what is copied or cut out by tools (ids, sizes in listings). */
void writer_plain(struct writer *writer, const char *key, const char *pattern, uint64_t value);
/* Text: 1.2 KiB. */
void writer_bytes(struct writer *writer, const char *key, const char *pattern, uint64_t value);
/* Text: 12,345,678 (11.8 MiB): where the exact number matters. */
void writer_exact_bytes(struct writer *writer, const char *key, const char *pattern,
                        uint64_t value);
void writer_address(struct writer *writer, const char *key, const char *pattern, hi_addr value);
/* NULL: null in JSON, "-" in text. */
void writer_string(struct writer *writer, const char *key, const char *pattern, const char *value);
void writer_bool(struct writer *writer, const char *key, const char *when_true,
                 const char *when_false, bool value);
void writer_seconds(struct writer *writer, const char *key, const char *pattern, double value);
/* JSON: null. Text: text as it is (NULL: nothing). */
void writer_null(struct writer *writer, const char *key, const char *text);

/* Text only. */
void writer_text(struct writer *writer, const char *text);
void writer_style(struct writer *writer, enum writer_style style);
/* An SGR sequence of 256 colours, when there is colour; the plain style ends it. */
void writer_colour(struct writer *writer, unsigned foreground);
/* JSON only: a line end between the objects of a stream. */
void writer_json_line(struct writer *writer);

/* "1.2 KiB", "17 B" into buffer of at least 16 bytes. */
enum { HUMAN_BYTES_SIZE = 16 };
void human_bytes(uint64_t bytes, char *buffer);

#endif
