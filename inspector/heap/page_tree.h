/*
 * page_tree: the radix tree from page to record that several allocators keep in their data, found
 * without symbols and walked.
 *
 * jemalloc (rtree.h) and gperftools (pagemap.h) have one: a root array of pointers inside a
 * module's .bss, indexed by the top bits of an address, tables below it in anonymous memory, and
 * leaves whose entries name the record of what lies on a page.
 *
 * Finding: take a word W at place P of a module's writable data that points to anonymous memory,
 * and a root slot k under which anonymous memory would be filed. If W is slot k, the root is at P -
 * 8k and lies in the same segment as a whole. The pairs that pass that are few; the caller's judge
 * looks at the leaves behind W and says whether the records there describe the pages that they are
 * filed under.
 *
 * Bounds: tables are read only where they have content, and never more of them than root and shape
 * allow.
 */
#ifndef HEAP_PAGE_TREE_H
#define HEAP_PAGE_TREE_H

#include "heap/heap.h"

struct page_tree_shape {
    unsigned levels;
    unsigned bits[3];      /* of the key, from the root down */
    unsigned address_bits; /* the key is bits page_shift .. address_bits of an address */
    unsigned page_shift;
    unsigned leaf_entry_bytes; /* 8 or 16; the first word of an entry is the one that is visited */
    bool indirect;             /* the root is not in the module's data: a word there points to it */
};

struct page_tree {
    const struct page_tree_shape *shape;
    hi_addr root;
    size_t module; /* whose data it lies in */
};

/* A leaf entry that is not 0, and the page that it stands for. false: enough. */
typedef bool (*page_tree_visit)(void *context, uint64_t entry, hi_addr page);
/* Is what hangs off slot `key` of a root of this shape (the table at `table`) the tree looked for?
 */
typedef bool (*page_tree_judge)(void *context, const struct page_tree_shape *shape, uint64_t key,
                                hi_addr table);

/* Search module by module from tree->module on, each of the shapes. HI_NOT_FOUND: no more. */
HI_MUST_USE enum hi_code page_tree_find(struct page_tree *tree, const struct heap_context *context,
                                        const struct page_tree_shape *shapes, size_t shape_count,
                                        page_tree_judge judge, void *judge_context,
                                        struct hi_err *err);

/* The entries of what hangs off one root slot, for addresses in anonymous memory; for judges. */
void page_tree_sample(const struct heap_context *context, const struct page_tree_shape *shape,
                      uint64_t key, hi_addr table, page_tree_visit visit, void *visit_context);

/* All entries of the tree, and (tables not NULL) the addresses of its tables below the root. */
struct page_tree_tables {
    VECTOR(hi_addr) items;
};
HI_MUST_USE enum hi_code page_tree_walk(const struct page_tree *tree,
                                        const struct heap_context *context,
                                        struct page_tree_tables *tables, page_tree_visit visit,
                                        void *visit_context, struct hi_err *err);

/* The entry of the page of an address; false: no table leads to it. */
bool page_tree_entry(const struct page_tree *tree, struct target *target, hi_addr address,
                     uint64_t *entry);

#endif
