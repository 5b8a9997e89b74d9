/* Registers in the words of gdb: as gdb 13 prints them for a program with known values, and what
 * careless hands make of that. */
#include "target/gdb_registers.h"
#include "unit/tap.h"

enum { RBX = 5, RBP = 4, EFLAGS = 18, XMM = 160, YMM = 576, ZMM = 1152, ZMM_HIGH = 1664 };

static struct target *open_empty(void)
{
    static const char byte[16];
    struct target_segment segment = {0x1000, byte, sizeof byte, MAPPING_READ, NULL};
    struct target *target = NULL;
    struct hi_err err;
    ok(target_open_bytes(&target, &segment, 1, &err) == HI_OK, "a target of bytes");
    return target;
}

static const struct thread *thread_of(const struct target *target, pid_t tid)
{
    for (size_t i = 0; i < target_thread_count(target); i++)
        if (target_thread(target, i)->tid == tid)
            return target_thread(target, i);
    return NULL;
}

static uint64_t vector_word(const struct thread *thread, size_t offset)
{
    uint64_t word = 0;
    if (thread->vector_state_bytes >= offset + sizeof word)
        memcpy(&word, (const char *)thread->vector_state + offset, sizeof word);
    return word;
}

static void test_two_threads(void)
{
    struct target *target = open_empty();
    struct hi_err err;
    size_t threads = 0;
    static const char text[] =
        "[Thread debugging using libthread_db enabled]\n"
        "\n"
        "Thread 2 (Thread 0x7fd3be6826c0 (LWP 12055) \"t\"):\n"
        "rbx            0x123456789abc      20015998343868\n"
        "rbp            0x7fd3be681ed0      0x7fd3be681ed0\n"
        "rsp            0x7fd3be681ec8      0x7fd3be681ec8\n"
        "rip            0x556998ab616a      0x556998ab616a <f+33>\n"
        "eflags         0x246               [ PF ZF IF ]\n"
        "k0             0x80008             524296\n"
        "zmm9           {v8_double = {0x1, 0x0}, v8_int64 = {0x11, 0x12, 0x13, 0x14, "
        "0x15 <repeats 4 times>}, v4_int128 = {0x0}}\n"
        "ymm3           {v4_int64 = {0x21, 0x22, 0x23, 0x24}}\n"
        "xmm4           {v2_int64 = {0x31, -1}, uint128 = 0x0}\n"
        "zmm17          {v8_int64 = {0x41 <repeats 8 times>}}\n"
        "\n"
        "Thread 1 (LWP 12054):\n"
        "rsp            140734911809504\n"
        "fs_base        0x7fd3be683740      140547409327936\n";
    ok(gdb_registers_apply(target, text, &threads, &err) == HI_OK, "gdb's text is read");
    is_u64(threads, 2, "two threads");
    const struct thread *one = thread_of(target, 12054), *two = thread_of(target, 12055);
    if (ok(one && two, "both are there")) {
        is_u64(two->registers[RBX], 0x123456789abc, "rbx");
        is_u64(two->sp, 0x7fd3be681ec8, "sp");
        is_u64(two->pc, 0x556998ab616a, "pc");
        is_u64(two->registers[EFLAGS], 0x246, "eflags");
        is_u64(two->fs_base, 0x7fd3be6826c0, "fs_base from the thread's own line");
        is_u64(vector_word(two, XMM + 9 * 16 + 8), 0x12, "zmm9: xmm part");
        is_u64(vector_word(two, YMM + 9 * 16), 0x13, "zmm9: ymm part");
        is_u64(vector_word(two, ZMM + 9 * 32 + 24), 0x15, "zmm9: repeats");
        is_u64(vector_word(two, YMM + 3 * 16 + 8), 0x24, "ymm3");
        is_u64(vector_word(two, XMM + 4 * 16 + 8), UINT64_MAX, "xmm4: a negative lane");
        is_u64(vector_word(two, ZMM_HIGH + 64 + 56), 0x41, "zmm17");
        is_u64(vector_word(two, 512), 1 << 1 | 1 << 2 | 1 << 6 | 1 << 7, "the parts are named");
        is_u64(one->sp, 140734911809504, "a decimal value");
        is_u64(one->fs_base, 0x7fd3be683740, "fs_base as a register");
        ok(!one->vector_state, "no vector state was given");
    }
    target_close(target);
}

static void test_in_two_parts(void)
{
    struct target *target = open_empty();
    struct hi_err err;
    size_t threads;
    static const char text[] =
        "Thread 1 (LWP 7):\nrsp 0x10\nrbx 0x11\nThread 2 (LWP 8):\nrsp 0x20\n"
        "Thread 1 (LWP 7):\nymm3 {v4_int64 = {0x21, 0x22, 0x23, 0x24}}\n"
        "Thread 2 (LWP 8):\nxmm1 {v2_int64 = {0x31, 0x32}}\n"
        "Thread 1 (LWP 7):\nrcx 0x12\n";
    ok(gdb_registers_apply(target, text, &threads, &err) == HI_OK, "registers, then vectors");
    const struct thread *one = thread_of(target, 7), *two = thread_of(target, 8);
    if (ok(one && two && target_thread_count(target) == 2, "two threads")) {
        ok(one->sp == 0x10 && one->registers[RBX] == 0x11, "general ones stay");
        is_u64(vector_word(one, YMM + 3 * 16), 0x23, "vector ones come to them, and stay");
        is_u64(vector_word(two, XMM + 16 + 8), 0x32, "each to its own thread");
    }
    target_close(target);
}

static void test_careless(void)
{
    static const char *const bad[] = {
        "",      "\n\n",          "Thread 2 (LWP 5):\n",          "Thread 2 (LWP 5):\nrax 1\n",
        "rsp\n", "No threads.\n", "Thread 1 (LWP 99999999999):\n"};
    struct hi_err err;
    size_t threads;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct target *target = open_empty();
        ok(gdb_registers_apply(target, bad[i], &threads, &err) == HI_BAD_INPUT,
           "no thread with a stack in text %zu", i);
        target_close(target);
    }
    struct target *target = open_empty();
    ok(gdb_registers_apply(target,
                           "Thread 1 (LWP 7):\nrsp 0x10\nzmm3 {v8_int64 = {0x1, 0x2\n"
                           "zmm99 {v8_int64 = {0x1 <repeats 8 times>}}\nymm {\nxmm1 v2_int64 = {\n"
                           "zmm4 {v8_int64 = {0x0 <repeats 18446744073709551615 times>}}",
                           &threads, &err) == HI_OK,
       "cut lines are passed over");
    is_u64(threads, 1, "... and the thread stands");
    target_close(target);
    target = open_empty();
    ok(gdb_registers_apply(target, "rsp 0x7000 0x7000\nrip 0x10\n", &threads, &err) == HI_OK &&
           thread_of(target, target_pid(target)) != NULL,
       "plain \"info registers\" is the main thread's");
    target_close(target);
}

int main(void)
{
    test_two_threads();
    test_in_two_parts();
    test_careless();
    return done();
}
