/*
 * gdb_registers: the registers of all threads as gdb prints them, for a process or core that gdb
 * holds. The text is what `thread apply all info registers` prints, or the same with `info
 * all-registers` or `info vector`:
 *
 *     Thread 2 (Thread 0x7ffff7a00640 (LWP 4243) "worker"):
 *     rax            0x7ffff0000b60      140737219922784
 *     rip            0x401136            0x401136 <main+4>
 *     fs_base        0x7ffff7a00640      140737348892224
 *     ymm0           {..., v4_int64 = {0x1, 0x2, 0x0 <repeats 2 times>}, ...}
 *
 * Read leniently: what is not understood is passed over, other lines may stand between, decimal and
 * hexadecimal both do. Lines before any "Thread" line belong to the process' main thread. A thread
 * may come several times (registers, then vectors): each adds to what is known of it.
 */
#ifndef TARGET_GDB_REGISTERS_H
#define TARGET_GDB_REGISTERS_H

#include "target/target.h"

/* HI_BAD_INPUT: the text has not one thread with a stack pointer. *threads: how many it had. */
HI_MUST_USE enum hi_code gdb_registers_apply(struct target *target, const char *text,
                                             size_t *threads, struct hi_err *err);

#endif
