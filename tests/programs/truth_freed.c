/* Freed blocks with dangling pointers to them; a freed block holds nothing, whatever its bytes. */
#include "programs/truth.h"

/* What is freed at the end of all, so that no later block gets an address that something points to.
 */
static void *volatile doomed[512];
static int doomed_count;

/* Kept blocks and data point to freed ones: not live, and no trouble. */
TRUTH_NOINLINE static void dangling(void)
{
    for (size_t bytes = 16; bytes < 50000; bytes = bytes * 3 / 2) {
        void **holder = truth_malloc(64);
        for (int i = 0; i < 8; i++) {
            void *block = truth_malloc(bytes);
            holder[i] = block;
            if (i == 0)
                truth_keep(block);
        }
        for (int i = 0; i < 8; i++)
            doomed[doomed_count++] = holder[i];
        truth_keep(holder);
    }
}

/* The only pointer to a block lies in a freed one: the block is lost. The pointer stands far in,
 * where allocators that thread lists through free blocks leave it alone. */
TRUTH_NOINLINE static void held_by_freed(void)
{
    for (int i = 0; i < 20; i++) {
        void **freed = truth_malloc(256);
        freed[20] = truth_malloc(88);
        truth_mark(freed[20], TRUTH_DIRECT);
        truth_keep(freed);
        doomed[doomed_count++] = freed;
    }
}

/* Freed out of the middle of a list: what came behind is lost, what came before is not. */
TRUTH_NOINLINE static void cut_list(void)
{
    void **tail = truth_chain(30, 112, TRUTH_DIRECT, TRUTH_INDIRECT);
    void **cut = truth_malloc(112), **head = truth_malloc(112);
    cut[5] = tail;
    head[5] = cut;
    truth_keep(head);
    doomed[doomed_count++] = cut;
}

/* Lost and freed blocks in turn: where they lie side by side, the dangling pointer to the freed one
 * is the address right behind the lost one, and must not hold it. */
TRUTH_NOINLINE static void lost_before_freed(void)
{
    for (size_t bytes = 16; bytes < 3000; bytes *= 2) {
        for (int i = 0; i < 8; i++) {
            truth_mark(truth_malloc(bytes), TRUTH_DIRECT);
            void *freed = truth_malloc(bytes);
            truth_keep(freed);
            doomed[doomed_count++] = freed;
        }
    }
}

TRUTH_NOINLINE static void plant(void)
{
    dangling();
    held_by_freed();
    cut_list();
    lost_before_freed();
    for (int i = 0; i < doomed_count; i++)
        truth_free(doomed[i]);
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
