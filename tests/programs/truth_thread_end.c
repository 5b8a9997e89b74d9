/* Threads that have ended: joined, detached, and not joined yet. Their stacks stay mapped, and hold
 * nothing; the value of one that nobody has joined yet is held by the C library. */
#include "programs/truth.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>

static __thread void *volatile local;
static pthread_key_t key;
static volatile pid_t ended_tid;

/* Lost with the thread: what its stack, its storage and its specific values held. */
TRUTH_NOINLINE static void plant_here(void)
{
    void *volatile on_stack[3] = {0};
    on_stack[1] = truth_chain(3, 40, TRUTH_DIRECT, TRUTH_INDIRECT);
    local = truth_chain(3, 48, TRUTH_DIRECT, TRUTH_INDIRECT);
    pthread_setspecific(key, truth_chain(3, 56, TRUTH_DIRECT, TRUTH_INDIRECT));
    (void)on_stack[1];
}

static void *without_result(void *unused)
{
    plant_here();
    ended_tid = (pid_t)syscall(SYS_gettid);
    return unused;
}

static void *with_result(void *unused)
{
    (void)unused;
    plant_here();
    ended_tid = (pid_t)syscall(SYS_gettid);
    return truth_chain(4, 64, TRUTH_HELD, TRUTH_HELD);
}

static void await_end(void)
{
    while (syscall(SYS_tgkill, getpid(), ended_tid, 0) == 0 || errno != ESRCH)
        usleep(1000);
}

/* Each starts when the one before is gone; later ones may get an earlier one's stack. */
TRUTH_NOINLINE static void run(void *(*body)(void *), int join, int detach)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, NULL))
        truth_fail("pthread_create");
    if (join)
        pthread_join(thread, NULL);
    if (detach)
        pthread_detach(thread);
    if (!join)
        while (!ended_tid)
            usleep(1000);
    await_end();
    ended_tid = 0;
}

int main(void)
{
    truth_begin();
    if (pthread_key_create(&key, NULL))
        truth_fail("pthread_key_create");
    run(without_result, 0, 0);
    run(with_result, 0, 0);
    run(without_result, 0, 1);
    run(without_result, 1, 0);
    truth_ready();
}
