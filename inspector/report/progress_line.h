/* progress_line: signs of life on standard error, for work that takes longer than a second. */
#ifndef REPORT_PROGRESS_LINE_H
#define REPORT_PROGRESS_LINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct progress_line {
    bool on, is_terminal;
    double started;           /* seconds of the monotonic clock */
    _Atomic uint64_t next_ms; /* nothing is printed before; one thread wins each turn */
    _Atomic bool printed;
};

void progress_line_start(struct progress_line *line, bool on, bool is_terminal);
/* struct progress.report; context is the struct progress_line. Any thread. */
void progress_line_report(void *context, const char *phase, uint64_t done, uint64_t total);
/* Take the line away. */
void progress_line_end(struct progress_line *line);

#endif
