/*
 * units: which compilation unit an address belongs to.
 *
 * By the units' own DW_AT_ranges or low_pc and high_pc, never by .debug_aranges, which clang and
 * rustc leave out. Ranges of code that the linker discarded lie at 0 or beyond all code, and are
 * left out. DWARF 2 has no way to say more than one range: there the functions are read to find
 * them.
 */
#include "symbols/debug_info.h"

#include <dwarf.h>

enum { UNITS_MAX = 1 << 22 };

bool die_code_take(struct die_code *code, const Dwarf_Attribute *attribute)
{
    switch (attribute->code) {
    case DW_AT_low_pc:
        code->low = *attribute;
        return code->has_low = true;
    case DW_AT_high_pc:
        code->high = *attribute;
        return code->has_high = true;
    case DW_AT_ranges:
        code->ranges = *attribute;
        return code->has_ranges = true;
    default:
        return false;
    }
}

static bool add_range(struct debug_info *info, uint64_t start, uint64_t end,
                      interval_vector *intervals, uint32_t value, uint32_t depth)
{
    if (start < info->text_start || end > info->text_end || start >= end)
        return true;
    struct interval *interval = VECTOR_PUSH(intervals);
    if (interval)
        *interval = (struct interval){start, end, value, depth};
    return interval != NULL;
}

bool die_code_add(struct debug_info *info, Dwarf_Die *die, const struct die_code *code,
                  interval_vector *intervals, uint32_t value, uint32_t depth)
{
    Dwarf_Attribute low = code->low, high = code->high;
    Dwarf_Addr base, start, end;
    if (!code->has_ranges) {
        Dwarf_Word bytes;
        if (!code->has_low || !code->has_high || dwarf_formaddr(&low, &start) != 0)
            return true;
        if (dwarf_formaddr(&high, &end) == 0)
            return add_range(info, start, end, intervals, value, depth);
        return dwarf_formudata(&high, &bytes) != 0 ||
               add_range(info, start, start + bytes, intervals, value, depth);
    }
    for (ptrdiff_t at = 0; (at = dwarf_ranges(die, at, &base, &start, &end)) > 0;)
        if (++info->steps > info->budget || !add_range(info, start, end, intervals, value, depth))
            return false;
    return true;
}

static int take_code(Dwarf_Attribute *attribute, void *context)
{
    die_code_take(context, attribute);
    return DWARF_CB_OK;
}

/* Functions tell what the unit does not say of itself. */
static bool add_functions(struct debug_info *info, struct unit *unit, interval_vector *intervals)
{
    uint32_t index = (uint32_t)(unit - info->units.items);
    if (!functions_read(info, unit))
        return false;
    const struct interval_table *table = &unit->functions.by_address;
    for (size_t k = 0; k + 1 < table->count; k++)
        if (table->values[k] != INTERVAL_NONE &&
            !add_range(info, table->starts[k], table->starts[k + 1], intervals, index, 1))
            return false;
    return true;
}

static bool add_unit(struct debug_info *info, Dwarf_Die *die, Dwarf_Half version,
                     interval_vector *intervals)
{
    struct die_code code = {0};
    size_t before = intervals->count;
    dwarf_getattrs(die, take_code, &code, 0);
    if (!die_code_add(info, die, &code, intervals, (uint32_t)info->units.count, 0))
        return info->steps > info->budget;
    if (intervals->count == before && version > 2)
        return true;
    struct unit *unit = VECTOR_PUSH(&info->units);
    if (!unit)
        return false;
    unit->die = *die;
    return version > 2 || add_functions(info, unit, intervals);
}

bool units_read(struct debug_info *info)
{
    interval_vector intervals = {0};
    Dwarf_CU *cu = NULL;
    Dwarf_Die die;
    Dwarf_Half version;
    uint8_t type;
    bool is_done = true;
    while (is_done && info->units.count < UNITS_MAX &&
           dwarf_get_units(info->dwarf, cu, &cu, &version, &type, &die, NULL) == 0) {
        if ((type == DW_UT_compile || type == DW_UT_skeleton || type == DW_UT_partial) &&
            ++info->steps < info->budget)
            is_done = add_unit(info, &die, version, &intervals);
    }
    is_done = is_done && intervals_flatten(&intervals, &info->by_address);
    VECTOR_FREE(&intervals);
    return is_done;
}

/* -- one unit ----------------------------------------------------------------------------------*/

/* Where the table of an offset is, or would go. */
static uint32_t *line_slot(const struct debug_info *info, uint64_t offset)
{
    size_t mask = info->line_slot_count - 1, at = offset * 0x9e3779b97f4a7c15u >> 20 & mask;
    while (info->line_slots[at] && info->lines.items[info->line_slots[at] - 1]->offset != offset)
        at = (at + 1) & mask;
    return &info->line_slots[at];
}

/* Room for one table more; half of the slots stay empty. */
static bool grow_line_slots(struct debug_info *info)
{
    if (info->lines.count * 2 < info->line_slot_count)
        return true;
    size_t wanted = info->line_slot_count ? info->line_slot_count * 2 : 64;
    uint32_t *slots = calloc(wanted, sizeof *slots);
    if (!slots)
        return false;
    free(info->line_slots);
    info->line_slots = slots;
    info->line_slot_count = wanted;
    for (size_t i = 0; i < info->lines.count; i++)
        *line_slot(info, info->lines.items[i]->offset) = (uint32_t)i + 1;
    return true;
}

static struct line_table *add_lines(struct debug_info *info, uint64_t offset)
{
    struct line_table *table = calloc(1, sizeof *table);
    struct line_table **kept = table ? VECTOR_PUSH(&info->lines) : NULL;
    if (!kept) {
        free(table);
        return NULL;
    }
    *kept = table;
    table->offset = offset;
    if (info->steps < info->budget && !lines_read(table, &info->sections, offset, &info->steps)) {
        lines_free(table);
        memset(table, 0, sizeof *table);
        table->offset = offset;
    }
    return table;
}

/* Units may share a table. */
static struct line_table *find_lines(struct debug_info *info, uint64_t offset)
{
    if (!grow_line_slots(info))
        return NULL;
    uint32_t *slot = line_slot(info, offset);
    if (*slot)
        return info->lines.items[*slot - 1];
    struct line_table *table = add_lines(info, offset);
    if (table)
        *slot = (uint32_t)info->lines.count;
    return table;
}

static void open_unit(struct debug_info *info, struct unit *unit)
{
    Dwarf_Attribute attribute;
    Dwarf_Word offset;
    unit->is_indexed = true;
    if (unit->functions.scopes.count == 0 && !functions_read(info, unit))
        functions_free(&unit->functions);
    const char *directory = dwarf_formstring(dwarf_attr(&unit->die, DW_AT_comp_dir, &attribute));
    unit->compile_directory = directory ? directory : "";
    if (dwarf_formudata(dwarf_attr(&unit->die, DW_AT_stmt_list, &attribute), &offset) == 0)
        unit->lines = find_lines(info, offset);
}

struct unit *units_find(struct debug_info *info, uint64_t vaddr)
{
    uint32_t index = intervals_find(&info->by_address, vaddr);
    if (index == INTERVAL_NONE)
        return NULL;
    struct unit *unit = &info->units.items[index];
    if (!unit->is_indexed)
        open_unit(info, unit);
    return unit;
}

void units_free(struct debug_info *info)
{
    for (size_t i = 0; i < info->units.count; i++)
        functions_free(&info->units.items[i].functions);
    VECTOR_FREE(&info->units);
    for (size_t i = 0; i < info->lines.count; i++) {
        lines_free(info->lines.items[i]);
        free(info->lines.items[i]);
    }
    VECTOR_FREE(&info->lines);
    free(info->line_slots);
    intervals_free(&info->by_address);
}
