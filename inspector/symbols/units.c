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

static struct line_table *find_lines(struct debug_info *info, uint64_t offset)
{
    for (size_t i = 0; i < info->lines.count; i++)
        if (info->lines.items[i]->offset == offset)
            return info->lines.items[i];
    struct line_table **kept = VECTOR_PUSH(&info->lines);
    struct line_table *table = kept ? calloc(1, sizeof *table) : NULL;
    if (!table) {
        info->lines.count -= kept != NULL;
        return NULL;
    }
    *kept = table;
    if (info->steps < info->budget && !lines_read(table, &info->sections, offset, &info->steps)) {
        lines_free(table);
        memset(table, 0, sizeof *table);
    }
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
    intervals_free(&info->by_address);
}
