/*
 * functions: of one unit, which function and which inlined calls an address lies in.
 *
 * One walk over the unit's DIEs. A scope is a function with code or an inlined call; its parent is
 * the scope around it (lexical blocks between do not count). All scopes' ranges are flattened, so
 * that one search gives the innermost, and the parents give the chain.
 *
 * Walked into is whatever may hold functions, also namespaces and classes (rustc nests them there),
 * and functions without code (their bodies may define classes). The walk keeps its own stack and
 * leaves out what is nested deeper. Names are looked up when they are printed: they may lie several
 * references away, in other units and in the alternate file, which dwarf_attr_integrate() follows
 * for a bounded number of steps.
 *
 * Of a split unit the DIEs are in the .dwo; without it the skeleton's few are taken.
 */
#include "symbols/debug_info.h"

#include <dwarf.h>

enum { DEPTH_MAX = 512, SCOPES_MAX = 1 << 26 };

struct level {
    Dwarf_Die die;
    uint32_t scope; /* around die */
};

struct walk {
    struct debug_info *info;
    struct functions *functions;
    interval_vector intervals;
    bool is_c; /* no code within types */
    bool failed;
    size_t depth;
    struct level levels[DEPTH_MAX];
};

struct attributes {
    struct die_code code;
    Dwarf_Attribute call_file, call_line, call_column;
};

static int take_attribute(Dwarf_Attribute *attribute, void *context)
{
    struct attributes *attributes = context;
    switch (attribute->code) {
    case DW_AT_call_file:
        attributes->call_file = *attribute;
        break;
    case DW_AT_call_line:
        attributes->call_line = *attribute;
        break;
    case DW_AT_call_column:
        attributes->call_column = *attribute;
        break;
    default:
        die_code_take(&attributes->code, attribute);
    }
    return DWARF_CB_OK;
}

static uint32_t number_of(Dwarf_Attribute *attribute)
{
    Dwarf_Word value;
    if (!attribute->code || dwarf_formudata(attribute, &value) != 0 || value > UINT32_MAX)
        return 0;
    return (uint32_t)value;
}

/* The scope for what lies within die. An inlined call without ranges (DWARF 2 had no way to say
 * more than one) is known by the calls within it. */
static uint32_t add_scope(struct walk *walk, Dwarf_Die *die, uint32_t around, bool is_inlined)
{
    struct attributes attributes = {0};
    struct functions *functions = walk->functions;
    size_t index = functions->scopes.count, before = walk->intervals.count;
    dwarf_getattrs(die, take_attribute, &attributes, 0);
    uint32_t outside = is_inlined ? around : SCOPE_NONE;
    if (index >= SCOPES_MAX || (is_inlined && around == SCOPE_NONE))
        return outside;
    walk->failed |= !die_code_add(walk->info, die, &attributes.code, &walk->intervals,
                                  (uint32_t)index, (uint32_t)walk->depth);
    if (walk->intervals.count == before && !is_inlined)
        return outside;
    struct scope *scope = VECTOR_PUSH(&functions->scopes);
    if (!scope) {
        walk->intervals.count = before;
        walk->failed = true;
        return outside;
    }
    scope->die = *die;
    scope->parent = outside;
    scope->call_file = number_of(&attributes.call_file);
    scope->call_line = number_of(&attributes.call_line);
    scope->call_column = number_of(&attributes.call_column);
    return (uint32_t)index;
}

/* Does die's inside matter? *scope: around it before, within it after. */
static bool visit(struct walk *walk, Dwarf_Die *die, uint32_t *scope)
{
    switch (dwarf_tag(die)) {
    case DW_TAG_subprogram:
        *scope = add_scope(walk, die, *scope, false);
        return true;
    case DW_TAG_inlined_subroutine:
        *scope = add_scope(walk, die, *scope, true);
        return true;
    case DW_TAG_lexical_block:
    case DW_TAG_try_block:
    case DW_TAG_catch_block:
    case DW_TAG_with_stmt:
    case DW_TAG_namespace:
    case DW_TAG_module:
    case DW_TAG_common_block:
        return true;
    case DW_TAG_class_type:
    case DW_TAG_structure_type:
    case DW_TAG_union_type:
    case DW_TAG_variant_part:
    case DW_TAG_variant:
    case DW_TAG_interface_type:
        return !walk->is_c;
    default:
        return false;
    }
}

/*
 * The DIE after the current one and all below it. dwarf_siblingof() of a DIE whose children were
 * walked already would walk them all again where the compiler wrote no DW_AT_sibling (clang,
 * rustc): once more for each level. But of the last of a list it tells where the list ends, which
 * is where the next DIE of a level above begins. An entry of 0 ends each list; what lies behind the
 * end of the unit has no tag either, so that a damaged unit ends the walk.
 */
static bool move_on(struct walk *walk)
{
    Dwarf_Die next;
    struct level *level = &walk->levels[walk->depth];
    int result = dwarf_siblingof(&level->die, &next);
    if (result == 0)
        level->die = next;
    if (result <= 0 || !next.addr)
        return result == 0;
    while (walk->depth > 0) {
        level = &walk->levels[--walk->depth];
        next = (Dwarf_Die){.addr = (unsigned char *)next.addr + 1, .cu = level->die.cu};
        if (dwarf_tag(&next) != DW_TAG_invalid) {
            level->die = next;
            return true;
        }
    }
    return false;
}

static void walk_below(struct walk *walk, Dwarf_Die *root)
{
    struct debug_info *info = walk->info;
    walk->depth = 0;
    walk->levels[0].scope = SCOPE_NONE;
    if (dwarf_child(root, &walk->levels[0].die) != 0)
        return;
    while (!walk->failed && ++info->steps < info->budget) {
        struct level *level = &walk->levels[walk->depth];
        uint32_t within = level->scope;
        if (visit(walk, &level->die, &within) && walk->depth + 1 < DEPTH_MAX &&
            dwarf_child(&level->die, &level[1].die) == 0) {
            level[1].scope = within;
            walk->depth++;
            continue;
        }
        if (!move_on(walk))
            return;
    }
}

static bool language_is_c(Dwarf_Die *unit)
{
    switch (dwarf_srclang(unit)) {
    case DW_LANG_C:
    case DW_LANG_C89:
    case DW_LANG_C99:
    case DW_LANG_C11:
    case DW_LANG_Mips_Assembler:
        return true;
    default:
        return false;
    }
}

static void allow_split(struct debug_info *info, const Dwarf_Die *split)
{
    size_t bytes;
    Elf *elf = dwarf_getelf(dwarf_cu_getdwarf(split->cu));
    if (elf && elf_rawfile(elf, &bytes))
        debug_info_allow(info, bytes);
}

bool functions_read(struct debug_info *info, struct unit *unit)
{
    Dwarf_Die split = {0}, *root = &unit->die;
    uint8_t type = 0;
    if (dwarf_cu_info(unit->die.cu, NULL, &type, NULL, &split, NULL, NULL, NULL) == 0 &&
        type == DW_UT_skeleton && split.addr) {
        root = &split;
        allow_split(info, root);
    }
    struct walk *walk = calloc(1, sizeof *walk);
    if (!walk)
        return false;
    walk->info = info;
    walk->functions = &unit->functions;
    walk->is_c = unit->is_c = language_is_c(root);
    walk_below(walk, root);
    bool is_done = (!walk->failed || info->steps >= info->budget) &&
                   intervals_flatten(&walk->intervals, &unit->functions.by_address);
    VECTOR_FREE(&walk->intervals);
    free(walk);
    return is_done;
}

void functions_free(struct functions *functions)
{
    VECTOR_FREE(&functions->scopes);
    intervals_free(&functions->by_address);
}

static const char *text_of(struct scope *scope, unsigned name)
{
    Dwarf_Attribute attribute;
    return dwarf_formstring(dwarf_attr_integrate(&scope->die, name, &attribute));
}

bool name_is_mangled(const char *name)
{
    return name[0] == '_' && (name[1] == 'Z' || name[1] == 'R');
}

/* The linker's name says most where it is mangled: parameters, namespaces. Another one (asm labels:
 * __GI_getenv for getenv) says less than the source's. */
const char *scope_name(struct scope *scope)
{
    if (scope->is_named)
        return scope->name;
    scope->is_named = true;
    const char *linkage = text_of(scope, DW_AT_linkage_name);
    if (!linkage)
        linkage = text_of(scope, DW_AT_MIPS_linkage_name);
    const char *name = linkage && name_is_mangled(linkage) ? NULL : text_of(scope, DW_AT_name);
    scope->name = name ? name : linkage;
    return scope->name;
}
