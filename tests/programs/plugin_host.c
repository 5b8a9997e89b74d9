/*
 * plugin_host LIBRARY...: opens each library, allocates through it, and closes it again; then says
 * "ready" and waits. Through library n two blocks of 1000 * (n + 1) bytes are allocated.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *volatile kept[64];
static unsigned kept_count, library_count;

static unsigned get(void)
{
    kept[kept_count++] = malloc(1000 * (size_t)library_count);
    return 1;
}

static int use(const char *path)
{
    unsigned (*call)(unsigned (*)(void));
    void *library = dlopen(path, RTLD_NOW);
    if (!library)
        return 1;
    *(void **)&call = dlsym(library, "plugin_call");
    library_count++;
    for (int i = 0; call && i < 2; i++)
        call(get);
    printf("place %p\n", *(void **)&call);
    return dlclose(library);
}

int main(int argc, char **argv)
{
    int failures = 0;
    for (int i = 1; i < argc; i++)
        failures += use(argv[i]) != 0;
    printf("ready %d\n", failures);
    fflush(stdout);
    pause();
    return 0;
}
