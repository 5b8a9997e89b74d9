/*
 * eh_frame_section: where .eh_frame is in an executable that does not say it in its segments.
 *
 * Static executables that are not position-independent are linked without .eh_frame_hdr: their C
 * library expects to be told of the tables by start-up code, which tells nobody else. The section
 * headers of the file name the section, also when it is stripped. They are read once, by bare
 * system calls, with every number held against the file's size.
 */
#define _GNU_SOURCE
#include "eh_frame_section.h"

#include "pages.h"

#include <elf.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>

enum { SECTIONS_MAX = 4096 };
static const char wanted[] = ".eh_frame";

static bool read_at(long fd, uint64_t offset, void *bytes, size_t count)
{
    return pages_syscall(SYS_pread64, fd, (long)bytes, (long)count, (long)offset, 0, 0) ==
           (long)count;
}

static bool section_at(long fd, const Elf64_Ehdr *header, uint32_t index, Elf64_Shdr *section)
{
    return read_at(fd, header->e_shoff + (uint64_t)index * sizeof *section, section,
                   sizeof *section);
}

static uintptr_t section_find(long fd)
{
    Elf64_Ehdr header;
    Elf64_Shdr names, section;
    char name[sizeof wanted];
    if (!read_at(fd, 0, &header, sizeof header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_shentsize != sizeof section || header.e_shnum > SECTIONS_MAX ||
        !section_at(fd, &header, header.e_shstrndx, &names))
        return 0;
    for (uint32_t i = 0; i < header.e_shnum; i++)
        if (section_at(fd, &header, i, &section) && (section.sh_flags & SHF_ALLOC) &&
            read_at(fd, names.sh_offset + section.sh_name, name, sizeof name) &&
            memcmp(name, wanted, sizeof name) == 0)
            return section.sh_addr;
    return 0;
}

uintptr_t eh_frame_section(uintptr_t bias)
{
    static uintptr_t found; /* 1: none */
    uintptr_t at = __atomic_load_n(&found, __ATOMIC_RELAXED);
    if (at == 0) {
        long fd = pages_syscall(SYS_openat, AT_FDCWD, (long)"/proc/self/exe", O_RDONLY | O_CLOEXEC,
                                0, 0, 0);
        at = fd >= 0 ? section_find(fd) : 0;
        at = at ? at : 1;
        if (fd >= 0)
            pages_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
        __atomic_store_n(&found, at, __ATOMIC_RELAXED);
    }
    return at > 1 ? at + bias : 0;
}
