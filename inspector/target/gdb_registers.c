/*
 * gdb's registers, line by line.
 *
 * General registers go to their place in struct user_regs_struct. Vector registers are put together
 * as an XSAVE area in standard (not compacted) layout, as the kernel would have given it, so that
 * whoever reads roots needs to know one form only:
 *
 *   512   legacy area: xmm0-15 from 160, 16 bytes each
 *   64    header: which parts are there (SSE 1, AVX 2, upper halves of zmm0-15 6, zmm16-31 7)
 *   576   upper halves of ymm0-15    1152  upper halves of zmm0-15    1664  zmm16-31
 *
 * A register may be printed as xmm, ymm and zmm: each only adds lanes that the shorter lacks.
 */
#include "target/gdb_registers.h"

#include <ctype.h>

enum {
    XMM_OFFSET = 160,
    HEADER_OFFSET = 512,
    YMM_OFFSET = 576,
    ZMM_OFFSET = 1152,
    ZMM_HIGH_OFFSET = 1664,
    AREA_BYTES = ZMM_HIGH_OFFSET + 16 * 64,
    LANES_MOST = 8,
    LINE_MOST = 16384
};

struct reading {
    struct target *target;
    struct thread thread;
    unsigned char area[AREA_BYTES];
    uint64_t parts; /* XSTATE_BV */
    bool has_thread, has_stack;
    size_t done;
};

/* Order of struct user_regs_struct. */
static const char *const names[THREAD_REGISTER_COUNT] = {
    "r15",    "r14", "r13", "r12",     "rbp",     "rbx", "r11",      "r10", "r9",
    "r8",     "rax", "rcx", "rdx",     "rsi",     "rdi", "orig_rax", "rip", "cs",
    "eflags", "rsp", "ss",  "fs_base", "gs_base", "ds",  "es",       "fs",  "gs"};
enum { RIP = 16, RSP = 19, FS_BASE = 21 };

static const char *skip_spaces(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static bool read_number(const char **p, uint64_t *value)
{
    char *end;
    if (!isdigit((unsigned char)**p) && **p != '-')
        return false;
    bool negative = **p == '-';
    *value = negative ? (uint64_t)strtoll(*p, &end, 0) : strtoull(*p, &end, 0);
    if (end == *p)
        return false;
    *p = end;
    return true;
}

static enum hi_code finish_thread(struct reading *r, struct hi_err *err)
{
    enum hi_code code = HI_OK;
    if (r->has_stack) {
        r->thread.pc = r->thread.registers[RIP];
        r->thread.sp = r->thread.registers[RSP];
        r->thread.fs_base = r->thread.registers[FS_BASE];
        r->thread.has_registers = true;
        if (r->parts) {
            memcpy(r->area + HEADER_OFFSET, &r->parts, sizeof r->parts);
            r->thread.vector_state = r->area;
            r->thread.vector_state_bytes = AREA_BYTES;
        }
        code = target_add_registers(r->target, &r->thread, err);
        r->done++;
    }
    memset(&r->thread, 0, sizeof r->thread);
    memset(r->area, 0, sizeof r->area);
    r->parts = 0;
    r->has_stack = false;
    return code;
}

/* "Thread 2 (Thread 0x7f... (LWP 4243) "name"):", "Thread 1 (LWP 12):", "Thread 1 (process 12):"
 * The address is pthread_self(), which is fs_base; not every gdb lists that as a register. */
static bool read_thread_line(const char *line, pid_t *tid, uint64_t *self)
{
    static const char *const marks[] = {"LWP ", "process "};
    uint64_t value;
    if (strncmp(line, "Thread ", 7) != 0)
        return false;
    const char *address = strstr(line, "(Thread 0x");
    if (address)
        address += strlen("(Thread ");
    if (!address || !read_number(&address, self))
        *self = 0;
    for (unsigned i = 0; i < 2; i++) {
        const char *mark = strstr(line, marks[i]);
        const char *digits = mark ? mark + strlen(marks[i]) : NULL;
        if (digits && read_number(&digits, &value) && value > 0 && value < INT32_MAX) {
            *tid = (pid_t)value;
            return true;
        }
    }
    return false;
}

static bool read_general(struct reading *r, const char *name, size_t length, const char *rest)
{
    for (unsigned i = 0; i < THREAD_REGISTER_COUNT; i++) {
        uint64_t value;
        if (strlen(names[i]) != length || strncmp(names[i], name, length) != 0)
            continue;
        if (!read_number(&rest, &value))
            return true;
        r->thread.registers[i] = value;
        r->has_stack |= i == RSP;
        return true;
    }
    return false;
}

/* "0x1, 0x2, 0x0 <repeats 6 times>}" into lanes; how many. */
static unsigned read_lanes(const char *p, uint64_t *lanes, unsigned most)
{
    unsigned count = 0;
    while (count < most && *p && *p != '}') {
        uint64_t value, repeats = 1;
        p = skip_spaces(p);
        if (!read_number(&p, &value))
            break;
        if (strncmp(p, " <repeats ", 10) == 0) {
            p += 10;
            if (!read_number(&p, &repeats))
                break;
            p = strchr(p, '>') ? strchr(p, '>') + 1 : p;
        }
        for (; repeats && count < most; repeats--)
            lanes[count++] = value;
        p = skip_spaces(p);
        p += *p == ',';
    }
    return count;
}

/* Lanes of register number into the area; lane 0-1 xmm, 2-3 ymm, 4-7 zmm. */
static void store_lanes(struct reading *r, unsigned number, const uint64_t *lanes, unsigned count)
{
    if (number >= 16) {
        memcpy(r->area + ZMM_HIGH_OFFSET + (number - 16) * 64, lanes, count * sizeof *lanes);
        r->parts |= 1 << 7;
        return;
    }
    memcpy(r->area + XMM_OFFSET + number * 16, lanes, 2 * sizeof *lanes);
    r->parts |= 1 << 1;
    if (count >= 4) {
        memcpy(r->area + YMM_OFFSET + number * 16, lanes + 2, 2 * sizeof *lanes);
        r->parts |= 1 << 2;
    }
    if (count >= 8) {
        memcpy(r->area + ZMM_OFFSET + number * 32, lanes + 4, 4 * sizeof *lanes);
        r->parts |= 1 << 6;
    }
}

static void read_vector(struct reading *r, const char *name, const char *rest)
{
    static const char *const forms[] = {"v2_int64 = {", "v4_int64 = {", "v8_int64 = {"};
    static const unsigned counts[] = {2, 4, 8};
    uint64_t lanes[LANES_MOST] = {0}, number;
    unsigned form = name[0] == 'x' ? 0 : name[0] == 'y' ? 1 : 2;
    const char *digits = name + 3, *list = strstr(rest, forms[form]);
    if (!list || !read_number(&digits, &number) || number >= 32)
        return;
    if (read_lanes(list + strlen(forms[form]), lanes, counts[form]) == counts[form])
        store_lanes(r, (unsigned)number, lanes, counts[form]);
}

/* What the target knows already stays where gdb says nothing. */
static void begin_thread(struct reading *r, pid_t tid, uint64_t self)
{
    r->has_thread = true;
    for (size_t i = 0; i < target_thread_count(r->target); i++) {
        const struct thread *known = target_thread(r->target, i);
        if (known->tid != tid)
            continue;
        memcpy(r->thread.registers, known->registers, sizeof r->thread.registers);
        memcpy(r->thread.name, known->name, sizeof r->thread.name);
        r->thread.is_crashed = known->is_crashed;
        r->thread.signal = known->signal;
        r->thread.vector_state = known->vector_state; /* copied when it is added again */
        r->thread.vector_state_bytes = known->vector_state_bytes;
        r->has_stack = known->has_registers;
    }
    r->thread.tid = tid;
    if (self)
        r->thread.registers[FS_BASE] = self;
}

static enum hi_code read_line(struct reading *r, const char *line, struct hi_err *err)
{
    pid_t tid;
    uint64_t self;
    line = skip_spaces(line);
    if (read_thread_line(line, &tid, &self)) {
        enum hi_code code = finish_thread(r, err);
        begin_thread(r, tid, self);
        return code;
    }
    size_t length = strcspn(line, " \t\n");
    const char *rest = skip_spaces(line + length);
    bool is_vector =
        length >= 4 && length <= 5 && strncmp(line + 1, "mm", 2) == 0 && strchr("xyz", line[0]);
    if (!r->has_thread)
        begin_thread(r, target_pid(r->target), 0);
    if (is_vector)
        read_vector(r, line, rest);
    else
        (void)read_general(r, line, length, rest);
    return HI_OK;
}

enum hi_code gdb_registers_apply(struct target *target, const char *text, size_t *threads,
                                 struct hi_err *err)
{
    struct reading *r = calloc(1, sizeof *r);
    char *line = malloc(LINE_MOST);
    if (!r || !line) {
        free(line);
        free(r);
        return hi_no_memory(err);
    }
    enum hi_code code = HI_OK;
    r->target = target;
    while (code == HI_OK && *text) {
        size_t length = strcspn(text, "\n"), kept = length < LINE_MOST ? length : LINE_MOST - 1;
        memcpy(line, text, kept);
        line[kept] = '\0';
        code = read_line(r, line, err);
        text += length + (text[length] == '\n');
    }
    if (code == HI_OK)
        code = finish_thread(r, err);
    if (code == HI_OK) {
        *threads = r->done;
        if (!r->done)
            code = hi_fail(err, HI_BAD_INPUT,
                           "no registers in what was given: it should be what gdb prints for "
                           "\"thread apply all info registers\"");
    }
    free(line);
    free(r);
    return code;
}
