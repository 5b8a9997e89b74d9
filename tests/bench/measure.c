/*
 * Runs a command and says what it took: exit status, seconds by the clock, seconds of processor
 * time, peak resident MiB (the largest of it and what it started). Small and linked statically: a
 * child's peak begins with that of the process it was forked from.
 *
 *     measure [-n TIMES] LIBRARY COMMAND...     LIBRARY is preloaded, "": none
 *
 * TIMES: one after the other, times added up, the largest peak.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static _Noreturn void command_run(char **argv)
{
    int nothing = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++)
        dup2(nothing, i);
    if (argv[0][0])
        setenv("LD_PRELOAD", argv[0], 1);
    execvp(argv[1], argv + 1);
    _exit(127);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    int status = 0;
    long times = 1, peak = 0;
    double processor = 0, begun = now();
    if (argc > 2 && strcmp(argv[1], "-n") == 0) {
        times = strtol(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (argc < 3)
        return 2;
    for (; times > 0 && status == 0; times--) {
        struct rusage used;
        pid_t child = fork();
        if (child == 0)
            command_run(argv + 1);
        if (child < 0 || wait4(child, &status, 0, &used) != child)
            return 2;
        processor += seconds(used.ru_utime) + seconds(used.ru_stime);
        peak = used.ru_maxrss > peak ? used.ru_maxrss : peak;
    }
    printf("%d %.4f %.4f %.2f\n", status, now() - begun, processor, (double)peak / 1024);
    return 0;
}
