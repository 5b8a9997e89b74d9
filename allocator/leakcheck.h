/* leakcheck: hands this process to heapinspect and waits for its verdict. See leakcheck.c. */
#ifndef HIMALLOC_LEAKCHECK_H
#define HIMALLOC_LEAKCHECK_H

#include <stdbool.h>

enum leakcheck_verdict {
    LEAKCHECK_CLEAN,
    LEAKCHECK_LEAKS,  /* direct ones */
    LEAKCHECK_UNKNOWN /* it could not be done; a line said why */
};

/* At the start, while environment, folder and standard error are those of whoever started us. */
void leakcheck_prepare(void);
/* Allocates nothing, takes no lock, touches no stdio: can be called from a signal handler. */
enum leakcheck_verdict leakcheck_run(void);
/* The next heap profile of HEAPPROFILE; as leakcheck_run in all else. */
void leakcheck_dump(const char *why);
/* The program says that it is not to be checked (__lsan_is_turned_off). */
bool leakcheck_is_turned_off(void);

#endif
