/* Every entry point of the malloc family, and alignments up to 1 MiB; each kept, lost and freed. */
#include "programs/truth.h"

#include <dlfcn.h>

enum { ENTRIES = 9, PVALLOC = 8 };

/* jemalloc has no pvalloc: libc's would answer, with a block that free() does not know. */
static int has_pvalloc(void)
{
    Dl_info ours, other;
    return dladdr((void *)malloc, &ours) && dladdr((void *)pvalloc, &other) &&
           ours.dli_fbase == other.dli_fbase;
}

static void *posix_aligned(size_t alignment, size_t bytes)
{
    void *pointer = NULL;
    return posix_memalign(&pointer, alignment, bytes) == 0 ? pointer : NULL;
}

static void *by_entry(int entry, size_t bytes)
{
    switch (entry) {
    case 0:
        return calloc(1, bytes);
    case 1:
        return calloc(bytes, 1);
    case 2:
        return reallocarray(NULL, bytes, 1);
    case 3:
        return realloc(malloc(7), bytes);
    case 4:
        return aligned_alloc(64, (bytes + 63) / 64 * 64);
    case 5:
        return memalign(256, bytes);
    case 6:
        return posix_aligned(sizeof(void *), bytes);
    case 7:
        return valloc(bytes);
    default:
        return pvalloc(bytes);
    }
}

static void one(void *pointer, size_t bytes, int turn)
{
    truth_got(pointer, bytes);
    if (turn == 0)
        truth_keep(pointer);
    else if (turn == 1)
        truth_mark(pointer, TRUTH_DIRECT);
    else
        truth_free(pointer);
}

TRUTH_NOINLINE static void entries(void)
{
    static const size_t sizes[] = {1, 40, 200, 3000, 33000, 150000};
    for (int entry = 0; entry < ENTRIES; entry++) {
        if (entry == PVALLOC && !has_pvalloc())
            continue;
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            /* what is asked of these two is rounded up by the caller, or by the entry point */
            size_t bytes = entry == 4   ? (sizes[i] + 63) / 64 * 64
                           : entry == 8 ? (sizes[i] + 4095) / 4096 * 4096
                                        : sizes[i];
            for (int turn = 0; turn < 3; turn++)
                one(by_entry(entry, sizes[i]), bytes, turn);
        }
    }
}

TRUTH_NOINLINE static void alignments(void)
{
    for (size_t alignment = 8; alignment <= 1 << 20; alignment *= 2)
        for (size_t bytes = 1; bytes < 1 << 20; bytes *= 24)
            for (int turn = 0; turn < 3; turn++)
                one(posix_aligned(alignment, bytes), bytes, turn);
}

TRUTH_NOINLINE static void strings(void)
{
    for (int turn = 0; turn < 3; turn++) {
        char *text = NULL;
        if (asprintf(&text, "%0100d", turn) < 0)
            truth_fail("asprintf");
        one(text, 101, turn);
        one(strdup("a string of thirty-two characters"), 34, turn);
        one(strndup("cut at four", 4), 5, turn);
    }
}

TRUTH_NOINLINE static void plant(void)
{
    entries();
    alignments();
    strings();
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
