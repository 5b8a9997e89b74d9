/* A program that brings suppressions along, under the name that LeakSanitizer asks for, and loses
 * two blocks. Linked so that a preloaded library sees the function. */
#include <stdlib.h>
#include <string.h>

const char *__lsan_default_suppressions(void);

__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void)
{
    return "# known\nleak:lose_known\n";
}

__attribute__((noinline)) static void lose_known(void)
{
    void *volatile lost = malloc(40);
    memset(lost, 0, 40);
}

__attribute__((noinline)) static void lose_other(void)
{
    void *volatile lost = malloc(50);
    memset(lost, 0, 50);
}

int main(int argc, char **argv)
{
    lose_known();
    if (argc > 1 && argv[1])
        lose_other();
    return 3;
}
