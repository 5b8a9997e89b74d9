/* Which pages of a live process have content: PAGEMAP_SCAN, or /proc/PID/pagemap before Linux 6.7.
 */
#ifndef TARGET_CONTENT_H
#define TARGET_CONTENT_H

#include "base/error.h"

/* Up to capacity page ranges in [from, end), whole pages. pagemap is a descriptor of
 * /proc/PID/pagemap. False: it can't be told, take all. */
bool content_scan(int pagemap, hi_addr from, hi_addr end, unsigned page_bytes,
                  struct hi_range *ranges, size_t capacity, size_t *count);
/* The two ways one by one, for tests. */
bool content_by_ioctl(int pagemap, hi_addr from, hi_addr end, struct hi_range *ranges,
                      size_t capacity, size_t *count);
bool content_by_pagemap(int pagemap, hi_addr from, hi_addr end, unsigned page_bytes,
                        struct hi_range *ranges, size_t capacity, size_t *count);

#endif
