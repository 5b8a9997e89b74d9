/* Anonymous mappings that belong to no allocator: they hold when something points to them. */
#include "programs/truth.h"

#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 8 };

static void **volatile kept_private, **volatile kept_shared;

/* Between guard pages, so that no two mappings become one. */
static void **map(int flags)
{
    char *guarded = mmap(NULL, (PAGES + 2) * PAGE, PROT_NONE, flags | MAP_ANONYMOUS, -1, 0);
    if (guarded == MAP_FAILED)
        truth_fail("mmap");
    mprotect(guarded + PAGE, PAGES * PAGE, PROT_READ | PROT_WRITE);
    return (void **)(guarded + PAGE);
}

/* A mapping with two blocks, the second one through a block. */
TRUTH_NOINLINE static void **filled(int flags, enum truth_state own, enum truth_state behind)
{
    void **mapping = map(flags);
    mapping[0] = truth_chain(2, 40, own, behind);
    mapping[PAGES * PAGE / sizeof(void *) - 1] = truth_chain(2, 48, own, behind);
    return mapping;
}

TRUTH_NOINLINE static void plant(void)
{
    kept_private = filled(MAP_PRIVATE, TRUTH_HELD, TRUTH_HELD);
    kept_shared = filled(MAP_SHARED, TRUTH_HELD, TRUTH_HELD);
    filled(MAP_PRIVATE, TRUTH_DIRECT, TRUTH_INDIRECT);
    filled(MAP_SHARED, TRUTH_DIRECT, TRUTH_INDIRECT);
    /* one mapping held by another one, and one held by a block */
    void **outer = filled(MAP_PRIVATE, TRUTH_HELD, TRUTH_HELD);
    outer[7] = filled(MAP_PRIVATE, TRUTH_HELD, TRUTH_HELD);
    void **block = truth_malloc(80);
    block[4] = outer;
    truth_keep(block);
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
