/*
 * block_list: lists of freed blocks that are linked through their first words.
 *
 * tcmalloc and mimalloc keep blocks in such lists: in thread caches, in batches of a central cache,
 * in what other threads gave back. Following one is the same everywhere: each link must lead to the
 * start of a block of the heap, of the size that the list is for; a list has an end that the caller
 * knows (its last block, its length), and a link that leads elsewhere breaks it there.
 *
 * Lists in hands: an allocator that moves freed blocks in batches takes a list off one place before
 * it files it in another. In between the list hangs on a register or on a word of the allocator's
 * stack frames; its blocks look live and belong to no one. So every word in the hands of a thread
 * stopped inside the allocator that is the start of a live block is followed. It was a list when it
 * ends well: in 0, or at a block that is not live (where it was already tied to the rest). Its
 * blocks are in flight then. A list of the program's own, of which the program frees the head right
 * now, looks the same; the program holds it, so nothing is lost by the name.
 *
 * Bounds: the caller's for a list; in hands BLOCK_LIST_MOST blocks a list, BLOCK_LIST_STEPS in all.
 */
#ifndef HEAP_BLOCK_LIST_H
#define HEAP_BLOCK_LIST_H

#include "heap/evidence.h"

enum { BLOCK_LIST_MOST = 1 << 16, BLOCK_LIST_STEPS = 1 << 22 };

struct block_lists {
    const struct heap_context *context;
    struct heap_sink *sink;
    const struct heap *heap;
    size_t module; /* whose code the allocator is */
    struct evidence_cache *cache;
    /* May a list lead from the one block to the other, which starts at next? NULL: any two. */
    bool (*links)(void *links_context, const struct region *from, const struct region *to,
                  hi_addr next);
    void *links_context;
    VECTOR(hi_addr) chain; /* the blocks of the last list */
    bool out_of_memory;
};
void block_lists_free(struct block_lists *lists);

/* Put the blocks from first on into lists->chain: until last (0: until a link is 0), at most
 * `most`. false: broken; *broken is the address that a link had and that is no block of this list,
 * or (0) the list was too long or lists->out_of_memory. Changes no state. */
bool block_list_collect(struct block_lists *lists, hi_addr first, hi_addr last, uint64_t most,
                        hi_addr *broken);
/* Tell the sink the state of those in lists->chain: BLOCK_CACHED, or BLOCK_IN_FLIGHT (only those
 * that are live). false: the sink says stop. */
bool block_list_tell(struct block_lists *lists, enum block_state state);
/* Lists in hands; for overlay(), after what lies in caches was told. false: stop, or no memory. */
bool block_lists_in_hands(struct block_lists *lists);

/* How many threads are inside the module, as far as it can be seen. */
unsigned block_lists_threads_inside(const struct heap_context *context, size_t module);

#endif
