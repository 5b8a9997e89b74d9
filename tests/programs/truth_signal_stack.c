/* A signal handler that runs on an alternate stack: the frames and the registers that it
 * interrupted hold their blocks still. The stack lies in data, in a block, or in a mapping. */
#include "programs/truth.h"

#include <signal.h>
#include <sys/mman.h>

enum { STACK_BYTES = 256 * 1024 };

static char stack_in_data[STACK_BYTES] __attribute__((aligned(64)));
static void *volatile stack_pointer_kept;

static void handler(int signal)
{
    (void)signal;
    void *volatile held[2] = {0};
    held[1] = truth_chain(3, 104, TRUTH_HELD, TRUTH_HELD);
    truth_ready();
    (void)held[1];
}

TRUTH_NOINLINE static void use_stack(const char *where)
{
    stack_t stack = {.ss_sp = stack_in_data, .ss_size = STACK_BYTES};
    if (strcmp(where, "heap") == 0)
        stack.ss_sp = truth_malloc(STACK_BYTES);
    else if (strcmp(where, "map") == 0)
        stack.ss_sp =
            mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_pointer_kept = stack.ss_sp;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    if (sigaltstack(&stack, NULL) || sigaction(SIGUSR1, &action, NULL))
        truth_fail("sigaltstack");
}

TRUTH_NOINLINE static uint64_t for_register(void)
{
    return truth_masked(truth_chain(3, 72, TRUTH_HELD, TRUTH_HELD));
}

/* kill(getpid(), SIGUSR1) with a block in r12. */
TRUTH_NOINLINE static void interrupt_here(void)
{
    uint64_t masked = for_register();
    __asm__ volatile("mov %[masked], %%r12\n\t"
                     "xor %[mask], %%r12\n\t"
                     "mov $62, %%eax\n\t"
                     "syscall"
                     :
                     : [masked] "r"(masked), [mask] "r"(TRUTH_MASK), "D"(getpid()), "S"(SIGUSR1)
                     : "rax", "rcx", "r11", "r12", "memory");
}

TRUTH_NOINLINE static void deep(int depth)
{
    void *volatile local[4] = {0};
    local[2] = truth_chain(2, 72, TRUTH_HELD, TRUTH_HELD);
    if (depth > 0)
        deep(depth - 1);
    else
        interrupt_here();
    (void)local[2];
}

int main(int argc, char **argv)
{
    truth_begin();
    truth_chain(4, 72, TRUTH_DIRECT, TRUTH_INDIRECT);
    use_stack(argc > 1 ? argv[1] : "data");
    deep(5);
}
