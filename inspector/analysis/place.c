/* Names for addresses: the nearest fact wins, from block to mapping; see place.h. */
#include "analysis/place.h"

#include "symbols/names.h"

#include <inttypes.h>

const char *place_kind_name(enum place_kind kind)
{
    static const char *const names[] = {"block", "stack", "tls", "data", "mapping", "nothing"};
    return names[kind];
}

enum hi_code place_finder_make(struct place_finder *finder, const struct inspection *in,
                               struct hi_err *err)
{
    *finder = (struct place_finder){.in = in};
    enum hi_code code = arena_index_make(&finder->arenas, in->heaps, err);
    if (code == HI_OK)
        code = stack_frames_collect(&finder->frames, in->target, in->symbols, err);
    if (code != HI_OK)
        place_finder_free(finder);
    return code;
}

void place_finder_free(struct place_finder *finder)
{
    arena_index_free(&finder->arenas);
    stack_frames_free(&finder->frames);
}

static const char *thread_name(const struct inspection *in, pid_t tid)
{
    for (size_t i = 0; i < target_thread_count(in->target); i++)
        if (target_thread(in->target, i)->tid == tid)
            return target_thread(in->target, i)->name;
    return "";
}

static void say_thread(const struct inspection *in, pid_t tid, char *buffer, size_t size)
{
    const char *name = thread_name(in, tid);
    if (name[0])
        snprintf(buffer, size, "thread %d (%s)", (int)tid, name);
    else
        snprintf(buffer, size, "thread %d", (int)tid);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* " (file.c:12)" for code whose line is known, of the call that was inlined last or of the function
 * that it is in. */
static void add_line(const struct inspection *in, struct frame_place code, bool innermost,
                     char *buffer, size_t size)
{
    struct names names;
    size_t count, used = strlen(buffer);
    if (names_of(in->symbols, &code, 1, &names, NULL) != HI_OK)
        return;
    const struct frame_name *frames = names_at(&names, 0, &count);
    const struct frame_name *frame = innermost ? frames : &frames[count - 1];
    if (frame->file && frame->line && used < size)
        snprintf(buffer + used, size - used, " (%s:%" PRIu32 ")", base_name(frame->file),
                 frame->line);
    names_free(&names);
}

/* A function's name without the offset, for a frame. */
static void function_name(const struct inspection *in, hi_addr pc, char *buffer, size_t size)
{
    struct symbol symbol;
    struct hi_err err;
    /* a return address may be the first byte behind a function that ends in a call */
    if (pc && symbols_at(in->symbols, pc - 1, &symbol, &err) == HI_OK)
        symbols_demangle(symbol.name, buffer, size);
    else
        symbols_describe(in->symbols, pc, buffer, size);
    buffer[strcspn(buffer, "@")] = '\0'; /* read@@GLIBC_2.2.5: the version tells nobody anything */
    add_line(in, (struct frame_place){.address = pc}, false, buffer, size);
}

static void name_stack(const struct place_finder *finder, hi_addr address, pid_t tid, char *name,
                       size_t size)
{
    char thread[64], function[224];
    say_thread(finder->in, tid, thread, sizeof thread);
    const struct stack_frame *frame = stack_frames_at(&finder->frames, address);
    if (frame) {
        function_name(finder->in, frame->pc, function, sizeof function);
        snprintf(name, size, "frame of %s, stack of %s", function, thread);
    } else {
        snprintf(name, size, "stack of %s", thread);
    }
}

static void name_data(const struct inspection *in, hi_addr address, const char *module, char *name,
                      size_t size)
{
    char symbol[200];
    const struct mapping *mapping = target_mapping_at(in->target, address);
    symbols_describe(in->symbols, address, symbol, sizeof symbol);
    if (mapping && mapping->protection & MAPPING_EXECUTE)
        add_line(in, (struct frame_place){.address = address, .exact = true}, true, symbol,
                 sizeof symbol);
    if (module && module[0])
        snprintf(name, size, "%s in %s", symbol, base_name(module));
    else
        snprintf(name, size, "%s", symbol);
}

static void name_range(const struct place_finder *finder, const struct root_range *range,
                       hi_addr address, char *name, size_t size)
{
    char thread[64];
    switch (range->class) {
    case ROOT_STACK:
        name_stack(finder, address, range->tid, name, size);
        break;
    case ROOT_TLS:
        say_thread(finder->in, range->tid, thread, sizeof thread);
        snprintf(name, size, "thread-local storage of %s", thread);
        break;
    default:
        name_data(finder->in, address, range->module, name, size);
        break;
    }
}

/* C++ objects tell their class by the table that their first word points to. */
static void name_block(const struct inspection *in, const struct chunk *chunk, char *name,
                       size_t size)
{
    uint64_t word;
    struct symbol symbol;
    struct hi_err err;
    char text[200];
    static const char table[] = "vtable for ";
    if (target_peek(in->target, chunk->address, &word, sizeof word) != sizeof word ||
        !symbols_module_at(in->symbols, word) ||
        symbols_at(in->symbols, word, &symbol, &err) != HI_OK)
        return;
    symbols_demangle(symbol.name, text, sizeof text);
    if (strncmp(text, table, sizeof table - 1) == 0)
        snprintf(name, size, "%s", text + sizeof table - 1);
}

static bool is_metadata(const struct heaps *heaps, hi_addr address)
{
    size_t low = 0, high = heaps->metadata.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (heaps->metadata.items[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < heaps->metadata.count && heaps->metadata.items[low].start <= address;
}

static bool is_dead_stack(const struct roots *roots, hi_addr address)
{
    for (size_t i = 0; i < roots->dead.count; i++)
        if (address >= roots->dead.items[i].start && address < roots->dead.items[i].end)
            return true;
    return false;
}

static enum place_kind describe_mapping(const struct place_finder *finder, struct place *place)
{
    const struct inspection *in = finder->in;
    const struct mapping *mapping = target_mapping_at(in->target, place->address);
    const struct region *region = blocks_region_at(in->heaps->blocks, place->address);
    if (!mapping)
        return PLACE_NOTHING;
    const char *path = mapping->path ? mapping->path : "";
    const struct module *module = symbols_module_at(in->symbols, place->address);
    if (is_metadata(in->heaps, place->address))
        snprintf(place->name, sizeof place->name, "the allocator's own records");
    else if (region && region->heap != BLOCKS_NO_HEAP)
        snprintf(place->name, sizeof place->name, "heap, between blocks");
    else if (is_dead_stack(&in->roots, place->address))
        snprintf(place->name, sizeof place->name, "stack of a thread that has ended");
    else if (module)
        name_data(in, place->address, module->path, place->name, sizeof place->name);
    else
        snprintf(place->name, sizeof place->name, "%s%s",
                 mapping->protection & MAPPING_READ ? "" : "inaccessible ",
                 path[0] ? path : "anonymous mapping");
    return PLACE_MAPPING;
}

/* A stack or TLS below the live part: dead frames. */
static bool describe_range(const struct place_finder *finder, struct place *place)
{
    const struct root_range *range = roots_range_at(&finder->in->roots, place->address);
    if (!range || range->class == ROOT_ANON)
        return false;
    name_range(finder, range, place->address, place->name, sizeof place->name);
    place->where = range->class == ROOT_STACK ? PLACE_STACK
                   : range->class == ROOT_TLS ? PLACE_TLS
                                              : PLACE_DATA;
    return true;
}

static bool describe_block(const struct place_finder *finder, struct place *place)
{
    struct block_place found;
    const struct blocks *blocks = finder->in->heaps->blocks;
    if (!blocks_at(blocks, place->address, &found))
        return false;
    const struct region *region = blocks_region_of(blocks, found.block);
    if (!region || region->heap == BLOCKS_NO_HEAP)
        return false;
    chunk_describe(&place->chunk, finder->in, &finder->arenas, found.block);
    place->has_chunk = true;
    place->offset = found.offset;
    place->where = PLACE_BLOCK;
    name_block(finder->in, &place->chunk, place->name, sizeof place->name);
    return true;
}

void place_describe(const struct place_finder *finder, hi_addr address, struct place *place)
{
    *place = (struct place){.address = address};
    if (!describe_block(finder, place) && !describe_range(finder, place))
        place->where = describe_mapping(finder, place);
}

void place_root_name(const struct place_finder *finder, const struct root_edge *edge, char *buffer,
                     size_t size)
{
    const struct roots *roots = &finder->in->roots;
    char thread[64];
    bool is_word =
        edge->class == ROOT_REGISTER || edge->class == ROOT_VECTOR || edge->class == ROOT_KEPT;
    buffer[0] = '\0';
    if (is_word && edge->source < roots->words.count) {
        const struct root_word *word = &roots->words.items[edge->source];
        say_thread(finder->in, word->tid, thread, sizeof thread);
        snprintf(buffer, size, "%s%s%s", word->name ? word->name : root_class_name(edge->class),
                 word->tid ? " of " : "", word->tid ? thread : "");
    } else if (is_word && edge->name) {
        snprintf(buffer, size, "%s", edge->name);
    } else if (!is_word && edge->source < roots->ranges.count) {
        name_range(finder, &roots->ranges.items[edge->source], edge->place, buffer, size);
    }
}

/* -- who points to a block -------------------------------------------------------------------- */

static bool take_referrer(void *context, hi_block from, enum edge_kind kind,
                          const struct root_edge *root)
{
    struct referrers *referrers = context;
    referrers->count++;
    if (referrers->first.count >= referrers->most)
        return true;
    struct referrer *referrer = VECTOR_PUSH(&referrers->first);
    if (!referrer) {
        referrers->out_of_memory = true;
        return false;
    }
    referrer->from = from;
    referrer->kind = kind;
    if (from == BLOCK_NONE && root)
        referrer->root = *root;
    return true;
}

enum hi_code referrers_find(struct referrers *referrers, const struct graph *graph, hi_block block,
                            size_t most, struct hi_err *err)
{
    *referrers = (struct referrers){.most = most};
    graph_referrers(graph, block, take_referrer, referrers);
    return referrers->out_of_memory ? hi_no_memory(err) : HI_OK;
}

void referrers_free(struct referrers *referrers)
{
    VECTOR_FREE(&referrers->first);
}
