/*
 * name_memo: names as printed, once for each name in a file. Keyed by where the file's name lies in
 * our memory, so it lives no longer than the files: with the symbols object.
 */
#ifndef SYMBOLS_NAME_MEMO_H
#define SYMBOLS_NAME_MEMO_H

#include "symbols/text_pool.h"

struct name_memo;

struct printed_name {
    const char *raw;      /* the key */
    const char *function; /* demangled, without a version */
    const char *linkage;  /* raw, where that differs; else NULL */
};

struct name_memo *name_memo_new(void); /* NULL: no memory */
void name_memo_free(struct name_memo *memo);
/* NULL: no memory. Valid until the next call. */
const struct printed_name *name_memo_get(struct name_memo *memo, struct text_pool *texts,
                                         const char *raw);

#endif
