/* No bin of the main arena is empty, and it is not the only arena: what tells it by its empty
 * lists, or by a ring of one, finds nothing here. Prints nothing; dumps core. */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

enum { CACHED = 7, MOST = 1 << 12 };

static void *blocks[MOST], *between[MOST];
static size_t count;

/* More chunks of a size than its cache takes, none the other's neighbour. */
static void allocate(size_t chunk_bytes)
{
    for (int i = 0; i <= CACHED && count < MOST; i++, count++) {
        blocks[count] = malloc(chunk_bytes - 8);
        between[count] = malloc(24);
    }
}

static void *second_arena(void *block)
{
    between[MOST - 1] = malloc(24);
    return block;
}

int main(void)
{
    static const struct {
        size_t from, step, to;
    } bins[] = {{32, 16, 1024},       {1024, 64, 3072},       {3136, 512, 10752},
                {10752, 4096, 45056}, {45056, 32768, 163840}, {163840, 1, 163841},
                {262144, 1, 262145},  {524288, 1, 524289},    {1 << 20, 1, (1 << 20) + 1}};
    pthread_t thread;
    if (pthread_create(&thread, NULL, second_arena, NULL) || pthread_join(thread, NULL))
        return 1;
    mallopt(M_MXFAST, 0);
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    for (size_t i = 0; i < sizeof bins / sizeof *bins; i++)
        for (size_t bytes = bins[i].from; bytes < bins[i].to; bytes += bins[i].step)
            allocate(bytes);
    for (size_t i = 0; i < count; i++)
        free(blocks[i]);
    blocks[0] = malloc(16 << 20); /* sorts what was unsorted */
    free(between[count / 2]);
    abort();
}
