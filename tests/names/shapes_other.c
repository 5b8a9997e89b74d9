/* The second file of shapes.c. */
#include <stdlib.h>
#include <string.h>

int other(int);

static inline int count_up(const char *text)
{
    int sum = 0;
    while (*text)
        sum += *text++ ^ 3;
    return sum;
}

int other(int x)
{
    char text[50];
    memset(text, x, 49);
    text[49] = 0;
    return count_up(text) + atoi(text) + count_up(text + 9);
}
