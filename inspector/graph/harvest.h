/*
 * harvest: words that may be references, brought along from a walk that reads the heap anyway.
 *
 * glibc's chunks must be walked, header after header, before it is known where blocks begin; and
 * then their words would be read a second time. But to see that a word may be a reference no block
 * is needed, only where memory is. So while windows of the walk lie near (relay.h), their words are
 * filtered and kept: as codes (codes.h), one after the other in the very memory where the graph's
 * edges will stand; and which words of the window they were, one bit a word. When blocks are
 * known, how many of a block's words were kept is a count of bits, and where the codes stand
 * follows from the count before it: edges of a block are found without a look at its memory.
 *
 * Memory for codes and edges is made, and as much of it touched as they will need where one word in
 * 8 is a reference, before the target is stopped: first touches took a fifth of the stop. Where
 * nothing was kept it serves the edges alone.
 *
 * Memory: 4 bytes a kept word, which become edges in place; 1.6 % of what was read for the bits,
 * until the graph is built. What a harvest does not know (memory that no relay read) is read as
 * always. It is of no use, and dropped, where words must be looked at in another way, or where
 * blocks turn out to lie in memory that did not look like it.
 */
#ifndef GRAPH_HARVEST_H
#define GRAPH_HARVEST_H

#include "base/parallel.h"
#include "graph/codes.h"
#include "graph/sieve.h"
#include "heap/relay.h"

/* Words of a piece of target memory, at most a window of a relay. */
struct harvest_piece {
    hi_addr start, end;
    uint64_t words; /* index of the first code */
    uint64_t bits;  /* index of the first word of bits */
};
typedef VECTOR(struct harvest_piece) harvest_pieces;

struct harvest_worker {
    harvest_pieces pieces;
    uint32_t *offsets;
    uint64_t *values;
    uint32_t *codes;
    uint64_t *bits;
    uint32_t sieved, unsieved; /* windows that were for the sieve, and that were not */
};

struct harvest {
    struct relay_guest guest; /* for the heaps' readers */
    struct filter_rule rule;
    filter_function filter;
    struct sieve sieve;
    sieve_function sieve_words; /* NULL: always the long way */
    struct codes codes;
    uint32_t *words; /* reservations of address space */
    uint64_t *bits;
    uint64_t words_reserved, bits_reserved;
    uint64_t words_touched;         /* of the first ones, when it was made */
    uint64_t words_used, bits_used; /* shared by threads, as is failed */
    bool failed;                    /* not all was kept */
    harvest_pieces pieces;          /* after harvest_seal: in address order */
    struct harvest_worker workers[PARALLEL_MAX_JOBS];
};

/* Before the target is opened. NULL: out of memory. jobs, tag_mask: as in graph_options. */
struct harvest *harvest_new(struct process_size size, int jobs, uint64_t tag_mask);
/* Now that it is. false: nothing can be kept. */
bool harvest_open(struct harvest *harvest, const struct target *target);
void harvest_free(struct harvest *harvest);
/* When the walk is over. false: what was kept is of no use for these blocks. more: codes or edges
 * that will be put behind those that are there. */
bool harvest_seal(struct harvest *harvest, const struct blocks *blocks, uint64_t more);
/* Memory that was touched and is not needed goes back. */
void harvest_trim(uint32_t *words, uint64_t used, uint64_t touched);
/* Index of the first piece that ends after address. */
size_t harvest_piece_after(const struct harvest *harvest, hi_addr address);

#endif
