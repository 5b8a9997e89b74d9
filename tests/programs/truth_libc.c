/* What the C library and the dynamic linker keep for themselves is no leak: streams, directories,
 * locales, the environment, exit handlers, opened modules, error texts. */
#include "programs/truth.h"

#include <dirent.h>
#include <dlfcn.h>
#include <locale.h>
#include <netdb.h>
#include <pthread.h>
#include <regex.h>
#include <time.h>

static DIR *volatile directory;
static volatile locale_t locale;
static regex_t pattern;
static FILE *volatile memory_stream;
static char *memory_text;
static size_t memory_bytes;

static void at_exit(void)
{
}

TRUTH_NOINLINE static void streams(void)
{
    char text[64];
    for (int i = 0; i < 5; i++) {
        FILE *stream = fopen("/proc/self/status", "r");
        if (!stream || !fgets(text, sizeof text, stream))
            truth_fail("fopen");
    }
    directory = opendir("/");
    if (!directory || !readdir(directory))
        truth_fail("opendir");
    memory_stream = open_memstream(&memory_text, &memory_bytes);
    fprintf(memory_stream, "some text");
    fflush(memory_stream);
}

TRUTH_NOINLINE static void process_state(void)
{
    char name[32];
    for (int i = 0; i < 40; i++) {
        atexit(at_exit);
        pthread_atfork(at_exit, at_exit, at_exit);
        snprintf(name, sizeof name, "TRUTH_%d", i);
        setenv(name, "a value that is not short", 1);
    }
    setlocale(LC_ALL, "C.UTF-8");
    locale = newlocale(LC_ALL_MASK, "C.UTF-8", NULL);
    setenv("TZ", "Europe/Berlin", 1);
    tzset();
    if (regcomp(&pattern, "^(a|b)*c[d-f]+$", REG_EXTENDED))
        truth_fail("regcomp");
}

TRUTH_NOINLINE static void modules(void)
{
    if (dlopen("/no/such/library.so", RTLD_NOW))
        truth_fail("dlopen");
    dlerror();
    dlopen("/no/such/library.so", RTLD_NOW);
    void *math = dlopen("libm.so.6", RTLD_NOW | RTLD_GLOBAL);
    if (math)
        dlsym(math, "no_such_symbol");
    getservbyname("http", "tcp");
}

TRUTH_NOINLINE static void plant(void)
{
    streams();
    process_state();
    modules();
    truth_chain(3, 40, TRUTH_DIRECT, TRUTH_INDIRECT);
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
