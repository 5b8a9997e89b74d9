/*
 * gperftools' heap profile (.heap), the text form that google-pprof and Go's pprof read:
 *
 *     heap profile:      2:     1136 [     2:     1136] @ heapprofile
 *          1:      568 [     1:      568] @ 0x55d04a0e1210 0x55d04a0e1229
 *
 *     MAPPED_LIBRARIES:
 *     55d04a0e0000-55d04a0e1000 r--p 00000000 08:01 123         /usr/bin/server
 *
 * in use, then allocated in all; that is not known of a heap that is looked at once, so both are
 * the same, which is also how a leak profile looks. The type says how numbers are meant:
 * `heapprofile` as they stand; `heap_v2/PERIOD` as samples, which readers scale by
 * 1 / (1 - exp(-average / PERIOD)): one line a stack and size, so that the average is the size;
 * else sizes are joined before (allocations_by_stack). A
 * heap of both kinds, or samples with other periods, is written as it was estimated.
 *
 * Addresses are return addresses and readers subtract 1, the perl one from all but the innermost.
 * So the innermost stands here one lower already: it still lies in the call instruction for both.
 * Blocks whose stack is not known have the address 1, since a line without any is passed over.
 */
#include "report/profile.h"

#include <inttypes.h>
#include <sys/sysmacros.h>

static uint64_t rounded(double value)
{
    return value < 0x1p63 ? (uint64_t)(value + 0.5) : UINT64_MAX;
}

/* As the header says that they are meant. A block of bytes is never none. */
static struct blocks_total amount(const struct profile *profile, const struct allocation *item)
{
    if (allocations_are_samples(profile->all) || !item->is_sampled)
        return item->counted;
    struct blocks_total total = {rounded(item->blocks), rounded(item->bytes)};
    total.blocks += total.blocks == 0;
    return total;
}

static void print_total(struct buffer *out, const char *before, struct blocks_total total)
{
    buffer_print(out, "%s%6" PRIu64 ": %8" PRIu64 " [%6" PRIu64 ": %8" PRIu64 "] @", before,
                 total.blocks, total.bytes, total.blocks, total.bytes);
}

static void print_header(struct buffer *out, const struct profile *profile)
{
    struct blocks_total sum = {0};
    for (size_t i = 0; i < profile->all->items.count; i++) {
        struct blocks_total one = amount(profile, &profile->all->items.items[i]);
        sum.blocks += one.blocks;
        sum.bytes += one.bytes;
    }
    print_total(out, "heap profile: ", sum);
    if (allocations_are_samples(profile->all))
        buffer_print(out, " heap_v2/%" PRIu64 "\n", profile->all->sample_bytes);
    else
        buffer_print(out, " heapprofile\n");
}

static void print_item(struct buffer *out, const struct profile *profile,
                       const struct allocation *item)
{
    const struct call_stack *stack = call_stacks_find(profile->stacks, item->heap, item->stack_id);
    print_total(out, "", amount(profile, item));
    for (uint32_t i = 0; stack && i < stack->count; i++) {
        const struct call_frame *frame = call_stack_frame(profile->stacks, stack, i);
        hi_addr address = frame->address;
        if (i > 0 && frame->exact)
            address++;
        else if (i == 0 && !frame->exact)
            address--;
        buffer_print(out, " 0x%08" PRIx64, address);
    }
    buffer_print(out, "%s\n", stack ? "" : " 0x00000001");
}

static void print_mapping(struct buffer *out, const struct mapping *mapping)
{
    unsigned p = mapping->protection;
    buffer_print(out,
                 "%" PRIx64 "-%" PRIx64 " %c%c%c%c %08" PRIx64 " %02x:%02x %-11" PRIu64 " %s\n",
                 mapping->start, mapping->end, p & MAPPING_READ ? 'r' : '-',
                 p & MAPPING_WRITE ? 'w' : '-', p & MAPPING_EXECUTE ? 'x' : '-',
                 mapping->shared ? 's' : 'p', mapping->file_offset, major(mapping->device),
                 minor(mapping->device), mapping->inode, mapping->path ? mapping->path : "");
}

void profile_gperftools(struct buffer *out, const struct profile *profile)
{
    print_header(out, profile);
    for (size_t i = 0; i < profile->all->items.count; i++)
        print_item(out, profile, &profile->all->items.items[i]);
    buffer_print(out, "\nMAPPED_LIBRARIES:\n");
    for (size_t i = 0; i < target_mapping_count(profile->in->target); i++)
        print_mapping(out, target_mapping(profile->in->target, i));
}
