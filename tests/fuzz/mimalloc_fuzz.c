/* Damaged mimalloc processes; see image_fuzz.h.   mimalloc_fuzz [SECONDS [SEED]] */
#include "image_fuzz.h"

int main(int argc, char **argv)
{
    return fuzz_main("mimalloc", argc, argv);
}
