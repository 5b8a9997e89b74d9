/*
 * Writable data of modules, and anonymous mappings.
 *
 * Data: the writable segments of every module by its program headers, to the end of their last page
 * (the dynamic linker allocates from the rest of its own), whatever protection the pages have now:
 * RELRO is part of them. By segment and not by mapping, since the kernel may join a program's bss
 * with the heap that begins behind it.
 *
 * A module whose headers could not be read (a dump without them, and no file) is known by a
 * writable private mapping of a file that is also mapped executable: data, with the anonymous
 * mapping right behind it (bss).
 *
 * Nodes: mappings that a program may keep pointers in and that are nobody's: anonymous, private or
 * shared, memfd, System V and POSIX shared memory, private writable pages of files. Not devices
 * (reading them may do something) and not shared mappings of files: what they hold outlives the
 * process, so they hold no pointers.
 */
#include "symbols/roots_collect.h"

#define BSS_MAX_BYTES (64u << 20)

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Only where something is mapped: an unmapped part would be counted as missing. */
static void collect_mapped(struct collector *c, struct hi_range range, const char *module)
{
    for (hi_addr at = range.start; at < range.end;) {
        const struct mapping *mapping = target_mapping_at(c->target, at);
        if (!mapping) {
            at = (at | 0xfff) + 1;
            if (range.end - at > 1u << 30 && range.end > at)
                return; /* headers that claim what isn't there */
            continue;
        }
        hi_addr end = mapping->end < range.end ? mapping->end : range.end;
        collect_range(c, ROOT_DATA, at, end, 0, module);
        at = end;
    }
}

static void collect_module(struct collector *c, size_t index)
{
    const struct module *module = symbols_module(c->symbols, index);
    const hi_addr page = target_page_bytes(c->target) - 1;
    for (size_t i = 0; i < symbols_segment_count(c->symbols, index); i++) {
        struct module_segment segment = symbols_segment(c->symbols, index, i);
        struct hi_range range = {segment.memory.start & ~page, (segment.memory.end + page) & ~page};
        if (segment.protection & MAPPING_WRITE)
            collect_mapped(c, range, module->path);
        collect_claim(c, range.start, range.end);
    }
}

static bool is_regular(const struct mapping *mapping)
{
    return mapping->path && mapping->path[0] == '/' && !starts_with(mapping->path, "/dev/") &&
           !starts_with(mapping->path, "/memfd:") && !starts_with(mapping->path, "/SYSV");
}

static bool is_mapped_executable(struct collector *c, const char *path, size_t near)
{
    size_t count = target_mapping_count(c->target);
    size_t first = near > 16 ? near - 16 : 0;
    for (size_t i = first; i < count && i < near + 16; i++) {
        const struct mapping *mapping = target_mapping(c->target, i);
        if (mapping->protection & MAPPING_EXECUTE && mapping->path &&
            strcmp(mapping->path, path) == 0)
            return true;
    }
    return false;
}

/* Data of a module that symbols could not make out. */
static void collect_unknown_module(struct collector *c, size_t index)
{
    const struct mapping *mapping = target_mapping(c->target, index);
    if (!is_regular(mapping) || mapping->shared || !(mapping->protection & MAPPING_WRITE) ||
        symbols_module_at(c->symbols, mapping->start) ||
        !is_mapped_executable(c, mapping->path, index))
        return;
    collect_range(c, ROOT_DATA, mapping->start, mapping->end, 0, mapping->path);
    collect_claim(c, mapping->start, mapping->end);
    const struct mapping *bss = target_mapping_at(c->target, mapping->end);
    if (!bss || bss->path || bss->end - bss->start > BSS_MAX_BYTES)
        return;
    collect_range(c, ROOT_DATA, bss->start, bss->end, 0, mapping->path);
    collect_claim(c, bss->start, bss->end);
}

void collect_data(struct collector *c)
{
    for (size_t i = 0; i < symbols_module_count(c->symbols); i++)
        collect_module(c, i);
    for (size_t i = 0; i < target_mapping_count(c->target); i++)
        collect_unknown_module(c, i);
}

/* -- nodes -------------------------------------------------------------------------------------*/

static bool may_be_node(const struct mapping *mapping)
{
    static const char *const shared_memory[] = {"/dev/zero", "/dev/shm/", "/memfd:", "/SYSV",
                                                "/anon_hugepage"};
    const char *path = mapping->path;
    if (mapping->special)
        return false;
    if (!path)
        return true;
    if (path[0] == '[')
        return strcmp(path, "[heap]") == 0 || starts_with(path, "[anon");
    for (size_t i = 0; i < sizeof shared_memory / sizeof *shared_memory; i++)
        if (starts_with(path, shared_memory[i]))
            return true;
    return is_regular(mapping) && !mapping->shared && mapping->protection & MAPPING_WRITE;
}

static void add_node(struct collector *c, hi_addr start, hi_addr end)
{
    if (start >= end)
        return;
    if (c->classes >> ROOT_ANON & 1) {
        collect_range(c, ROOT_ANON, start, end, 0, NULL);
        return;
    }
    struct hi_range *node = VECTOR_PUSH(&c->roots->nodes);
    if (node)
        *node = (struct hi_range){start, end};
    c->failed |= !node;
}

static int compare_range(const void *a, const void *b)
{
    const struct hi_range *left = a, *right = b;
    return left->start < right->start ? -1 : left->start > right->start;
}

/* Mappings less claims; both in address order. */
void collect_nodes(struct collector *c)
{
    size_t claim = 0;
    if (c->claims.count)
        qsort(c->claims.items, c->claims.count, sizeof *c->claims.items, compare_range);
    for (size_t i = 0; i < target_mapping_count(c->target); i++) {
        const struct mapping *mapping = target_mapping(c->target, i);
        hi_addr at = mapping->start;
        while (claim < c->claims.count && c->claims.items[claim].end <= at)
            claim++;
        if (!may_be_node(mapping))
            continue;
        for (size_t k = claim; k < c->claims.count && c->claims.items[k].start < mapping->end;
             k++) {
            add_node(c, at, c->claims.items[k].start);
            at = c->claims.items[k].end > at ? c->claims.items[k].end : at;
        }
        add_node(c, at, mapping->end);
    }
}
