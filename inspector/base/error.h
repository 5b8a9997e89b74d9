/*
 * Errors are values with an address.
 *
 * A function that can fail returns enum hi_code and fills the caller's struct hi_err with one
 * sentence (no newline) and, where one is to blame, the target address. Nothing is allocated on
 * the failure path and nothing is printed below main.c.
 *
 * Three kinds, never mixed:
 *   fault    the target's memory could not be read             HI_FAULT
 *   finding  read, but it contradicts a rule of a heap format  struct finding (heap/heap.h), no
 * code failure  ours: usage, permission, operating system, memory the other codes
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An address in the target. Never a pointer: it must not be possible to dereference one. */
typedef uint64_t hi_addr;

struct hi_range {
    hi_addr start, end; /* half open */
};

enum hi_code {
    HI_OK = 0,
    HI_FAULT,       /* target memory at err->address could not be read */
    HI_NOT_FOUND,   /* no such symbol, file, arena, block: often not an error of the run */
    HI_UNSUPPORTED, /* understood, and not something that we can do: foreign machine, version */
    HI_BAD_INPUT,   /* a file that is not what it claims to be */
    HI_REFUSED,     /* the system said no: permission, no such process */
    HI_SYSTEM,      /* a system call failed otherwise */
    HI_NO_MEMORY,   /* ours ran out */
    HI_STOPPED,     /* the user interrupted (SIGINT); partial results stand */
    HI_USAGE,       /* bad command line */
};

#define HI_MUST_USE     __attribute__((warn_unused_result))
#define HI_PRINTF(f, a) __attribute__((format(printf, f, a)))

struct hi_err {
    enum hi_code code;
    bool has_address;
    hi_addr address;
    char message[320];
};

/* Fill *err (may be NULL) and return code, so that `return hi_fail(err, HI_SYSTEM, "...")`. */
enum hi_code hi_fail(struct hi_err *err, enum hi_code code, const char *format, ...)
    HI_PRINTF(3, 4);
/* The same with the target address that is to blame; the code is HI_FAULT unless given. */
enum hi_code hi_fault(struct hi_err *err, hi_addr address, const char *format, ...) HI_PRINTF(3, 4);
/* Inline, so that checkers see that it is never HI_OK. */
static inline enum hi_code hi_no_memory(struct hi_err *err)
{
    hi_fail(err, HI_NO_MEMORY, "heapinspect itself is out of memory");
    return HI_NO_MEMORY;
}

#endif
