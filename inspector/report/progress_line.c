/* One line, rewritten at most five times a second on a terminal, once a second elsewhere. */
#include "report/progress_line.h"

#include <inttypes.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_MS = 1000, TERMINAL_MS = 200, FILE_MS = 1000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void progress_line_start(struct progress_line *line, bool on, bool is_terminal)
{
    line->on = on;
    line->is_terminal = is_terminal;
    line->started = now();
    atomic_store(&line->next_ms, FIRST_MS);
    atomic_store(&line->printed, false);
}

void progress_line_report(void *context, const char *phase, uint64_t done, uint64_t total)
{
    struct progress_line *line = context;
    if (!line->on)
        return;
    double seconds = now() - line->started;
    uint64_t next = atomic_load_explicit(&line->next_ms, memory_order_relaxed);
    uint64_t wanted = (uint64_t)(seconds * 1000) + (line->is_terminal ? TERMINAL_MS : FILE_MS);
    if (seconds * 1000 < (double)next ||
        !atomic_compare_exchange_strong(&line->next_ms, &next, wanted))
        return;
    char text[160], percent[32] = "";
    if (total)
        snprintf(percent, sizeof percent, " %.0f%%",
                 100.0 * (double)(done < total ? done : total) / (double)total);
    int length = snprintf(text, sizeof text, "%sheapinspect: %s%s, %.0f s%s",
                          line->is_terminal ? "\r\033[K" : "", phase, percent, seconds,
                          line->is_terminal ? "" : "\n");
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) > 0)
        atomic_store(&line->printed, true);
}

void progress_line_end(struct progress_line *line)
{
    static const char erase[] = "\r\033[K";
    line->on = false;
    if (atomic_load(&line->printed) && line->is_terminal &&
        write(STDERR_FILENO, erase, sizeof erase - 1) < 0)
        return;
}
