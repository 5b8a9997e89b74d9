/* A growing buffer of bytes for files that are made whole before they are written. The first time
 * that memory is out is kept; what follows is dropped, and buffer_ok() says so. */
#ifndef REPORT_BUFFER_H
#define REPORT_BUFFER_H

#include "base/error.h"

struct buffer {
    char *bytes;
    size_t count, capacity;
    bool out_of_memory;
};

void buffer_add(struct buffer *buffer, const void *bytes, size_t count);
void buffer_print(struct buffer *buffer, const char *format, ...) HI_PRINTF(2, 3);
bool buffer_ok(const struct buffer *buffer);
void buffer_free(struct buffer *buffer);
/* All of it to a file descriptor; name: for messages. HI_SYSTEM: it could not be written. */
HI_MUST_USE enum hi_code buffer_write(const struct buffer *buffer, int descriptor, const char *name,
                                      struct hi_err *err);

#endif
