/*
 * cfi_compare FILE < what `readelf --debug-dump=frames-interp FILE` printed
 *
 * Each row that readelf found, looked up by the allocator's parser through the search table of the
 * file, as it lies in memory: function, CFA and registers. Prints "rows N equal N functions N" and
 * the first rows that differ.
 */
#define _GNU_SOURCE
#include "allocator/cfi_program.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHOWN_MAX = 10, COLUMNS_MAX = 40, WORD_MAX = 24 };

static const char *const names[CFI_REGISTERS] = {"rax", "rdx", "rcx", "rbx", "rsi", "rdi",
                                                 "rbp", "rsp", "r8",  "r9",  "r10", "r11",
                                                 "r12", "r13", "r14", "r15", "ra"};

struct file {
    struct cfi_image image;
    uint64_t hdr_address;
};

/* The file's segments as they would lie in memory; what lies between is 0. */
static int file_load(const char *path, struct file *file)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) != 0 || status.st_size < (off_t)sizeof(Elf64_Ehdr))
        return 0;
    const char *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)bytes;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(bytes + header->e_phoff);
    uint64_t start = UINT64_MAX, end = 0;
    for (int i = 0; i < header->e_phnum; i++) {
        if (segments[i].p_type == PT_GNU_EH_FRAME)
            file->hdr_address = segments[i].p_vaddr;
        if (segments[i].p_type != PT_LOAD)
            continue;
        start = segments[i].p_vaddr < start ? segments[i].p_vaddr : start;
        if (segments[i].p_vaddr + segments[i].p_memsz > end)
            end = segments[i].p_vaddr + segments[i].p_memsz;
    }
    if (end <= start)
        return 0;
    char *memory =
        mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED || memory == MAP_FAILED)
        return 0;
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD)
            memcpy(memory + (segments[i].p_vaddr - start), bytes + segments[i].p_offset,
                   segments[i].p_filesz);
    file->image = (struct cfi_image){(const uint8_t *)memory, end - start, start};
    close(fd);
    return file->hdr_address != 0;
}

static void rule_text(const struct cfi_rule *rule, char text[WORD_MAX])
{
    switch (rule->kind) {
    case CFI_SAME:
        strncpy(text, "s", WORD_MAX);
        break;
    case CFI_OFFSET:
        snprintf(text, WORD_MAX, "c%+d", rule->value);
        break;
    case CFI_VALUE_OFFSET:
        snprintf(text, WORD_MAX, "v%+d", rule->value);
        break;
    case CFI_REGISTER:
        snprintf(text, WORD_MAX, "%s", rule->value < CFI_REGISTERS ? names[rule->value] : "?");
        break;
    case CFI_EXPRESSION:
        strncpy(text, "exp", WORD_MAX);
        break;
    case CFI_VALUE_EXPRESSION:
        strncpy(text, "vexp", WORD_MAX);
        break;
    default:
        strncpy(text, "u", WORD_MAX);
    }
}

static void cfa_text(const struct cfi_row *row, char text[WORD_MAX])
{
    if (row->cfa.kind == CFI_VALUE_EXPRESSION)
        strncpy(text, "exp", WORD_MAX);
    else
        snprintf(text, WORD_MAX, "%s%+d", names[row->cfa_register], row->cfa.value);
}

/* The rows of readelf of one function. */
struct listing {
    uint64_t start, end;
    char columns[COLUMNS_MAX][WORD_MAX];
    int column_count; /* 0: no heading yet */
};

static int words_split(char *line, char *words[COLUMNS_MAX])
{
    int count = 0;
    for (char *word = strtok_r(line, " \n", &line); word && count < COLUMNS_MAX;
         word = strtok_r(NULL, " \n", &line))
        words[count++] = word;
    return count;
}

static int register_number(const char *name)
{
    for (int i = 0; i < CFI_REGISTERS; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

/* Empty: they agree. */
static void row_compare(const struct file *file, const struct listing *l, uint64_t pc, char **words,
                        char *wrong, size_t wrong_bytes)
{
    struct cfi_fde fde;
    struct cfi_row row;
    char text[WORD_MAX];
    wrong[0] = 0;
    if (!cfi_find(&file->image, file->hdr_address, pc, &fde) ||
        !cfi_row_at(&file->image, &fde, pc, &row)) {
        snprintf(wrong, wrong_bytes, "not found");
        return;
    }
    if (fde.pc_start != l->start || fde.pc_end != l->end) {
        snprintf(wrong, wrong_bytes, "function %lx..%lx", fde.pc_start, fde.pc_end);
        return;
    }
    cfa_text(&row, text);
    if (strcmp(text, words[1]) != 0)
        snprintf(wrong, wrong_bytes, "CFA %s, not %s", text, words[1]);
    for (int i = 2; i < l->column_count && !wrong[0]; i++) {
        int number = register_number(l->columns[i]);
        if (number < 0)
            continue;
        rule_text(&row.rules[number], text);
        if (strcmp(text, words[i]) != 0)
            snprintf(wrong, wrong_bytes, "%s %s, not %s", l->columns[i], text, words[i]);
    }
}

int main(int argc, char **argv)
{
    static char line[4096], copy[4096], wrong[200];
    struct file file = {0};
    struct listing l = {0};
    unsigned long rows = 0, equal = 0, functions = 0;
    char *words[COLUMNS_MAX];
    if (argc != 2 || !file_load(argv[1], &file)) {
        printf("rows 0 equal 0 functions 0\n");
        return 0;
    }
    while (fgets(line, sizeof line, stdin)) {
        char *range = strstr(line, " pc=");
        if (strncmp(line, "Contents of the .debug_frame", 28) == 0)
            break;
        memcpy(copy, line, sizeof copy);
        if (line[0] == '\n' || strstr(line, " CIE ")) {
            l = (struct listing){0};
        } else if (range) {
            l = (struct listing){0};
            functions += sscanf(range, " pc=%lx..%lx", &l.start, &l.end) == 2;
        } else if (l.end) {
            int count = words_split(copy, words);
            if (l.column_count == 0) {
                l.column_count = count;
                for (int i = 0; i < count; i++)
                    snprintf(l.columns[i], WORD_MAX, "%s", words[i]);
                continue;
            }
            if (count != l.column_count)
                continue;
            uint64_t pc = strtoull(words[0], NULL, 16);
            if (pc < l.start || pc >= l.end)
                continue; /* behind the function's last byte */
            rows++;
            row_compare(&file, &l, pc, words, wrong, sizeof wrong);
            equal += !wrong[0];
            if (wrong[0] && rows - equal <= SHOWN_MAX)
                printf("# %s: %s: %s", argv[1], wrong, line);
        }
    }
    printf("rows %lu equal %lu functions %lu\n", rows, equal, functions);
    return 0;
}
