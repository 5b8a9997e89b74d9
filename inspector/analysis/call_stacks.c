/*
 * Two hash tables: from (heap, number) to a stack, and from (address, exact, module) to a place
 * that has to be named. Most frames are shared by many stacks, so places are few: what is kept a
 * frame is 16 bytes. Depth is bounded by HEAP_FRAMES_MOST, whatever the target says.
 */
#include "analysis/call_stacks.h"

static size_t mix(uint64_t key)
{
    key = (key ^ key >> 31) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(key ^ key >> 29);
}

void call_stacks_begin(struct call_stacks *stacks, const struct inspection *in)
{
    *stacks = (struct call_stacks){.in = in};
}

/* -- places ----------------------------------------------------------------------------------- */

static size_t place_slot(const struct call_stacks *stacks, const struct frame_place *place)
{
    uint64_t key = place->address * 2 + place->exact;
    size_t mask = stacks->place_slot_count - 1;
    size_t slot = mix(key + (uint64_t)(uintptr_t)place->module * 31) & mask;
    for (; stacks->place_slots[slot]; slot = (slot + 1) & mask) {
        const struct frame_place *other = &stacks->places.items[stacks->place_slots[slot] - 1];
        if (other->address == place->address && other->exact == place->exact &&
            other->module == place->module)
            break;
    }
    return slot;
}

static bool places_grow(struct call_stacks *stacks)
{
    size_t wanted = stacks->place_slot_count ? stacks->place_slot_count * 2 : 256;
    uint32_t *slots = calloc(wanted, sizeof *slots);
    if (!slots)
        return false;
    free(stacks->place_slots);
    stacks->place_slots = slots;
    stacks->place_slot_count = wanted;
    for (size_t i = 0; i < stacks->places.count; i++)
        slots[place_slot(stacks, &stacks->places.items[i])] = (uint32_t)i + 1;
    return true;
}

/* Index of the place, or UINT32_MAX when memory is out. */
static uint32_t place_at(struct call_stacks *stacks, const struct heap_frame *frame)
{
    struct frame_place place = {
        .address = frame->address, .exact = frame->exact, .module = frame->module};
    if (stacks->places.count * 2 >= stacks->place_slot_count && !places_grow(stacks))
        return UINT32_MAX;
    size_t slot = place_slot(stacks, &place);
    if (!stacks->place_slots[slot]) {
        struct frame_place *made = VECTOR_PUSH(&stacks->places);
        if (!made)
            return UINT32_MAX;
        *made = place;
        stacks->place_slots[slot] = (uint32_t)stacks->places.count;
    }
    return stacks->place_slots[slot] - 1;
}

/* -- stacks ----------------------------------------------------------------------------------- */

static size_t stack_slot(const struct call_stacks *stacks, uint16_t heap, uint64_t id)
{
    size_t mask = stacks->stack_slot_count - 1, slot = mix(id * HEAPS_MAX + heap) & mask;
    for (; stacks->stack_slots[slot]; slot = (slot + 1) & mask) {
        const struct call_stack *other = &stacks->stacks.items[stacks->stack_slots[slot] - 1];
        if (other->heap == heap && other->id == id)
            break;
    }
    return slot;
}

static bool stacks_grow(struct call_stacks *stacks)
{
    size_t wanted = stacks->stack_slot_count ? stacks->stack_slot_count * 2 : 256;
    uint32_t *slots = calloc(wanted, sizeof *slots);
    if (!slots)
        return false;
    free(stacks->stack_slots);
    stacks->stack_slots = slots;
    stacks->stack_slot_count = wanted;
    for (size_t i = 0; i < stacks->stacks.count; i++) {
        const struct call_stack *stack = &stacks->stacks.items[i];
        slots[stack_slot(stacks, stack->heap, stack->id)] = (uint32_t)i + 1;
    }
    return true;
}

static bool add_frames(struct call_stacks *stacks, struct call_stack *stack)
{
    struct heap_frame frames[HEAP_FRAMES_MOST];
    struct heap_context context = inspection_context(stacks->in);
    size_t count =
        heaps_stack(stacks->in->heaps, &context, stack->heap, stack->id, frames, HEAP_FRAMES_MOST);
    for (size_t i = 0; i < count; i++) {
        uint32_t place = place_at(stacks, &frames[i]);
        struct call_frame *frame = VECTOR_PUSH(&stacks->frames);
        if (place == UINT32_MAX || !frame)
            return false;
        *frame = (struct call_frame){.address = frames[i].address,
                                     .exact = frames[i].exact,
                                     .guessed = frames[i].guessed,
                                     .cut = frames[i].cut,
                                     .place = place};
    }
    stack->count = (uint32_t)count;
    return stacks->frames.count < UINT32_MAX;
}

enum hi_code call_stacks_add(struct call_stacks *stacks, uint16_t heap, uint64_t id,
                             struct hi_err *err)
{
    if (id == 0)
        return HI_OK;
    if (stacks->stacks.count * 2 >= stacks->stack_slot_count && !stacks_grow(stacks))
        return hi_no_memory(err);
    size_t slot = stack_slot(stacks, heap, id);
    if (stacks->stack_slots[slot])
        return HI_OK;
    struct call_stack *stack = VECTOR_PUSH(&stacks->stacks);
    if (!stack)
        return hi_no_memory(err);
    *stack = (struct call_stack){.heap = heap, .id = id, .first = (uint32_t)stacks->frames.count};
    stacks->stack_slots[slot] = (uint32_t)stacks->stacks.count;
    return add_frames(stacks, stack) ? HI_OK : hi_no_memory(err);
}

enum hi_code call_stacks_name(struct call_stacks *stacks, struct hi_err *err)
{
    if (!stacks->places.count)
        return HI_OK;
    enum hi_code code = names_of(stacks->in->symbols, stacks->places.items, stacks->places.count,
                                 &stacks->names, err);
    stacks->is_named = code == HI_OK;
    return code;
}

void call_stacks_free(struct call_stacks *stacks)
{
    if (stacks->is_named)
        names_free(&stacks->names);
    VECTOR_FREE(&stacks->stacks);
    VECTOR_FREE(&stacks->frames);
    VECTOR_FREE(&stacks->places);
    free(stacks->stack_slots);
    free(stacks->place_slots);
    *stacks = (struct call_stacks){0};
}

const struct call_stack *call_stacks_find(const struct call_stacks *stacks, uint16_t heap,
                                          uint64_t id)
{
    if (!stacks || !stacks->is_named || !stacks->stack_slot_count || id == 0)
        return NULL;
    uint32_t slot = stacks->stack_slots[stack_slot(stacks, heap, id)];
    const struct call_stack *stack = slot ? &stacks->stacks.items[slot - 1] : NULL;
    return stack && stack->count ? stack : NULL;
}

const struct call_frame *call_stack_frame(const struct call_stacks *stacks,
                                          const struct call_stack *stack, uint32_t i)
{
    return &stacks->frames.items[stack->first + i];
}

const struct frame_name *call_frame_names(const struct call_stacks *stacks,
                                          const struct call_frame *frame, size_t *count)
{
    return names_at(&stacks->names, frame->place, count);
}
