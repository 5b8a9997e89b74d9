/*
 * map: the picture. Plain characters carry the whole meaning; colour only repeats it, so that
 * nothing is lost where there is none.
 */
#include "report/reports.h"

struct look {
    char character;
    unsigned colour; /* of 256 */
};

static uint64_t sum(const struct map_cell *cell)
{
    uint64_t bytes = 0;
    for (unsigned s = 0; s < MAP_STATES; s++)
        bytes += cell->bytes[s];
    return bytes;
}

/* The rarest kinds win, since they are what one looks for; then how much is live. */
static struct look look_of(const struct chunk_map *map, const struct map_cell *cell)
{
    uint64_t live = cell->bytes[BLOCK_LIVE], all = sum(cell);
    bool inner = map->is_zoomed && !map->one_block_a_cell && !cell->starts;
    if (!all)
        return (struct look){' ', 0};
    if (cell->bytes[BLOCK_SUSPECT])
        return (struct look){'!', 196};
    if (cell->bytes[BLOCK_IN_FLIGHT])
        return (struct look){'x', 208};
    if (!live && cell->bytes[BLOCK_CACHED] >= cell->bytes[BLOCK_FREE])
        return (struct look){inner ? '~' : 'c', 44};
    if (!live)
        return (struct look){inner ? ' ' : '.', 240};
    if (map->is_zoomed)
        return (struct look){inner ? '=' : '#', 46};
    if (live >= all - all / 8)
        return (struct look){'#', 46};
    return live >= all / 2 ? (struct look){'+', 34} : (struct look){'-', 28};
}

static void say_legend(const struct report *report, const struct chunk_map *map)
{
    struct writer *w = report->writer;
    writer_style(w, STYLE_QUIET);
    if (map->one_block_a_cell)
        writer_text(w, "one character a block: # live  c cached  . free  x in flight  ! suspect");
    else if (map->is_zoomed)
        writer_text(w, "#=== live block  c~~~ cached  . free  x in flight  ! suspect");
    else
        writer_text(w, "# live  + mostly live  - partly live  c cached  . free  x in flight  "
                       "! suspect");
    writer_style(w, STYLE_PLAIN);
    writer_text(w, "\n");
}

static void draw(struct writer *w, struct look look, unsigned *colour)
{
    char text[2] = {look.character, '\0'};
    if (look.colour != *colour && look.character != ' ') {
        writer_colour(w, look.colour);
        *colour = look.colour;
    }
    writer_text(w, text);
}

static void draw_row(const struct report *report, const struct chunk_map *map, size_t first)
{
    struct writer *w = report->writer;
    hi_addr address;
    unsigned colour = 0;
    (void)chunk_map_address(map, first, &address);
    writer_style(w, STYLE_QUIET);
    writer_address(w, NULL, "{:14} ", address);
    writer_style(w, STYLE_PLAIN);
    size_t end = first + map->columns < map->cell_count ? first + map->columns : map->cell_count;
    for (size_t i = first; i < end; i++)
        draw(w, look_of(map, &map->cells[i]), &colour);
    writer_style(w, STYLE_PLAIN);
    writer_text(w, "\n");
}

/* A cell for programs. Its text is the picture. */
static void say_cell(const struct report *report, const struct chunk_map *map, size_t index)
{
    static const char *const keys[MAP_STATES] = {"free", "live", "cached", "in_flight", "suspect"};
    struct writer *w = report->writer;
    const struct map_cell *cell = &map->cells[index];
    hi_addr address;
    if (!chunk_map_address(map, index, &address))
        return;
    writer_object_begin(w, NULL);
    writer_address(w, "address", NULL, address);
    for (unsigned s = 0; s < MAP_STATES; s++)
        writer_number(w, keys[s], NULL, cell->bytes[s]);
    writer_number(w, "starts", NULL, cell->starts);
    char picture[2] = {look_of(map, cell).character, '\0'};
    writer_string(w, "look", NULL, picture);
    writer_object_end(w);
}

void report_map(const struct report *report, const struct chunk_map *map)
{
    struct writer *w = report->writer;
    report_begin(report, "heapinspect.map.v1");
    if (writer_is_json(w))
        report_heaps(report);
    writer_object_begin(w, "map");
    writer_bytes(w, "cell_bytes", "one character is {}", map->cell_bytes);
    writer_number(w, "columns", NULL, map->columns); /* seen */
    writer_number(w, "cell_count", NULL, map->cell_count);
    writer_text(w, "; ");
    say_legend(report, map);
    writer_list_begin(w, "cells");
    if (writer_is_json(w))
        for (size_t i = 0; i < map->cell_count; i++)
            say_cell(report, map, i);
    else
        for (size_t i = 0; i < map->cell_count; i += map->columns)
            draw_row(report, map, i);
    writer_list_end(w);
    writer_object_end(w);
    report_end(report);
}
