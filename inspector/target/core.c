/*
 * A core dump: the kernel's, gdb's gcore, compressed, cut off.
 *
 * Read order: the file (core_image.c), its headers, its notes, then what lies where
 * (core_layout.c). After that reading is a binary search over extents and a copy out of the mapped
 * file; target_view gives the mapped bytes themselves.
 *
 * The file is mapped, so it must not shrink while it is read: the kernel would end us (SIGBUS).
 *
 * Holes of a sparse core are pages that nobody touched: target_contents leaves them out, as it
 * does for a live process (SEEK_DATA; a file system without it says that all is data).
 */
#include "target/core.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

struct core_state {
    struct core_image image;
    struct core_headers headers;
    struct core_notes notes;
    struct core_layout layout;
};

/* ---- reading ---- */

static bool read_extent(struct target *target, const struct core_extent *extent, hi_addr address,
                        void *buffer, size_t bytes)
{
    const struct core_state *state = target->state;
    switch (extent->kind) {
    case EXTENT_DATA:
        memcpy(buffer, state->image.bytes + extent->offset + (address - extent->start), bytes);
        return true;
    case EXTENT_ZERO:
        memset(buffer, 0, bytes);
        return true;
    case EXTENT_FILE:
        return target->source.read &&
               target->source.read(target->source.context, target_mapping_at(target, address),
                                   address, buffer, bytes, NULL) == HI_OK;
    case EXTENT_TRUNCATED:
    case EXTENT_FILTERED:
        break;
    }
    return false;
}

static size_t core_read_some(struct target *target, hi_addr address, void *buffer, size_t bytes)
{
    const struct core_state *state = target->state;
    const struct core_extent *extent = core_layout_at(&state->layout, address);
    const struct core_extent *stop = state->layout.extents.items + state->layout.extents.count;
    size_t got = 0;
    for (; extent && extent < stop && got < bytes; extent++) {
        hi_addr at = address + got;
        if (extent->start > at)
            break;
        size_t step = extent->end - at < bytes - got ? extent->end - at : bytes - got;
        if (!read_extent(target, extent, at, (char *)buffer + got, step))
            break;
        got += step;
    }
    return got;
}

static const void *core_view(struct target *target, hi_addr address, size_t *bytes)
{
    const struct core_state *state = target->state;
    const struct core_extent *extent = core_layout_at(&state->layout, address);
    *bytes = 0;
    if (!extent || extent->start > address || extent->kind != EXTENT_DATA)
        return NULL;
    *bytes = extent->end - address;
    return state->image.bytes + extent->offset + (address - extent->start);
}

static enum hi_code core_explain(struct target *target, hi_addr address, struct hi_err *err)
{
    const struct core_state *state = target->state;
    const struct core_extent *extent = core_layout_at(&state->layout, address);
    const struct mapping *mapping = target_mapping_at(target, address);
    if (extent && extent->start <= address && extent->kind == EXTENT_TRUNCATED)
        return hi_fault(err, address, "address 0x%" PRIx64 " is missing: the core is truncated",
                        address);
    if (extent && extent->start <= address && extent->kind == EXTENT_FILE)
        return hi_fault(err, address,
                        "address 0x%" PRIx64 " is not in the core, and there is no such file as "
                        "%s here",
                        address, mapping && mapping->path ? mapping->path : "?");
    return hi_fault(err, address, "address 0x%" PRIx64 " is missing: it was left out of the core",
                    address);
}

/* ---- what has content ---- */

/* The next stretch of data in [from, end) of one EXTENT_DATA; whole pages where there is a choice.
 */
static bool next_data(const struct target *target, const struct core_extent *extent, hi_addr from,
                      hi_addr end, struct hi_range *range)
{
    const struct core_state *state = target->state;
    uint64_t base = extent->offset, page = target->page_bytes;
    off_t data = lseek(state->image.fd, (off_t)(base + (from - extent->start)), SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return false; /* a hole up to the end of the file */
    hi_addr start = from, stop = end;
    if (data >= 0) {
        off_t hole = lseek(state->image.fd, data, SEEK_HOLE);
        hi_addr data_at = target_add_bytes(extent->start, (uint64_t)data - base);
        start = data_at - data_at % page > from ? data_at - data_at % page : from;
        if (hole > data) {
            hi_addr hole_at = target_add_bytes(extent->start, (uint64_t)hole - base);
            stop = target_add_bytes(hole_at - hole_at % page, hole_at % page ? page : 0);
        }
    }
    *range = (struct hi_range){start, stop < end ? stop : end};
    return range->start < range->end;
}

static size_t extent_contents(const struct target *target, const struct core_extent *extent,
                              hi_addr from, hi_addr end, struct hi_range *ranges, size_t capacity)
{
    size_t count = 0;
    if (extent->kind == EXTENT_FILE && target->source.read) {
        ranges[0] = (struct hi_range){from, end};
        return 1;
    }
    if (extent->kind != EXTENT_DATA)
        return 0;
    while (count < capacity && from < end && next_data(target, extent, from, end, &ranges[count]))
        from = ranges[count++].end;
    return count;
}

static size_t core_contents(struct target *target, hi_addr from, hi_addr end,
                            struct hi_range *ranges, size_t capacity)
{
    const struct core_state *state = target->state;
    const struct core_extent *extent = core_layout_at(&state->layout, from);
    const struct core_extent *stop = state->layout.extents.items + state->layout.extents.count;
    size_t count = 0;
    for (; extent && extent < stop && extent->start < end && count < capacity; extent++) {
        hi_addr low = extent->start > from ? extent->start : from;
        hi_addr high = extent->end < end ? extent->end : end;
        count += extent_contents(target, extent, low, high, ranges + count, capacity - count);
    }
    return count;
}

/* ---- files ---- */

/* Only regular files are opened: the path comes from the core, and opening a device may act. */
static int open_regular(const char *path)
{
    char link[64];
    struct stat file;
    int handle = open(path, O_PATH | O_CLOEXEC);
    if (handle < 0)
        return -1;
    int fd = -1;
    if (fstat(handle, &file) == 0 && S_ISREG(file.st_mode)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
        fd = open(link, O_RDONLY | O_CLOEXEC);
    } else {
        errno = EINVAL;
    }
    int saved = errno;
    close(handle);
    errno = saved;
    return fd;
}

static enum hi_code core_open_file(struct target *target, const struct mapping *mapping, int *fd,
                                   struct hi_err *err)
{
    static const char deleted[] = " (deleted)";
    char path[8192];
    bool is_executable = target->executable && strcmp(mapping->path, target->executable) == 0;
    if (is_executable && target->executable_option)
        snprintf(path, sizeof path, "%s", target->executable_option);
    else
        snprintf(path, sizeof path, "%s%s", target->sysroot ? target->sysroot : "", mapping->path);
    *fd = open_regular(path);
    size_t length = strlen(path), tail = sizeof deleted - 1;
    /* replaced by an upgrade: the build-id will tell whether the new one serves */
    if (*fd < 0 && length > tail && strcmp(path + length - tail, deleted) == 0) {
        path[length - tail] = 0;
        *fd = open_regular(path);
    }
    if (*fd < 0)
        return hi_fail(err, HI_NOT_FOUND, "cannot open %s: %s", path, strerror(errno));
    return HI_OK;
}

static void core_close(struct target *target)
{
    struct core_state *state = target->state;
    core_layout_free(&state->layout);
    core_notes_free(&state->notes);
    core_headers_free(&state->headers);
    core_image_close(&state->image);
    free(state);
}

static const struct target_backend core_backend = {
    .kind = TARGET_CORE,
    .read_some = core_read_some,
    .contents = core_contents,
    .explain = core_explain,
    .view = core_view,
    .open_file = core_open_file,
    .close = core_close,
};

/* ---- opening ---- */

/* The file that holds the program headers is the executable; AT_EXECFN may be relative. */
static const char *find_executable(struct target *target, char *buffer, size_t size)
{
    const struct core_state *state = target->state;
    uint64_t address;
    if (target_auxv(target, AT_PHDR, &address) || target_auxv(target, AT_ENTRY, &address)) {
        const struct mapping *mapping = target_mapping_at(target, address);
        if (mapping && mapping->path && mapping->path[0] == '/')
            return mapping->path;
    }
    if (target_auxv(target, AT_EXECFN, &address) &&
        target_read_string(target, address, buffer, size, NULL) == HI_OK && buffer[0])
        return buffer;
    return state->notes.command[0] ? state->notes.command : NULL;
}

static void set_executable(struct target *target)
{
    char buffer[4096];
    const char *found = find_executable(target, buffer, sizeof buffer);
    target->executable = found ? strdup(found) : NULL;
}

static void set_page_bytes(struct target *target)
{
    uint64_t bytes;
    if (target_auxv(target, AT_PAGESZ, &bytes) && bytes >= 4096 && bytes <= 1 << 20 &&
        (bytes & (bytes - 1)) == 0)
        target->page_bytes = (unsigned)bytes;
}

/* The first note of all: the report begins with it. */
static void note_truncation(struct target *target)
{
    const struct core_state *state = target->state;
    const struct core_layout *layout = &state->layout;
    if (layout->truncated_bytes)
        target_add_note(target,
                        "core is truncated: %" PRIu64 " of %" PRIu64 " bytes of memory are missing",
                        layout->truncated_bytes, layout->dumped_bytes);
    else if (state->headers.is_cut)
        target_add_note(target, "core is truncated within its table of segments");
    if (state->headers.is_cut || state->notes.is_cut)
        target->incomplete = true;
}

static void note_damage(struct target *target)
{
    const struct core_state *state = target->state;
    if (state->notes.is_cut)
        target_add_note(target, "the notes of the core are cut off: threads may be missing");
    if (state->headers.overlapping || state->headers.senseless || state->notes.senseless) {
        target->incomplete = true;
        target_add_note(target,
                        "the core is damaged: %zu segments overlap, %zu segments and %zu notes "
                        "make no sense",
                        state->headers.overlapping, state->headers.senseless,
                        state->notes.senseless);
    }
    if (!target->threads.count) {
        target->incomplete = true;
        target_add_note(target, "the core names no threads: registers and stacks are not known");
    }
}

/* Notes of the parts come before truncation is known: put that one first. */
static void put_last_note_first(struct target *target, size_t before)
{
    if (target->notes.count == before)
        return;
    char **items = target->notes.items, *last = items[target->notes.count - 1];
    memmove(items + 1, items, (target->notes.count - 1) * sizeof *items);
    items[0] = last;
}

static enum hi_code fill(struct target *target, const char *path,
                         const struct target_options *options, struct hi_err *err)
{
    struct core_state *state = target->state;
    enum hi_code code =
        core_image_open(&state->image, target, path, options ? options->progress : NULL, err);
    if (code == HI_OK)
        code = core_headers_read(&state->headers, &state->image, path, err);
    if (code == HI_OK)
        code = core_notes_read(&state->notes, target, &state->image, &state->headers, err);
    if (code != HI_OK)
        return code;
    set_page_bytes(target);
    code = core_layout_make(&state->layout, target, &state->image, &state->headers, &state->notes,
                            err);
    if (code != HI_OK)
        return code;
    set_executable(target);
    size_t before = target->notes.count;
    note_truncation(target);
    put_last_note_first(target, before);
    note_damage(target);
    return HI_OK;
}

enum hi_code target_open_core(struct target **target, const char *path,
                              const struct target_options *options, struct hi_err *err)
{
    *target = NULL;
    struct core_state *state = calloc(1, sizeof *state);
    struct target *made = state ? target_new(&core_backend, state, options) : NULL;
    if (!made) {
        free(state);
        return hi_no_memory(err);
    }
    state->image.fd = -1;
    made->file = strdup(path);
    enum hi_code code = made->file ? fill(made, path, options, err) : hi_no_memory(err);
    if (code == HI_OK)
        *target = made;
    else
        target_close(made);
    return code;
}
