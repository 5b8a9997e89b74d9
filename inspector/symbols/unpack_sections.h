/*
 * unpack_sections: debug sections that the linker or objcopy packed (zlib, zstd, and the old
 * .zdebug form), unpacked into a small ELF file in memory that has nothing but what names need.
 */
#ifndef SYMBOLS_UNPACK_SECTIONS_H
#define SYMBOLS_UNPACK_SECTIONS_H

#include "symbols/image.h"

bool sections_are_packed(const struct image *image);
/* false: nothing of use, or no memory; *unpacked is empty then. */
bool sections_unpack(const struct image *image, struct image *unpacked);

#endif
