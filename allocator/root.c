/*
 * root: how a heap begins and how it describes itself.
 *
 * One reservation of address space holds everything of range 0:
 *
 *     | long bitmaps | short ones | unit records | root, first arena and thread | codes | ages
 *     | tables | units ... |
 *
 * The first arena and thread are followed by the bitmaps of the first 64 units, long and short.
 * All from the root to the first 4 MiB of units is readable and writable from the start (16 MiB of
 * address space of which a small program touches half a dozen pages); records, bitmaps and
 * further units become so in steps, so that a core dumper never walks through what was never used.
 * Each start of a program pays for every system call, every page touched first and every page of
 * the kernel's page tables: so what it needs lies together (the figures are in docs/design.md).
 *
 * Where address space is limited (RLIMIT_AS) the first range is about a sixteenth of the limit, and
 * further ranges, each twice as long as the one before, follow as they are needed.
 */
#include "state.h"

#include "arena.h"
#include "lock.h"
#include "note.h"
#include "options.h"
#include "pages.h"
#include "size_class.h"
#include "thread_cache.h"

#include <string.h>

enum {
    DESCRIBE_STEP = 1024,
    BASE_ALIGN = 4 << 20,
    SMALL_BASE_ALIGN = 4 * UNIT_BYTES,
    FRONT_ALIGN = 2 << 20, /* what one page of the kernel's page tables describes */
};

/* What a program touches that does little: the first entries of all tables are on two pages. */
struct root_head {
    struct hm_preamble preamble;
    struct hm_root root;
    struct hm_range ranges[HM_RANGE_CAPACITY];
    uint64_t threads[HM_THREAD_CAPACITY];
    char to_page[PAGE_BYTES - (sizeof(struct hm_preamble) + sizeof(struct hm_root) +
                               sizeof(struct hm_range) * HM_RANGE_CAPACITY) %
                                  PAGE_BYTES];
    uint64_t arenas[HM_ARENA_CAPACITY]; /* and behind it the first arena */
};
#ifndef HM_LAYOUT_VARIANT
_Static_assert(offsetof(struct root_head, threads) < PAGE_BYTES, "a thread on the first page");
#endif
_Static_assert(HM_THREAD_CAPACITY * sizeof(uint64_t) % PAGE_BYTES == 0, "to_page");

struct root_tail {
    struct hm_big bigs[HM_BIG_CAPACITY];
    uint32_t spare_threads[HM_THREAD_CAPACITY];
};

/* The part of a range in front of its units that is not about them: the first range has it. */
struct root_front {
    size_t head_bytes, tail_bytes;
    char *head, *tail;
};

struct hm_hot hm_hot;
uintptr_t root_first_bitmaps;
static uint32_t start_lock;

/* ---- self-description ---- */

/* The anchor: the note below leads here, from it to the preamble. */
uint64_t hm_root_anchor __attribute__((used));

/* In the first page of the module, so in every core; "distance" is fixed when the module is linked.
 */
__asm__(".pushsection .note.himalloc, \"a\", %note\n"
        ".balign 4\n"
        ".long 9\n"
        ".long 8\n"
        ".long 1\n"
        ".asciz \"himalloc\"\n"
        ".balign 4\n"
        "1: .quad hm_root_anchor - 1b\n"
        ".popsection\n");

#define SCHEMA_FIELD(S, k, t, n) SCHEMA_ARRAY(S, k, t, n, 1)
#define SCHEMA_ARRAY(S, k, t, n, elements)                                                         \
    {.structure = #S,                                                                              \
     .field = #n,                                                                                  \
     .type = #t,                                                                                   \
     .offset = offsetof(struct hm_##S, n),                                                         \
     .size = sizeof(t),                                                                            \
     .count = elements,                                                                            \
     .kind = HM_##k},
#define COUNT_FIELD(S, k, t, n)           +1
#define COUNT_ARRAY(S, k, t, n, elements) +1
#define SCHEMA_STRUCTURE(name, FIELDS)                                                             \
    {.structure = #name,                                                                           \
     .size = sizeof(struct hm_##name),                                                             \
     .count = 0 FIELDS(COUNT_FIELD, COUNT_ARRAY, name),                                            \
     .kind = HM_STRUCTURE},                                                                        \
        FIELDS(SCHEMA_FIELD, SCHEMA_ARRAY, name)
#define COUNT_STRUCTURE(name, FIELDS) +1

/* Not const: its mapping is written to, so a core holds all of it; .rodata would not be there. The
 * section: see sections.ld. */
static struct hm_schema_record schema[]
    __attribute__((section("himalloc_schema"))) = {HM_STRUCTURES(SCHEMA_STRUCTURE)};
enum { STRUCTURE_COUNT = 0 HM_STRUCTURES(COUNT_STRUCTURE) };

extern char text_start[] __asm__("__start_himalloc_text")
    __attribute__((weak, visibility("hidden")));
extern char text_end[] __asm__("__stop_himalloc_text") __attribute__((weak, visibility("hidden")));

static void root_describe(struct root_head *head, struct root_tail *tail)
{
    struct hm_root *root = &head->root;
    *root = (struct hm_root){
        .version = "0.1.0",
        .unit_shift = UNIT_SHIFT,
        .class_count = HM_CLASS_SLOTS,
        .code_free = CODE_FREE,
        .code_slab_first = CODE_SLAB,
        .code_slab_last = CODE_SLAB + CLASS_COUNT - 1,
        .code_named_first = CODE_NAMED,
        .code_named_last = CODE_NAMED + CLASS_COUNT - 1,
        .code_large_head = CODE_LARGE_HEAD,
        .code_large_rest = CODE_LARGE_REST,
        .code_purging = CODE_PURGING,
        .range_capacity = HM_RANGE_CAPACITY,
        .arena_capacity = HM_ARENA_CAPACITY,
        .thread_capacity = HM_THREAD_CAPACITY,
        .big_capacity = HM_BIG_CAPACITY,
        .ranges = (uintptr_t)head->ranges,
        .arenas = (uintptr_t)head->arenas,
        .threads = (uintptr_t)head->threads,
        .bigs = (uintptr_t)tail->bigs,
        .classes = (uintptr_t)size_class_list,
        .text_start = (uintptr_t)text_start,
        .text_end = (uintptr_t)text_end,
        .hot_start = (uintptr_t)&hm_hot,
        .hot_end = (uintptr_t)(&hm_hot + 1),
        .check_mode = CHECK_FAST,
    };
    head->preamble = (struct hm_preamble){
        .magic = HM_MAGIC,
        .byte_order = HM_BYTE_ORDER,
        .pointer_bytes = sizeof(void *),
        .major = HM_MAJOR,
        .minor = HM_MINOR,
        .root = (uintptr_t)root,
        .schema = (uintptr_t)schema,
        .schema_record_bytes = sizeof(struct hm_schema_record),
        .schema_record_count = sizeof(schema) / sizeof(schema[0]),
        .structure_count = STRUCTURE_COUNT,
        .preamble_bytes = sizeof(struct hm_preamble),
    };
}

/* ---- ranges ---- */

/* Offsets from the start of the mapping. */
struct range_plan {
    size_t units, front, codes, ages, tail, base, end;
    size_t align, skew; /* where the base wants to be: at skew, modulo align */
};

/* The front lies right before the units, so that one system call makes both accessible; and the
 * first records in the same GiB as both, so that one page of the kernel's tables leads to all. */
static struct range_plan range_plan(const struct root_front *root, uint64_t units)
{
    struct range_plan plan = {.align = SMALL_BASE_ALIGN};
    if (units >= 1u << 14)
        plan.align = BASE_ALIGN;
    if (units >= 1u << 20) {
        plan.align = 1u << 30;
        plan.skew = 1u << 29;
    }
    size_t codes = round_up(root->head_bytes, PAGE_BYTES);
    size_t ages = codes + round_up(units, PAGE_BYTES);
    size_t tail = ages + round_up(units, PAGE_BYTES);
    size_t front_bytes = round_up(tail + root->tail_bytes, min_u64(plan.align, FRONT_ALIGN));
    /* a page without access before it keeps the preamble at the start of a mapping */
    size_t before = round_up(units * sizeof(struct hm_unit), PAGE_BYTES) + PAGE_BYTES + front_bytes;
    size_t bitmaps = units * UNIT_BITMAP_BYTES;
    plan.base = round_up(bitmaps + before - plan.skew, plan.align) + plan.skew;
    plan.units = plan.base - before;
    plan.front = plan.base - front_bytes;
    plan.codes = plan.front + codes;
    plan.ages = plan.front + ages;
    plan.tail = plan.front + tail;
    plan.end = plan.base + (units << UNIT_SHIFT);
    return plan;
}

/* Records of the first units of the first range fill a page, their bitmaps lie in the front. */
static bool range_describe_first(struct hm_range *r, const struct root_front *root)
{
    if (root->head_bytes == 0)
        return root_describe_units(r, r->committed_units);
    size_t bytes = round_up(RANGE_FIRST_UNITS * sizeof(struct hm_unit), PAGE_BYTES);
    if (!pages_commit((void *)(uintptr_t)r->units, bytes))
        return false;
    r->described_units = r->committed_units;
    return true;
}

/* Reserves and fills *r; false when the system refuses. Where the front part is goes to *root. */
static bool range_make(struct hm_range *r, uint64_t units, struct root_front *root)
{
    struct range_plan plan = range_plan(root, units);
    size_t mapping_bytes = plan.end + plan.align;
    char *mapping = pages_reserve(mapping_bytes);
    if (!mapping)
        return false;
    char *start = (char *)round_up((uintptr_t)mapping, plan.align);
    uint64_t first_units = min_u64(units, RANGE_FIRST_UNITS);
    *r = (struct hm_range){
        .base = (uintptr_t)start + plan.base,
        .unit_count = units,
        .committed_units = first_units,
        .codes = (uintptr_t)start + plan.codes,
        .ages = (uintptr_t)start + plan.ages,
        .units = (uintptr_t)start + plan.units,
        .bitmaps = (uintptr_t)start,
        .mapping_start = (uintptr_t)start,
        .mapping_bytes = plan.end,
    };
    size_t first_bytes = plan.base - plan.front + (first_units << UNIT_SHIFT);
    if (!pages_commit(start + plan.front, first_bytes) || !range_describe_first(r, root)) {
        pages_unmap(mapping, mapping_bytes);
        return false;
    }
    /* where all memory gets huge pages unasked, the smallest program would touch two */
    pages_prefer_huge(start + plan.front, first_bytes, false);
    root->head = start + plan.front;
    root->tail = start + plan.tail;
    return true;
}

/* Entries [from, to) of a table, and what else lies on their pages. */
static bool table_commit(uintptr_t table, size_t entry_bytes, uint64_t from, uint64_t to)
{
    uintptr_t start = (table + from * entry_bytes) & ~(uintptr_t)(PAGE_BYTES - 1);
    return pages_commit((void *)start, round_up(table + to * entry_bytes, PAGE_BYTES) - start);
}

bool root_describe_units(struct hm_range *r, uint64_t end)
{
    uint64_t from = r->described_units;
    uintptr_t short_bitmaps = r->bitmaps + r->unit_count * LONG_BITMAP_BYTES;
    if (end <= from)
        return true;
    end = min_u64(r->unit_count, round_up(end, DESCRIBE_STEP));
    if (!table_commit(r->units, sizeof(struct hm_unit), from, end) ||
        !table_commit(r->bitmaps, LONG_BITMAP_BYTES, from, end) ||
        !table_commit(short_bitmaps, SHORT_BITMAP_BYTES, from, end))
        return false;
    r->described_units = end;
    return true;
}

/* Units of the first range that is worth trying. */
static uint64_t range_first_units(void)
{
    size_t limit = pages_address_limit();
    uint64_t units = 1ULL << (38 - UNIT_SHIFT);
    while (limit != SIZE_MAX && units > 256 && (units << UNIT_SHIFT) > limit / 16)
        units /= 2;
    return units;
}

struct hm_range *root_add_range(uint64_t units)
{
    struct hm_root *root = hm_hot.root;
    if (root->range_count >= HM_RANGE_CAPACITY)
        return NULL;
    struct hm_range *r = range_at(root->range_count);
    struct hm_range *last = range_at(root->range_count - 1);
    uint64_t want = last->unit_count * 2;
    want = want < units + 4 ? round_up(units + 4, 256) : want;
    for (; want >= units + 4; want /= 2) {
        struct root_front none = {0};
        if (range_make(r, want, &none)) {
            note_add_range(r, root->range_count);
            STORE_ORDER();
            root->range_count++;
            return r;
        }
    }
    return NULL;
}

struct hm_range *range_find(const void *p)
{
    uintptr_t a = (uintptr_t)p;
    if (a - hm_hot.base < hm_hot.bytes)
        return range_at(0);
    if (!hm_hot.root)
        return NULL;
    uint32_t count = __atomic_load_n(&hm_hot.root->range_count, __ATOMIC_ACQUIRE);
    for (uint32_t i = 1; i < count; i++) {
        struct hm_range *r = range_at(i);
        if (a - r->base < r->unit_count << UNIT_SHIFT)
            return r;
    }
    return NULL;
}

/* ---- start ---- */

static bool root_make(void)
{
    size_t thread_offset = round_up(sizeof(struct root_head) + arena_bytes(), PAGE_BYTES);
    size_t bitmaps_offset = thread_offset + THREAD_MAPPING_BYTES;
    struct root_front front = {.head_bytes = bitmaps_offset + RANGE_FIRST_UNITS * UNIT_BITMAP_BYTES,
                               .tail_bytes = sizeof(struct root_tail)};
    struct hm_range range;
    uint64_t units = range_first_units();
    while (!range_make(&range, units, &front)) {
        units /= 4;
        if (units < 64)
            return false;
    }
    struct root_head *head = (struct root_head *)front.head;
    struct root_tail *tail = (struct root_tail *)front.tail;
    root_describe(head, tail);
    head->ranges[0] = range;
    head->root.range_count = 1;
    hm_hot.root = &head->root;
    root_first_bitmaps = (uintptr_t)front.head + bitmaps_offset;
    hm_hot.codes = (const uint8_t *)(uintptr_t)range.codes;
    hm_hot.base = range.base;
    hm_hot.check_mode = CHECK_FAST;
    arena_start(front.head + sizeof(struct root_head));
    thread_cache_start(front.head + thread_offset, tail->spare_threads);
    head->preamble.self = (uintptr_t)head;
    __atomic_store_n(&hm_root_anchor, (uintptr_t)head, __ATOMIC_RELEASE);
    hm_hot.fast_bytes = range.unit_count << UNIT_SHIFT;
    __atomic_store_n(&hm_hot.bytes, hm_hot.fast_bytes, __ATOMIC_RELEASE);
    return true;
}

bool root_start(void)
{
    if (LIKELY(__atomic_load_n(&hm_hot.bytes, __ATOMIC_ACQUIRE) != 0))
        return true;
    if (!lock_acquire(&start_lock, thread_id()))
        return false;
    bool made = hm_hot.bytes != 0 || root_make();
    lock_release(&start_lock);
    if (made)
        options_read();
    return made;
}
