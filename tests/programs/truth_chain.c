/* Lists and a tree: the head of a lost one is direct, all that hangs off it indirect. */
#include "programs/truth.h"

static void **volatile kept_list;

TRUTH_NOINLINE static void **tree(int depth, enum truth_state state, enum truth_state rest)
{
    void **node = truth_malloc(48);
    truth_mark(node, state);
    for (int i = 0; depth > 0 && i < 3; i++)
        node[2 + i] = tree(depth - 1, rest, rest);
    return node;
}

/* Two lost blocks hold the same third one: it is indirect, once. */
TRUTH_NOINLINE static void shared_child(void)
{
    void **child = truth_chain(4, 96, TRUTH_INDIRECT, TRUTH_INDIRECT);
    for (int i = 0; i < 2; i++) {
        void **parent = truth_malloc(200);
        parent[7] = child;
        truth_mark(parent, TRUTH_DIRECT);
    }
}

TRUTH_NOINLINE static void plant(void)
{
    kept_list = truth_chain(100, 24, TRUTH_HELD, TRUTH_HELD);
    truth_chain(100, 24, TRUTH_DIRECT, TRUTH_INDIRECT);
    truth_chain(5000, 40, TRUTH_DIRECT, TRUTH_INDIRECT);
    truth_keep(tree(4, TRUTH_HELD, TRUTH_HELD));
    tree(4, TRUTH_DIRECT, TRUTH_INDIRECT);
    shared_child();
}

int main(void)
{
    truth_begin();
    plant();
    truth_ready();
}
