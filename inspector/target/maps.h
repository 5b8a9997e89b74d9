/* The text of /proc/PID/maps into mappings. */
#ifndef TARGET_MAPS_H
#define TARGET_MAPS_H

#include "target/target.h"

/* Push a mapping for each line of text (a malloced text, changed by this). Lines that make no sense
 * are counted in *bad. */
HI_MUST_USE enum hi_code maps_parse(struct target *target, char *text, size_t *bad,
                                    struct hi_err *err);

#endif
