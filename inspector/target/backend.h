/*
 * What stands behind a struct target: the table of operations that each kind fills in, and the
 * parts that all kinds share (mappings, threads, notes, missing ranges). Only target/ includes it.
 *
 * An opener (process.c, core.c, bytes.c) makes a target with target_new(), pushes mappings,
 * threads and missing ranges in any order, and calls target_seal(), which sorts, drops what
 * overlaps and merges. After that the tables do not change (but for target_add_registers), so
 * that reading needs no lock.
 */
#ifndef TARGET_BACKEND_H
#define TARGET_BACKEND_H

#include "target/target.h"

/* Register numbers in thread.registers (struct user_regs_struct of x86-64). */
enum {
    REGISTER_ORIG_RAX = 15,
    REGISTER_PC = 16,
    REGISTER_CS = 17,
    REGISTER_SP = 19,
    REGISTER_FS_BASE = 21,
};

struct target_backend {
    enum target_kind kind;
    /* As many bytes from the start as can be had. Called from several threads. */
    size_t (*read_some)(struct target *target, hi_addr address, void *buffer, size_t bytes);
    /* Up to capacity ranges with content in [from, end), in order; see target_contents. */
    size_t (*contents)(struct target *target, hi_addr from, hi_addr end, struct hi_range *ranges,
                       size_t capacity);
    /* Say in *err why the byte at address can't be read; returns HI_FAULT. May be NULL. */
    enum hi_code (*explain)(struct target *target, hi_addr address, struct hi_err *err);
    /* After release; NULL: read_some() does as well. */
    size_t (*peek)(struct target *target, hi_addr address, void *buffer, size_t bytes);
    const void *(*view)(struct target *target, hi_addr address, size_t *bytes); /* may be NULL */
    enum hi_code (*open_file)(struct target *target, const struct mapping *mapping, int *fd,
                              struct hi_err *err); /* may be NULL */
    void (*release)(struct target *target);        /* may be NULL; called more than once */
    void (*close)(struct target *target);          /* frees state; may be NULL */
};

struct target_auxv_entry {
    uint64_t type, value;
};

struct target {
    const struct target_backend *backend;
    void *state; /* the backend's own */
    pid_t pid, held_by;
    unsigned page_bytes;
    char *executable; /* as the target had it */
    char *executable_option, *file, *sysroot;
    bool incomplete; /* something other than memory is missing (a thread's registers) */
    bool wants_copy; /* a process: read a copy made by a fork */
    bool ended;      /* a process that was killed before it was let go */
    double stopped_seconds;
    VECTOR(struct mapping) mappings; /* paths are owned */
    VECTOR(struct thread) threads;   /* vector states are owned */
    VECTOR(struct hi_range) missing;
    VECTOR(char *) notes;
    VECTOR(struct target_auxv_entry) auxv;
    struct target_file_source source;
};

/* NULL: out of memory. options may be NULL. */
struct target *target_new(const struct target_backend *backend, void *state,
                          const struct target_options *options);
/* A new mapping with its path copied, or NULL when memory is out. path may be NULL. */
struct mapping *target_push_mapping(struct target *target, hi_addr start, hi_addr end,
                                    const char *path);
bool target_push_missing(struct target *target, hi_addr start, hi_addr end);
/* Sort and clean the tables. Of overlapping mappings the one that starts first wins. */
HI_MUST_USE enum hi_code target_seal(struct target *target, struct hi_err *err);
/* Fill pc, sp and fs_base from registers[]. */
void thread_set_registers(struct thread *thread, const uint64_t *registers);
/* address + bytes, or the end of the address space. */
hi_addr target_add_bytes(hi_addr address, uint64_t bytes);

#endif
