/*
 * The parts that every target shares.
 *
 * Mappings are sorted by start and do not overlap, so the one that holds an address is found by
 * binary search. Missing ranges are sorted and merged. Both are fixed once the opener has called
 * target_seal(); threads may be replaced by target_add_registers() before anybody reads.
 *
 * A read is a prefix: a backend hands back as many bytes from the start as it has, and target_read
 * turns a short one into a fault at the first byte that could not be had. The sentence of that
 * fault says which of the reasons it was: not mapped, left out of the dump, cut off.
 *
 * Addresses come from damaged memory, so address + bytes may pass the end of the address space:
 * such a read is cut there.
 */
#include "target/backend.h"

#include <inttypes.h>
#include <stdarg.h>

hi_addr target_add_bytes(hi_addr address, uint64_t bytes)
{
    return bytes > UINT64_MAX - address ? UINT64_MAX : address + bytes;
}

/* ---- making and closing ---- */

static char *copy_text(const char *text, bool *failed)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        *failed = true;
    return copy;
}

struct target *target_new(const struct target_backend *backend, void *state,
                          const struct target_options *options)
{
    struct target *target = calloc(1, sizeof *target);
    if (!target)
        return NULL;
    bool failed = false;
    target->backend = backend;
    target->state = state;
    target->page_bytes = 4096;
    target->sysroot = copy_text(options ? options->sysroot : NULL, &failed);
    target->executable_option = copy_text(options ? options->executable : NULL, &failed);
    if (failed) {
        free(target->sysroot);
        free(target->executable_option);
        free(target);
        return NULL;
    }
    return target;
}

void target_release(struct target *target)
{
    if (target && target->backend->release)
        target->backend->release(target);
}

void target_close(struct target *target)
{
    if (!target)
        return;
    target_release(target);
    if (target->backend->close)
        target->backend->close(target);
    for (size_t i = 0; i < target->mappings.count; i++)
        free((char *)target->mappings.items[i].path);
    for (size_t i = 0; i < target->threads.count; i++)
        free(target->threads.items[i].vector_state);
    for (size_t i = 0; i < target->notes.count; i++)
        free(target->notes.items[i]);
    VECTOR_FREE(&target->mappings);
    VECTOR_FREE(&target->threads);
    VECTOR_FREE(&target->missing);
    VECTOR_FREE(&target->notes);
    VECTOR_FREE(&target->auxv);
    free(target->executable);
    free(target->executable_option);
    free(target->file);
    free(target->sysroot);
    free(target);
}

struct mapping *target_push_mapping(struct target *target, hi_addr start, hi_addr end,
                                    const char *path)
{
    bool failed = false;
    char *copy = copy_text(path, &failed);
    if (failed)
        return NULL;
    struct mapping *mapping = VECTOR_PUSH(&target->mappings);
    if (!mapping) {
        free(copy);
        return NULL;
    }
    mapping->start = start;
    mapping->end = end;
    mapping->path = copy;
    return mapping;
}

bool target_push_missing(struct target *target, hi_addr start, hi_addr end)
{
    if (start >= end)
        return true;
    struct hi_range *range = VECTOR_PUSH(&target->missing);
    if (!range)
        return false;
    *range = (struct hi_range){start, end};
    return true;
}

struct ordered_mapping {
    struct mapping mapping;
    size_t order;
};

static int compare_mappings(const void *left, const void *right)
{
    const struct ordered_mapping *a = left, *b = right;
    if (a->mapping.start != b->mapping.start)
        return a->mapping.start < b->mapping.start ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

static bool mappings_in_order(const struct target *target)
{
    const struct mapping *items = target->mappings.items;
    for (size_t i = 0; i < target->mappings.count; i++)
        if (items[i].start >= items[i].end || (i && items[i].start < items[i - 1].end))
            return false;
    return true;
}

/* Cut each mapping down to what lies behind the one before it; drop what is left empty. */
static void drop_overlaps(struct target *target)
{
    struct mapping *items = target->mappings.items;
    size_t kept = 0;
    for (size_t i = 0; i < target->mappings.count; i++) {
        struct mapping mapping = items[i];
        if (kept && mapping.start < items[kept - 1].end) {
            mapping.file_offset += items[kept - 1].end - mapping.start;
            mapping.start = items[kept - 1].end;
        }
        if (mapping.start >= mapping.end)
            free((char *)mapping.path);
        else
            items[kept++] = mapping;
    }
    target->mappings.count = kept;
}

static enum hi_code sort_mappings(struct target *target, struct hi_err *err)
{
    size_t count = target->mappings.count;
    struct ordered_mapping *ordered = calloc(count, sizeof *ordered);
    if (!ordered)
        return hi_no_memory(err);
    for (size_t i = 0; i < count; i++)
        ordered[i] = (struct ordered_mapping){target->mappings.items[i], i};
    qsort(ordered, count, sizeof *ordered, compare_mappings);
    for (size_t i = 0; i < count; i++)
        target->mappings.items[i] = ordered[i].mapping;
    free(ordered);
    return HI_OK;
}

static int compare_ranges(const void *left, const void *right)
{
    const struct hi_range *a = left, *b = right;
    return a->start < b->start ? -1 : a->start > b->start;
}

static void merge_missing(struct target *target)
{
    struct hi_range *items = target->missing.items;
    size_t kept = 0;
    if (target->missing.count)
        qsort(items, target->missing.count, sizeof *items, compare_ranges);
    for (size_t i = 0; i < target->missing.count; i++) {
        if (kept && items[i].start <= items[kept - 1].end) {
            if (items[i].end > items[kept - 1].end)
                items[kept - 1].end = items[i].end;
        } else {
            items[kept++] = items[i];
        }
    }
    target->missing.count = kept;
}

enum hi_code target_seal(struct target *target, struct hi_err *err)
{
    merge_missing(target);
    if (mappings_in_order(target))
        return HI_OK;
    enum hi_code code = sort_mappings(target, err);
    if (code == HI_OK)
        drop_overlaps(target);
    return code;
}

/* ---- plain accessors ---- */

enum target_kind target_kind(const struct target *target)
{
    return target->backend->kind;
}

pid_t target_pid(const struct target *target)
{
    return target->pid;
}

const char *target_executable(const struct target *target)
{
    return target->executable;
}

const char *target_file(const struct target *target)
{
    return target->file;
}

unsigned target_page_bytes(const struct target *target)
{
    return target->page_bytes;
}

pid_t target_held_by(const struct target *target)
{
    return target->held_by;
}

double target_stopped_seconds(const struct target *target)
{
    return target->stopped_seconds;
}

size_t target_mapping_count(const struct target *target)
{
    return target->mappings.count;
}

const struct mapping *target_mapping(const struct target *target, size_t index)
{
    return index < target->mappings.count ? &target->mappings.items[index] : NULL;
}

const struct mapping *target_mapping_at(const struct target *target, hi_addr address)
{
    size_t low = 0, high = target->mappings.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (target->mappings.items[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < target->mappings.count && target->mappings.items[low].start <= address)
        return &target->mappings.items[low];
    return NULL;
}

bool target_auxv(const struct target *target, uint64_t type, uint64_t *value)
{
    for (size_t i = 0; i < target->auxv.count; i++)
        if (target->auxv.items[i].type == type) {
            *value = target->auxv.items[i].value;
            return true;
        }
    return false;
}

/* ---- threads ---- */

size_t target_thread_count(const struct target *target)
{
    return target->threads.count;
}

const struct thread *target_thread(const struct target *target, size_t index)
{
    return index < target->threads.count ? &target->threads.items[index] : NULL;
}

void thread_set_registers(struct thread *thread, const uint64_t *registers)
{
    memcpy(thread->registers, registers, sizeof thread->registers);
    thread->has_registers = true;
    thread->pc = registers[REGISTER_PC];
    thread->sp = registers[REGISTER_SP];
    thread->fs_base = registers[REGISTER_FS_BASE];
}

static struct thread *find_thread(struct target *target, pid_t tid)
{
    for (size_t i = 0; i < target->threads.count; i++)
        if (target->threads.items[i].tid == tid)
            return &target->threads.items[i];
    return NULL;
}

enum hi_code target_add_registers(struct target *target, const struct thread *thread,
                                  struct hi_err *err)
{
    void *vector_state = NULL;
    if (thread->vector_state && thread->vector_state_bytes) {
        vector_state = malloc(thread->vector_state_bytes);
        if (!vector_state)
            return hi_no_memory(err);
        memcpy(vector_state, thread->vector_state, thread->vector_state_bytes);
    }
    struct thread *known = find_thread(target, thread->tid);
    if (!known)
        known = VECTOR_PUSH(&target->threads);
    if (!known) {
        free(vector_state);
        return hi_no_memory(err);
    }
    struct thread old = *known;
    *known = *thread;
    known->vector_state = vector_state;
    known->vector_state_bytes = vector_state ? thread->vector_state_bytes : 0;
    if (!known->name[0])
        memcpy(known->name, old.name, sizeof known->name);
    free(old.vector_state);
    return HI_OK;
}

/* ---- reading ---- */

size_t target_read_some(struct target *target, hi_addr address, void *buffer, size_t bytes)
{
    if (bytes > UINT64_MAX - address)
        bytes = UINT64_MAX - address;
    return bytes ? target->backend->read_some(target, address, buffer, bytes) : 0;
}

size_t target_peek(struct target *target, hi_addr address, void *buffer, size_t bytes)
{
    if (bytes > UINT64_MAX - address)
        bytes = (size_t)(UINT64_MAX - address);
    if (!bytes)
        return 0;
    return target->backend->peek ? target->backend->peek(target, address, buffer, bytes)
                                 : target->backend->read_some(target, address, buffer, bytes);
}

enum hi_code target_read(struct target *target, hi_addr address, void *buffer, size_t bytes,
                         struct hi_err *err)
{
    size_t got = target_read_some(target, address, buffer, bytes);
    if (got == bytes)
        return HI_OK;
    hi_addr bad = address + got;
    if (target->backend->explain && target_mapping_at(target, bad))
        return target->backend->explain(target, bad, err);
    return hi_fault(err, bad, "address 0x%" PRIx64 " is not %s", bad,
                    target_mapping_at(target, bad) ? "readable" : "mapped");
}

enum hi_code target_read_u64(struct target *target, hi_addr address, uint64_t *value,
                             struct hi_err *err)
{
    return target_read(target, address, value, sizeof *value, err);
}

enum hi_code target_read_string(struct target *target, hi_addr address, char *buffer, size_t size,
                                struct hi_err *err)
{
    if (size == 0)
        return HI_OK;
    size_t filled = 0;
    /* Page by page: the string may end right before memory that is not there. */
    while (filled < size - 1) {
        size_t step = target->page_bytes - (address + filled) % target->page_bytes;
        if (step > size - 1 - filled)
            step = size - 1 - filled;
        size_t got = target_read_some(target, address + filled, buffer + filled, step);
        if (memchr(buffer + filled, 0, got))
            return HI_OK;
        filled += got;
        if (got < step) {
            buffer[filled] = 0;
            return hi_fault(err, address + filled, "the string at 0x%" PRIx64 " has no end",
                            address);
        }
    }
    buffer[filled] = 0;
    return HI_OK;
}

const void *target_view(struct target *target, hi_addr address, size_t *bytes)
{
    return target->backend->view ? target->backend->view(target, address, bytes) : NULL;
}

size_t target_contents(struct target *target, hi_addr from, hi_addr end, struct hi_range *ranges,
                       size_t capacity)
{
    if (from >= end || !capacity)
        return 0;
    return target->backend->contents(target, from, end, ranges, capacity);
}

bool target_next_content(struct target *target, hi_addr from, hi_addr end, struct hi_range *range)
{
    return target_contents(target, from, end, range, 1) == 1;
}

/* ---- what is not there ---- */

bool target_ended(const struct target *target)
{
    return target->ended;
}

bool target_complete(const struct target *target)
{
    return target->missing.count == 0 && !target->incomplete;
}

size_t target_missing_count(const struct target *target)
{
    return target->missing.count;
}

uint64_t target_missing_bytes(const struct target *target)
{
    return target_missing_in(target, 0, UINT64_MAX);
}

uint64_t target_missing_in(const struct target *target, hi_addr start, hi_addr end)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < target->missing.count; i++) {
        struct hi_range range = target->missing.items[i];
        hi_addr low = range.start > start ? range.start : start;
        hi_addr high = range.end < end ? range.end : end;
        if (low < high)
            bytes += high - low;
    }
    return bytes;
}

size_t target_note_count(const struct target *target)
{
    return target->notes.count;
}

const char *target_note(const struct target *target, size_t index)
{
    return index < target->notes.count ? target->notes.items[index] : NULL;
}

void target_add_note(struct target *target, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    /* When memory is out the note is lost: the caller has worse things to report. */
    char *copy = strdup(text);
    if (!copy)
        return;
    char **slot = VECTOR_PUSH(&target->notes);
    if (slot)
        *slot = copy;
    else
        free(copy);
}

/* ---- files ---- */

void target_set_file_source(struct target *target, const struct target_file_source *source)
{
    target->source = source ? *source : (struct target_file_source){0};
}

enum hi_code target_open_file(struct target *target, const struct mapping *mapping, int *fd,
                              struct hi_err *err)
{
    if (!mapping->path || mapping->path[0] != '/' || !target->backend->open_file)
        return hi_fail(err, HI_NOT_FOUND, "no file stands behind 0x%" PRIx64, mapping->start);
    return target->backend->open_file(target, mapping, fd, err);
}
