/*
 * stack_table: call stacks as numbers, and the modules that their frames lie in.
 *
 * Nodes. A stack is a path in a tree: each node is one frame and the index of its caller's node.
 * The same path always has the same nodes, so a stack is the index of its innermost node, and equal
 * stacks have equal indices. Nodes are appended and never change, but for `recent`, the child that
 * was asked for last: a guess that is right in most cases, and checked. All others are found by an
 * index of their own, open addressing over words {check:9 | node:23}. The index has levels, each
 * twice the last. When one is half full the next is opened, and whoever makes a node moves a
 * few words up, until all are there (moved = the lower level's size): from then on the lower level
 * is not asked any more, its memory goes back, and only then may another one be opened. Words are
 * copied, not taken away before; who enters a node looks afterwards whether a level was opened
 * meanwhile, and enters it there as well; so it does no harm to ask a level that is gone. Nobody
 * waits, no number is given twice, and a node costs 24 to 32 bytes of memory in all.
 *
 * Order of stores for a new node: room is committed, then counted, then parent, then frame, then
 * the index. A node whose frame is 0 is not written yet; no one has its number. A thread that loses
 * the race for the same frame leaves its node, complete and unused. In both cases 16 bytes are
 * lost, nothing else. Node 0 is the parent of outermost frames, and is never a stack; node 1 is
 * the stack of which nothing is known.
 *
 * Modules. A frame is an address, and another library may come to where one has gone. So a module
 * is entered in the table when its first unwind row is made, with its build-id, and its epoch: 0,
 * or one more than that of the last module that was in its place and is gone. Frames carry the
 * epoch of their module, so what is loaded all the time is not touched by the coming and going of
 * others, and the same library in the same place again is the same entry. Epochs end at 4095: this
 * one means "or later". Entries are made by whoever finds module_busy 0; others do not wait, they
 * only do not keep the row, so that the module is asked about again.
 *
 * Slots are memory for captures and threads: a lock-free list by index, with a tag in its head.
 *
 * Memory: one reserved mapping, made readable in steps as it is needed: a core dumper finds only
 * what was used. The inspector takes all of it for metadata.
 *
 *     | area, modules, rows, paths | index levels | nodes | slots |
 *
 * The first entries of all tables lie where they share pages: those of modules behind the area,
 * their marks, paths and the first levels of the index in it, the first nodes behind the third
 * level. So a dozen stacks with 60 frames of three modules cost two pages, beside those of
 * cfi_rows.c and of slots (call_stack.c).
 *
 * Damage: an index or node that the program wrote over can give a wrong stack, never an address to
 * follow: nodes hold indices, which are compared with the count.
 */
#include "stack_table.h"

#include "pages.h"

#include <elf.h>
#include <string.h>
#include <sys/syscall.h>

enum {
    NODE_CAPACITY = 1 << 23,
    NODE_CAPACITY_LEAST = 1 << 12,
    NODE_STEP = 1 << 15, /* committed at a time */
    FIRST_LEVEL_BITS = 6,
    LEVEL_CAPACITY = 19,
    LEVEL_FEW = 2,        /* in the area */
    INDEX_NODE_BITS = 23, /* of a word */
    PROBE_WORDS = 64,
    MOVE_WORDS = 16,
    SLOT_CAPACITY = 2048,
    MODULE_CAPACITY = 4096,
    PATH_BYTES = 512 << 10,
    SLOT_FEW = 16, /* what lies in the area's first page */
    MODULE_FEW = 16,
    PATH_FEW_BYTES = 384,
    EPOCH_LAST = (1 << HM_FRAME_EPOCH_BITS) - 1,
    BUILD_ID_MAX = 32,
};
#define EPOCH_LOADED UINT32_MAX
_Static_assert(NODE_CAPACITY <= 1 << INDEX_NODE_BITS, "a node fits into a word of the index");

/* At the start of the mapping. The modules' array begins on the same page. */
struct stack_area {
    struct hm_stack_table table;
    uint32_t *levels[LEVEL_CAPACITY];
    uint32_t level_count;                                                /* open */
    uint32_t level_claimed[LEVEL_CAPACITY], level_moved[LEVEL_CAPACITY]; /* of the one below */
    uint32_t node_committed;
    char *slots;
    uint64_t slot_head; /* tag:32 | index + 1 */
    uint32_t slot_count, slot_capacity;
    uint32_t module_busy, path_used, path_few_used;
    char *paths;
    uint32_t slot_few[SLOT_FEW];
    uint64_t mark_few[MODULE_FEW]; /* what a module looks like, for knowing it again */
    uint32_t first_levels[((1 << LEVEL_FEW) - 1) << FIRST_LEVEL_BITS];
    char path_few[PATH_FEW_BYTES];
    struct hm_module modules[MODULE_CAPACITY];
    uint32_t slot_rest[SLOT_CAPACITY - SLOT_FEW];
    uint64_t mark_rest[MODULE_CAPACITY - MODULE_FEW];
};
#ifndef HM_LAYOUT_VARIANT
_Static_assert(offsetof(struct stack_area, modules) + MODULE_FEW * sizeof(struct hm_module) <
                   PAGE_BYTES,
               "the modules of a small program on the first page");
#endif

struct stack_hot stack_hot;
static struct stack_area *area;

/* Of a table whose parts share pages. */
static bool area_commit(void *start, size_t bytes)
{
    uintptr_t from = (uintptr_t)start & ~(uintptr_t)(PAGE_BYTES - 1);
    return pages_commit((void *)from, round_up((uintptr_t)start + bytes, PAGE_BYTES) - from);
}

/* ---- nodes ---- */

static struct hm_stack_node *node_at(uint32_t index)
{
    return &stack_hot.nodes[index];
}

static uint32_t *level_words(uint32_t level)
{
    return __atomic_load_n(&area->levels[level], __ATOMIC_ACQUIRE);
}

static uint32_t level_bits(uint32_t level)
{
    return FIRST_LEVEL_BITS + level;
}

static size_t level_bytes(uint32_t level)
{
    return sizeof(uint32_t) << level_bits(level);
}

static uint64_t node_hash(uint32_t parent, uint64_t frame)
{
    uint64_t h = (frame ^ (uint64_t)parent << 20) * 0x9e3779b97f4a7c15ULL;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93ULL;
    return h ^ h >> 29;
}

static uint32_t word_of(uint64_t hash, uint32_t node)
{
    return (uint32_t)(hash >> 41) << INDEX_NODE_BITS | node;
}

static uint32_t word_node(uint32_t word)
{
    return word & ((1u << INDEX_NODE_BITS) - 1);
}

/* The word for a hash in a level: *found its node, or 0, and then *room where it may go, or NULL */
static uint32_t *level_probe(uint32_t level, uint64_t hash, uint32_t parent, uint64_t frame,
                             uint32_t *found)
{
    uint32_t *words = level_words(level);
    uint64_t mask = (1ULL << level_bits(level)) - 1;
    uint32_t count = __atomic_load_n(&area->table.node_count, __ATOMIC_RELAXED);
    *found = 0;
    for (uint64_t i = 0; words && i < PROBE_WORDS; i++) {
        uint32_t *word = &words[(hash + i) & mask];
        uint32_t value = __atomic_load_n(word, __ATOMIC_ACQUIRE);
        if (value == 0)
            return word;
        uint32_t index = word_node(value);
        if (value == word_of(hash, index) && index < count && node_at(index)->frame == frame &&
            node_at(index)->parent == parent) {
            *found = index;
            return word;
        }
    }
    return NULL;
}

/* Room for one more node: its index, or 0. */
static uint32_t node_claim(void)
{
    struct hm_stack_table *table = &area->table;
    uint32_t index = __atomic_load_n(&table->node_count, __ATOMIC_RELAXED);
    do {
        uint32_t committed = __atomic_load_n(&area->node_committed, __ATOMIC_ACQUIRE);
        if (index >= table->node_capacity)
            return 0;
        while (index >= committed) {
            uint32_t more = committed + NODE_STEP;
            more = more < table->node_capacity ? more : table->node_capacity;
            size_t bytes = (size_t)(more - committed) * sizeof(struct hm_stack_node);
            if (!area_commit(node_at(committed), bytes))
                return 0;
            if (__atomic_compare_exchange_n(&area->node_committed, &committed, more, false,
                                            __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
                committed = more;
        }
    } while (!__atomic_compare_exchange_n(&table->node_count, &index, index + 1, false,
                                          __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return index;
}

static uint32_t level_newest(void)
{
    return __atomic_load_n(&area->level_count, __ATOMIC_ACQUIRE) - 1;
}

/* Everything of the level below is in this one. */
static bool level_is_whole(uint32_t level)
{
    return level == 0 || __atomic_load_n(&area->level_moved[level], __ATOMIC_ACQUIRE) >=
                             1u << level_bits(level - 1);
}

/* Opens the next level when the last one is half full. Anybody may, several at once as well. */
static uint32_t level_current(void)
{
    uint32_t count = __atomic_load_n(&area->table.node_count, __ATOMIC_RELAXED);
    uint32_t level = level_newest(), next = level + 1;
    if (LIKELY(count <= 1u << (level_bits(level) - 1)) || next == LEVEL_CAPACITY ||
        !area->levels[next] || !level_is_whole(level))
        return level;
    if (!area_commit(area->levels[next], level_bytes(next)))
        return level;
    __atomic_compare_exchange_n(&area->level_count, &next, next + 1, false, __ATOMIC_ACQ_REL,
                                __ATOMIC_ACQUIRE);
    return level_newest();
}

/* Puts `index` into a level, at `word` or behind; or gives it up for one that is there by now. */
static uint32_t level_enter(uint32_t level, uint64_t hash, uint32_t *word, uint32_t index)
{
    const struct hm_stack_node *node = node_at(index);
    uint32_t value = word_of(hash, index);
    for (;;) {
        uint32_t none = 0, found;
        if (!word || __atomic_compare_exchange_n(word, &none, value, false, __ATOMIC_ACQ_REL,
                                                 __ATOMIC_RELAXED))
            return index;
        word = level_probe(level, hash, node->parent, node->frame, &found);
        if (found)
            return found;
    }
}

/* The pages that hold nothing else. */
static void level_discard(uint32_t level)
{
    uintptr_t start = (uintptr_t)level_words(level), end = start + level_bytes(level);
    start = round_up(start, PAGE_BYTES);
    end &= ~(uintptr_t)(PAGE_BYTES - 1);
    if (start < end)
        pages_discard((void *)start, end - start);
}

/* Moves a few words up from the level below. */
static void level_fill(uint32_t level)
{
    uint32_t size = 1u << level_bits(level - 1);
    uint32_t start = __atomic_fetch_add(&area->level_claimed[level], MOVE_WORDS, __ATOMIC_RELAXED);
    if (start >= size)
        return;
    for (uint32_t i = start; i < start + MOVE_WORDS; i++) {
        uint32_t found,
            index = word_node(__atomic_load_n(&level_words(level - 1)[i], __ATOMIC_ACQUIRE));
        if (index == 0)
            continue;
        const struct hm_stack_node *node = node_at(index);
        uint64_t hash = node_hash(node->parent, node->frame);
        uint32_t *word = level_probe(level, hash, node->parent, node->frame, &found);
        if (!found)
            level_enter(level, hash, word, index);
    }
    uint32_t before = __atomic_fetch_add(&area->level_moved[level], MOVE_WORDS, __ATOMIC_ACQ_REL);
    if (before + MOVE_WORDS == size)
        level_discard(level - 1);
}

static uint32_t node_append(uint32_t parent, uint64_t frame)
{
    uint32_t index = node_claim();
    if (index) {
        struct hm_stack_node *node = node_at(index);
        node->parent = parent;
        __atomic_store_n(&node->frame, frame, __ATOMIC_RELEASE);
    }
    return index;
}

/* A frame that the newest level does not have: in the one below, or new. 0: no room. */
static uint32_t node_enter(uint32_t level, uint64_t hash, uint32_t *word, uint32_t parent,
                           uint64_t frame)
{
    uint32_t index = 0;
    if (!level_is_whole(level)) {
        level_fill(level);
        level_probe(level - 1, hash, parent, frame, &index);
    }
    if (!index)
        index = node_append(parent, frame);
    if (!index)
        return 0;
    index = level_enter(level, hash, word, index);
    for (uint32_t newest; (newest = level_newest()) != level;) {
        level = newest;
        uint32_t found;
        word = level_probe(level, hash, parent, frame, &found);
        if (!found && !level_is_whole(level)) /* the one that it was not found in may be older */
            level_probe(level - 1, hash, parent, frame, &found);
        index = found ? found : level_enter(level, hash, word, index);
    }
    return index;
}

NOINLINE uint32_t stack_table_child_slow(uint32_t parent, uint64_t frame)
{
    uint64_t hash = node_hash(parent, frame);
    uint32_t level = level_current(), found;
    uint32_t *word = level_probe(level, hash, parent, frame, &found);
    if (!found)
        found = node_enter(level, hash, word, parent, frame);
    if (!found) {
        __atomic_fetch_add(&area->table.lost, 1, __ATOMIC_RELAXED);
        return parent ? parent : STACK_NODE_NONE;
    }
    __atomic_store_n(&node_at(parent)->recent, found, __ATOMIC_RELAXED);
    return found;
}

/* ---- slots ---- */

static void *slot_at(uint32_t index)
{
    return area->slots + (size_t)index * STACK_SLOT_BYTES;
}

static uint32_t *slot_next(uint32_t index)
{
    return index < SLOT_FEW ? &area->slot_few[index] : &area->slot_rest[index - SLOT_FEW];
}

/* One that nobody had before; committed for good. */
static void *slot_make(void)
{
    uint32_t index = __atomic_load_n(&area->slot_count, __ATOMIC_RELAXED);
    do {
        if (index >= area->slot_capacity)
            return NULL;
    } while (!__atomic_compare_exchange_n(&area->slot_count, &index, index + 1, false,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return pages_commit(slot_at(index), STACK_SLOT_BYTES) ? slot_at(index) : NULL;
}

void *stack_slot_take(void)
{
    uint64_t head = __atomic_load_n(&area->slot_head, __ATOMIC_ACQUIRE), next;
    do {
        uint32_t index = (uint32_t)head;
        if (index == 0)
            return slot_make();
        next = ((head >> 32) + 1) << 32 | __atomic_load_n(slot_next(index - 1), __ATOMIC_RELAXED);
    } while (!__atomic_compare_exchange_n(&area->slot_head, &head, next, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    return slot_at((uint32_t)head - 1);
}

void stack_slot_give(void *slot, bool discard)
{
    uint32_t index = (uint32_t)((size_t)((char *)slot - area->slots) / STACK_SLOT_BYTES);
    uint64_t head = __atomic_load_n(&area->slot_head, __ATOMIC_ACQUIRE), next;
    if (discard)
        pages_discard(slot, STACK_SLOT_BYTES);
    do {
        __atomic_store_n(slot_next(index), (uint32_t)head, __ATOMIC_RELAXED);
        next = ((head >> 32) + 1) << 32 | (index + 1);
    } while (!__atomic_compare_exchange_n(&area->slot_head, &head, next, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
}

/* ---- modules ---- */

/* The build-id among the notes of a module whose ELF header is in memory at its start. */
static uint32_t module_build_id(const struct loaded_module *module, const uint8_t **id)
{
    size_t bytes = module->end - module->start;
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)module->start;
    if (bytes < PAGE_BYTES || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
        header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phoff > PAGE_BYTES ||
        header->e_phoff + header->e_phnum * sizeof(Elf64_Phdr) > PAGE_BYTES)
        return 0;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(module->start + header->e_phoff);
    for (uint32_t i = 0; i < header->e_phnum; i++) {
        uintptr_t at = module->bias + segments[i].p_vaddr;
        if (segments[i].p_type != PT_NOTE || at < module->start || at % 4 != 0 ||
            segments[i].p_memsz > PAGE_BYTES || at + segments[i].p_memsz > module->end)
            continue;
        for (uintptr_t end = at + segments[i].p_memsz; end - at >= sizeof(Elf64_Nhdr);) {
            const Elf64_Nhdr *note = (const Elf64_Nhdr *)at;
            size_t name = round_up(note->n_namesz, 4), text = round_up(note->n_descsz, 4);
            if (name > end - at || text > end - at || sizeof *note + name + text > end - at)
                break;
            *id = (const uint8_t *)at + sizeof *note + name;
            if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 &&
                memcmp(note + 1, "GNU", 4) == 0)
                return note->n_descsz < BUILD_ID_MAX ? note->n_descsz : BUILD_ID_MAX;
            at += sizeof *note + name + text;
        }
    }
    return 0;
}

static uint64_t mark_add(uint64_t mark, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mark = (mark ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3ULL;
    return mark;
}

/* Other contents, other mark: by build-id, where there is one, and the head of its unwind table. */
static uint64_t module_mark(const struct loaded_module *module)
{
    const uint8_t *id = NULL;
    uint64_t mark = mark_add(0xcbf29ce484222325ULL, &module->bias, sizeof module->bias);
    uint32_t id_bytes = module_build_id(module, &id);
    if (id)
        mark = mark_add(mark, id, id_bytes);
    if (module->eh_frame_hdr)
        mark = mark_add(mark, (const void *)module->eh_frame_hdr, 12);
    return mark;
}

static uint64_t *module_mark_at(uint32_t index)
{
    return index < MODULE_FEW ? &area->mark_few[index] : &area->mark_rest[index - MODULE_FEW];
}

/* How long it is; 0, if it cannot be there as a whole. No name: that of the executable. */
static uint32_t path_write(const char *name, char *place, size_t room)
{
    size_t length = 0;
    if (name && name[0]) {
        while (name[length])
            length++;
        if (length >= room)
            return 0;
        memcpy(place, name, length);
        return (uint32_t)length;
    }
    long got =
        pages_syscall(SYS_readlink, (long)"/proc/self/exe", (long)place, (long)room, 0, 0, 0);
    return got < 0 || (size_t)got >= room ? 0 : (uint32_t)got;
}

static const char *path_keep(const char *name, uint32_t *bytes)
{
    char *place = area->path_few + area->path_few_used;
    *bytes = path_write(name, place, PATH_FEW_BYTES - area->path_few_used);
    area->path_few_used += *bytes;
    if (*bytes)
        return place;
    place = area->paths + area->path_used;
    *bytes = path_write(name, place, PATH_BYTES - area->path_used);
    area->path_used += *bytes;
    return place;
}

static void module_fill(struct hm_module *entry, const struct loaded_module *module, uint32_t epoch)
{
    const uint8_t *id = NULL;
    uint32_t path_bytes;
    *entry = (struct hm_module){
        .start = module->start,
        .bias = module->bias,
        .build_id_bytes = module_build_id(module, &id),
        .first_epoch = epoch,
        .last_epoch = EPOCH_LOADED,
    };
    if (id)
        memcpy(entry->build_id, id, entry->build_id_bytes);
    entry->path = (uintptr_t)path_keep(module->name, &path_bytes);
    entry->path_bytes = path_bytes;
    entry->end = module->end;
}

/* It is back, or there is more of it than was known. */
static void module_again(struct hm_module *entry, const struct loaded_module *module)
{
    entry->start = min_u64(entry->start, module->start);
    entry->end = entry->end > module->end ? entry->end : module->end;
    entry->last_epoch = EPOCH_LOADED;
}

static void module_gone(struct hm_module *entry)
{
    __atomic_store_n(&entry->last_epoch, entry->first_epoch, __ATOMIC_RELAXED);
}

/*
 * The entry that is this very module, or -1; *epoch is the one it has or would have. With
 * `end_them` all others that lie where it lies are ended: *unloaded says whether there was one.
 */
static int64_t module_find(const struct loaded_module *module, uint64_t mark, bool end_them,
                           uint32_t *epoch, bool *unloaded)
{
    uint32_t count = __atomic_load_n(&area->table.module_count, __ATOMIC_ACQUIRE);
    int64_t last = -1;
    *epoch = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct hm_module *entry = &area->modules[i];
        if (entry->start >= module->end || entry->end <= module->start)
            continue;
        if (last < 0 || entry->first_epoch >= *epoch) {
            last = i;
            *epoch = entry->first_epoch;
        }
    }
    bool same = last >= 0 && *module_mark_at((uint32_t)last) == mark;
    if (last >= 0 && !same && *epoch < EPOCH_LAST)
        ++*epoch;
    for (uint32_t i = 0; end_them && i < count; i++) {
        struct hm_module *entry = &area->modules[i];
        if (entry->start < module->end && entry->end > module->start && !(same && i == last) &&
            entry->last_epoch == EPOCH_LOADED) {
            module_gone(entry);
            *unloaded = true;
        }
    }
    return same ? last : -1;
}

static bool module_is_known(const struct hm_module *entry, const struct loaded_module *module)
{
    return entry->last_epoch == EPOCH_LOADED && entry->start <= module->start &&
           entry->end >= module->end;
}

bool stack_table_module(const struct loaded_module *module, uint32_t *epoch, bool *unloaded)
{
    uint64_t mark = module_mark(module);
    *unloaded = false;
    int64_t found = module_find(module, mark, false, epoch, unloaded);
    if (found >= 0 && module_is_known(&area->modules[found], module))
        return true;
    if (__atomic_exchange_n(&area->module_busy, 1, __ATOMIC_ACQUIRE))
        return false;
    found = module_find(module, mark, true, epoch, unloaded);
    struct hm_stack_table *table = &area->table;
    if (found >= 0) {
        module_again(&area->modules[found], module);
    } else if (table->module_count < MODULE_CAPACITY) {
        *module_mark_at(table->module_count) = mark;
        module_fill(&area->modules[table->module_count], module, *epoch);
        __atomic_store_n(&table->module_count, table->module_count + 1, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&area->module_busy, 0, __ATOMIC_RELEASE);
    return true;
}

uint32_t stack_table_epoch(uintptr_t address)
{
    uint32_t count = __atomic_load_n(&area->table.module_count, __ATOMIC_ACQUIRE), epoch = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct hm_module *entry = &area->modules[i];
        if (address - entry->start < entry->end - entry->start && entry->first_epoch > epoch)
            epoch = entry->first_epoch;
    }
    return epoch;
}

bool stack_table_sweep(bool (*find)(uintptr_t address, struct loaded_module *module))
{
    uint32_t count = __atomic_load_n(&area->table.module_count, __ATOMIC_ACQUIRE);
    bool gone = false;
    for (uint32_t i = 0; i < count; i++) {
        struct hm_module *entry = &area->modules[i];
        struct loaded_module now;
        if (entry->last_epoch == EPOCH_LOADED &&
            !(find(entry->start, &now) && module_mark(&now) == *module_mark_at(i))) {
            module_gone(entry);
            gone = true;
        }
    }
    return gone;
}

void stack_table_forked(void)
{
    if (!area)
        return;
    area->module_busy = 0; /* if another thread was in there, it is not here */
    uint32_t level = level_newest();
    if (!level_is_whole(level)) /* somebody may have taken words along: all over again */
        area->level_claimed[level] = area->level_moved[level] = 0;
}

/* ---- start ---- */

struct table_plan {
    size_t rows, paths, committed, levels[LEVEL_CAPACITY], nodes, slots, end;
    uint32_t node_capacity, slot_capacity;
};

static struct table_plan table_plan(uint32_t node_capacity, uint32_t slot_capacity)
{
    struct table_plan plan = {.node_capacity = node_capacity, .slot_capacity = slot_capacity};
    plan.rows = round_up(sizeof(struct stack_area), PAGE_BYTES);
    plan.paths = plan.rows + STACK_ROW_LINES * 64;
    size_t end = plan.paths + PATH_BYTES;
    plan.committed = end;
    for (uint32_t i = LEVEL_CAPACITY; --i >= LEVEL_FEW;) { /* the least next to the nodes */
        if (1u << level_bits(i) > node_capacity * 2)
            continue;
        plan.levels[i] = end;
        end += level_bytes(i);
    }
    plan.nodes = end;
    plan.slots = round_up(plan.nodes + node_capacity * sizeof(struct hm_stack_node), PAGE_BYTES);
    plan.end = plan.slots + (size_t)slot_capacity * STACK_SLOT_BYTES;
    return plan;
}

/* As much address space as there is: all of it, or what a limit leaves. */
static char *table_reserve(struct table_plan *plan)
{
    size_t limit = pages_address_limit();
    uint32_t slots = SLOT_CAPACITY;
    for (uint32_t nodes = NODE_CAPACITY; nodes >= NODE_CAPACITY_LEAST; nodes /= 4) {
        *plan = table_plan(nodes, slots);
        char *mapping = limit / 16 < plan->end ? NULL : pages_reserve(plan->end);
        if (mapping)
            return mapping;
        slots = slots > 32 ? slots / 4 : slots;
    }
    return NULL;
}

bool stack_table_make(uint32_t mode, uint64_t sample_bytes)
{
    struct table_plan plan;
    char *start = table_reserve(&plan);
    if (!start)
        return false;
    if (!pages_commit(start, plan.committed)) {
        pages_unmap(start, plan.end);
        return false;
    }
    area = (struct stack_area *)start;
    area->levels[0] = area->first_levels;
    area->levels[1] = area->first_levels + (1 << FIRST_LEVEL_BITS);
    for (uint32_t i = LEVEL_FEW; i < LEVEL_CAPACITY; i++)
        area->levels[i] = plan.levels[i] ? (uint32_t *)(start + plan.levels[i]) : NULL;
    area->level_count = 1;
    area->paths = start + plan.paths;
    area->slots = start + plan.slots;
    area->slot_capacity = plan.slot_capacity;
    area->table = (struct hm_stack_table){
        .mode = mode,
        .sample_bytes = sample_bytes,
        .nodes = (uintptr_t)start + plan.nodes,
        .node_capacity = plan.node_capacity,
        .modules = (uintptr_t)area->modules,
        .module_capacity = MODULE_CAPACITY,
        .mapping_start = (uintptr_t)start,
        .mapping_bytes = plan.end,
    };
    stack_hot.nodes = (struct hm_stack_node *)(start + plan.nodes);
    stack_hot.rows = (uint64_t *)(start + plan.rows);
    node_claim(); /* 0 */
    if (node_append(0, STACK_FLAG(HM_FRAME_CUT)) != STACK_NODE_NONE) {
        pages_unmap(start, plan.end);
        return false;
    }
    __atomic_store_n(&stack_hot.table, &area->table, __ATOMIC_RELEASE);
    return true;
}
