/*
 * The truth about a heap, from outside: what the calls of the malloc family have handed out and
 * taken back, whoever made them (the program, the C library, the dynamic linker).
 *
 * Between entry and return of a call some answers are open, and these only:
 *   malloc    one more live block than is held may be seen: the one to be returned
 *   free      the block may be live or free
 *   realloc   the block may be live or free, one more live block may be seen, and at least one of
 *             the two is
 * Everything held is live and large enough, and nothing else is live. With several calls under way
 * the open answers add up: blocks that nobody holds are at most as many as calls may produce, and
 * at least as many as reallocs whose old block is free, counting those that may have become such a
 * realloc's new block before the call that freed them has returned. A block whose free has not
 * returned yet may be handed out to another thread before it does: from then on it is that
 * thread's.
 *
 * Who allocated a block that is held, where the heap knows it, is the call that returned it, with
 * the bytes that this one asked for: never who had the block before, also in the moment when it
 * becomes live.
 */
#include "step/truth.h"

#include <inttypes.h>
#include <stdarg.h>
#include <unistd.h>

static size_t held_find(const struct truth *truth, hi_addr address)
{
    for (size_t i = 0; i < truth->held.count; i++)
        if (truth->held.items[i].address == address)
            return i;
    return SIZE_MAX;
}

HI_PRINTF(3, 4)
static void wrong(struct truth *truth, uint64_t *count, const char *format, ...)
{
    size_t length = strlen(truth->first);
    ++*count;
    if (length + 2 >= sizeof truth->first)
        return;
    if (length > 0)
        length += (size_t)snprintf(truth->first + length, 3, "; ");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(truth->first + length, sizeof truth->first - length, format, arguments);
    va_end(arguments);
}

/* Is a call under way that gives this block back? Then it has done so, and is done with it. */
static bool given_back(struct call *call, hi_addr address)
{
    bool consumes = call->kind == CALL_FREE || call->kind == CALL_REALLOC;
    if (!call->return_address || !consumes || call->block != address)
        return false;
    call->block = 0;
    return true;
}

static bool given_back_by_any(struct tracer *tracer, hi_addr address)
{
    for (size_t i = 0; i < tracer_thread_count(tracer); i++) {
        struct traced *thread = tracer_thread(tracer, i);
        if (given_back(&thread->call, address))
            return true;
        for (unsigned depth = 0; depth < thread->depth; depth++)
            if (given_back(&thread->outer[depth].call, address))
                return true;
    }
    return false;
}

static void held_add(struct truth *truth, struct tracer *tracer, hi_addr address,
                     const struct call *call)
{
    const struct held new = {address, call->bytes, call->return_address};
    if (address == 0)
        return;
    size_t i = held_find(truth, address);
    if (i != SIZE_MAX && given_back_by_any(tracer, address)) {
        truth->held.items[i] = new;
        return;
    }
    if (i != SIZE_MAX)
        wrong(truth, &truth->strange, "0x%" PRIx64 " was handed out twice", address);
    struct held *held = VECTOR_PUSH(&truth->held);
    if (held)
        *held = new;
}

static void held_remove(struct truth *truth, hi_addr address)
{
    size_t i = held_find(truth, address);
    if (i != SIZE_MAX)
        truth->held.items[i] = truth->held.items[--truth->held.count];
    else if (address != 0)
        wrong(truth, &truth->strange, "0x%" PRIx64 " was freed and not held", address);
}

static hi_addr stored_result(struct tracer *tracer, hi_addr at)
{
    hi_addr address = 0;
    if (pread(tracer_memory(tracer), &address, sizeof address, (off_t)at) != sizeof address)
        return 0;
    return address;
}

void truth_returned(struct truth *truth, struct tracer *tracer, const struct call *call,
                    uint64_t result)
{
    truth->calls++;
    switch (call->kind) {
    case CALL_MALLOC:
        truth->mallocs++;
        held_add(truth, tracer, result, call);
        break;
    case CALL_MEMALIGN_TO:
        truth->mallocs++;
        if ((uint32_t)result == 0)
            held_add(truth, tracer, stored_result(tracer, call->result_at), call);
        break;
    case CALL_FREE:
        truth->frees++;
        held_remove(truth, call->block);
        break;
    case CALL_REALLOC:
        truth->reallocs++;
        truth->moved += call->block != 0 && result != 0 && result != call->block;
        if (result != 0 || call->bytes == 0)
            held_remove(truth, call->block);
        held_add(truth, tracer, result, call);
        break;
    case CALL_OTHER:
        break;
    }
}

/* Open answers of the calls under way. */
struct open {
    hi_addr blocks[64];
    bool is_realloc[64];
    size_t count;
    unsigned may_produce;
};

static void open_call(struct open *open, const struct call *call)
{
    bool produces =
        call->kind == CALL_MALLOC || call->kind == CALL_REALLOC || call->kind == CALL_MEMALIGN_TO;
    bool consumes = call->kind == CALL_FREE || call->kind == CALL_REALLOC;
    if (!call->return_address)
        return;
    open->may_produce += produces;
    if (!consumes || call->block == 0 || open->count == 64)
        return;
    open->blocks[open->count] = call->block;
    open->is_realloc[open->count++] = call->kind == CALL_REALLOC && call->bytes > 0;
}

static void open_collect(struct open *open, struct tracer *tracer)
{
    *open = (struct open){.count = 0};
    for (size_t i = 0; i < tracer_thread_count(tracer); i++) {
        const struct traced *thread = tracer_thread(tracer, i);
        open_call(open, &thread->call);
        for (unsigned depth = 0; depth < thread->depth; depth++)
            open_call(open, &thread->outer[depth].call);
    }
}

static bool is_live(const struct heaps *heaps, hi_addr address, uint64_t *usable)
{
    struct block_place place;
    if (!blocks_at(heaps->blocks, address, &place) || place.offset != 0 ||
        !blocks_is_live(heaps->blocks, place.block))
        return false;
    *usable = blocks_usable(heaps->blocks, place.block);
    return true;
}

static bool is_open(const struct open *open, hi_addr address)
{
    for (size_t i = 0; i < open->count; i++)
        if (open->blocks[i] == address)
            return true;
    return false;
}

static uint64_t count_live(const struct heaps *heaps, uint64_t *in_flight)
{
    const uint64_t *plane = blocks_live_plane(heaps->blocks);
    uint64_t count = 0, words = ((uint64_t)blocks_count(heaps->blocks) + 63) / 64;
    *in_flight = 0;
    for (uint64_t i = 0; i < words; i++) {
        count += (uint64_t)__builtin_popcountll(plane[i]);
        for (uint64_t bits = plane[i]; bits; bits &= bits - 1)
            *in_flight +=
                blocks_state(heaps->blocks, (hi_block)(i * 64 + (uint64_t)__builtin_ctzll(bits))) ==
                BLOCK_IN_FLIGHT;
    }
    return count;
}

static bool heaps_keep_stacks(const struct heaps *heaps)
{
    for (size_t i = 0; i < heaps->count; i++)
        if (heaps->heaps[i].blocks_with_stack)
            return true;
    return false;
}

/* What the heap knows of the block at address: site and bytes of *noted; false: nothing. */
static bool note_read(struct heaps *heaps, const struct heap_context *context, hi_addr address,
                      struct held *noted)
{
    struct block_place place;
    struct heap_detail detail;
    struct heap_frame frame;
    struct hi_err err;
    if (!blocks_at(heaps->blocks, address, &place) ||
        heaps_detail(heaps, context, place.block, &detail, &err) != HI_OK || detail.stack_id == 0)
        return false;
    const struct region *region = blocks_region_at(heaps->blocks, address);
    size_t frames = heaps_stack(heaps, context, region->heap, detail.stack_id, &frame, 1);
    *noted = (struct held){address, detail.requested, frames ? frame.address : 0};
    return true;
}

/* A note that is there is this block's: its caller's place, and what it asked for. */
static void compare_note(struct truth *truth, struct heaps *heaps,
                         const struct heap_context *context, const struct held *held)
{
    struct held noted;
    if (!note_read(heaps, context, held->address, &noted))
        return;
    truth->notes++;
    if (noted.bytes != held->bytes || noted.site != held->site)
        wrong(truth, &truth->wrong_notes,
              "0x%" PRIx64 " was allocated for 0x%" PRIx64 ", %" PRIu64
              " bytes, and is noted for 0x%" PRIx64 ", %" PRIu64 " bytes",
              held->address, held->site, held->bytes, noted.site, noted.bytes);
}

static bool produces(const struct call *call, const struct held *noted)
{
    return call->return_address == noted->site && call->bytes == noted->bytes;
}

/* A block that is live and not held is the new one of a call under way, and noted so or not at all.
 */
static void compare_new(struct truth *truth, struct tracer *tracer, struct heaps *heaps,
                        const struct heap_context *context, hi_addr address)
{
    struct held noted;
    bool found = !note_read(heaps, context, address, &noted);
    for (size_t i = 0; !found && i < tracer_thread_count(tracer); i++) {
        const struct traced *thread = tracer_thread(tracer, i);
        found = produces(&thread->call, &noted);
        for (unsigned depth = 0; depth < thread->depth; depth++)
            found |= produces(&thread->outer[depth].call, &noted);
    }
    if (!found)
        wrong(truth, &truth->wrong_notes,
              "0x%" PRIx64 " is new and noted for 0x%" PRIx64 ", %" PRIu64 " bytes", address,
              noted.site, noted.bytes);
}

static void compare_all_new(struct truth *truth, struct tracer *tracer, struct heaps *heaps,
                            const struct heap_context *context)
{
    const uint64_t *plane = blocks_live_plane(heaps->blocks);
    uint64_t words = ((uint64_t)blocks_count(heaps->blocks) + 63) / 64;
    for (uint64_t i = 0; i < words; i++)
        for (uint64_t bits = plane[i]; bits; bits &= bits - 1) {
            hi_block block = (hi_block)(i * 64 + (uint64_t)__builtin_ctzll(bits));
            hi_addr address = blocks_address(heaps->blocks, block);
            if (held_find(truth, address) == SIZE_MAX)
                compare_new(truth, tracer, heaps, context, address);
        }
}

static uint64_t compare_held(struct truth *truth, struct heaps *heaps,
                             const struct heap_context *context, const struct open *open)
{
    uint64_t known = 0, usable = 0;
    for (size_t i = 0; i < truth->held.count; i++) {
        const struct held *held = &truth->held.items[i];
        bool live = is_live(heaps, held->address, &usable);
        known += live;
        if (is_open(open, held->address))
            continue;
        if (!live)
            wrong(truth, &truth->live_called_free,
                  "0x%" PRIx64 " of %" PRIu64 " bytes is held and called free", held->address,
                  held->bytes);
        else if (usable < held->bytes)
            wrong(truth, &truth->too_small,
                  "0x%" PRIx64 " of %" PRIu64 " bytes is held and called %" PRIu64 " bytes",
                  held->address, held->bytes, usable);
        else if (heaps_keep_stacks(heaps))
            compare_note(truth, heaps, context, held);
    }
    return known;
}

void truth_compare(struct truth *truth, struct tracer *tracer, struct heaps *heaps,
                   const struct heap_context *context)
{
    struct open open;
    uint64_t in_flight, usable;
    open_collect(&open, tracer);
    uint64_t known = compare_held(truth, heaps, context, &open);
    uint64_t unknown = count_live(heaps, &in_flight) - known, must = 0, reused = 0;
    if (unknown > 0 && heaps_keep_stacks(heaps))
        compare_all_new(truth, tracer, heaps, context);
    for (size_t i = 0; i < open.count; i++) {
        bool live = is_live(heaps, open.blocks[i], &usable);
        must += open.is_realloc[i] && !live;
        reused += live; /* or may be: free, and by now another call's new block */
    }
    if (unknown > open.may_produce)
        wrong(truth, &truth->free_called_live,
              "%" PRIu64 " blocks are called live and not held, %u may be", unknown,
              open.may_produce);
    if (unknown + reused < must)
        wrong(truth, &truth->live_called_free, "%" PRIu64 " reallocs show neither block", must);
    truth->in_flight_seen += unknown;
    truth->in_flight_named += in_flight;
    for (size_t i = 0; i < heaps->findings.count; i++)
        wrong(truth, &truth->strange, "finding: %s: 0x%" PRIx64 ": %s",
              heaps->findings.items[i].rule, heaps->findings.items[i].address,
              heaps->findings.items[i].detail);
    if (heaps->unknown[0])
        wrong(truth, &truth->strange, "%s", heaps->unknown);
}

uint64_t truth_wrong(const struct truth *truth)
{
    return truth->live_called_free + truth->free_called_live + truth->too_small + truth->strange +
           truth->wrong_notes;
}

void truth_free(struct truth *truth)
{
    VECTOR_FREE(&truth->held);
}
