/* Forced into every file of the inspector: functions that hide a length or an error don't compile.
 */
#ifndef BASE_BANNED_H
#define BASE_BANNED_H

/* Forced in before a file's own first line, so what that line would have asked for is said here. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat sprintf vsprintf gets atoi atol atof strtok strncpy

#endif
