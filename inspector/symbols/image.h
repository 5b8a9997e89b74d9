/*
 * image: the bytes of one ELF file (x86-64), and a bounded reader of its tables.
 *
 * Nothing in it is believed: each look at the bytes goes through image_slice(), which knows the
 * size. Counts are bounded by the bytes that would hold them. Only a file's own content is looked
 * at here; whether it is the target's file is module_files.c's question.
 */
#ifndef SYMBOLS_IMAGE_H
#define SYMBOLS_IMAGE_H

#include "base/error.h"

#include <elf.h>

enum { IMAGE_MAX_HEADERS = 512, BUILD_ID_MAX_BYTES = 32 };

enum image_storage { IMAGE_NONE, IMAGE_MAPPED, IMAGE_OWNED };

struct image {
    const unsigned char *bytes; /* NULL: none */
    size_t size;
    enum image_storage storage;
    char *path; /* of the file on this machine; NULL: from memory */
    uint64_t device, inode;
};

/* Map an open file; fd stays the caller's. HI_BAD_INPUT: not an ELF file of this machine. */
HI_MUST_USE enum hi_code image_open_fd(struct image *image, int fd, const char *path,
                                       struct hi_err *err);
HI_MUST_USE enum hi_code image_open_path(struct image *image, const char *path, struct hi_err *err);
/* Takes over bytes (malloc), also on failure. */
HI_MUST_USE enum hi_code image_open_memory(struct image *image, void *bytes, size_t size,
                                           struct hi_err *err);
void image_close(struct image *image);

/* Is this the header of an x86-64 ELF file whose program headers we can take apart? */
bool image_header_is_usable(const Elf64_Ehdr *header);

/* size bytes at offset, or NULL when the file is shorter. */
const void *image_slice(const struct image *image, uint64_t offset, uint64_t bytes);
bool image_header(const struct image *image, Elf64_Ehdr *header);
/* Program headers copied to headers (room for IMAGE_MAX_HEADERS); their number. */
size_t image_program_headers(const struct image *image, Elf64_Phdr *headers);
/* Bytes that the program headers load at vaddr, or NULL. */
const void *image_at_vaddr(const struct image *image, uint64_t vaddr, uint64_t bytes);

/* A section by name, or (name NULL) the first of a type. */
bool image_section(const struct image *image, const char *name, uint32_t type, Elf64_Shdr *section);
bool image_section_at(const struct image *image, size_t index, Elf64_Shdr *section);
/* Its bytes; NULL for SHT_NOBITS or out of bounds. */
const void *image_section_bytes(const struct image *image, const Elf64_Shdr *section);

/* Build-id bytes (0: none) into id. */
size_t image_build_id(const struct image *image, unsigned char *id);
/* The same out of the raw content of a note segment. */
size_t notes_build_id(const void *notes, size_t bytes, unsigned char *id);

#endif
