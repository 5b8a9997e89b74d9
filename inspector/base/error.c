/* Filling struct hi_err; see error.h. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

static void fill(struct hi_err *err, enum hi_code code, const char *format, va_list arguments)
{
    if (!err)
        return;
    err->code = code;
    err->has_address = false;
    err->address = 0;
    vsnprintf(err->message, sizeof err->message, format, arguments);
}

enum hi_code hi_fail(struct hi_err *err, enum hi_code code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(err, code, format, arguments);
    va_end(arguments);
    return code;
}

enum hi_code hi_fault(struct hi_err *err, hi_addr address, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(err, HI_FAULT, format, arguments);
    va_end(arguments);
    if (err) {
        err->has_address = true;
        err->address = address;
    }
    return HI_FAULT;
}
