/* Bytes that grow by half again; see buffer.h. */
#include "report/buffer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Room for count more; false: memory is out. */
static bool reserve(struct buffer *buffer, size_t count)
{
    if (buffer->out_of_memory)
        return false;
    if (count <= buffer->capacity - buffer->count)
        return true;
    size_t wanted = buffer->capacity + buffer->capacity / 2 + count + 4096;
    char *grown = wanted > buffer->capacity ? realloc(buffer->bytes, wanted) : NULL;
    if (!grown) {
        buffer->out_of_memory = true;
        return false;
    }
    buffer->bytes = grown;
    buffer->capacity = wanted;
    return true;
}

void buffer_add(struct buffer *buffer, const void *bytes, size_t count)
{
    if (!count || !reserve(buffer, count))
        return;
    memcpy(buffer->bytes + buffer->count, bytes, count);
    buffer->count += count;
}

void buffer_print(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length <= 0 || !reserve(buffer, (size_t)length + 1))
        return;
    va_start(arguments, format);
    vsnprintf(buffer->bytes + buffer->count, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->count += (size_t)length;
}

bool buffer_ok(const struct buffer *buffer)
{
    return !buffer->out_of_memory;
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct buffer){0};
}

enum hi_code buffer_write(const struct buffer *buffer, int descriptor, const char *name,
                          struct hi_err *err)
{
    size_t written = 0;
    while (written < buffer->count) {
        ssize_t got = write(descriptor, buffer->bytes + written, buffer->count - written);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EPIPE)
            return HI_OK; /* nobody reads any more */
        if (got < 0)
            return hi_fail(err, HI_SYSTEM, "cannot write %s: %s", name, strerror(errno));
        written += (size_t)got;
    }
    return HI_OK;
}
