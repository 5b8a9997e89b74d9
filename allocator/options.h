/* options: HIMALLOC=key:value,key:value from the environment. */
#ifndef HIMALLOC_OPTIONS_H
#define HIMALLOC_OPTIONS_H

#include <stdbool.h>

extern bool options_background; /* memory goes back by age on a helper thread */

/* Reads the environment as soon as there is one; cheap when that was done. */
void options_read(void);

#endif
