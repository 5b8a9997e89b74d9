/*
 * demangle: C++ and Rust names by libiberty, within bounds.
 *
 * Names come from files that may be made to hurt: a few hundred mangled bytes can stand for
 * gigabytes of text (substitutions that refer to each other). libiberty bounds its own recursion;
 * the text is bounded here by leaving the printer through longjmp once the buffer is full. The
 * printers keep their state on the stack, so nothing is lost by that.
 */
#include "symbols/symbols.h"

#include <libiberty/demangle.h>
#include <setjmp.h>

enum { MANGLED_MAX_BYTES = 8192, OPTIONS = DMGL_PARAMS | DMGL_ANSI };

struct output {
    char *buffer;
    size_t size, used;
    jmp_buf full;
};

static void take(const char *text, size_t bytes, void *context)
{
    struct output *output = context;
    size_t room = output->size - 1 - output->used;
    size_t taken = bytes < room ? bytes : room;
    memcpy(output->buffer + output->used, text, taken);
    output->used += taken;
    output->buffer[output->used] = 0;
    if (taken < bytes)
        longjmp(output->full, 1);
}

static bool demangle(const char *name, struct output *output)
{
    if (setjmp(output->full))
        return true; /* cut, but right as far as it goes */
    if (name[0] == '_' && name[1] == 'R')
        return rust_demangle_callback(name, OPTIONS, take, output);
    /* legacy Rust names are C++ names with a hash at the end: the Rust printer knows them */
    if (name[0] == '_' && name[1] == 'Z')
        return rust_demangle_callback(name, OPTIONS, take, output) ||
               cplus_demangle_v3_callback(name, OPTIONS, take, output);
    return false;
}

void symbols_demangle(const char *name, char *buffer, size_t size)
{
    struct output output = {.buffer = buffer, .size = size};
    if (size == 0)
        return;
    buffer[0] = 0;
    if (strnlen(name, MANGLED_MAX_BYTES) < MANGLED_MAX_BYTES && demangle(name, &output) &&
        output.used > 0)
        return;
    snprintf(buffer, size, "%s", name);
}
