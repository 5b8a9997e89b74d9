/*
 * The notes of a core: who it was, its threads with registers, its files.
 *
 * A note is 12 bytes of sizes and type, a name padded to 4, a description padded to 4. The kernel
 * and gdb write the same kinds in another order; what both keep is that what belongs to a thread
 * (FPREGSET, X86_XSTATE, SIGINFO) follows its PRSTATUS, and that the first PRSTATUS is the thread
 * that crashed.
 *
 *   PRSTATUS  signal at 12 (16 bit), thread id at 32, 27 registers at 112
 *   PRPSINFO  process id at 24, command at 40 (16 bytes)
 *   FILE      count, page size, then start, end, offset in pages for each, then all paths, each
 *             ended by 0
 *
 * A cut or senseless note is counted and skipped; everything that it would have told is then not
 * known, and the caller says so.
 */
#include "target/core.h"

#include <elf.h>

enum {
    PRSTATUS_SIGNAL = 12,
    PRSTATUS_TID = 32,
    PRSTATUS_REGISTERS = 112,
    PRSTATUS_BYTES = PRSTATUS_REGISTERS + THREAD_REGISTER_COUNT * 8,
    PRPSINFO_PID = 24,
    PRPSINFO_COMMAND = 40,
    PRPSINFO_COMMAND_BYTES = 16,
    VECTOR_STATE_MAX_BYTES = 1 << 20,
};

struct note {
    unsigned type;
    const unsigned char *bytes;
    uint64_t count;
};

static uint64_t get_u64(const unsigned char *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static uint32_t get_u32(const unsigned char *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* ---- threads ---- */

static bool take_prstatus(struct core_notes *notes, struct target *target, const struct note *note)
{
    uint64_t registers[THREAD_REGISTER_COUNT];
    if (note->count < PRSTATUS_BYTES) {
        notes->senseless++;
        return true;
    }
    struct thread *thread = VECTOR_PUSH(&target->threads);
    if (!thread)
        return false;
    memcpy(registers, note->bytes + PRSTATUS_REGISTERS, sizeof registers);
    thread_set_registers(thread, registers);
    thread->tid = (pid_t)get_u32(note->bytes + PRSTATUS_TID);
    thread->signal = note->bytes[PRSTATUS_SIGNAL] | note->bytes[PRSTATUS_SIGNAL + 1] << 8;
    thread->is_crashed = target->threads.count == 1 && thread->signal != 0;
    return true;
}

/* The larger of FPREGSET and X86_XSTATE stays: the latter begins with the former. */
static bool take_vector_state(struct target *target, const struct note *note)
{
    if (!target->threads.count || note->count > VECTOR_STATE_MAX_BYTES)
        return true;
    struct thread *thread = &target->threads.items[target->threads.count - 1];
    if (note->count <= thread->vector_state_bytes)
        return true;
    void *copy = malloc(note->count);
    if (!copy)
        return false;
    memcpy(copy, note->bytes, note->count);
    free(thread->vector_state);
    thread->vector_state = copy;
    thread->vector_state_bytes = note->count;
    return true;
}

static void take_prpsinfo(struct core_notes *notes, struct target *target, const struct note *note)
{
    if (note->count < PRPSINFO_COMMAND + PRPSINFO_COMMAND_BYTES) {
        notes->senseless++;
        return;
    }
    target->pid = (pid_t)get_u32(note->bytes + PRPSINFO_PID);
    memcpy(notes->command, note->bytes + PRPSINFO_COMMAND, PRPSINFO_COMMAND_BYTES);
}

static bool take_auxv(struct target *target, const struct note *note)
{
    for (uint64_t at = 0; note->count - at >= 16; at += 16) {
        uint64_t type = get_u64(note->bytes + at);
        if (type == AT_NULL)
            break;
        struct target_auxv_entry *entry = VECTOR_PUSH(&target->auxv);
        if (!entry)
            return false;
        *entry = (struct target_auxv_entry){type, get_u64(note->bytes + at + 8)};
    }
    return true;
}

/* ---- files ---- */

static bool push_file(struct core_notes *notes, const unsigned char *line, uint64_t page_bytes,
                      const char *path)
{
    uint64_t start = get_u64(line), end = get_u64(line + 8), pages = get_u64(line + 16);
    uint64_t offset;
    if (start >= end || __builtin_mul_overflow(pages, page_bytes, &offset)) {
        notes->senseless++;
        return true;
    }
    struct core_file *file = VECTOR_PUSH(&notes->files);
    if (file)
        *file = (struct core_file){start, end, offset, path};
    return file != NULL;
}

static bool take_files(struct core_notes *notes, const struct note *note)
{
    if (note->count < 16) {
        notes->senseless++;
        return true;
    }
    uint64_t count = get_u64(note->bytes), page_bytes = get_u64(note->bytes + 8);
    if (count > (note->count - 16) / 24) {
        notes->senseless++;
        count = (note->count - 16) / 24;
    }
    const unsigned char *line = note->bytes + 16, *end = note->bytes + note->count;
    const char *path = (const char *)line + count * 24;
    for (uint64_t i = 0; i < count; i++, line += 24) {
        const char *stop = memchr(path, 0, (size_t)((const char *)end - path));
        if (!stop) {
            notes->senseless++;
            break;
        }
        if (!push_file(notes, line, page_bytes, path))
            return false;
        path = stop + 1;
    }
    return true;
}

static int compare_files(const void *left, const void *right)
{
    const struct core_file *a = left, *b = right;
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static void drop_overlaps(struct core_notes *notes)
{
    struct core_file *items = notes->files.items;
    size_t kept = 0;
    if (notes->files.count)
        qsort(items, notes->files.count, sizeof *items, compare_files);
    for (size_t i = 0; i < notes->files.count; i++)
        if (kept && items[i].start < items[kept - 1].end)
            notes->senseless++;
        else
            items[kept++] = items[i];
    notes->files.count = kept;
}

/* ---- the list of notes ---- */

static bool take_note(struct core_notes *notes, struct target *target, const struct note *note)
{
    switch (note->type) {
    case NT_PRSTATUS:
        return take_prstatus(notes, target, note);
    case NT_FPREGSET:
    case NT_X86_XSTATE:
        return take_vector_state(target, note);
    case NT_PRPSINFO:
        take_prpsinfo(notes, target, note);
        return true;
    case NT_AUXV:
        return take_auxv(target, note);
    case NT_FILE:
        return take_files(notes, note);
    default:
        return true;
    }
}

static bool is_ours(const unsigned char *name, uint64_t bytes)
{
    return (bytes == 5 && memcmp(name, "CORE", 5) == 0) ||
           (bytes == 6 && memcmp(name, "LINUX", 6) == 0);
}

static uint64_t pad(uint64_t bytes)
{
    return (bytes + 3) & ~3ULL;
}

/* All notes in [at, end) of the file. False: out of memory. */
static bool read_segment(struct core_notes *notes, struct target *target,
                         const struct core_image *image, uint64_t at, uint64_t end)
{
    if (end > image->size) {
        notes->is_cut = true;
        end = image->size;
    }
    while (at < end && end - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr header;
        memcpy(&header, image->bytes + at, sizeof header);
        at += sizeof header;
        uint64_t name = at, name_bytes = pad(header.n_namesz), bytes = header.n_descsz;
        if (end - at < name_bytes || end - at - name_bytes < bytes) {
            notes->is_cut = true;
            break;
        }
        struct note note = {header.n_type, image->bytes + at + name_bytes, bytes};
        if (is_ours(image->bytes + name, header.n_namesz) && !take_note(notes, target, &note))
            return false;
        at +=
            name_bytes + (pad(bytes) < end - at - name_bytes ? pad(bytes) : end - at - name_bytes);
    }
    return true;
}

enum hi_code core_notes_read(struct core_notes *notes, struct target *target,
                             const struct core_image *image, const struct core_headers *headers,
                             struct hi_err *err)
{
    for (size_t i = 0; i < headers->notes.count; i++) {
        struct hi_range range = headers->notes.items[i];
        if (!read_segment(notes, target, image, range.start, range.end))
            return hi_no_memory(err);
    }
    drop_overlaps(notes);
    for (size_t i = 0; i < target->threads.count; i++)
        if (target->threads.items[i].tid == target->pid)
            memcpy(target->threads.items[i].name, notes->command,
                   sizeof target->threads.items[i].name - 1);
    return HI_OK;
}

void core_notes_free(struct core_notes *notes)
{
    VECTOR_FREE(&notes->files);
}
