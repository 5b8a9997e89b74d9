/*
 * roots: putting the collection together; see roots.h for what counts.
 *
 * Order: what claims most exactly comes first. Threads (stacks, TLS, dead stacks) know their own
 * part of a mapping, modules know their segments, and what nobody has claimed is a node. Ranges
 * that overlap (a thread's stack in the bss) are trimmed, never dropped: their union stays.
 *
 * Nothing that is read here is believed: struct pthread must point to itself, lists are walked for
 * a bounded number of steps, ranges are clipped to mappings. What can't be read leaves a wider root
 * (a whole stack), not a narrower one: a root too many hides a leak, one too few invents one.
 */
#include "symbols/roots.h"

#include "symbols/roots_collect.h"

const char *root_class_name(enum root_class class)
{
    static const char *const names[] = {"register", "vector", "stack", "tls",
                                        "data",     "kept",   "anon",  "damaged heap"};
    return (unsigned)class <= ROOT_SUSPECT ? names[class] : "?";
}

static bool wants(const struct collector *c, enum root_class class)
{
    return c->classes >> class & 1;
}

void collect_range(struct collector *c, enum root_class class, hi_addr start, hi_addr end,
                   pid_t tid, const char *module)
{
    start = (start + 7) & ~7ull;
    end &= ~7ull;
    if (start >= end || !wants(c, class))
        return;
    struct root_range *range = VECTOR_PUSH(&c->roots->ranges);
    if (range)
        *range = (struct root_range){class, start, end, tid, module};
    c->failed |= !range;
}

void collect_word(struct collector *c, enum root_class class, uint64_t value, pid_t tid,
                  const char *name)
{
    if (value == 0 || !wants(c, class))
        return;
    struct root_word *word = VECTOR_PUSH(&c->roots->words);
    if (word)
        *word = (struct root_word){class, tid, value, name};
    c->failed |= !word;
}

void collect_claim(struct collector *c, hi_addr start, hi_addr end)
{
    if (start >= end)
        return;
    struct hi_range *claim = VECTOR_PUSH(&c->claims);
    if (claim)
        *claim = (struct hi_range){start, end};
    c->failed |= !claim;
}

void collect_dead(struct collector *c, hi_addr start, hi_addr end)
{
    if (start >= end)
        return;
    collect_claim(c, start, end);
    struct hi_range *dead = VECTOR_PUSH(&c->roots->dead);
    if (dead)
        *dead = (struct hi_range){start, end};
    c->failed |= !dead;
}

void collect_words_of(struct collector *c, struct hi_range range, word_visitor visit, void *context)
{
    uint64_t words[1024];
    struct hi_range content;
    hi_addr at = (range.start + 7) & ~7ull;
    while (at < range.end && target_next_content(c->target, at, range.end, &content)) {
        hi_addr end = content.end < range.end ? content.end : range.end;
        at = content.start > at ? (content.start + 7) & ~7ull : at;
        if (end <= at || end - at < 8)
            break;
        size_t wanted = end - at < sizeof words ? end - at : sizeof words;
        size_t got = target_read_some(c->target, at, words, wanted) / 8;
        for (size_t i = 0; i < got; i++)
            if (!visit(context, at + i * 8, words[i]))
                return;
        /* what can't be read is stepped over by the page */
        at = got ? at + got * 8 : (at | 0xfff) + 1;
    }
}

static int compare_range(const void *a, const void *b)
{
    const struct root_range *left = a, *right = b;
    if (left->start != right->start)
        return left->start < right->start ? -1 : 1;
    return left->end < right->end ? -1 : left->end > right->end;
}

static void make_disjoint(struct roots *roots)
{
    struct root_range *items = roots->ranges.items;
    size_t kept = 0;
    hi_addr reach = 0;
    if (roots->ranges.count)
        qsort(items, roots->ranges.count, sizeof *items, compare_range);
    for (size_t i = 0; i < roots->ranges.count; i++) {
        struct root_range range = items[i];
        if (range.start < reach)
            range.start = reach;
        if (range.start >= range.end)
            continue;
        reach = range.end;
        items[kept++] = range;
    }
    roots->ranges.count = kept;
}

static void count_missing(struct roots *roots, struct target *target)
{
    for (size_t i = 0; i < roots->ranges.count; i++)
        roots->missing_bytes +=
            target_missing_in(target, roots->ranges.items[i].start, roots->ranges.items[i].end);
}

static void find_exit(struct collector *c)
{
    for (size_t i = 0; i < symbols_module_count(c->symbols) && !c->exit_end; i++) {
        const struct module *module = symbols_module(c->symbols, i);
        struct symbol symbol;
        if (!module->is_libc && !module->is_static)
            continue;
        if (symbols_find(c->symbols, i, "exit", &symbol, NULL) != HI_OK || !symbol.is_function)
            continue;
        c->exit_start = symbol.address;
        c->exit_end = symbol.address + (symbol.size ? symbol.size : 64);
    }
}

static void sum_tls(struct collector *c)
{
    const uint64_t most = 64u << 20;
    for (size_t i = 0; i < symbols_module_count(c->symbols); i++) {
        const struct module *module = symbols_module(c->symbols, i);
        if (module->tls_bytes < most && module->tls_align < most)
            c->static_tls_bytes += module->tls_bytes + module->tls_align;
    }
    if (c->static_tls_bytes > most)
        c->static_tls_bytes = most;
}

enum hi_code roots_collect(struct roots *roots, struct target *target, struct symbols *symbols,
                           const struct root_options *options, struct hi_err *err)
{
    memset(roots, 0, sizeof *roots);
    struct collector c = {.roots = roots, .target = target, .symbols = symbols};
    c.classes = options ? options->classes : ROOTS_DEFAULT;
    find_exit(&c);
    sum_tls(&c);
    collect_registers(&c);
    collect_pthreads(&c);
    collect_stacks(&c);
    collect_data(&c);
    collect_nodes(&c);
    make_disjoint(roots);
    count_missing(roots, target);
    VECTOR_FREE(&c.claims);
    VECTOR_FREE(&c.pthreads);
    if (!c.failed)
        return HI_OK;
    roots_free(roots);
    return hi_no_memory(err);
}

void roots_free(struct roots *roots)
{
    VECTOR_FREE(&roots->ranges);
    VECTOR_FREE(&roots->words);
    VECTOR_FREE(&roots->nodes);
    VECTOR_FREE(&roots->dead);
    roots->missing_bytes = 0;
}

const struct root_range *roots_range_at(const struct roots *roots, hi_addr address)
{
    size_t low = 0, high = roots->ranges.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct root_range *range = &roots->ranges.items[middle];
        if (address < range->start)
            high = middle;
        else if (address >= range->end)
            low = middle + 1;
        else
            return range;
    }
    return NULL;
}
