/*
 * roots: where references into heaps start. They belong to the target, not to a heap.
 *
 * Collected once, while a live target is stopped. Two shapes: ranges of memory to scan, and single
 * words (register contents and what the C library keeps for itself).
 *
 * Rules (shared with every allocator; the meaning is the user's contract, see docs/design.md):
 *   register  general registers of every thread
 *   vector    every 8-byte lane of the vector state
 *   stack     live threads: from SP less the 128-byte red zone to the stack's end. A thread inside
 *             exit(): from the frame that called exit outward. While a handler runs on an
 *             alternate stack: also the interrupted frames (from the signal frame's saved SP)
 *   tls       static TLS and struct pthread of live threads, dynamic TLS through the dtv
 *   data      writable segments of executable and libraries (with .bss), and RELRO
 *   kept      blocks that the C library, the dynamic linker and the C++ runtime hold, also by
 *             interior pointers: dtv arrays, dynamic TLS blocks, unjoined threads' results ...:
 *             each a word that marks the block around it, wherever it points inside
 *   anon      anonymous mappings that belong to no allocator: nodes by default (not in ranges but
 *             in .nodes), roots with --roots=+anon
 * Ranges exclude what heaps say is their metadata; the graph subtracts those and the heaps' own
 * blocks, since only it knows them.
 * A stack that the program itself provided (pthread_attr_setstack, sigaltstack, coroutines) may lie
 * in a heap block: then its range begins inside the block, and a kept word (SP, thread control
 * block) holds the block. A dtv, dynamic TLS and an unjoined thread's result are kept words, too.
 * Writable private pages of files that are no module's are nodes like anonymous ones; shared
 * mappings of files and devices are neither.
 * Stacks of threads that have ended (glibc keeps them mapped) are neither root nor node: .dead.
 */
#ifndef SYMBOLS_ROOTS_H
#define SYMBOLS_ROOTS_H

#include "symbols/symbols.h"

enum root_class {
    ROOT_REGISTER,
    ROOT_VECTOR,
    ROOT_STACK,
    ROOT_TLS,
    ROOT_DATA,
    ROOT_KEPT,
    ROOT_ANON,
    ROOT_CLASS_COUNT,
    ROOT_SUSPECT = ROOT_CLASS_COUNT /* never in struct roots: a damaged part of a heap (graph.h) */
};

const char *root_class_name(enum root_class class);

struct root_range {
    enum root_class class;
    hi_addr start, end;
    pid_t tid;          /* stack, tls: whose; else 0 */
    const char *module; /* data: path; else NULL; owned by symbols */
};

struct root_word {
    enum root_class class; /* register, vector, kept */
    pid_t tid;
    uint64_t value;
    const char *name; /* "rbx", "zmm", "dtv", "thread result", "stack in use": static text */
};

struct root_options {
    unsigned classes; /* bit per enum root_class; ROOTS_DEFAULT */
};
#define ROOTS_DEFAULT ((1u << ROOT_ANON) - 1)

struct roots {
    VECTOR(struct root_range) ranges; /* address order, disjoint */
    VECTOR(struct root_word) words;
    VECTOR(struct hi_range) nodes; /* anonymous mappings (parts of) that may be nodes */
    VECTOR(struct hi_range) dead;  /* ended threads' stacks */
    uint64_t missing_bytes;        /* of ranges that should be scanned and are not in the dump */
};

HI_MUST_USE enum hi_code roots_collect(struct roots *roots, struct target *target,
                                       struct symbols *symbols, const struct root_options *options,
                                       struct hi_err *err);
void roots_free(struct roots *roots);
/* The range that holds address, or NULL. */
const struct root_range *roots_range_at(const struct roots *roots, hi_addr address);

#endif
