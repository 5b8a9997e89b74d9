/*
 * target: something that answers "read n bytes at address a".
 *
 * A live process (target/process.c), a core dump (target/core.c: kernel, gcore, compressed,
 * truncated), a snapshot, and for tests a table of bytes (target/bytes.c). All of them give the
 * same four things: mappings in address order, threads with registers, memory, notes on what is
 * not there. A target knows nothing of heaps or symbols.
 *
 * Life of a live target: target_open_process() stops every thread (PTRACE_SEIZE + INTERRUPT, the
 * task list read until it no longer changes) and reads the registers; then memory is read while it
 * is stopped; target_release() lets it go, and after that only mappings, threads, notes and
 * target_peek() may be used. The kernel lets the threads go by itself when heapinspect dies. A
 * process that is already traced (TracerPid, gdb) and stopped is read as it stands: .held_by is
 * set, registers come from target_add_registers() if the debugger gave them. Nothing is ever
 * written into a target. With options.fork_copy it is let go when it has forked, before its memory
 * is read, and what is read is the copy, until target_release().
 *
 * Memory that is not there comes in two kinds, never mixed up:
 *   absent   never touched: reads as zeros (anonymous pages of p_filesz 0, untouched bss)
 *   missing  was there, but is not in the dump (truncated, filtered, unreadable): a read FAULTs,
 *            the target is not complete, and the missing bytes are counted.
 * File-backed bytes that a core left out (text, rodata, untouched private file pages) are read
 * through the file source that the symbols layer installs (target_set_file_source); without one
 * they fault.
 *
 * Thread safety: after opening, reads may be made from several threads at once. Setting sources or
 * registers may not.
 */
#ifndef TARGET_TARGET_H
#define TARGET_TARGET_H

#include "base/error.h"
#include "base/progress.h"
#include "base/vector.h"

#include <sys/types.h>

enum target_kind { TARGET_PROCESS, TARGET_CORE, TARGET_SNAPSHOT, TARGET_BYTES };

enum { MAPPING_READ = 1, MAPPING_WRITE = 2, MAPPING_EXECUTE = 4 };

struct mapping {
    hi_addr start, end;
    unsigned protection;  /* MAPPING_READ | ... */
    bool shared;          /* MAP_SHARED (cores: unknown, false) */
    bool dumped;          /* core: at least one byte of it is in the file; process: true */
    bool special;         /* [vdso], [vvar], [vsyscall] */
    uint64_t file_offset; /* bytes, when path is a file */
    uint64_t device, inode;
    const char *path; /* NULL: anonymous; "[heap]", "[stack]" as /proc says; owned by target */
};

/* x86-64 general registers in the order of struct user_regs_struct. */
enum { THREAD_REGISTER_COUNT = 27 };

struct thread {
    pid_t tid;
    char name[16];
    bool has_registers;
    hi_addr pc, sp, fs_base;
    uint64_t registers[THREAD_REGISTER_COUNT];
    /* XSAVE area (NT_X86_XSTATE) or FXSAVE (NT_FPREGSET), whole, as the system gave it */
    void *vector_state;
    size_t vector_state_bytes;
    bool is_crashed; /* core: the first NT_PRSTATUS, when a signal is named */
    int signal;
};

struct target_options {
    const char *executable;      /* --exe, or NULL */
    const char *sysroot;         /* --sysroot, or NULL */
    const char *debug_directory; /* --debug-dir, or NULL */
    const struct progress *progress;
    bool fork_copy; /* a process: read a copy, made by a fork in it (fork_copy.h) */
};

struct target; /* opaque; fields below by accessor */

/* Reads file-backed bytes that the dump left out. HI_NOT_FOUND: no such file here. */
struct target_file_source {
    enum hi_code (*read)(void *context, const struct mapping *mapping, hi_addr address,
                         void *buffer, size_t bytes, struct hi_err *err);
    void *context;
};

HI_MUST_USE enum hi_code target_open_process(struct target **target, pid_t pid,
                                             const struct target_options *options,
                                             struct hi_err *err);
/* How large a process is that will be opened: all its mappings, and what it has to itself in
 * memory. For guesses. */
struct process_size {
    uint64_t mapped_bytes, own_bytes;
};
struct process_size target_process_size(pid_t pid);
/* path: a core, plain or compressed (zst, lz4, xz, gz), or a snapshot. */
HI_MUST_USE enum hi_code target_open_core(struct target **target, const char *path,
                                          const struct target_options *options, struct hi_err *err);
/* Let a live process go. Idempotent; nothing to do for the others. */
void target_release(struct target *target);
void target_close(struct target *target); /* NULL is fine */

enum target_kind target_kind(const struct target *target);
pid_t target_pid(const struct target *target);
const char *target_executable(const struct target *target); /* path as the target had it; or NULL */
const char *target_file(const struct target *target);       /* the core's path; NULL: process */
unsigned target_page_bytes(const struct target *target);
pid_t target_held_by(const struct target *target);          /* the debugger that holds it, or 0 */
bool target_ended(const struct target *target);             /* while it was read; after release */
double target_stopped_seconds(const struct target *target); /* until release; 0 for cores */

size_t target_mapping_count(const struct target *target);
const struct mapping *target_mapping(const struct target *target, size_t index);
/* The mapping that holds address, or NULL. O(log n). */
const struct mapping *target_mapping_at(const struct target *target, hi_addr address);

size_t target_thread_count(const struct target *target);
const struct thread *target_thread(const struct target *target, size_t index);
/* NT_AUXV or /proc/PID/auxv: value of one AT_ entry; false: not known. */
bool target_auxv(const struct target *target, uint64_t type, uint64_t *value);

/* Registers of one thread from a debugger; replaces what is known of tid or adds the thread. */
HI_MUST_USE enum hi_code target_add_registers(struct target *target, const struct thread *thread,
                                              struct hi_err *err);

/* All of [address, address + bytes) or HI_FAULT. Absent pages read as zeros. */
HI_MUST_USE enum hi_code target_read(struct target *target, hi_addr address, void *buffer,
                                     size_t bytes, struct hi_err *err);
/* As many bytes from the start as can be had (0: none); never an error. */
size_t target_read_some(struct target *target, hi_addr address, void *buffer, size_t bytes);
/* For hints, never for walks: like target_read_some(), and goes on to work after target_release(),
 * when a process runs on and the bytes are whatever it holds by then. */
size_t target_peek(struct target *target, hi_addr address, void *buffer, size_t bytes);
HI_MUST_USE enum hi_code target_read_u64(struct target *target, hi_addr address, uint64_t *value,
                                         struct hi_err *err);
/* A C string of at most size-1 bytes; an unterminated one is cut. */
HI_MUST_USE enum hi_code target_read_string(struct target *target, hi_addr address, char *buffer,
                                            size_t size, struct hi_err *err);
/* Memory without a copy, where the target is a mapped file: a pointer to at least one byte at
 * address and the number of bytes behind it in *bytes, or NULL (then read). Valid till close. */
const void *target_view(struct target *target, hi_addr address, size_t *bytes);

/* The first range with content at or after from and before end: skips absent pages (PAGEMAP_SCAN,
 * pagemap; p_filesz) and missing ones. false: none. Never longer than needed to be useful: callers
 * loop. Ranges are page aligned but for from and end. */
bool target_next_content(struct target *target, hi_addr from, hi_addr end, struct hi_range *range);
/* The same, up to capacity ranges at once, in order: cheaper where memory is sparse. Fewer than
 * capacity (also none): there are no more before end; else go on from the end of the last. */
size_t target_contents(struct target *target, hi_addr from, hi_addr end, struct hi_range *ranges,
                       size_t capacity);

/* Is everything there that should be? Missing ranges (in address order), and bytes in all. */
bool target_complete(const struct target *target);
size_t target_missing_count(const struct target *target);
uint64_t target_missing_bytes(const struct target *target);
/* Bytes of [start, end) that are missing (not absent). */
uint64_t target_missing_in(const struct target *target, hi_addr start, hi_addr end);

/* Sentences for the report: truncated, deleted executable, unknown producer ... */
size_t target_note_count(const struct target *target);
const char *target_note(const struct target *target, size_t index);
void target_add_note(struct target *target, const char *format, ...) HI_PRINTF(2, 3);

void target_set_file_source(struct target *target, const struct target_file_source *source);
/* Open the file behind a mapping as the target saw it: live: map_files, then /proc/PID/root + path;
 * core: sysroot + path. The caller closes *fd and checks the build-id. */
HI_MUST_USE enum hi_code target_open_file(struct target *target, const struct mapping *mapping,
                                          int *fd, struct hi_err *err);

/* A table of bytes for tests: segments are copied; mappings and threads as given. */
struct target_segment {
    hi_addr address;
    const void *bytes; /* NULL: absent (zeros) */
    size_t size;
    unsigned protection;
    const char *path;
};
HI_MUST_USE enum hi_code target_open_bytes(struct target **target,
                                           const struct target_segment *segments, size_t count,
                                           struct hi_err *err);
/* Tests: let the n-th read from now on (1 = next), and only that, fail. 0: none. */
void target_bytes_fail_read(struct target *target, uint64_t nth);

#endif
