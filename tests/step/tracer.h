/* One traced program under instruction-by-instruction control; theory in tracer.c. */
#ifndef TESTS_STEP_TRACER_H
#define TESTS_STEP_TRACER_H

#include "base/vector.h"
#include "target/target.h"

#include <sys/types.h>
#include <sys/user.h>

enum traced_state {
    TRACED_FREE,    /* outside the text under test: runs at full speed, up to an entry */
    TRACED_OUTCALL, /* inside, but in a call to something else: runs up to the return */
    TRACED_KERNEL,  /* stepped onto a system call that has not returned yet */
    TRACED_INSIDE,  /* stopped at an instruction of the text under test */
};

enum call_kind { CALL_OTHER, CALL_MALLOC, CALL_FREE, CALL_REALLOC, CALL_MEMALIGN_TO };

/* A call into the text from outside. */
struct call {
    const char *name;
    enum call_kind kind;
    hi_addr return_address, sp; /* of the caller */
    hi_addr block;              /* freed or reallocated; 0: none */
    uint64_t bytes;             /* asked for */
    hi_addr result_at;          /* CALL_MEMALIGN_TO: where the result is stored */
};

/* A call out of the text that called back into it. */
struct outer_call {
    struct call call;
    hi_addr return_trap;
};
enum { TRACED_MAX_DEPTH = 4 };

struct traced {
    pid_t tid;
    enum traced_state state;
    bool asleep; /* FREE, OUTCALL: was seen sleeping in the kernel */
    int signal;  /* to be delivered when it goes on */
    hi_addr return_trap;
    struct user_regs_struct registers; /* INSIDE */
    struct call call;
    struct outer_call outer[TRACED_MAX_DEPTH];
    unsigned depth;
};

struct tracer;

enum tracer_event { TRACER_STEPPED, TRACER_RETURNED, TRACER_NOTHING, TRACER_ENDED };

/* Start program (statically known text between the two symbols) under control, before its first
 * instruction. */
HI_MUST_USE enum hi_code tracer_start(struct tracer **tracer, char *const *arguments,
                                      struct hi_err *err);
void tracer_close(struct tracer *tracer);
pid_t tracer_pid(const struct tracer *tracer);
int tracer_memory(const struct tracer *tracer); /* /proc/PID/mem */
/* Let everything that is not INSIDE run until it is inside or sleeps. false: the program ended. */
bool tracer_settle(struct tracer *tracer);
size_t tracer_thread_count(const struct tracer *tracer);
struct traced *tracer_thread(struct tracer *tracer, size_t index);
/* From now on calls of that function of the text are one step. */
void tracer_run_whole(struct tracer *tracer, const char *function);
/* One instruction of a thread that is INSIDE. RETURNED: its call is over; *result is what it
 * returned, *call what it was, and the thread is stopped until tracer_release(). */
enum tracer_event tracer_step(struct tracer *tracer, struct traced *thread, struct call *call,
                              uint64_t *result);
void tracer_release(struct tracer *tracer, struct traced *thread);
/* Did mappings possibly change since the last call? */
bool tracer_mappings_changed(struct tracer *tracer);
int tracer_status(const struct tracer *tracer); /* after the end: as of waitpid */
/* The function that holds address, or "?". */
const char *tracer_symbol(const struct tracer *tracer, hi_addr address, uint64_t *offset);

#endif
