/*
 * One line of /proc/PID/maps:
 *
 *     7f1c2a000000-7f1c2a021000 rw-p 00001000 fe:00 1234      /usr/lib/libc.so.6 (deleted)
 *
 * Path is all from the first character behind the inode's padding to the end of the line, spaces
 * included. The kernel writes a newline in a path as \012 and nothing else is escaped (a backslash
 * stands for itself), so that only \012 is turned back. " (deleted)" stays: it is how the target
 * has the file, and target_open_file takes notice of it. [anon:NAME] and [anon_shmem:NAME] are
 * names that programs give to anonymous memory (PR_SET_VMA); the former is anonymous, path NULL.
 */
#include "target/maps.h"

#include "target/backend.h"

static bool parse_hex(char **cursor, char after, uint64_t *value)
{
    char *end;
    *value = strtoull(*cursor, &end, 16);
    if (end == *cursor || *end != after)
        return false;
    *cursor = end + 1;
    return true;
}

static void restore_newlines(char *path)
{
    char *to = path;
    for (const char *from = path; *from; to++) {
        bool escaped = strncmp(from, "\\012", 4) == 0;
        *to = escaped ? '\n' : *from;
        from += escaped ? 4 : 1;
    }
    *to = 0;
}

static bool parse_line(char *line, struct mapping *mapping, char **path)
{
    uint64_t major, minor;
    char *cursor = line;
    if (!parse_hex(&cursor, '-', &mapping->start) || !parse_hex(&cursor, ' ', &mapping->end))
        return false;
    if (mapping->start >= mapping->end || strnlen(cursor, 5) < 5 || cursor[4] != ' ')
        return false;
    mapping->protection = (cursor[0] == 'r' ? MAPPING_READ : 0) |
                          (cursor[1] == 'w' ? MAPPING_WRITE : 0) |
                          (cursor[2] == 'x' ? MAPPING_EXECUTE : 0);
    mapping->shared = cursor[3] == 's';
    cursor += 5;
    if (!parse_hex(&cursor, ' ', &mapping->file_offset) || !parse_hex(&cursor, ':', &major) ||
        !parse_hex(&cursor, ' ', &minor))
        return false;
    mapping->device = major << 32 | minor;
    mapping->inode = strtoull(cursor, &cursor, 10);
    *path = cursor + strspn(cursor, " ");
    return true;
}

static bool is_special(const char *path)
{
    return strncmp(path, "[v", 2) == 0 || strcmp(path, "[uprobes]") == 0;
}

static enum hi_code push_line(struct target *target, char *line, size_t *bad, struct hi_err *err)
{
    struct mapping parsed = {0};
    char *path;
    if (!parse_line(line, &parsed, &path)) {
        ++*bad;
        return HI_OK;
    }
    restore_newlines(path);
    bool anonymous = !*path || strncmp(path, "[anon:", 6) == 0;
    struct mapping *mapping =
        target_push_mapping(target, parsed.start, parsed.end, anonymous ? NULL : path);
    if (!mapping)
        return hi_no_memory(err);
    parsed.path = mapping->path;
    parsed.dumped = true;
    parsed.special = is_special(path);
    *mapping = parsed;
    return HI_OK;
}

enum hi_code maps_parse(struct target *target, char *text, size_t *bad, struct hi_err *err)
{
    *bad = 0;
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        enum hi_code code = push_line(target, line, bad, err);
        if (code != HI_OK)
            return code;
    }
    return HI_OK;
}
