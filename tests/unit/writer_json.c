/* The emitter: JSON is valid whatever the strings hold, and text says the same values. */
#define _GNU_SOURCE
#include "report/writer.h"
#include "unit/tap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Everything that calls wrote, as a string. */
static char output[1 << 20];

static struct writer *start(enum writer_shape shape, bool colour, int *file)
{
    struct writer *w = NULL;
    struct hi_err err;
    *file = memfd_create("writer", 0);
    if (writer_open(&w, *file, shape, colour, &err))
        ok(false, "a writer opens");
    return w;
}

static const char *finish(struct writer *w, int file)
{
    struct hi_err err;
    ok(writer_close(w, &err) == HI_OK, "closing writes all");
    ssize_t n = pread(file, output, sizeof output - 1, 0);
    output[n > 0 ? n : 0] = '\0';
    close(file);
    return output;
}

static void say_everything(struct writer *w)
{
    writer_object_begin(w, NULL);
    writer_string(w, "schema", NULL, "x.v1");
    writer_object_begin(w, "live");
    writer_number(w, "blocks", "{} blocks, ", UINT64_MAX);
    writer_bytes(w, "bytes", "{:10}|", 1536);
    writer_object_end(w);
    writer_list_begin(w, "at");
    writer_address(w, NULL, " {}", 0x7fff00001234);
    writer_address(w, NULL, " {}", 0);
    writer_list_end(w);
    writer_list_begin(w, "empty");
    writer_list_end(w);
    writer_bool(w, "complete", "whole", "partial", false);
    writer_null(w, "type", NULL);
    writer_seconds(w, "seconds", " {} s", 0.25);
    writer_string(w, "none", " {:-4}|", NULL);
    writer_exact_bytes(w, "exact", " {}", 2048);
    writer_text(w, "\n");
    writer_object_end(w);
}

static void test_shapes(void)
{
    int file;
    struct writer *w = start(WRITER_JSON, true, &file);
    say_everything(w);
    is_text(finish(w, file),
            "{\"schema\": \"x.v1\", \"live\": {\"blocks\": 18446744073709551615, \"bytes\": 1536}, "
            "\"at\": [\"0x7fff00001234\", \"0x0\"], \"empty\": [], \"complete\": false, "
            "\"type\": null, \"seconds\": 0.250, \"none\": null, \"exact\": 2048}",
            "JSON has every field, once, with exact numbers");
    w = start(WRITER_TEXT, false, &file);
    say_everything(w);
    is_text(finish(w, file),
            "18,446,744,073,709,551,615 blocks,    1.5 KiB| 0x7fff00001234 0x0partial 0.250 s "
            "-   | 2,048 bytes (2.0 KiB)\n",
            "text has the same values, for people");
}

static void test_hostile_strings(void)
{
    int file;
    static const char hostile[] = "a\"b\\c\n\x1b[2J\x7f\xff\xc3\xa9\xc0\xaf\xed\xa0\x80\xf4\x90\x80"
                                  "\x80\xe2\x82";
    struct writer *w = start(WRITER_JSON, false, &file);
    writer_list_begin(w, NULL);
    writer_string(w, NULL, "{}", hostile);
    writer_list_end(w);
    const char *json = finish(w, file);
    ok(strstr(json, "a\\\"b\\\\c\\u000a\\u001b[2J\\u007f\\ufffd\xc3\xa9\\ufffd\\ufffd") != NULL,
       "quotes, controls and bytes that aren't UTF-8 are escaped, valid ones kept");
    bool clean = true;
    for (const char *p = json; *p; p++)
        clean = clean && (unsigned char)*p >= 0x20;
    ok(clean, "no control character is left");
    w = start(WRITER_TEXT, false, &file);
    writer_string(w, "name", "{}", "x\x1b]0;owned\x07\xc2\x9by");
    is_text(finish(w, file), "x\\x1b]0;owned\\x07\\xc2\\x9by", "a terminal sees no escape");
}

static void test_streams(void)
{
    int file;
    struct writer *w = start(WRITER_JSON, false, &file);
    for (unsigned i = 0; i < 3; i++) {
        writer_object_begin(w, NULL);
        writer_number(w, "n", "{}\n", i);
        writer_object_end(w);
        writer_json_line(w);
    }
    is_text(finish(w, file), "{\"n\": 0}\n{\"n\": 1}\n{\"n\": 2}\n",
            "a stream of objects has one a line and no commas between");
    w = start(WRITER_TEXT, false, &file);
    for (unsigned i = 0; i < 100000; i++)
        writer_text(w, "x");
    const char *text = finish(w, file);
    ok(strlen(text) == 100000, "more than a buffer arrives whole");
    w = start(WRITER_TEXT, true, &file);
    writer_style(w, STYLE_BAD);
    writer_text(w, "!");
    writer_style(w, STYLE_PLAIN);
    is_text(finish(w, file), "\033[1;31m!\033[0m", "styles are colours where there is colour");
}

static void test_failures(void)
{
    struct writer *w = NULL;
    struct hi_err err = {0};
    int full = open("/dev/full", O_WRONLY);
    if (full >= 0 && writer_open(&w, full, WRITER_TEXT, false, &err) == HI_OK) {
        writer_text(w, "lost");
        ok(writer_close(w, &err) == HI_SYSTEM, "a full disk is an error");
        ok(strstr(err.message, "No space left") != NULL, "... that says so: %s", err.message);
    }
    close(full);
    char human[HUMAN_BYTES_SIZE];
    human_bytes(1023, human);
    is_text(human, "1023 B", "bytes below a KiB are exact");
    human_bytes(UINT64_MAX, human);
    is_text(human, "16.0 EiB", "the largest number has a unit");
    human_bytes(1048570, human);
    is_text(human, "1.0 MiB", "rounding moves to the next unit, never 1024.0 KiB");
}

int main(void)
{
    test_shapes();
    test_hostile_strings();
    test_streams();
    test_failures();
    return done();
}
