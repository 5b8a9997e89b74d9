/* A few threads, joined at once; see parallel.h. */
#define _GNU_SOURCE
#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

struct share {
    void (*work)(void *context, int worker);
    void *context;
    int worker;
    bool started;
    pthread_t thread;
};

int parallel_default_jobs(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < 1 ? 1 : count > PARALLEL_MAX_JOBS ? PARALLEL_MAX_JOBS : count;
}

static void *run_share(void *argument)
{
    struct share *share = argument;
    share->work(share->context, share->worker);
    return NULL;
}

void parallel_run(int jobs, void (*work)(void *context, int worker), void *context)
{
    struct share shares[PARALLEL_MAX_JOBS];
    if (jobs > PARALLEL_MAX_JOBS)
        jobs = PARALLEL_MAX_JOBS;
    for (int i = 1; i < jobs; i++) {
        shares[i] = (struct share){.work = work, .context = context, .worker = i};
        shares[i].started = pthread_create(&shares[i].thread, NULL, run_share, &shares[i]) == 0;
    }
    work(context, 0);
    for (int i = 1; i < jobs; i++) {
        if (shares[i].started)
            pthread_join(shares[i].thread, NULL);
        else
            work(context, i);
    }
}
