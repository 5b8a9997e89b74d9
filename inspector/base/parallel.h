/*
 * Run one function on several threads and wait for all: work(context, worker) with worker
 * 0..jobs-1; the caller's thread is worker 0. When a thread can't be started its worker's share
 * is run by the caller afterwards, so work that hands out items by an atomic counter (the way to
 * write it) is always done whole.
 */
#ifndef BASE_PARALLEL_H
#define BASE_PARALLEL_H

enum { PARALLEL_MAX_JOBS = 64 };

/* Number of processors that we may run on, 1..PARALLEL_MAX_JOBS. */
int parallel_default_jobs(void);
void parallel_run(int jobs, void (*work)(void *context, int worker), void *context);

#endif
