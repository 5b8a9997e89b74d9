/* A block held by shared memory of a file that is gone and that the core leaves out: prints its
 * address, dumps core. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
    enum { BYTES = 1 << 20 };
    char name[64];
    snprintf(name, sizeof name, "/dev/shm/shared_gone.%d", (int)getpid());
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || ftruncate(fd, BYTES) != 0)
        return 77;
    unlink(name);
    static void **shared;
    shared = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    FILE *filter = fopen("/proc/self/coredump_filter", "w");
    if (shared == MAP_FAILED || !filter || fprintf(filter, "0x31\n") < 0 || fclose(filter) != 0)
        return 77;
    shared[5] = malloc(100);
    printf("%p\n", shared[5]);
    fflush(stdout);
    abort();
}
