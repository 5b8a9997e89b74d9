/*
 * Cores of a child that knows what it held: the kernel's, gdb's, cut off, compressed.
 * How much of a cut core is missing is computed here from its program headers.
 */
#include "target/backend.h"
#include "unit/tap.h"
#include "unit/target_child.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* ---- a file source as the symbols layer has one, without looking at build-ids ---- */

static enum hi_code read_mapped_file(void *context, const struct mapping *mapping, hi_addr address,
                                     void *buffer, size_t bytes, struct hi_err *err)
{
    int fd;
    enum hi_code code = target_open_file(context, mapping, &fd, err);
    if (code != HI_OK)
        return code;
    ssize_t got =
        pread(fd, buffer, bytes, (off_t)(mapping->file_offset + address - mapping->start));
    close(fd);
    return got == (ssize_t)bytes ? HI_OK : hi_fault(err, address, "file too short");
}

static struct target *open_core(const char *path)
{
    struct hi_err err = {0};
    struct target *target = NULL;
    enum hi_code code = target_open_core(&target, path, NULL, &err);
    if (!ok(code == HI_OK, "core opens"))
        printf("#   %s: %s\n", path, err.message);
    if (target) {
        struct target_file_source source = {read_mapped_file, target};
        target_set_file_source(target, &source);
    }
    return target;
}

static void check_core(struct child *child, const char *path, bool is_gcore)
{
    struct target *target = open_core(path);
    if (!target)
        return;
    struct child_layout *layout = child->layout;
    ok(target_kind(target) == TARGET_CORE && target_pid(target) == child->pid, "kind and pid");
    is_text(target_file(target), path, "file");
    if (!ok(target_complete(target) && target_note_count(target) == 0, "complete, without notes"))
        for (size_t i = 0; i < target_note_count(target); i++)
            printf("#   %s\n", target_note(target, i));
    child_check_memory(child, target, is_gcore ? CHILD_GCORE : CHILD_CORE);
    child_check_registers(child, target);
    child_check_bytes(target, layout->file_unwritten, CHILD_BYTES, 8000,
                      "a file that nobody wrote: from the file itself");
    is_u64(target_thread_count(target), 2, "two threads");
    ok(is_gcore || target_thread(target, 0)->is_crashed, "the first one crashed");
    is_u64((uint64_t)target_thread(target, 0)->signal, is_gcore ? 0 : SIGABRT, "by SIGABRT");
    char self[4096] = "";
    (void)!readlink("/proc/self/exe", self, sizeof self - 1);
    is_text(target_executable(target), self, "executable");
    const struct mapping *code = target_mapping_at(target, (hi_addr)(uintptr_t)&check_core);
    is_text(code ? code->path : NULL, self, "its text is mapped, by name");
    unsigned char first[16];
    ok(target_read(target, (hi_addr)(uintptr_t)&check_core, first, sizeof first, NULL) == HI_OK &&
           memcmp(first, (const void *)(uintptr_t)&check_core, sizeof first) == 0,
       "its text is read from the file");
    size_t view_bytes = 0;
    const uint64_t *view = target_view(target, layout->anonymous + 4096, &view_bytes);
    ok(view && view_bytes >= CHILD_BYTES - 4096 && view[0] == child_pattern(1000 + 512),
       "a view of the bytes in the file");
    ok(is_gcore || !target_view(target, layout->untouched, &view_bytes),
       "no view of what is absent");
    target_close(target);
}

static void check_sparse(struct child *child, const char *path)
{
    struct hi_range ranges[8];
    struct target *target = open_core(path);
    hi_addr start = child->layout->sparse, end = start + CHILD_SPARSE_PAGES * 4096ULL;
    is_u64(target_contents(target, start, end, ranges, 8), 2, "sparse mapping: two ranges");
    is_u64(ranges[0].start, start + 3 * 4096, "first starts at page 3");
    is_u64(ranges[0].end, start + 5 * 4096, "and has two pages");
    is_u64(ranges[1].start, start + 700 * 4096, "second at page 700");
    struct hi_range one;
    ok(!target_next_content(target, child->layout->untouched,
                            child->layout->untouched + CHILD_BYTES, &one),
       "untouched memory has no content");
    target_close(target);
}

/* ---- cut off ---- */

struct truth {
    uint64_t dumped, missing, table_end;
};

static struct truth cut_truth(const char *path, uint64_t cut)
{
    struct truth truth = {0};
    Elf64_Ehdr header;
    int fd = open(path, O_RDONLY);
    (void)!pread(fd, &header, sizeof header, 0);
    truth.table_end = header.e_phoff + header.e_phnum * sizeof(Elf64_Phdr);
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        (void)!pread(fd, &segment, sizeof segment, (off_t)(header.e_phoff + i * sizeof segment));
        if (segment.p_type != PT_LOAD)
            continue;
        uint64_t end = segment.p_offset + segment.p_filesz;
        uint64_t from = cut > segment.p_offset ? cut : segment.p_offset;
        truth.dumped += segment.p_filesz;
        truth.missing += end > from ? end - from : 0;
    }
    close(fd);
    return truth;
}

static uint64_t file_bytes(const char *path)
{
    struct stat file;
    return stat(path, &file) == 0 ? (uint64_t)file.st_size : 0;
}

static bool copy_head(const char *from, const char *to, uint64_t bytes)
{
    static char buffer[1 << 16];
    int in = open(from, O_RDONLY), out = open(to, O_RDWR | O_CREAT | O_TRUNC, 0600);
    uint64_t done = 0;
    while (done < bytes) {
        size_t step = bytes - done < sizeof buffer ? bytes - done : sizeof buffer;
        ssize_t got = read(in, buffer, step);
        if (got <= 0 || write(out, buffer, (size_t)got) != got)
            break;
        done += (uint64_t)got;
    }
    close(in);
    close(out);
    return done == bytes;
}

static bool cut_is_right(const char *cut_path, uint64_t cut, const struct truth *truth)
{
    struct target *target = NULL;
    struct hi_err err = {0};
    enum hi_code code = target_open_core(&target, cut_path, NULL, &err);
    if (cut < truth->table_end)
        return code != HI_OK ? strstr(err.message, "cut off") != NULL || cut == 0
                             : !target_complete(target) && (target_close(target), true);
    char wanted[128];
    snprintf(wanted, sizeof wanted,
             "core is truncated: %" PRIu64 " of %" PRIu64 " bytes of memory are missing",
             truth->missing, truth->dumped);
    bool right = code == HI_OK && !target_complete(target) &&
                 target_missing_bytes(target) == truth->missing &&
                 strcmp(target_note(target, 0), wanted) == 0;
    /* what is missing faults and is never zeros */
    uint64_t value;
    for (size_t i = 0; right && i < target->missing.count; i++) {
        struct hi_range range = target->missing.items[i];
        right = target_read_u64(target, range.start, &value, &err) == HI_FAULT &&
                strstr(err.message, "is truncated") && err.address == range.start &&
                target_read_u64(target, range.end - 8, &value, &err) == HI_FAULT;
    }
    if (!right)
        printf("#   cut %" PRIu64 ": code %d, missing %" PRIu64 ", wanted %s; %s\n", cut, code,
               target ? target_missing_bytes(target) : 0, wanted, err.message);
    target_close(target);
    return right;
}

static void check_cuts(const char *path, const char *directory)
{
    enum { CUTS = 24 };
    char cut_path[256];
    uint64_t size = file_bytes(path);
    int right = 0, tried = 0;
    snprintf(cut_path, sizeof cut_path, "%s/cut", directory);
    if (!copy_head(path, cut_path, size))
        return;
    /* from the end to the start, by one byte first, in ever larger steps */
    for (uint64_t cut = size - 1, step = 1; tried < CUTS && cut; tried++, step = step * 2 + 4097) {
        struct truth truth = cut_truth(path, cut);
        if (truncate(cut_path, (off_t)cut))
            break;
        right += truth.missing == 0 || cut_is_right(cut_path, cut, &truth);
        cut = cut > step ? cut - step : cut / 2;
    }
    is_u64((uint64_t)right, (uint64_t)tried, "cut anywhere: the gap is counted to the byte");
    printf("#   %d cuts\n", tried);
    unlink(cut_path);
}

/* A limit on core size, as users have it. */
static void test_limited(void)
{
    struct child child;
    char path[256];
    child_start(&child, 2);
    struct rlimit small = {200 * 1024, RLIM_INFINITY};
    prlimit(child.pid, RLIMIT_CORE, &small, NULL);
    snprintf(path, sizeof path, "%s/core", child.directory);
    if (!child_dump(&child)) {
        ok(true, "a core cut by the limit # SKIP cores do not come as files here");
    } else {
        struct truth truth = cut_truth(path, file_bytes(path));
        struct target *target = open_core(path);
        is_u64(target_missing_bytes(target), truth.missing, "a core cut by the limit");
        ok(truth.missing > 0 && strncmp(target_note(target, 0), "core is truncated", 17) == 0,
           "says so first");
        is_u64(target_thread_count(target), 3, "and knows its threads");
        target_close(target);
    }
    child_end(&child);
}

/* coredump_filter without anonymous memory */
static void test_filtered(void)
{
    struct child child;
    char path[256];
    child_start(&child, 1);
    snprintf(path, sizeof path, "/proc/%d/coredump_filter", (int)child.pid);
    int fd = open(path, O_WRONLY);
    (void)!write(fd, "0x10", 4);
    close(fd);
    snprintf(path, sizeof path, "%s/core", child.directory);
    if (!child_dump(&child)) {
        ok(true, "a filtered core # SKIP cores do not come as files here");
    } else {
        struct target *target = open_core(path);
        uint64_t value;
        struct hi_err err = {0};
        ok(!target_complete(target), "without anonymous memory a core is not complete");
        is_u64(target_missing_in(target, child.layout->anonymous,
                                 child.layout->anonymous + CHILD_BYTES),
               CHILD_BYTES, "what was left out is counted");
        ok(target_read_u64(target, child.layout->anonymous, &value, &err) == HI_FAULT &&
               strstr(err.message, "left out of the core"),
           "and is not read as zeros");
        ok(target_read_u64(target, child.layout->shared, &value, &err) == HI_FAULT,
           "nor is shared memory");
        ok(strstr(target_note(target, 0), "without anonymous memory"), "a note says so");
        target_close(target);
    }
    child_end(&child);
}

/* ---- compressed ---- */

static bool run_tool(const char *command, const char *from, const char *to)
{
    char line[1024];
    snprintf(line, sizeof line, "%s < '%s' > '%s' 2>/dev/null", command, from, to);
    return system(line) == 0;
}

static int files_in(const char *directory)
{
    int count = 0;
    DIR *opened = opendir(directory);
    for (struct dirent *entry; opened && (entry = readdir(opened));)
        count += entry->d_name[0] != '.';
    if (opened)
        closedir(opened);
    return count;
}

/* Wherever from has content, the other has the same bytes. */
static bool same_content(struct target *from, struct target *other)
{
    static char from_bytes[1 << 16], other_bytes[1 << 16];
    hi_addr at = 0;
    for (struct hi_range range; target_next_content(from, at, UINT64_MAX, &range); at = range.end)
        for (at = range.start; at < range.end; at += sizeof from_bytes) {
            size_t bytes = sizeof from_bytes;
            bytes = range.end - at < bytes ? range.end - at : bytes;
            size_t got = target_read_some(from, at, from_bytes, bytes);
            if (got != bytes || target_read_some(other, at, other_bytes, bytes) != bytes ||
                memcmp(from_bytes, other_bytes, bytes) != 0)
                return false;
        }
    return at != 0;
}

static bool same_memory(const char *a_path, const char *b_path)
{
    struct target *a = NULL, *b = NULL;
    bool same = target_open_core(&a, a_path, NULL, NULL) == HI_OK &&
                target_open_core(&b, b_path, NULL, NULL) == HI_OK &&
                target_mapping_count(a) == target_mapping_count(b) && same_content(a, b) &&
                same_content(b, a);
    target_close(a);
    target_close(b);
    return same;
}

static void test_cut_stream(const char *packed, const char *directory)
{
    char half[300];
    struct target *target = NULL;
    struct hi_err err = {0};
    snprintf(half, sizeof half, "%s/half", directory);
    copy_head(packed, half, file_bytes(packed) * 7 / 10);
    enum hi_code code = target_open_core(&target, half, NULL, &err);
    if (ok(code == HI_OK && !target_complete(target), "a cut stream gives what it has")) {
        ok(strstr(target_note(target, 0), "core is truncated") && target_missing_bytes(target),
           "counts what is missing");
        bool said = false;
        for (size_t i = 0; i < target_note_count(target); i++)
            said |= strstr(target_note(target, i), "is cut off: its") != NULL;
        ok(said, "and names the stream");
    } else {
        printf("#   %s\n", err.message);
    }
    target_close(target);
    unlink(half);
}

static void check_packed(struct child *child, const char *path, const char *tool, const char *name)
{
    char packed[256], scratch[256];
    /* no suffix: told by content alone */
    snprintf(packed, sizeof packed, "%s/packed", child->directory);
    snprintf(scratch, sizeof scratch, "%s/scratch", child->directory);
    if (!run_tool(tool, path, packed)) {
        ok(true, "%s # SKIP no such tool", name);
        unlink(packed);
        return;
    }
    mkdir(scratch, 0700);
    setenv("TMPDIR", scratch, 1);
    struct target *target = open_core(packed);
    if (target) {
        ok(target_complete(target), "%s: complete", name);
        is_u64((uint64_t)files_in(scratch), 0, "no file is left, even while it is open");
        check_sparse(child, packed);
        target_close(target);
        ok(same_memory(path, packed), "%s: the same in every byte", name);
        test_cut_stream(packed, child->directory);
    }
    unsetenv("TMPDIR");
    unlink(packed);
    rmdir(scratch);
}

/* heapinspect <(zcat core.gz), and a plain core the same way */
static void test_pipe(const char *path, const char *command)
{
    char line[512], pipe_path[64];
    snprintf(line, sizeof line, "%s '%s'", command, path);
    FILE *stream = popen(line, "r");
    snprintf(pipe_path, sizeof pipe_path, "/proc/self/fd/%d", fileno(stream));
    struct target *target = NULL, *plain = NULL;
    struct hi_err err = {0};
    bool same = target_open_core(&target, pipe_path, NULL, &err) == HI_OK &&
                target_open_core(&plain, path, NULL, &err) == HI_OK && target_complete(target) &&
                target_mapping_count(target) == target_mapping_count(plain) &&
                target_thread_count(target) == target_thread_count(plain);
    if (!ok(same, "through a pipe: %s", command))
        printf("#   %s\n", err.message);
    target_close(target);
    target_close(plain);
    pclose(stream);
}

static void expect_bad(const char *path, enum hi_code wanted, const char *text)
{
    struct target *target = NULL;
    struct hi_err err = {0};
    enum hi_code code = target_open_core(&target, path, NULL, &err);
    if (!ok(code == wanted && !target && strstr(err.message, text), "refused: %s", text))
        printf("#   code %d: %s\n", code, err.message);
    target_close(target);
}

/* A core that unpacks to more than there is room for. */
static void test_no_room(struct child *child, const char *path)
{
    char packed[256], scratch[256];
    snprintf(packed, sizeof packed, "%s/packed", child->directory);
    snprintf(scratch, sizeof scratch, "%s/small", child->directory);
    mkdir(scratch, 0700);
    if (!run_tool("zstd -q", path, packed) || unshare(CLONE_NEWNS) ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", scratch, "tmpfs", 0, "size=64k")) {
        ok(true, "no room to unpack # SKIP needs root and zstd");
    } else {
        setenv("TMPDIR", scratch, 1);
        expect_bad(packed, HI_REFUSED, "set TMPDIR to a place with more room");
        unsetenv("TMPDIR");
        umount(scratch);
    }
    rmdir(scratch);
    unlink(packed);
}

/* ---- what is not a core ---- */

static void write_file(const char *path, const void *bytes, size_t count)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    (void)!write(fd, bytes, count);
    close(fd);
}

static void patched(const char *core, const char *path, size_t offset, unsigned char byte,
                    enum hi_code wanted, const char *text)
{
    copy_head(core, path, 8192);
    int fd = open(path, O_WRONLY);
    (void)!pwrite(fd, &byte, 1, (off_t)offset);
    close(fd);
    expect_bad(path, wanted, text);
}

static void test_not_cores(struct child *child, const char *core)
{
    char path[256];
    snprintf(path, sizeof path, "%s/other", child->directory);
    expect_bad("/nonexistent/core", HI_NOT_FOUND, "cannot open /nonexistent/core");
    expect_bad(child->directory, HI_BAD_INPUT, "is a directory");
    expect_bad("/proc/self/exe", HI_BAD_INPUT, "did you mean --exe=");
    write_file(path, "", 0);
    expect_bad(path, HI_BAD_INPUT, "is empty");
    write_file(path, "hello\n", 6);
    expect_bad(path, HI_BAD_INPUT, "is a text file, not a core");
    write_file(path, "\1\2\3\4\5\6\7", 7);
    expect_bad(path, HI_BAD_INPUT, "is not an ELF file, not a core");
    write_file(path, "\177ELF", 4);
    expect_bad(path, HI_BAD_INPUT, "cut off within the ELF header");
    write_file(path, "\x28\xb5\x2f\xfd garbage garbage", 20);
    expect_bad(path, HI_BAD_INPUT, "is a damaged zstd file");
    if (!core)
        return;
    patched(core, path, EI_CLASS, ELFCLASS32, HI_UNSUPPORTED, "32-bit program");
    patched(core, path, EI_DATA, ELFDATA2MSB, HI_UNSUPPORTED, "big-endian");
    patched(core, path, 18, EM_AARCH64, HI_UNSUPPORTED, "another machine (aarch64)");
    patched(core, path, 16, ET_REL, HI_BAD_INPUT, "ELF file of type 1");
    patched(core, path, 54, 1, HI_BAD_INPUT, "segment headers of 1 bytes");
    write_file(path, "not a core at all\n", 18);
    char packed[256];
    snprintf(packed, sizeof packed, "%s/packed", child->directory);
    if (run_tool("gzip", path, packed))
        expect_bad(packed, HI_BAD_INPUT, "is a text file, not a core");
    unlink(packed);
    unlink(path);
}

static void test_gcore(struct child *child)
{
#ifdef __SANITIZE_ADDRESS__
    (void)child, (void)check_core;
    ok(true, "gcore # SKIP gdb 13 can't dump the shadow memory of the address sanitizer");
    return;
#endif
    char command[512], path[256];
    snprintf(path, sizeof path, "%s/core", child->directory);
    snprintf(command, sizeof command,
             "gdb -nx -batch -p %d -ex 'generate-core-file %s' > /dev/null 2>&1", (int)child->pid,
             path);
    if (system("command -v gdb > /dev/null") != 0) {
        ok(true, "gcore # SKIP no gdb");
        return;
    }
    if (ok(system(command) == 0 && access(path, R_OK) == 0, "gdb writes a core"))
        check_core(child, path, true);
    unlink(path);
}

int main(void)
{
    struct child child;
    char path[256];
    child_start(&child, 1);
    test_gcore(&child);
    snprintf(path, sizeof path, "%s/core", child.directory);
    bool dumped = child_dump(&child);
    if (dumped) {
        check_core(&child, path, false);
        check_sparse(&child, path);
        check_cuts(path, child.directory);
        check_packed(&child, path, "zstd -q", "zstd");
        check_packed(&child, path, "lz4 -q", "lz4");
        check_packed(&child, path, "xz -q -0", "xz");
        check_packed(&child, path, "gzip -1", "gzip");
        test_pipe(path, "cat");
        test_pipe(path, "gzip -1 -c");
        test_no_room(&child, path);
    } else {
        ok(true, "cores of the kernel # SKIP they do not come as files here");
    }
    test_not_cores(&child, dumped ? path : NULL);
    child_end(&child);
    test_limited();
    test_filtered();
    return done();
}
