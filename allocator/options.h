/* options: HIMALLOC=key:value,key:value from the environment. */
#ifndef HIMALLOC_OPTIONS_H
#define HIMALLOC_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Who allocated is kept: enum hm_stacks_mode, and the mean distance of samples in bytes. */
extern uint32_t options_stacks_mode, options_sample_bytes;
extern bool options_background; /* memory goes back by age on a helper thread */

/* A value as it stands in the environment: not ended by a zero, and there only at the start. */
struct option_text {
    const char *text;
    size_t length;
};

/* The check at exit. */
struct options_leakcheck {
    bool at_exit;
    bool heapcheck;    /* asked for by gperftools' variable: with a heap profile */
    bool say_always;   /* also that nothing is lost */
    uint32_t say_pid;  /* the process that says so; 0: none */
    uint8_t exit_code; /* when there are leaks; 0: the program's own is kept */
    struct option_text report, suppressions, style, profile;
};
extern struct options_leakcheck options_leakcheck;

/* gperftools' heap profiles: HEAPPROFILE and HEAPPROFILESIGNAL. */
struct options_heapprofile {
    struct option_text prefix; /* its first byte may have the mark of a child, 0x80 */
    bool is_child;             /* a program that this one's parent started */
    uint32_t signal;           /* asks for one; 0: none */
};
extern struct options_heapprofile options_heapprofile;

/* Reads the environment as soon as there is one; cheap when that was done. */
void options_read(void);
/* From the constructor: a static program can be asked for its stacks from now on, not before; where
 * there is a dynamic linker it has made that ready before it first allocates from us. */
void options_running(void);

#endif
