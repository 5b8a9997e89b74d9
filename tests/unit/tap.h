/* Test Anything Protocol in C: ok(), is_u64(), is_text(), done(). One program, one process. */
#ifndef TESTS_UNIT_TAP_H
#define TESTS_UNIT_TAP_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int tap_count, tap_failures;

__attribute__((format(printf, 2, 3), unused)) static bool ok(bool passed, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("%sok %d - ", passed ? "" : "not ", ++tap_count);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
    va_end(arguments);
    if (!passed)
        tap_failures++;
    return passed;
}

__attribute__((unused)) static bool is_u64(uint64_t got, uint64_t wanted, const char *what)
{
    bool passed = ok(got == wanted, "%s", what);
    if (!passed)
        printf("#   got %" PRIu64 " (0x%" PRIx64 "), wanted %" PRIu64 " (0x%" PRIx64 ")\n", got,
               got, wanted, wanted);
    return passed;
}

__attribute__((unused)) static bool is_text(const char *got, const char *wanted, const char *what)
{
    bool same = got && wanted ? strcmp(got, wanted) == 0 : got == wanted;
    if (!ok(same, "%s", what))
        printf("#   got \"%s\", wanted \"%s\"\n", got ? got : "(null)", wanted ? wanted : "(null)");
    return same;
}

__attribute__((unused)) static int done(void)
{
    printf("1..%d\n", tap_count);
    return tap_failures ? 1 : 0;
}

#endif
