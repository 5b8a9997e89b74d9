/*
 * The readers of jemalloc, tcmalloc and mimalloc against a program that books every block it holds
 * (heap_truth.h), with the allocator preloaded: stopped at random moments, and from cores.
 *
 *   foreign_truth                         this system's libraries, FOREIGN_STOPS stops each (20)
 *   foreign_truth READER LIBRARY [STOPS]  another build
 *   foreign_truth READER PROGRAM [STOPS]  a heap_truth that has its allocator linked in
 *
 * FOREIGN_SEED repeats a run's choices.
 */
#include "unit/truth_driver.h"

struct library {
    const char *reader, *file;
};

static const struct library libraries[] = {
    {"jemalloc", "libjemalloc.so.2"}, {"tcmalloc", "libtcmalloc_minimal.so.4"},
    {"tcmalloc", "libtcmalloc.so.4"}, {"mimalloc", "libmimalloc.so.2.0"},
    {"mimalloc", "libmimalloc.so.3"},
};

static const struct mode modes[] = {
    {"six threads", "heap_truth", 40000, "6", {"plain"}, 50},
    {"large and aligned blocks", "heap_truth", 20000, "4", {"large"}, 30},
    {"one thread", "heap_truth", 20000, "0", {"large"}, 20},
};

static bool library_path(const char *file, char *path, size_t size)
{
    static const char *const folders[] = {"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib",
                                          "/usr/local/lib"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, size, "%s/%s", folders[i], file);
        if (access(path, R_OK) == 0)
            return true;
    }
    return false;
}

enum { MODE_COUNT = sizeof modes / sizeof *modes };

/* path: of a library, or of a program that needs none. */
static void library_test(const char *reader, const char *path, unsigned stops, size_t mode_count)
{
    char preload[1100], name[160];
    bool is_program = !strstr(path, ".so");
    snprintf(preload, sizeof preload, "%s=%s", is_program ? "UNUSED" : "LD_PRELOAD", path);
    const char *const before[] = {"/usr/bin/env", preload, NULL};
    const char *file = strrchr(path, '/');
    driver = (struct truth_driver){.reader = reader, .checks = 1, .wait = true};
    for (size_t i = 0; i < mode_count; i++) {
        struct mode mode = modes[i];
        snprintf(name, sizeof name, "%s, %s", file ? file + 1 : path, mode.name);
        mode.name = name;
        mode.program = is_program ? path : mode.program;
        live(&mode, stops * mode.share / 100, before);
        from_core(&mode, before);
    }
}

/* jemalloc under a prefix, in a stripped program: tests.mk. */
static void linked_in_test(unsigned stops)
{
    char program[600], here[512];
    const char *build = getenv("BUILD");
    snprintf(program, sizeof program, "%s/%s/programs/heap_truth_rjem",
             build && build[0] == '/' ? "" : getcwd(here, sizeof here), build ? build : "build");
    if (access(program, X_OK) == 0)
        library_test("jemalloc", program, stops, 1);
    else
        printf("ok %d # SKIP no static jemalloc here\n", ++tap_count);
}

int main(int argc, char **argv)
{
    const char *stops_text = argc > 3 ? argv[3] : getenv("FOREIGN_STOPS");
    unsigned stops = stops_text ? (unsigned)strtoul(stops_text, NULL, 10) : 20;
    const char *seed = getenv("FOREIGN_SEED");
    char path[1024];
    random_state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL) * 1000003 + getpid();
    printf("# FOREIGN_SEED=%llu\n", (unsigned long long)random_state);
    if (argc > 2) {
        library_test(argv[1], argv[2], stops, MODE_COUNT);
        return done();
    }
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        if (library_path(libraries[i].file, path, sizeof path))
            library_test(libraries[i].reader, path, stops, MODE_COUNT);
        else
            printf("ok %d # SKIP no %s here\n", ++tap_count, libraries[i].file);
    }
    linked_in_test(stops);
    return done();
}
