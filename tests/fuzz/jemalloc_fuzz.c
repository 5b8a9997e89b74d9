/* Damaged jemalloc processes; see image_fuzz.h.   jemalloc_fuzz [SECONDS [SEED]] */
#include "image_fuzz.h"

int main(int argc, char **argv)
{
    return fuzz_main("jemalloc", argc, argv);
}
