/*
 * mimalloc 2 and 3: what its reader's parts share.
 *
 * A page is a run of blocks of one size. Of its reserved blocks the first `capacity` were ever
 * given out; of those, the ones in its three lists are not handed out: free and local_free are
 * free, what other threads gave back (thread_free, and in v2 the heap's thread_delayed_free) is
 * cached. The lists go through the blocks. v2 keeps the page records at the head of aligned 32 MiB
 * segments; v3 files them in a map from address (page_tree.h).
 */
#ifndef HEAP_MIMALLOC_H
#define HEAP_MIMALLOC_H

#include "heap/evidence.h"
#include "heap/heap.h"
#include "heap/mimalloc_layout.h"

struct mimalloc_page {
    hi_addr record, start;
    uint64_t block_bytes;
    uint32_t capacity, reserved, used;
    hi_addr free, local_free, thread_free;
    hi_addr heap;
    bool interior;
};

struct mimalloc {
    const struct mimalloc_page_layout *page;
    const struct mimalloc_segment_layout *segment; /* v2, else NULL */
    VECTOR(hi_addr) segments;                      /* v2 */
    struct page_tree tree;                         /* v3 */
    struct page_tree_tables tables;
    size_t module;            /* whose code it is, EVIDENCE_ANY_MODULE: not known */
    VECTOR(hi_addr) heaps;    /* v2: mi_heap_t of pages seen */
    VECTOR(hi_addr) returned; /* lists of blocks that other threads gave back to a page */
};

/* -- mimalloc_find.c ----------------------------------------------------------------------------
 */
HI_MUST_USE enum hi_code mimalloc_find(struct mimalloc *heap, const struct heap_context *context,
                                       struct hi_err *err);
/* Take a page record apart. false: it is no page in use, or contradicts itself. */
bool mimalloc_page_decode(const struct mimalloc_page_layout *row, hi_addr record,
                          const unsigned char *bytes, struct mimalloc_page *page);
/* v2: may other threads' next return to the page of this block go to the page's own list, since one
 * of its blocks is in the heap's list of late returns, or in a thread's hands? */
bool mimalloc_page_has_late_return(const struct mimalloc *heap, struct evidence_cache *records,
                                   hi_addr block);
/* "2.0.9" from the code of mi_version, when it is there. */
bool mimalloc_version(const struct heap_context *context, char *version, size_t size);

#endif
