/* The functions of the section under test in an ELF executable: their names and addresses. */
#ifndef TESTS_STEP_TEXT_H
#define TESTS_STEP_TEXT_H

#include "base/error.h"

struct text_function {
    hi_addr address;
    uint64_t size;
    char name[48];
};

struct text {
    hi_addr start, end;
    struct text_function *functions; /* by address */
    size_t count;
};

HI_MUST_USE enum hi_code text_read(struct text *text, const char *path, struct hi_err *err);
void text_free(struct text *text);

#endif
