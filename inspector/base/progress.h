/*
 * What a long piece of work owes its user: signs of life and an ear for SIGINT.
 *
 * main.c owns the struct and hands it down; the layers call progress_step() every few
 * milliseconds of work (a slab, a 256 KiB buffer), from any thread. Nothing is printed here:
 * `report` does that, and main.c decides whether, when (after a second) and how.
 */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include "base/error.h"

#include <signal.h>

struct progress {
    /* phase: "reading", "marking"; done and total in bytes or items, total 0: unknown */
    void (*report)(void *context, const char *phase, uint64_t done, uint64_t total);
    void *context;
    const volatile sig_atomic_t *stop; /* set by the signal handler; NULL: never */
};

/* Report (p and p->report may be NULL); true: go on, false: the user wants out. */
bool progress_step(const struct progress *p, const char *phase, uint64_t done, uint64_t total);
bool progress_stopped(const struct progress *p);

#endif
