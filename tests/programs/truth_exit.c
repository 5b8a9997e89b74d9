/* Inspected at exit: main has lost a list of 100 and a ring of 50 blocks, whose last pointers may
 * still lie in the dead frames that exit() runs on. All 150 are lost.
 *
 *   truth_exit return    main returns
 *   truth_exit call      exit() is called two frames deep; what those frames hold is held
 * A second argument `go`: it does not stand still, but goes on to its end.
 */
#include "programs/truth.h"

static void at_exit(void)
{
    truth_ready();
}

/* Their addresses stay all over the stack below main. */
TRUTH_NOINLINE static void lose(int depth)
{
    void *volatile places[64];
    void *list = truth_chain(100, 64, TRUTH_DIRECT, TRUTH_INDIRECT);
    void *ring = truth_ring(50, 64, TRUTH_RING);
    truth_rings++;
    for (int i = 0; i < 64; i++)
        places[i] = i % 2 ? list : ring;
    if (depth > 0)
        lose(depth - 1);
    (void)places[5];
}

static void tell(void)
{
    truth_tell();
}

TRUTH_NOINLINE static void leave(int depth)
{
    void *volatile held[4] = {0};
    held[1] = truth_chain(5, 88, TRUTH_HELD, TRUTH_HELD);
    if (depth > 0) {
        leave(depth - 1);
    } else {
        lose(0);
        if (held[1])
            exit(0);
    }
    (void)held[1];
}

int main(int argc, char **argv)
{
    truth_begin();
    atexit(argc > 2 ? tell : at_exit);
    if (argc > 1 && strcmp(argv[1], "call") == 0)
        leave(1);
    lose(0);
    return 0;
}
