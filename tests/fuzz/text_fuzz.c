/*
 * Damaged text: lines of /proc/PID/maps, registers as gdb prints them, and suppressions, changed at
 * random.
 *
 *   text_fuzz [SECONDS [SEED]]
 */
#include "analysis/suppressions.h"
#include "target/backend.h"
#include "target/gdb_registers.h"
#include "target/maps.h"
#include "fuzz.h"

enum { TEXT_BYTES = 4096 };

static const char maps_seed[] =
    "00400000-00401000 r-xp 00001000 fe:02 1234      /bin/a b\n"
    "00403000-00404000 ---p 00000000 00:00 0\n"
    "00404000-00405000 rw-p 00000000 00:00 0         [anon:my heap]\n"
    "00407000-00408000 rw-s 00000000 08:10 5         /tmp/a\\012b (deleted)\n"
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";

static const char gdb_seed[] =
    "Thread 2 (Thread 0x7ffff7a00640 (LWP 4243) \"worker\"):\n"
    "rax            0x7ffff0000b60      140737219922784\n"
    "rip            0x401136            0x401136 <main+4>\n"
    "rsp            0x7fffffffe0f0      0x7fffffffe0f0\n"
    "fs_base        0x7ffff7a00640      140737348892224\n"
    "ymm0           {v16_bfloat16 = {0x0 <repeats 16 times>}, v4_int64 = {0x1, 0x2, 0x0 <repeats 2 "
    "times>}, v2_int128 = {0x1, 0x2}}\n"
    "xmm1           {v2_int64 = {0x55, 0x66}, uint128 = 7}\n"
    "Thread 1 (LWP 4242):\nrsp 0x10 16\n";

static const char suppressions_seed[] =
    "# known\nleak:^foo*bar$\n\n  leak:libfoo.so.1 \r\nleak:*a*b*\nleak:^$\n";

/* Bytes changed, stretches moved, the end cut off; never a 0 inside. */
static void damage(char *text, size_t *length)
{
    static const char likely[] = "0123456789abcdefx{}<>,=()- \n\t\"\\[]";
    uint64_t pick = next_random();
    size_t at = (pick >> 8) % *length;
    if (pick % 8 == 0) {
        size_t from = next_random() % *length, count = next_random() % 64;
        count = count < *length - from ? count : *length - from;
        count = count < *length - at ? count : *length - at;
        memmove(text + at, text + from, count);
    } else if (pick % 8 == 1) {
        *length = at + 1;
        text[*length] = 0;
    } else {
        text[at] =
            pick & 64 ? likely[(pick >> 32) % (sizeof likely - 1)] : (char)((pick >> 32) % 255 + 1);
    }
}

static void suppressions_run(void)
{
    size_t length = sizeof suppressions_seed - 1;
    char *text = malloc(length + 1);
    struct suppressions found = {0};
    struct hi_err err;
    memcpy(text, suppressions_seed, length + 1);
    for (uint64_t i = next_random() % 12; i; i--)
        damage(text, &length);
    struct frame_names frames[] = {{text, "a.c", "foo_bar"}, {NULL, NULL, ""}};
    if (suppressions_parse(&found, text, "fuzz", &err) == HI_OK)
        suppressions_find(&found, frames, 2);
    suppressions_free(&found);
    free(text);
}

static void one_run(void)
{
    uint64_t pick = next_random();
    bool is_maps = pick & 1;
    if (pick % 8 == 2) {
        suppressions_run();
        return;
    }
    size_t bad, threads, length = is_maps ? sizeof maps_seed - 1 : sizeof gdb_seed - 1;
    char *text = malloc(length + 1); /* exactly: a step too far is seen */
    memcpy(text, is_maps ? maps_seed : gdb_seed, length + 1);
    for (uint64_t i = next_random() % 12; i; i--)
        damage(text, &length);
    struct target *target = NULL;
    struct hi_err err = {0};
    if (target_open_bytes(&target, NULL, 0, &err) != HI_OK)
        abort();
    enum hi_code code = is_maps ? maps_parse(target, text, &bad, &err)
                                : gdb_registers_apply(target, text, &threads, &err);
    if ((is_maps && code != HI_OK) || target_seal(target, &err) != HI_OK)
        abort();
    for (size_t i = 1; i < target_mapping_count(target); i++)
        if (target_mapping(target, i)->start < target_mapping(target, i - 1)->end)
            abort();
    target_close(target);
    free(text);
}

int main(int argc, char **argv)
{
    struct fuzz fuzz = fuzz_begin(argc, argv);
    do {
        fuzz_run(&fuzz);
        one_run();
    } while (fuzz_goes_on(&fuzz));
    return fuzz_end(&fuzz, "texts");
}
