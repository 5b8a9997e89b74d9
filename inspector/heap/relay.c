/* Reading ahead in turns; see relay.h. */
#include "heap/relay.h"

#include "base/parallel.h"

#include <pthread.h>

struct relay {
    struct target *target;
    struct hi_range range;
    const struct relay_guest *guest;
    relay_step step;
    void *context;
    unsigned char *buffers; /* HELD_MOST a worker */
    uint64_t count;         /* of windows */
    uint64_t next;          /* the first that nobody has taken: shared, atomic */
    hi_addr wanted;         /* what the walk needs next: written by whose turn it is, atomic */
    uint64_t turn;          /* of which window; written under the lock, atomic */
    pthread_mutex_t lock;
    pthread_cond_t passed;
};

enum { BUFFER_BYTES = RELAY_WINDOW_BYTES + RELAY_OVERLAP_BYTES };
/* Windows that a worker has read and not walked: rather than wait for its turn it reads the next,
 * and all of them stay near. (Two processors, 2.6 GiB: waiting took a quarter of the time.) */
enum { HELD_MOST = 3 };

static struct relay_window window_at(const struct relay *relay, uint64_t index,
                                     const unsigned char *buffer)
{
    struct relay_window window = {
        .start = relay->range.start + index * RELAY_WINDOW_BYTES,
        .bytes = buffer,
    };
    uint64_t left = relay->range.end - window.start;
    window.end = window.start + (left < RELAY_WINDOW_BYTES ? left : RELAY_WINDOW_BYTES);
    return window;
}

static size_t window_read(const struct relay *relay, const struct relay_window *window,
                          unsigned char *buffer)
{
    struct hi_range content;
    uint64_t bytes = relay->range.end - window->start;
    bytes = bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES;
    if (!target_next_content(relay->target, window->start, window->start + bytes, &content) ||
        content.start != window->start || content.end - content.start > bytes)
        return 0;
    return target_read_some(relay->target, content.start, buffer, content.end - content.start);
}

static void window_show(const struct relay *relay, const struct relay_window *window, int worker)
{
    uint64_t own = window->end - window->start;
    relay->guest->see(relay->guest->context, worker, window->start, window->bytes,
                      window->have < own ? window->have : own);
}

/* What a worker holds, a ring: windows [first, next), by the order in which it took them. */
struct held {
    struct relay_window windows[HELD_MOST];
    uint64_t indexes[HELD_MOST];
    unsigned first, next;
};

static void turn_wait(struct relay *relay, uint64_t index)
{
    pthread_mutex_lock(&relay->lock);
    while (relay->turn != index)
        pthread_cond_wait(&relay->passed, &relay->lock);
    pthread_mutex_unlock(&relay->lock);
}

static void turn_pass(struct relay *relay)
{
    pthread_mutex_lock(&relay->lock);
    __atomic_store_n(&relay->turn, relay->turn + 1, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&relay->passed);
    pthread_mutex_unlock(&relay->lock);
}

/* Take the next window and read it. false: there are no more. */
static bool window_take(struct relay *relay, struct held *held, int worker)
{
    uint64_t index = __atomic_fetch_add(&relay->next, 1, __ATOMIC_RELAXED);
    if (index >= relay->count)
        return false;
    unsigned slot = held->next++ % HELD_MOST;
    unsigned char *buffer = relay->buffers + ((size_t)worker * HELD_MOST + slot) * BUFFER_BYTES;
    struct relay_window *window = &held->windows[slot];
    *window = window_at(relay, index, buffer);
    held->indexes[slot] = index;
    if (window->end > __atomic_load_n(&relay->wanted, __ATOMIC_RELAXED))
        window->have = window_read(relay, window, buffer);
    if (relay->guest && window->have)
        window_show(relay, window, worker);
    return true;
}

/* The oldest window's step, whose turn it is. */
static void window_walk(struct relay *relay, struct held *held)
{
    const struct relay_window *window = &held->windows[held->first++ % HELD_MOST];
    if (window->end > relay->wanted) {
        hi_addr wanted = relay->step(relay->context, window);
        __atomic_store_n(&relay->wanted, wanted, __ATOMIC_RELAXED);
    }
    turn_pass(relay);
}

/* Walks what it may, else reads what it can hold, else waits. The window whose turn it is is always
 * the oldest one of some worker, which does not wait for anyone: so nobody waits for ever. */
static void relay_work(void *context, int worker)
{
    struct relay *relay = context;
    struct held held = {.first = 0};
    bool more = true;
    while (more || held.first != held.next) {
        uint64_t oldest = held.indexes[held.first % HELD_MOST];
        bool holds = held.first != held.next;
        if (holds && __atomic_load_n(&relay->turn, __ATOMIC_ACQUIRE) == oldest) {
            window_walk(relay, &held);
        } else if (more && held.next - held.first < HELD_MOST) {
            more = window_take(relay, &held, worker);
        } else {
            turn_wait(relay, oldest);
        }
    }
}

bool relay_run(struct target *target, struct hi_range range, int jobs,
               const struct relay_guest *guest, relay_step step, void *context)
{
    struct relay relay = {
        .target = target, .range = range, .guest = guest, .step = step, .context = context};
    if (range.start >= range.end)
        return true;
    jobs = jobs > 0 ? jobs : parallel_default_jobs();
    relay.count = (range.end - range.start - 1) / RELAY_WINDOW_BYTES + 1;
    if (relay.count < (uint64_t)jobs)
        jobs = (int)relay.count;
    relay.buffers = malloc((size_t)jobs * HELD_MOST * BUFFER_BYTES);
    if (!relay.buffers)
        return false;
    pthread_mutex_init(&relay.lock, NULL);
    pthread_cond_init(&relay.passed, NULL);
    parallel_run(jobs, relay_work, &relay);
    pthread_cond_destroy(&relay.passed);
    pthread_mutex_destroy(&relay.lock);
    free(relay.buffers);
    return true;
}
