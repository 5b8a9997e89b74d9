/* Size and colours of a terminal; see terminal.h. */
#include "report/terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { LEAST_COLUMNS = 20, LEAST_ROWS = 4, MOST = 1000 };

static unsigned from_environment(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    char *end;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;
    return value && *end == '\0' && value <= MOST ? (unsigned)value : otherwise;
}

struct terminal terminal_look(int descriptor)
{
    struct terminal t = {.is_terminal = isatty(descriptor) == 1};
    struct winsize size = {0};
    const char *no_colour = getenv("NO_COLOR"), *kind = getenv("TERM");
    bool is_dumb = !kind || strcmp(kind, "dumb") == 0;
    t.has_colour = t.is_terminal && !is_dumb && !(no_colour && no_colour[0]);
    bool known = t.is_terminal && ioctl(descriptor, TIOCGWINSZ, &size) == 0;
    t.columns = from_environment("COLUMNS", known && size.ws_col ? size.ws_col : 80);
    t.rows = from_environment("LINES", known && size.ws_row ? size.ws_row : 24);
    t.columns = t.columns < LEAST_COLUMNS ? LEAST_COLUMNS : t.columns > MOST ? MOST : t.columns;
    t.rows = t.rows < LEAST_ROWS ? LEAST_ROWS : t.rows > MOST ? MOST : t.rows;
    return t;
}
