/* A target over a program that this very process traces: memory by process_vm_readv, mappings from
 * /proc, registers from the tracer. */
#define _GNU_SOURCE
#include "step/step_target.h"

#include "target/backend.h"
#include "target/content.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/uio.h>
#include <unistd.h>

static size_t step_read_some(struct target *target, hi_addr address, void *buffer, size_t bytes)
{
    struct iovec local = {buffer, bytes}, remote = {(void *)(uintptr_t)address, bytes};
    ssize_t got = process_vm_readv(target->pid, &local, 1, &remote, 1, 0);
    if (got == (ssize_t)bytes)
        return bytes;
    size_t done = 0; /* page by page up to the first that is not there */
    while (done < bytes) {
        size_t step = 4096 - (address + done) % 4096;
        step = step < bytes - done ? step : bytes - done;
        local = (struct iovec){(char *)buffer + done, step};
        remote = (struct iovec){(void *)(uintptr_t)(address + done), step};
        if (process_vm_readv(target->pid, &local, 1, &remote, 1, 0) != (ssize_t)step)
            break;
        done += step;
    }
    return done;
}

/* Which pages were touched: most of the tables beside the heap never are. */
static size_t step_contents(struct target *target, hi_addr from, hi_addr end,
                            struct hi_range *ranges, size_t capacity)
{
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/pagemap", target->pid);
    int pagemap = open(path, O_RDONLY | O_CLOEXEC);
    bool known = pagemap >= 0 &&
                 content_scan(pagemap, from, end, target->page_bytes, ranges, capacity, &count);
    if (pagemap >= 0)
        close(pagemap);
    if (known)
        return count;
    ranges[0] = (struct hi_range){from, end};
    return 1;
}

static const struct target_backend step_backend = {
    .kind = TARGET_PROCESS, .read_some = step_read_some, .contents = step_contents};

static bool mapping_line(struct target *target, const char *line)
{
    uint64_t start, end, offset;
    char protection[5], path[256] = "";
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*s %*s %255[^\n]", &start, &end,
               protection, &offset, path) < 4)
        return true;
    if (strcmp(path, "[vsyscall]") == 0 || strcmp(path, "[vvar]") == 0)
        return true;
    struct mapping *mapping = target_push_mapping(target, start, end, path[0] ? path : NULL);
    if (!mapping)
        return false;
    mapping->protection = (protection[0] == 'r' ? MAPPING_READ : 0u) |
                          (protection[1] == 'w' ? MAPPING_WRITE : 0u) |
                          (protection[2] == 'x' ? MAPPING_EXECUTE : 0u);
    mapping->file_offset = offset;
    mapping->special = path[0] == '[';
    return true;
}

enum hi_code step_target_open(struct target **target, struct tracer *tracer, struct hi_err *err)
{
    char path[64], line[512];
    bool enough = true;
    *target = target_new(&step_backend, NULL, NULL);
    if (!*target)
        return hi_no_memory(err);
    (*target)->pid = tracer_pid(tracer);
    snprintf(path, sizeof path, "/proc/%d/maps", tracer_pid(tracer));
    FILE *maps = fopen(path, "re");
    if (!maps)
        return hi_fail(err, HI_SYSTEM, "%s can't be read", path);
    while (enough && fgets(line, sizeof line, maps))
        enough = mapping_line(*target, line);
    fclose(maps);
    return enough ? target_seal(*target, err) : hi_no_memory(err);
}

enum hi_code step_target_threads(struct target *target, struct tracer *tracer, struct hi_err *err)
{
    target->threads.count = 0; /* no vector states: nothing to free */
    for (size_t i = 0; i < tracer_thread_count(tracer); i++) {
        const struct traced *traced = tracer_thread(tracer, i);
        struct thread *thread = VECTOR_PUSH(&target->threads);
        if (!thread)
            return hi_no_memory(err);
        thread->tid = traced->tid;
        if (traced->state != TRACED_INSIDE)
            continue;
        uint64_t registers[THREAD_REGISTER_COUNT];
        _Static_assert(sizeof registers == sizeof traced->registers, "user_regs_struct");
        memcpy(registers, &traced->registers, sizeof registers);
        thread_set_registers(thread, registers);
        thread->has_registers = true;
    }
    return HI_OK;
}
