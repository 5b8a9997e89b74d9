/* Blocks held only by thread-local storage: static and dynamic (a module opened later), of main and
 * of another thread, and by pthread_setspecific, first and second level. */
#include "programs/truth.h"

#include <dlfcn.h>
#include <pthread.h>

static __thread void *volatile own[8];
static void *volatile *(*module_slots)(void);

TRUTH_NOINLINE static void open_module(void)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    if (length < 0)
        truth_fail("/proc/self/exe");
    path[length] = 0;
    strcpy(strrchr(path, '/') + 1, "truth_module.so");
    void *handle = dlopen(path, RTLD_NOW);
    if (!handle)
        truth_fail(dlerror());
    *(void **)&module_slots = dlsym(handle, "truth_module_slots");
}

TRUTH_NOINLINE static void plant(void)
{
    own[3] = truth_chain(3, 40, TRUTH_HELD, TRUTH_HELD);
    module_slots()[500] = truth_chain(3, 48, TRUTH_HELD, TRUTH_HELD);
    truth_chain(2, 48, TRUTH_DIRECT, TRUTH_INDIRECT);
    for (int i = 0; i < 70; i++) {
        pthread_key_t key;
        if (pthread_key_create(&key, NULL) || pthread_setspecific(key, truth_malloc(56)))
            truth_fail("pthread_setspecific");
    }
}

/* Overwritten before the program stands still: these are lost. */
TRUTH_NOINLINE static void overwrite(void)
{
    own[4] = truth_malloc(136);
    module_slots()[1] = truth_malloc(136);
    truth_mark(own[4], TRUTH_DIRECT);
    truth_mark(module_slots()[1], TRUTH_DIRECT);
    own[4] = module_slots()[1] = NULL;
}

static volatile int is_open;

static void *other(void *unused)
{
    while (!is_open)
        usleep(1000);
    plant();
    overwrite();
    truth_stand();
    return unused;
}

/* The module is opened while the thread is there already: its storage comes when it first asks. */
int main(void)
{
    pthread_t thread;
    truth_begin();
    if (pthread_create(&thread, NULL, other, NULL))
        truth_fail("pthread_create");
    open_module();
    is_open = 1;
    truth_await(1);
    plant();
    overwrite();
    truth_ready();
}
