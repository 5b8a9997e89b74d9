/*
 * codes: words that may be references, kept in 4 bytes each until there is time to look them up.
 *
 * A look-up costs more than reading the word did, and needs nothing of the target. So while a
 * process is stopped words are only put into codes, in the very place where their edges will
 * stand; when it runs again codes_resolve() makes edges of them. (10 million blocks of glibc in 2.6
 * GiB: stopped for 0.95 s instead of 1.25 s, himalloc's for 0.4 s instead of 0.53 s.)
 *
 * A code is the number of a GiB that has blocks (of the first 16) and the word's place in it, in
 * units of 8 bytes. Words into other GiBs, and those off that grid, are "odd": their code is a
 * place in a table of whole words. What lies in no GiB with a block is dropped at once.
 */
#ifndef GRAPH_CODES_H
#define GRAPH_CODES_H

#include "graph/resolve.h"
#include "heap/starts.h"

enum { CODES_GIB_BITS = 30, CODES_PLACE_BITS = STARTS_PLACE_BITS, CODES_GIBS = STARTS_GIBS };

/* Marks in the table of GiBs; numbers have no bits there. */
enum { CODES_GIB_NOWHERE = 1, CODES_GIB_ODD = 2, CODES_GIB_MARKS = 3 };

struct codes {
    uint32_t *gibs; /* by (address >> 30) - first: number << CODES_PLACE_BITS, or a mark */
    uint64_t first, gib_count;
    hi_addr starts[CODES_GIBS];
    uint32_t count;                  /* of numbered GiBs */
    uint64_t *odd;                   /* a reservation of address space */
    uint64_t odd_used, odd_reserved; /* used is shared by threads */
    struct starts *quick;
};

/* most: no more words than that will come, each in span. false: out of memory. */
bool codes_new(struct codes *codes, struct hi_range span, uint64_t most);
/* The GiBs of a range in the span have blocks, that of its end as well: one past the last block is
 * a place to point to. */
void codes_add(struct codes *codes, struct hi_range range);
/* Nothing that points to the range is dropped. */
bool codes_cover(const struct codes *codes, struct hi_range range);
/* The same with all regions of blocks. */
bool codes_new_of(struct codes *codes, const struct blocks *blocks, uint64_t most);
void codes_free(struct codes *codes);
/* out[i]: the code of words[i], or EDGE_NONE where no block can be; *none: how many those are.
 * false: no room. */
bool codes_put(struct codes *codes, const uint64_t *words, size_t count, uint32_t *out,
               size_t *none);
/* The code of a word that is nothing unusual; false: codes_put() knows. */
static inline bool codes_plain(const struct codes *codes, uint64_t word, uint32_t *code)
{
    uint32_t gib = codes->gibs[(word >> CODES_GIB_BITS) - codes->first];
    *code = gib | (uint32_t)((word & ((UINT64_C(1) << CODES_GIB_BITS) - 1)) >> 3);
    return !((gib & CODES_GIB_MARKS) | (word & 7));
}
/* Before the first codes_resolve(). false: out of memory. */
bool codes_ready(struct codes *codes, const struct blocks *blocks);
/* Codes become edges (or EDGE_NONE) in place; how many of them are none. */
size_t codes_resolve(const struct codes *codes, const struct resolve *resolve, uint32_t *codes_here,
                     size_t count);

#endif
