/* cfi_step: from a frame to its caller's with all registers; see cfi_step.c. */
#ifndef HIMALLOC_CFI_STEP_H
#define HIMALLOC_CFI_STEP_H

#include "cfi_program.h"

/* value[CFI_RA] is the pc. Bit r of known: value[r] is that of the frame. */
struct cfi_registers {
    uint64_t value[CFI_REGISTERS];
    uint32_t known;
};

enum cfi_end {
    CFI_STEPPED,
    CFI_OUTERMOST,
    CFI_UNKNOWN, /* it takes a register that is not known */
    CFI_BAD,     /* what was read makes no sense, or could not be read */
};

/* Reads 8 bytes, at any address. */
typedef bool cfi_read(uint64_t address, uint64_t *word);

enum cfi_end cfi_step(const struct cfi_image *image, const struct cfi_row *row, cfi_read *read,
                      struct cfi_registers *registers);

#endif
