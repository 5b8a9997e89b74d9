/* cfi_rows: how to get from a return address's frame to its caller's, in one word; see cfi_rows.c
 */
#ifndef HIMALLOC_CFI_ROWS_H
#define HIMALLOC_CFI_ROWS_H

#include "cfi_program.h"
#include "stack_table.h"

/* Below: CFA, and where rbp was saved. `n` is the row's number. */
enum row_kind {
    ROW_NONE,
    ROW_SP,     /* CFA = rsp + n; rbp as `slot` says */
    ROW_BP,     /* CFA = rbp + n; rbp as `slot` says */
    ROW_DRAP,   /* CFA = *(rbp - n), rbp at *rbp: a frame that aligned its stack */
    ROW_SIGNAL, /* all at rsp, as the kernel left it */
    ROW_END,    /* the outermost frame */
    ROW_SLOW,   /* by cfi_step */
    ROW_BARE,   /* nothing is known of this code */
};

/* epoched: the frame's epoch is not 0. slot: 0: rbp is as it was, else saved at CFA - 8 * slot */
enum {
    ROW_KIND_MASK = 7,
    ROW_EPOCHED = 8,
    ROW_SLOT_SHIFT = 4,
    ROW_SLOT_MASK = 63,
    ROW_NUMBER_SHIFT = 10,
    ROW_NUMBER_BITS = 18, /* of n / 8 */
    ROW_BITS = ROW_NUMBER_SHIFT + ROW_NUMBER_BITS,
    ROW_TAG_BITS = 36,
    ROW_LINE_BITS = 6, /* of a page of rows */
    ROW_PAGE_BITS = 5,
    ROW_CODE_SHIFT = 11, /* code of this many bytes has its rows on one page */
    ROW_HASH_BITS = ROW_TAG_BITS + ROW_LINE_BITS,
};
#define ROW_PC_BITS     47
#define ROW_PC_MULTIPLY 0x9e3779b97f4a7c15ULL
_Static_assert(ROW_HASH_BITS + ROW_PAGE_BITS == ROW_PC_BITS, "a place and a tag are one address");
_Static_assert(1 << (ROW_PAGE_BITS + ROW_LINE_BITS) == STACK_ROW_LINES, "lines");

static inline uint32_t row_slot(uint32_t row)
{
    return row >> ROW_SLOT_SHIFT & ROW_SLOT_MASK;
}

static inline uint32_t row_number(uint32_t row)
{
    return (row >> ROW_NUMBER_SHIFT) * 8;
}

/* Where the row of a return address may be: a line of 8 words, the one to begin with, and the tag
 * that it has there and no other address. */
struct row_place {
    uint64_t *line;
    uint64_t first, tag;
};

static inline struct row_place row_place(uintptr_t pc)
{
    uint64_t hash = pc * ROW_PC_MULTIPLY & ((1ULL << ROW_HASH_BITS) - 1);
    uint64_t tag = hash & ((1ULL << ROW_TAG_BITS) - 1);
    uint64_t page = (pc >> ROW_CODE_SHIFT ^ pc >> ROW_HASH_BITS) & ((1u << ROW_PAGE_BITS) - 1);
    uint64_t *rows = stack_hot.rows + (page << ROW_LINE_BITS) * 8; /* while the product is made */
    return (struct row_place){rows + (hash >> ROW_TAG_BITS) * 8, tag >> (ROW_TAG_BITS - 3), tag};
}

uint32_t cfi_row_fill(uintptr_t pc);
/* For an instruction that was interrupted, not one behind a call. Is not kept. */
uint32_t cfi_row_exact(uintptr_t pc);

/* The row for a return address. */
static inline uint32_t cfi_row_find(uintptr_t pc)
{
    struct row_place place = row_place(pc);
    uint64_t word = __atomic_load_n(&place.line[place.first], __ATOMIC_RELAXED);
    if (LIKELY(word >> ROW_BITS == place.tag))
        return (uint32_t)word & ((1u << ROW_BITS) - 1);
    return cfi_row_fill(pc);
}

/* All that is said of pc, for cfi_step. *signal: what it returns to was interrupted. False:
 * nothing. */
bool cfi_row_full(uintptr_t pc, bool exact, struct cfi_image *image, struct cfi_row *row,
                  bool *signal);
/* Some module may be gone: forgets what is known of modules that are no more. */
void cfi_rows_unloaded(void);

#endif
