/*
 * Runs a command and says what it took: exit status, seconds by the clock, seconds of processor
 * time, peak resident MiB (the largest of it and what it started). Small and linked statically: a
 * child's peak begins with that of the process it was forked from.
 *
 *     measure [-n TIMES] [-i FILE] [-o FILE] LIBRARY COMMAND...     LIBRARY is preloaded, "": none
 *
 * TIMES: one after the other, times added up, the largest peak. FILE: what it reads, and where what
 * it prints goes (both /dev/null).
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

static const char *input = "/dev/null", *output = "/dev/null";

static _Noreturn void command_run(char **argv)
{
    int from = open(input, O_RDONLY), to = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (from < 0 || to < 0)
        _exit(127);
    dup2(from, 0);
    dup2(to, 1);
    dup2(to, 2);
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
    for (; argc > 2 && argv[1][0] == '-'; argc -= 2, argv += 2) {
        if (strcmp(argv[1], "-n") == 0)
            times = strtol(argv[2], NULL, 10);
        else
            *(argv[1][1] == 'i' ? &input : &output) = argv[2];
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
