/* A program with an allocator of its own, which nobody knows: it only ever takes from mappings.
 * Keeps and loses blocks, says "ready", and waits. */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { PIECE = 1 << 20, HEADER = 16 };
static char *next, *end;
static void **kept;

static void *take(size_t bytes)
{
    size_t need = (bytes + HEADER + 15) & ~(size_t)15;
    if (need < bytes || need > PIECE)
        return NULL;
    if ((size_t)(end - next) < need) {
        next = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (next == MAP_FAILED)
            return NULL;
        end = next + PIECE;
    }
    char *block = next + HEADER;
    memcpy(next, &bytes, sizeof bytes);
    next += need;
    return block;
}

/* clang-format off */
void *malloc(size_t bytes);
void *malloc(size_t bytes) { return take(bytes); }
void free(void *block);
void free(void *block) { (void)block; }
void *calloc(size_t count, size_t bytes);
void *calloc(size_t count, size_t bytes) { return take(count * bytes); } /* mappings are zero */
void *realloc(void *block, size_t bytes);
/* clang-format on */
void *realloc(void *block, size_t bytes)
{
    size_t had = 0;
    char *bigger = take(bytes);
    if (block)
        memcpy(&had, (char *)block - HEADER, sizeof had);
    if (bigger && block)
        memcpy(bigger, block, had < bytes ? had : bytes);
    return bigger;
}

int main(void)
{
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    for (int i = 0; i < 2000; i++) {
        void **block = malloc(24 + (size_t)i % 500);
        if (block && i % 3) {
            *block = kept;
            kept = block;
        }
    }
    if (write(1, "ready\n", 6) != 6)
        return 1;
    for (;;)
        pause();
}
