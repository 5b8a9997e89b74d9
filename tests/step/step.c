/*
 * Walkable at every instruction: the proof.
 *
 *   step [--boundaries N] [--seed N] [--stop-at-first] [--coverage] [--address-space BYTES]
 *        [--whole FUNCTION] PROGRAM [ARGUMENT...]
 *
 * Runs a program linked with the allocator under the tracer, and after every instruction that a
 * thread executes inside the allocator reads the heap from outside with the inspector's own reader
 * and compares it with what the program holds (truth.c). Several threads inside are stepped in
 * seeded random interleavings: runs of one to some dozens of instructions of one thread.
 *
 * A call of FUNCTION is one step: to take a stack is thousands of instructions that touch no block.
 *
 * Ends with one line of numbers. Status 0: no wrong answer and the program ended well or the number
 * of boundaries was reached; 1: wrong answers; 2: could not do it.
 */
#include "step/step_target.h"
#include "step/truth.h"

#include <getopt.h>
#include <inttypes.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

const struct heap_reader *const heap_readers[] = {&himalloc_reader, NULL};

enum { STEP_IDLE_ROUNDS = 20000 };

/* How many boundaries lay in a function. */
struct visit {
    const char *name;
    uint64_t count;
};

struct step {
    struct tracer *tracer;
    struct target *target;
    struct truth truth;
    uint64_t boundaries, limit, random, switches;
    pid_t current;
    unsigned run; /* instructions left before another thread may have its turn */
    bool stop_at_first, coverage;
    const char *whole;
    VECTOR(struct visit) visits;
};

static uint64_t step_random(struct step *step)
{
    step->random ^= step->random << 13;
    step->random ^= step->random >> 7;
    step->random ^= step->random << 17;
    return step->random;
}

static enum hi_code step_check(struct step *step, struct hi_err *err)
{
    if (tracer_mappings_changed(step->tracer) || !step->target) {
        target_close(step->target);
        step->target = NULL;
        enum hi_code code = step_target_open(&step->target, step->tracer, err);
        if (code != HI_OK)
            return code;
    }
    enum hi_code code = step_target_threads(step->target, step->tracer, err);
    if (code != HI_OK)
        return code;
    struct heap_context context = {.target = step->target};
    struct heaps *heaps;
    code = heaps_open(&heaps, &context, NULL, err);
    if (code != HI_OK)
        return code;
    truth_compare(&step->truth, step->tracer, heaps, &context);
    heaps_close(heaps);
    step->boundaries++;
    return HI_OK;
}

static void step_visit(struct step *step, hi_addr pc)
{
    uint64_t offset;
    const char *name = tracer_symbol(step->tracer, pc, &offset);
    for (size_t i = 0; i < step->visits.count; i++)
        if (step->visits.items[i].name == name) {
            step->visits.items[i].count++;
            return;
        }
    struct visit *visit = VECTOR_PUSH(&step->visits);
    if (visit)
        *visit = (struct visit){name, 1};
}

/* Whose turn it is: the same thread while its run lasts, then any that is inside. */
static struct traced *step_choose(struct step *step)
{
    struct traced *inside[64];
    size_t count = 0;
    for (size_t i = 0; i < tracer_thread_count(step->tracer) && count < 64; i++) {
        struct traced *thread = tracer_thread(step->tracer, i);
        if (thread->state != TRACED_INSIDE)
            continue;
        if (thread->tid == step->current && step->run > 0) {
            step->run--;
            return thread;
        }
        inside[count++] = thread;
    }
    if (count == 0)
        return NULL;
    struct traced *chosen = inside[step_random(step) % count];
    step->switches += chosen->tid != step->current;
    step->current = chosen->tid;
    step->run = step_random(step) % 2 ? 0 : (unsigned)(step_random(step) % 48);
    return chosen;
}

static void report_place(struct step *step, const struct traced *thread, uint64_t wrong_before)
{
    if (truth_wrong(&step->truth) == wrong_before || wrong_before > 0)
        return;
    uint64_t offset;
    const char *name = tracer_symbol(step->tracer, thread->registers.rip, &offset);
    printf("# first wrong answer at boundary %" PRIu64 ", %s+0x%" PRIx64 " in %s: %s\n",
           step->boundaries, name, offset, thread->call.name ? thread->call.name : "?",
           step->truth.first);
}

static enum hi_code step_once(struct step *step, struct hi_err *err)
{
    struct traced *thread = step_choose(step);
    struct call call;
    uint64_t result, wrong_before = truth_wrong(&step->truth);
    if (!thread)
        return HI_NOT_FOUND;
    pid_t tid = thread->tid;
    enum tracer_event event = tracer_step(step->tracer, thread, &call, &result);
    for (size_t i = 0; i < tracer_thread_count(step->tracer); i++)
        if (tracer_thread(step->tracer, i)->tid == tid)
            thread = tracer_thread(step->tracer, i);
    if (event == TRACER_NOTHING || event == TRACER_ENDED)
        return HI_OK;
    if (event == TRACER_RETURNED) {
        thread->call = (struct call){0};
        truth_returned(&step->truth, step->tracer, &call, result);
    }
    if (step->coverage)
        step_visit(step, thread->registers.rip);
    enum hi_code code = step_check(step, err);
    report_place(step, thread, wrong_before);
    if (event == TRACER_RETURNED)
        tracer_release(step->tracer, thread);
    return code;
}

static bool step_is_done(const struct step *step)
{
    return step->boundaries >= step->limit ||
           (step->stop_at_first && truth_wrong(&step->truth) > 0);
}

static enum hi_code step_all(struct step *step, struct hi_err *err)
{
    unsigned idle = 0;
    while (!step_is_done(step) && tracer_settle(step->tracer)) {
        enum hi_code code = step_once(step, err);
        if (code != HI_OK && code != HI_NOT_FOUND)
            return code;
        idle = code == HI_NOT_FOUND ? idle + 1 : 0;
        if (idle > STEP_IDLE_ROUNDS)
            return hi_fail(err, HI_SYSTEM, "every thread sleeps");
        if (idle > 100)
            usleep(100);
    }
    return HI_OK;
}

static bool ended_well(const struct step *step)
{
    int status = tracer_status(step->tracer);
    return step_is_done(step) || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int step_report(const struct step *step)
{
    const struct truth *truth = &step->truth;
    for (size_t i = 0; i < step->visits.count; i++)
        printf("in %s %" PRIu64 "\n", step->visits.items[i].name, step->visits.items[i].count);
    printf("boundaries %" PRIu64 " calls %" PRIu64 " mallocs %" PRIu64 " frees %" PRIu64
           " reallocs %" PRIu64 " moved %" PRIu64 " switches %" PRIu64 " unreturned %" PRIu64
           " named %" PRIu64 " live_called_free %" PRIu64 " free_called_live %" PRIu64
           " too_small %" PRIu64 " strange %" PRIu64 " notes %" PRIu64 " wrong_notes %" PRIu64
           " ended %s\n",
           step->boundaries, truth->calls, truth->mallocs, truth->frees, truth->reallocs,
           truth->moved, step->switches, truth->in_flight_seen, truth->in_flight_named,
           truth->live_called_free, truth->free_called_live, truth->too_small, truth->strange,
           truth->notes, truth->wrong_notes, ended_well(step) ? "well" : "badly");
    return truth_wrong(truth) > 0 || !ended_well(step) ? 1 : 0;
}

static bool step_options(struct step *step, int count, char **arguments)
{
    static const struct option options[] = {{"boundaries", required_argument, NULL, 'b'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"stop-at-first", no_argument, NULL, 'f'},
                                            {"coverage", no_argument, NULL, 'c'},
                                            {"address-space", required_argument, NULL, 'a'},
                                            {"whole", required_argument, NULL, 'w'},
                                            {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(count, arguments, "+", options, NULL)) != -1) {
        switch (option) {
        case 'b':
            step->limit = strtoull(optarg, NULL, 10);
            break;
        case 's':
            step->random = strtoull(optarg, NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
            break;
        case 'f':
            step->stop_at_first = true;
            break;
        case 'c':
            step->coverage = true;
            break;
        case 'w':
            step->whole = optarg;
            break;
        case 'a': {
            rlim_t bytes = strtoull(optarg, NULL, 10);
            struct rlimit limit = {bytes, bytes};
            setrlimit(RLIMIT_AS, &limit);
            break;
        }
        default:
            return false;
        }
    }
    return optind < count;
}

int main(int count, char **arguments)
{
    struct step step = {.limit = UINT64_MAX, .random = 1};
    struct hi_err err = {0};
    if (!step_options(&step, count, arguments)) {
        fprintf(stderr, "usage: step [--boundaries N] [--seed N] [--stop-at-first] "
                        "[--address-space BYTES] PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    enum hi_code code = tracer_start(&step.tracer, arguments + optind, &err);
    if (code == HI_OK && step.whole)
        tracer_run_whole(step.tracer, step.whole);
    if (code == HI_OK)
        code = step_all(&step, &err);
    if (code != HI_OK) {
        fprintf(stderr, "step: %s\n", err.message);
        if (step.tracer)
            tracer_close(step.tracer);
        return 2;
    }
    int status = step_report(&step);
    tracer_close(step.tracer);
    target_close(step.target);
    truth_free(&step.truth);
    VECTOR_FREE(&step.visits);
    return status;
}
