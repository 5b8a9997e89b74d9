/*
 * struct pthread: glibc's record of each thread, found without libthread_db.
 *
 * What is stable: fs_base points to it; its words 0 and 2 point to itself; word 1 is the dtv. It
 * lies at the top of the thread's stack, above the static TLS. Offsets of list node and tid come
 * from the _thread_db_* descriptors that libc exports for debuggers (struct: bits, count, offset),
 * else what they have been on x86-64 since 2.12.
 *
 * Records come from three places, each checked by the two self pointers:
 *   - fs_base of every thread
 *   - the top of anonymous mappings
 *   - the lists of stacks (in use, provided by the program, cached), whose heads lie in the dynamic
 *     linker's data side by side: followed from what was found so far
 * State: a thread of the target has this fs_base: live. tid > 0 and no such thread: unknown
 * (registers not in the dump), treated as live. tid < 0: joined, the stack is cached. tid 0: ended;
 * detached when joinid is the record itself (a third word equal to its address), else nobody has
 * joined it: its result is still wanted.
 *
 * dtv (Dynamic Thread Vector): word 1 of the record points 16 bytes into an array of pairs; pair -1
 * has the count, pair 0 the generation, pair i the TLS block of module i (-1: not yet allocated)
 * and what to free. Blocks below the record are static TLS. Cached stacks keep their dtv for the
 * next thread, so theirs is kept, too.
 */
#include "symbols/roots_collect.h"

enum {
    PTHREAD_DEFAULT_BYTES = 0x940,
    PTHREAD_DEFAULT_LIST = 0x2c0,
    PTHREAD_DEFAULT_TID = 0x2d0,
    PTHREAD_MAX_BYTES = 0x2000,
    PTHREAD_MAX_COUNT = 1 << 17,
    LIST_MAX_WALKS = 16,
    LIST_MAX_STEPS = 1 << 18, /* over all lists: a loop costs a second, not more */
    DTV_MAX_ENTRIES = 1 << 14,
    ENDED_BITS = 0x30, /* in cancelhandling: exiting, terminated */
    SCAN_TOP_BYTES = 0x2000,
};

#define STATIC_TLS_MAX_BYTES (64ull << 20)

static bool read_u64(struct collector *c, hi_addr address, uint64_t *value)
{
    return target_read_u64(c->target, address, value, NULL) == HI_OK;
}

/* -- layout ------------------------------------------------------------------------------------*/

static bool descriptor(struct collector *c, size_t module, const char *name, uint64_t *offset)
{
    struct symbol symbol;
    uint32_t fields[3]; /* bits, count, offset */
    if (symbols_find(c->symbols, module, name, &symbol, NULL) != HI_OK ||
        target_read(c->target, symbol.address, fields, sizeof fields, NULL) != HI_OK ||
        fields[2] >= PTHREAD_MAX_BYTES)
        return false;
    *offset = fields[2];
    return true;
}

static bool is_named(const struct module *module, const char *part)
{
    const char *slash = strrchr(module->path, '/');
    return strstr(slash ? slash : module->path, part) != NULL;
}

static void layout_from(struct collector *c, size_t module)
{
    struct pthread_layout *layout = &c->layout;
    struct symbol symbol;
    uint32_t size;
    if (symbols_find(c->symbols, module, "_thread_db_sizeof_pthread", &symbol, NULL) != HI_OK ||
        target_read(c->target, symbol.address, &size, sizeof size, NULL) != HI_OK || size < 0x400 ||
        size > PTHREAD_MAX_BYTES)
        return;
    layout->size = size;
    (void)descriptor(c, module, "_thread_db_pthread_list", &layout->list);
    (void)descriptor(c, module, "_thread_db_pthread_tid", &layout->tid);
    (void)descriptor(c, module, "_thread_db_pthread_cancelhandling", &layout->cancel);
    (void)descriptor(c, module, "_thread_db_pthread_start_routine", &layout->start_routine);
}

static void find_layout(struct collector *c)
{
    struct pthread_layout *layout = &c->layout;
    bool musl = false;
    layout->list = PTHREAD_DEFAULT_LIST;
    layout->tid = PTHREAD_DEFAULT_TID;
    for (size_t i = 0; i < symbols_module_count(c->symbols); i++) {
        const struct module *module = symbols_module(c->symbols, i);
        musl |= is_named(module, "musl");
        if (!layout->size &&
            (module->is_libc || is_named(module, "libpthread") || module->is_static))
            layout_from(c, i);
    }
    if (!layout->size)
        layout->size = PTHREAD_DEFAULT_BYTES;
    layout->is_glibc = !musl;
}

/* -- finding records ---------------------------------------------------------------------------*/

static bool points_to_itself(struct collector *c, hi_addr address)
{
    uint64_t words[3];
    return address && address % 16 == 0 &&
           target_read(c->target, address, words, sizeof words, NULL) == HI_OK &&
           words[0] == address && words[2] == address;
}

const struct pthread *pthread_at(const struct collector *c, hi_addr address)
{
    size_t low = 0, high = c->pthreads.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct pthread *record = &c->pthreads.items[middle];
        if (record->address == address)
            return record;
        if (record->address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static int compare_pthread(const void *a, const void *b)
{
    const struct pthread *left = a, *right = b;
    if (left->address != right->address)
        return left->address < right->address ? -1 : 1;
    return (right->thread != NULL) - (left->thread != NULL); /* the one with a thread first */
}

static void add_pthread(struct collector *c, hi_addr address, const struct thread *thread,
                        bool on_list)
{
    if (c->pthreads.count >= PTHREAD_MAX_COUNT)
        return;
    struct pthread *record = VECTOR_PUSH(&c->pthreads);
    c->failed |= !record;
    if (record)
        *record = (struct pthread){.address = address, .thread = thread, .was_followed = on_list};
}

static void drop_doubles(struct collector *c)
{
    size_t kept = 0;
    struct pthread *items = c->pthreads.items;
    if (c->pthreads.count)
        qsort(items, c->pthreads.count, sizeof *items, compare_pthread);
    for (size_t i = 0; i < c->pthreads.count; i++)
        if (kept == 0 || items[kept - 1].address != items[i].address)
            items[kept++] = items[i];
        else
            items[kept - 1].was_followed |= items[i].was_followed;
    c->pthreads.count = kept;
}

static void add_live(struct collector *c)
{
    for (size_t i = 0; i < target_thread_count(c->target); i++) {
        const struct thread *thread = target_thread(c->target, i);
        if (thread->has_registers && points_to_itself(c, thread->fs_base))
            add_pthread(c, thread->fs_base, thread, false);
    }
}

struct list_node {
    uint64_t next, previous;
};

/* A node whose neighbours agree; of an empty list, too. */
static bool read_node(struct collector *c, hi_addr at, struct list_node *node)
{
    uint64_t back, forth;
    return at % 8 == 0 && target_read(c->target, at, node, sizeof *node, NULL) == HI_OK &&
           read_u64(c, node->next + 8, &back) && back == at &&
           read_u64(c, node->previous, &forth) && forth == at;
}

/* Adds every record of the list through at, and gives its head: the node that is no record. */
static hi_addr add_list(struct collector *c, hi_addr at)
{
    struct list_node node;
    hi_addr head = 0, place = at;
    for (; c->list_steps < LIST_MAX_STEPS && read_node(c, place, &node); c->list_steps++) {
        if (points_to_itself(c, place - c->layout.list))
            add_pthread(c, place - c->layout.list, NULL, true);
        else
            head = place;
        place = node.next;
        if (place == at)
            return head;
    }
    return head;
}

/* The heads of the three lists lie side by side in the data of libc or the dynamic linker. */
static void add_neighbours(struct collector *c, hi_addr head)
{
    for (int step = -4; step <= 4; step++) {
        hi_addr other = head + (hi_addr)(step * 16);
        struct list_node node;
        if (step && symbols_module_at(c->symbols, other) && read_node(c, other, &node) &&
            node.next != other && points_to_itself(c, node.next - c->layout.list))
            (void)add_list(c, other);
    }
}

static struct pthread *first_off_list(struct collector *c)
{
    for (size_t i = 0; i < c->pthreads.count; i++)
        if (!c->pthreads.items[i].was_followed)
            return &c->pthreads.items[i];
    return NULL;
}

/* The main thread is on the list of provided stacks, others on that of stacks in use: a few walks
 * lead to all. Records that are on no list (damaged, just being made) end it soon. */
static void add_by_lists(struct collector *c)
{
    struct pthread *record;
    for (int walks = 0; walks < LIST_MAX_WALKS && (record = first_off_list(c)); walks++) {
        record->was_followed = true;
        hi_addr head = add_list(c, record->address + c->layout.list);
        if (head && symbols_module_at(c->symbols, head))
            add_neighbours(c, head);
        drop_doubles(c);
    }
}

static void add_by_mappings(struct collector *c)
{
    uint64_t words[SCAN_TOP_BYTES / 8];
    for (size_t i = 0; i < target_mapping_count(c->target); i++) {
        const struct mapping *mapping = target_mapping(c->target, i);
        if (mapping->path || mapping->shared || !(mapping->protection & MAPPING_WRITE) ||
            mapping->end - mapping->start < 2 * SCAN_TOP_BYTES)
            continue;
        hi_addr start = mapping->end - SCAN_TOP_BYTES;
        size_t count = target_read_some(c->target, start, words, sizeof words) / 8;
        for (size_t k = 0; k + 2 < count; k += 2)
            if (words[k] == start + k * 8 && words[k + 2] == words[k])
                add_pthread(c, words[k], NULL, false);
    }
}

/* -- what a record says ------------------------------------------------------------------------*/

/* stackblock and stackblock_size: neighbours somewhere in the record, a range that has the record
 * near its top. */
static struct hi_range find_stack(const struct collector *c, const struct pthread *record,
                                  const uint64_t *words, size_t count)
{
    const uint64_t record_end = record->address + c->layout.size;
    for (size_t i = 0x400 / 8; i + 2 < count; i++) {
        uint64_t start = words[i], bytes = words[i + 1], guard = words[i + 2];
        if (start < 4096 || start >= record->address || bytes < 4096 || bytes > 1ull << 40 ||
            guard >= bytes)
            continue;
        uint64_t end = start + bytes;
        if (end >= record->address + 0x400 && end < record_end + STATIC_TLS_MAX_BYTES)
            return (struct hi_range){start, end};
    }
    return (struct hi_range){0, 0};
}

static enum pthread_state state_of(const struct collector *c, const struct pthread *record,
                                   const uint64_t *words, size_t count)
{
    if (record->thread)
        return PTHREAD_LIVE;
    if (record->tid > 0)
        return PTHREAD_UNKNOWN;
    if (record->tid < 0)
        return PTHREAD_DEAD;
    for (size_t i = c->layout.tid / 8; i < count; i++)
        if (words[i] == record->address)
            return PTHREAD_DEAD; /* joinid: detached */
    return PTHREAD_UNJOINED;
}

/* The result stands two words before start_routine (result; scheduling). A thread that has not
 * even begun looks like one that has ended, but for the bits: then the whole record holds. */
static void keep_result(struct collector *c, const struct pthread *record)
{
    const struct pthread_layout *layout = &c->layout;
    uint32_t cancel = 0;
    uint64_t result;
    bool ended = layout->cancel && layout->start_routine > 16 &&
                 target_read(c->target, record->address + layout->cancel, &cancel, sizeof cancel,
                             NULL) == HI_OK &&
                 cancel & ENDED_BITS;
    if (ended && read_u64(c, record->address + layout->start_routine - 16, &result))
        collect_word(c, ROOT_KEPT, result, record->tid, "thread result");
    else
        collect_range(c, ROOT_TLS, record->address, record->address + layout->size, 0, NULL);
}

static bool is_static_tls(const struct collector *c, const struct pthread *record, hi_addr block)
{
    return block < record->address && record->address - block <= c->static_tls_bytes + 0x1000;
}

static void read_dtv(struct collector *c, struct pthread *record)
{
    uint64_t dtv, count, pairs[64][2];
    pid_t tid = record->thread ? record->thread->tid : record->tid > 0 ? record->tid : 0;
    record->tls_start = record->address;
    if (!read_u64(c, record->address + 8, &dtv) || dtv % 8)
        return;
    collect_word(c, ROOT_KEPT, dtv, tid, "dtv");
    if (!read_u64(c, dtv - 16, &count) || count > DTV_MAX_ENTRIES)
        return;
    for (uint64_t i = 1; i <= count; i++) {
        size_t k = (i - 1) % 64;
        if (k == 0) {
            size_t wanted = (count - i + 1 < 64 ? count - i + 1 : 64) * sizeof pairs[0];
            if (target_read_some(c->target, dtv + i * 16, pairs, wanted) < wanted)
                return;
        }
        if (pairs[k][0] == 0 || pairs[k][0] == UINT64_MAX)
            continue;
        if (!is_static_tls(c, record, pairs[k][0])) {
            collect_word(c, ROOT_KEPT, pairs[k][0], tid, "thread-local block");
            collect_word(c, ROOT_KEPT, pairs[k][1], tid, "thread-local block");
        } else if (pairs[k][0] < record->tls_start) {
            record->tls_start = pairs[k][0];
        }
    }
}

static void read_record(struct collector *c, struct pthread *record)
{
    uint64_t words[PTHREAD_MAX_BYTES / 8];
    size_t count = target_read_some(c->target, record->address, words, c->layout.size) / 8;
    if (c->layout.tid / 8 < count)
        memcpy(&record->tid, (char *)words + c->layout.tid, sizeof record->tid);
    record->stack = find_stack(c, record, words, count);
    record->state = state_of(c, record, words, count);
    read_dtv(c, record);
    if (record->state == PTHREAD_UNJOINED)
        keep_result(c, record);
}

void collect_pthreads(struct collector *c)
{
    find_layout(c);
    if (!c->layout.is_glibc)
        return;
    add_live(c);
    add_by_mappings(c);
    drop_doubles(c);
    add_by_lists(c);
    for (size_t i = 0; i < c->pthreads.count; i++)
        read_record(c, &c->pthreads.items[i]);
}
