/* at_exit: when the leak check runs, and what becomes of the exit status. See at_exit.c. */
#ifndef HIMALLOC_AT_EXIT_H
#define HIMALLOC_AT_EXIT_H

/* Registers the check, when HIMALLOC or HEAPCHECK asks for it. */
void at_exit_start(void);
/* The check, now instead: ends the process with `exitcode` if there are leaks. */
void at_exit_check_now(void);

#endif
