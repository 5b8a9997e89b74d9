/*
 * die: one clear line, then abort. The line is put together on the stack and written with one call,
 * as nothing may be allocated here; the file descriptor is 2.
 */
#include "die.h"

#include "large.h"
#include "size_class.h"
#include "slab.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct line {
    char text[256];
    size_t length;
};

static void line_add(struct line *line, const char *text)
{
    while (*text && line->length < sizeof(line->text) - 1)
        line->text[line->length++] = *text++;
}

static void line_add_number(struct line *line, uint64_t n, unsigned base)
{
    char digits[24];
    size_t at = sizeof(digits) - 1;
    digits[at] = 0;
    do
        digits[--at] = "0123456789abcdef"[n % base];
    while ((n /= base) != 0);
    line_add(line, digits + at);
}

static void line_add_address(struct line *line, const void *p)
{
    line_add(line, "0x");
    line_add_number(line, (uintptr_t)p, 16);
}

static void line_end(struct line *line)
{
    line->text[line->length++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line->text, line->length);
    (void)ignored;
    abort();
}

static void line_add_block(struct line *line, const struct block_place *place)
{
    line_add(line, "a block of ");
    line_add_number(line, place->bytes, 10);
    line_add(line, " bytes, arena ");
    line_add_number(line, place->arena, 10);
}

void die_double_free(const void *p)
{
    if (hm_hot.check_mode == CHECK_OFF)
        return;
    struct line line = {.length = 0};
    struct block_place place = block_locate(p);
    line_add(&line, "himalloc: double free of ");
    line_add_address(&line, p);
    if (place.state != BLOCK_NONE) {
        line_add(&line, " (");
        line_add_block(&line, &place);
        line_add(&line, ")");
    }
    line_end(&line);
}

void die_bad_free(const void *p)
{
    if (hm_hot.check_mode == CHECK_OFF)
        return;
    struct line line = {.length = 0};
    struct block_place place = block_locate(p);
    line_add(&line, "himalloc: free of ");
    line_add_address(&line, p);
    if (place.state == BLOCK_NONE) {
        line_add(&line, place.in_heap ? ", which is no block (free memory of the heap)"
                                      : ", which is not from this heap");
    } else if (place.start == (uintptr_t)p) {
        line_add(&line, ", which is free already (");
        line_add_block(&line, &place);
        line_add(&line, ")");
    } else {
        line_add(&line, ", ");
        line_add_number(&line, (uintptr_t)p - place.start, 10);
        line_add(&line, " bytes into ");
        line_add_block(&line, &place);
        line_add(&line, " at ");
        line_add_address(&line, (void *)place.start);
    }
    line_end(&line);
}
