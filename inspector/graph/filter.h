/*
 * filter: which words of a piece of memory could be addresses of blocks.
 *
 * Keeps the words w with low <= (w & keep) <= high, in order, with their byte offsets: the one step
 * that every word of a heap goes through, so it runs at the speed of the second-level cache
 * (AVX-512), about two thirds of it (AVX2) or a quarter (plain, without branches). The path is
 * chosen by what the processor has, once a graph; all give the same answer.
 */
#ifndef GRAPH_FILTER_H
#define GRAPH_FILTER_H

#include "base/error.h"

struct filter_rule {
    uint64_t keep; /* bits of a word that count */
    hi_addr low, high;
};

enum { FILTER_SLACK = 16 }; /* items that the output arrays need beyond the word count */

/* bytes: word_count words, 8-aligned in the target, anyhow here. Returns how many were kept:
 * offsets[i] in bytes, values[i] the masked word. */
typedef size_t (*filter_function)(const struct filter_rule *rule, const void *bytes,
                                  size_t word_count, uint32_t *offsets, uint64_t *values);

enum filter_path { FILTER_PLAIN, FILTER_AVX2, FILTER_AVX512, FILTER_PATH_COUNT };
/* NULL: this machine can't. */
filter_function filter_by_path(enum filter_path path);
filter_function filter_best(void);

/* The same for a word at every byte: byte_count places, of which the last reaches 7 bytes beyond.
 */
size_t filter_unaligned(const struct filter_rule *rule, const void *bytes, size_t byte_count,
                        uint32_t *offsets, uint64_t *values);

#endif
