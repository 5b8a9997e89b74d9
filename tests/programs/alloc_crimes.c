/*
 * One crime a run: alloc_crimes NAME does it and prints the address that the allocator must name.
 * Comes to an end with status 0 only when nothing stopped it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *volatile victim;

static void announce(const void *p)
{
    printf("%p\n", p);
    fflush(stdout);
}

static void crime_double_free(void)
{
    victim = malloc(64);
    announce(victim);
    free(victim);
    free(victim);
}

/* Others are freed in between; found when the blocks go home. */
static void crime_double_free_later(void)
{
    static void *blocks[4000];
    for (int i = 0; i < 4000; i++)
        blocks[i] = malloc(64);
    victim = blocks[100];
    announce(victim);
    free(victim);
    free(blocks[101]);
    free(victim);
    for (int i = 200; i < 4000; i++)
        free(blocks[i]);
}

static void crime_double_free_large(void)
{
    victim = malloc(300000);
    announce(victim);
    free(victim);
    free(victim);
}

static void crime_double_free_between(void)
{
    victim = malloc(64);
    void *other = malloc(64);
    announce(victim);
    free(victim);
    free(other);
    free(victim);
}

static void crime_free_interior(void)
{
    char *p = malloc(200);
    announce(p + 16);
    victim = p + 16;
    free(victim);
}

static void crime_free_unaligned(void)
{
    char *p = malloc(200);
    announce(p + 3);
    victim = p + 3;
    free(victim);
}

static void crime_free_interior_large(void)
{
    char *p = malloc(300000);
    announce(p + 65536);
    victim = p + 65536;
    free(victim);
}

static void crime_free_stack(void)
{
    char here[64] = {0};
    victim = here;
    announce(victim);
    free(victim);
}

static void crime_free_static(void)
{
    static char here[64];
    victim = here;
    announce(victim);
    free(victim);
}

static void crime_free_wild(void)
{
    victim = (void *)0x123456789ab0;
    announce(victim);
    free(victim);
}

static void crime_realloc_freed(void)
{
    victim = malloc(100000);
    announce(victim);
    free(victim);
    victim = realloc(victim, 200000);
}

static void crime_realloc_freed_small(void)
{
    victim = malloc(100);
    announce(victim);
    free(victim);
    victim = realloc(victim, 200);
}

/* Blocks of named arenas meet their bitmap at each free. */
static void crime_free_named_twice(void)
{
    void *(*create)(const char *) =
        (void *(*)(const char *))dlsym(RTLD_DEFAULT, "himalloc_arena_create");
    void *(*take)(void *, size_t) =
        (void *(*)(void *, size_t))dlsym(RTLD_DEFAULT, "himalloc_arena_malloc");
    void *arena = create("crime");
    victim = take(arena, 50);
    take(arena, 50);
    announce(victim);
    free(victim);
    free(victim);
}

static void crime_realloc_interior(void)
{
    char *p = malloc(1000);
    announce(p + 32);
    victim = p + 32;
    victim = realloc(victim, 2000);
}

static void *free_it(void *p)
{
    free(p);
    return NULL;
}

static void crime_double_free_threads(void)
{
    pthread_t thread;
    victim = malloc(500);
    announce(victim);
    pthread_create(&thread, NULL, free_it, victim);
    pthread_join(thread, NULL);
    free(victim);
    static void *blocks[4000];
    for (int i = 0; i < 4000; i++)
        blocks[i] = malloc(500);
    for (int i = 0; i < 4000; i++)
        free(blocks[i]);
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*commit)(void);
    } crimes[] = {
        {"double_free", crime_double_free},
        {"double_free_later", crime_double_free_later},
        {"double_free_between", crime_double_free_between},
        {"double_free_large", crime_double_free_large},
        {"double_free_threads", crime_double_free_threads},
        {"free_interior", crime_free_interior},
        {"free_unaligned", crime_free_unaligned},
        {"free_interior_large", crime_free_interior_large},
        {"free_stack", crime_free_stack},
        {"free_static", crime_free_static},
        {"free_wild", crime_free_wild},
        {"realloc_freed", crime_realloc_freed},
        {"realloc_freed_small", crime_realloc_freed_small},
        {"free_named_twice", crime_free_named_twice},
        {"realloc_interior", crime_realloc_interior},
    };
    for (size_t i = 0; count > 1 && i < sizeof(crimes) / sizeof(crimes[0]); i++)
        if (strcmp(arguments[1], crimes[i].name) == 0) {
            crimes[i].commit();
            return 0;
        }
    return 99;
}
