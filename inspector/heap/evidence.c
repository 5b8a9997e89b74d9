/*
 * Evidence from a target without symbols; see evidence.h.
 *
 * Data of a module is copied once and searched as words: a root of an allocator betrays itself by
 * how its words relate (a word that points to its own neighbour, a ring that closes), and each
 * candidate is then held against the target by the reader that asked. The cache is direct mapped:
 * its lines are pages, so that walking a list whose nodes share pages costs one system call a page,
 * and a page that could not be read is remembered as such.
 */
#include "heap/evidence.h"

#include <stdio.h>

enum { CACHE_PAGE_BYTES = 4096, CACHE_LINES = 4096, TEXT_PIECE_BYTES = 1 << 20 };

int evidence_by_address(const void *left, const void *right)
{
    hi_addr a = *(const hi_addr *)left, b = *(const hi_addr *)right;
    return a < b ? -1 : a > b;
}

/* Read [start, start + bytes) in pieces; unreadable pages are skipped, not fatal. */
static enum hi_code piece_read(struct evidence_data *data, struct target *target, hi_addr start,
                               size_t bytes, struct hi_err *err)
{
    while (bytes > 0) {
        unsigned char *memory = malloc(bytes);
        if (!memory)
            return hi_no_memory(err);
        size_t got = target_read_some(target, start, memory, bytes);
        struct evidence_piece *piece = got ? VECTOR_PUSH(&data->pieces) : NULL;
        if (piece)
            *piece = (struct evidence_piece){start, got, memory};
        else
            free(memory);
        if (got && !piece)
            return hi_no_memory(err);
        size_t step = got ? got : CACHE_PAGE_BYTES - start % CACHE_PAGE_BYTES;
        step = step < bytes ? step : bytes;
        start += step;
        bytes -= step;
    }
    return HI_OK;
}

static enum hi_code piece_read_file(struct evidence_data *data, const struct heap_context *context,
                                    size_t module, hi_addr start, size_t bytes, struct hi_err *err)
{
    const struct module *where = symbols_module(context->symbols, module);
    unsigned char *memory = malloc(bytes);
    if (!memory)
        return hi_no_memory(err);
    enum hi_code code =
        symbols_read_file(context->symbols, module, start - where->bias, memory, bytes, err);
    struct evidence_piece *piece = code == HI_OK ? VECTOR_PUSH(&data->pieces) : NULL;
    if (piece)
        *piece = (struct evidence_piece){start, bytes, memory};
    else
        free(memory);
    return code == HI_OK && !piece ? hi_no_memory(err) : code;
}

enum hi_code evidence_read(struct evidence_data *data, const struct heap_context *context,
                           size_t module, bool from_file, struct hi_err *err)
{
    *data = (struct evidence_data){0};
    size_t left = EVIDENCE_MAX_DATA;
    enum hi_code code = HI_OK;
    for (size_t i = 0; i < symbols_segment_count(context->symbols, module) && code == HI_OK; i++) {
        struct module_segment segment = symbols_segment(context->symbols, module, i);
        uint64_t bytes = segment.memory.end - segment.memory.start;
        if (!(segment.protection & MAPPING_WRITE) || segment.memory.end <= segment.memory.start)
            continue;
        bytes = segment.file_bytes < bytes ? segment.file_bytes : bytes;
        bytes = bytes < left ? bytes : left;
        left -= bytes;
        if (bytes == 0)
            continue;
        code = from_file ? piece_read_file(data, context, module, segment.memory.start, bytes, err)
                         : piece_read(data, context->target, segment.memory.start, bytes, err);
    }
    if (code != HI_OK)
        evidence_free(data);
    return code;
}

void evidence_free(struct evidence_data *data)
{
    for (size_t i = 0; i < data->pieces.count; i++)
        free(data->pieces.items[i].memory);
    VECTOR_FREE(&data->pieces);
}

bool evidence_word(const struct evidence_data *data, hi_addr address, uint64_t *value)
{
    for (size_t i = 0; i < data->pieces.count; i++) {
        const struct evidence_piece *piece = &data->pieces.items[i];
        hi_addr offset = address - piece->start;
        if (address < piece->start || piece->bytes < 8 || offset > piece->bytes - 8)
            continue;
        memcpy(value, piece->memory + offset, sizeof *value);
        return true;
    }
    return false;
}

void evidence_each_word(const struct evidence_data *data,
                        bool (*visit)(void *context, hi_addr place, uint64_t value), void *context)
{
    for (size_t i = 0; i < data->pieces.count; i++) {
        const struct evidence_piece *piece = &data->pieces.items[i];
        size_t first = (size_t)(-piece->start & 7);
        for (size_t at = first; at + 8 <= piece->bytes; at += 8) {
            uint64_t value;
            memcpy(&value, piece->memory + at, sizeof value);
            if (!visit(context, piece->start + at, value))
                return;
        }
    }
}

/* Look for prefix in memory[0, bytes); the text behind it goes to buffer. */
static bool text_in(const unsigned char *memory, size_t bytes, const char *prefix, char *buffer,
                    size_t size)
{
    size_t length = strlen(prefix);
    const unsigned char *found = memmem(memory, bytes, prefix, length);
    if (!found)
        return false;
    size_t have = bytes - (size_t)(found - memory) - length, used = 0;
    found += length;
    while (used + 1 < size && used < have && found[used] >= ' ' && found[used] < 0x7f) {
        buffer[used] = (char)found[used];
        used++;
    }
    buffer[used] = 0;
    return true;
}

static size_t text_piece(const struct heap_context *context, size_t module, hi_addr start,
                         unsigned char *memory, size_t bytes)
{
    size_t got = target_read_some(context->target, start, memory, bytes);
    const struct module *where = symbols_module(context->symbols, module);
    if (got == bytes)
        return got;
    enum hi_code code =
        symbols_read_file(context->symbols, module, start - where->bias, memory, bytes, NULL);
    return code == HI_OK ? bytes : got;
}

static bool text_in_segment(const struct heap_context *context, size_t module,
                            struct hi_range range, const char *prefix, char *buffer, size_t size)
{
    unsigned char *memory = malloc(TEXT_PIECE_BYTES);
    bool found = false;
    /* pieces overlap by what a text may straddle */
    for (hi_addr at = range.start; memory && !found && at < range.end;
         at += TEXT_PIECE_BYTES - 256) {
        size_t bytes = range.end - at < TEXT_PIECE_BYTES ? range.end - at : TEXT_PIECE_BYTES;
        size_t got = text_piece(context, module, at, memory, bytes);
        found = text_in(memory, got, prefix, buffer, size);
    }
    free(memory);
    return found;
}

bool evidence_text(const struct heap_context *context, size_t module, const char *prefix,
                   char *buffer, size_t size)
{
    for (size_t i = 0; i < symbols_segment_count(context->symbols, module); i++) {
        struct module_segment segment = symbols_segment(context->symbols, module, i);
        struct hi_range range = segment.memory;
        if (segment.protection & MAPPING_WRITE || range.end <= range.start)
            continue;
        if (range.end - range.start > EVIDENCE_MAX_DATA)
            range.end = range.start + EVIDENCE_MAX_DATA;
        if (text_in_segment(context, module, range, prefix, buffer, size))
            return true;
    }
    return false;
}

static bool segment_pages(const struct heap_context *context, const struct hi_range *segment,
                          bool (*visit)(void *visit_context, hi_addr page,
                                        const unsigned char *bytes),
                          void *visit_context)
{
    unsigned char page[EVIDENCE_PAGE_BYTES];
    struct hi_range content = {segment->start, segment->start};
    while (target_next_content(context->target, content.end, segment->end, &content)) {
        for (hi_addr at = content.start & ~(hi_addr)7; at < content.end; at += sizeof page) {
            memset(page, 0, sizeof page);
            target_read_some(context->target, at, page, sizeof page);
            if (!visit(visit_context, at, page))
                return false;
        }
    }
    return true;
}

void evidence_each_page(const struct heap_context *context, size_t module,
                        bool (*visit)(void *visit_context, hi_addr page,
                                      const unsigned char *bytes),
                        void *visit_context)
{
    for (size_t i = 0; i < symbols_segment_count(context->symbols, module); i++) {
        struct module_segment segment = symbols_segment(context->symbols, module, i);
        if ((segment.protection & MAPPING_WRITE) &&
            !segment_pages(context, &segment.memory, visit, visit_context))
            return;
    }
}

/* -- was it ever used? -------------------------------------------------------------------------
 */

enum { OUT_MOST = 64 };

struct pointers_out {
    const struct heap_context *context;
    size_t module, count, most;
    uint64_t seen[OUT_MOST];
};

static bool is_thread_pointer(const struct heap_context *context, uint64_t word)
{
    for (size_t i = 0; i < target_thread_count(context->target); i++) {
        if (target_thread(context->target, i)->fs_base == word)
            return true;
    }
    return false;
}

/* The second word of a table of addresses that is filled in late: its third is the linker's code.
 */
static bool is_linker_word(const struct heap_context *context, const unsigned char *next)
{
    uint64_t word;
    memcpy(&word, next, sizeof word);
    const struct module *module = symbols_module_at(context->symbols, word);
    return module && module->is_dynamic_linker;
}

static void pointer_out(struct pointers_out *out, uint64_t word)
{
    const struct mapping *mapping = target_mapping_at(out->context->target, word);
    if (!evidence_is_heap_mapping(mapping) || symbols_module_at(out->context->symbols, word) ||
        is_thread_pointer(out->context, word))
        return;
    for (size_t i = 0; i < out->count; i++) {
        if (out->seen[i] == word)
            return;
    }
    if (out->count < OUT_MOST)
        out->seen[out->count++] = word;
}

static bool page_pointers(void *visit_context, hi_addr page, const unsigned char *bytes)
{
    struct pointers_out *out = visit_context;
    (void)page;
    for (size_t i = 0; i < EVIDENCE_PAGE_BYTES && out->count < out->most; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, sizeof word);
        bool is_last = i + 8 == EVIDENCE_PAGE_BYTES;
        if (word >= EVIDENCE_PAGE_BYTES &&
            (is_last || !is_linker_word(out->context, bytes + i + 8)))
            pointer_out(out, word);
    }
    return out->count < out->most;
}

size_t evidence_pointers_out(const struct heap_context *context, size_t module, size_t most)
{
    struct pointers_out out = {
        .context = context, .module = module, .most = most < OUT_MOST ? most : OUT_MOST};
    evidence_each_page(context, module, page_pointers, &out);
    return out.count;
}

/* -- chasing pointers ------------------------------------------------------------------------- */

struct cache_line {
    hi_addr page; /* address | 1: valid; | 2: could not be read */
    unsigned char *bytes;
};

struct evidence_cache {
    struct target *target;
    struct cache_line lines[CACHE_LINES];
};

enum hi_code evidence_cache_new(struct evidence_cache **cache, struct target *target,
                                struct hi_err *err)
{
    *cache = calloc(1, sizeof **cache);
    if (!*cache)
        return hi_no_memory(err);
    (*cache)->target = target;
    return HI_OK;
}

void evidence_cache_free(struct evidence_cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; i < CACHE_LINES; i++)
        free(cache->lines[i].bytes);
    free(cache);
}

static const unsigned char *cache_page(struct evidence_cache *cache, hi_addr page)
{
    size_t bytes = 0;
    const void *view = target_view(cache->target, page, &bytes);
    if (view && bytes >= CACHE_PAGE_BYTES)
        return view;
    uint64_t hash = (page / CACHE_PAGE_BYTES) * UINT64_C(0x9e3779b97f4a7c15);
    struct cache_line *line = &cache->lines[hash >> 52];
    if ((line->page & ~(hi_addr)3) == page && line->page & 3)
        return line->page & 1 ? line->bytes : NULL;
    if (!line->bytes && !(line->bytes = malloc(CACHE_PAGE_BYTES)))
        return NULL;
    bool fine = target_read(cache->target, page, line->bytes, CACHE_PAGE_BYTES, NULL) == HI_OK;
    line->page = page | (fine ? 1 : 2);
    return fine ? line->bytes : NULL;
}

bool evidence_cache_u64(struct evidence_cache *cache, hi_addr address, uint64_t *value)
{
    if (address & 7)
        return false;
    const unsigned char *page = cache_page(cache, address & ~(hi_addr)(CACHE_PAGE_BYTES - 1));
    if (page)
        memcpy(value, page + address % CACHE_PAGE_BYTES, sizeof *value);
    return page != NULL;
}

bool evidence_cache_bytes(struct evidence_cache *cache, hi_addr address, void *buffer, size_t bytes)
{
    unsigned char *to = buffer;
    while (bytes > 0) {
        size_t offset = address % CACHE_PAGE_BYTES, part = CACHE_PAGE_BYTES - offset;
        part = part < bytes ? part : bytes;
        const unsigned char *page = cache_page(cache, address - offset);
        if (!page)
            return false;
        memcpy(to, page + offset, part);
        to += part;
        address += part;
        bytes -= part;
    }
    return true;
}

/* -- a map of words ---------------------------------------------------------------------------- */

static int pair_order(const void *a, const void *b)
{
    const struct evidence_pair *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

bool evidence_map_put(struct evidence_map *map, hi_addr key, uint64_t value)
{
    size_t count = map->pairs.count;
    if (count >= EVIDENCE_MAP_MAX)
        return true;
    struct evidence_pair *pair = VECTOR_PUSH(&map->pairs);
    if (!pair)
        return false;
    *pair = (struct evidence_pair){key, value};
    map->unsorted |= count && map->pairs.items[count - 1].key > key;
    return true;
}

bool evidence_map_get(struct evidence_map *map, hi_addr key, uint64_t *value)
{
    if (map->unsorted)
        qsort(map->pairs.items, map->pairs.count, sizeof *map->pairs.items, pair_order);
    map->unsorted = false;
    size_t low = 0, high = map->pairs.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->pairs.items[middle].key < key)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == map->pairs.count || map->pairs.items[low].key != key)
        return false;
    *value = map->pairs.items[low].value;
    return true;
}

void evidence_map_free(struct evidence_map *map)
{
    VECTOR_FREE(&map->pairs);
    map->unsorted = false;
}

/* -- votes ------------------------------------------------------------------------------------- */

void evidence_vote_cast(struct evidence_vote *vote, uint64_t value)
{
    for (uint32_t i = 0; i < vote->used; i++)
        if (vote->value[i] == value) {
            vote->count[i]++;
            return;
        }
    if (vote->used == EVIDENCE_VOTE_SLOTS) {
        vote->dropped++;
        return;
    }
    vote->value[vote->used] = value;
    vote->count[vote->used++] = 1;
}

uint32_t evidence_vote_winner(const struct evidence_vote *vote, uint64_t *value)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < vote->used; i++)
        if (vote->count[i] > most) {
            most = vote->count[i];
            *value = vote->value[i];
        }
    return most;
}

/* -- mappings ----------------------------------------------------------------------------------
 */

bool evidence_is_heap_mapping(const struct mapping *mapping)
{
    if (!mapping || mapping->shared || mapping->special)
        return false;
    unsigned both = MAPPING_READ | MAPPING_WRITE;
    if ((mapping->protection & both) != both)
        return false;
    /* "[heap]", "[anon: glibc: malloc]"; not files, not the main stack */
    return !mapping->path || strcmp(mapping->path, "[heap]") == 0 ||
           strncmp(mapping->path, "[anon", 5) == 0;
}

bool evidence_is_heap_address(const struct target *target, hi_addr address)
{
    return evidence_is_heap_mapping(target_mapping_at(target, address));
}

struct hi_range evidence_heap_run(const struct target *target, hi_addr address)
{
    struct hi_range run = {address, address};
    const struct mapping *mapping = target_mapping_at(target, address);
    if (!evidence_is_heap_mapping(mapping))
        return run;
    run = (struct hi_range){mapping->start, mapping->end};
    for (const struct mapping *next; (next = target_mapping_at(target, run.end));) {
        if (!evidence_is_heap_mapping(next) || next->end <= run.end)
            break;
        run.end = next->end;
    }
    for (const struct mapping *before; run.start;) {
        before = target_mapping_at(target, run.start - 1);
        if (!evidence_is_heap_mapping(before))
            break;
        run.start = before->start;
    }
    return run;
}

/* -- threads inside an allocator ------------------------------------------------------------- */

static bool is_code(const struct heap_context *context, size_t module, uint64_t word)
{
    const struct module *what = symbols_module(context->symbols, module);
    if (word < what->start || word >= what->end)
        return false;
    for (size_t i = 0; i < symbols_segment_count(context->symbols, module); i++) {
        struct module_segment segment = symbols_segment(context->symbols, module, i);
        if ((segment.protection & MAPPING_EXECUTE) && word >= segment.memory.start &&
            word < segment.memory.end)
            return true;
    }
    return false;
}

void evidence_hands_read(struct evidence_hands *hands, const struct heap_context *context,
                         size_t module, const struct thread *thread)
{
    hands->count = hands->own = 0;
    hands->inside = false;
    if (!thread->has_registers)
        return;
    memcpy(hands->words, thread->registers, sizeof thread->registers);
    hands->count = THREAD_REGISTER_COUNT;
    size_t room = sizeof hands->words - sizeof thread->registers;
    hands->count +=
        target_read_some(context->target, thread->sp, hands->words + THREAD_REGISTER_COUNT, room) /
        8;
    hands->own = hands->count;
    hands->inside = true;
    if (module == EVIDENCE_ANY_MODULE)
        return;
    hands->inside = is_code(context, module, thread->pc);
    size_t last = THREAD_REGISTER_COUNT;
    for (size_t i = THREAD_REGISTER_COUNT; i < hands->count; i++) {
        if (!is_code(context, module, hands->words[i]))
            continue;
        hands->inside = true;
        last = i + 1;
    }
    /* the frame of the outermost of the module's functions goes on to where it returns to */
    for (hands->own = last; hands->own < hands->count; hands->own++) {
        const struct mapping *mapping =
            target_mapping_at(context->target, hands->words[hands->own]);
        if (mapping && (mapping->protection & MAPPING_EXECUTE))
            break;
    }
}

bool evidence_hands_hold(const struct evidence_hands *hands, uint64_t word)
{
    for (size_t i = 0; i < hands->count; i++) {
        if (hands->words[i] == word)
            return true;
    }
    return false;
}
