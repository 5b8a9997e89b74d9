/* Touching memory beforehand; see warm.h. */
#include "base/warm.h"

#include "base/huge.h"
#include "base/parallel.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>

enum {
    MAPPED_BYTES = 32 << 20, /* from here on malloc always maps */
    PIECE_BYTES = 24 << 20,
    PIECES_MOST = 64,
    RESERVE_FACTOR = 4, /* so much more is to come in huge pages, when it is touched */
};

struct touching {
    unsigned char *memory;
    uint64_t bytes, next; /* next is shared */
};

static void touch_work(void *context, int worker)
{
    struct touching *touching = context;
    uint64_t at;
    (void)worker;
#ifdef MADV_POPULATE_WRITE
    while ((at = __atomic_fetch_add(&touching->next, WARM_STEP_BYTES, __ATOMIC_RELAXED)) <
           touching->bytes) {
        uint64_t left = touching->bytes - at;
        uint64_t step = left < WARM_STEP_BYTES ? left : WARM_STEP_BYTES;
        if (madvise(touching->memory + at, step, MADV_POPULATE_WRITE) != 0)
            return;
    }
#else
    (void)at;
#endif
}

void warm_touch(void *memory, uint64_t bytes, int jobs)
{
    struct touching touching = {.memory = memory, .bytes = bytes};
    parallel_run(jobs > 0 ? jobs : parallel_default_jobs(), touch_work, &touching);
}

#ifdef __GLIBC__
/* Memory that malloc gave in pieces, one behind the other, so that huge pages fit. */
struct stretch {
    unsigned char *start, *end;
    uint64_t to_touch; /* of all stretches, still */
};

static void stretch_end(struct stretch *stretch, int jobs)
{
    const uintptr_t page = 4096;
    uintptr_t first = ((uintptr_t)stretch->start + page - 1) & ~(page - 1);
    uintptr_t last = (uintptr_t)stretch->end & ~(page - 1);
    if (first >= last)
        return;
    huge_prefer((void *)first, last - first);
    uint64_t bytes = last - first < stretch->to_touch ? last - first : stretch->to_touch;
    warm_touch((void *)first, bytes & ~(uint64_t)(page - 1), jobs);
    stretch->to_touch -= bytes;
}

void warm_malloc(uint64_t bytes, int jobs)
{
    enum { HEADER_BYTES = 64 };
    unsigned char *pieces[PIECES_MOST];
    struct stretch stretch = {.to_touch = bytes};
    size_t count = 0;
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    mallopt(M_TRIM_THRESHOLD, INT32_MAX);
    for (uint64_t left = RESERVE_FACTOR * bytes; left && count < PIECES_MOST; count++) {
        uint64_t piece = left < PIECE_BYTES ? left : PIECE_BYTES;
        unsigned char *made = pieces[count] = malloc(piece);
        if (!made)
            break;
        if (made < stretch.end || made - stretch.end > HEADER_BYTES) {
            stretch_end(&stretch, jobs);
            stretch.start = made;
        }
        stretch.end = made + piece;
        left -= piece;
    }
    stretch_end(&stretch, jobs);
    while (count)
        free(pieces[--count]);
}
#else
void warm_malloc(uint64_t bytes, int jobs)
{
    (void)bytes;
    (void)jobs;
}
#endif
