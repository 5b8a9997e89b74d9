/*
 * warm: memory that is touched before it is needed.
 *
 * A page's first touch costs more than what is then done with it: 10 million blocks took 11,000
 * page faults, a third of them while the target stood still, most by one thread while others
 * waited. So what will be needed is touched beforehand, by all threads, and as huge pages where it
 * can be: tables that are asked all over then also miss no address.
 */
#ifndef BASE_WARM_H
#define BASE_WARM_H

#include <stdint.h>

enum { WARM_STEP_BYTES = 4 << 20 };

/* Touch memory of mmap, whole steps of it. */
void warm_touch(void *memory, uint64_t bytes, int jobs);
/* Let malloc have about so many bytes that are touched, and keep what is freed from now on. */
void warm_malloc(uint64_t bytes, int jobs);

#endif
