/* The main thread has ended by pthread_exit; another one keeps the process going. */
#include "programs/truth.h"

#include <pthread.h>

TRUTH_NOINLINE static void plant(void)
{
    truth_keep(truth_chain(10, 40, TRUTH_HELD, TRUTH_HELD));
    truth_chain(10, 40, TRUTH_DIRECT, TRUTH_INDIRECT);
}

static void *survivor(void *leader)
{
    pthread_join(*(pthread_t *)leader, NULL);
    plant();
    truth_ready();
    return NULL;
}

static pthread_t leader_thread;

int main(void)
{
    pthread_t thread;
    truth_begin();
    plant();
    leader_thread = pthread_self();
    if (pthread_create(&thread, NULL, survivor, &leader_thread))
        truth_fail("pthread_create");
    pthread_exit(NULL);
}
