/* eh_frame_section: where .eh_frame is in an executable that does not say it in its segments. */
#ifndef HIMALLOC_EH_FRAME_SECTION_H
#define HIMALLOC_EH_FRAME_SECTION_H

#include <stdbool.h>
#include <stdint.h>

/* Its address in the executable of this process, at the bias; 0: there is none, or no telling. */
uintptr_t eh_frame_section(uintptr_t bias);

#endif
