/*
 * ptmalloc: finding the roots.
 *
 * main_arena and mp_ are local symbols of the C library: in the symbol table of a debug file or an
 * unstripped static program, and nowhere else. Without them the initial values betray both:
 *
 *   main_arena  its `next` points to itself when the program starts. In the file that is a relative
 *               relocation (or, not relocated, the word itself) whose value lies `next` bytes below
 *               its place. In memory it is the ring through `next` that closes, and bin headers
 * that point to themselves. mp_         three thresholds of 131072 in a row and then 8, in the
 * file; in memory the fields agree with each other: n_mmaps_max beside n_mmaps, sizes in whole
 * pages, sbrk_base below the top in the same mapping.
 *
 * Each candidate is tried with each row of ptmalloc_layout.c and accepted only when the ring
 * closes, the bins are all unused or all lists, and the top is where a top can be. Rows that share
 * their first offsets are told apart by the fields behind (attached threads are few, system_mem is
 * in pages). A C library whose bins are all zero has never been asked for memory: it is idle, as
 * under a preloaded allocator. One instance for each module that holds such an arena: dlmopen()
 * loads the library again, and a static program is its own.
 */
#include "heap/ptmalloc.h"

#include <stdio.h>

enum { STATE_MAX_BYTES = 0x1000 };

static uint32_t half_at(const unsigned char *bytes, size_t offset)
{
    uint32_t value;
    memcpy(&value, bytes + offset, sizeof value);
    return value;
}

bool ptmalloc_state_read(struct ptmalloc *p, hi_addr address, unsigned char *bytes)
{
    return address % 8 == 0 &&
           target_read(p->target, address, bytes, p->state->bytes, NULL) == HI_OK;
}

/* -- is this an arena? ------------------------------------------------------------------------- */

/* Does the first chunk of a list lead back to its head? */
static bool bin_leads_back(struct ptmalloc *p, hi_addr bin, hi_addr fd)
{
    uint64_t back;
    return fd % CHUNK_ALIGN == 0 && evidence_cache_u64(p->cache, fd + 24, &back) && back == bin;
}

/* All zero (never used), or every header is a list: empty, or one that leads back. */
static bool bins_plausible(struct ptmalloc *p, const unsigned char *state, hi_addr address)
{
    unsigned zero = 0, wrong = 0;
    for (unsigned i = 0; i < PTMALLOC_BINS && (zero == i || wrong <= 2); i++) {
        uint64_t fd = evidence_u64_at(state, p->state->bins + 16 * (size_t)i);
        uint64_t bk = evidence_u64_at(state, p->state->bins + 16 * (size_t)i + 8);
        hi_addr bin = bin_address(p, address, i);
        zero += fd == 0 && bk == 0;
        wrong += !(fd == bin && bk == bin) && !bin_leads_back(p, bin, fd);
    }
    /* a header or two may be half written */
    return zero == PTMALLOC_BINS || wrong <= 2;
}

static bool bins_unused(const struct ptmalloc *p, const unsigned char *state)
{
    return evidence_u64_at(state, p->state->bins) == 0;
}

static bool top_plausible(const struct ptmalloc *p, const unsigned char *state, hi_addr address)
{
    hi_addr top = evidence_u64_at(state, p->state->top);
    if (bins_unused(p, state))
        return top == 0;
    return top == bin_address(p, address, 0) ||
           (top % CHUNK_ALIGN == 0 && evidence_is_heap_mapping(target_mapping_at(p->target, top)));
}

static bool counts_plausible(const struct ptmalloc *p, const unsigned char *state)
{
    uint64_t system_mem = evidence_u64_at(state, p->state->system_mem);
    if (system_mem >> 47 || evidence_u64_at(state, p->state->system_mem + 8u) >> 47)
        return false;
    /* a number of threads where there is one; pages of memory where there is none */
    if (p->state->attached == PTMALLOC_NONE)
        return system_mem == 0 || system_mem >= 4096;
    return evidence_u64_at(state, p->state->attached) < 4096;
}

/* Follow `next` until it is back at address. */
static bool ring_closes(struct ptmalloc *p, hi_addr address)
{
    hi_addr at = address;
    for (unsigned i = 0; i < PTMALLOC_MAX_ARENAS; i++) {
        if (!evidence_cache_u64(p->cache, at + p->state->next, &at) || at == 0)
            return false;
        if (at == address)
            return true;
    }
    return false;
}

static bool state_accept(struct ptmalloc *p, hi_addr address,
                         const struct ptmalloc_state_layout *layout)
{
    unsigned char state[STATE_MAX_BYTES];
    p->state = layout;
    return ptmalloc_state_read(p, address, state) && bins_plausible(p, state, address) &&
           counts_plausible(p, state) && top_plausible(p, state, address) &&
           ring_closes(p, address);
}

/* The row that fits; p->state is set. The newest is tried first: rows share offsets. */
static bool main_accept(struct ptmalloc *p, hi_addr address)
{
    for (size_t i = ptmalloc_state_layout_count; i-- > 0;)
        if (state_accept(p, address, &ptmalloc_state_layouts[i])) {
            p->main = address;
            return true;
        }
    return false;
}

/* -- main_arena ---------------------------------------------------------------------------------
 */

static bool main_by_symbol(struct ptmalloc *p)
{
    struct symbol symbol;
    return symbols_find(p->symbols, p->module, "main_arena", &symbol, NULL) == HI_OK &&
           main_accept(p, symbol.address);
}

static bool next_offset_known(uint64_t offset)
{
    for (size_t i = 0; i < ptmalloc_state_layout_count; i++)
        if (ptmalloc_state_layouts[i].next == offset)
            return true;
    return false;
}

struct main_search {
    struct ptmalloc *p;
    const struct evidence_data *data;
    hi_addr bias;
    bool found;
};

/* A word that points `next` bytes before itself. */
static bool self_pointer_visit(void *context, hi_addr place, uint64_t value)
{
    struct main_search *search = context;
    hi_addr address = value + search->bias;
    if (next_offset_known(place - address) && main_accept(search->p, address))
        search->found = true;
    return !search->found;
}

static bool main_by_relocation(struct ptmalloc *p, const struct heap_context *context)
{
    struct main_search search = {.p = p};
    for (size_t i = 0; i < symbols_segment_count(p->symbols, p->module) && !search.found; i++) {
        struct module_segment segment = symbols_segment(p->symbols, p->module, i);
        if (!(segment.protection & MAPPING_WRITE))
            continue;
        enum hi_code ignored = symbols_relocations(p->symbols, p->module, segment.memory,
                                                   self_pointer_visit, &search, NULL);
        (void)ignored;
    }
    if (search.found)
        return true;
    /* no relocation is needed where the linker fixed the address; others are in place */
    struct evidence_data file;
    if (evidence_read(&file, context, p->module, true, NULL) != HI_OK)
        return false;
    search.bias = symbols_module(p->symbols, p->module)->bias;
    evidence_each_word(&file, self_pointer_visit, &search);
    evidence_free(&file);
    return search.found;
}

/* Can two words be a bin header? Of an empty bin, or both chunks; in a busy heap few are empty. */
static bool head_likely(const struct main_search *search, hi_addr place)
{
    uint64_t fd, bk;
    const struct target *target = search->p->target;
    if (!evidence_word(search->data, place, &fd) || !evidence_word(search->data, place + 8, &bk))
        return false;
    if (fd == place - 16 && bk == fd)
        return true;
    return fd && bk && fd % CHUNK_ALIGN == 0 && bk % CHUNK_ALIGN == 0 &&
           evidence_is_heap_mapping(target_mapping_at(target, fd)) &&
           evidence_is_heap_mapping(target_mapping_at(target, bk));
}

/* Is the word at place the first bin header of an arena? Few words get past the first tests. */
static bool bins_visit(void *context, hi_addr place, uint64_t value)
{
    enum { SAMPLE = 8, HALF_WRITTEN = 2 };
    struct main_search *search = context;
    unsigned wrong = 0;
    (void)value;
    for (unsigned i = 0; i < SAMPLE && wrong <= HALF_WRITTEN; i++)
        wrong += !head_likely(search, place + 16 * (hi_addr)i);
    for (size_t i = 0; i < ptmalloc_state_layout_count && wrong <= HALF_WRITTEN && !search->found;
         i++) {
        hi_addr address = place - ptmalloc_state_layouts[i].bins;
        search->found = main_accept(search->p, address);
    }
    return !search->found;
}

static bool main_by_pattern(struct ptmalloc *p, const struct evidence_data *data)
{
    struct main_search search = {.p = p, .data = data};
    evidence_each_word(data, bins_visit, &search);
    if (!search.found)
        evidence_each_word(data, self_pointer_visit, &search);
    return search.found;
}

/* -- mp_ --------------------------------------------------------------------------------------- */

enum { PAR_MAX_BYTES = 0x90, PAR_FILE_WORDS = 4, MMAPS_MAX_DEFAULT = 65536 };

static unsigned par_score_base(const struct ptmalloc *p, const struct ptmalloc_par_layout *row,
                               const unsigned char *par, hi_addr top)
{
    uint64_t base = evidence_u64_at(par, row->sbrk_base);
    if (base == 0)
        return top ? 0 : 1;
    const struct mapping *mapping = target_mapping_at(p->target, base);
    if (!evidence_is_heap_mapping(mapping))
        return 0;
    return base <= top && top < evidence_heap_run(p->target, base).end ? 4 : 2;
}

/* How well a row fits what lies at mp_; 0: not at all. */
static unsigned par_score(const struct ptmalloc *p, const struct ptmalloc_par_layout *row,
                          const unsigned char *par, hi_addr top)
{
    uint32_t n = half_at(par, row->n_mmaps), n_max = half_at(par, row->n_mmaps + 4u);
    uint32_t most = half_at(par, row->n_mmaps + 8u), fixed = half_at(par, row->n_mmaps + 12u);
    uint64_t mapped = evidence_u64_at(par, row->mmapped_mem);
    unsigned grain = row->mremap_drifts ? CHUNK_ALIGN : p->page_bytes;
    if (fixed > 1 || n > most + 64 || most > INT32_MAX || mapped % grain || mapped >> 47)
        return 0;
    if (evidence_u64_at(par, row->mmapped_mem + 8u) % grain)
        return 0;
    unsigned base = par_score_base(p, row, par, top);
    if (evidence_u64_at(par, row->sbrk_base) && base == 0)
        return 0;
    unsigned score = 1 + base + (n_max == MMAPS_MAX_DEFAULT ? 4 : 0) + ((n == 0) == (mapped == 0));
    if (row->tcache_count == PTMALLOC_NONE)
        return score;
    uint64_t bins = evidence_u64_at(par, row->tcache_count - 16u);
    uint64_t count = evidence_u64_at(par, row->tcache_count);
    if (bins == 0 || bins > PTMALLOC_MAX_TCACHE_BINS || count > UINT16_MAX)
        return 0;
    return score + (bins == 64) + (count == 7 || count == 16);
}

/* Fields of mp_ as they are now. */
static bool par_read(struct ptmalloc *p, hi_addr address)
{
    unsigned char par[PAR_MAX_BYTES];
    uint64_t top = 0;
    if (!evidence_cache_u64(p->cache, p->main + p->state->top, &top) ||
        top == bin_address(p, p->main, 0))
        top = 0;
    if (!evidence_cache_bytes(p->cache, address, par, sizeof par))
        return false;
    unsigned best = 0;
    for (size_t i = 0; i < ptmalloc_par_layout_count; i++) {
        const struct ptmalloc_par_layout *row = &ptmalloc_par_layouts[i];
        unsigned score = par_score(p, row, par, top);
        if (score <= best)
            continue;
        best = score;
        p->par = row;
        p->par_address = address;
        p->n_mmaps = half_at(par, row->n_mmaps);
        p->mmapped_mem = evidence_u64_at(par, row->mmapped_mem);
        p->sbrk_base = evidence_u64_at(par, row->sbrk_base);
        p->hp_page = row->hp_page == PTMALLOC_NONE ? 0 : evidence_u64_at(par, row->hp_page);
        p->tcache_count =
            row->tcache_count == PTMALLOC_NONE ? 0 : evidence_u64_at(par, row->tcache_count);
    }
    return best > 0;
}

struct par_search {
    struct ptmalloc *p;
    const struct evidence_data *data;
    bool initial; /* the file's values: thresholds as compiled in */
    bool found;
};

static bool par_visit(void *context, hi_addr place, uint64_t value)
{
    struct par_search *search = context;
    uint64_t words[PAR_FILE_WORDS] = {value};
    for (unsigned i = 1; i < PAR_FILE_WORDS; i++)
        if (!evidence_word(search->data, place + 8 * (hi_addr)i, &words[i]))
            return true;
    if (words[3] != 8 || (search->initial && (words[0] != 131072 || words[2] != 131072)))
        return true;
    if (search->initial) {
        search->found = par_read(search->p, place);
        return !search->found;
    }
    /* in memory: only a candidate whose n_mmaps_max is the default, or whose base fits */
    for (size_t i = 0; i < ptmalloc_par_layout_count && !search->found; i++) {
        uint64_t mmaps = 0;
        hi_addr at = place + ((ptmalloc_par_layouts[i].n_mmaps + 4u) & ~7u);
        if (!evidence_word(search->data, at, &mmaps))
            continue;
        uint32_t half = (uint32_t)(ptmalloc_par_layouts[i].n_mmaps % 8 ? mmaps : mmaps >> 32);
        if (half == MMAPS_MAX_DEFAULT)
            search->found = par_read(search->p, place);
    }
    return !search->found;
}

static void par_find(struct ptmalloc *p, const struct heap_context *context,
                     const struct evidence_data *memory)
{
    struct symbol symbol;
    if (symbols_find(p->symbols, p->module, "mp_", &symbol, NULL) == HI_OK &&
        par_read(p, symbol.address))
        return;
    struct evidence_data file;
    struct par_search search = {.p = p, .initial = true, .data = &file};
    if (evidence_read(&file, context, p->module, true, NULL) == HI_OK) {
        evidence_each_word(&file, par_visit, &search);
        evidence_free(&file);
    }
    if (search.found)
        return;
    search = (struct par_search){.p = p, .data = memory};
    evidence_each_word(memory, par_visit, &search);
}

/* -- the instance -------------------------------------------------------------------------------
 */

static bool find_in_module(struct ptmalloc *p, const struct heap_context *context,
                           enum found_by *found_by)
{
    struct evidence_data memory;
    if (evidence_read(&memory, context, p->module, false, NULL) != HI_OK)
        return false;
    bool found = true;
    if (main_by_symbol(p))
        *found_by = FOUND_SYMBOL;
    else if (main_by_relocation(p, context))
        *found_by = FOUND_RELOCATION;
    else if (main_by_pattern(p, &memory))
        *found_by = FOUND_PATTERN;
    else
        found = false;
    if (found)
        par_find(p, context, &memory);
    evidence_free(&memory);
    return found;
}

static enum hi_code ptmalloc_new(const struct heap_context *context, struct ptmalloc **made,
                                 struct hi_err *err)
{
    struct ptmalloc *p = calloc(1, sizeof *p);
    *made = NULL;
    if (!p)
        return hi_no_memory(err);
    p->target = context->target;
    p->symbols = context->symbols;
    p->progress = context->progress;
    p->jobs = context->jobs;
    p->guest = context->guest;
    p->page_bytes = target_page_bytes(context->target);
    if (p->page_bytes == 0)
        p->page_bytes = 4096;
    p->heap_max = PTMALLOC_HEAP_MAX_BYTES;
    enum hi_code code = evidence_cache_new(&p->cache, p->target, err);
    if (code != HI_OK) {
        free(p);
        return code;
    }
    *made = p;
    return HI_OK;
}

void ptmalloc_close(void *state)
{
    struct ptmalloc *p = state;
    if (!p)
        return;
    for (size_t i = 0; i < p->arenas.count; i++)
        VECTOR_FREE(&p->arenas.items[i].anchors);
    VECTOR_FREE(&p->arenas);
    VECTOR_FREE(&p->heaps);
    VECTOR_FREE(&p->claimed);
    VECTOR_FREE(&p->tcaches);
    VECTOR_FREE(&p->tcache_like);
    evidence_map_free(&p->links);
    evidence_cache_free(p->cache);
    free(p);
}

bool ptmalloc_is_active(const struct ptmalloc *p)
{
    uint64_t first_bin = 0, system_mem = 0, next = 0;
    if (!evidence_cache_u64(p->cache, p->main + p->state->bins, &first_bin) || first_bin == 0)
        return false;
    bool used = evidence_cache_u64(p->cache, p->main + p->state->system_mem, &system_mem) &&
                system_mem != 0;
    bool more = evidence_cache_u64(p->cache, p->main + p->state->next, &next) && next != p->main;
    return used || more || p->n_mmaps != 0;
}

enum hi_code ptmalloc_open_at(const struct heap_context *context, hi_addr main, hi_addr par,
                              struct ptmalloc **made, struct hi_err *err)
{
    enum hi_code code = ptmalloc_new(context, made, err);
    if (code != HI_OK)
        return code;
    if (!main_accept(*made, main)) {
        ptmalloc_close(*made);
        *made = NULL;
        return hi_fail(err, HI_NOT_FOUND, "no arena of glibc at 0x%llx", (unsigned long long)main);
    }
    if (par && !par_read(*made, par))
        (*made)->par = NULL;
    return HI_OK;
}

static bool is_candidate(const struct module *module)
{
    return module->is_libc || (module->kind == MODULE_EXECUTABLE && module->is_static);
}

/* "2.36" of "GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36." */
static bool version_find(const struct heap_context *context, size_t module, char *version,
                         size_t size)
{
    char text[160];
    if (!evidence_text(context, module, "GNU C Library (", text, sizeof text))
        return false;
    const char *number = strstr(text, " release version ");
    number = number ? number + strlen(" release version ") : "";
    size_t length = strspn(number, "0123456789.");
    while (length && number[length - 1] == '.')
        length--;
    snprintf(version, size, "%.*s", (int)length, number);
    return true;
}

static enum hi_code module_unknown(const struct heap_context *context, size_t module,
                                   struct probe *probe)
{
    if (!version_find(context, module, probe->version, sizeof probe->version))
        return HI_NOT_FOUND;
    snprintf(probe->unknown, sizeof probe->unknown,
             "glibc %s is in %.120s, and its main_arena was not recognised",
             probe->version[0] ? probe->version : "of unknown version",
             symbols_module(context->symbols, module)->path);
    return HI_UNSUPPORTED;
}

static enum hi_code probe_module(const struct heap_context *context, size_t module,
                                 struct probe *probe, struct hi_err *err)
{
    struct ptmalloc *p;
    enum hi_code code = ptmalloc_new(context, &p, err);
    if (code != HI_OK)
        return code;
    p->module = module;
    if (!find_in_module(p, context, &probe->found_by)) {
        ptmalloc_close(p);
        return module_unknown(context, module, probe);
    }
    if (!version_find(context, module, probe->version, sizeof probe->version))
        snprintf(probe->version, sizeof probe->version, "%s", p->state->versions);
    probe->active = ptmalloc_is_active(p);
    probe->state = p;
    return HI_OK;
}

enum hi_code ptmalloc_find(const struct heap_context *context, unsigned instance,
                           struct probe *probe, struct hi_err *err)
{
    unsigned seen = 0;
    for (size_t i = 0; i < symbols_module_count(context->symbols); i++) {
        if (!is_candidate(symbols_module(context->symbols, i)))
            continue;
        struct probe found = {0};
        enum hi_code code = probe_module(context, i, &found, err);
        if (code == HI_NOT_FOUND)
            continue;
        if (code != HI_OK && code != HI_UNSUPPORTED)
            return code;
        if (seen++ == instance) {
            *probe = found;
            return code;
        }
        ptmalloc_close(found.state);
    }
    return hi_fail(err, HI_NOT_FOUND, "no glibc malloc in this target");
}
