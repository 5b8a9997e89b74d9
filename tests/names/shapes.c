/* Code to be named: inlined calls in each other, a cold part, calls between two files. */
#include <stdio.h>
#include <stdlib.h>

int other(int);
int middle(int);
int large(int);

static inline int square(int x)
{
    return x * x + rand();
}

static int deep(int x)
{
    int sum = 0;
    for (int i = 0; i < x; i++) {
        sum += square(i);
        if (sum % 7 == 3)
            sum += square(sum);
    }
    return sum;
}

__attribute__((noinline)) int middle(int x)
{
    return deep(x) + deep(x + 1);
}

__attribute__((cold, noinline)) static void fail(int x)
{
    printf("%d\n", x);
    abort();
}

__attribute__((noinline)) int large(int x)
{
    if (x > 1000)
        fail(deep(x));
    return middle(x) * 2 + square(x);
}

int main(int count, char **arguments)
{
    (void)arguments;
    return large(count) + middle(count) + other(count);
}
