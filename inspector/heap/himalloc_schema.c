/*
 * The schema: himalloc's records as the target describes them.
 *
 * The allocator carries a table of its structures in memory: structure, field, type, offset, size,
 * count, kind (himalloc_format.h, section 2). A reader must not know an offset; it knows names.
 * What it wants stands in himalloc_schema.h, once; here each name is looked up once, checked, and
 * turned into a place in a record. From then on a field is a table look-up and a load.
 *
 * Checked, since the table lies in the target and may have been overwritten: a structure's stride
 * is sane, each field lies inside its structure, numbers have 1, 2, 4 or 8 bytes (a reader takes
 * whatever width it finds), an embedded structure fits its place. After schema_read() no accessor
 * can leave a record of stride bytes.
 *
 * Ignored: fields and structures that nobody asked for; the order of the records; a second record
 * with the same name (the first one counts).
 */
#include "heap/himalloc_schema.h"

#include "allocator/himalloc_format.h"

enum { SCHEMA_MAX_RECORDS = 16384, SCHEMA_MAX_RECORD_BYTES = 4096 };

struct schema_want {
    enum schema_structure structure;
    const char *name;
    enum hm_kind kind;
    bool required;
};

#define SCHEMA_NAME(constant, name) name,
static const char *const structure_names[] = {SCHEMA_STRUCTURES(SCHEMA_NAME)};

#define SCHEMA_REQUIRED(structure, name, kind) {S_##structure, #name, HM_##kind, true},
#define SCHEMA_OPTIONAL(structure, name, kind) {S_##structure, #name, HM_##kind, false},
static const struct schema_want wants[] = {SCHEMA_FIELDS(SCHEMA_REQUIRED, SCHEMA_OPTIONAL)};

/* Which structure is embedded where; its stride must fit. */
static const struct {
    enum schema_field field;
    enum schema_structure structure;
} embedded[] = {
    {F_ARENA_centrals, S_CENTRAL},
    {F_THREAD_bins, S_BIN},
    {F_BIN_window, S_WINDOW},
};

static bool name_is(const char *name, size_t size, const char *wanted)
{
    size_t length = strlen(wanted);
    return length < size && memcmp(name, wanted, length + 1) == 0;
}

/* Numbers of either kind are as good: an address may become a wider or narrower number. */
static bool kind_fits(enum hm_kind wanted, const struct hm_schema_record *record)
{
    bool is_number = record->kind == HM_UINT || record->kind == HM_ADDRESS;
    if (wanted == HM_UINT || wanted == HM_ADDRESS)
        return is_number &&
               (record->size == 1 || record->size == 2 || record->size == 4 || record->size == 8);
    return record->kind == (uint32_t)wanted && record->size > 0;
}

static void structure_take(struct schema *schema, const struct hm_schema_record *record)
{
    for (size_t i = 0; i < S_COUNT; i++)
        if (schema->stride[i] == 0 &&
            name_is(record->structure, sizeof record->structure, structure_names[i]))
            schema->stride[i] = record->size;
}

static void field_take(struct schema *schema, const struct hm_schema_record *record)
{
    for (size_t i = 0; i < F_COUNT; i++) {
        const struct schema_want *want = &wants[i];
        if (schema->places[i].count == 0 &&
            name_is(record->field, sizeof record->field, want->name) &&
            name_is(record->structure, sizeof record->structure,
                    structure_names[want->structure]) &&
            kind_fits(want->kind, record)) {
            schema->places[i] = (struct schema_place){record->offset, record->size, record->count};
            return;
        }
    }
}

static bool place_is_inside(const struct schema_place *place, uint32_t stride)
{
    uint64_t bytes;
    return !__builtin_mul_overflow((uint64_t)place->size, (uint64_t)place->count, &bytes) &&
           bytes <= stride && place->offset <= stride - bytes;
}

static bool structure_is_required(size_t structure)
{
    for (size_t i = 0; i < F_COUNT; i++)
        if (wants[i].required && wants[i].structure == structure)
            return true;
    return false;
}

static enum hi_code schema_check(const struct schema *schema, struct hi_err *err)
{
    for (size_t i = 0; i < S_COUNT; i++)
        if ((schema->stride[i] == 0 && structure_is_required(i)) ||
            schema->stride[i] > SCHEMA_MAX_STRIDE)
            return hi_fail(err, HI_UNSUPPORTED, "its schema has no usable structure \"%s\"",
                           structure_names[i]);
    for (size_t i = 0; i < F_COUNT; i++) {
        const struct schema_want *want = &wants[i];
        const struct schema_place *place = &schema->places[i];
        if (place->count == 0 && !want->required)
            continue;
        if (place->count == 0)
            return hi_fail(err, HI_UNSUPPORTED, "its schema has no usable field \"%s.%s\"",
                           structure_names[want->structure], want->name);
        if (!place_is_inside(place, schema->stride[want->structure]))
            return hi_fail(err, HI_UNSUPPORTED, "its schema puts \"%s.%s\" outside of the record",
                           structure_names[want->structure], want->name);
    }
    for (size_t i = 0; i < sizeof embedded / sizeof *embedded; i++)
        if (schema->places[embedded[i].field].size < schema->stride[embedded[i].structure])
            return hi_fail(err, HI_UNSUPPORTED, "its schema has no room for \"%s\"",
                           structure_names[embedded[i].structure]);
    return HI_OK;
}

enum hi_code schema_read(struct schema *schema, struct target *target, hi_addr address,
                         uint32_t record_bytes, uint32_t record_count, struct hi_err *err)
{
    memset(schema, 0, sizeof *schema);
    if (record_bytes < sizeof(struct hm_schema_record) || record_bytes > SCHEMA_MAX_RECORD_BYTES ||
        record_count == 0 || record_count > SCHEMA_MAX_RECORDS)
        return hi_fail(err, HI_UNSUPPORTED, "its schema has %u records of %u bytes", record_count,
                       record_bytes);
    size_t bytes = (size_t)record_bytes * record_count;
    unsigned char *table = malloc(bytes);
    if (!table)
        return hi_no_memory(err);
    enum hi_code code = target_read(target, address, table, bytes, err);
    for (uint32_t i = 0; code == HI_OK && i < record_count; i++) {
        struct hm_schema_record record;
        memcpy(&record, table + (size_t)i * record_bytes, sizeof record);
        if (record.field[0] == '\0' && record.kind == HM_STRUCTURE)
            structure_take(schema, &record);
        else
            field_take(schema, &record);
    }
    free(table);
    return code == HI_OK ? schema_check(schema, err) : code;
}

bool schema_has(const struct schema *schema, enum schema_field field)
{
    return schema->places[field].count > 0;
}

const void *schema_record(const struct schema *schema, enum schema_field field, const void *record,
                          uint32_t index)
{
    const struct schema_place *place = &schema->places[field];
    if (index >= place->count)
        return NULL;
    return (const char *)record + place->offset + (size_t)index * place->size;
}

size_t schema_bytes(const struct schema *schema, enum schema_field field, const void *record,
                    unsigned char *bytes, size_t size)
{
    const struct schema_place *place = &schema->places[field];
    size_t count = place->size == 1 ? place->count : 0;
    count = count < size ? count : size;
    memcpy(bytes, (const char *)record + place->offset, count);
    return count;
}

void schema_text(const struct schema *schema, enum schema_field field, const void *record,
                 char *buffer, size_t size)
{
    const struct schema_place *place = &schema->places[field];
    const char *text = (const char *)record + place->offset;
    size_t length = 0;
    while (length + 1 < size && length < (size_t)place->count * place->size && text[length]) {
        unsigned char byte = (unsigned char)text[length];
        buffer[length++] = byte >= ' ' && byte != 0x7f ? (char)byte : '?';
    }
    buffer[length] = '\0';
}
