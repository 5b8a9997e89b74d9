/* Compressed files (zstd, lz4, xz, gzip), unpacked into a file without a name. */
#ifndef TARGET_UNPACK_H
#define TARGET_UNPACK_H

#include "base/error.h"
#include "base/progress.h"

enum packing { PACKING_NONE, PACKING_ZSTD, PACKING_LZ4, PACKING_XZ, PACKING_GZIP };

const char *packing_name(enum packing packing);
/* By the first bytes, never by the name. */
enum packing packing_detect(const void *bytes, size_t count);

struct unpacked {
    int fd; /* sparse, without a name; the caller closes it */
    uint64_t bytes;
    bool is_cut;     /* the input ended too early */
    bool is_damaged; /* the input makes no sense from some point on */
    uint64_t input_bytes;
};

/* How many bytes are wanted in all, given the first ones: so that we need not take more than a
 * core has. Returns false, with err filled, when it is none of ours. */
typedef bool (*unpack_check)(const void *head, size_t bytes, uint64_t *wanted, struct hi_err *err);

/* Unpacks all of fd from its start; what could be had of a cut or damaged input is in *result.
 * PACKING_NONE copies: for what can be read but not mapped (a pipe). name is for messages. */
HI_MUST_USE enum hi_code unpack_file(int fd, enum packing packing, const char *name,
                                     unpack_check check, const struct progress *progress,
                                     struct unpacked *result, struct hi_err *err);

#endif
