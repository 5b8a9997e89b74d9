/*
 * What a program says of its blocks is there for readers as long as the block is, and not longer,
 * however the block goes; and saying it disturbs nothing else in the block's slab.
 */
#define _GNU_SOURCE
#include "tap.h"

#include "alloc_root.h"
#include "himalloc.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

void __lsan_disable(void);
void __lsan_enable(void);
void __lsan_ignore_object(const void *p);
void __lsan_register_root_region(const void *start, size_t bytes);
void __lsan_unregister_root_region(const void *start, size_t bytes);
int __lsan_do_recoverable_leak_check(void);

static const struct hm_remark *remark_of(const void *p, uint32_t kind)
{
    const struct hm_remark *remarks = (struct hm_remark *)heap_root->remarks;
    for (uint32_t i = 0; i < heap_root->remark_count; i++)
        if (remarks[i].address == (uintptr_t)p && remarks[i].kind == kind)
            return &remarks[i];
    return NULL;
}

static uint32_t remarks_there(void)
{
    const struct hm_remark *remarks = (struct hm_remark *)heap_root->remarks;
    uint32_t count = 0;
    for (uint32_t i = 0; i < heap_root->remark_count; i++)
        count += remarks[i].kind != HM_REMARK_NONE;
    return count;
}

static const size_t sizes[] = {1, 100, 5000, 9000, 32768, 40000, 3000000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void test_blocks(void)
{
    int wrong = 0, stale = 0;
    for (int s = 0; s < SIZES; s++) {
        char *p = malloc(sizes[s]);
        wrong += himalloc_ignore(p) != 0 || !remark_of(p, HM_REMARK_IGNORE);
        wrong += himalloc_tag(p + sizes[s] / 2, "the middle of it") != 0;
        const struct hm_remark *tag = remark_of(p, HM_REMARK_TAG);
        wrong += !tag || strcmp(tag->text, "the middle of it") != 0;
        wrong += himalloc_tag(p, "another word") != 0 || !remark_of(p, HM_REMARK_TAG) ||
                 strcmp(remark_of(p, HM_REMARK_TAG)->text, "another word") != 0;
        uint32_t before = remarks_there();
        free(p);
        stale += remark_of(p, HM_REMARK_IGNORE) || remark_of(p, HM_REMARK_TAG) ||
                 remarks_there() != before - 2;
    }
    ok(wrong == 0, "ignore and tag, of blocks of all sizes (%d wrong)", wrong);
    ok(stale == 0, "are gone with the block (%d stale)", stale);
    void *p = malloc(10);
    himalloc_tag(p, "x");
    ok(himalloc_tag(p, NULL) == 0 && !remark_of(p, HM_REMARK_TAG), "a tag is taken back");
    free(p);
    errno = 0;
    ok(himalloc_ignore(&p) == -1 && errno == EINVAL, "what is no block: EINVAL");
    ok(himalloc_tag(NULL, "x") == -1, "nor is NULL");
}

static void test_realloc(void)
{
    void *p = malloc(100), *keep = malloc(100);
    himalloc_ignore(p);
    void *q = realloc(p, 110);
    /* a new sample moves */
    ok((q == p) == (remark_of(p, HM_REMARK_IGNORE) != NULL), "realloc where it is: stays");
    himalloc_ignore(q);
    p = realloc(q, 5000);
    ok(p != q && !remark_of(q, HM_REMARK_IGNORE), "realloc to a new place: is gone");
    q = p;
    free(q);
    free(keep);
    p = malloc(600000);
    keep = malloc(100000);
    himalloc_ignore(p);
    q = realloc(p, 9000000);
    ok(q == p || !remark_of(p, HM_REMARK_IGNORE), "also of a large block");
    free(q);
    free(keep);
}

static void *free_it(void *p)
{
    free(p);
    return NULL;
}

static void test_other_thread(void)
{
    pthread_t thread;
    void *p = malloc(300);
    himalloc_ignore(p);
    pthread_create(&thread, NULL, free_it, p);
    pthread_join(thread, NULL);
    ok(!remark_of(p, HM_REMARK_IGNORE), "freed by another thread");
}

/* Slabs with remarks live on: blocks of them are cached, handed out, freed, and freed twice. */
static void test_neighbours(void)
{
    enum { BLOCKS = 3000, ROUNDS = 60000 };
    static unsigned char *held[BLOCKS];
    unsigned state = 5;
    int broken = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        state = state * 1103515245 + 12345;
        unsigned slot = (state >> 9) % BLOCKS;
        broken += held[slot] && held[slot][0] != (unsigned char)slot;
        free(held[slot]);
        held[slot] = malloc((state >> 12) % 20000 + 1);
        held[slot][0] = (unsigned char)slot;
        if (i % 16 == 0)
            broken += himalloc_tag(held[slot], "one of sixteen") != 0;
    }
    for (int i = 0; i < BLOCKS; i++)
        free(held[i]);
    malloc_trim(0);
    ok(broken == 0 && remarks_there() == 0, "a heap full of remarks works (%d broken, %u left)",
       broken, remarks_there());
    pid_t pid = fork();
    if (pid == 0) {
        close(2);
        void *volatile p = malloc(64);
        himalloc_ignore(p);
        free(p);
        free(p);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "a second free is found there too");
}

static void test_many(void)
{
    enum { MANY = 70000 };
    static void *held[MANY];
    int made = 0, refused = 0;
    for (int i = 0; i < MANY; i++) {
        held[i] = malloc(24);
        if (himalloc_ignore(held[i]) == 0)
            made++;
        else
            refused += errno == ENOMEM;
    }
    ok(made == 65536 && refused == MANY - made, "65536 remarks, then ENOMEM (%d)", made);
    for (int i = 0; i < MANY; i++)
        free(held[i]);
    ok(remarks_there() == 0, "all are gone");
}

static void test_roots(void)
{
    static char region[64];
    ok(himalloc_root(region, 64) == 0 && remark_of(region, HM_REMARK_ROOT), "a root");
    ok(himalloc_unroot(region, 32) == -1 && remark_of(region, HM_REMARK_ROOT),
       "is not taken back in part");
    ok(himalloc_unroot(region, 64) == 0 && !remark_of(region, HM_REMARK_ROOT), "but whole");
    __lsan_register_root_region(region, 8);
    ok(remark_of(region, HM_REMARK_ROOT) != NULL, "by LeakSanitizer's name");
    __lsan_unregister_root_region(region, 8);
    ok(!remark_of(region, HM_REMARK_ROOT), "and back");
}

static void test_disable(void)
{
    int wrong = 0;
    for (int s = 0; s < SIZES; s++) {
        __lsan_disable();
        __lsan_disable();
        void *p = malloc(sizes[s]), *q = calloc(1, sizes[s]);
        __lsan_enable();
        void *r = realloc(malloc(7), sizes[s] + 20);
        __lsan_enable();
        void *after = malloc(sizes[s]);
        wrong += kind_of(p) != HM_ARENA_IGNORED || kind_of(q) != HM_ARENA_IGNORED ||
                 kind_of(r) != HM_ARENA_IGNORED || kind_of(after) == HM_ARENA_IGNORED;
        memset(p, 1, sizes[s]);
        p = realloc(p, sizes[s] + 1);
        wrong += kind_of(p) == HM_ARENA_IGNORED || ((char *)p)[sizes[s] - 1] != 1;
        free(p), free(q), free(r), free(after);
    }
    ok(wrong == 0, "between disable and enable blocks are ignored ones (%d wrong)", wrong);
    __lsan_enable();
    ok(kind_of(malloc(1)) != HM_ARENA_IGNORED, "one enable too many does no harm");
    void *p = malloc(33);
    __lsan_ignore_object((char *)p + 3);
    ok(remark_of(p, HM_REMARK_IGNORE) != NULL, "__lsan_ignore_object");
    free(p);
    ok(__lsan_do_recoverable_leak_check() == 0, "no check where none is asked for");
}

int main(void)
{
    void *first = malloc(1);
    if (!ok(root_find(), "the heap describes itself"))
        return done();
    himalloc_ignore(first);
    free(first);
    test_blocks();
    test_realloc();
    test_other_thread();
    test_neighbours();
    test_many();
    test_roots();
    test_disable();
    return done();
}
