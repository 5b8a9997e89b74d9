/* Rings that meet: one leading into another (one direct), two sharing a member (one direct), two
 * leading into a third (two direct). */
#include "programs/truth.h"

TRUTH_NOINLINE static void one_into_another(void)
{
    void **second = truth_ring(7, 64, TRUTH_INDIRECT);
    void **first = truth_ring(5, 64, TRUTH_RING);
    first[1] = second;
    truth_rings++;
}

TRUTH_NOINLINE static void shared_member(void)
{
    void **first = truth_ring(6, 64, TRUTH_RING), **second = truth_ring(9, 64, TRUTH_RING);
    first[1] = second;
    second[1] = first;
    truth_rings++;
}

TRUTH_NOINLINE static void two_into_a_third(void)
{
    void **third = truth_ring(4, 64, TRUTH_INDIRECT);
    for (int i = 0; i < 2; i++) {
        void **ring = truth_ring(3, 64, TRUTH_RING);
        ring[1] = third;
        truth_rings++;
    }
}

TRUTH_NOINLINE static void plant(void)
{
    one_into_another();
    shared_member();
    two_into_a_third();
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
