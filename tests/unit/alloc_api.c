/* Each entry point to the letter of POSIX, C23 and glibc: errno, overflow, alignment, zero sizes.
 */
#define _GNU_SOURCE
#include "tap.h"

#include "himalloc.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

void free_sized(void *p, size_t bytes);
void free_aligned_sized(void *p, size_t alignment, size_t bytes);

static void *volatile kept; /* what the compiler may not reason about */
static volatile size_t huge = (size_t)PTRDIFF_MAX + 1, over = SIZE_MAX;

static void fails_with(void *p, int code, const char *what)
{
    int seen = errno;
    ok(p == NULL && seen == code, "%s: NULL and %s (got %p, %s)", what, strerrorname_np(code), p,
       seen ? strerrorname_np(seen) : "0");
    errno = 0;
}

static void test_too_big(void)
{
    errno = 0;
    fails_with(malloc(huge), ENOMEM, "malloc(PTRDIFF_MAX + 1)");
    fails_with(malloc(over), ENOMEM, "malloc(SIZE_MAX)");
    fails_with(malloc(huge - 1), ENOMEM, "malloc(PTRDIFF_MAX)");
    fails_with(calloc(over / 2, 4), ENOMEM, "calloc with a product that overflows");
    fails_with(calloc(huge, 1), ENOMEM, "calloc(PTRDIFF_MAX + 1, 1)");
    void *p = malloc(100);
    memset(p, 7, 100);
    fails_with(realloc(p, huge), ENOMEM, "realloc to PTRDIFF_MAX + 1");
    fails_with(reallocarray(p, over / 2, 4), ENOMEM, "reallocarray that overflows");
    ok(((char *)p)[99] == 7, "a failed realloc leaves the block alone");
    free(p);
    errno = 0;
    fails_with(aligned_alloc(64, over - 10), ENOMEM, "aligned_alloc(64, nearly SIZE_MAX)");
    fails_with(memalign(4096, over - 100), ENOMEM, "memalign(4096, nearly SIZE_MAX)");
    fails_with(valloc(over - 100), ENOMEM, "valloc(nearly SIZE_MAX)");
    fails_with(pvalloc(over - 100), ENOMEM, "pvalloc(nearly SIZE_MAX)");
    p = (void *)1;
    ok(posix_memalign(&p, 64, over - 10) == ENOMEM && p == (void *)1 && errno == 0,
       "posix_memalign returns ENOMEM, leaves pointer and errno");
}

static void test_alignments(void)
{
    errno = 0;
    fails_with(aligned_alloc(0, 16), EINVAL, "aligned_alloc(0, 16)");
    fails_with(aligned_alloc(24, 48), EINVAL, "aligned_alloc(24, 48)");
    fails_with(aligned_alloc(over, 48), EINVAL, "aligned_alloc(SIZE_MAX, 48)");
    void *p = (void *)1;
    ok(posix_memalign(&p, 4, 16) == EINVAL && posix_memalign(&p, 0, 16) == EINVAL &&
           posix_memalign(&p, 24, 16) == EINVAL && p == (void *)1,
       "posix_memalign refuses 4, 0 and 24");
    int bad = 0, count = 0;
    for (size_t align = 8; align <= (size_t)64 << 20; align *= 2)
        for (size_t size = 0; size < 400000; size = size * 3 + 1) {
            void *a[3] = {aligned_alloc(align, size), memalign(align, size), NULL};
            if (posix_memalign(&a[2], align, size) != 0)
                bad++;
            for (int i = 0; i < 3; i++, count++) {
                size_t usable = malloc_usable_size(a[i]);
                bad += !a[i] || (uintptr_t)a[i] % align || (uintptr_t)a[i] % 16 || usable < size;
                if (a[i])
                    memset(a[i], 0xa5, size);
            }
            free(a[0]);
            free_aligned_sized(a[1], align, size);
            free(a[2]);
        }
    ok(bad == 0, "%d blocks aligned to 8 bytes .. 64 MiB, %d wrong", count, bad);
    p = memalign(48, 100);
    ok(p && (uintptr_t)p % 64 == 0, "memalign rounds 48 up to a power of two");
    free(p);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *v = valloc(10), *w = pvalloc(10);
    ok((uintptr_t)v % page == 0 && (uintptr_t)w % page == 0 && malloc_usable_size(w) >= page,
       "valloc and pvalloc: whole pages");
    free(v);
    free(w);
}

static void test_sizes(void)
{
    int bad = 0;
    for (size_t size = 0; size <= 70000; size += size < 2100 ? 1 : 61) {
        unsigned char *p = malloc(size), *z = calloc(1, size);
        bad += !p || !z || (uintptr_t)p % 16 || (uintptr_t)z % 16 || malloc_usable_size(p) < size ||
               p == z;
        for (size_t i = 0; z && i < size; i++)
            bad += z[i] != 0;
        memset(p, 0xff, malloc_usable_size(p));
        memset(z, 0xff, malloc_usable_size(z));
        free_sized(p, size);
        free(z);
    }
    ok(bad == 0, "every size to 2100 and many to 70000: aligned, long enough, calloc zero (%d)",
       bad);
}

static void test_zero(void)
{
    void *a = malloc(0), *b = malloc(0), *c = calloc(0, 8), *d = calloc(8, 0),
         *e = realloc(NULL, 0);
    ok(a && b && c && d && e && a != b && c != d, "size 0 gives pointers of their own");
    free(a);
    free(b);
    free(c);
    free(d);
    free(e);
    kept = malloc(10);
    errno = 0;
    ok(realloc(kept, 0) == NULL && errno == 0, "realloc(p, 0) frees and returns NULL, no errno");
    free(NULL);
    ok(malloc_usable_size(NULL) == 0, "malloc_usable_size(NULL) is 0");
}

static void test_errno_kept(void)
{
    int bad = 0;
    for (size_t size = 1; size < (size_t)64 << 20; size = size * 2 + 1) {
        errno = 4711;
        void *p = malloc(size), *q = calloc(1, size), *r = aligned_alloc(64, size);
        p = realloc(p, size + size / 2);
        free(p);
        free(q);
        free(r);
        bad += errno != 4711;
    }
    ok(bad == 0, "success and free leave errno alone");
}

static void test_reports(void)
{
    struct mallinfo2 before = mallinfo2();
    void *small[100], *large = malloc(1 << 20);
    for (int i = 0; i < 100; i++)
        small[i] = malloc(1000);
    struct mallinfo2 after = mallinfo2();
    size_t grown = after.uordblks - before.uordblks;
    ok(grown >= (1 << 20) + 100 * 1000 && grown < (2 << 20), "mallinfo2 sees what was taken (%zu)",
       grown);
    ok(after.uordblks + after.fordblks == after.arena, "in use and free make up the whole");
    for (int i = 0; i < 100; i++)
        free(small[i]);
    free(large);
    char *text = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length);
    int code = malloc_info(0, memory);
    fclose(memory);
    ok(code == 0 && strstr(text, "<malloc ") && strstr(text, "</malloc>"),
       "malloc_info writes XML");
    free(text);
    ok(malloc_info(1, stderr) == EINVAL, "malloc_info refuses options");
    ok(mallopt(M_MMAP_THRESHOLD, 100000) == 1, "mallopt says 1");
    ok(malloc_trim(0) == 1, "malloc_trim had something to give back");
}

/* Content survives every change of size between all kinds of blocks. */
static void test_realloc(void)
{
    static const size_t sizes[] = {1,      16,     17,      100,     1000,          4096,
                                   8192,   8193,   32768,   32769,   65536,         65537,
                                   131072, 400000, 1 << 20, 3 << 20, (3 << 20) + 1, 20 << 20};
    enum { COUNT = sizeof(sizes) / sizeof(sizes[0]) };
    int bad = 0;
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++)
            for (int wall = 0; wall < 2; wall++) {
                unsigned char *p = malloc(sizes[i]);
                void *behind = wall ? malloc(sizes[i]) : NULL; /* no growing in place */
                size_t kept_bytes = sizes[i] < sizes[j] ? sizes[i] : sizes[j];
                for (size_t k = 0; k < sizes[i]; k++)
                    p[k] = (unsigned char)(k * 31 + i);
                p = realloc(p, sizes[j]);
                for (size_t k = 0; k < kept_bytes; k++)
                    bad += p[k] != (unsigned char)(k * 31 + i);
                memset(p, 1, sizes[j]);
                bad += malloc_usable_size(p) < sizes[j];
                free(behind);
                free(p);
            }
    ok(bad == 0, "realloc between %d sizes keeps the contents (%d wrong)", COUNT, bad);
}

/* Memory that was used and freed comes back as zero from calloc. */
static void test_calloc_reused(void)
{
    int bad = 0;
    for (int round = 0; round < 6; round++)
        for (size_t size = 8; size <= 12 << 20; size = size * 3 + 8) {
            unsigned char *p = malloc(size);
            memset(p, 0xee, size);
            free(p);
            unsigned char *z = calloc(size, 1);
            for (size_t i = 0; i < size; i++)
                bad += z[i] != 0;
            free(z);
        }
    ok(bad == 0, "calloc of reused memory is zero (%d)", bad);
}

static void test_arenas(void)
{
    himalloc_arena *a = himalloc_arena_create("parser"), *b = himalloc_arena_create("cache");
    ok(a && b && a != b, "two named arenas");
    void *blocks[500];
    int bad = 0;
    for (int i = 0; i < 500; i++) {
        blocks[i] = himalloc_arena_malloc(i % 2 ? a : b, (size_t)i * 97 % 50000 + 1);
        bad += !blocks[i];
        memset(blocks[i], i, (size_t)i * 97 % 50000 + 1);
    }
    for (int i = 0; i < 500; i++)
        for (size_t k = 0; k < (size_t)i * 97 % 50000 + 1; k += 50)
            bad += ((unsigned char *)blocks[i])[k] != (unsigned char)i;
    for (int i = 0; i < 250; i++) {
        if (i % 3 == 0)
            himalloc_arena_free(i % 2 ? a : b, blocks[i]);
        else if (i % 3 == 1)
            free(blocks[i]);
        else
            free(realloc(blocks[i], 60));
    }
    ok(bad == 0, "blocks of arenas are apart and take free and realloc");
    unsigned char *z = himalloc_arena_calloc(a, 100, 100);
    for (int i = 0; i < 10000; i++)
        bad += z[i] != 0;
    z = himalloc_arena_realloc(a, z, 100000);
    ok(bad == 0 && z, "calloc and realloc in an arena");
    struct mallinfo2 before = mallinfo2();
    himalloc_arena_destroy(a);
    himalloc_arena_destroy(b);
    struct mallinfo2 after = mallinfo2();
    ok(after.uordblks < before.uordblks, "destroy frees what is left");
    himalloc_arena *c = himalloc_arena_create("a name that is longer than it may be, by far");
    void *p = himalloc_arena_malloc(c, 10);
    ok(c && p, "a record of a destroyed arena serves again");
    himalloc_arena_destroy(c);
}

int main(void)
{
    test_too_big();
    test_alignments();
    test_sizes();
    test_zero();
    test_errno_kept();
    test_reports();
    test_realloc();
    test_calloc_reused();
    test_arenas();
    return done();
}
