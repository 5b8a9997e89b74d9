/* Blocks held only by a register: general ones, both halves of an SSE register, the upper half of
 * an AVX one, the upper half of an AVX-512 one; in main and in a thread. */
#include "programs/truth.h"

#include <pthread.h>

enum { GENERAL = 9, SSE = 2, AVX = 1, AVX512 = 1, BLOCKS = GENERAL + SSE + AVX + AVX512 };

/* What this processor has no register for is held by data instead. */
TRUTH_NOINLINE static void plant(uint64_t *masked)
{
    long level = truth_vector_level();
    int can = GENERAL + SSE + (level >= 1 ? AVX : 0) + (level == 2 ? AVX512 : 0);
    for (int i = 0; i < BLOCKS; i++) {
        void *block = truth_chain(3, 64, TRUTH_HELD, TRUTH_HELD);
        masked[i] = truth_masked(block);
        if (i >= can)
            truth_keep(block);
    }
}

TRUTH_NOINLINE static void stand_with(uint64_t *masked)
{
    truth_clear_stack();
    register uint64_t mask __asm__("r11") = TRUTH_MASK;
    register uint64_t *place __asm__("rcx") = masked;
    long level = truth_vector_level();
    /* clang-format off */
    __asm__ volatile(
        TRUTH_CLEAR_VECTORS
        "mov (%%rcx), %%rbx\n\t"     "xor %%r11, %%rbx\n\t"
        "mov 8(%%rcx), %%r12\n\t"    "xor %%r11, %%r12\n\t"
        "mov 16(%%rcx), %%r13\n\t"   "xor %%r11, %%r13\n\t"
        "mov 24(%%rcx), %%r14\n\t"   "xor %%r11, %%r14\n\t"
        "mov 32(%%rcx), %%r15\n\t"   "xor %%r11, %%r15\n\t"
        "mov 72(%%rcx), %%r8\n\t"    "xor %%r11, %%r8\n\t"    "movq %%r8, %%xmm3\n\t"
        "mov 80(%%rcx), %%r8\n\t"    "xor %%r11, %%r8\n\t"    "movq %%r8, %%xmm0\n\t"
        "movlhps %%xmm0, %%xmm5\n\t"
        "cmp $1, %%rax\n\t"
        "jl 710f\n\t"
        "mov 88(%%rcx), %%r8\n\t"    "xor %%r11, %%r8\n\t"    "movq %%r8, %%xmm0\n\t"
        "vinsertf128 $1, %%xmm0, %%ymm7, %%ymm7\n\t"
        "cmp $2, %%rax\n\t"
        "jl 710f\n\t"
        "mov 96(%%rcx), %%r8\n\t"    "xor %%r11, %%r8\n\t"    "movq %%r8, %%xmm0\n\t"
        "vinserti64x4 $1, %%ymm0, %%zmm20, %%zmm20\n"
        "710:\tpxor %%xmm0, %%xmm0\n\t"
        "mov 40(%%rcx), %%rdi\n\t"   "xor %%r11, %%rdi\n\t"
        "mov 48(%%rcx), %%rsi\n\t"   "xor %%r11, %%rsi\n\t"
        "mov 56(%%rcx), %%r9\n\t"    "xor %%r11, %%r9\n\t"
        "mov 64(%%rcx), %%r10\n\t"   "xor %%r11, %%r10\n\t"
        "xor %%r8d, %%r8d\n\t"
        "lock incl %[standing]\n"
        "711:\tmov $34, %%eax\n\t"
        "syscall\n\t"
        "jmp 711b"
        : "+a"(level), "+r"(mask), "+r"(place)
        : [standing] "m"(truth_standing)
        : "rdx", "rsi", "rdi", "r8", "r9", "r10", "rbx", "r12", "r13", "r14", "r15", "memory",
          "cc");
    /* clang-format on */
    __builtin_unreachable();
}

static uint64_t of_thread[BLOCKS], of_main[BLOCKS];

static void *thread_main(void *unused)
{
    plant(of_thread);
    stand_with(of_thread);
    return unused;
}

int main(void)
{
    pthread_t thread;
    truth_begin();
    if (pthread_create(&thread, NULL, thread_main, NULL))
        truth_fail("pthread_create");
    truth_await(1);
    plant(of_main);
    truth_tell();
    stand_with(of_main);
}
