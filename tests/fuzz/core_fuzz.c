/*
 * Damaged cores, without end: a small good core is changed in its headers and notes, or packed and
 * then changed, and everything that a target can be asked is asked. Built with sanitizers; a crash
 * or a run of more than twenty seconds ends it.
 *
 *   core_fuzz [SECONDS [SEED]]     prints how many cores, and the seed
 *   core_fuzz -r FILE              one file
 *
 * With -DLIBFUZZER it has LLVMFuzzerTestOneInput instead of main.
 */
#include "target/backend.h"
#include "unit/target_elf.h"
#include "fuzz.h"

#include <sys/wait.h>
#include <zlib.h>
#include <zstd.h>

enum { MAPPING_LIMIT = 200, RANGE_LIMIT = 50, READ_BYTES = 4096 };

static void use_mapping(struct target *target, const struct mapping *mapping)
{
    unsigned char buffer[READ_BYTES];
    char text[64];
    struct hi_err err;
    size_t bytes = 0;
    uint64_t value;
    (void)!target_read(target, mapping->start, buffer, sizeof buffer, &err);
    (void)!target_read(target, mapping->end - 1, buffer, 2, &err);
    (void)!target_read_u64(target, mapping->end - 8, &value, &err);
    (void)!target_read_string(target, mapping->start + 1, text, sizeof text, &err);
    const unsigned char *view = target_view(target, mapping->start, &bytes);
    if (view && (view[0] != view[bytes - 1] || target_missing_in(target, mapping->start, 1)))
        (void)!target_read_some(target, mapping->start, buffer, 1);
    hi_addr from = mapping->start;
    struct hi_range range;
    for (int i = 0; i < RANGE_LIMIT && target_next_content(target, from, mapping->end, &range);
         i++) {
        if (range.start < from || range.end > mapping->end || range.start >= range.end)
            abort();
        from = range.end;
    }
}

static void check_tables(struct target *target)
{
    for (size_t i = 1; i < target_mapping_count(target); i++)
        if (target_mapping(target, i)->start < target_mapping(target, i - 1)->end)
            abort();
    for (size_t i = 1; i < target->missing.count; i++)
        if (target->missing.items[i].start <= target->missing.items[i - 1].end)
            abort();
    for (size_t i = 0; i < target_note_count(target); i++)
        if (strlen(target_note(target, i)) < 5)
            abort();
    if (!target_complete(target) && target_note_count(target) == 0 && !target->missing.count)
        abort();
}

static void use_target(struct target *target)
{
    unsigned char stack[256];
    check_tables(target);
    size_t count = target_mapping_count(target);
    for (size_t i = 0; i < count && i < MAPPING_LIMIT; i++) {
        const struct mapping *mapping = target_mapping(target, i);
        if (target_mapping_at(target, mapping->start) != mapping ||
            target_mapping_at(target, mapping->end - 1) != mapping)
            abort();
        use_mapping(target, mapping);
    }
    for (size_t i = 0; i < target_thread_count(target) && i < MAPPING_LIMIT; i++)
        (void)!target_read_some(target, target_thread(target, i)->sp, stack, sizeof stack);
}

static void one_core(const unsigned char *bytes, size_t count)
{
    char path[64];
    struct target *target = NULL;
    struct hi_err err = {0};
    int fd = elf_publish(bytes, count, path);
    enum hi_code code = target_open_core(&target, path, NULL, &err);
    if ((code == HI_OK) != (target != NULL) || (code != HI_OK && strlen(err.message) < 5))
        abort();
    if (target)
        use_target(target);
    target_close(target);
    close(fd);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t count);
int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t count)
{
    if (count)
        one_core(bytes, count);
    return 0;
}

#ifndef LIBFUZZER
/* ---- seeds and damage ---- */

static unsigned char *seed_core(size_t *bytes, size_t *head_bytes)
{
    static const struct elf_file files[] = {{0x400000, 0x402000, 0, "/bin/program"},
                                            {0x402000, 0x404000, 2, "/bin/program"},
                                            {0x500000, 0x501000, 0, "/dev/zero (deleted)"}};
    static const uint64_t auxv[] = {AT_PAGESZ, 4096, AT_PHDR, 0x400040, AT_RANDOM, 0x7ff010, 0, 0};
    static unsigned char page[8192], state[2688];
    struct elf_core core = {0};
    memset(page, 'x', sizeof page);
    elf_thread(&core, 77, 11, 0x7ff000);
    elf_process(&core, 77, "program");
    elf_note(&core, "CORE", NT_AUXV, auxv, sizeof auxv);
    elf_files(&core, files, 3);
    elf_note(&core, "LINUX", NT_X86_XSTATE, state, sizeof state);
    elf_thread(&core, 78, 0, 0x7fe800);
    elf_segment(&core, 0x400000, 0x2000, PF_R | PF_X, page, 4096);
    elf_segment(&core, 0x402000, 0x2000, PF_R | PF_W, page, 8192);
    elf_segment(&core, 0x500000, 0x1000, PF_R | PF_W, NULL, 0);
    elf_segment(&core, 0x600000, 0x3000, PF_R | PF_W, page, 8192);
    elf_segment(&core, 0x700000, 0x10000, 0, NULL, 0);
    elf_segment(&core, 0x7fe000, 0x2000, PF_R | PF_W, page, 8192);
    unsigned char *file = elf_make(&core, bytes);
    *head_bytes = sizeof(Elf64_Ehdr) + 7 * sizeof(Elf64_Phdr) + core.note_bytes;
    return file;
}

static uint64_t odd_number(struct random *random)
{
    static const uint64_t odd[] = {0,          1,          0xffff,     0x7fffffff, 0xffffffff,
                                   1ULL << 32, 1ULL << 47, 1ULL << 63, UINT64_MAX, UINT64_MAX - 7,
                                   4096,       0x400000,   0x7ff000};
    uint64_t pick = next(random);
    return pick & 1 ? odd[(pick >> 1) % (sizeof odd / sizeof *odd)] : next(random);
}

static void damage_once(struct random *random, unsigned char *bytes, size_t within)
{
    uint64_t number = odd_number(random), pick = next(random);
    size_t at = (pick >> 8) % within, width = (size_t)1 << (pick & 3);
    if (pick & 16)
        at &= ~(size_t)7;
    if ((pick & 0xe0) == 0) { /* a stretch from elsewhere: doubles and swaps headers */
        size_t from = next(random) % within, count = next(random) % 128;
        count = count < within - from ? count : within - from;
        count = count < within - at ? count : within - at;
        memmove(bytes + at, bytes + from, count);
    } else if (at + width <= within) {
        memcpy(bytes + at, &number, width);
    }
}

/* Packed bytes in *bytes instead of the core. */
static unsigned char *pack(struct random *random, unsigned char *core, size_t *bytes)
{
    uLongf room = compressBound(*bytes) + 1024;
    unsigned char *packed = malloc(room);
    if (next(random) & 1) {
        *bytes = ZSTD_compress(packed, room, core, *bytes, 1);
    } else {
        z_stream stream = {0};
        deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
        stream.next_in = core;
        stream.avail_in = (unsigned)*bytes;
        stream.next_out = packed;
        stream.avail_out = (unsigned)room;
        deflate(&stream, Z_FINISH);
        *bytes = stream.total_out;
        deflateEnd(&stream);
    }
    free(core);
    return packed;
}

static void one_run(struct random *random)
{
    size_t bytes, head;
    unsigned char *file = seed_core(&bytes, &head);
    uint64_t pick = next(random);
    for (uint64_t i = 0; i < 1 + pick % 6; i++)
        damage_once(random, file, pick & 256 ? sizeof(Elf64_Ehdr) + 7 * sizeof(Elf64_Phdr) : head);
    if ((pick >> 16) % 8 == 0) {
        file = pack(random, file, &bytes);
        if (pick & 512)
            damage_once(random, file, bytes);
    }
    if ((pick >> 24) % 4 == 0)
        bytes = 1 + next(random) % bytes;
    one_core(file, bytes);
    free(file);
}

static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    static unsigned char bytes[1 << 20];
    size_t count = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    if (file)
        fclose(file);
    return count ? LLVMFuzzerTestOneInput(bytes, count) : 2;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "-r") == 0)
        return replay(argv[2]);
    struct fuzz fuzz = fuzz_begin(argc, argv);
    do {
        fuzz_run(&fuzz);
        one_run(&fuzz_random);
    } while (fuzz_goes_on(&fuzz));
    return fuzz_end(&fuzz, "cores");
}
#endif
