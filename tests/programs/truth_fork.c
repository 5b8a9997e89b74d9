/* A forked child of a threaded process: the parent's blocks are the child's as well, the parent's
 * other threads' stacks are dead in it, and it keeps, loses and frees of its own. */
#include "programs/truth.h"

#include <pthread.h>
#include <sys/wait.h>

static void **table;

static void *holder(void *unused)
{
    void *volatile local[2] = {0};
    local[1] = truth_chain(3, 72, TRUTH_DIRECT, TRUTH_INDIRECT); /* in the child; held here */
    truth_stand();
    (void)local[1];
    return unused;
}

TRUTH_NOINLINE static void plant_before(void)
{
    table = truth_malloc(64 * sizeof *table);
    for (int i = 0; i < 64; i++)
        table[i] = truth_malloc(24 + 40 * (size_t)i);
}

TRUTH_NOINLINE static void change_in_child(void)
{
    for (int i = 0; i < 20; i++)
        truth_free(table[i]);
    for (int i = 20; i < 30; i++) {
        truth_mark(table[i], TRUTH_DIRECT);
        table[i] = NULL;
    }
    for (int i = 0; i < 20; i++)
        table[i] = truth_malloc(600);
    truth_chain(10, 40, TRUTH_DIRECT, TRUTH_INDIRECT);
}

int main(void)
{
    pthread_t thread;
    truth_begin();
    plant_before();
    if (pthread_create(&thread, NULL, holder, NULL))
        truth_fail("pthread_create");
    truth_await(1);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
        change_in_child();
        truth_ready();
    }
    waitpid(child, NULL, 0);
    _exit(0);
}
