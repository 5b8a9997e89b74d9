/* The table of bytes, and what all targets share: look-ups, strings, faults, notes. */
#include "target/backend.h"
#include "target/maps.h"
#include "unit/tap.h"

static const struct target_segment segments[] = {
    {0x3000, "abcdefgh", 8, MAPPING_READ, "/lib/third"},
    {0x1000, "\1\2\3\4\5\6\7\10", 8, MAPPING_READ | MAPPING_WRITE, NULL},
    {0x1008, NULL, 16, MAPPING_READ, NULL},
    {0x1018, "ends here", 9, MAPPING_READ, NULL},
};

static struct target *open_table(void)
{
    struct target *target = NULL;
    struct hi_err err = {0};
    if (!ok(target_open_bytes(&target, segments, 4, &err) == HI_OK, "opens"))
        printf("#   %s\n", err.message);
    return target;
}

static void test_reads(void)
{
    struct target *target = open_table();
    unsigned char buffer[64];
    struct hi_err err = {0};
    uint64_t value = 0;
    ok(target_read_u64(target, 0x1000, &value, &err) == HI_OK && value == 0x0807060504030201,
       "a word");
    ok(target_read(target, 0x1004, buffer, 22, &err) == HI_OK && buffer[0] == 5 && buffer[4] == 0 &&
           buffer[20] == 'e',
       "a read over three segments, the middle one absent");
    ok(target_read(target, 0x1018, buffer, 10, &err) == HI_FAULT && err.has_address &&
           err.address == 0x1021,
       "a fault names the first byte that is not there");
    is_text(err.message, "address 0x1021 is not mapped", "and says why");
    is_u64(target_read_some(target, 0x1018, buffer, 10), 9, "read_some gives what is there");
    is_u64(target_read_some(target, 0x2000, buffer, 10), 0, "or nothing");
    is_u64(target_read_some(target, UINT64_MAX - 1, buffer, 10), 0, "also at the very end");
    size_t bytes = 7;
    ok(!target_view(target, 0x1000, &bytes), "there is no view");
    target_close(target);
}

static void test_strings(void)
{
    struct target *target = open_table();
    char buffer[32];
    struct hi_err err = {0};
    ok(target_read_string(target, 0x1000, buffer, sizeof buffer, &err) == HI_OK &&
           strlen(buffer) == 8,
       "a string ends at a zero");
    ok(target_read_string(target, 0x3000, buffer, 5, &err) == HI_OK, "a long one is cut");
    is_text(buffer, "abcd", "to what fits");
    ok(target_read_string(target, 0x3000, buffer, sizeof buffer, &err) == HI_FAULT &&
           err.address == 0x3008,
       "one without an end is a fault");
    is_text(buffer, "abcdefgh", "and gives what there was");
    target_close(target);
}

static void test_mappings(void)
{
    struct target *target = open_table();
    is_u64(target_mapping_count(target), 4, "four mappings");
    bool in_order = true;
    for (size_t i = 1; i < target_mapping_count(target); i++)
        in_order &= target_mapping(target, i)->start >= target_mapping(target, i - 1)->end;
    ok(in_order, "in address order");
    ok(!target_mapping(target, 4), "no fifth");
    ok(target_mapping_at(target, 0x1007)->start == 0x1000 &&
           target_mapping_at(target, 0x1008)->start == 0x1008,
       "borders belong to the right side");
    ok(!target_mapping_at(target, 0xfff) && !target_mapping_at(target, 0x1021) &&
           !target_mapping_at(target, UINT64_MAX),
       "nothing in the gaps");
    is_text(target_mapping_at(target, 0x3001)->path, "/lib/third", "path");
    struct hi_range ranges[4];
    is_u64(target_contents(target, 0, UINT64_MAX, ranges, 4), 3, "three have content");
    ok(target_next_content(target, 0x1002, 0x1005, ranges) && ranges[0].start == 0x1002 &&
           ranges[0].end == 0x1005,
       "cut to what was asked for");
    ok(!target_next_content(target, 0x1008, 0x1018, ranges), "absent memory has none");
    ok(target_complete(target) && target_missing_bytes(target) == 0, "nothing is missing");
    target_close(target);
}

static void test_failing_reads(void)
{
    struct target *target = open_table();
    uint64_t value;
    int failed = 0;
    target_bytes_fail_read(target, 3);
    for (int i = 1; i <= 5; i++)
        if (target_read_u64(target, 0x1000, &value, NULL) != HI_OK)
            failed = failed * 10 + i;
    is_u64((uint64_t)failed, 3, "the third read fails, and only that");
    target_close(target);
}

static void test_missing(void)
{
    struct target *target = open_table();
    target_push_missing(target, 0x3000, 0x4000);
    target_push_missing(target, 0x1000, 0x2000);
    target_push_missing(target, 0x1800, 0x2800);
    target_push_missing(target, 0x5000, 0x5000);
    ok(target_seal(target, NULL) == HI_OK, "seals");
    is_u64(target_missing_count(target), 2, "missing ranges are merged, empty ones dropped");
    is_u64(target_missing_bytes(target), 0x2800, "counted once");
    is_u64(target_missing_in(target, 0x2700, 0x3100), 0x200, "in part");
    ok(!target_complete(target), "and the target is not complete");
    target_close(target);
}

static void test_rejected(void)
{
    struct target *target = NULL;
    struct hi_err err = {0};
    const struct target_segment overlap[] = {{0x1000, "abcd", 4, 0, NULL},
                                             {0x1003, "", 1, 0, NULL}};
    const struct target_segment wrapping[] = {{UINT64_MAX - 2, "abcd", 4, 0, NULL}};
    ok(target_open_bytes(&target, overlap, 2, &err) == HI_BAD_INPUT &&
           strstr(err.message, "overlap"),
       "segments must not overlap");
    ok(target_open_bytes(&target, wrapping, 1, &err) == HI_BAD_INPUT && !target,
       "nor go beyond the end of the address space");
}

static void test_notes(void)
{
    struct target *target = open_table();
    target_add_note(target, "thread %d", 7);
    is_u64(target_note_count(target), 1, "one note");
    is_text(target_note(target, 0), "thread 7", "with its text");
    ok(!target_note(target, 1), "no second");
    int fd;
    struct hi_err err;
    ok(target_open_file(target, target_mapping_at(target, 0x1000), &fd, &err) == HI_NOT_FOUND,
       "no file behind anonymous memory");
    target_close(target);
    target_close(NULL);
    target_release(NULL);
}

/* ---- the text of /proc/PID/maps ---- */

static char maps_text[] =
    "00400000-00401000 r-xp 00001000 fe:02 1234                               /bin/a b\n"
    "00401000-00402000 rw-s 00000000 00:01 99   /tmp/x (deleted)\n"
    "this is not a line\n"
    "00402000-00402000 rw-p 00000000 00:00 0 \n"
    "00403000-00404000 ---p 00000000 00:00 0\n"
    "00404000-00405000 rw-p 00000000 00:00 0                                  [anon:my heap]\n"
    "00405000-00406000 rw-p 00000000 00:00 0                                  [heap]\n"
    "00406000-00407000 r--p 00000000 00:00 0                                  [vvar]\n"
    "00407000-00408000 r--p 00000000 08:10 5      /tmp/a\\012b\\134\\01\n"
    "7ffffffff000-ffffffffff601000 --xp 00000000 00:00 0     [vsyscall]";

static void test_maps(void)
{
    struct target *target = NULL;
    size_t bad = 0;
    (void)!target_open_bytes(&target, NULL, 0, NULL);
    ok(maps_parse(target, maps_text, &bad, NULL) == HI_OK, "maps are parsed");
    is_u64(bad, 2, "two lines make no sense");
    is_u64(target_mapping_count(target), 8, "the others are mappings");
    const struct mapping *m = target_mapping(target, 0);
    is_text(m->path, "/bin/a b", "a space in a path");
    ok(m->protection == (MAPPING_READ | MAPPING_EXECUTE) && !m->shared &&
           m->file_offset == 0x1000 && m->inode == 1234 && m->device == ((uint64_t)0xfe << 32 | 2),
       "fields of the first line");
    is_text(target_mapping(target, 1)->path, "/tmp/x (deleted)", "deleted");
    ok(target_mapping(target, 1)->shared, "shared");
    ok(!target_mapping(target, 2)->path && target_mapping(target, 2)->protection == 0, "a guard");
    ok(!target_mapping(target, 3)->path, "named anonymous memory is anonymous");
    is_text(target_mapping(target, 4)->path, "[heap]", "the heap");
    ok(target_mapping(target, 5)->special && !target_mapping(target, 4)->special, "special: vvar");
    is_text(target_mapping(target, 6)->path, "/tmp/a\nb\\134\\01", "an escaped newline");
    is_u64(target_mapping(target, 7)->end, 0xffffffffff601000, "the last line without an end");
    target_close(target);
}

int main(void)
{
    test_reads();
    test_strings();
    test_mappings();
    test_failing_reads();
    test_missing();
    test_rejected();
    test_notes();
    test_maps();
    return done();
}
