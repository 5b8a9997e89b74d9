/*
 * Completeness, in one place, so that every command says the same.
 *
 * An answer is complete when the target had all its memory, nobody interrupted, no allocator was
 * left out because it is not understood, and the walks met no unreadable bytes. The first line of
 * each report and the exit status with --strict hang on this.
 */
#include "analysis/inspection.h"

#include <inttypes.h>

static bool is_walked_whole(const struct inspection *in)
{
    const struct graph_stats *stats = in->graph ? graph_stats(in->graph) : NULL;
    return !stats || (stats->complete && stats->missing_bytes == 0);
}

bool inspection_complete(const struct inspection *in)
{
    return target_complete(in->target) && !in->interrupted && !in->roots.missing_bytes &&
           !(in->heaps && in->heaps->unknown[0]) && is_walked_whole(in);
}

size_t inspection_missing_ranges(const struct inspection *in)
{
    uint64_t unread = in->graph ? graph_stats(in->graph)->unread_ranges : 0;
    return target_missing_count(in->target) + unread;
}

uint64_t inspection_missing_bytes(const struct inspection *in)
{
    uint64_t target = target_missing_bytes(in->target);
    uint64_t walk = in->roots.missing_bytes;
    if (in->graph)
        target += graph_stats(in->graph)->unread_bytes;
    if (in->graph && graph_stats(in->graph)->missing_bytes > walk)
        walk = graph_stats(in->graph)->missing_bytes;
    return target > walk ? target : walk;
}

void inspection_gap(const struct inspection *in, char *buffer, size_t size)
{
    size_t ranges = inspection_missing_ranges(in);
    uint64_t bytes = inspection_missing_bytes(in);
    buffer[0] = '\0';
    if (in->interrupted)
        snprintf(buffer, size, "interrupted: this is what was read until then");
    else if (target_ended(in->target))
        snprintf(buffer, size, "process %d ended while it was being read%s",
                 (int)target_pid(in->target),
                 in->graph ? "; what was not read counts as lost" : "");
    else if (in->heaps && in->heaps->unknown[0])
        snprintf(buffer, size, "an allocator is present and not understood: %s",
                 in->heaps->unknown);
    else if (ranges)
        snprintf(buffer, size, "%zu range%s of memory, %" PRIu64 " bytes, %s missing%s", ranges,
                 ranges == 1 ? "" : "s", bytes, ranges == 1 ? "is" : "are",
                 !in->graph    ? ""
                 : ranges == 1 ? "; what only it holds counts as lost"
                               : "; what only they hold counts as lost");
    else if (!inspection_complete(in))
        snprintf(buffer, size, "%" PRIu64 " bytes of memory could not be read%s", bytes,
                 in->graph ? "; what only they hold counts as lost" : "");
}

struct heap_context inspection_context(const struct inspection *in)
{
    return (struct heap_context){.target = in->target, .symbols = in->symbols};
}

struct heap_detail inspection_detail(const struct inspection *in, hi_block block)
{
    struct heap_context context = inspection_context(in);
    struct heap_detail detail = {0};
    struct hi_err err;
    if (heaps_detail(in->heaps, &context, block, &detail, &err) != HI_OK)
        return (struct heap_detail){0};
    if (detail.requested > blocks_usable(in->heaps->blocks, block))
        detail.has_requested = false;
    return detail;
}

uint64_t inspection_size(const struct inspection *in, hi_block block)
{
    struct heap_detail detail = inspection_detail(in, block);
    return detail.has_requested ? detail.requested : blocks_usable(in->heaps->blocks, block);
}
