/*
 * The table of call stacks that a himalloc heap carries (himalloc_format.h, "stacks").
 *
 * A tree of frames: a node is a frame and the index of its caller's node, which is always lower. A
 * stack's number is the index of its innermost node. The table is read whole while a live target is
 * stopped (12 bytes a node are kept), but only if some block refers to it; modules as well, with
 * paths and build-ids, since a frame may lie in a library that is gone by now.
 *
 * Nothing of it is trusted. Nodes beyond what can be read are cut off; a stack whose next node does
 * not come before the last one ends there, marked as cut, as does one with an address that no
 * process can have; depth is bounded by the caller's room. A module that makes no sense has no
 * range, so no frame lies in it.
 *
 * Epochs: a frame says in which epoch it was taken, with fewer bits than modules say it. The
 * largest number stands for itself and all later ones.
 */
#include "heap/himalloc_walk.h"

#include "allocator/himalloc_format.h"

#include <inttypes.h>

enum { PATH_MOST = 4096, BUILD_ID_MOST = 32 };

/* -- nodes ------------------------------------------------------------------------------------ */

struct table {
    struct himalloc *own;
    struct heap *shown;
    struct heap_sink *sink;
    struct target *target;
    hi_addr address;
    void *record;
    struct hi_range mapping;
};

static uint64_t table_number(const struct table *table, enum schema_field field)
{
    return schema_number(&table->own->schema, field, table->record);
}

/* Entries of an array that lie in the table's mapping; a count beyond it is a finding. */
static bool entries_check(const struct table *table, hi_addr start, uint64_t count, size_t stride,
                          const char *rule, uint64_t *most)
{
    uint64_t room = start >= table->mapping.start && start < table->mapping.end
                        ? (table->mapping.end - start) / stride
                        : 0;
    *most = count < room ? count : room;
    return *most == count ||
           sink_finding(table->sink, rule, table->address,
                        "%" PRIu64 " at 0x%" PRIx64 ", room for %" PRIu64, count, start, room);
}

/* At most count nodes; memory is taken only for those that can be read. */
static bool nodes_fill(struct table *table, struct window *window, hi_addr nodes, uint64_t count)
{
    struct himalloc_stacks *stacks = &table->own->stacks;
    const struct schema *schema = &table->own->schema;
    size_t stride = schema->stride[S_STACK_NODE], room = 0;
    for (uint64_t i = 0; i < count; i++) {
        const void *record = himalloc_window_at(window, nodes + i * stride, stride);
        if (!record)
            return sink_finding(table->sink, "call stacks can be read", nodes + i * stride,
                                "node %" PRIu64 " of %" PRIu64, i, count);
        if (i == room) {
            room = room ? room * 2 : 1024;
            uint64_t *frames = realloc(stacks->frames, room * sizeof *frames);
            stacks->frames = frames ? frames : stacks->frames;
            uint32_t *parents = realloc(stacks->parents, room * sizeof *parents);
            stacks->parents = parents ? parents : stacks->parents;
            if (!frames || !parents)
                return false;
        }
        stacks->frames[i] = schema_number(schema, F_STACK_NODE_frame, record);
        stacks->parents[i] = (uint32_t)schema_number(schema, F_STACK_NODE_parent, record);
        stacks->node_count = (uint32_t)i + 1;
    }
    return true;
}

/* The first few that break the rule are named. */
static bool nodes_verify(struct table *table, hi_addr nodes)
{
    enum { NAMED = 3 };
    const struct himalloc_stacks *stacks = &table->own->stacks;
    size_t stride = table->own->schema.stride[S_STACK_NODE];
    unsigned named = 0;
    for (uint32_t i = 1; i < stacks->node_count && named < NAMED; i++)
        if (stacks->parents[i] >= i) {
            named++;
            if (!sink_finding(table->sink, "a frame's caller comes before it", nodes + i * stride,
                              "node %u, its caller %u", i, stacks->parents[i]))
                return false;
        }
    return true;
}

static bool nodes_read(struct table *table)
{
    hi_addr nodes = table_number(table, F_STACK_TABLE_nodes);
    uint64_t count = table_number(table, F_STACK_TABLE_node_count);
    uint64_t capacity = table_number(table, F_STACK_TABLE_node_capacity);
    struct window window;
    struct hi_err err;
    count = count < capacity ? count : capacity;
    if (!entries_check(table, nodes, count, table->own->schema.stride[S_STACK_NODE],
                       "call stacks lie in their table", &count))
        return false;
    if (count >= UINT32_MAX || himalloc_window_open(&window, table->target, &err) != HI_OK)
        return count >= UINT32_MAX;
    bool more = nodes_fill(table, &window, nodes, count) && nodes_verify(table, nodes);
    himalloc_window_close(&window);
    return more;
}

/* -- modules ---------------------------------------------------------------------------------- */

/* What was said of a module, into the pool of texts: path, 0, build-id. */
static void module_take(struct table *table, const void *record, struct module_mark *module,
                        struct himalloc_epochs *epochs, char *text)
{
    const struct schema *schema = &table->own->schema;
    hi_addr path = schema_number(schema, F_MODULE_path, record);
    uint64_t bytes = schema_number(schema, F_MODULE_path_bytes, record);
    uint64_t id_bytes = schema_number(schema, F_MODULE_build_id_bytes, record);
    unsigned char *id = (unsigned char *)text + PATH_MOST;
    size_t got = 0;
    *module = (struct module_mark){.path = text,
                                   .start = schema_number(schema, F_MODULE_start, record),
                                   .end = schema_number(schema, F_MODULE_end, record),
                                   .bias = schema_number(schema, F_MODULE_bias, record),
                                   .build_id = id};
    epochs->first = (uint32_t)schema_number(schema, F_MODULE_first_epoch, record);
    epochs->last = (uint32_t)schema_number(schema, F_MODULE_last_epoch, record);
    if (module->end > HIMALLOC_ADDRESS_END)
        module->end = module->start;
    if (bytes < PATH_MOST && path >= table->mapping.start && path < table->mapping.end)
        got = target_read_some(table->target, path, text, (size_t)bytes);
    text[got] = '\0';
    size_t room = schema_bytes(schema, F_MODULE_build_id, record, id, BUILD_ID_MOST);
    module->build_id_bytes = id_bytes <= room ? (size_t)id_bytes : 0;
}

static bool modules_fill(struct table *table, hi_addr modules, size_t count)
{
    enum { TEXT_BYTES = PATH_MOST + BUILD_ID_MOST };
    struct himalloc_stacks *stacks = &table->own->stacks;
    size_t stride = table->own->schema.stride[S_MODULE];
    struct window window;
    struct hi_err err;
    stacks->modules = calloc(count + 1, sizeof *stacks->modules);
    stacks->epochs = calloc(count + 1, sizeof *stacks->epochs);
    stacks->texts = malloc((count + 1) * TEXT_BYTES);
    if (!stacks->modules || !stacks->epochs || !stacks->texts ||
        himalloc_window_open(&window, table->target, &err) != HI_OK)
        return false;
    bool more = true;
    for (size_t i = 0; more && i < count; i++) {
        const void *record = himalloc_window_at(&window, modules + i * stride, stride);
        if (!record) {
            more = sink_finding(table->sink, "the modules of call stacks can be read",
                                modules + i * stride, "module %zu of %zu", i, count);
            break;
        }
        module_take(table, record, &stacks->modules[i], &stacks->epochs[i],
                    stacks->texts + i * TEXT_BYTES);
        stacks->module_count = i + 1;
    }
    himalloc_window_close(&window);
    return more;
}

static bool modules_read(struct table *table)
{
    hi_addr modules = table_number(table, F_STACK_TABLE_modules);
    uint64_t count = table_number(table, F_STACK_TABLE_module_count);
    uint64_t capacity = table_number(table, F_STACK_TABLE_module_capacity);
    count = count < capacity ? count : capacity;
    count = count < HIMALLOC_MAX_MODULES ? count : HIMALLOC_MAX_MODULES;
    if (!entries_check(table, modules, count, table->own->schema.stride[S_MODULE],
                       "modules of call stacks lie in their table", &count))
        return false;
    return count == 0 || modules_fill(table, modules, (size_t)count);
}

/* -- the table -------------------------------------------------------------------------------- */

static bool table_has_all(const struct schema *schema)
{
    return schema->stride[S_STACK_TABLE] && schema->stride[S_STACK_NODE] &&
           schema->stride[S_MODULE] && schema_has(schema, F_STACK_TABLE_nodes) &&
           schema_has(schema, F_STACK_NODE_frame) && schema_has(schema, F_STACK_NODE_parent);
}

static void table_mode(const struct table *table, struct heap *heap)
{
    uint64_t mode = table_number(table, F_STACK_TABLE_mode);
    heap->stacks = mode == HM_STACKS_FULL      ? HEAP_STACKS_FULL
                   : mode == HM_STACKS_SAMPLED ? HEAP_STACKS_SAMPLED
                                               : HEAP_STACKS_NONE;
    heap->sample_bytes = table_number(table, F_STACK_TABLE_sample_bytes);
    heap->stacks_lost = table_number(table, F_STACK_TABLE_lost);
    heap->bytes_are_requested = heap->stacks == HEAP_STACKS_FULL;
}

/* What of the mapping is mapped, and metadata. It is reserved large: what counts as bytes is what
 * is in use. */
static bool table_mapping(struct table *table)
{
    uint64_t before = table->shown->metadata_bytes;
    hi_addr start = table_number(table, F_STACK_TABLE_mapping_start), end;
    uint64_t bytes = table_number(table, F_STACK_TABLE_mapping_bytes);
    table->mapping = (struct hi_range){0, 0};
    if (__builtin_add_overflow(start, bytes, &end) || end > HIMALLOC_ADDRESS_END)
        return sink_finding(table->sink, "call stacks lie in the address space", table->address,
                            "0x%" PRIx64 ", %" PRIu64 " bytes", start, bytes);
    table->mapping = (struct hi_range){start, end};
    uint64_t nodes = table_number(table, F_STACK_TABLE_node_count), used;
    if (__builtin_mul_overflow(nodes, (uint64_t)table->own->schema.stride[S_STACK_NODE], &used) ||
        used > bytes)
        used = bytes;
    if (!sink_metadata(table->sink, start, end))
        return false;
    table->shown->metadata_bytes = before + used;
    return true;
}

static bool table_open(struct table *table, bool *found)
{
    struct himalloc *own = table->own;
    size_t stride = own->schema.stride[S_STACK_TABLE];
    *found = false;
    if (own->stack_table == 0 || !table_has_all(&own->schema))
        return true;
    table->address = own->stack_table;
    table->record = malloc(stride);
    if (!table->record)
        return false;
    *found = target_read_some(table->target, own->stack_table, table->record, stride) == stride;
    return *found || sink_finding(table->sink, "the table of call stacks can be read",
                                  own->stack_table, "of %zu bytes", stride);
}

bool himalloc_stacks_mode(struct himalloc *own, struct heap *heap, struct target *target,
                          struct heap_sink *sink)
{
    struct table table = {.own = own, .shown = heap, .sink = sink, .target = target};
    bool found, more = table_open(&table, &found);
    if (found)
        table_mode(&table, heap);
    else
        own->stack_table = 0; /* it has been said */
    free(table.record);
    return more;
}

bool himalloc_stacks_read(struct himalloc *own, struct heap *heap, struct target *target,
                          struct heap_sink *sink)
{
    struct table table = {.own = own, .shown = heap, .sink = sink, .target = target};
    bool found, more = table_open(&table, &found);
    if (found)
        more = sink_metadata(sink, own->stack_table,
                             own->stack_table + own->schema.stride[S_STACK_TABLE]) &&
               table_mapping(&table);
    if (found && more && heap->blocks_with_stack)
        more = nodes_read(&table) && modules_read(&table);
    free(table.record);
    return more;
}

void himalloc_stacks_free(struct himalloc_stacks *stacks)
{
    VECTOR_FREE(&stacks->noted);
    VECTOR_FREE(&stacks->tags);
    free(stacks->notes);
    free(stacks->frames);
    free(stacks->parents);
    free(stacks->modules);
    free(stacks->epochs);
    free(stacks->texts);
}

/* -- asking ----------------------------------------------------------------------------------- */

static bool module_holds(const struct himalloc_stacks *stacks, size_t i, hi_addr address,
                         uint32_t epoch)
{
    const uint32_t last_told = (1u << HM_FRAME_EPOCH_BITS) - 1;
    const struct module_mark *module = &stacks->modules[i];
    const struct himalloc_epochs *epochs = &stacks->epochs[i];
    return address >= module->start && address < module->end && epoch <= epochs->last &&
           (epoch >= epochs->first || epoch == last_told);
}

static const struct module_mark *module_of(struct himalloc_stacks *stacks, hi_addr address,
                                           uint32_t epoch)
{
    if (stacks->last_module < stacks->module_count &&
        module_holds(stacks, stacks->last_module, address, epoch))
        return &stacks->modules[stacks->last_module];
    for (size_t i = stacks->module_count; i-- > 0;) /* of equals the latest */
        if (module_holds(stacks, i, address, epoch)) {
            stacks->last_module = i;
            return &stacks->modules[i];
        }
    return NULL;
}

size_t himalloc_stack(const struct heap_context *context, struct heap *heap, uint64_t stack_id,
                      struct heap_frame *frames, size_t most)
{
    (void)context;
    struct himalloc_stacks *stacks = &((struct himalloc *)heap->state)->stacks;
    uint64_t at = stack_id;
    size_t count = 0;
    while (at != 0 && at < stacks->node_count && count < most) {
        uint64_t word = stacks->frames[at];
        hi_addr address = word & ((UINT64_C(1) << HM_FRAME_ADDRESS_BITS) - 1);
        unsigned flags = word >> HM_FRAME_ADDRESS_BITS & ((1u << HM_FRAME_FLAG_BITS) - 1);
        uint32_t epoch = (uint32_t)(word >> (HM_FRAME_ADDRESS_BITS + HM_FRAME_FLAG_BITS));
        if (address == 0 || address >= HIMALLOC_ADDRESS_END)
            break;
        bool exact = flags & HM_FRAME_EXACT;
        frames[count++] = (struct heap_frame){.address = address,
                                              .exact = exact,
                                              .guessed = (flags & HM_FRAME_GUESSED) != 0,
                                              .cut = (flags & HM_FRAME_CUT) != 0,
                                              .module = module_of(stacks, address - !exact, epoch)};
        if (stacks->parents[at] >= at)
            break;
        at = stacks->parents[at];
    }
    if (count && at != 0)
        frames[count - 1].cut = true;
    return count;
}
