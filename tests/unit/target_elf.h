/* Cores made in a test: any header, any note, also ones that no kernel would write. */
#ifndef TESTS_UNIT_TARGET_ELF_H
#define TESTS_UNIT_TARGET_ELF_H

#include <elf.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ELF_SEGMENTS = 32, ELF_NOTE_BYTES = 8192 };

struct elf_core {
    Elf64_Phdr segments[ELF_SEGMENTS];
    const void *contents[ELF_SEGMENTS];
    size_t segment_count;
    unsigned char notes[ELF_NOTE_BYTES];
    size_t note_bytes;
};

/* file_bytes of bytes (NULL: zeros) are in the file. */
static inline Elf64_Phdr *elf_segment(struct elf_core *core, uint64_t address,
                                      uint64_t memory_bytes, unsigned flags, const void *bytes,
                                      uint64_t file_bytes)
{
    core->contents[core->segment_count] = bytes;
    Elf64_Phdr *segment = &core->segments[core->segment_count++];
    *segment = (Elf64_Phdr){.p_type = PT_LOAD,
                            .p_flags = flags,
                            .p_vaddr = address,
                            .p_filesz = file_bytes,
                            .p_memsz = memory_bytes,
                            .p_align = 4096};
    return segment;
}

static inline void elf_note(struct elf_core *core, const char *name, unsigned type,
                            const void *bytes, size_t count)
{
    Elf64_Nhdr header = {(Elf64_Word)strlen(name) + 1, (Elf64_Word)count, type};
    unsigned char *at = core->notes + core->note_bytes;
    size_t name_bytes = (header.n_namesz + 3) & ~3U, padded = (count + 3) & ~(size_t)3;
    if (core->note_bytes + sizeof header + name_bytes + padded > ELF_NOTE_BYTES)
        abort();
    memcpy(at, &header, sizeof header);
    memcpy(at + sizeof header, name, header.n_namesz);
    memcpy(at + sizeof header + name_bytes, bytes, count);
    core->note_bytes += sizeof header + name_bytes + padded;
}

static inline void elf_thread(struct elf_core *core, uint32_t tid, uint16_t signal, uint64_t sp)
{
    unsigned char status[336] = {0};
    uint64_t fs_base = 0x7000;
    memcpy(status + 12, &signal, 2);
    memcpy(status + 32, &tid, 4);
    memcpy(status + 112 + 19 * 8, &sp, 8);
    memcpy(status + 112 + 21 * 8, &fs_base, 8);
    elf_note(core, "CORE", NT_PRSTATUS, status, sizeof status);
}

static inline void elf_process(struct elf_core *core, uint32_t pid, const char *command)
{
    unsigned char info[136] = {0};
    memcpy(info + 24, &pid, 4);
    snprintf((char *)info + 40, 16, "%s", command);
    elf_note(core, "CORE", NT_PRPSINFO, info, sizeof info);
}

struct elf_file {
    uint64_t start, end, page;
    const char *path;
};

static inline void elf_files(struct elf_core *core, const struct elf_file *files, size_t count)
{
    unsigned char note[4096];
    uint64_t head[2] = {count, 4096};
    size_t at = sizeof head;
    memcpy(note, head, sizeof head);
    for (size_t i = 0; i < count; i++, at += 24)
        memcpy(note + at, &files[i], 24);
    for (size_t i = 0; i < count; at += strlen(files[i++].path) + 1)
        memcpy(note + at, files[i].path, strlen(files[i].path) + 1);
    elf_note(core, "CORE", NT_FILE, note, at);
}

static inline size_t elf_page_up(size_t bytes)
{
    return (bytes + 4095) & ~(size_t)4095;
}

/* The file, malloced. Offsets of segments are filled in where they are 0. */
static inline unsigned char *elf_make(struct elf_core *core, size_t *bytes)
{
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_CORE,
                         .e_machine = EM_X86_64,
                         .e_version = EV_CURRENT,
                         .e_phoff = sizeof header,
                         .e_ehsize = sizeof header,
                         .e_phentsize = sizeof(Elf64_Phdr),
                         .e_phnum = (Elf64_Half)(core->segment_count + 1)};
    size_t table = sizeof header + header.e_phnum * sizeof(Elf64_Phdr);
    size_t at = elf_page_up(table + core->note_bytes);
    Elf64_Phdr note = {.p_type = PT_NOTE, .p_offset = table, .p_filesz = core->note_bytes};
    for (size_t i = 0; i < core->segment_count; i++)
        if (!core->segments[i].p_offset) {
            core->segments[i].p_offset = at;
            at += elf_page_up(core->segments[i].p_filesz);
        }
    unsigned char *file = calloc(1, at);
    memcpy(file, &header, sizeof header);
    memcpy(file + sizeof header, &note, sizeof note);
    memcpy(file + sizeof header + sizeof note, core->segments,
           core->segment_count * sizeof *core->segments);
    memcpy(file + table, core->notes, core->note_bytes);
    for (size_t i = 0; i < core->segment_count; i++)
        if (core->contents[i])
            memcpy(file + core->segments[i].p_offset, core->contents[i],
                   core->segments[i].p_filesz);
    *bytes = at;
    return file;
}

/* bytes as a file without a name: its path, and the descriptor to close. */
static inline int elf_publish(const unsigned char *bytes, size_t count, char path[64])
{
    int fd = memfd_create("core", MFD_CLOEXEC);
    if (fd < 0 || pwrite(fd, bytes, count, 0) != (ssize_t)count)
        abort();
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

#endif
