/* Damaged tcmalloc processes; see image_fuzz.h.   tcmalloc_fuzz [SECONDS [SEED]] */
#include "image_fuzz.h"

int main(int argc, char **argv)
{
    return fuzz_main("gperftools", argc, argv);
}
