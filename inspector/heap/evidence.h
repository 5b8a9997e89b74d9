/*
 * evidence: what readers of foreign allocators share to find their roots without symbols.
 *
 *   data    the initialised, writable part of a module, read once; words looked up by address
 *   cache   pages of the target kept for chasing pointers: a list walk costs one read a page
 *   votes   "which offset do most threads agree on", "is this link mangled"
 *   text    a version string in a module's read-only bytes
 *
 * Nothing here knows an allocator. Everything is bounded: data by EVIDENCE_MAX_DATA, the cache by
 * its lines, votes by their slots, the text search by the bytes of the module.
 */
#ifndef HEAP_EVIDENCE_H
#define HEAP_EVIDENCE_H

#include "base/vector.h"
#include "heap/heap.h"

#include <string.h>

/* The word at an offset of a copy of target memory. */
static inline uint64_t evidence_u64_at(const unsigned char *bytes, size_t offset)
{
    uint64_t value;
    memcpy(&value, bytes + offset, sizeof value);
    return value;
}
int evidence_by_address(const void *left, const void *right); /* of two hi_addr, for qsort */

#define EVIDENCE_MAX_DATA ((size_t)64 << 20)

/* One piece of memory, copied: [start, start + bytes). */
struct evidence_piece {
    hi_addr start;
    size_t bytes;
    unsigned char *memory;
};

struct evidence_data {
    VECTOR(struct evidence_piece) pieces; /* address order */
};

/* The writable segments of a module, as far as the file initialises them: what a linker puts in
 * .data. Pages that can't be read are left out. from_file: as the file has them, before any change
 * at run time (HI_NOT_FOUND without the file). */
HI_MUST_USE enum hi_code evidence_read(struct evidence_data *data,
                                       const struct heap_context *context, size_t module,
                                       bool from_file, struct hi_err *err);
void evidence_free(struct evidence_data *data);
/* The aligned word at address; false: not in the copy. */
bool evidence_word(const struct evidence_data *data, hi_addr address, uint64_t *value);
/* Calls visit for each aligned word until it returns false. */
void evidence_each_word(const struct evidence_data *data,
                        bool (*visit)(void *context, hi_addr place, uint64_t value), void *context);

/* Copies the text that follows the first `prefix` in the module's read-only segments, up to `stop`
 * characters or the buffer's size: from target memory, else from the file. */
bool evidence_text(const struct heap_context *context, size_t module, const char *prefix,
                   char *buffer, size_t size);

/* The pages of a module's writable segments that have content, one after the other; what can't be
 * read is 0. visit: false: enough. */
enum { EVIDENCE_PAGE_BYTES = 4096 };
void evidence_each_page(const struct heap_context *context, size_t module,
                        bool (*visit)(void *visit_context, hi_addr page,
                                      const unsigned char *bytes),
                        void *visit_context);
/* How many different addresses of anonymous memory a module's data holds, counted up to `most`:
 * what an allocator knows that was asked for memory. Not counted: thread pointers, and what the
 * dynamic linker puts into its table. */
size_t evidence_pointers_out(const struct heap_context *context, size_t module, size_t most);

/* -- chasing pointers ------------------------------------------------------------------------- */
struct evidence_cache;
HI_MUST_USE enum hi_code evidence_cache_new(struct evidence_cache **cache, struct target *target,
                                            struct hi_err *err);
void evidence_cache_free(struct evidence_cache *cache);
/* The aligned word at address; false: not readable. */
bool evidence_cache_u64(struct evidence_cache *cache, hi_addr address, uint64_t *value);
/* Any bytes, page by page; false: not all of them are readable. */
bool evidence_cache_bytes(struct evidence_cache *cache, hi_addr address, void *buffer,
                          size_t bytes);

/* -- a map of words -------------------------------------------------------------------------------
 * Address to value, for links that a walk passes by and a list will ask for: one look-up instead of
 * one read of the target. Holds EVIDENCE_MAP_MAX entries; what comes after is left out. */
#define EVIDENCE_MAP_MAX ((size_t)1 << 22)
struct evidence_pair {
    hi_addr key;
    uint64_t value;
};
struct evidence_map {
    VECTOR(struct evidence_pair) pairs;
    bool unsorted; /* keys mostly come in rising order: sorted when first asked otherwise */
};
bool evidence_map_put(struct evidence_map *map, hi_addr key, uint64_t value); /* false: memory */
bool evidence_map_get(struct evidence_map *map, hi_addr key, uint64_t *value);
void evidence_map_free(struct evidence_map *map);

/* -- votes ------------------------------------------------------------------------------------- */
enum { EVIDENCE_VOTE_SLOTS = 512 };
struct evidence_vote {
    uint64_t value[EVIDENCE_VOTE_SLOTS];
    uint32_t count[EVIDENCE_VOTE_SLOTS];
    uint32_t used, dropped;
};
void evidence_vote_cast(struct evidence_vote *vote, uint64_t value);
/* The value with most votes and how many; 0: nobody voted. */
uint32_t evidence_vote_winner(const struct evidence_vote *vote, uint64_t *value);

/* -- threads stopped inside an allocator --------------------------------------------------------
 * What a thread has in its hands is in its registers or near the top of its stack. inside: it runs
 * in the module, or a word there leads back into its code; maybe an old one. Of a module that is
 * not known (EVIDENCE_ANY_MODULE) every thread may be inside. */
#define EVIDENCE_ANY_MODULE SIZE_MAX
enum { EVIDENCE_HAND_WORDS = 512 };
struct evidence_hands {
    uint64_t words[EVIDENCE_HAND_WORDS]; /* registers, then the stack */
    size_t count;                        /* 0: registers unknown */
    bool inside;
    size_t own; /* so many of the words are registers and frames of the module's functions */
};
void evidence_hands_read(struct evidence_hands *hands, const struct heap_context *context,
                         size_t module, const struct thread *thread);
bool evidence_hands_hold(const struct evidence_hands *hands, uint64_t word);

/* Private anonymous (or [heap]) memory that a process may write: where heaps live. */
bool evidence_is_heap_mapping(const struct mapping *mapping);
bool evidence_is_heap_address(const struct target *target, hi_addr address);
/* The run of adjacent such mappings around address: start == end: none. */
struct hi_range evidence_heap_run(const struct target *target, hi_addr address);

#endif
