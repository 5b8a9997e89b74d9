/*
 * The ptmalloc reader against a program that books every block it holds: stopped at random moments,
 * by symbols' absence or presence as this machine has it, and from cores.
 *
 *   ptmalloc_truth                      all modes, PTMALLOC_STOPS stops in all (60)
 *   ptmalloc_truth STOPS COMMAND...     the program run by COMMAND (ld.so of another glibc, say)
 *
 * PTMALLOC_FOUND=relocation|pattern: that the roots are found so. PTMALLOC_REMOVE=FILE: unlinked
 * before a core is read. PTMALLOC_MODES=N: only the first N modes; PTMALLOC_MODE=N: only that one.
 */
#include "unit/truth_driver.h"

static const struct mode modes[] = {
    {"six threads", "heap_truth", 40000, "6", {"plain"}, 40},
    {"mapped and aligned blocks", "heap_truth", 20000, "4", {"large"}, 25},
    {"one thread, foreign sbrk", "heap_truth", 20000, "0", {"large", "brk"}, 11},
    {"break in the way", "heap_truth", 30000, "2", {"large", "nobrk"}, 7},
    {"holes, then the break in the way", "heap_truth", 30000, "2", {"large", "brk", "nobrk"}, 7},
    {"static", "heap_truth_static", 20000, "4", {"large"}, 10},
};

int main(int argc, char **argv)
{
    /* system_mem, n_mmaps, mmapped_mem, tcache entries, bins: none is left out */
    driver = (struct truth_driver){.reader = "ptmalloc",
                                   .checks = 5,
                                   .found = getenv("PTMALLOC_FOUND"),
                                   .remove = getenv("PTMALLOC_REMOVE")};
    const char *stops_text = argc > 1 ? argv[1] : getenv("PTMALLOC_STOPS");
    unsigned stops = stops_text ? (unsigned)strtoul(stops_text, NULL, 10) : 60;
    const char *seed = getenv("PTMALLOC_SEED");
    random_state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL) * 1000003 + getpid();
    /* or the threshold grows out of reach with the first mapped block freed */
    setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072", 1);
    printf("# PTMALLOC_SEED=%llu\n", (unsigned long long)random_state);
    const char *const *before = argc > 2 ? (const char *const *)argv + 2 : NULL;
    const char *few = getenv("PTMALLOC_MODES");
    size_t count = few ? strtoul(few, NULL, 10) : sizeof modes / sizeof *modes;
    for (size_t i = 0; i < count && i < sizeof modes / sizeof *modes; i++) {
        if (before && strcmp(modes[i].program, "heap_truth") != 0)
            continue;
        if (getenv("PTMALLOC_MODE") && strtoul(getenv("PTMALLOC_MODE"), NULL, 10) != i)
            continue;
        live(&modes[i], stops * modes[i].share / 100, before);
        from_core(&modes[i], before);
    }
    return done();
}
