/* Where edges are kept; see edges.h. */
#include "graph/edges.h"

#include "base/huge.h"

#include <sys/mman.h>

static void *reserve(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* first touches are what filling it costs: as few as possible */
    madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

enum hi_code edges_new_in(struct edges *edges, uint32_t block_count, uint32_t *memory,
                          uint64_t reserved, uint64_t used, struct hi_err *err)
{
    size_t clusters = block_count / EDGES_CLUSTER + 1;
    *edges = (struct edges){
        .block_count = block_count, .words = memory, .reserved = reserved, .used = used};
    if (posix_memalign((void **)&edges->degrees, EDGES_CLUSTER, clusters * EDGES_CLUSTER) != 0)
        edges->degrees = NULL;
    edges->bases = calloc(clusters, sizeof *edges->bases);
    if (!edges->degrees || !edges->bases || !edges->words) {
        edges_free(edges);
        return hi_no_memory(err);
    }
    huge_prefer(edges->degrees, clusters * EDGES_CLUSTER);
    memset(edges->degrees, 0, clusters * EDGES_CLUSTER);
    return HI_OK;
}

enum hi_code edges_new(struct edges *edges, uint32_t block_count, uint64_t most, struct hi_err *err)
{
    uint64_t reserved = most + EDGES_AHEAD;
    uint32_t *memory = NULL;
    /* where address space is rationed (ulimit -v, strict overcommit) a smaller share may do */
    while (!memory && reserved) {
        if (reserved < SIZE_MAX / sizeof *memory)
            memory = reserve(reserved * sizeof *memory);
        if (!memory)
            reserved /= 2;
    }
    return edges_new_in(edges, block_count, memory, reserved, 0, err);
}

void edges_free(struct edges *edges)
{
    free(edges->degrees);
    free(edges->bases);
    if (edges->words)
        munmap(edges->words, edges->reserved * sizeof *edges->words);
    VECTOR_FREE(&edges->fat);
    *edges = (struct edges){0};
}

uint64_t edges_take(struct edges *edges, uint64_t count)
{
    uint64_t base = __atomic_fetch_add(&edges->used, count, __ATOMIC_RELAXED);
    uint64_t room = edges->reserved < EDGES_AHEAD ? 0 : edges->reserved - EDGES_AHEAD;
    return base <= room && count <= room - base ? base : UINT64_MAX;
}

bool edges_add_fat(struct edges *edges, const struct fat_part *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct fat_part *part = VECTOR_PUSH(&edges->fat);
        if (!part)
            return false;
        *part = parts[i];
    }
    return true;
}

static int part_order(const void *a, const void *b)
{
    const struct fat_part *x = a, *y = b;
    if (x->block != y->block)
        return x->block < y->block ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

void edges_seal(struct edges *edges)
{
    struct fat_part *parts = edges->fat.items;
    size_t kept = 0;
    for (size_t i = 0; i < edges->fat.count; i++)
        if (parts[i].count)
            parts[kept++] = parts[i];
    edges->fat.count = kept;
    if (edges->fat.count)
        qsort(parts, edges->fat.count, sizeof *parts, part_order);
    for (size_t i = 0; i < edges->fat.count; i++) {
        bool same = i && parts[i - 1].block == parts[i].block;
        parts[i].before = same ? parts[i - 1].before + parts[i - 1].count : 0;
        edges->degrees[parts[i].block] = EDGES_FAT;
    }
}

size_t edges_fat_first(const struct edges *edges, hi_block block)
{
    size_t low = 0, high = edges->fat.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (edges->fat.items[middle].block < block)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct edge_run run_of(const struct edges *edges, hi_block block, size_t part)
{
    struct edge_run run = {.block = block, .part = part};
    if (part < edges->fat.count && edges->fat.items[part].block == block) {
        run.words = &edges->words[edges->fat.items[part].base];
        run.count = edges->fat.items[part].count;
    }
    return run;
}

struct edge_run edges_first_fat(const struct edges *edges, hi_block block)
{
    return run_of(edges, block, edges_fat_first(edges, block));
}

void edges_next_fat(const struct edges *edges, struct edge_run *run)
{
    *run = run_of(edges, run->block, run->part + 1);
}

uint32_t edges_count(const struct edges *edges, hi_block block)
{
    if (edges->degrees[block] != EDGES_FAT)
        return edges->degrees[block];
    uint64_t count = 0;
    for (struct edge_run r = edges_first(edges, block); r.count; edges_next(edges, &r))
        count += r.count;
    return count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
}

uint32_t edges_word(const struct edges *edges, hi_block block, uint32_t i)
{
    if (edges->degrees[block] != EDGES_FAT)
        return edges->words[edges_place(edges, block) + i];
    size_t low = edges_fat_first(edges, block), high = edges->fat.count;
    while (high - low > 1) { /* the last part of block with before <= i */
        size_t middle = low + (high - low) / 2;
        const struct fat_part *part = &edges->fat.items[middle];
        if (part->block == block && part->before <= i)
            low = middle;
        else
            high = middle;
    }
    const struct fat_part *part = &edges->fat.items[low];
    return edges->words[part->base + (i - part->before)];
}
