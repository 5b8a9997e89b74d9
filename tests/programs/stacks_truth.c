/*
 * Blocks whose allocating calls this program knows: it notes function and line of each call on the
 * way down, and prints, innermost first,
 *
 *     stack KIND ADDRESS BYTES FUNCTION:LINE FUNCTION:LINE ...
 *
 * KIND: direct, indirect, live, freed (then a line `freed_by` follows). Every CALL stands on one
 * line, so that __LINE__ is the line of the call instruction. What is noted lies in static memory
 * and holds addresses masked only.
 *
 *     stacks_truth [exit]     stands still, or ends with status 3
 */
#include "programs/truth.h"

#include <dlfcn.h>

enum { DEPTH_MOST = 64 };

static struct {
    const char *function;
    int line;
} trace[DEPTH_MOST];
static unsigned depth;

static void trace_push(const char *function, int line)
{
    if (depth >= DEPTH_MOST)
        truth_fail("too deep");
    trace[depth].function = function;
    trace[depth++].line = line;
}

/* No tail calls: something is left to be done after each. */
#define CALL(call)                                                                                 \
    (__extension__({                                                                               \
        trace_push(__func__, __LINE__);                                                            \
        __typeof__(call) result_ = (call);                                                         \
        depth--;                                                                                   \
        result_;                                                                                   \
    }))
#define DO(call) ((void)CALL(((call), 0)))

/* The same number, which the compiler does not know to be freed. */
TRUTH_NOINLINE static void *truth_unmasked(uint64_t masked)
{
    return (void *)(uintptr_t)(masked ^ TRUTH_MASK);
}

/* The last frame that was pushed is the one that called malloc or free. */
static void tell(const char *kind, const void *address, size_t bytes)
{
    printf("stack %s %#lx %zu", kind, (unsigned long)address, bytes);
    for (unsigned i = depth; i-- > 0;)
        printf(" %s:%d", trace[i].function, trace[i].line);
    printf("\n");
}

/* In a macro, so that no frame of ours stands between. */
#define ALLOCATE(kind, bytes)                                                                      \
    (__extension__({                                                                               \
        trace_push(__func__, __LINE__);                                                            \
        void *block_ = malloc(bytes);                                                              \
        memset(block_, 0, bytes);                                                                  \
        tell(kind, block_, bytes);                                                                 \
        depth--;                                                                                   \
        block_;                                                                                    \
    }))

TRUTH_NOINLINE static void *make_inner(void)
{
    return ALLOCATE("indirect", 568);
}

TRUTH_NOINLINE static void *make_outer(void)
{
    void **outer = ALLOCATE("direct", 568);
    outer[0] = CALL(make_inner());
    return outer;
}

/* The seed: a block that holds another, both of 568 bytes. */
TRUTH_NOINLINE static void lose_pair(void)
{
    void *volatile pair = CALL(make_outer());
    pair = NULL;
    (void)pair;
}

TRUTH_NOINLINE static void lose_many(void)
{
    for (int i = 0; i < 10; i++) {
        void *volatile lost = ALLOCATE("direct", 100);
        (void)lost;
    }
}

TRUTH_NOINLINE static void lose_deep(unsigned more)
{
    void *volatile lost = NULL;
    if (more)
        DO(lose_deep(more - 1));
    else
        lost = ALLOCATE("direct", 333);
    (void)lost;
}

__attribute__((always_inline)) static inline void *inlined_inner(size_t bytes)
{
    return ALLOCATE("live", bytes);
}

__attribute__((always_inline)) static inline void *inlined_outer(size_t bytes)
{
    return CALL(inlined_inner(bytes));
}

TRUTH_NOINLINE static void keep_inlined(void)
{
    truth_keep(CALL(inlined_outer(4444)));
}

TRUTH_NOINLINE static void keep_large(void)
{
    truth_keep(ALLOCATE("live", 3000000));
}

TRUTH_NOINLINE static void give_back(void *block)
{
    void *address = truth_unmasked(truth_masked(block));
    trace_push(__func__, __LINE__ + 1);
    free(block);
    tell("freed_by", address, 0);
    depth--;
}

TRUTH_NOINLINE static void use_and_free(void)
{
    void *block = ALLOCATE("freed", 777);
    DO(give_back(block));
}

static void note_of_module(const char *function, int line)
{
    trace_push(function, line);
}

/* A library that allocates and goes. Its block is live. */
TRUTH_NOINLINE static void use_module(const char *program)
{
    char path[4096];
    const char *slash = strrchr(program, '/');
    snprintf(path, sizeof path, "%.*sstacks_gone.so", slash ? (int)(slash - program + 1) : 0,
             program);
    void *module = dlopen(path, RTLD_NOW);
    if (!module)
        truth_fail(dlerror());
    void *(*allocate)(void (*)(const char *, int), size_t);
    *(void **)&allocate = dlsym(module, "gone_allocate");
    if (!allocate)
        truth_fail("no gone_allocate");
    void *block = CALL(allocate(note_of_module, 6060));
    depth++; /* the module's own, which it pushed */
    tell("live", block, 6060);
    depth -= 2;
    truth_keep(block);
    if (dlclose(module) != 0)
        truth_fail("dlclose");
}

TRUTH_NOINLINE static void plant(const char *program)
{
    DO(lose_pair());
    DO(lose_many());
    DO(lose_deep(20));
    DO(keep_inlined());
    DO(keep_large());
    DO(use_and_free());
    DO(use_module(program));
}

int main(int argc, char **argv)
{
    truth_begin();
    DO(plant(argv[0]));
    truth_clear_stack();
    if (argc > 1)
        return 3;
    truth_ready();
}
