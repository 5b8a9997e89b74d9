/*
 * Which part of a stack counts: in a handler of exit(), in a signal handler on an alternate stack,
 * on a coroutine's stack; and values that stand in nothing but a register. See roots_truth.h.
 */
#include "unit/roots_truth.h"

#include <alloca.h>
#include <link.h>
#include <ucontext.h>

enum {
    STALE,
    EXIT_CALLER,
    HANDLER_FRAME,
    INTERRUPTED,
    BELOW_INTERRUPTED,
    BELOW_HANDLER,
    IN_COROUTINE,
    BELOW_COROUTINE,
    IN_OWN_STACK,
    IN_RBX,
    IN_R12,
    IN_MM,
    IN_XMM,
    IN_YMM,
    IN_ZMM,
    IN_HEAP_STACK,
};

__attribute__((noinline)) static void leave_below(int id)
{
    volatile uint64_t frame[4096];
    truth_put(id, &frame[2048]);
    __asm__ volatile("" ::"r"(frame) : "memory");
}

/* ---- exit() ---- */

/* A large frame that is not written: what was left there before stays. */
static void exit_handler(void)
{
    volatile uint64_t *room = alloca(48 << 10);
    __asm__ volatile("" ::"r"(room) : "memory");
    truth_park();
}

__attribute__((noinline)) static void caller_of_exit(void)
{
    volatile uint64_t word;
    leave_below(STALE);
    truth_put(EXIT_CALLER, &word);
    truth_scrub();
    exit(word == 1);
}

static void exiting(void)
{
    atexit(exit_handler);
    caller_of_exit();
}

static void ask_exiting(struct view *view)
{
    hi_addr stale = truth->place[STALE] ^ TRUTH_MASK;
    const struct thread *thread = target_thread(view->target, 0);
    ok(stale > thread->sp && view_holds(view, stale, stale + 8, truth_value(STALE)),
       "%s: a stale word lies above SP", view->name);
    expect(view, STALE, "nowhere", "a stale word below the frame that called exit");
    expect(view, EXIT_CALLER, "stack", "the frame that called exit");
}

static void *exiting_thread(void *context)
{
    (void)context;
    caller_of_exit();
    return NULL;
}

static void thread_exits(void)
{
    pthread_t thread;
    atexit(exit_handler);
    pthread_create(&thread, NULL, exiting_thread, NULL);
    pthread_join(thread, NULL);
}

static void ask_thread_exits(struct view *view)
{
    expect(view, STALE, "nowhere", "a stale word on the exiting thread's stack");
    expect(view, EXIT_CALLER, "stack", "the frame that called exit");
    expect_tid(view, EXIT_CALLER, "the frame that called exit");
}

/* ---- a handler on an alternate stack ---- */

static void on_signal(int signal)
{
    volatile uint64_t word;
    (void)signal;
    leave_below(BELOW_HANDLER);
    truth_put(HANDLER_FRAME, &word);
    truth_park();
}

__attribute__((noinline)) static void use_alternate_stack(int signal)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    stack_t stack = {.ss_size = 128 << 10};
    /* in the middle of a mapping: the kernel knows where the stack ends, the mapping does not */
    char *memory =
        mmap(NULL, 512 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack.ss_sp = memory + (128 << 10);
    if (sigaltstack(&stack, NULL) || sigaction(signal, &action, NULL))
        _exit(93);
}

__attribute__((noinline)) static void interrupted_frame(void)
{
    volatile uint64_t word;
    leave_below(BELOW_INTERRUPTED);
    truth_put(INTERRUPTED, &word);
    truth_scrub();
    raise(SIGUSR1);
    truth_put(INTERRUPTED, &word);
}

static void *signalled_thread(void *context)
{
    (void)context;
    use_alternate_stack(SIGUSR1);
    interrupted_frame();
    return NULL;
}

static void main_signalled(void)
{
    use_alternate_stack(SIGUSR1);
    interrupted_frame();
}

static void thread_signalled(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, signalled_thread, NULL);
    pthread_join(thread, NULL);
}

static void ask_signalled(struct view *view)
{
    expect(view, HANDLER_FRAME, "stack", "the handler's frame on the alternate stack");
    expect_tid(view, HANDLER_FRAME, "the handler's frame");
    expect(view, INTERRUPTED, "stack", "the interrupted frame");
    expect_tid(view, INTERRUPTED, "the interrupted frame");
    expect(view, BELOW_INTERRUPTED, "nowhere", "below the interrupted SP");
    expect(view, BELOW_HANDLER, "nowhere", "below the handler's SP");
    ok(!view_is_node(view, BELOW_HANDLER), "%s: nor is that a node", view->name);
    hi_addr place = truth->place[HANDLER_FRAME] ^ TRUTH_MASK;
    const struct root_range *range = roots_range_at(&view->roots, place);
    const struct mapping *mapping = target_mapping_at(view->target, place);
    ok(range && mapping && range->end + (256 << 10) == mapping->end,
       "%s: the alternate stack ends where sigaltstack said", view->name);
}

/* ---- coroutines ---- */

static ucontext_t main_context, coroutine_context;

static void coroutine(void)
{
    volatile uint64_t word;
    leave_below(BELOW_COROUTINE);
    truth_put(IN_COROUTINE, &word);
    truth_park();
}

__attribute__((noinline)) static void run_coroutine(void *stack, size_t bytes)
{
    volatile uint64_t word;
    truth_put(IN_OWN_STACK, &word);
    getcontext(&coroutine_context);
    coroutine_context.uc_stack.ss_sp = stack;
    coroutine_context.uc_stack.ss_size = bytes;
    makecontext(&coroutine_context, coroutine, 0);
    swapcontext(&main_context, &coroutine_context);
    truth_put(IN_OWN_STACK, &word);
}

static void on_coroutine(void)
{
    const size_t bytes = 256 << 10;
    char *stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    run_coroutine(stack, bytes);
}

static void on_heap_coroutine(void)
{
    run_coroutine(malloc(64 << 10), 64 << 10); /* below the size that malloc would map */
}

static void ask_coroutine(struct view *view)
{
    expect(view, IN_COROUTINE, "stack", "a frame of the running coroutine");
    expect(view, IN_OWN_STACK, "stack", "the stack that it came from");
    ok(view_is_kept(view, IN_COROUTINE), "%s: its memory is held, wherever SP points", view->name);
    unsigned classes = view_classes(view, truth_value(BELOW_COROUTINE));
    ok(!(classes & 1u << ROOT_STACK), "%s: below its SP is no root", view->name);
}

/* ---- registers ---- */

/* 512 bits of values; bit 0: AVX-512 is there. Everything is cleared but one lane of each width. */
__attribute__((noinline)) static void hold_in_registers(void)
{
    uint64_t mm = truth_value(IN_MM), general[2] = {truth_value(IN_RBX), truth_value(IN_R12)};
    uint64_t xmm[2] = {0, truth_value(IN_XMM)};
    uint64_t ymm[4] = {0, 0, 0, truth_value(IN_YMM)};
    static uint64_t zmm[8] __attribute__((aligned(64)));
    zmm[6] = truth_value(IN_ZMM);
    bool has_zmm = __builtin_cpu_supports("avx512f");
    truth->place[IN_ZMM] = has_zmm;
    __asm__ volatile("movq %0, %%mm3\n\tmovdqu (%1), %%xmm11" ::"r"(mm), "r"(xmm) : "xmm11");
    __asm__ volatile("vmovdqu (%0), %%ymm6" ::"r"(ymm) : "xmm6");
    if (has_zmm)
        __asm__ volatile("vmovdqu64 (%0), %%zmm21" ::"r"(zmm));
    /* the only other copies are these variables; then the stack is left for good */
    explicit_bzero(xmm, sizeof xmm);
    explicit_bzero(ymm, sizeof ymm);
    explicit_bzero(zmm, sizeof zmm);
    explicit_bzero(&mm, sizeof mm);
    __asm__ volatile("mov (%%rdi), %%rbx\n\tmov 8(%%rdi), %%r12\n\t"
                     "movq $0, (%%rdi)\n\tmovq $0, 8(%%rdi)\n\t"
                     "xor %%ecx, %%ecx\n\txor %%edx, %%edx\n\txor %%esi, %%esi\n\t"
                     "xor %%edi, %%edi\n\txor %%r8d, %%r8d\n\txor %%r9d, %%r9d\n\t"
                     "xor %%r10d, %%r10d\n\txor %%r13d, %%r13d\n\txor %%r14d, %%r14d\n\t"
                     "xor %%r15d, %%r15d\n\t"
                     "lock incq (%%rax)\n"
                     "1:\tmov $34, %%eax\n\tsyscall\n\tjmp 1b" ::"D"(general),
                     "a"(&truth->ready)
                     : "memory");
    __builtin_unreachable();
}

static void in_registers(void)
{
    hold_in_registers();
}

static void ask_registers(struct view *view)
{
    expect(view, IN_RBX, "register", "a value only in rbx");
    expect(view, IN_R12, "register", "a value only in r12");
    expect(view, IN_MM, "vector", "a value only in mm3");
    expect(view, IN_XMM, "vector", "a value only in the upper half of xmm11");
    expect(view, IN_YMM, "vector", "a value only in the last lane of ymm6");
    if (truth->place[IN_ZMM])
        expect(view, IN_ZMM, "vector", "a value only in the seventh lane of zmm21");
    else
        ok(true, "%s # SKIP no AVX-512", view->name);
}

/* ---- main has ended, threads live on ---- */

static void *last_thread(void *context)
{
    (void)context;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)truth->tid[STALE]);
    for (char state = 0; state != 'Z'; usleep(1000)) {
        FILE *file = fopen(path, "r");
        if (!file || fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
            state = 'Z';
        if (file)
            fclose(file);
    }
    volatile uint64_t word;
    truth_put(IN_OWN_STACK, &word);
    truth_park();
    return NULL;
}

static void main_ends(void)
{
    pthread_t thread;
    setenv("A_NAME", "a value", 1);
    leave_below(STALE);
    pthread_create(&thread, NULL, last_thread, NULL);
    pthread_exit(NULL);
}

static void ask_main_ended(struct view *view)
{
    expect(view, IN_OWN_STACK, "stack", "the frame of the thread that is left");
    expect(view, STALE, "nowhere", "the stack of the main thread, which has ended");
    ok(!view_is_node(view, STALE), "%s: nor is that a node", view->name);
    /* main's record lies in the dynamic linker's memory, beside its list of modules */
    size_t seen = 0, held = 0;
    for (const struct link_map *map = _r_debug.r_map; map; map = map->l_next) {
        hi_addr at = (hi_addr)(uintptr_t)map;
        seen++;
        held += roots_range_at(&view->roots, at) != NULL ||
                range_list_holds(view->roots.nodes.items, view->roots.nodes.count, at);
    }
    ok(seen > 3 && held == seen, "%s: the list of modules is not dead", view->name);
}

int main(void)
{
    truth_setup();
    truth_ask(truth_start(exiting, 1), "exit", ask_exiting);
    truth_ask(truth_start(thread_exits, 1), "exit in a thread", ask_thread_exits);
    truth_ask(truth_start(main_signalled, 1), "signal", ask_signalled);
    truth_ask(truth_start(thread_signalled, 1), "signal in a thread", ask_signalled);
    truth_ask(truth_start(on_coroutine, 1), "coroutine", ask_coroutine);
    truth_ask(truth_start(on_heap_coroutine, 1), "coroutine in the heap", ask_coroutine);
    truth_ask(truth_start(in_registers, 1), "registers", ask_registers);
    truth_ask(truth_start(main_ends, 1), "main gone", ask_main_ended);
    truth_end();
    return done();
}
