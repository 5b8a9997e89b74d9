/* Live memory by call stack: samples are scaled by their own size, exact blocks are not, and what
 * samples stand for is not counted twice. On one slab whose reader makes up who allocated. */
#include "analysis/allocations.h"
#include "analysis/call_stacks.h"
#include "unit/tap.h"

#include <math.h>

enum { COUNT = 64, STRIDE = 4096, PERIOD = 8192 };
#define SLAB UINT64_C(0x10000)

static struct heaps heaps;
static struct inspection in;
static bool all_noted; /* else every fourth block is a sample */

/* Blocks are of stack 1 to 3, and have 100 times that many bytes. */
static unsigned stack_of(hi_addr block)
{
    return (unsigned)((block - SLAB) / STRIDE % 3) + 1;
}

static bool is_noted(hi_addr block)
{
    return all_noted ? (block - SLAB) / STRIDE != 5 : (block - SLAB) / STRIDE % 4 == 0;
}

static enum hi_code toy_detail(const struct heap_context *context, struct heap *heap, hi_addr block,
                               struct heap_detail *detail, struct hi_err *err)
{
    (void)context, (void)heap, (void)err;
    if (!is_noted(block))
        return HI_OK;
    *detail = (struct heap_detail){.has_requested = true,
                                   .requested = 100 * stack_of(block),
                                   .stack_id = stack_of(block),
                                   .is_sampled = !all_noted};
    return HI_OK;
}

/* Stack n has n frames; the outer ones are shared. */
static size_t toy_stack(const struct heap_context *context, struct heap *heap, uint64_t stack_id,
                        struct heap_frame *frames, size_t most)
{
    (void)context, (void)heap;
    size_t count = stack_id <= 3 ? stack_id : 0;
    for (size_t i = 0; i < count && i < most; i++)
        frames[i] = (struct heap_frame){.address = 0x400000 + 16 * (count - i)};
    return count < most ? count : most;
}

static struct heap_reader reader = {.name = "toy", .detail = toy_detail, .stack = toy_stack};

static bool prepare(void)
{
    struct hi_err err;
    uint64_t live = ~UINT64_C(0);
    struct region region = {.start = SLAB,
                            .end = SLAB + COUNT * STRIDE,
                            .first = SLAB,
                            .stride = STRIDE,
                            .count = COUNT,
                            .usable = STRIDE,
                            .shape = REGION_SLAB};
    heaps.count = 1;
    heaps.heaps[0].reader = &reader;
    heaps.heaps[0].sample_bytes = PERIOD;
    *VECTOR_PUSH(&heaps.arenas) = (struct arena){0};
    in.heaps = &heaps;
    return blocks_new(&heaps.blocks, &err) == HI_OK &&
           blocks_add(heaps.blocks, &region, &live, &err) == HI_OK &&
           blocks_finish(heaps.blocks, &err) == HI_OK;
}

/* How many blocks of that stack the reader told of. */
static unsigned told(unsigned stack)
{
    unsigned count = 0;
    for (hi_addr block = SLAB; block < SLAB + COUNT * STRIDE; block += STRIDE)
        count += is_noted(block) && stack_of(block) == stack;
    return count;
}

static bool near(double got, double wanted)
{
    return fabs(got - wanted) < 1e-6 * wanted;
}

static void test_exact(void)
{
    struct allocations all;
    struct hi_err err;
    all_noted = true;
    if (!ok(allocations_live(&all, &in, &err) == HI_OK, "all noted"))
        return;
    allocations_by_stack(&all);
    is_u64(all.items.count, 4, "three call stacks, and what is not known");
    for (size_t i = 0; i < all.items.count; i++) {
        const struct allocation *item = &all.items.items[i];
        if (item->stack_id == 0)
            is_u64(item->counted.bytes, STRIDE,
                   "the block that nobody told of, by its usable size");
        else
            ok(item->counted.blocks == told((unsigned)item->stack_id) &&
                   near(item->bytes, (double)item->counted.bytes) &&
                   item->counted.bytes == item->counted.blocks * 100 * item->stack_id,
               "stack %" PRIu64 ": as it is", item->stack_id);
        ok(i == 0 || all.items.items[i - 1].bytes >= item->bytes, "the largest first");
    }
    is_u64(all.exact.blocks, COUNT - 1, "counted as exact");
    ok(!allocations_are_samples(&all), "no samples");
    allocations_free(&all);
}

static void test_sampled(void)
{
    struct allocations all;
    struct hi_err err;
    double sum = 0;
    all_noted = false;
    if (!ok(allocations_live(&all, &in, &err) == HI_OK, "every fourth one picked"))
        return;
    is_u64(all.items.count, 3, "what samples stand for is not counted by itself");
    for (size_t i = 0; i < all.items.count; i++) {
        const struct allocation *item = &all.items.items[i];
        double size = 100.0 * (double)item->stack_id, count = told((unsigned)item->stack_id);
        double weight = 1 / (1 - exp(-size / PERIOD));
        sum += count * weight * size;
        ok(near(item->blocks, count * weight) && near(item->bytes, count * weight * size),
           "stack %" PRIu64 ": each stands for %.1f", item->stack_id, weight);
    }
    ok(near(all.bytes, sum), "their sum");
    is_u64(all.sampled.blocks, COUNT / 4, "counted as samples");
    ok(allocations_are_samples(&all), "nothing but samples");
    allocations_free(&all);
}

static void test_call_stacks(void)
{
    struct call_stacks stacks;
    struct hi_err err;
    call_stacks_begin(&stacks, &in);
    bool fine = true;
    for (unsigned round = 0; round < 2; round++)
        for (uint64_t id = 0; id < 2000; id++)
            fine &= call_stacks_add(&stacks, 0, id, &err) == HI_OK;
    ok(fine, "two thousand numbers, twice");
    is_u64(stacks.stacks.count, 1999, "each is kept once, 0 is none");
    is_u64(stacks.frames.count, 6, "frames of those that have any");
    is_u64(stacks.places.count, 3, "places that are shared have to be named once");
    ok(!call_stacks_find(&stacks, 0, 3), "nothing is found before it is named");
    call_stacks_free(&stacks);
}

int main(void)
{
    if (!prepare()) {
        printf("Bail out! the test itself failed\n");
        return 2;
    }
    test_exact();
    test_sampled();
    test_call_stacks();
    return done();
}
