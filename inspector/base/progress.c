/* Signs of life; see progress.h. */
#include "base/progress.h"

bool progress_stopped(const struct progress *p)
{
    return p && p->stop && *p->stop;
}

bool progress_step(const struct progress *p, const char *phase, uint64_t done, uint64_t total)
{
    if (p && p->report)
        p->report(p->context, phase, done, total);
    return !progress_stopped(p);
}
