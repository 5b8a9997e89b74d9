/*
 * note: who allocated a block, and who freed it.
 *
 * A note is a record beside the heap, found from the block's address by arithmetic alone: each unit
 * of a range has room for as many notes as blocks of the smallest class fit into it. That is three
 * quarters of the range's addresses, reserved when the first stack is taken and readable as far as
 * the range is used; of memory it costs what is written. A program without stacks pays nothing.
 *
 * Blocks that go the slow way in malloc and in free keep their notes in every mode: those of
 * sampled, named and ignored arenas, large and big ones. Blocks of automatic arenas come off the
 * fast path, which knows of no notes; theirs count only while everything is traced, which sends
 * all calls the slow way (stacks.c).
 *
 * Invariants, that the reader of the format relies on:
 *   - the note of a block is written before the block is live, whole, so that the owner before is
 *     never shown for the new one; where it was freed, before it is free;
 *   - the notes of a slab that is made are 0, but for those that nobody believes: each slab leaves
 *     them so when it goes, and so does a large block;
 *   - samples and what was traced do not mix, as a reader counts them differently: when tracing
 *     begins and when it ends all notes are forgotten, but for those of the samples' own arena.
 * That happens under the span lock: no unit changes hands meanwhile. A thread that writes a note
 * just then writes it for a block in its hands, and what is lost of it is `stack` first (note_set).
 *
 * A note that the program wrote over shows a wrong stack, or makes a free look like a second one
 * when all are traced: then the program is told so, and that it did.
 */
#include "note.h"

#include "pages.h"
#include "size_class.h"
#include "span.h"

enum { NOTE_STEP = 64 }; /* units */

static uint64_t noted_units[HM_RANGE_CAPACITY] LARGE_VARIABLE; /* readable notes of each range */
static uint8_t started;

/* ---- memory ---- */

static bool range_commit_notes(const struct hm_range *r, uint32_t range_index, uint64_t end)
{
    uint64_t from = noted_units[range_index];
    if (end <= from)
        return true;
    uint64_t step = from / 8 > NOTE_STEP ? from / 8 : NOTE_STEP;
    uint64_t to = min_u64(r->unit_count, end > from + step ? end : from + step);
    if (!pages_commit((char *)note_at(r, 0, 0) + from * NOTE_STRIDE, (to - from) * NOTE_STRIDE))
        return false;
    noted_units[range_index] = to;
    return true;
}

bool note_commit(struct hm_range *r, uint64_t end)
{
    return r->notes == 0 || range_commit_notes(r, (uint32_t)(r - range_at(0)), end);
}

static bool range_reserve_notes(struct hm_range *r, uint32_t range_index)
{
    if (r->notes)
        return true;
    struct hm_range with = *r;
    with.note_stride = NOTE_STRIDE;
    with.notes = (uintptr_t)pages_reserve(r->unit_count * NOTE_STRIDE);
    if (!with.notes)
        return false;
    noted_units[range_index] = 0;
    if (!range_commit_notes(&with, range_index, r->top_index)) {
        pages_unmap((void *)(uintptr_t)with.notes, r->unit_count * NOTE_STRIDE);
        return false;
    }
    r->note_stride = with.note_stride;
    __atomic_store_n(&r->notes, with.notes, __ATOMIC_RELEASE);
    return true;
}

void note_add_range(struct hm_range *r, uint32_t range_index)
{
    if (started)
        range_reserve_notes(r, range_index);
}

bool note_start(uint32_t tid)
{
    bool all = true;
    if (!span_lock(tid))
        return false;
    for (uint32_t i = 0; i < hm_hot.root->range_count; i++)
        all &= range_reserve_notes(range_at(i), i);
    hm_hot.notes = range_at(0)->notes;
    started = all;
    span_unlock();
    return all;
}

/* ---- one block ---- */

/* NULL: the range has none. */
static struct hm_note *note_of(const void *p, uint32_t class_index)
{
    const struct hm_range *r = range_find(p);
    const struct hm_class *class = &size_class_list[class_index];
    if (!r || !r->notes)
        return NULL;
    uint64_t offset = (uintptr_t)p - r->base;
    uint32_t unit = (uint32_t)(offset >> UNIT_SHIFT) & ~(class->slab_units - 1);
    return note_at(r, unit,
                   size_class_block_index(class_index, offset - ((uint64_t)unit << UNIT_SHIFT)));
}

void note_write(const void *p, uint32_t class_index, const struct block_note *values)
{
    struct hm_note *note = note_of(p, class_index);
    if (note)
        note_set(note, values);
}

void note_free(const void *p, uint32_t class_index, uint32_t freed)
{
    struct hm_note *note = freed ? note_of(p, class_index) : NULL;
    if (note)
        note->freed = freed;
}

bool note_is_freed(const void *p, uint32_t class_index)
{
    const struct hm_note *note = note_of(p, class_index);
    return note && note->freed != 0;
}

void note_change(const void *p, uint32_t class_index, const struct block_note *values)
{
    struct hm_note *note = note_of(p, class_index);
    if (!note)
        return;
    note->stack = values->stack; /* first, as in note_set */
    STORE_ORDER();
    note->requested = values->bytes;
}

/* The mark keeps who frees a block without a note from looking at it: that would cost a page table.
 */
uint32_t note_set_large(const struct hm_range *r, uint32_t unit, const struct block_note *values)
{
    static const struct block_note nothing;
    struct hm_unit *head = range_units(r) + unit;
    if (!r->notes || (!values && !(head->marks & UNIT_NOTED)))
        return 0;
    struct hm_note *note = note_at(r, unit, 0);
    uint32_t before = note->stack;
    head->marks |= UNIT_NOTED;
    STORE_ORDER();
    note_set(note, values ? values : &nothing);
    STORE_ORDER();
    if (!values)
        head->marks &= (uint8_t)~UNIT_NOTED;
    return before;
}

/* ---- many ---- */

void note_forget_slab(const struct hm_range *r, const struct hm_unit *slab)
{
    static const struct block_note nothing;
    if (!r->notes || (!hm_hot.tracing && arena_at(slab->arena)->kind == HM_ARENA_AUTOMATIC))
        return;
    struct hm_note *notes = note_at(r, slab->head, 0);
    for (uint32_t i = 0; i < slab->block_count; i++)
        if (notes[i].stack || notes[i].freed)
            note_set(&notes[i], &nothing);
}

void note_discard(const struct hm_range *r, uint32_t unit, uint32_t count)
{
    if (r->notes)
        pages_discard(note_at(r, unit, 0), (size_t)count * NOTE_STRIDE);
}

static bool unit_keeps_notes(const struct hm_range *r, uint64_t unit)
{
    uint8_t code = range_codes(r)[unit];
    const struct hm_unit *units = range_units(r);
    return code >= CODE_NAMED && code < CODE_NAMED + CLASS_COUNT &&
           arena_at(units[units[unit].head].arena)->kind == HM_ARENA_SAMPLED;
}

static void range_forget(const struct hm_range *r)
{
    for (uint64_t u = 0; r->notes && u < r->top_index;) {
        uint64_t end = u;
        while (end < r->top_index && !unit_keeps_notes(r, end))
            end++;
        if (end > u)
            pages_discard(note_at(r, (uint32_t)u, 0), (end - u) * NOTE_STRIDE);
        u = end + 1;
    }
}

static void bigs_forget(void)
{
    struct hm_big *bigs = (struct hm_big *)(uintptr_t)hm_hot.root->bigs;
    for (uint32_t i = 0; i < hm_hot.root->big_count; i++)
        bigs[i].stack = 0;
}

void note_forget_all(uint32_t tid)
{
    bigs_forget();
    if (!span_lock(tid))
        return;
    for (uint32_t i = 0; i < hm_hot.root->range_count; i++)
        range_forget(range_at(i));
    span_unlock();
}
