/* cursor: reading numbers and strings out of bytes that may end anywhere. A read past the end sets
 * .failed and gives 0; so the caller looks once, at the end of what belongs together. */
#ifndef SYMBOLS_CURSOR_H
#define SYMBOLS_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
    const unsigned char *at, *end;
    bool failed;
};

static inline const unsigned char *cursor_skip(struct cursor *cursor, uint64_t bytes)
{
    const unsigned char *at = cursor->at;
    if (cursor->failed || bytes > (uint64_t)(cursor->end - at)) {
        cursor->failed = true;
        return NULL;
    }
    cursor->at += bytes;
    return at;
}

static inline uint64_t cursor_fixed(struct cursor *cursor, size_t bytes)
{
    uint64_t value = 0;
    const unsigned char *at = bytes <= sizeof value ? cursor_skip(cursor, bytes) : NULL;
    if (at)
        memcpy(&value, at, bytes);
    return value;
}

static inline uint64_t cursor_unsigned(struct cursor *cursor)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (cursor->failed || cursor->at >= cursor->end) {
            cursor->failed = true;
            return 0;
        }
        unsigned char byte = *cursor->at++;
        if (shift < 64)
            value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
}

static inline int64_t cursor_signed(struct cursor *cursor)
{
    uint64_t value = 0;
    for (unsigned shift = 0;;) {
        if (cursor->failed || cursor->at >= cursor->end) {
            cursor->failed = true;
            return 0;
        }
        unsigned char byte = *cursor->at++;
        if (shift < 64)
            value |= (uint64_t)(byte & 0x7f) << shift;
        shift += 7;
        if (byte & 0x80)
            continue;
        if (shift < 64 && byte & 0x40)
            value |= UINT64_MAX << shift;
        return (int64_t)value;
    }
}

/* A string with its NUL, or NULL. */
static inline const char *cursor_string(struct cursor *cursor)
{
    const unsigned char *at = cursor->at;
    size_t left = (size_t)(cursor->end - at);
    const unsigned char *nul = cursor->failed || !left ? NULL : memchr(at, 0, left);
    if (!nul) {
        cursor->failed = true;
        return NULL;
    }
    cursor->at = nul + 1;
    return (const char *)at;
}

#endif
