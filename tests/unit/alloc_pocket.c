/*
 * A thread's pocket of large blocks (allocator/pocket.c), read by the format's own words beside
 * what the program holds: runs are free units, apart from each other and from every block that the
 * program has; they are taken again, joined, cut, limited; they go back to the spans when the
 * thread ends, when the helper takes those that nobody used, and in a forked child.
 *
 * When no thread is at it, the units that are a large block's rest and covered by no head are those
 * in pockets, not one more: none is ever lost.
 */
#define _GNU_SOURCE
#include "tap.h"

#include "alloc_root.h"
#include "himalloc.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_UNITS = 24, LATER_UNITS = 4, LONGEST = 24, HELD = 40, STEPS = 20000, THREADS = 3 };

static size_t unit_bytes;

/* ---- what the format says ---- */

static struct hm_thread *thread_record_at(uint32_t index)
{
    return (struct hm_thread *)((uint64_t *)heap_root->threads)[index];
}

static struct hm_thread *own_record(void)
{
    uint32_t tid = (uint32_t)syscall(SYS_gettid);
    for (uint32_t i = 0; i < heap_root->thread_count; i++)
        if (thread_record_at(i)->tid == tid)
            return thread_record_at(i);
    return NULL;
}

static struct hm_range *pocket_range(uint64_t start)
{
    return (struct hm_range *)heap_root->ranges + (start >> 32);
}

static uintptr_t pocket_address(uint64_t start)
{
    return pocket_range(start)->base + (uint64_t)(uint32_t)start * unit_bytes;
}

/* Units of all ranges that are a rest without a head. */
static uint64_t units_without_head(void)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < heap_root->range_count; i++) {
        const struct hm_range *r = (struct hm_range *)heap_root->ranges + i;
        const struct hm_unit *units = (struct hm_unit *)r->units;
        const uint8_t *codes = (uint8_t *)r->codes;
        uint64_t covered = 0;
        for (uint64_t u = 0; u < r->top_index; u++) {
            if (codes[u] == heap_root->code_large_head)
                covered = u + units[u].unit_count;
            count += codes[u] == heap_root->code_large_rest && u >= covered;
        }
    }
    return count;
}

static uint64_t units_in_pockets(void)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < heap_root->thread_count; i++)
        count += thread_record_at(i)->pocket_held;
    return count;
}

/* ---- what the program holds ---- */

struct held {
    unsigned char *p;
    size_t bytes;
    unsigned char mark;
};

/* First and last byte of each unit. */
static void held_write(struct held *h, unsigned char mark)
{
    h->mark = mark;
    for (size_t at = 0; at < h->bytes; at += unit_bytes) {
        size_t last = h->bytes - at < unit_bytes ? h->bytes - 1 : at + unit_bytes - 1;
        h->p[at] = h->p[last] = mark;
    }
}

static bool held_is_intact(const struct held *h, size_t bytes)
{
    for (size_t at = 0; h->p && at < bytes; at += unit_bytes)
        if (h->p[at] != h->mark ||
            (bytes - at >= unit_bytes && h->p[at + unit_bytes - 1] != h->mark))
            return false;
    return true;
}

/* What is wrong with the calling thread's pocket, beside its blocks; NULL: nothing. */
static const char *pocket_fault(const struct hm_thread *t, const struct held *held, size_t count)
{
    uint32_t sum = 0;
    if (t->pocket_count > HM_POCKET_ENTRIES)
        return "more runs than places";
    for (uint32_t i = 0; i < t->pocket_count; i++) {
        uintptr_t start = pocket_address(t->pocket_start[i]);
        uintptr_t end = start + t->pocket_length[i] * unit_bytes;
        const uint8_t *codes = (uint8_t *)pocket_range(t->pocket_start[i])->codes;
        for (uint32_t u = 0; u < t->pocket_length[i]; u++)
            if (codes[(uint32_t)t->pocket_start[i] + u] != heap_root->code_large_rest)
                return "a unit that is not a rest";
        for (uint32_t j = 0; j < i; j++)
            if (t->pocket_start[j] < t->pocket_start[i] + t->pocket_length[i] &&
                t->pocket_start[i] < t->pocket_start[j] + t->pocket_length[j])
                return "runs that overlap";
        for (size_t b = 0; b < count; b++)
            if (held[b].p && (uintptr_t)held[b].p < end &&
                (uintptr_t)held[b].p + held[b].bytes > start)
                return "a block of the program's";
        if (t->pocket_length[i] == 0)
            return "an empty run";
        sum += t->pocket_length[i];
    }
    if (sum != t->pocket_held)
        return "another sum than it says";
    if (sum > (t->index == 0 ? FIRST_UNITS : LATER_UNITS))
        return "more than it may hold";
    return t->pocket_open ? "open, and nobody is at it" : NULL;
}

static void *units_malloc(size_t count)
{
    return malloc(count * unit_bytes - 100);
}

/* A block that no run can be: what the pocket holds goes to the spans. */
static void pocket_clear(void)
{
    free(units_malloc(LONGEST + 1));
}

/* ---- one thread ---- */

static void test_reuse(const struct hm_thread *t)
{
    pocket_clear();
    is_u64(t->pocket_held, 0, "a block that no run can be empties the pocket");
    void *p = units_malloc(3);
    free(p);
    ok(t->pocket_held == 3 && t->pocket_count == 1 &&
           pocket_address(t->pocket_start[0]) == (uintptr_t)p,
       "a freed block's units are in the pocket");
    is_u64(units_without_head(), 3, "and are nobody's");
    void *q = units_malloc(3);
    ok(q == p && t->pocket_held == 0, "the next block of that length has them");
    free(q);
    q = units_malloc(4);
    ok(t->pocket_held == 0 && units_without_head() == 0,
       "for a longer one the spans get them back");
    free(q);
    q = units_malloc(3);
    is_u64(t->pocket_held, 0, "a short one cuts no run: it comes from the spans");
    free(q);
    pocket_clear();
    free(p = units_malloc(9));
    q = units_malloc(4);
    ok(q == p && t->pocket_held == 5, "a longer one does, and the rest stays");
    free(q);
}

/* Blocks one behind the other, freed in any order, are one run. */
static void test_join(const struct hm_thread *t)
{
    static const unsigned orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}};
    enum { EACH = 5 };
    for (unsigned o = 0; o < sizeof orders / sizeof *orders; o++) {
        void *p[3];
        pocket_clear();
        free(units_malloc(3 * EACH)); /* the run out of which they are cut */
        for (unsigned i = 0; i < 3; i++)
            p[i] = units_malloc(EACH);
        bool cut = t->pocket_held == 0 && (char *)p[1] == (char *)p[0] + EACH * unit_bytes &&
                   (char *)p[2] == (char *)p[1] + EACH * unit_bytes;
        for (unsigned i = 0; i < 3; i++)
            free(p[orders[o][i]]);
        bool one = t->pocket_count == 1 && t->pocket_held == 3 * EACH;
        void *whole = units_malloc(3 * EACH);
        ok(cut && one && whole == p[0], "blocks freed in order %u %u %u are one run", orders[o][0],
           orders[o][1], orders[o][2]);
        free(whole);
    }
}

/* Of two runs that are long enough the shorter one is taken. */
static void test_shortest(const struct hm_thread *t)
{
    pocket_clear();
    void *longer = units_malloc(8), *between = units_malloc(1), *shorter = units_malloc(6);
    void *behind = units_malloc(1);
    free(longer);
    free(shorter);
    void *p = units_malloc(5);
    ok(p == shorter && t->pocket_held == 9, "the shortest run that is long enough is taken");
    free(p);
    free(between);
    free(behind);
}

/* Somebody else is at it: seen by the words that say so, set here by hand. */
static void test_words(struct hm_thread *t)
{
    pocket_clear();
    free(units_malloc(3));
    t->pocket_claim = 1;
    void *p = units_malloc(3);
    uint32_t after_malloc = t->pocket_held;
    t->pocket_claim = 0;
    pocket_clear();
    t->pocket_claim = 1;
    free(p);
    ok(after_malloc == 3 && t->pocket_held == 0, "a pocket that the helper claims is left alone");
    t->pocket_claim = 0;
    free(units_malloc(3));
    t->pocket_open = 1; /* as a signal handler finds it */
    p = units_malloc(3);
    free(p);
    is_u64(t->pocket_held, 3, "and one that is open");
    t->pocket_open = 0;
    is_u64(units_without_head(), units_in_pockets(), "no unit is lost");
}

static void test_limits(const struct hm_thread *t)
{
    void *p[2 * HM_POCKET_ENTRIES + 2];
    pocket_clear();
    free(units_malloc(LONGEST));
    is_u64(t->pocket_held, LONGEST, "the longest block fits in");
    pocket_clear();
    free(units_malloc(LONGEST + 1));
    is_u64(t->pocket_held, 0, "one unit more does not");
    for (unsigned i = 0; i < sizeof p / sizeof *p; i++)
        p[i] = units_malloc(2);
    for (unsigned i = 0; i < sizeof p / sizeof *p; i += 2)
        free(p[i]);
    ok(t->pocket_count == HM_POCKET_ENTRIES && t->pocket_held == 2 * t->pocket_count,
       "%u runs of %d at most", t->pocket_count, HM_POCKET_ENTRIES);
    for (unsigned i = 1; i < sizeof p / sizeof *p; i += 2)
        free(p[i]);
    void *q = units_malloc(20), *r = units_malloc(20);
    free(q);
    free(r);
    ok(t->pocket_held <= FIRST_UNITS, "and %u units of %d", t->pocket_held, FIRST_UNITS);
    himalloc_arena *arena = himalloc_arena_create("apart");
    pocket_clear();
    himalloc_arena_free(arena, himalloc_arena_malloc(arena, 3 * unit_bytes));
    is_u64(t->pocket_held, 0, "a named arena's units do not");
    free(units_malloc(3));
    uint64_t taken = t->large_units;
    void *named = himalloc_arena_malloc(arena, 3 * unit_bytes - 100);
    is_u64(t->large_units, taken, "nor does a named arena take any");
    himalloc_arena_free(arena, named);
    himalloc_arena_destroy(arena);
    is_u64(units_without_head(), units_in_pockets(), "no unit is lost");
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}

static size_t random_bytes(uint64_t *state)
{
    uint64_t kind = random_next(state) % 16;
    if (kind == 0)
        return random_next(state) % 2000 + 1;
    return (random_next(state) % (kind < 12 ? 6 : 30)) * unit_bytes + unit_bytes * 5 / 8 +
           random_next(state) % (unit_bytes / 2);
}

/* One block changes. What is wrong, or NULL. */
static const char *random_step(struct held *h, uint64_t *state)
{
    size_t bytes = random_bytes(state), both = bytes < h->bytes ? bytes : h->bytes;
    if (!held_is_intact(h, h->bytes))
        return "a block that others write";
    if (h->p && random_next(state) % 3 == 0) {
        unsigned char *p = realloc(h->p, bytes);
        *h = (struct held){p, bytes, h->mark};
        if (!p || !held_is_intact(h, both - both % unit_bytes))
            return "a block that realloc() did not keep";
    } else {
        free(h->p);
        *h = (struct held){random_next(state) % 3 ? malloc(bytes) : NULL, bytes, 0};
    }
    h->bytes = h->p ? bytes : 0;
    held_write(h, (unsigned char)random_next(state));
    return NULL;
}

/* Random blocks, the pocket looked at after each step; what was wrong first, or NULL. */
static const char *random_steps(struct held *held, size_t steps, uint64_t seed, bool keep)
{
    const struct hm_thread *t = NULL;
    const char *fault = NULL;
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (size_t i = 0; i < steps && !fault; i++) {
        fault = random_step(&held[random_next(&state) % HELD], &state);
        t = t ? t : own_record();
        if (!fault && t)
            fault = pocket_fault(t, held, HELD);
    }
    for (size_t i = 0; i < HELD && !keep; i++) {
        free(held[i].p);
        held[i] = (struct held){0};
    }
    return fault;
}

static void test_random(void)
{
    static struct held held[HELD];
    const char *fault = random_steps(held, STEPS, 1, false);
    ok(!fault, "%d random steps: %s", STEPS, fault ? fault : "the pocket is right after each");
    is_u64(units_without_head(), units_in_pockets(), "no unit is lost");
}

/* ---- threads ---- */

static void *leave_units(void *context)
{
    struct hm_thread **record = context;
    free(units_malloc(LATER_UNITS));
    *record = own_record();
    return (void *)(uintptr_t)(*record ? (*record)->pocket_held : 0);
}

static void test_thread_end(void)
{
    pthread_t thread;
    struct hm_thread *record = NULL;
    void *held = NULL;
    pocket_clear();
    pthread_create(&thread, NULL, leave_units, &record);
    pthread_join(thread, &held);
    is_u64((uintptr_t)held, LATER_UNITS, "a later thread has a small pocket");
    ok(record && record->pocket_held == 0 && record->pocket_count == 0, "empty when it has ended");
    is_u64(units_without_head(), 0, "and its units are the spans'");
}

struct worker {
    pthread_t thread;
    struct held held[HELD];
    uint64_t seed;
    const char *fault;
    bool pauses;
};

static bool stop;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Bursts with pauses longer than the helper's tick: it finds pockets unused, and in use again. */
static void *worker_run(void *context)
{
    struct worker *worker = context;
    uint64_t state = worker->seed * 77 + 1;
    while (!worker->fault && !__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        worker->fault = random_steps(worker->held, 400, random_next(&state), true);
        struct timespec pause = {random_next(&state) % 8 == 0,
                                 (long)(random_next(&state) % 300000)};
        if (worker->pauses)
            nanosleep(&pause, NULL);
    }
    return NULL;
}

static void workers_start(struct worker *workers, bool pauses)
{
    stop = false;
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].seed = 100 * pauses + i + 1;
        workers[i].pauses = pauses;
        pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]);
    }
}

static void workers_end(struct worker *workers, const char *what)
{
    const char *fault = NULL;
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        fault = workers[i].fault ? workers[i].fault : fault;
        for (size_t j = 0; j < HELD; j++) {
            free(workers[i].held[j].p); /* by another thread */
            workers[i].held[j] = (struct held){0};
        }
    }
    ok(!fault, "%s: %s", what, fault ? fault : "each pocket is right after each step");
    is_u64(units_without_head(), units_in_pockets(), "no unit is lost");
}

/* More dirty memory than is left alone brings the helper; it takes what lay there for a tick. */
static void test_claim(struct worker *workers)
{
    struct hm_thread *t = own_record();
    void *p[20];
    bool taken = false;
    unsigned kept = 0, long_waits = 0;
    pocket_clear();
    for (unsigned i = 0; i < 20; i++)
        memset(p[i] = units_malloc(8), 1, 8 * unit_bytes - 100);
    for (unsigned i = 0; i < 20; i++)
        free(p[i]);
    t->pocket_open = 1; /* a thread that stands still in the middle of it */
    uint32_t had = t->pocket_held;
    workers_start(workers, true);
    usleep(2500000);
    uint32_t left = t->pocket_held;
    t->pocket_open = 0;
    for (double end = seconds() + 120; !taken && seconds() < end;) {
        usleep(100000);
        taken = __atomic_load_n(&t->pocket_held, __ATOMIC_ACQUIRE) == 0;
    }
    ok(had > 0 && left == had, "the helper takes nothing from a pocket that is open");
    ok(taken && t->pocket_count == 0 && !t->pocket_claim,
       "and %u units that nobody used from one that is not", had);
    double last = seconds();
    for (unsigned i = 0; i < 150; i++) {
        double before = last;
        last = seconds();
        free(units_malloc(3));
        usleep(15000);
        bool is_kept = t->pocket_held >= 3;
        kept += is_kept;
        long_waits +=
            !is_kept && seconds() - before > 0.9; /* a tick is a second: not used in one */
    }
    ok(kept + long_waits == 150, "nothing from one that is used (%u of 150 times, %u long waits)",
       kept, long_waits);
    workers_end(workers, "threads with pauses, beside the helper");
}

/* ---- fork ---- */

/* In a child: 0, or what is wrong. Its own pocket came along; those of the threads that did not go
 * to the spans with the first slow steps, but for what a thread was at just then. */
static int child_check(struct held *held)
{
    const struct hm_thread *own = own_record();
    const uint64_t in_hands = THREADS * (LATER_UNITS + LONGEST);
    if (!own || own->pocket_claim || pocket_fault(own, held, HELD))
        return 1;
    for (size_t i = 0; i < HELD; i++)
        if (!held_is_intact(&held[i], held[i].bytes))
            return 2;
    if (random_steps(held, 1500, 4, false))
        return 3;
    for (uint32_t i = 0; i < heap_root->thread_count; i++)
        if (thread_record_at(i) != own && thread_record_at(i)->pocket_held)
            return 4;
    return units_without_head() > units_in_pockets() + in_hands ? 5 : 0;
}

static void test_fork(struct worker *workers)
{
    enum { FORKS = 30 };
    static struct held held[HELD];
    unsigned right = 0, of[6] = {0};
    workers_start(workers, false);
    const char *fault = random_steps(held, 2000, 3, true);
    for (unsigned i = 0; i < FORKS; i++) {
        int status = -1;
        fault = fault ? fault : random_steps(held, 20, i + 5, true);
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(120);
            _exit(child_check(held));
        }
        waitpid(pid, &status, 0);
        right += status == 0;
        of[WIFEXITED(status) && WEXITSTATUS(status) < 6 ? WEXITSTATUS(status) : 0]++;
    }
    ok(!fault, "the parent's own: %s", fault ? fault : "its pocket is right after each step");
    if (!ok(right == FORKS, "in %u of %d children the pocket is right and no unit lost", right,
            FORKS))
        printf("#   own pocket %u, blocks written %u, steps %u, others' %u, units lost %u\n", of[1],
               of[2], of[3], of[4], of[5]);
    for (size_t i = 0; i < HELD; i++)
        free(held[i].p);
    workers_end(workers, "threads while another forks");
}

int main(void)
{
    static struct worker workers[THREADS];
    free(malloc(1));
    if (!ok(root_find() && own_record(), "the heap's root is found"))
        return done();
    unit_bytes = (size_t)1 << heap_root->unit_shift;
    struct hm_thread *t = own_record();
    is_u64(t->index, 0, "this is the first thread");
    test_reuse(t);
    test_join(t);
    test_shortest(t);
    test_words(t);
    test_limits(t);
    test_random();
    test_thread_end();
    test_fork(workers);
    test_claim(workers);
    return done();
}
