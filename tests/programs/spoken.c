/*
 * A program that speaks of its memory: it loses blocks and says of some that they are no leaks, by
 * himalloc's names or by LeakSanitizer's, or asks for the check itself. Each block has a size of
 * its own, and the program prints those that nobody spoke for.
 *
 *     spoken ignore | lsan | disable | root | tag | freed | now | recoverable | asked | off
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Not there in a program that runs on another allocator. */
#define WEAK __attribute__((weak))
extern int himalloc_ignore(const void *p) WEAK;
extern int himalloc_tag(const void *p, const char *text) WEAK;
extern int himalloc_root(const void *start, size_t bytes) WEAK;
extern int himalloc_check_now(void) WEAK;
extern void __lsan_disable(void) WEAK;
extern void __lsan_enable(void) WEAK;
extern void __lsan_ignore_object(const void *p) WEAK;
extern void __lsan_do_leak_check(void) WEAK;
extern int __lsan_do_recoverable_leak_check(void) WEAK;

static const char *how;
int __lsan_is_turned_off(void);
__attribute__((visibility("default"))) int __lsan_is_turned_off(void)
{
    return strcmp(how, "off") == 0;
}

/* A block that holds another one; its address is left nowhere. */
__attribute__((noipa)) static void lose(size_t bytes, size_t inner, void (*say)(void *))
{
    void *volatile *block = calloc(1, bytes);
    *block = calloc(1, inner);
    if (say)
        say((void *)block);
    block = NULL;
}

__attribute__((noipa)) static void cover_tracks(void)
{
    volatile char stack[16384];
    for (size_t i = 0; i < sizeof stack; i++)
        stack[i] = 0;
}

static void ignore(void *p)
{
    himalloc_ignore((char *)p + 3);
}

static void tag(void *p)
{
    himalloc_tag(p, "lost property");
}

/* The remark goes with its block; what comes to its place is lost like any other. */
static void ignore_freed(void)
{
    for (int i = 0; i < 100; i++) {
        void *p = malloc(720);
        himalloc_ignore(p);
        free(p);
    }
}

static void root_in_mapping(void)
{
    void **region = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    region[7] = malloc(810);
    himalloc_root(region, 4096);
}

static int check_now(void)
{
    int before = himalloc_check_now();
    lose(910, 911, NULL);
    cover_tracks();
    printf("now %d %d\n", before, himalloc_check_now());
    return 4;
}

static int end(void)
{
    if (strcmp(how, "now") == 0)
        return check_now();
    if (strcmp(how, "ignore") == 0)
        lose(510, 511, ignore);
    else if (strcmp(how, "lsan") == 0)
        lose(510, 511, (void (*)(void *))__lsan_ignore_object);
    else if (strcmp(how, "tag") == 0)
        lose(710, 711, tag);
    else if (strcmp(how, "root") == 0)
        root_in_mapping();
    else if (strcmp(how, "freed") == 0)
        ignore_freed();
    if (strcmp(how, "disable") == 0) {
        __lsan_disable();
        lose(610, 611, NULL);
        lose(70000, 613, NULL);
        __lsan_enable();
    }
    lose(720, 721, NULL);
    cover_tracks();
    if (strcmp(how, "recoverable") == 0)
        printf("found %d\n", __lsan_do_recoverable_leak_check() != 0);
    if (strcmp(how, "asked") == 0)
        __lsan_do_leak_check();
    return 4;
}

int main(int argc, char **argv)
{
    how = argc > 1 ? argv[1] : "";
    int status = end();
    cover_tracks();
    return status;
}
