/*
 * names: a batch of addresses, named.
 *
 * Terms: a place is what the caller asks; a query is a place with its module found and the address
 * taken down to the module's own (vaddr), one less for a return address, since the call may be the
 * last instruction of its function and of its line.
 *
 * Queries are sorted by module and vaddr, so that equal ones are answered once and each module's
 * tables are opened once and walked upward.
 */
#include "symbols/debug_info.h"
#include "symbols/name_memo.h"

#include <inttypes.h>

struct query {
    struct module_record *record; /* NULL: no module */
    uint64_t vaddr;
    uint32_t place;
    bool exact;
};

struct batch {
    struct symbols *symbols;
    struct names *names;
    VECTOR(struct frame_name) frames;
    struct query *queries;
    const struct module_record *record; /* whose names these are: */
    const char *module, *build_id;
    bool failed;
};

/* -- finding modules ---------------------------------------------------------------------------*/

static bool resolve_places(struct batch *batch, const struct frame_place *places, size_t count)
{
    const struct module_mark *mark = NULL;
    struct module_record *marked = NULL;
    for (size_t i = 0; i < count; i++) {
        struct query *query = &batch->queries[i];
        hi_addr at = places[i].address - !places[i].exact;
        query->place = (uint32_t)i;
        query->exact = places[i].exact;
        if (places[i].module && places[i].module != mark) {
            mark = places[i].module;
            marked = module_record_marked(batch->symbols, mark);
            if (!marked)
                return false;
        }
        query->record = places[i].module ? marked : module_record_at(batch->symbols, at);
        query->vaddr = query->record ? at - query->record->module.bias : at;
    }
    return true;
}

static int compare_queries(const void *a, const void *b)
{
    const struct query *left = a, *right = b;
    if (left->record != right->record)
        return left->record < right->record ? -1 : 1;
    if (left->vaddr != right->vaddr)
        return left->vaddr < right->vaddr ? -1 : 1;
    return (int)left->exact - (int)right->exact;
}

/* -- frames ------------------------------------------------------------------------------------*/

static const char *keep(struct batch *batch, const char *text)
{
    const char *kept = text_pool_keep(batch->symbols->texts, text, strlen(text));
    batch->failed |= !kept;
    return kept;
}

static void set_function(struct batch *batch, struct frame_name *frame, const char *raw)
{
    const struct printed_name *name =
        name_memo_get(batch->symbols->memo, batch->symbols->texts, raw);
    batch->failed |= !name;
    if (!name)
        return;
    frame->function = name->function;
    frame->linkage = name->linkage;
}

static void set_module(struct batch *batch, const struct module_record *record)
{
    char digits[2 * BUILD_ID_MAX_BYTES + 1] = "";
    batch->record = record;
    for (size_t i = 0; record && i < record->module.build_id_bytes; i++)
        snprintf(digits + 2 * i, 3, "%02x", record->module.build_id[i]);
    batch->module = record ? keep(batch, record->module.path) : NULL;
    batch->build_id = digits[0] ? keep(batch, digits) : NULL;
}

static struct frame_name *push_frame(struct batch *batch, const struct query *query)
{
    struct frame_name *frame = VECTOR_PUSH(&batch->frames);
    batch->failed |= !frame;
    if (!frame)
        return NULL;
    if (query->record != batch->record)
        set_module(batch, query->record);
    frame->offset = query->vaddr + !query->exact;
    frame->module = batch->module;
    frame->build_id = batch->build_id;
    return frame;
}

/* Does a symbol say more than the name in DWARF? It has namespace and parameters, or is what a
 * library exports: strdup, not __strdup. */
static bool symbol_says_more(const struct table_entry *entry, const char *function)
{
    return !function || name_is_mangled(entry->name) ||
           (entry->source == SYMBOL_DYNSYM && function[0] == '_' && !entry->is_local);
}

static void set_symbol(struct batch *batch, const struct query *query, struct frame_name *frame)
{
    hi_addr bias = query->record->module.bias;
    const struct table_entry *entry =
        tables_by_address(batch->symbols, query->record, query->vaddr + bias);
    if (!entry || !symbol_says_more(entry, frame->function))
        return;
    set_function(batch, frame, entry->name);
    frame->function_offset = frame->offset + bias - entry->address;
}

static void name_query(struct batch *batch, const struct query *query)
{
    struct debug_frame found[FRAMES_MAX];
    struct debug_info *info = query->record ? debug_info_of(batch->symbols, query->record) : NULL;
    size_t count = info ? debug_info_frames(info, query->vaddr, found) : 0;
    if (count == 0)
        found[count++] = (struct debug_frame){0};
    for (size_t i = 0; i < count && !batch->failed; i++) {
        struct frame_name *frame = push_frame(batch, query);
        if (!frame)
            return;
        frame->file = found[i].file;
        frame->line = found[i].line;
        frame->column = found[i].column;
        frame->is_inline = found[i].is_inline;
        if (found[i].name)
            set_function(batch, frame, found[i].name);
        if (query->record && i + 1 == count && (!found[i].name || found[i].is_bare))
            set_symbol(batch, query, frame);
    }
}

static void name_queries(struct batch *batch, size_t count)
{
    const struct query *before = NULL;
    struct name_span span = {0};
    for (size_t i = 0; i < count && !batch->failed; i++) {
        const struct query *query = &batch->queries[i];
        if (!before || compare_queries(before, query) != 0) {
            span.first = (uint32_t)batch->frames.count;
            name_query(batch, query);
            span.count = (uint32_t)batch->frames.count - span.first;
            before = query;
        }
        batch->names->spans[query->place] = span;
    }
}

/* -- the public side ---------------------------------------------------------------------------*/

enum hi_code names_of(struct symbols *symbols, const struct frame_place *places, size_t count,
                      struct names *names, struct hi_err *err)
{
    struct batch batch = {.symbols = symbols, .names = names};
    memset(names, 0, sizeof *names);
    if (count > UINT32_MAX / 2)
        return hi_no_memory(err);
    names->spans = calloc(count + 1, sizeof *names->spans);
    batch.queries = calloc(count + 1, sizeof *batch.queries);
    batch.failed = !names->spans || !batch.queries || !resolve_places(&batch, places, count);
    if (!batch.failed) {
        names->count = count;
        qsort(batch.queries, count, sizeof *batch.queries, compare_queries);
        name_queries(&batch, count);
    }
    free(batch.queries);
    names->frames = batch.frames.items;
    names->frame_count = batch.frames.count;
    if (!batch.failed)
        return HI_OK;
    names_free(names);
    return hi_no_memory(err);
}

void names_free(struct names *names)
{
    free(names->frames);
    free(names->spans);
    memset(names, 0, sizeof *names);
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

void names_describe(const struct frame_name *name, char *buffer, size_t size)
{
    const char *module = name->module ? last_part(name->module) : NULL;
    if (name->function && name->file)
        snprintf(buffer, size, "%s %s:%" PRIu32, name->function, last_part(name->file), name->line);
    else if (name->function)
        snprintf(buffer, size, "%s+0x%" PRIx64 " (%s)", name->function, name->function_offset,
                 module ? module : "");
    else if (name->build_id)
        snprintf(buffer, size, "%s+0x%" PRIx64 " (build-id %s)", module, name->offset,
                 name->build_id);
    else if (module)
        snprintf(buffer, size, "%s+0x%" PRIx64, module, name->offset);
    else
        snprintf(buffer, size, "0x%" PRIx64, name->offset);
}
