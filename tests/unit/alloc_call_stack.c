/*
 * Captured stacks beside backtrace(), in all the places that are hard: recursion and every order of
 * coming and going, callbacks through the C library, aligned and growing frames, signal handlers on
 * their own stack and on the program's, coroutines whose stacks go and come back smaller, threads,
 * forked children, libraries that take each other's place, code without unwind information, and
 * code whose CFA is in registers that no other code uses.
 *
 * Linked with the allocator's own objects, not with the library; and once more without
 * _dl_find_object, and as a static program (tests.mk).
 */
#define _GNU_SOURCE
#include "allocator/cfi_rows.h"
#include "programs/capture_compare.h"
#include "unit/tap.h"

#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define NOINLINE_HERE __attribute__((noinline, noclone))

struct hm_hot hm_hot;
static struct hm_root root;

struct tally {
    unsigned long compared, different, wrong;
};
static __thread struct tally tally;
static __thread struct compared_stack seen_buffers[2]; /* the second for handlers */
static __thread bool in_handler, may_be_cut;
#define seen (seen_buffers[in_handler])
static __thread uint32_t last_id;

static void print_compared(void)
{
    const struct compared_stack *s = &seen;
    for (uint32_t i = 0; i < 40 && (i < s->our_count || i < s->their_count); i++)
        printf("#  %2u %12lx flags %x %12lx\n", i, i < s->our_count ? frame_address(s->ours[i]) : 0,
               i < s->our_count ? frame_flags(s->ours[i]) : 0,
               i < s->their_count ? (uintptr_t)s->theirs[s->their_first + i] : 0);
}

/* The function that captures, as malloc would. The program's frames begin with its caller. */
static NOINLINE_HERE unsigned probe(void)
{
    struct call_site site = CALL_SITE();
    errno = 77;
    last_id = call_stack_capture(&site);
    tally.wrong += errno != 77 || last_id == 0;
    tally.compared++;
    bool equal = compare_stack(&seen, last_id, &site);
    bool whole = !seen.cut || may_be_cut || seen.our_count == COMPARE_DEPTH_MAX;
    if (!(equal && whole) && tally.different++ == 0)
        print_compared();
    return last_id;
}

static struct tally tally_take(void)
{
    struct tally t = tally;
    tally = (struct tally){0};
    return t;
}

static void all_equal(const char *what, unsigned long least)
{
    struct tally t = tally_take();
    ok(t.compared >= least && t.different == 0 && t.wrong == 0,
       "%s: %lu of %lu as backtrace() says", what, t.compared - t.different, t.compared);
}

/* ---- recursion ---- */

static uint64_t random_state = 1;

static unsigned next_random(void)
{
    random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(random_state >> 33);
}

static NOINLINE_HERE unsigned wander(int depth);

static NOINLINE_HERE unsigned wander_array(int depth)
{
    volatile char pad[200];
    pad[3] = (char)depth;
    return wander(depth) + (unsigned)pad[3];
}

static NOINLINE_HERE unsigned wander_alloca(int depth)
{
    volatile char *pad = __builtin_alloca(16 + next_random() % 500);
    pad[5] = (char)depth;
    return wander(depth) + (unsigned)pad[5];
}

/* Aligned to more than the stack is, with arguments on the stack: gcc keeps the CFA in memory. */
static NOINLINE_HERE unsigned wander_aligned(int depth, long b, long c, long d, long e, long f,
                                             volatile long g, volatile long h)
{
    volatile char pad[64] __attribute__((aligned(64)));
    volatile char *more = __builtin_alloca(16 + next_random() % 100);
    pad[1] = more[2] = (char)(b + c + d + e + f);
    return wander(depth) + (unsigned)pad[1] + (unsigned)g + (unsigned)h + (unsigned)more[2];
}

static NOINLINE_HERE unsigned wander_wide(int depth)
{
    volatile double lanes[8] __attribute__((aligned(64))) = {1};
    for (int i = 1; i < 8; i++)
        lanes[i] = lanes[i - 1] * depth;
    return wander(depth) + (unsigned)lanes[1];
}

static NOINLINE_HERE unsigned wander(int depth)
{
    unsigned sum = 0;
    for (unsigned turns = next_random() % 3 + 1; turns > 0; turns--) {
        unsigned pick = next_random();
        if (depth == 0 || pick % 16 == 0)
            sum += probe();
        else if (pick % 5 == 0)
            sum += wander(depth - 1);
        else if (pick % 5 == 1)
            sum += wander_array(depth - 1);
        else if (pick % 5 == 2)
            sum += wander_alloca(depth - 1);
        else if (pick % 5 == 3)
            sum += wander_aligned(depth - 1, 1, 2, 3, 4, 5, 6, 7);
        else
            sum += wander_wide(depth - 1);
    }
    return sum;
}

static void test_wander(void)
{
    for (int i = 0; i < 60; i++)
        wander(i % 9);
    all_equal("calls at random, with arrays, alloca and aligned frames", 1000);
    for (int i = 0; i < 200; i++)
        wander(1);
    all_equal("shallow ones", 300);
}

static NOINLINE_HERE unsigned deep(int depth)
{
    unsigned below = depth > 0 ? deep(depth - 1) : probe();
    if (depth % 100 == 7)
        below += probe();
    return below + 1;
}

static void test_depth(void)
{
    deep(900);
    all_equal("900 calls deep", 9);
    deep(3000);
    all_equal("3000 calls deep, and on the way back", 31);
    random_state = 5;
    for (int i = 0; i < 20; i++)
        wander(6);
    all_equal("and the stacks after that", 100);
}

static NOINLINE_HERE unsigned deep_only(int depth)
{
    unsigned below = depth > 0 ? deep_only(depth - 1) : probe();
    __asm__ volatile("" : "+r"(below)); /* a call, not a loop */
    return below;
}

static void test_cut(void)
{
    volatile unsigned sink = deep_only(2000);
    (void)sink;
    bool same = seen.equal && seen.our_count == COMPARE_DEPTH_MAX && seen.cut;
    ok(same, "a stack of 2000 has its 1024 innermost frames, and says that it was cut");
    tally_take();
}

/* ---- the C library between ---- */

static int by_value(const void *a, const void *b)
{
    static unsigned turn;
    if (turn++ % 7 == 0)
        probe();
    return *(const int *)a - *(const int *)b;
}

static void test_qsort(void)
{
    int values[300];
    for (int i = 0; i < 300; i++)
        values[i] = (int)(next_random() % 1000);
    qsort(values, 300, sizeof values[0], by_value);
    bsearch(&values[7], values, 300, sizeof values[0], by_value);
    all_equal("from qsort's callback", 100);
}

/* ---- the same stack ---- */

static NOINLINE_HERE unsigned fixed_place(void)
{
    return probe() + 0 * next_random();
}

static void test_numbers(void)
{
    uint32_t ids[3];
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 100; k++)
            wander(i);
        fixed_place();
        ids[i] = last_id;
    }
    ok(ids[0] == ids[1] && ids[1] == ids[2], "the same stack has the same number");
    tally_take();
}

/* ---- signals ---- */

static volatile sig_atomic_t handled;
static volatile unsigned spin_sink;

static void on_signal(int number)
{
    (void)number;
    int saved = errno;
    uint32_t saved_id = last_id;
    handled = handled + 1;
    in_handler = true;
    wander_alloca(2);
    in_handler = false;
    last_id = saved_id;
    errno = saved;
}

static void signal_action(int number, int flags)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    sigaction(number, &action, NULL);
}

static NOINLINE_HERE unsigned raise_inside(int depth)
{
    if (depth > 0)
        return raise_inside(depth - 1) + 1;
    raise(SIGUSR1);
    return probe();
}

static void test_signals_raised(void)
{
    static char alternative[128 << 10];
    stack_t stack = {.ss_sp = alternative, .ss_size = sizeof alternative};
    signal_action(SIGUSR1, 0);
    for (int i = 0; i < 30; i++)
        raise_inside(i % 10);
    all_equal("in a signal handler", 60);
    sigaltstack(&stack, NULL);
    signal_action(SIGUSR1, SA_ONSTACK);
    for (int i = 0; i < 30; i++)
        raise_inside(i % 10);
    all_equal("on a stack of its own", 60);
}

/* The handler interrupts whatever is there, captures as well: then compared are the stacks of the
 * handler alone, for what it interrupted may be in the middle of a prologue of hand-written code.
 */
static __attribute__((unused)) void test_signals_at_any_time(void)
{
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    signal_action(SIGALRM, SA_RESTART);
    handled = 0;
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; handled < 200 && i < 2000000; i++) {
        struct call_site site = CALL_SITE();
        spin_sink = spin_sink + call_stack_capture(&site);
        if (i % 16 == 0)
            wander(3);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    all_equal("with handlers that interrupt captures", 400);
}

/* ---- coroutines ---- */

static ucontext_t main_context, other_context;

static void coroutine(void)
{
    for (int i = 0; i < 5; i++) {
        wander(4);
        swapcontext(&other_context, &main_context);
    }
}

static void coroutine_run(size_t bytes, char *place)
{
    char *stack = mmap(place, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | (place ? MAP_FIXED : 0), -1, 0);
    getcontext(&other_context);
    other_context.uc_stack.ss_sp = stack;
    other_context.uc_stack.ss_size = bytes;
    other_context.uc_link = &main_context;
    makecontext(&other_context, coroutine, 0);
    for (int i = 0; i < 6; i++) {
        swapcontext(&main_context, &other_context);
        wander(2);
    }
    munmap(stack, bytes);
}

static void test_coroutines(void)
{
    size_t most = 256 << 10;
    char *room = mmap(NULL, 2 * most, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t bytes = most; bytes >= (64 << 10); bytes -= 12 << 10) {
        coroutine_run(bytes, NULL);
        /* the same addresses below, each time with less above */
        coroutine_run(bytes, room);
        mmap(room, most, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
    all_equal("on stacks of coroutines, to their ends", 1000);
}

/* ---- threads and processes ---- */

static struct tally thread_tallies[8];
static uint32_t thread_ids[8];
static uint64_t thread_seeds[8];

static NOINLINE_HERE unsigned thread_place(void)
{
    return probe() + (unsigned)(random_state & 0);
}

static void *thread_main(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    random_state = thread_seeds[me];
    for (int i = 0; i < 40; i++)
        wander(5);
    thread_place();
    thread_ids[me] = last_id;
    thread_tallies[me] = tally;
    call_stack_thread_end();
    wander(3); /* destructors that run later */
    thread_tallies[me].different += tally.different - thread_tallies[me].different;
    return NULL;
}

static void test_threads(void)
{
    for (int round = 0; round < 3; round++) {
        pthread_t threads[8];
        bool same = true;
        for (unsigned i = 0; i < 8; i++) {
            thread_seeds[i] = next_random();
            pthread_create(&threads[i], NULL, thread_main, (void *)(uintptr_t)i);
        }
        for (unsigned i = 0; i < 8; i++) {
            pthread_join(threads[i], NULL);
            tally.compared += thread_tallies[i].compared;
            tally.different += thread_tallies[i].different;
            tally.wrong += thread_tallies[i].wrong;
            same &= thread_ids[i] == thread_ids[0];
        }
        all_equal("on eight threads", 1000);
        ok(same, "the same stack has the same number on all of them");
    }
}

static void test_fork(void)
{
    pid_t child = fork();
    if (child == 0) {
        call_stack_forked();
        wander(5);
        _exit(tally.different || tally.wrong);
    }
    int status = -1;
    waitpid(child, &status, 0);
    ok(status == 0, "in a forked child");
    tally_take();
}

#if !defined(CAPTURE_STATIC)
/* ---- libraries that come and go ---- */

static char *plugin_path(const char *name)
{
    static char path[4200];
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = 0;
    snprintf(path, sizeof path, "%s/../programs/%s", dirname(self), name);
    return path;
}

/* Calls through a plugin; where it was called, and the epoch of its frame. */
static void plugin_use(const char *name, const char *function, bool say, uintptr_t *place,
                       uint32_t *epoch)
{
    void *library = dlopen(plugin_path(name), RTLD_NOW);
    unsigned (*call)(unsigned (*)(void));
    *(void **)&call = library ? dlsym(library, function) : NULL;
    *place = 0;
    if (!call)
        return;
    for (int i = 0; i < 3; i++)
        call(probe);
    *place = frame_address(seen.ours[0]);
    *epoch = frame_epoch(seen.ours[0]);
    dlclose(library);
    if (say)
        call_stack_unloaded();
}

static const struct hm_module *module_of(uint64_t frame)
{
    const struct hm_stack_table *table = stack_hot.table;
    for (uint32_t i = 0; i < table->module_count; i++) {
        const struct hm_module *m = (const struct hm_module *)(uintptr_t)table->modules + i;
        if (frame_address(frame) - m->start < m->end - m->start &&
            frame_epoch(frame) >= m->first_epoch && frame_epoch(frame) <= m->last_epoch)
            return m;
    }
    return NULL;
}

static bool path_ends(const struct hm_module *m, const char *name)
{
    size_t length = strlen(name);
    return m && m->path_bytes >= length &&
           memcmp((const char *)(uintptr_t)m->path + m->path_bytes - length, name, length) == 0;
}

static void test_plugins(void)
{
    uintptr_t one, two;
    uint32_t epoch_one = 0, epoch_two = 0;
    uint64_t frame_one, frame_two;
    plugin_use("plugin_one.so", "plugin_call", true, &one, &epoch_one);
    frame_one = seen.ours[0];
    plugin_use("plugin_two.so", "plugin_call", true, &two, &epoch_two);
    frame_two = seen.ours[0];
    if (!ok(one != 0 && one == two, "two libraries at the same address, one after the other"))
        return;
    all_equal("through either", 6);
    ok(epoch_one != epoch_two, "their frames tell them apart");
    ok(path_ends(module_of(frame_one), "plugin_one.so") &&
           path_ends(module_of(frame_two), "plugin_two.so"),
       "and lead to the right ones, both gone");
    const struct hm_module *a = module_of(frame_one), *b = module_of(frame_two);
    ok(a->build_id_bytes == 20 && b->build_id_bytes == 20 &&
           memcmp(a->build_id, b->build_id, 20) != 0,
       "with their build-ids");
    uint32_t modules = stack_hot.table->module_count;
    for (int i = 0; i < 40; i++) {
        plugin_use("plugin_two.so", "plugin_call", true, &two, &epoch_two);
        plugin_use("plugin_two.so", "plugin_other", true, &two, &epoch_two);
    }
    all_equal("the same one again and again", 240);
    ok(stack_hot.table->module_count == modules, "makes no new modules");
    for (int i = 0; i < 20; i++)
        plugin_use(i % 2 ? "plugin_two.so" : "plugin_one.so", "plugin_other", true, &two,
                   &epoch_two);
    all_equal("one and the other in turn", 60);
}

/* Nobody says that a library went: the next one is found out at its first new row. */
static void test_plugins_unsaid(void)
{
    uintptr_t one, two;
    uint32_t epoch_one = 0, epoch_two = 0;
    plugin_use("plugin_one.so", "plugin_call", true, &one, &epoch_one);
    plugin_use("plugin_one.so", "plugin_call", false, &one, &epoch_one);
    plugin_use("plugin_two.so", "plugin_first", false, &two, &epoch_two);
    tally_take();
    void *library = dlopen(plugin_path("plugin_two.so"), RTLD_NOW);
    unsigned (*call)(unsigned (*)(void));
    *(void **)&call = dlsym(library, "plugin_call");
    call(probe);
    all_equal("a library that went unsaid is noticed by the next", 1);
    ok(path_ends(module_of(seen.ours[0]), "plugin_two.so"), "which is then taken for itself");
    dlclose(library);
    call_stack_unloaded();
}

#endif

/* ---- code that nobody describes ---- */

#if defined(__x86_64__)
static unsigned (*make_code(const uint8_t *bytes, size_t count))(unsigned (*)(void))
{
    uint8_t *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned (*code)(unsigned (*)(void));
    memcpy(page + 64, bytes, count);
    void *start = page + 64;
    memcpy(&code, &start, sizeof code);
    return code;
}

static NOINLINE_HERE unsigned call_code(unsigned (*code)(unsigned (*)(void)))
{
    volatile char pad[48] = {1};
    return code(probe) + (unsigned)pad[0];
}

static void test_bare_code(void)
{
    /* push rbp; mov rbp, rsp; call rdi; pop rbp; ret */
    static const uint8_t with_frame[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};
    /* push rbp; xor ebp, ebp; call rdi; pop rbp; ret */
    static const uint8_t without[] = {0x55, 0x31, 0xed, 0xff, 0xd7, 0x5d, 0xc3};
    /* push rbp; mov rbp, 0x1000; call rdi; pop rbp; ret */
    static const uint8_t wild[] = {0x55, 0x48, 0xc7, 0xc5, 0x00, 0x10,
                                   0x00, 0x00, 0xff, 0xd7, 0x5d, 0xc3};
    struct compared_stack plain;
    for (int i = 0; i < 70; i++)
        fixed_place();
    may_be_cut = true;
    call_code(make_code(with_frame, sizeof with_frame));
    plain = seen;
    ok(plain.equal && plain.described_count == 1 && plain.our_count > 3 && !plain.cut,
       "through code without unwind information, by its frame pointer");
    uintptr_t caller = frame_address(plain.ours[1]);
    ok(caller - (uintptr_t)call_code < 200 && frame_flags(plain.ours[1]) == HM_FRAME_GUESSED &&
           frame_flags(plain.ours[2]) == 0,
       "to its caller, marked as guessed, and on");
    call_code(make_code(without, sizeof without));
    ok(seen.equal && seen.our_count == 1 && seen.cut, "without one the stack is cut");
    call_code(make_code(wild, sizeof wild));
    ok(seen.equal && seen.our_count == 1 && seen.cut, "also where rbp points nowhere");
    may_be_cut = false;
    tally_take();
}

/* CFA in r12; in an expression; return address known only to an expression. */
__asm__(".text\n"
        ".type call_by_r12, @function\n"
        "call_by_r12:\n"
        ".cfi_startproc\n"
        "push %r12\n"
        ".cfi_def_cfa_offset 16\n"
        ".cfi_offset 12, -16\n"
        "mov %rsp, %r12\n"
        ".cfi_def_cfa_register 12\n"
        "sub $264, %rsp\n"
        "and $-64, %rsp\n"
        "call *%rdi\n"
        "mov %r12, %rsp\n"
        ".cfi_def_cfa_register 7\n"
        "pop %r12\n"
        ".cfi_def_cfa_offset 8\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size call_by_r12, .-call_by_r12\n"
        ".type call_by_expression, @function\n"
        "call_by_expression:\n"
        ".cfi_startproc\n"
        "push %rbx\n"
        ".cfi_def_cfa_offset 16\n"
        ".cfi_offset 3, -16\n"
        "sub $128, %rsp\n"
        "lea 144(%rsp), %rax\n"
        "mov %rax, 8(%rsp)\n"
        /* CFA = *(rsp + 8) = rsp + 144: breg7 8; deref */
        ".cfi_escape 0x0f, 0x03, 0x77, 0x08, 0x06\n"
        "call *%rdi\n"
        "add $128, %rsp\n"
        ".cfi_def_cfa 7, 16\n"
        "pop %rbx\n"
        ".cfi_def_cfa_offset 8\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size call_by_expression, .-call_by_expression\n");
unsigned call_by_r12(unsigned (*f)(void));
unsigned call_by_expression(unsigned (*f)(void));

static NOINLINE_HERE unsigned expression_inside(void)
{
    return call_by_expression(probe) + 1;
}

static NOINLINE_HERE unsigned r12_inside(void)
{
    return call_by_r12(expression_inside) + 1;
}

static void test_odd_rows(void)
{
    for (int i = 0; i < 20; i++) {
        call_by_r12(probe);
        call_by_expression(probe);
        call_by_expression(r12_inside);
        wander(2);
    }
    all_equal("frames that rest on other registers and on expressions", 60);
}
#endif

/* ---- before all, and the tables ---- */

/* The address that a row in this place with this tag is for. */
static uintptr_t row_place_address(struct row_place place)
{
    uint64_t line = (uint64_t)(place.line - stack_hot.rows) / 8, inverse = 1;
    uint64_t page = line >> ROW_LINE_BITS, mask = (1ULL << ROW_HASH_BITS) - 1;
    uint64_t hash = (line & ((1u << ROW_LINE_BITS) - 1)) << ROW_TAG_BITS | place.tag;
    for (int i = 0; i < 6; i++)
        inverse *= 2 - ROW_PC_MULTIPLY * inverse;
    uint64_t low = hash * inverse & mask;
    return low | (page ^ (low >> ROW_CODE_SHIFT & ((1u << ROW_PAGE_BITS) - 1))) << ROW_HASH_BITS;
}

static void test_row_places(void)
{
    unsigned long wrong = 0;
    for (int i = 0; i < 100000; i++) {
        uintptr_t pc = ((uint64_t)next_random() << 31 ^ next_random()) >> i % 48;
        pc &= (1ULL << ROW_PC_BITS) - 1;
        struct row_place place = row_place(pc);
        wrong += row_place_address(place) != pc || place.tag >> ROW_TAG_BITS || place.first > 7 ||
                 (uint64_t)(place.line - stack_hot.rows) >= STACK_ROW_LINES * 8;
    }
    ok(wrong == 0, "the place of a row and its tag say which address it is for (%lu do not)",
       wrong);
}

static void test_table(void)
{
    const struct hm_stack_table *table = stack_hot.table;
    const struct hm_stack_node *nodes = (const struct hm_stack_node *)(uintptr_t)table->nodes;
    bool sound = root.stacks == (uintptr_t)table && table->node_count > 100;
    unsigned long twice = 0;
    for (uint32_t i = 2; i < table->node_count; i++) {
        sound &= nodes[i].frame != 0 && nodes[i].parent < i;
        for (uint32_t k = i + 1; k < table->node_count && k < i + 50; k++)
            twice += nodes[i].frame == nodes[k].frame && nodes[i].parent == nodes[k].parent;
    }
    ok(sound, "all %u nodes are complete, and come after their parents", table->node_count);
    /* threads that race for the same frame leave one unused */
    ok(twice <= 16 * 8, "and hardly one is there twice (%lu)", twice);
    ok(table->lost == 0, "no stack was lost");
}

int main(void)
{
    void *warm[4];
    struct call_site site = {0x1000, 0, 0};
    backtrace(warm, 4);
    ok(call_stack_capture(&site) == STACK_NODE_NONE, "before there is a table: the stack unknown");
    hm_hot.root = &root;
    ok(call_stack_start(HM_STACKS_FULL, 0), "a table of stacks");
    test_wander();
    test_depth();
    test_cut();
    test_qsort();
    test_numbers();
    test_signals_raised();
#if !defined(CAPTURE_STATIC) /* there backtrace() takes a lock, and stands still in a handler */
    test_signals_at_any_time();
#endif
    test_coroutines();
    test_threads();
    test_fork();
#if !defined(CAPTURE_STATIC)
    test_plugins();
    test_plugins_unsaid();
#endif
#if defined(__x86_64__)
    test_bare_code();
    test_odd_rows();
#endif
    test_row_places();
    test_table();
    return done();
}
