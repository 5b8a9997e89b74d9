/*
 * pprof's profile.proto, encoded by hand and packed with gzip; Go's pprof, Pyroscope, Parca,
 * speedscope and Perfetto read it.
 *
 * Protocol buffers in short: a field is a number and a wire type in one varint, (number << 3 |
 * type); type 0 is a varint, type 2 a length and that many bytes: text, an embedded message, or
 * packed numbers. All strings stand once in a table and are named by index, the first one is "".
 *
 *   Sample    stack as location ids, innermost first; values {objects, bytes}; labels: the size of
 * a block (bytes), and of leaks which kind (kind=direct, indirect) Location  one a place in the
 * code: address inside the call instruction, its mapping, and a line for each function that is
 * inlined there, innermost first Function  name, file; Mapping: range, offset in the file, path and
 * build-id
 *
 * Values are estimates where stacks are of samples (period: mean bytes from one to the next), so
 * nobody has to scale them. Functions and strings are joined by a hash table each.
 */
#include "report/profile.h"

#include <inttypes.h>
#include <time.h>
#include <zlib.h>

enum { /* field numbers */
       PROFILE_SAMPLE_TYPE = 1,
       PROFILE_SAMPLE = 2,
       PROFILE_MAPPING = 3,
       PROFILE_LOCATION = 4,
       PROFILE_FUNCTION = 5,
       PROFILE_STRING_TABLE = 6,
       PROFILE_TIME_NANOS = 9,
       PROFILE_PERIOD_TYPE = 11,
       PROFILE_PERIOD = 12,
       PROFILE_COMMENT = 13,
       PROFILE_DEFAULT_SAMPLE_TYPE = 14,
};

struct text {
    char *bytes;
};

struct function {
    uint64_t name, system_name, file;
};

struct encoder {
    const struct profile *profile;
    struct buffer *out, message, inner;
    VECTOR(struct text) texts; /* index 0 is "" */
    uint32_t *text_slots;
    size_t text_slot_count;
    VECTOR(struct function) functions; /* id = index + 1 */
    uint32_t *function_slots;
    size_t function_slot_count;
    uint64_t *mapping_of; /* a place's mapping id */
    uint64_t mapping_count;
    bool out_of_memory;
};

/* -- wire format ------------------------------------------------------------------------------ */

static void put_varint(struct buffer *out, uint64_t value)
{
    unsigned char bytes[10];
    size_t count = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[count++] = (unsigned char)(value | 0x80);
    bytes[count++] = (unsigned char)value;
    buffer_add(out, bytes, count);
}

/* Zeros are what a field is when it is not there. */
static void put_number(struct buffer *out, unsigned field, uint64_t value)
{
    if (!value)
        return;
    put_varint(out, field << 3);
    put_varint(out, value);
}

static void put_bytes(struct buffer *out, unsigned field, const void *bytes, size_t count)
{
    put_varint(out, field << 3 | 2);
    put_varint(out, count);
    buffer_add(out, bytes, count);
}

/* What was put together in message becomes a field of the profile. */
static void put_message(struct encoder *e, unsigned field)
{
    put_bytes(e->out, field, e->message.bytes, e->message.count);
    e->message.count = 0;
}

/* The same one level down. */
static void put_inner(struct encoder *e, unsigned field)
{
    put_bytes(&e->message, field, e->inner.bytes, e->inner.count);
    e->inner.count = 0;
}

/* -- strings and functions -------------------------------------------------------------------- */

static size_t text_slot(const struct encoder *e, const char *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *p = text; *p; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    size_t mask = e->text_slot_count - 1, slot = (size_t)(hash ^ hash >> 32) & mask;
    while (e->text_slots[slot] && strcmp(e->texts.items[e->text_slots[slot] - 1].bytes, text) != 0)
        slot = (slot + 1) & mask;
    return slot;
}

static bool texts_grow(struct encoder *e)
{
    size_t wanted = e->text_slot_count ? e->text_slot_count * 2 : 256;
    uint32_t *slots = calloc(wanted, sizeof *slots);
    if (!slots)
        return false;
    free(e->text_slots);
    e->text_slots = slots;
    e->text_slot_count = wanted;
    for (size_t i = 0; i < e->texts.count; i++)
        slots[text_slot(e, e->texts.items[i].bytes)] = (uint32_t)i + 1;
    return true;
}

static uint64_t text_id(struct encoder *e, const char *text)
{
    if (!text || e->out_of_memory)
        return 0;
    if (e->texts.count * 2 >= e->text_slot_count && !texts_grow(e)) {
        e->out_of_memory = true;
        return 0;
    }
    size_t slot = text_slot(e, text);
    if (!e->text_slots[slot]) {
        struct text *made = VECTOR_PUSH(&e->texts);
        char *copy = made ? strdup(text) : NULL;
        if (made)
            made->bytes = copy;
        if (!copy) {
            e->texts.count -= made != NULL;
            e->out_of_memory = true;
            return 0;
        }
        e->text_slots[slot] = (uint32_t)e->texts.count;
    }
    return e->text_slots[slot] - 1;
}

static size_t function_slot(const struct encoder *e, const struct function *f)
{
    uint64_t hash = f->name * UINT64_C(0x9e3779b97f4a7c15) ^
                    f->file * UINT64_C(0xc2b2ae3d27d4eb4f) ^ f->system_name;
    size_t mask = e->function_slot_count - 1, slot = (size_t)(hash ^ hash >> 32) & mask;
    for (; e->function_slots[slot]; slot = (slot + 1) & mask) {
        const struct function *other = &e->functions.items[e->function_slots[slot] - 1];
        if (other->name == f->name && other->file == f->file &&
            other->system_name == f->system_name)
            break;
    }
    return slot;
}

static bool functions_grow(struct encoder *e)
{
    size_t wanted = e->function_slot_count ? e->function_slot_count * 2 : 256;
    uint32_t *slots = calloc(wanted, sizeof *slots);
    if (!slots)
        return false;
    free(e->function_slots);
    e->function_slots = slots;
    e->function_slot_count = wanted;
    for (size_t i = 0; i < e->functions.count; i++)
        slots[function_slot(e, &e->functions.items[i])] = (uint32_t)i + 1;
    return true;
}

static void put_function(struct encoder *e, uint64_t id, const struct function *f)
{
    put_number(&e->message, 1, id);
    put_number(&e->message, 2, f->name);
    put_number(&e->message, 3, f->system_name);
    put_number(&e->message, 4, f->file);
    put_message(e, PROFILE_FUNCTION);
}

/* Its id; 0: memory is out. A function that is new is written first. */
static uint64_t function_id(struct encoder *e, const struct frame_name *name)
{
    const char *linkage = name->linkage ? name->linkage : name->function;
    struct function f = {text_id(e, name->function), text_id(e, linkage), text_id(e, name->file)};
    if (e->out_of_memory ||
        (e->functions.count * 2 >= e->function_slot_count && !functions_grow(e))) {
        e->out_of_memory = true;
        return 0;
    }
    size_t slot = function_slot(e, &f);
    if (!e->function_slots[slot]) {
        struct function *made = VECTOR_PUSH(&e->functions);
        if (!made) {
            e->out_of_memory = true;
            return 0;
        }
        *made = f;
        e->function_slots[slot] = (uint32_t)e->functions.count;
        put_function(e, e->functions.count, &f);
    }
    return e->function_slots[slot];
}

/* -- mappings --------------------------------------------------------------------------------- */

/* A place lies in the module that was there then; its code, to a reader, is one mapping. */
struct code {
    hi_addr start, end;
    uint64_t offset;
    const char *path, *build_id;
};

static hi_addr call_address(const struct frame_place *place)
{
    return place->address - !place->exact;
}

/* Paths may differ by symbolic links. */
static bool is_same_module(const struct module_mark *mark, const struct module *now)
{
    if (!now || now->bias != mark->bias)
        return false;
    return !now->build_id_bytes || !mark->build_id_bytes ||
           (now->build_id_bytes == mark->build_id_bytes &&
            memcmp(now->build_id, mark->build_id, mark->build_id_bytes) == 0);
}

static void code_of(const struct encoder *e, const struct frame_place *place,
                    const struct frame_name *name, struct code *code)
{
    const struct module_mark *mark = place->module;
    const struct mapping *mapping = target_mapping_at(e->profile->in->target, call_address(place));
    const struct module *now = symbols_module_at(e->profile->in->symbols, call_address(place));
    bool is_gone = mark && !is_same_module(mark, now);
    *code = (struct code){.path = name->module, .build_id = name->build_id};
    if (is_gone) {
        code->start = mark->start;
        code->end = mark->end;
    } else if (mapping) {
        code->start = mapping->start;
        code->end = mapping->end;
        code->offset = mapping->file_offset;
    }
}

static void put_mapping(struct encoder *e, uint64_t id, const struct code *code)
{
    struct buffer *m = &e->message;
    put_number(m, 1, id);
    put_number(m, 2, code->start);
    put_number(m, 3, code->end);
    put_number(m, 4, code->offset);
    put_number(m, 5, text_id(e, code->path));
    put_number(m, 6, text_id(e, code->build_id));
    for (unsigned has = 7; has <= 10; has++) /* functions, files, lines, inlined ones */
        put_number(m, has, 1);
    put_message(e, PROFILE_MAPPING);
}

static bool same_code(const struct code *a, const struct code *b)
{
    return a->start == b->start && a->end == b->end && a->path == b->path;
}

/* Few mappings, many places in each: the one before is tried first. */
static uint64_t mapping_id(struct encoder *e, struct code *known, const struct code *code)
{
    if (code->end <= code->start)
        return 0;
    for (uint64_t i = e->mapping_count; i-- > 0;)
        if (same_code(&known[i], code))
            return i + 1;
    known[e->mapping_count++] = *code;
    put_mapping(e, e->mapping_count, code);
    return e->mapping_count;
}

/* The executable's code first: readers take the first mapping for the program. */
static void place_mappings(struct encoder *e, struct code *known, bool executable)
{
    const struct call_stacks *stacks = e->profile->stacks;
    for (size_t i = 0; i < stacks->places.count; i++) {
        const struct frame_place *place = &stacks->places.items[i];
        const struct module *now = symbols_module_at(e->profile->in->symbols, call_address(place));
        size_t count;
        struct code code;
        if ((now && now->kind == MODULE_EXECUTABLE) != executable)
            continue;
        code_of(e, place, names_at(&stacks->names, i, &count), &code);
        e->mapping_of[i] = mapping_id(e, known, &code);
    }
}

static void put_mappings(struct encoder *e)
{
    size_t count = e->profile->stacks->places.count;
    struct code *known = calloc(count + 1, sizeof *known);
    e->mapping_of = calloc(count + 1, sizeof *e->mapping_of);
    if (known && e->mapping_of) {
        place_mappings(e, known, true);
        place_mappings(e, known, false);
    } else {
        e->out_of_memory = true;
    }
    free(known);
}

/* -- locations and samples -------------------------------------------------------------------- */

static void put_line(struct encoder *e, uint64_t function, const struct frame_name *name)
{
    put_number(&e->inner, 1, function);
    put_number(&e->inner, 2, name->line);
    put_number(&e->inner, 3, name->column);
    put_inner(e, 4);
}

/* Functions are written on the way, so that ids must be had before the location is begun. */
static void put_location(struct encoder *e, size_t place)
{
    const struct call_stacks *stacks = e->profile->stacks;
    size_t count;
    const struct frame_name *names = names_at(&stacks->names, place, &count);
    uint64_t *functions = calloc(count + 1, sizeof *functions);
    e->out_of_memory |= !functions;
    for (size_t i = 0; i < count && functions; i++)
        functions[i] = names[i].function ? function_id(e, &names[i]) : 0;
    put_number(&e->message, 1, place + 1);
    put_number(&e->message, 2, e->mapping_of[place]);
    put_number(&e->message, 3, call_address(&stacks->places.items[place]));
    for (size_t i = 0; i < count && functions; i++)
        if (functions[i])
            put_line(e, functions[i], &names[i]);
    put_message(e, PROFILE_LOCATION);
    free(functions);
}

static uint64_t rounded(double value)
{
    return value < 0x1p62 ? (uint64_t)(value + 0.5) : UINT64_C(1) << 62;
}

static void put_label(struct encoder *e, const char *key, const char *text, uint64_t number,
                      const char *unit)
{
    put_number(&e->inner, 1, text_id(e, key));
    put_number(&e->inner, 2, text_id(e, text));
    put_number(&e->inner, 3, number);
    put_number(&e->inner, 4, text_id(e, unit));
    put_inner(e, 3);
}

static void put_sample(struct encoder *e, const struct allocation *item)
{
    const struct call_stacks *stacks = e->profile->stacks;
    const struct call_stack *stack = call_stacks_find(stacks, item->heap, item->stack_id);
    for (uint32_t i = 0; stack && i < stack->count; i++)
        put_varint(&e->inner, call_stack_frame(stacks, stack, i)->place + 1);
    put_inner(e, 1);
    put_varint(&e->inner, rounded(item->blocks));
    put_varint(&e->inner, rounded(item->bytes));
    put_inner(e, 2);
    put_label(e, "bytes", NULL, item->size, "bytes");
    if (e->profile->is_leaks)
        put_label(e, "kind", item->kind == MARK_DIRECT ? "direct" : "indirect", 0, NULL);
    put_message(e, PROFILE_SAMPLE);
}

/* -- the whole -------------------------------------------------------------------------------- */

static void put_type(struct encoder *e, unsigned field, const char *type, const char *unit)
{
    put_number(&e->message, 1, text_id(e, type));
    put_number(&e->message, 2, text_id(e, unit));
    put_message(e, field);
}

static void put_head(struct encoder *e)
{
    struct timespec now;
    uint64_t period = e->profile->all->sampled.blocks ? e->profile->all->sample_bytes : 1;
    clock_gettime(CLOCK_REALTIME, &now);
    put_type(e, PROFILE_SAMPLE_TYPE, "inuse_objects", "count");
    put_type(e, PROFILE_SAMPLE_TYPE, "inuse_space", "bytes");
    put_number(e->out, PROFILE_TIME_NANOS,
               (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    put_type(e, PROFILE_PERIOD_TYPE, "space", "bytes");
    put_number(e->out, PROFILE_PERIOD, period);
    put_number(e->out, PROFILE_COMMENT,
               text_id(e, e->profile->is_leaks ? "heapinspect " HEAPINSPECT_VERSION ": lost blocks"
                                               : "heapinspect " HEAPINSPECT_VERSION
                                                 ": live blocks"));
    put_number(e->out, PROFILE_DEFAULT_SAMPLE_TYPE, text_id(e, "inuse_space"));
}

static void encode(struct encoder *e)
{
    text_id(e, "");
    put_head(e);
    put_mappings(e);
    for (size_t i = 0; !e->out_of_memory && i < e->profile->stacks->places.count; i++)
        put_location(e, i);
    for (size_t i = 0; !e->out_of_memory && i < e->profile->all->items.count; i++)
        put_sample(e, &e->profile->all->items.items[i]);
    for (size_t i = 0; i < e->texts.count; i++)
        put_bytes(e->out, PROFILE_STRING_TABLE, e->texts.items[i].bytes,
                  strlen(e->texts.items[i].bytes));
}

static void encoder_free(struct encoder *e)
{
    for (size_t i = 0; i < e->texts.count; i++)
        free(e->texts.items[i].bytes);
    VECTOR_FREE(&e->texts);
    VECTOR_FREE(&e->functions);
    free(e->text_slots);
    free(e->function_slots);
    free(e->mapping_of);
    buffer_free(&e->message);
    buffer_free(&e->inner);
}

static enum hi_code pack(struct buffer *out, const struct buffer *plain, struct hi_err *err)
{
    enum { GZIP = 16, STEP = 1 << 16 };
    unsigned char packed[STEP];
    z_stream stream = {0};
    if (plain->count > UINT32_MAX)
        return hi_fail(err, HI_UNSUPPORTED, "a profile of more than 4 GiB");
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, MAX_WBITS + GZIP, 8,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return hi_no_memory(err);
    stream.next_in = (unsigned char *)plain->bytes;
    stream.avail_in = (uInt)plain->count;
    int result = Z_OK;
    while (result == Z_OK) {
        stream.next_out = packed;
        stream.avail_out = sizeof packed;
        result = deflate(&stream, Z_FINISH);
        buffer_add(out, packed, sizeof packed - stream.avail_out);
    }
    deflateEnd(&stream);
    return result == Z_STREAM_END && buffer_ok(out) ? HI_OK : hi_no_memory(err);
}

enum hi_code profile_pprof(struct buffer *out, const struct profile *profile, struct hi_err *err)
{
    struct buffer plain = {0};
    struct encoder e = {.profile = profile, .out = &plain};
    encode(&e);
    bool fine =
        !e.out_of_memory && buffer_ok(&plain) && buffer_ok(&e.message) && buffer_ok(&e.inner);
    enum hi_code code = fine ? pack(out, &plain, err) : hi_no_memory(err);
    encoder_free(&e);
    buffer_free(&plain);
    return code;
}
