/* A library that is loaded, allocates, and is gone: see stacks_truth.c. */
#include <stdlib.h>

void *gone_allocate(void (*note)(const char *, int), size_t bytes);

/* The note is left for the caller to take back. */
void *gone_allocate(void (*note)(const char *, int), size_t bytes)
{
    note(__func__, __LINE__ + 1);
    void *volatile block = malloc(bytes);
    return block;
}
