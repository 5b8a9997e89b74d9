/* What the program holds, as seen from outside: calls entered and returned; theory in truth.c. */
#ifndef TESTS_STEP_TRUTH_H
#define TESTS_STEP_TRUTH_H

#include "heap/heap.h"
#include "step/tracer.h"

struct held {
    hi_addr address;
    uint64_t bytes;
    hi_addr site; /* where the call that allocated it returned to */
};

struct truth {
    VECTOR(struct held) held;
    uint64_t calls, mallocs, frees, reallocs, moved;
    uint64_t live_called_free, free_called_live, too_small, strange; /* wrong answers */
    uint64_t notes, wrong_notes; /* seen; of another block or another size */
    uint64_t in_flight_seen, in_flight_named;
    char first[400]; /* the first wrong answers */
};

/* A call is over. */
void truth_returned(struct truth *truth, struct tracer *tracer, const struct call *call,
                    uint64_t result);
/* Compare a walked heap with what is held and what calls are under way. */
void truth_compare(struct truth *truth, struct tracer *tracer, struct heaps *heaps,
                   const struct heap_context *context);
uint64_t truth_wrong(const struct truth *truth);
void truth_free(struct truth *truth);

#endif
