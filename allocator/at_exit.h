/* at_exit: when the leak check runs, and what becomes of the exit status. See at_exit.c. */
#ifndef HIMALLOC_AT_EXIT_H
#define HIMALLOC_AT_EXIT_H

/* Registers the check, when HIMALLOC or HEAPCHECK asks for it. */
void at_exit_start(void);

#endif
