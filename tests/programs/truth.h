/*
 * Programs that know their own truth.
 *
 * A truth program allocates, keeps, loses and frees blocks, books each of them, prints
 *
 *     block STATE ADDRESS REQUESTED USABLE     one line a block: what became of it
 *     expect KEY VALUE                         counts that an inspector must find
 *     ready PID
 *
 * and then stands still until it is killed (or dumps core), so that the same state can be inspected
 * live, with gcore, and in the kernel's core. Nothing here depends on the allocator.
 *
 * What makes the truth true:
 *   - The book holds addresses only XORed with a mask: it is no root.
 *   - Blocks are zeroed over their whole usable size, so that no word of an earlier life is left.
 *   - Pointers live only in functions that are not inlined. truth_stand() overwrites the dead stack
 *     below itself and clears every caller-saved and vector register before it waits. main() must
 *     keep no pointers to blocks, and so must every frame that is alive at that time.
 *   - A later event wins: an address freed and handed out again is booked as the latter.
 *   - Variables that hold are volatile: the compiler drops a static one that nobody reads.
 * A lost ring has one direct member, but which one is the inspector's choice: its blocks are booked
 * as `ring`, and truth_rings counts the rings.
 */
#ifndef TESTS_PROGRAMS_TRUTH_H
#define TESTS_PROGRAMS_TRUTH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define TRUTH_NOINLINE __attribute__((noinline, noclone, unused))
#define TRUTH_MASK     UINT64_C(0xa5c3960f5a3c69f0)

enum truth_state {
    TRUTH_NONE,
    TRUTH_HELD,
    TRUTH_DIRECT,
    TRUTH_INDIRECT,
    TRUTH_RING,
    TRUTH_POSSIBLE,
    TRUTH_FREED,
    TRUTH_ANY, /* live, but this program cannot say how it is held */
    TRUTH_STATES
};

#ifndef TRUTH_CAPACITY
#define TRUTH_CAPACITY (1 << 16) /* a power of two */
#endif

struct truth_entry {
    uint64_t masked; /* address ^ TRUTH_MASK; 0: empty */
    uint64_t requested_bytes;
    uint64_t usable_bytes : 56;
    uint64_t state : 8;
};

static struct truth_entry truth_book[TRUTH_CAPACITY];
static volatile char truth_lock;
static uint64_t truth_rings;
/* what truth_keep() holds: an ordinary table of pointers in writable data */
static void *volatile truth_kept[TRUTH_CAPACITY];
static volatile uint32_t truth_kept_count;
static char truth_output[1 << 16];
static uint32_t truth_standing; /* threads that stand still, registers cleared */

static void truth_fail(const char *what)
{
    fprintf(stderr, "truth: %s\n", what);
    _exit(97);
}

static struct truth_entry *truth_entry_of(uint64_t masked)
{
    uint64_t slot = (masked >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    for (uint32_t i = 0; i < TRUTH_CAPACITY; i++) {
        struct truth_entry *entry = &truth_book[(slot + i) & (TRUTH_CAPACITY - 1)];
        if (entry->masked == masked || entry->masked == 0)
            return entry;
    }
    truth_fail("the book is full");
    return NULL;
}

TRUTH_NOINLINE static void truth_event(uint64_t masked, enum truth_state state, uint64_t requested,
                                       uint64_t usable)
{
    while (__atomic_test_and_set(&truth_lock, __ATOMIC_ACQUIRE))
        ;
    struct truth_entry *entry = truth_entry_of(masked);
    entry->masked = masked;
    entry->state = state;
    if (requested || usable) {
        entry->requested_bytes = requested;
        entry->usable_bytes = usable;
    }
    __atomic_clear(&truth_lock, __ATOMIC_RELEASE);
}

static inline uint64_t truth_masked(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer ^ TRUTH_MASK;
}

/* A block that some entry point gave: zero it and book it as held. */
TRUTH_NOINLINE static void *truth_got(void *pointer, size_t requested)
{
    if (!pointer)
        truth_fail("out of memory");
    size_t usable = malloc_usable_size(pointer);
    memset(pointer, 0, usable);
    truth_event(truth_masked(pointer), TRUTH_HELD, requested, usable);
    return pointer;
}

/* The same for a block whose content counts (realloc) or must not be touched (huge). */
TRUTH_NOINLINE static void *truth_got_filled(void *pointer, size_t requested)
{
    if (!pointer)
        truth_fail("out of memory");
    truth_event(truth_masked(pointer), TRUTH_HELD, requested, malloc_usable_size(pointer));
    return pointer;
}

TRUTH_NOINLINE static void *truth_malloc(size_t bytes)
{
    return truth_got(malloc(bytes), bytes);
}

TRUTH_NOINLINE static void truth_mark(const void *pointer, enum truth_state state)
{
    truth_event(truth_masked(pointer), state, 0, 0);
}

TRUTH_NOINLINE static void truth_free(void *pointer)
{
    truth_mark(pointer, TRUTH_FREED);
    free(pointer);
}

TRUTH_NOINLINE static void truth_keep(void *pointer)
{
    uint32_t index = __atomic_fetch_add(&truth_kept_count, 1, __ATOMIC_RELAXED);
    if (index >= TRUTH_CAPACITY)
        truth_fail("too many blocks to keep");
    truth_kept[index] = pointer;
}

/* count blocks, each holding the next by its first word: the first is direct, or held. */
TRUTH_NOINLINE static void **truth_chain(size_t count, size_t bytes, enum truth_state head,
                                         enum truth_state rest)
{
    void **first = NULL;
    for (size_t i = 0; i < count; i++) {
        void **block = (void **)truth_malloc(bytes);
        block[0] = first;
        truth_mark(block, i + 1 == count ? head : rest);
        first = block;
    }
    return first;
}

/* The same, closed to a ring. Lost ones are booked as `ring`, the caller counts truth_rings. */
TRUTH_NOINLINE static void **truth_ring(size_t count, size_t bytes, enum truth_state state)
{
    void **first = truth_chain(count, bytes, state, state), **last = first;
    while (last[0])
        last = (void **)last[0];
    last[0] = first;
    return first;
}

TRUTH_NOINLINE static void truth_clear_stack(void)
{
    volatile char dead[64 * 1024];
    for (size_t i = 0; i < sizeof dead; i++)
        dead[i] = 0;
}

static const char *truth_state_name(unsigned state)
{
    static const char *const names[TRUTH_STATES] = {
        "none", "held", "direct", "indirect", "ring", "possible", "freed", "any",
    };
    return names[state];
}

TRUTH_NOINLINE static void truth_tell(void)
{
    uint64_t counts[TRUTH_STATES] = {0};
    for (uint32_t i = 0; i < TRUTH_CAPACITY; i++) {
        const struct truth_entry *entry = &truth_book[i];
        if (entry->state == TRUTH_NONE)
            continue;
        counts[entry->state]++;
        printf("block %s 0x%lx %lu %lu\n", truth_state_name(entry->state),
               (unsigned long)(entry->masked ^ TRUTH_MASK), (unsigned long)entry->requested_bytes,
               (unsigned long)entry->usable_bytes);
    }
    printf("expect direct %lu\n", (unsigned long)(counts[TRUTH_DIRECT] + truth_rings));
    printf("expect indirect %lu\n",
           (unsigned long)(counts[TRUTH_INDIRECT] + counts[TRUTH_RING] - truth_rings));
    printf("expect possible %lu\n", (unsigned long)counts[TRUTH_POSSIBLE]);
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
}

static inline void truth_begin(void)
{
    /* no block of stdio's own in the middle, and a parent's sibling may trace us */
    setvbuf(stdout, truth_output, _IOFBF, sizeof truth_output);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
}

/* 0: SSE only, 1: AVX, 2: AVX-512 */
static inline long truth_vector_level(void)
{
    return __builtin_cpu_supports("avx512f") ? 2 : __builtin_cpu_supports("avx") ? 1 : 0;
}

/* clang-format off */
#define TRUTH_CLEAR_VECTORS                                                                        \
    "cmp $2, %%rax\n\t"                                                                            \
    "jne 701f\n\t"                                                                                 \
    ".irp n,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t"                                   \
    "vpxorq %%zmm\\n, %%zmm\\n, %%zmm\\n\n\t"                                                      \
    ".endr\n"                                                                                      \
    "701:\tcmp $1, %%rax\n\t"                                                                      \
    "jl 702f\n\t"                                                                                  \
    "vzeroall\n"                                                                                   \
    "702:\t"                                                                                       \
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t"                                             \
    "pxor %%xmm\\n, %%xmm\\n\n\t"                                                                  \
    ".endr\n\t"
/* pause(2), for ever, with nothing in the registers that a system call does not put there, and
 * nothing in the red zone below the stack pointer, which counts as stack */
#define TRUTH_WAIT                                                                                 \
    "lea -128(%%rsp), %%rdi\n\t"                                                                   \
    "mov $16, %%ecx\n\t"                                                                           \
    "xor %%eax, %%eax\n\t"                                                                         \
    "rep stosq\n\t"                                                                                \
    "xor %%edi, %%edi\n\t"                                                                         \
    "xor %%esi, %%esi\n\t"                                                                         \
    "xor %%edx, %%edx\n\t"                                                                         \
    "xor %%r8d, %%r8d\n\t"                                                                         \
    "xor %%r9d, %%r9d\n\t"                                                                         \
    "xor %%r10d, %%r10d\n\t"                                                                       \
    "lock incl %[standing]\n"                                                                      \
    "703:\tmov $34, %%eax\n\t"                                                                     \
    "syscall\n\t"                                                                                  \
    "jmp 703b\n\t"
/* clang-format on */

/* Stand still for ever. For threads too (their stacks must be larger than the dead part). */
TRUTH_NOINLINE static void truth_stand(void)
{
    truth_clear_stack();
    long level = truth_vector_level();
    __asm__ volatile(TRUTH_CLEAR_VECTORS TRUTH_WAIT
                     : "+a"(level)
                     : [standing] "m"(truth_standing)
                     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
    __builtin_unreachable();
}

/* For a thread that must not go on before count others stand still. */
TRUTH_NOINLINE static void truth_await(uint32_t count)
{
    while (__atomic_load_n(&truth_standing, __ATOMIC_ACQUIRE) < count)
        usleep(1000);
}

/* The end of a program whose truth is complete. */
TRUTH_NOINLINE static void truth_ready(void)
{
    truth_tell();
    truth_stand();
}

#endif
