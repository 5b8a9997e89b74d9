/* Coroutines: what a stack holds that a root leads to, saved or running, in a block or a mapping.
 *
 *   truth_context saved      main stands; coroutines are switched away, one is lost with its stack
 *   truth_context running    a coroutine stands, on a stack in a block; main's frames hold
 */
#include "programs/truth.h"

#include <sys/mman.h>
#include <ucontext.h>

enum { STACK_BYTES = 256 * 1024 };

static ucontext_t main_context;
static ucontext_t *volatile kept_contexts[4];
static int stands;

TRUTH_NOINLINE static void *volatile *inner(void *volatile *places, ucontext_t *own,
                                            enum truth_state state)
{
    places[1] = truth_chain(3, 88, state, state);
    if (stands)
        truth_ready();
    swapcontext(own, &main_context);
    return places;
}

static void body(unsigned low, unsigned high, unsigned state)
{
    void *volatile places[4] = {0};
    ucontext_t *own = (ucontext_t *)(uintptr_t)((uint64_t)high << 32 | low);
    inner(places, own, (enum truth_state)state);
    (void)places[1];
}

/* The context and, unless mapped, the stack are blocks; the context knows the stack. */
TRUTH_NOINLINE static ucontext_t *start(int mapped, enum truth_state own, enum truth_state rest)
{
    ucontext_t *context = truth_malloc(sizeof *context);
    getcontext(context);
    context->uc_stack.ss_size = STACK_BYTES;
    if (mapped) {
        char *guarded =
            mmap(NULL, STACK_BYTES + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        context->uc_stack.ss_sp = guarded + 4096;
        mprotect(guarded + 4096, STACK_BYTES, PROT_READ | PROT_WRITE);
    } else {
        context->uc_stack.ss_sp = truth_malloc(STACK_BYTES);
        truth_mark(context->uc_stack.ss_sp, rest);
    }
    truth_mark(context, own);
    context->uc_link = &main_context;
    makecontext(context, (void (*)(void))body, 3, (unsigned)(uintptr_t)context,
                (unsigned)((uintptr_t)context >> 32), (unsigned)rest);
    swapcontext(&main_context, context);
    return context;
}

/* A lost coroutine is a ring of its context and its stack, which point to each other. */
TRUTH_NOINLINE static void saved(void)
{
    kept_contexts[0] = start(0, TRUTH_HELD, TRUTH_HELD);
    kept_contexts[1] = start(1, TRUTH_HELD, TRUTH_HELD);
    ucontext_t *lost = start(0, TRUTH_RING, TRUTH_INDIRECT);
    truth_mark(lost->uc_stack.ss_sp, TRUTH_RING);
    truth_rings++;
    memset(&main_context, 0, sizeof main_context); /* swapcontext() kept its arguments there */
}

TRUTH_NOINLINE static void running(void)
{
    void *volatile local[4] = {0};
    local[2] = truth_chain(5, 72, TRUTH_HELD, TRUTH_HELD);
    stands = 1;
    kept_contexts[0] = start(0, TRUTH_HELD, TRUTH_HELD);
    (void)local[2];
}

int main(int argc, char **argv)
{
    truth_begin();
    truth_chain(4, 72, TRUTH_DIRECT, TRUTH_INDIRECT);
    truth_clear_stack(); /* how far down the stack of a thread that runs elsewhere is dead, who
                            knows */
    if (argc > 1 && strcmp(argv[1], "running") == 0)
        running();
    saved();
    truth_ready();
}
