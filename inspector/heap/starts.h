/*
 * starts: from a word to the block that starts there, for words that are kept in 4 bytes.
 *
 * Nearly all references are the very start of a block in a slab or of a chunk, and for these much
 * of what blocks_at() does is not needed: no way through the levels of the page table, no search
 * for the chunk around an address. Flat tables say what turns a place into a slot, or where its
 * start bit lies. Whatever is not simple (the inside of blocks, pages of several regions, large
 * blocks) is left to blocks_at_many().
 *
 * A place is 32 bits: its GiB, counted in the list given, and the word's place in it in units of 8
 * bytes, 27 bits. Memory: 8 bytes for 4 to 64 KiB of the GiBs with slabs.
 */
#ifndef HEAP_STARTS_H
#define HEAP_STARTS_H

#include "heap/blocks.h"

enum { STARTS_PLACE_BITS = 27, STARTS_GIBS = 16, STARTS_MANY = 128 };

struct starts;

/* After blocks_finish; blocks must outlive it. NULL: out of memory. */
struct starts *starts_new(const struct blocks *blocks, const hi_addr *gibs, uint32_t gib_count);
void starts_free(struct starts *starts);
/* Of slabs, one place at a time or sixteen: the answers are the same. New ones take the best;
 * false: this machine can't. */
enum starts_path { STARTS_PLAIN, STARTS_AVX512, STARTS_PATH_COUNT };
bool starts_take_path(struct starts *starts, enum starts_path path);
/* found[i]: the live block that starts at places[i]; BLOCK_NONE: a block starts there and is not
 * live. Where it is not as simple, i goes into others. count is at most STARTS_MANY; returns how
 * many others there are. */
size_t starts_find(const struct starts *starts, const uint32_t *places, size_t count,
                   hi_block *found, uint16_t *others);

#endif
