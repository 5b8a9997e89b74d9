/* The table that heap_truth keeps of its live blocks, shared with whoever inspects it.
 *
 * One slot a block. Addresses are kept XORed so that the table itself never looks like a holder of
 * pointers. A slot is locked while its block is being allocated, freed or resized: what is in it is
 * uncertain then (0, 1 or 2 blocks), and only then. */
#ifndef TESTS_PROGRAMS_HEAP_TRUTH_H
#define TESTS_PROGRAMS_HEAP_TRUTH_H

#include <stdint.h>

#define HEAP_TRUTH_MAGIC UINT64_C(0x6874757274706165)
#define HEAP_TRUTH_KEY   UINT64_C(0x5aa5c33c96690ff0)

struct heap_truth_slot {
    uint64_t address; /* ^ HEAP_TRUTH_KEY; HEAP_TRUTH_KEY: none */
    uint64_t size;    /* requested */
    uint32_t lock;
    uint32_t reserved;
};

struct heap_truth {
    uint64_t magic;
    uint64_t slot_count;
    uint64_t ready;      /* 1: filled and running */
    uint64_t operations; /* so far, about */
    uint64_t first;      /* ^ HEAP_TRUTH_KEY: the first block of main(); what lies below in the same
                            mapping was allocated before main() */
    uint64_t waiting;    /* mode wait: 1 while main() has not begun to allocate */
    uint64_t go;         /* mode wait: set to 1 by whoever inspects it */
    struct heap_truth_slot slots[];
};

#endif
