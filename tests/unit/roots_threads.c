/*
 * Roots of a process with threads in every state: what counts and what does not, live and in
 * cores. The child puts a value of its own in each place; see roots_truth.h.
 */
#include "unit/roots_truth.h"

#include <dlfcn.h>

enum {
    IN_DATA,
    IN_BSS,
    IN_TLS,
    IN_THREAD_TLS,
    IN_DYNAMIC_TLS,
    IN_THREAD_DYNAMIC_TLS,
    IN_SPECIFIC,
    IN_RESULT,
    IN_STACK,
    IN_THREAD_STACK,
    BELOW_STACK,
    BELOW_THREAD_STACK,
    IN_JOINED,
    IN_DETACHED,
    IN_UNJOINED_STACK,
    IN_PROVIDED_STACK,
    IN_GUARDLESS_STACK,
    IN_GUARDLESS_DEAD,
    IN_ANONYMOUS,
    IN_SHARED,
    IN_MEMFD,
    IN_FILE,
};

enum { PARKED = 4 }; /* main, a thread, one on a provided stack, one without guard */

static volatile uint64_t data_word = 1;
static volatile uint64_t bss_word;
static __thread volatile uint64_t tls_word = 1;
static volatile uint64_t *(*dynamic_tls)(void);
static pthread_key_t first_key;

__attribute__((noinline)) static void leave_below(int id)
{
    volatile uint64_t frame[4096];
    truth_put(id, &frame[64]);
    __asm__ volatile("" ::"r"(frame) : "memory");
}

static void *thread_parked(void *context)
{
    volatile uint64_t word;
    (void)context;
    leave_below(BELOW_THREAD_STACK);
    truth_put(IN_THREAD_STACK, &word);
    truth_put(IN_THREAD_TLS, &tls_word);
    if (dynamic_tls)
        truth_put(IN_THREAD_DYNAMIC_TLS, dynamic_tls());
    pthread_setspecific(first_key, (void *)truth_value(IN_SPECIFIC));
    truth_park();
    return NULL;
}

static void *thread_holding(void *context)
{
    volatile uint64_t word;
    truth_put((int)(intptr_t)context, &word);
    truth_park();
    return NULL;
}

static void *thread_ending(void *context)
{
    leave_below((int)(intptr_t)context);
    truth_scrub();
    return NULL;
}

static void *thread_with_result(void *context)
{
    leave_below((int)(intptr_t)context);
    truth_scrub();
    return (void *)truth_value(IN_RESULT);
}

static pthread_t start(void *(*run)(void *), int id, size_t guard, void *stack, int detach)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setguardsize(&attributes, guard);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    if (stack)
        pthread_attr_setstack(&attributes, stack, 256 << 10);
    if (detach)
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, run, (void *)(intptr_t)id))
        _exit(90);
    return thread;
}

/* Wait until the kernel has no more such thread: then its record says that it has ended. */
static void wait_for_end(int id)
{
    char path[64];
    while (!truth->tid[id])
        usleep(1000);
    snprintf(path, sizeof path, "/proc/self/task/%d", (int)truth->tid[id]);
    while (access(path, F_OK) == 0)
        usleep(1000);
}

static void load_library(void)
{
    const char *source = "echo '__thread volatile unsigned long word[100] = {1};"
                         "volatile unsigned long *get(void) { return &word[50]; }' > lib.c &&"
                         "cc -shared -fPIC -o lib.so lib.c 2>/dev/null";
    void *library = system(source) == 0 ? dlopen("./lib.so", RTLD_NOW) : NULL;
    if (library)
        dynamic_tls = (volatile uint64_t * (*)(void)) dlsym(library, "get");
}

static volatile uint64_t *map(int flags, int fd)
{
    void *memory = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, flags, fd, 0);
    return memory == MAP_FAILED ? NULL : (volatile uint64_t *)memory + 100;
}

static void put_mappings(void)
{
    truth_put(IN_ANONYMOUS, map(MAP_PRIVATE | MAP_ANONYMOUS, -1));
    truth_put(IN_SHARED, map(MAP_SHARED | MAP_ANONYMOUS, -1));
    int fd = memfd_create("a name", MFD_CLOEXEC);
    if (ftruncate(fd, 64 << 10))
        _exit(91);
    truth_put(IN_MEMFD, map(MAP_SHARED, fd));
    fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (ftruncate(fd, 64 << 10))
        _exit(91);
    truth_put(IN_FILE, map(MAP_PRIVATE, fd));
}

static void program(void)
{
    volatile uint64_t word;
    load_library();
    leave_below(BELOW_STACK);
    truth_put(IN_STACK, &word);
    truth_put(IN_DATA, &data_word);
    truth_put(IN_BSS, &bss_word);
    truth_put(IN_TLS, &tls_word);
    if (dynamic_tls)
        truth_put(IN_DYNAMIC_TLS, dynamic_tls());
    put_mappings();
    pthread_key_create(&first_key, NULL);
    pthread_t guardless = start(thread_ending, IN_GUARDLESS_DEAD, 0, NULL, 0);
    start(thread_holding, IN_GUARDLESS_STACK, 0, NULL, 0);
    pthread_t joined = start(thread_ending, IN_JOINED, 4096, NULL, 0);
    start(thread_ending, IN_DETACHED, 4096, NULL, 1);
    start(thread_with_result, IN_UNJOINED_STACK, 4096, NULL, 0);
    /* these come last: they must not be given a stack that an ended thread has left */
    wait_for_end(IN_DETACHED);
    wait_for_end(IN_UNJOINED_STACK);
    void *stack = mmap(NULL, 256 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    start(thread_holding, IN_PROVIDED_STACK, 0, stack, 0);
    pthread_t live;
    pthread_attr_t big;
    pthread_attr_init(&big);
    pthread_attr_setstacksize(&big, 1 << 20);
    if (pthread_create(&live, &big, thread_parked, NULL))
        _exit(92);
    pthread_join(joined, NULL);
    pthread_join(guardless, NULL);
    truth_park();
}

static void expect_data(struct view *view)
{
    expect(view, IN_DATA, "data", "initialised data");
    expect(view, IN_BSS, "data", "bss");
    const struct root_range *range =
        roots_range_at(&view->roots, truth->place[IN_BSS] ^ TRUTH_MASK);
    ok(range && range->module && strcmp(range->module, symbols_module(view->symbols, 0)->path) == 0,
       "%s: bss is the executable's", view->name);
}

static void expect_tls(struct view *view)
{
    expect(view, IN_TLS, "tls", "TLS of the main thread");
    expect(view, IN_THREAD_TLS, "tls", "TLS of a thread");
    expect_tid(view, IN_TLS, "TLS");
    expect_tid(view, IN_THREAD_TLS, "TLS of a thread");
    expect(view, IN_SPECIFIC, "tls", "a value of pthread_setspecific");
    if (!truth->place[IN_DYNAMIC_TLS]) {
        ok(true, "%s: dynamic TLS # SKIP no compiler", view->name);
        return;
    }
    ok(view_is_kept(view, IN_DYNAMIC_TLS), "%s: dynamic TLS of main is kept", view->name);
    ok(view_is_kept(view, IN_THREAD_DYNAMIC_TLS), "%s: dynamic TLS of a thread", view->name);
}

static void expect_stacks(struct view *view)
{
    expect(view, IN_STACK, "stack", "main's frame");
    expect_tid(view, IN_STACK, "main's frame");
    expect(view, IN_THREAD_STACK, "stack", "a thread's frame");
    expect_tid(view, IN_THREAD_STACK, "a thread's frame");
    expect(view, IN_PROVIDED_STACK, "stack", "a frame on a stack that the program provided");
    expect(view, IN_GUARDLESS_STACK, "stack", "a frame on a stack without guard");
    expect_tid(view, IN_GUARDLESS_STACK, "a frame on a stack without guard");
    expect(view, BELOW_STACK, "nowhere", "below main's SP");
    expect(view, BELOW_THREAD_STACK, "nowhere", "below a thread's SP");
    ok(!view_is_node(view, BELOW_STACK) && !view_is_node(view, BELOW_THREAD_STACK),
       "%s: and that is no node", view->name);
}

static void expect_dead(struct view *view)
{
    static const struct {
        int id;
        const char *what;
    } dead[] = {{IN_JOINED, "a joined thread's stack"},
                {IN_DETACHED, "a detached thread's stack"},
                {IN_UNJOINED_STACK, "the stack of a thread that nobody has joined"},
                {IN_GUARDLESS_DEAD, "a joined thread's stack without guard"}};
    for (size_t i = 0; i < sizeof dead / sizeof *dead; i++) {
        expect(view, dead[i].id, "nowhere", dead[i].what);
        ok(view_is_dead(view, dead[i].id) && !view_is_node(view, dead[i].id),
           "%s: %s is known as dead", view->name, dead[i].what);
    }
    expect(view, IN_RESULT, "kept", "the result that nobody has fetched");
}

static void expect_nodes(struct view *view)
{
    static const struct {
        int id;
        const char *what;
    } nodes[] = {{IN_ANONYMOUS, "an anonymous mapping"},
                 {IN_SHARED, "a shared anonymous mapping"},
                 {IN_MEMFD, "a memfd"},
                 {IN_FILE, "a private mapping of a file"}};
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        expect(view, nodes[i].id, "nowhere", nodes[i].what);
        ok(view_is_node(view, nodes[i].id), "%s: %s is a node", view->name, nodes[i].what);
    }
    struct roots all;
    struct root_options options = {ROOTS_DEFAULT | 1u << ROOT_ANON};
    if (!ok(roots_collect(&all, view->target, view->symbols, &options, NULL) == HI_OK, "+anon"))
        return;
    const struct root_range *range = roots_range_at(&all, truth->place[IN_ANONYMOUS] ^ TRUTH_MASK);
    ok(range && range->class == ROOT_ANON && all.nodes.count == 0, "%s: with +anon it is a root",
       view->name);
    roots_free(&all);
}

static void expect_order(struct view *view)
{
    bool ordered = true;
    for (size_t i = 1; i < view->roots.ranges.count; i++)
        ordered &= view->roots.ranges.items[i - 1].end <= view->roots.ranges.items[i].start;
    ok(ordered, "%s: ranges are in order and disjoint", view->name);
    is_u64(view->roots.missing_bytes, 0, "nothing is missing");
    struct roots few;
    struct root_options options = {1u << ROOT_DATA};
    if (!ok(roots_collect(&few, view->target, view->symbols, &options, NULL) == HI_OK, "data only"))
        return;
    bool only = few.ranges.count > 0;
    for (size_t i = 0; i < few.ranges.count; i++)
        only &= few.ranges.items[i].class == ROOT_DATA;
    ok(only && few.words.count == 0, "%s: only the classes that were asked for", view->name);
    is_u64(few.nodes.count, view->roots.nodes.count, "which makes no node more");
    roots_free(&few);
}

static void ask(struct view *view)
{
    expect_data(view);
    expect_tls(view);
    expect_stacks(view);
    expect_dead(view);
    expect_nodes(view);
    expect_order(view);
}

/* ---- what is not there ---- */

/* A process of which a debugger gave us no registers: every stack counts whole. */
static void ask_without_registers(pid_t child)
{
    struct view view = {.name = "no registers"};
    struct hi_err err = {0};
    if (!ok(target_open_process(&view.target, child, NULL, &err) == HI_OK, "%s", err.message))
        return;
    for (size_t i = 0; i < target_thread_count(view.target); i++) {
        struct thread thread = *target_thread(view.target, i);
        thread.has_registers = false;
        thread.vector_state = NULL;
        (void)!target_add_registers(view.target, &thread, NULL);
    }
    if (view_fill(&view, ROOTS_DEFAULT)) {
        expect(&view, IN_STACK, "stack", "main's frame");
        expect(&view, BELOW_STACK, "stack", "all of main's stack");
        expect(&view, IN_THREAD_STACK, "stack", "a thread's frame");
        expect(&view, IN_TLS, "tls", "TLS of the main thread");
        expect(&view, IN_JOINED, "nowhere", "a joined thread's stack");
        ok(view_is_dead(&view, IN_JOINED), "%s: is dead as ever", view.name);
    }
    view_close(&view);
}

static void ask_truncated(struct view *view)
{
    char path[400];
    static int cut = 0;
    if (cut || !strstr(view->name, ", core") || !truth_find_core(path, sizeof path))
        return;
    cut = 1;
    if (truncate(path, 256 << 10))
        return;
    struct view other = {.name = "threads, truncated core"};
    struct hi_err err = {0};
    if (ok(target_open_core(&other.target, path, NULL, &err) == HI_OK, "%s opens %s", other.name,
           err.message) &&
        view_fill(&other, ROOTS_DEFAULT)) {
        uint64_t missing = 0;
        for (size_t i = 0; i < other.roots.ranges.count; i++)
            missing += target_missing_in(other.target, other.roots.ranges.items[i].start,
                                         other.roots.ranges.items[i].end);
        ok(other.roots.missing_bytes > 0 && missing == other.roots.missing_bytes,
           "%s: missing bytes of roots are counted", other.name);
    }
    view_close(&other);
}

static void ask_all(struct view *view)
{
    ask(view);
    ask_truncated(view);
}

int main(void)
{
    truth_setup();
    pid_t child = truth_start(program, PARKED);
    ask_without_registers(child);
    truth_ask(child, "threads", ask_all);
    truth_end();
    return done();
}
