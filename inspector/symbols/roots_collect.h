/*
 * What the files behind roots.h share while roots are collected. Only symbols/ includes it.
 *
 * Three lists grow side by side: roots (ranges and words), dead stacks, and claims: what is known
 * to be no node, whether it is a root or not (whole stacks, modules, TLS). Anonymous mappings less
 * claims are nodes. Out of memory is remembered in .failed and checked once, at the end.
 */
#ifndef SYMBOLS_ROOTS_COLLECT_H
#define SYMBOLS_ROOTS_COLLECT_H

#include "symbols/roots.h"

/* Where glibc's struct pthread keeps what; by _thread_db_* of libc, else what has been so for
 * years. 0: unknown. */
struct pthread_layout {
    bool is_glibc;
    uint64_t size, list, tid, cancel, start_routine;
};

enum pthread_state { PTHREAD_LIVE, PTHREAD_UNKNOWN, PTHREAD_UNJOINED, PTHREAD_DEAD };

/* One struct pthread, of a thread that runs or has ended. */
struct pthread {
    hi_addr address;
    enum pthread_state state;
    const struct thread *thread; /* live: its thread */
    bool was_followed;           /* its list has been */
    pid_t tid;
    struct hi_range stack; /* with guard and TLS; empty: not known */
    hi_addr tls_start;     /* lowest block of static TLS that the dtv knows; else address */
};

struct collector {
    struct roots *roots;
    struct target *target;
    struct symbols *symbols;
    unsigned classes;
    VECTOR(struct hi_range) claims;
    struct pthread_layout layout;
    VECTOR(struct pthread) pthreads; /* by address */
    size_t list_steps;               /* walked so far */
    hi_addr exit_start, exit_end;    /* the C library's exit(); empty: not known */
    uint64_t static_tls_bytes;       /* at most, by program headers */
    bool failed;
};

void collect_range(struct collector *c, enum root_class class, hi_addr start, hi_addr end,
                   pid_t tid, const char *module);
void collect_word(struct collector *c, enum root_class class, uint64_t value, pid_t tid,
                  const char *name);
void collect_claim(struct collector *c, hi_addr start, hi_addr end);
void collect_dead(struct collector *c, hi_addr start, hi_addr end);

/* visit(context, address, value) for each aligned word of range that has content; until false. */
typedef bool (*word_visitor)(void *context, hi_addr address, uint64_t value);
void collect_words_of(struct collector *c, struct hi_range range, word_visitor visit,
                      void *context);

/* roots_registers.c */
void collect_registers(struct collector *c);

/* roots_pthread.c: find every struct pthread; dtv and results as kept words */
void collect_pthreads(struct collector *c);
const struct pthread *pthread_at(const struct collector *c, hi_addr address);

/* roots_stacks.c */
void collect_stacks(struct collector *c);

/* roots_frames.c */
struct signal_frame {
    hi_addr sp;            /* of what was interrupted */
    struct hi_range stack; /* the alternate stack as sigaltstack said; may be empty */
};
bool find_signal_frame(struct collector *c, struct hi_range stack, struct signal_frame *frame);
/* Where the frame that called exit() begins, or stack.start. */
hi_addr find_exit_caller(struct collector *c, struct hi_range stack);

/* roots_mappings.c */
void collect_data(struct collector *c);
void collect_nodes(struct collector *c);

#endif
