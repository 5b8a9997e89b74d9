/* Small files of /proc; see proc.h. Nothing here stops a process or needs it stopped. */
#include "target/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

enum { READ_STEP_BYTES = 64 * 1024, PATH_BYTES = 128 };

static char *read_all(int fd, size_t *bytes)
{
    char *text = NULL;
    size_t filled = 0, capacity = 0;
    for (;;) {
        if (capacity - filled < READ_STEP_BYTES / 2) {
            capacity = capacity ? capacity * 2 : READ_STEP_BYTES;
            char *grown = realloc(text, capacity);
            if (!grown)
                break;
            text = grown;
        }
        ssize_t got = read(fd, text + filled, capacity - filled - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        if (got == 0) {
            text[filled] = 0;
            if (bytes)
                *bytes = filled;
            return text;
        }
        filled += (size_t)got;
    }
    free(text);
    return NULL;
}

char *proc_read_file(pid_t pid, const char *name, size_t *bytes)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    char *text = read_all(fd, bytes);
    int saved = errno;
    close(fd);
    errno = saved;
    return text;
}

bool proc_read_link(pid_t pid, const char *name, char *buffer, size_t size)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    ssize_t length = readlink(path, buffer, size - 1);
    if (length <= 0 || (size_t)length >= size - 1)
        return false;
    buffer[length] = 0;
    return true;
}

/* The rest of the line that starts with key, or NULL. */
static const char *find_line(const char *text, const char *key)
{
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0)
            return line + length + strspn(line + length, "\t ");
    }
    return NULL;
}

static uint64_t line_number(const char *text, const char *key)
{
    const char *line = find_line(text, key);
    return line ? strtoull(line, NULL, 10) : 0;
}

static void parse_ids(const char *line, unsigned *ids)
{
    char *end;
    for (int i = 0; line && i < 4; i++, line = end)
        ids[i] = (unsigned)strtoul(line, &end, 10);
}

static void parse_status(const char *text, struct proc_status *status)
{
    const char *name = find_line(text, "Name:"), *state = find_line(text, "State:");
    if (name)
        snprintf(status->name, sizeof status->name, "%.*s", (int)strcspn(name, "\n"), name);
    if (state)
        status->state = *state;
    status->thread_group = (pid_t)line_number(text, "Tgid:");
    status->parent = (pid_t)line_number(text, "PPid:");
    status->tracer = (pid_t)line_number(text, "TracerPid:");
    parse_ids(find_line(text, "Uid:"), status->uid);
    parse_ids(find_line(text, "Gid:"), status->gid);
    status->has_memory = find_line(text, "VmSize:") != NULL;
    status->has_filter = line_number(text, "Seccomp:") == 2;
    status->is_kernel_thread = line_number(text, "Kthread:") == 1;
    status->switches = line_number(text, "voluntary_ctxt_switches:") +
                       line_number(text, "nonvoluntary_ctxt_switches:");
}

static bool read_status(pid_t pid, const char *file, struct proc_status *status)
{
    *status = (struct proc_status){0};
    char *text = proc_read_file(pid, file, NULL);
    if (!text)
        return false;
    parse_status(text, status);
    free(text);
    return true;
}

bool proc_read_status(pid_t pid, struct proc_status *status)
{
    return read_status(pid, "status", status);
}

bool proc_read_thread_status(pid_t pid, pid_t tid, struct proc_status *status)
{
    char file[64];
    snprintf(file, sizeof file, "task/%d/status", (int)tid);
    return read_status(pid, file, status);
}

static int compare_pids(const void *left, const void *right)
{
    pid_t a = *(const pid_t *)left, b = *(const pid_t *)right;
    return a < b ? -1 : a > b;
}

enum hi_code proc_list_threads(pid_t pid, pid_vector *tids, struct hi_err *err)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *directory = opendir(path);
    if (!directory)
        return hi_fail(err, HI_REFUSED, "process %d has ended", (int)pid);
    enum hi_code code = HI_OK;
    tids->count = 0;
    for (struct dirent *entry; code == HI_OK && (entry = readdir(directory));) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        pid_t *slot = VECTOR_PUSH(tids);
        if (slot)
            *slot = (pid_t)strtol(entry->d_name, NULL, 10);
        else
            code = hi_no_memory(err);
    }
    closedir(directory);
    if (tids->count)
        qsort(tids->items, tids->count, sizeof *tids->items, compare_pids);
    else if (code == HI_OK)
        code = hi_fail(err, HI_REFUSED, "process %d has ended", (int)pid);
    return code;
}

bool proc_read_position(pid_t pid, pid_t tid, hi_addr *pc, hi_addr *sp)
{
    char file[64];
    snprintf(file, sizeof file, "task/%d/syscall", (int)tid);
    char *text = proc_read_file(pid, file, NULL);
    if (!text)
        return false;
    /* "NR ARG1..ARG6 SP PC", "-1 SP PC", or "running" */
    char *last = strrchr(text, ' '), *before = NULL;
    if (last) {
        *last = 0;
        before = strrchr(text, ' ');
    }
    bool known = before != NULL;
    if (known) {
        *pc = strtoull(last + 1, NULL, 16);
        *sp = strtoull(before + 1, NULL, 16);
    }
    free(text);
    return known;
}

void proc_read_thread_name(pid_t pid, pid_t tid, char *name, size_t size)
{
    char file[64];
    snprintf(file, sizeof file, "task/%d/comm", (int)tid);
    char *text = proc_read_file(pid, file, NULL);
    if (text)
        snprintf(name, size, "%.*s", (int)strcspn(text, "\n"), text);
    free(text);
}
