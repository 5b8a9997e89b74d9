/*
 * chunk_map: a picture of the heap as numbers: cells in address order, each with the bytes of each
 * state in it. Whoever draws chooses characters and colours.
 */
#ifndef ANALYSIS_CHUNK_MAP_H
#define ANALYSIS_CHUNK_MAP_H

#include "analysis/inspection.h"

struct map_request {
    unsigned columns, rows; /* at most so many cells */
    bool has_arena;
    uint64_t arena_id;
    bool has_address; /* only what lies around it, each block to be seen */
    hi_addr address;
};

enum { MAP_STATES = BLOCK_SUSPECT + 1 };

struct map_cell {
    uint64_t bytes[MAP_STATES]; /* by enum block_state */
    uint32_t starts;            /* blocks that begin here, at most UINT32_MAX */
};

/* Addresses that are drawn without a break. */
struct map_segment {
    hi_addr start, end;
    uint64_t base; /* coordinate of start; a cell is coordinate / cell_bytes */
};

struct chunk_map {
    unsigned columns;
    uint64_t cell_bytes;
    bool one_block_a_cell; /* a slab from close by */
    bool is_zoomed;        /* cells are small enough to see where blocks begin */
    size_t cell_count;
    struct map_cell *cells;
    VECTOR(struct map_segment) segments;
};

/* HI_NOT_FOUND: no such arena, no heap at the address, or nothing to draw. */
HI_MUST_USE enum hi_code chunk_map_make(struct chunk_map *map, const struct inspection *in,
                                        const struct map_request *request, struct hi_err *err);
void chunk_map_free(struct chunk_map *map);
/* The address where a cell begins; false: the cell is padding behind a segment's end. */
bool chunk_map_address(const struct chunk_map *map, size_t cell, hi_addr *address);

#endif
