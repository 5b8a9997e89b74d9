/*
 * dlclose_entry: dlclose, and then a look at which modules are gone, before others take their place
 * (cfi_rows.c).
 *
 * In libhimalloc.so alone. In libhimalloc.a the name is local, so that a static program has its C
 * library's; there and for what the C library unloads by itself, the next module in the same place
 * gives it away.
 */
#define _GNU_SOURCE
#include "call_stack.h"
#include "malloc_entry.h"

#include <dlfcn.h>

extern __typeof(dlsym) dlsym __attribute__((weak));

EXPORT int dlclose(void *library)
{
    static int (*next)(void *);
    if (!next && dlsym)
        *(void **)&next = dlsym(RTLD_NEXT, "dlclose");
    if (!next)
        return -1;
    int result = next(library);
    call_stack_unloaded();
    return result;
}
