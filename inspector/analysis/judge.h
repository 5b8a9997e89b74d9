/*
 * judge: pointers into the middle of a block that the language itself makes. The graph asks about
 * the few blocks that nothing holds by their start; what is accepted counts as held by its start.
 */
#ifndef ANALYSIS_JUDGE_H
#define ANALYSIS_JUDGE_H

#include "analysis/inspection.h"

/* A graph_judge; context is the struct inspection. */
bool judge_block(void *context, hi_block block, enum edge_kind kind);

/* The rules one by one, on the block's first bytes; for tests and for "why". */
struct judged {
    struct target *target;
    struct symbols *symbols;
    const struct blocks *blocks; /* NULL: not known */
    hi_addr address;
    uint64_t usable, slack;
    size_t head_count; /* words that could be read */
    uint64_t head[64];
};
/* new T[n]: the count stands before the elements, and n elements fill the block. */
bool judge_array_cookie(const struct judged *block);
/* A class with several bases: a second table pointer whose offset-to-top is its own offset. */
bool judge_second_base(const struct judged *block);
/* A C++ exception in flight: the unwinder's header with the class "GNUCC++". */
bool judge_exception(const struct judged *block);
/* tsearch(): a node of the C library's trees, whose children carry their colour in bit 0. */
bool judge_tree_node(const struct judged *block);
/* The dynamic linker's table of loaded objects (_dl_find_object), aligned by hand in its block. */
bool judge_loaded_objects(const struct judged *block);
/* CPython: a collector's header before the object, whose chain of types ends in itself. */
bool judge_python_object(const struct judged *block);
/* CPython: an object's attributes, behind a prefix that says its own size. */
bool judge_python_values(const struct judged *block);

#endif
