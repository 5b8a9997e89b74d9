/* terminal: what the place that we write to can show. */
#ifndef REPORT_TERMINAL_H
#define REPORT_TERMINAL_H

#include <stdbool.h>

struct terminal {
    bool is_terminal;
    bool has_colour; /* a terminal that is not dumb, and no NO_COLOR */
    unsigned columns, rows;
};

/* COLUMNS and LINES count where there is no terminal to ask; else 80 x 24. */
struct terminal terminal_look(int descriptor);

#endif
