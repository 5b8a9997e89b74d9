/* The rows; see tcmalloc_layout.h. */
#include "heap/tcmalloc_layout.h"

const struct page_tree_shape tcmalloc_trees[] = {
    {2, {17, 18, 0}, 48, 13, 8, false},
    {2, {18, 18, 0}, 48, 12, 8, false},
    {2, {16, 17, 0}, 48, 15, 8, false},
    {2, {16, 16, 0}, 48, 16, 8, false},
};
const size_t tcmalloc_tree_count = sizeof tcmalloc_trees / sizeof *tcmalloc_trees;

const unsigned tcmalloc_list_counts[2] = {96, 128};
