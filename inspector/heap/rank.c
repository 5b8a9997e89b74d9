/* The rank bitmap's building and searching; see rank.h. */
#include "heap/rank.h"

#include "base/huge.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SMALL_BYTES = 256 << 10 }; /* below: from the heap; mappings are a limited good */

bool rank_new(struct rank *rank, uint64_t extent_bytes)
{
    *rank = (struct rank){.last = RANK_NONE};
    rank->granule_count =
        extent_bytes / RANK_GRANULE_BYTES + (extent_bytes % RANK_GRANULE_BYTES ? 1 : 0);
    uint64_t lines = rank->granule_count / RANK_LINE_BITS + 2;
    if (lines > SIZE_MAX / sizeof *rank->lines)
        return false;
    size_t bytes = lines * sizeof *rank->lines;
    if (bytes <= SMALL_BYTES) {
        rank->lines = aligned_alloc(sizeof *rank->lines, bytes);
        if (rank->lines)
            memset(rank->lines, 0, bytes);
        return rank->lines != NULL;
    }
    /* address space only: pages come as starts do */
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    huge_prefer(memory, bytes);
    rank->lines = memory;
    rank->mapped_bytes = bytes;
    return true;
}

void rank_free(struct rank *rank)
{
    if (rank->mapped_bytes)
        munmap(rank->lines, rank->mapped_bytes);
    else
        free(rank->lines);
    *rank = (struct rank){.last = RANK_NONE};
}

/* Lines up to and with index exist and know the count before them. */
static void extend(struct rank *rank, size_t index)
{
    while (rank->line_count <= index)
        rank->lines[rank->line_count++].words[0] = rank->start_count;
}

/* What a start in a word of this pair adds to the head's three counts. */
#define PAIR(n) (UINT64_C(1) << (32 + (n)*RANK_PAIR_BITS))
static const uint64_t pair_adds[4] = {PAIR(0) | PAIR(1) | PAIR(2), PAIR(1) | PAIR(2), PAIR(2), 0};

bool rank_push(struct rank *rank, uint64_t granule)
{
    if (granule >= rank->granule_count || (rank->last != RANK_NONE && granule <= rank->last))
        return false;
    size_t index = granule / RANK_LINE_BITS;
    unsigned bit = granule % RANK_LINE_BITS + RANK_FIRST_BIT;
    extend(rank, index);
    rank->lines[index].words[bit >> 6] |= UINT64_C(1) << (bit & 63);
    rank->lines[index].words[0] += pair_adds[((bit >> 6) - 1) / 2];
    rank->last = granule;
    rank->start_count++;
    return true;
}

void rank_seal(struct rank *rank)
{
    rank->lines[rank->line_count].words[0] = rank->start_count;
}

uint32_t rank_until(const struct rank *rank, uint64_t granule)
{
    size_t index = granule / RANK_LINE_BITS;
    if (index >= rank->line_count)
        return rank->start_count;
    const struct rank_line *line = &rank->lines[index];
    unsigned bit = granule % RANK_LINE_BITS + RANK_FIRST_BIT;
    uint64_t word = rank_line_word(line, bit >> 6) & ~UINT64_C(0) >> (63 - (bit & 63));
    return rank_line_count(line) + rank_line_before(line, bit >> 6) +
           (uint32_t)__builtin_popcountll(word);
}

/* The line that holds start number ordinal, at or after line low: the last one whose count is at
 * most ordinal. Gallops upward, then halves. */
static size_t line_upward(const struct rank *rank, size_t low, uint32_t ordinal)
{
    size_t step = 1, high = low + 1;
    while (high < rank->line_count && rank_line_count(&rank->lines[high]) <= ordinal) {
        low = high;
        high = low + step;
        step *= 2;
    }
    if (high > rank->line_count)
        high = rank->line_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (rank_line_count(&rank->lines[middle]) <= ordinal)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The same, at or before line high. */
static size_t line_downward(const struct rank *rank, size_t high, uint32_t ordinal)
{
    size_t step = 1;
    while (high && rank_line_count(&rank->lines[high]) > ordinal) {
        high -= step < high ? step : high;
        step *= 2;
    }
    return line_upward(rank, high, ordinal);
}

/* Granule of the first (lowest) start of line at or after bit, or RANK_NONE. */
static uint64_t first_from(const struct rank *rank, size_t index, unsigned bit)
{
    const struct rank_line *line = &rank->lines[index];
    for (unsigned i = bit >> 6; i < 8; i++, bit = i << 6) {
        uint64_t word = rank_line_word(line, i) & (~UINT64_C(0) << (bit & 63));
        if (word) {
            unsigned found = (i << 6) + (unsigned)__builtin_ctzll(word);
            return (uint64_t)index * RANK_LINE_BITS + found - RANK_FIRST_BIT;
        }
    }
    return RANK_NONE;
}

/* Granule of the last start of line at or before bit, or RANK_NONE. */
static uint64_t last_until(const struct rank *rank, size_t index, unsigned bit)
{
    const struct rank_line *line = &rank->lines[index];
    for (unsigned i = (bit >> 6) + 1; i-- > 0; bit = (i << 6) - 1) {
        uint64_t word = rank_line_word(line, i) & (~UINT64_C(0) >> (63 - (bit & 63)));
        if (word) {
            unsigned found = (i << 6) + 63 - (unsigned)__builtin_clzll(word);
            return (uint64_t)index * RANK_LINE_BITS + found - RANK_FIRST_BIT;
        }
    }
    return RANK_NONE;
}

uint64_t rank_next(const struct rank *rank, uint64_t granule)
{
    if (rank->last == RANK_NONE || granule >= rank->last)
        return RANK_NONE;
    size_t index = granule / RANK_LINE_BITS;
    unsigned bit = granule % RANK_LINE_BITS + RANK_FIRST_BIT;
    if (bit < 511) {
        uint64_t found = first_from(rank, index, bit + 1);
        if (found != RANK_NONE)
            return found;
    }
    /* granule lies before the last start, so a later line has one: the next line's count is its
     * ordinal */
    uint32_t ordinal = rank_line_count(&rank->lines[index + 1]);
    return first_from(rank, line_upward(rank, index + 1, ordinal), RANK_FIRST_BIT);
}

/* To the word of a start, with what it has from there on. */
static bool scan_to(struct rank_scan *scan, uint64_t granule)
{
    scan->granule = granule & ~UINT64_C(63);
    scan->left = 0;
    if (granule == RANK_NONE)
        return false;
    const struct rank_line *line = &scan->rank->lines[granule / RANK_LINE_BITS];
    unsigned word = (unsigned)(granule / 64 % (RANK_LINE_BITS / 64)) + 1;
    scan->left = line->words[word] & ~UINT64_C(0) << granule % 64;
    return scan->left != 0;
}

void rank_scan_after(struct rank_scan *scan, const struct rank *rank, uint64_t granule)
{
    scan->rank = rank;
    scan_to(scan, rank_next(rank, granule));
}

bool rank_scan_word(struct rank_scan *scan)
{
    if (scan->granule >= scan->rank->granule_count)
        return false;
    size_t index = scan->granule / RANK_LINE_BITS;
    unsigned word = (unsigned)(scan->granule / 64 % (RANK_LINE_BITS / 64)) + 1;
    const struct rank_line *line = &scan->rank->lines[index];
    for (uint64_t granule = scan->granule; ++word < 8;) {
        granule += 64;
        if (!line->words[word])
            continue;
        scan->granule = granule;
        scan->left = line->words[word];
        return true;
    }
    return scan_to(scan, rank_next(scan->rank, (index + 1) * RANK_LINE_BITS - 1));
}

uint64_t rank_previous(const struct rank *rank, uint64_t granule)
{
    if (rank->last == RANK_NONE || granule >= rank->last)
        return rank->last;
    size_t index = granule / RANK_LINE_BITS;
    uint64_t found = last_until(rank, index, granule % RANK_LINE_BITS + RANK_FIRST_BIT);
    uint32_t before = rank_line_count(&rank->lines[index]);
    if (found != RANK_NONE || before == 0)
        return found;
    return last_until(rank, line_downward(rank, index, before - 1), 511);
}

uint64_t rank_select(const struct rank *rank, uint32_t ordinal)
{
    if (ordinal >= rank->start_count)
        return RANK_NONE;
    /* blocks are spread about evenly: the guess is close, and halving from the start takes 18 steps
     * where there are 10 million */
    size_t guess = (uint64_t)ordinal * rank->line_count / rank->start_count;
    size_t index = line_downward(rank, guess, ordinal);
    uint32_t left = ordinal - rank_line_count(&rank->lines[index]);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t word = rank_line_word(&rank->lines[index], i);
        uint32_t here = (uint32_t)__builtin_popcountll(word);
        if (left >= here) {
            left -= here;
            continue;
        }
        while (left--)
            word &= word - 1;
        return (uint64_t)index * RANK_LINE_BITS + (i << 6) + (unsigned)__builtin_ctzll(word) -
               RANK_FIRST_BIT;
    }
    return RANK_NONE;
}
