/* Reading the symbol table of a fixed-address executable: the bounds of section himalloc_text and
 * the functions in it. The file is our own build, so it is believed. */
#include "step/text.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char text_section[] = "himalloc_text";

static int function_order(const void *a, const void *b)
{
    const struct text_function *x = a, *y = b;
    return x->address < y->address ? -1 : x->address > y->address;
}

static const Elf64_Shdr *section_find(const char *file, const char *name, uint32_t type)
{
    const Elf64_Ehdr *header = (const void *)file;
    const Elf64_Shdr *sections = (const void *)(file + header->e_shoff);
    const char *names = file + sections[header->e_shstrndx].sh_offset;
    for (unsigned i = 0; i < header->e_shnum; i++)
        if (sections[i].sh_type == type && strcmp(names + sections[i].sh_name, name) == 0)
            return &sections[i];
    return NULL;
}

static bool functions_collect(struct text *text, const char *file)
{
    const Elf64_Shdr *table = section_find(file, ".symtab", SHT_SYMTAB);
    const Elf64_Shdr *strings = section_find(file, ".strtab", SHT_STRTAB);
    if (!table || !strings)
        return false;
    size_t count = table->sh_size / sizeof(Elf64_Sym);
    const Elf64_Sym *symbols = (const void *)(file + table->sh_offset);
    text->functions = calloc(count, sizeof *text->functions);
    for (size_t i = 0; text->functions && i < count; i++) {
        if (ELF64_ST_TYPE(symbols[i].st_info) != STT_FUNC || symbols[i].st_value < text->start ||
            symbols[i].st_value >= text->end)
            continue;
        struct text_function *function = &text->functions[text->count++];
        function->address = symbols[i].st_value;
        function->size = symbols[i].st_size;
        snprintf(function->name, sizeof function->name, "%s",
                 file + strings->sh_offset + symbols[i].st_name);
    }
    if (text->count)
        qsort(text->functions, text->count, sizeof *text->functions, function_order);
    return text->count > 0;
}

enum hi_code text_read(struct text *text, const char *path, struct hi_err *err)
{
    struct stat status;
    *text = (struct text){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        return hi_fail(err, HI_SYSTEM, "%s can't be read", path);
    char *file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (file == MAP_FAILED)
        return hi_fail(err, HI_SYSTEM, "%s can't be mapped", path);
    const Elf64_Shdr *section = section_find(file, text_section, SHT_PROGBITS);
    bool found = section != NULL && ((const Elf64_Ehdr *)(const void *)file)->e_type == ET_EXEC;
    if (found) {
        text->start = section->sh_addr;
        text->end = section->sh_addr + section->sh_size;
        found = functions_collect(text, file);
    }
    munmap(file, (size_t)status.st_size);
    return found ? HI_OK
                 : hi_fail(err, HI_BAD_INPUT, "%s: no section %s, or not linked at a fixed address",
                           path, text_section);
}

void text_free(struct text *text)
{
    free(text->functions);
    *text = (struct text){0};
}
