/* cfi_program: what .eh_frame says of one instruction; see cfi_program.c. */
#ifndef HIMALLOC_CFI_PROGRAM_H
#define HIMALLOC_CFI_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A stretch of a module's memory: bytes[0, byte_count) lie at `address` in the process. */
struct cfi_image {
    const uint8_t *bytes;
    size_t byte_count;
    uint64_t address;
};

enum {
    CFI_REGISTERS = 17, /* x86-64: 0-15 and the return address */
    CFI_BP = 6,
    CFI_SP = 7,
    CFI_RA = 16,
    CFI_REMEMBER_MAX = 8,
};

enum cfi_kind {
    CFI_UNSAID = 0,       /* nothing was said: as CFI_SAME */
    CFI_SAME,             /* the register holds its value */
    CFI_UNDEFINED,        /* it is lost; of the return address: the outermost frame */
    CFI_OFFSET,           /* saved at CFA + value */
    CFI_VALUE_OFFSET,     /* is CFA + value */
    CFI_REGISTER,         /* is in register `value` */
    CFI_EXPRESSION,       /* saved at the address that the expression gives */
    CFI_VALUE_EXPRESSION, /* is what the expression gives */
};

/* Of an expression `value` is the offset of its length (a ULEB128) in the image. */
struct cfi_rule {
    uint8_t kind;
    int32_t value;
};

struct cfi_row {
    struct cfi_rule cfa; /* CFI_OFFSET: cfa_register + value; CFI_VALUE_EXPRESSION; else none */
    uint32_t cfa_register;
    int32_t cfa_offset; /* the last one that was said, also before an expression */
    struct cfi_rule rules[CFI_REGISTERS];
};

/* A function's description and its CIE. Offsets count from the start of the image. */
struct cfi_fde {
    uint64_t pc_start, pc_end;
    size_t program, program_end;
    size_t cie_program, cie_program_end;
    uint64_t code_factor;
    int64_t data_factor;
    uint32_t ra_register;
    uint8_t pointer_encoding;
    bool augmented;
    bool signal; /* of a signal frame: the pc is that of the instruction, not one behind it */
};

/* The FDE that covers pc, by the search table at hdr_address (.eh_frame_hdr). */
bool cfi_find(const struct cfi_image *image, uint64_t hdr_address, uint64_t pc,
              struct cfi_fde *fde);
/* The same without a table: one after the other from .eh_frame's start on. */
bool cfi_find_from(const struct cfi_image *image, uint64_t frames_address, uint64_t pc,
                   struct cfi_fde *fde);
/* The one at this address; *next, when not NULL, is that of the next entry, 0 at the end. False
 * with *next not 0: a CIE, or one that cannot be understood. */
bool cfi_fde_at(const struct cfi_image *image, uint64_t address, struct cfi_fde *fde,
                uint64_t *next);
/* The row for a pc in [pc_start, pc_end). False: it cannot be understood. */
bool cfi_row_at(const struct cfi_image *image, const struct cfi_fde *fde, uint64_t pc,
                struct cfi_row *row);

/* For those who read expressions: a cursor in the image, which fails by ending at `end`. */
struct cfi_cursor {
    const struct cfi_image *image;
    size_t at, end;
    bool failed;
};
uint64_t cfi_number(struct cfi_cursor *c, uint32_t bytes);
uint64_t cfi_uleb(struct cfi_cursor *c);
int64_t cfi_sleb(struct cfi_cursor *c);
/* The body of the expression of a rule. */
bool cfi_expression(const struct cfi_image *image, const struct cfi_rule *rule,
                    struct cfi_cursor *body);

#endif
