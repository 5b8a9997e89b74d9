/*
 * text_pool: strings that are made once, kept together and given back all at once. Equal texts are
 * one string.
 */
#ifndef SYMBOLS_TEXT_POOL_H
#define SYMBOLS_TEXT_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text_pool;

struct text_pool *text_pool_new(void); /* NULL: no memory */
void text_pool_free(struct text_pool *pool);
/* The pool's copy of text[0, bytes), ended by NUL; NULL: no memory. */
const char *text_pool_keep(struct text_pool *pool, const char *text, size_t bytes);

#endif
