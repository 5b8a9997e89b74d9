/* Cores that are odd, damaged or forged: what is in them is made here, so the truth is known. */
#include "target/backend.h"
#include "unit/tap.h"
#include "unit/target_elf.h"

#define RW (PF_R | PF_W)

static unsigned char page_a[4096], page_b[8192];
static const uint64_t auxv[] = {AT_PAGESZ,       4096,     AT_PHDR, 0x400040, AT_RANDOM, 0x7ff010,
                                AT_SYSINFO_EHDR, 0x7f0000, AT_NULL, 0};

/* A plain one to start from: executable, data, heap, stack, vdso. */
static void plain_core(struct elf_core *core)
{
    static const struct elf_file files[] = {
        {0x400000, 0x402000, 0, "/bin/program"},
        {0x402000, 0x404000, 2, "/bin/program"},
    };
    memset(core, 0, sizeof *core);
    memset(page_a, 'a', sizeof page_a);
    memset(page_b, 'b', sizeof page_b);
    elf_thread(core, 77, 11, 0x7ff000);
    elf_process(core, 77, "program");
    elf_note(core, "CORE", NT_AUXV, auxv, sizeof auxv);
    elf_files(core, files, 2);
    elf_segment(core, 0x400000, 0x2000, PF_R | PF_X, page_a, 4096);
    elf_segment(core, 0x402000, 0x2000, RW, page_b, 8192);
    elf_segment(core, 0x500000, 0x3000, RW, page_b, 8192);
    elf_segment(core, 0x600000, 0x10000, 0, NULL, 0);
    elf_segment(core, 0x7f0000, 0x1000, PF_R | PF_X, page_a, 4096);
    elf_segment(core, 0x7fe000, 0x2000, RW, page_b, 8192);
}

static enum hi_code open_bytes(const unsigned char *bytes, size_t count, struct target **target,
                               struct hi_err *err)
{
    char path[64];
    int fd = elf_publish(bytes, count, path);
    *err = (struct hi_err){0};
    enum hi_code code = target_open_core(target, path, NULL, err);
    close(fd);
    return code;
}

static struct target *open_made(struct elf_core *core)
{
    size_t bytes;
    struct target *target;
    struct hi_err err;
    unsigned char *file = elf_make(core, &bytes);
    enum hi_code code = open_bytes(file, bytes, &target, &err);
    if (!ok(code == HI_OK, "opens"))
        printf("#   %s\n", err.message);
    free(file);
    return target;
}

static bool has_note(const struct target *target, const char *text)
{
    for (size_t i = 0; i < target_note_count(target); i++)
        if (strstr(target_note(target, i), text))
            return true;
    return false;
}

static int read_byte(struct target *target, hi_addr address)
{
    unsigned char byte;
    return target_read(target, address, &byte, 1, NULL) == HI_OK ? byte : -1;
}

static void test_plain(void)
{
    struct elf_core core;
    plain_core(&core);
    struct target *target = open_made(&core);
    ok(target_complete(target) && target_note_count(target) == 0, "plain: complete");
    is_u64((uint64_t)target_pid(target), 77, "pid");
    is_text(target_executable(target), "/bin/program", "executable");
    is_text(target_thread(target, 0)->name, "program", "name of the main thread");
    ok(target_thread(target, 0)->is_crashed && target_thread(target, 0)->signal == 11, "crashed");
    is_text(target_mapping_at(target, 0x7ff010)->path, "[stack]", "the stack");
    is_text(target_mapping_at(target, 0x7f0000)->path, "[vdso]", "the vdso");
    is_u64(target_mapping_at(target, 0x402000)->file_offset, 8192, "offset in the file");
    ok(read_byte(target, 0x401000) == -1, "text that was left out faults without a source");
    ok(target_missing_bytes(target) == 0, "but is not missing");
    ok(read_byte(target, 0x502000) == 0 && read_byte(target, 0x501fff) == 'b',
       "behind p_filesz anonymous memory is zeros");
    ok(read_byte(target, 0x60ffff) == 0, "PROT_NONE is zeros");
    target_close(target);
}

static void test_overlap(void)
{
    struct elf_core core;
    plain_core(&core);
    elf_segment(&core, 0x4ff000, 0x2000, RW, page_a, 4096);
    elf_segment(&core, 0x501000, 0x1000, RW, page_a, 4096);
    struct target *target = open_made(&core);
    ok(has_note(target, "2 segments overlap") && !target_complete(target), "overlaps are told");
    ok(read_byte(target, 0x4ff000) == 'a' && read_byte(target, 0x500000) == 0,
       "what starts first has the bytes");
    ok(read_byte(target, 0x501000) == 'b', "and the other what is left");
    target_close(target);
}

static void test_wrapping(void)
{
    struct elf_core core;
    plain_core(&core);
    elf_segment(&core, UINT64_MAX - 8191, 0x100000, RW, page_b, 8192);
    elf_segment(&core, 0x900000, 4096, RW, page_b, 8192);
    struct target *target = open_made(&core);
    ok(has_note(target, "2 segments"), "senseless sizes are told");
    ok(read_byte(target, UINT64_MAX - 4096) == 'b', "cut at the end of the address space");
    unsigned char two[2];
    ok(target_read(target, UINT64_MAX - 1, two, 2, NULL) == HI_FAULT, "no read wraps around");
    ok(read_byte(target, 0x901fff) == 'b', "the larger of two sizes is taken");
    target_close(target);
}

static void test_far_offsets(void)
{
    struct elf_core core;
    plain_core(&core);
    elf_segment(&core, 0x900000, 4096, RW, NULL, 0);
    elf_segment(&core, 0xa00000, 4096, RW, NULL, 0);
    size_t bytes;
    unsigned char *file = elf_make(&core, &bytes);
    Elf64_Phdr *table = (Elf64_Phdr *)(void *)(file + sizeof(Elf64_Ehdr));
    table[7].p_offset = UINT64_MAX - 100;
    table[7].p_filesz = 4096;
    table[8].p_offset = bytes + 1000000;
    table[8].p_filesz = 1ULL << 50;
    table[8].p_memsz = 1ULL << 50;
    struct target *target;
    struct hi_err err;
    ok(open_bytes(file, bytes, &target, &err) == HI_OK, "offsets beyond the file");
    is_u64(target_missing_bytes(target), 4096 + (1ULL << 50), "are missing memory, counted");
    ok(read_byte(target, 0x900000) == -1 && read_byte(target, 0xa00000) == -1, "and fault");
    ok(read_byte(target, 0x500000) == 'b', "while the others read on");
    target_close(target);
    free(file);
}

static void test_note_damage(void)
{
    struct elf_core core;
    plain_core(&core);
    static const uint64_t many[] = {1ULL << 60, 4096, 0x400000, 0x402000, 0};
    elf_note(&core, "CORE", NT_FILE, many, sizeof many);
    elf_note(&core, "CORE", NT_FILE, many, 8);
    elf_note(&core, "CORE", NT_PRSTATUS, many, 16);
    elf_note(&core, "OTHER", NT_PRSTATUS, many, 16);
    struct target *target = open_made(&core);
    ok(has_note(target, "notes make no sense") && !target_complete(target), "bad notes are told");
    is_u64(target_thread_count(target), 1, "and add no thread");
    target_close(target);
    plain_core(&core);
    size_t bytes;
    unsigned char *file = elf_make(&core, &bytes);
    Elf64_Nhdr *first = (Elf64_Nhdr *)(void *)(file + sizeof(Elf64_Ehdr) + 7 * sizeof(Elf64_Phdr));
    first->n_descsz = UINT32_MAX;
    struct hi_err err;
    ok(open_bytes(file, bytes, &target, &err) == HI_OK && has_note(target, "are cut off"),
       "a note that is longer than all of them");
    ok(has_note(target, "names no threads"), "no threads: said");
    target_close(target);
    free(file);
}

static void test_filtered_and_shared(void)
{
    static const struct elf_file files[] = {{0x500000, 0x501000, 0, "/dev/zero (deleted)"},
                                            {0x600000, 0x601000, 0, "/usr/lib/x.so (deleted)"},
                                            {0x700000, 0x702000, 5, "/usr/lib/absent.so"}};
    struct elf_core core = {0};
    elf_thread(&core, 1, 6, 0x800800);
    elf_files(&core, files, 3);
    elf_segment(&core, 0x400000, 0x4000, RW, NULL, 0);
    elf_segment(&core, 0x500000, 0x1000, RW, NULL, 0);
    elf_segment(&core, 0x600000, 0x1000, PF_R | PF_X, NULL, 0);
    elf_segment(&core, 0x701000, 0x1000, RW, page_b, 4096);
    elf_segment(&core, 0x800000, 0x1000, RW, NULL, 0);
    struct target *target = open_made(&core);
    ok(has_note(target, "without anonymous memory"), "an empty stack: memory was filtered");
    is_u64(target_missing_bytes(target), 0x4000 + 0x1000 + 0x1000,
           "anonymous and shared memory are missing, a library is not");
    const struct mapping *text = target_mapping_at(target, 0x700000);
    ok(text && text->end == 0x701000 && !text->dumped && text->file_offset == 5 * 4096,
       "what has no segment is known by its file");
    ok(target_mapping_at(target, 0x701000)->file_offset == 6 * 4096, "the rest has its offset");
    target_close(target);
}

static void test_stack_not_there(void)
{
    struct elf_core core;
    plain_core(&core);
    elf_thread(&core, 78, 0, 0x12345678);
    struct target *target = open_made(&core);
    ok(has_note(target, "the stacks of 1 threads are not in the core") && !target_complete(target),
       "a stack without a segment");
    target_close(target);
}

/* More segments than the header can count: the number is in section header 0. */
static void test_many_segments(void)
{
    enum { COUNT = 70000 };
    size_t table_at = 4096, data_at = table_at + (COUNT + 1) * sizeof(Elf64_Phdr);
    size_t bytes = data_at + COUNT * 8ULL;
    unsigned char *file = calloc(1, bytes);
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_CORE,
                         .e_machine = EM_X86_64,
                         .e_phoff = table_at,
                         .e_shoff = 1024,
                         .e_phentsize = sizeof(Elf64_Phdr),
                         .e_shentsize = sizeof(Elf64_Shdr),
                         .e_phnum = PN_XNUM};
    Elf64_Shdr section = {.sh_info = COUNT};
    Elf64_Phdr *table = (Elf64_Phdr *)(void *)(file + table_at);
    memcpy(file, &header, sizeof header);
    memcpy(file + 1024, &section, sizeof section);
    for (size_t i = 0; i < COUNT; i++) {
        uint64_t value = i * 7;
        /* in falling order, to be sorted */
        table[i] = (Elf64_Phdr){.p_type = PT_LOAD,
                                .p_flags = RW,
                                .p_vaddr = (COUNT - i) * 8192ULL,
                                .p_memsz = 4096,
                                .p_filesz = 8,
                                .p_offset = data_at + i * 8};
        memcpy(file + data_at + i * 8, &value, 8);
    }
    struct target *target;
    struct hi_err err;
    ok(open_bytes(file, bytes, &target, &err) == HI_OK, "70,000 segments");
    is_u64(target_mapping_count(target), COUNT, "all of them");
    size_t right = 0;
    for (size_t i = 0; i < COUNT; i++) {
        uint64_t value;
        right +=
            target_read_u64(target, (COUNT - i) * 8192ULL, &value, NULL) == HI_OK && value == i * 7;
    }
    is_u64(right, COUNT, "each with its bytes");
    target_close(target);
    /* the table says more than there is room for */
    section.sh_info = UINT32_MAX;
    memcpy(file + 1024, &section, sizeof section);
    ok(open_bytes(file, data_at, &target, &err) == HI_OK && !target_complete(target) &&
           has_note(target, "truncated"),
       "a count beyond the end of the file");
    target_close(target);
    free(file);
}

static void test_nothing_in_it(void)
{
    struct elf_core core = {0};
    size_t bytes;
    struct target *target;
    struct hi_err err;
    unsigned char *file = elf_make(&core, &bytes);
    ok(open_bytes(file, bytes, &target, &err) == HI_BAD_INPUT && !target &&
           strstr(err.message, "without any memory"),
       "a core without memory");
    Elf64_Ehdr *header = (Elf64_Ehdr *)(void *)file;
    header->e_phoff = UINT64_MAX - 3;
    ok(open_bytes(file, bytes, &target, &err) == HI_BAD_INPUT && strstr(err.message, "is cut off"),
       "a table of segments nowhere");
    free(file);
}

int main(void)
{
    test_plain();
    test_overlap();
    test_wrapping();
    test_far_offsets();
    test_note_damage();
    test_filtered_and_shared();
    test_stack_not_there();
    test_many_segments();
    test_nothing_in_it();
    return done();
}
