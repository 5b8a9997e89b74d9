/* One word of each place that whatis knows, all holding the same block; prints where they are. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *volatile place_in_data;
static __thread void *volatile place_in_tls;

__attribute__((noinline)) static void stand_still(void *block, void *volatile *mapping)
{
    void *volatile place_on_stack = block;
    mapping[5] = block;
    place_in_tls = block;
    place_in_data = block;
    printf("block %p\ndata %p\ntls %p\nstack %p\nmapping %p\n", block, (void *)&place_in_data,
           (void *)&place_in_tls, (void *)&place_on_stack, (void *)&mapping[5]);
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    for (;;)
        pause();
}

__attribute__((noinline)) static void *thread_main(void *mapping)
{
    void *volatile *holder = malloc(200);
    holder[3] = malloc(300);
    printf("holder %p\n", (void *)holder);
    stand_still(holder[3], mapping);
    return (void *)holder;
}

int main(void)
{
    pthread_t thread;
    void *mapping = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED || pthread_create(&thread, NULL, thread_main, mapping) != 0)
        return 1;
    pthread_join(thread, NULL);
    return 0;
}
