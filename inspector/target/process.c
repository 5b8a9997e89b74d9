/*
 * A live process.
 *
 * Read order: who is it (refusal_check), is it 64-bit, how shall we read; then stop, registers,
 * mappings, memory, release. Everything that can be asked without stopping is asked before.
 *
 * Two ways to read. process_vm_readv is the faster, but it pins pages, and the kernel copies an
 * anonymous page that is shared copy-on-write (a fork's child or parent) before it lets it be
 * pinned: reading would then double the memory of the very process in trouble. So where pages
 * are shared (Shared_Dirty of smaps_rollup) /proc/PID/mem is read with pread, which does not. The
 * latter also serves what has no read permission (PROT_NONE that once had content), and processes
 * whose process_vm_readv a container forbids.
 *
 * The main thread may have ended while others live on (pthread_exit in main). The kernel then
 * shows no memory under the process id, so memory is asked for under the id of a living thread.
 *
 * A copy made by a fork in the process (fork_copy.h) shares all its pages, so it is read with
 * pread. What files it has mapped, and what it is, is still asked of the process itself.
 *
 * A process that a debugger has stopped is read as it stands. Nothing keeps the debugger from
 * letting it go in the middle; its counts of context switches, before and after, tell.
 */
#include "target/backend.h"
#include "target/content.h"
#include "target/maps.h"
#include "target/proc.h"
#include "target/refusal.h"
#include "target/tracer.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct process_state {
    struct tracer *tracer;
    pid_t memory_id; /* a living thread */
    int memory, pagemap;
    int running; /* memory of the process once it runs again, for hints; -1: it does not */
    pid_t copy;  /* that is read in the process's place; 0: none */
    _Atomic bool use_pread;
    bool released;
    uint64_t switches; /* of a held process, when it was opened */
};

/* ---- reading ---- */

static size_t read_by_pread(int memory, hi_addr address, void *buffer, size_t bytes)
{
    size_t got = 0;
    while (got < bytes) {
        ssize_t step = pread(memory, (char *)buffer + got, bytes - got, (off_t)(address + got));
        if (step < 0 && errno == EINTR)
            continue;
        if (step <= 0)
            break;
        got += (size_t)step;
    }
    return got;
}

static size_t process_read_some(struct target *target, hi_addr address, void *buffer, size_t bytes)
{
    struct process_state *state = target->state;
    size_t got = 0;
    if (state->memory < 0)
        return 0;
    while (got < bytes && !atomic_load_explicit(&state->use_pread, memory_order_relaxed)) {
        struct iovec local = {(char *)buffer + got, bytes - got};
        struct iovec remote = {(void *)(uintptr_t)(address + got), bytes - got};
        ssize_t step = process_vm_readv(state->memory_id, &local, 1, &remote, 1, 0);
        if (step < 0 && (errno == EPERM || errno == ENOSYS))
            atomic_store_explicit(&state->use_pread, true, memory_order_relaxed);
        if (step <= 0)
            break;
        got += (size_t)step;
    }
    return got < bytes ? got + read_by_pread(state->memory, address + got, (char *)buffer + got,
                                             bytes - got)
                       : got;
}

/* The descriptor stays with the memory that was stopped: after an exec it reads nothing, not the
 * new program's bytes. */
static size_t process_peek(struct target *target, hi_addr address, void *buffer, size_t bytes)
{
    const struct process_state *state = target->state;
    int memory = state->released ? state->running : state->memory; /* before: the copy's, if any */
    return memory < 0 ? 0 : read_by_pread(memory, address, buffer, bytes);
}

static bool has_memory(const struct process_state *state)
{
    struct proc_status status;
    return proc_read_status(state->copy ? state->copy : state->memory_id, &status) &&
           status.has_memory;
}

static enum hi_code process_explain(struct target *target, hi_addr address, struct hi_err *err)
{
    struct process_state *state = target->state;
    if (state->released)
        return hi_fault(err, address, "process %d was let go and can no longer be read",
                        (int)target->pid);
    if (!has_memory(state))
        return hi_fault(err, address, "process %d ended while it was being read", (int)target->pid);
    return hi_fault(err, address, "address 0x%" PRIx64 " of process %d cannot be read", address,
                    (int)target->pid);
}

/* Untouched pages can be told only of private anonymous memory: of a file or of shared memory a
 * page may have content that this process has not yet looked at. */
static bool can_skip_pages(const struct mapping *mapping)
{
    return !mapping->shared && (!mapping->path || strcmp(mapping->path, "[heap]") == 0 ||
                                strncmp(mapping->path, "[stack", 6) == 0);
}

static size_t mapping_contents(const struct target *target, const struct mapping *mapping,
                               hi_addr from, hi_addr end, struct hi_range *ranges, size_t capacity)
{
    const struct process_state *state = target->state;
    size_t count;
    if (!can_skip_pages(mapping) || state->pagemap < 0 ||
        !content_scan(state->pagemap, from, end, target->page_bytes, ranges, capacity, &count)) {
        ranges[0] = (struct hi_range){from, end};
        return 1;
    }
    if (count && ranges[0].start < from)
        ranges[0].start = from;
    if (count && ranges[count - 1].end > end)
        ranges[count - 1].end = end;
    return count;
}

static size_t process_contents(struct target *target, hi_addr from, hi_addr end,
                               struct hi_range *ranges, size_t capacity)
{
    size_t count = 0;
    const struct mapping *mapping = target_mapping_at(target, from);
    const struct mapping *stop = target->mappings.items + target->mappings.count;
    if (!mapping) /* the first one behind from */
        for (mapping = target->mappings.items; mapping < stop && mapping->start < from; mapping++)
            ;
    for (; mapping < stop && mapping->start < end && count < capacity; mapping++) {
        hi_addr low = mapping->start > from ? mapping->start : from;
        hi_addr high = mapping->end < end ? mapping->end : end;
        count += mapping_contents(target, mapping, low, high, ranges + count, capacity - count);
    }
    return count;
}

/* ---- files ---- */

static enum hi_code process_open_file(struct target *target, const struct mapping *mapping, int *fd,
                                      struct hi_err *err)
{
    static const char deleted[] = " (deleted)";
    const struct process_state *state = target->state;
    char path[4096 + 64];
    size_t length = strlen(mapping->path);
    bool is_executable = target->executable && strcmp(mapping->path, target->executable) == 0;
    if (is_executable && target->executable_option) {
        *fd = open(target->executable_option, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (*fd >= 0)
            return HI_OK;
        return hi_fail(err, HI_NOT_FOUND, "cannot open %s: %s", target->executable_option,
                       strerror(errno));
    }
    snprintf(path, sizeof path, "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)state->memory_id,
             mapping->start, mapping->end);
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd >= 0)
        return HI_OK;
    bool is_deleted = length >= sizeof deleted - 1 &&
                      strcmp(mapping->path + length - (sizeof deleted - 1), deleted) == 0;
    if (is_executable)
        snprintf(path, sizeof path, "/proc/%d/exe", (int)state->memory_id);
    else if (is_deleted)
        return hi_fail(err, HI_NOT_FOUND, "%.*s was deleted and only root can still open it",
                       (int)(length - (sizeof deleted - 1)), mapping->path);
    else
        snprintf(path, sizeof path, "/proc/%d/root%s", (int)state->memory_id, mapping->path);
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return hi_fail(err, HI_NOT_FOUND, "cannot open %s: %s", mapping->path, strerror(errno));
    return HI_OK;
}

/* ---- letting go ---- */

static uint64_t count_switches(pid_t pid, const struct target *target)
{
    uint64_t sum = 0;
    struct proc_status status;
    for (size_t i = 0; i < target->threads.count; i++)
        if (proc_read_thread_status(pid, target->threads.items[i].tid, &status))
            sum += status.switches;
    return sum;
}

static void process_release(struct target *target)
{
    struct process_state *state = target->state;
    if (state->released)
        return;
    state->released = true;
    if (target->held_by && count_switches(target->pid, target) != state->switches) {
        target->incomplete = true;
        target_add_note(target, "process %d ran while it was read: its debugger let it go",
                        (int)target->pid);
    } else if (!has_memory(state)) {
        target->incomplete = target->ended = true;
        target_add_note(target, "process %d ended while it was being read", (int)target->pid);
    }
    target->stopped_seconds = tracer_release(state->tracer);
    state->tracer = NULL;
    if (state->pagemap >= 0)
        close(state->pagemap);
    if (state->copy && state->memory >= 0)
        close(state->memory);
    else
        state->running = state->memory;
    state->memory = state->pagemap = -1;
}

static void process_close(struct target *target)
{
    struct process_state *state = target->state;
    if (state->running >= 0)
        close(state->running);
    free(state);
}

static const struct target_backend process_backend = {
    .kind = TARGET_PROCESS,
    .read_some = process_read_some,
    .peek = process_peek,
    .contents = process_contents,
    .explain = process_explain,
    .open_file = process_open_file,
    .release = process_release,
    .close = process_close,
};

/* ---- opening ---- */

struct process_size target_process_size(pid_t pid)
{
    struct process_size size = {0};
    char *text = proc_read_file(pid, "statm", NULL), *at = text;
    uint64_t pages[3] = {0}, page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; at && i < 3; i++) /* size, resident, shared */
        pages[i] = strtoull(at, &at, 10);
    free(text);
    size.mapped_bytes = pages[0] * page_bytes;
    size.own_bytes = pages[1] > pages[2] ? (pages[1] - pages[2]) * page_bytes : 0;
    return size;
}

static enum hi_code check_machine(pid_t pid, struct hi_err *err)
{
    char path[64];
    unsigned char header[EI_NIDENT + 4];
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return HI_OK; /* the refusal comes when we attach */
    ssize_t got = pread(fd, header, sizeof header, 0);
    close(fd);
    if (got == sizeof header && header[EI_CLASS] == ELFCLASS32)
        return hi_fail(err, HI_UNSUPPORTED,
                       "process %d is a 32-bit program; only 64-bit ones can be inspected",
                       (int)pid);
    return HI_OK;
}

static bool shares_pages(pid_t pid)
{
    char *text = proc_read_file(pid, "smaps_rollup", NULL);
    const char *line = text ? strstr(text, "\nShared_Dirty:") : NULL;
    bool shares = line && strtoull(line + sizeof "\nShared_Dirty:" - 1, NULL, 10) > 0;
    free(text);
    return shares;
}

/* Stopped in all its threads by another tracer? */
static bool is_held(pid_t pid, const pid_vector *tids)
{
    for (size_t i = 0; i < tids->count; i++) {
        struct proc_status status;
        if (proc_read_thread_status(pid, tids->items[i], &status) && status.state != 't' &&
            status.state != 'Z' && status.state != 'X')
            return false;
    }
    return true;
}

static enum hi_code push_held_threads(struct target *target, const pid_vector *tids,
                                      struct hi_err *err)
{
    for (size_t i = 0; i < tids->count; i++) {
        struct proc_status status;
        if (proc_read_thread_status(target->pid, tids->items[i], &status) && status.state != 't')
            continue;
        struct thread *thread = VECTOR_PUSH(&target->threads);
        if (!thread)
            return hi_no_memory(err);
        thread->tid = tids->items[i];
        proc_read_thread_name(target->pid, thread->tid, thread->name, sizeof thread->name);
        proc_read_position(target->pid, thread->tid, &thread->pc, &thread->sp);
    }
    return HI_OK;
}

static enum hi_code take_held(struct target *target, pid_t tracer, struct hi_err *err)
{
    struct process_state *state = target->state;
    pid_vector tids = {0};
    enum hi_code code = proc_list_threads(target->pid, &tids, err);
    if (code == HI_OK && !is_held(target->pid, &tids))
        code = refusal_explain(target->pid, EPERM, err);
    if (code == HI_OK)
        code = push_held_threads(target, &tids, err);
    VECTOR_FREE(&tids);
    if (code != HI_OK)
        return code;
    target->held_by = tracer;
    state->switches = count_switches(target->pid, target);
    return HI_OK;
}

static enum hi_code stop(struct target *target, struct hi_err *err)
{
    struct process_state *state = target->state;
    struct proc_status status;
    if (proc_read_status(target->pid, &status) && status.tracer)
        return take_held(target, status.tracer, err);
    return tracer_stop(&state->tracer, target, err);
}

static int open_proc(pid_t id, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)id, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static enum hi_code read_mappings(struct target *target, struct hi_err *err)
{
    const struct process_state *state = target->state;
    size_t bad = 0;
    char *text = proc_read_file(state->memory_id, "maps", NULL);
    if (!text)
        return refusal_explain(target->pid, errno, err);
    enum hi_code code = maps_parse(target, text, &bad, err);
    free(text);
    if (code == HI_OK && bad)
        target_add_note(target, "%zu lines of /proc/%d/maps make no sense", bad, (int)target->pid);
    if (code == HI_OK && target->mappings.count == 0)
        code = hi_fail(err, HI_REFUSED, "process %d has no memory: it is ending", (int)target->pid);
    return code == HI_OK ? target_seal(target, err) : code;
}

static enum hi_code read_auxv(struct target *target, struct hi_err *err)
{
    const struct process_state *state = target->state;
    size_t bytes = 0;
    char *text = proc_read_file(state->memory_id, "auxv", &bytes);
    enum hi_code code = HI_OK;
    for (size_t at = 0; text && at + sizeof(struct target_auxv_entry) <= bytes;
         at += sizeof(struct target_auxv_entry)) {
        struct target_auxv_entry *entry = VECTOR_PUSH(&target->auxv);
        if (!entry) {
            code = hi_no_memory(err);
            break;
        }
        memcpy(entry, text + at, sizeof *entry);
        if (entry->type == AT_NULL)
            break;
    }
    free(text);
    return code;
}

static void read_executable(struct target *target)
{
    const struct process_state *state = target->state;
    char path[4096];
    if (proc_read_link(state->memory_id, "exe", path, sizeof path))
        target->executable = strdup(path);
}

/* ---- a copy ---- */

/* The address of a system call instruction: the vdso has some, for clocks it can't read itself. */
static hi_addr find_system_call(struct target *target)
{
    enum { VDSO_MOST = 64 * 1024 };
    static const unsigned char instruction[] = {0x0f, 0x05};
    hi_addr found = 0;
    unsigned char *bytes = malloc(VDSO_MOST);
    for (size_t i = 0; bytes && i < target->mappings.count; i++) {
        const struct mapping *mapping = &target->mappings.items[i];
        if (!mapping->path || strcmp(mapping->path, "[vdso]") != 0)
            continue;
        size_t got = (size_t)(mapping->end - mapping->start);
        got = process_read_some(target, mapping->start, bytes, got < VDSO_MOST ? got : VDSO_MOST);
        const unsigned char *at = memmem(bytes, got, instruction, sizeof instruction);
        found = at ? mapping->start + (hi_addr)(at - bytes) : 0;
    }
    free(bytes);
    return found;
}

static enum hi_code copy_by_fork(struct target *target, struct hi_err *err)
{
    struct process_state *state = target->state;
    struct proc_status status;
    hi_addr instruction = find_system_call(target);
    if (target->held_by) {
        target_add_note(target, "its debugger holds process %d already: --snapshot does nothing",
                        (int)target->pid);
        return HI_OK;
    }
    if (!instruction)
        return hi_fail(err, HI_REFUSED,
                       "process %d has no vdso to make it fork; leave out "
                       "--snapshot",
                       (int)target->pid);
    if (proc_read_status(target->pid, &status) && status.has_filter)
        return hi_fail(err, HI_REFUSED,
                       "process %d has a seccomp filter, which may kill it for a fork; leave out "
                       "--snapshot",
                       (int)target->pid);
    enum hi_code code = tracer_copy(state->tracer, instruction, &state->copy, err);
    if (code != HI_OK)
        return code;
    close(state->pagemap);
    state->running = state->memory;
    state->memory = open_proc(state->copy, "mem");
    state->pagemap = open_proc(state->copy, "pagemap");
    atomic_store_explicit(&state->use_pread, true, memory_order_relaxed);
    return state->memory >= 0 ? HI_OK : refusal_explain(state->copy, errno, err);
}

static enum hi_code fill(struct target *target, struct hi_err *err)
{
    struct process_state *state = target->state;
    enum hi_code code = stop(target, err);
    if (code != HI_OK)
        return code;
    state->memory_id = target->threads.count ? target->threads.items[0].tid : target->pid;
    state->memory = open_proc(state->memory_id, "mem");
    if (state->memory < 0)
        return refusal_explain(target->pid, errno, err);
    state->pagemap = open_proc(state->memory_id, "pagemap");
    code = read_mappings(target, err);
    if (code == HI_OK)
        code = read_auxv(target, err);
    read_executable(target);
    if (code == HI_OK && target->wants_copy)
        code = copy_by_fork(target, err);
    return code;
}

enum hi_code target_open_process(struct target **target, pid_t pid,
                                 const struct target_options *options, struct hi_err *err)
{
    *target = NULL;
    enum hi_code code = refusal_check(pid, err);
    if (code == HI_OK)
        code = check_machine(pid, err);
    if (code != HI_OK)
        return code;
    struct process_state *state = calloc(1, sizeof *state);
    struct target *made = state ? target_new(&process_backend, state, options) : NULL;
    if (!made) {
        free(state);
        return hi_no_memory(err);
    }
    state->memory = state->pagemap = state->running = -1;
    state->use_pread = shares_pages(pid);
    made->pid = pid;
    made->wants_copy = options && options->fork_copy;
    made->page_bytes = (unsigned)sysconf(_SC_PAGESIZE);
    code = fill(made, err);
    if (code == HI_OK)
        *target = made;
    else
        target_close(made);
    return code;
}
