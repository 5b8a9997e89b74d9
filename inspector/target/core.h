/*
 * The parts of the core reader: the file in memory (core_image.c), its headers (core_headers.c),
 * its notes (core_notes.c), what lies where (core_layout.c), and the target made of them (core.c).
 */
#ifndef TARGET_CORE_H
#define TARGET_CORE_H

#include "target/backend.h"

/* The file, whole, mapped; a compressed one is unpacked first. */
struct core_image {
    int fd;
    const unsigned char *bytes;
    uint64_t size;
};
HI_MUST_USE enum hi_code core_image_open(struct core_image *image, struct target *target,
                                         const char *path, const struct progress *progress,
                                         struct hi_err *err);
void core_image_close(struct core_image *image);
/* count bytes at offset lie in the file? */
bool core_image_has(const struct core_image *image, uint64_t offset, uint64_t count);

/* One PT_LOAD, made sane: start < end, file_bytes <= end - start. */
struct core_segment {
    hi_addr start, end;
    uint64_t offset, file_bytes;
    unsigned protection;
};
typedef VECTOR(struct core_segment) core_segments;

struct core_headers {
    core_segments segments;        /* in address order, disjoint */
    VECTOR(struct hi_range) notes; /* file offsets of PT_NOTE */
    size_t overlapping, senseless; /* segments that were cut or dropped */
    bool is_cut;                   /* the table of segments goes beyond the end of the file */
};
/* Is this the start of a core that we can read? Fills err: not ELF, an executable, other machine.
 */
HI_MUST_USE enum hi_code core_headers_check(const void *bytes, uint64_t count, const char *path,
                                            struct hi_err *err);
HI_MUST_USE enum hi_code core_headers_read(struct core_headers *headers,
                                           const struct core_image *image, const char *path,
                                           struct hi_err *err);
void core_headers_free(struct core_headers *headers);

/* One line of NT_FILE. path points into the image. */
struct core_file {
    hi_addr start, end;
    uint64_t offset; /* bytes */
    const char *path;
};

struct core_notes {
    VECTOR(struct core_file) files; /* in address order, disjoint */
    char command[17];               /* NT_PRPSINFO */
    bool is_cut;
    size_t senseless;
};
/* Pushes threads and auxv into target. */
HI_MUST_USE enum hi_code core_notes_read(struct core_notes *notes, struct target *target,
                                         const struct core_image *image,
                                         const struct core_headers *headers, struct hi_err *err);
void core_notes_free(struct core_notes *notes);

enum core_extent_kind {
    EXTENT_DATA,      /* in the file, at offset */
    EXTENT_ZERO,      /* never touched */
    EXTENT_FILE,      /* in the file that the mapping names */
    EXTENT_TRUNCATED, /* behind the end of the core */
    EXTENT_FILTERED,  /* left out by whoever wrote the dump */
};

struct core_extent {
    hi_addr start, end;
    uint64_t offset;
    enum core_extent_kind kind;
};

struct core_layout {
    VECTOR(struct core_extent) extents; /* in address order, disjoint */
    uint64_t truncated_bytes, dumped_bytes;
    bool anonymous_filtered;
};
/* Pushes mappings and missing ranges into target. */
HI_MUST_USE enum hi_code core_layout_make(struct core_layout *layout, struct target *target,
                                          const struct core_image *image,
                                          const struct core_headers *headers,
                                          const struct core_notes *notes, struct hi_err *err);
void core_layout_free(struct core_layout *layout);
/* The extent that holds address, or the first one behind it, or NULL. */
const struct core_extent *core_layout_at(const struct core_layout *layout, hi_addr address);

#endif
