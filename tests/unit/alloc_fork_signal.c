/*
 * fork out of a signal handler that interrupts malloc at any place, while another thread allocates.
 * fork must not wait for anything, and both parent and child go on with the call that was
 * interrupted, in which locks may be held and bins half filled.
 */
#define _GNU_SOURCE
#include "tap.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKS = 100, HELD = 1000, CHILD_STEPS = 500 };

static volatile sig_atomic_t forks, bad, stop, in_child;

static void fork_here(int number)
{
    (void)number;
    pid_t pid = fork();
    if (pid == 0) {
        in_child = 1; /* returns into the interrupted call */
        alarm(120);
        signal(SIGALRM, SIG_DFL);
        return;
    }
    int status = -1;
    if (pid > 0)
        waitpid(pid, &status, 0);
    bad += status != 0;
    forks++;
}

static void *other(void *unused)
{
    void *held[100] = {0};
    unsigned state = 3;
    while (!stop) {
        state = state * 1103515245 + 12345;
        unsigned i = (state >> 9) % 100;
        free(held[i]);
        held[i] = malloc((state >> 12) % 90000);
    }
    for (int i = 0; i < 100; i++)
        free(held[i]);
    return unused;
}

/* A block whose first byte is not its own was given to two. */
static int step(unsigned char **held, unsigned *state)
{
    *state = *state * 1103515245 + 12345;
    unsigned i = (*state >> 9) % HELD;
    int broken = held[i] && held[i][0] != (unsigned char)i;
    free(held[i]);
    size_t bytes = (*state >> 12) % 50000 + 1;
    held[i] = malloc(bytes);
    held[i][0] = (unsigned char)i;
    held[i][bytes - 1] = (unsigned char)i;
    return broken;
}

int main(void)
{
    static unsigned char *held[HELD];
    pthread_t thread;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_create(&thread, NULL, other, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    signal(SIGALRM, fork_here);
    struct itimerval fast = {{0, 1500}, {0, 1500}}, off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &fast, NULL);
    unsigned state = 1;
    int broken = 0, steps = 0;
    while (forks < FORKS) {
        broken += step(held, &state);
        if (in_child && steps++ == CHILD_STEPS)
            _exit(broken ? 1 : 0);
    }
    setitimer(ITIMER_REAL, &off, NULL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (in_child) /* of a last signal after the last count */
        _exit(broken ? 1 : 0);
    stop = 1;
    pthread_join(thread, NULL);
    ok(forks >= FORKS, "%d forks out of handlers came back", (int)forks);
    ok(bad == 0, "every child went on with the interrupted call and ended well (%d did not)",
       (int)bad);
    ok(broken == 0, "no block of the parent was given away twice");
    return done();
}
