/*
 * cfi_rows: how to get from a return address's frame to its caller's, in one word.
 *
 * For nearly all code at a call the CFA is rsp or rbp plus a constant, the return address lies
 * right below the CFA, and rbp is untouched or saved at a constant distance. That fits 28 bits, and
 * 36 more are enough to know which address they are for, beside the place of the word, a line of 64
 * bytes out of 2048. A multiplication by an odd number permutes the lower 42 bits of addresses; its
 * upper 6 bits choose a line of a page, its lower 36 are kept in the word. Which of 32 pages that
 * is says the rest: the 5 bits of the address above 42, exclusive-or 5 of the lower ones. Those are
 * counted in 2 KiB of code, so that rows of one piece of code lie on one page and its neighbours'
 * on others: what samples a small program, some dozen functions of three modules, touches 4 or 5
 * pages of rows (16, were they strewn by the product alone), and a large one all, as evenly.
 *
 * So the table is 128 KiB for the whole process, read and written one word at a time by all
 * threads, without order: each word stands for itself. A word that two threads write at once is
 * written twice. 0 is no row: ROW_NONE is not stored.
 *
 * Where there is no word, the module is looked up with _dl_find_object, which takes no lock and may
 * be called in signal handlers; where the C library does not have it, with dl_iterate_phdr, which
 * takes the dynamic linker's lock, once for each new return address. Then cfi_program.c reads.
 *
 * What goes out of date. A module that is unloaded leaves rows behind, and code that was made at
 * run time (ROW_BARE) may give way to a module. The first is noticed at the end of dlclose
 * (cfi_rows_unloaded), or, when the C library unloads something by itself, at the first row that
 * is made for another module in the same place (stack_table_module); the second when a module is
 * first met. Then the words are dropped and stack_hot.generation is raised, at which each thread
 * forgets what it kept. A row that was made across a change is dropped as well. What is left is
 * this: code of a new module in the place of one that vanished without dlclose, met for the first
 * time at the very return addresses that the old one had.
 */
#define _GNU_SOURCE
#include "cfi_rows.h"

#include "eh_frame_section.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/auxv.h>

#ifdef _dl_find_object
#undef _dl_find_object
#endif
#if defined(DLFO_STRUCT_HAS_EH_DBASE) && !defined(CFI_WITHOUT_FIND_OBJECT)
#define HAVE_DL_FIND_OBJECT 1
extern __typeof(_dl_find_object) _dl_find_object __attribute__((weak));
#endif

static uint8_t has_bare; /* some row is ROW_BARE */

/* ---- modules ---- */

static int phdr_visit(struct dl_phdr_info *info, size_t size, void *argument)
{
    struct loaded_module *module = argument;
    uintptr_t pc = module->start, start = UINTPTR_MAX, end = 0, hdr = 0;
    bool inside = false;
    (void)size;
    for (uint32_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t at = info->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_GNU_EH_FRAME)
            hdr = at;
        if (segment->p_type != PT_LOAD)
            continue;
        inside |= pc - at < segment->p_memsz;
        start = at < start ? at : start;
        end = at + segment->p_memsz > end ? at + segment->p_memsz : end;
    }
    if (!inside)
        return 0;
    *module =
        (struct loaded_module){start & ~(uintptr_t)(PAGE_BYTES - 1), round_up(end, PAGE_BYTES),
                               info->dlpi_addr, hdr, info->dlpi_name};
    return 1;
}

static bool module_is_executable(const struct loaded_module *module)
{
    return getauxval(AT_PHDR) - module->start < module->end - module->start;
}

#ifdef HAVE_DL_FIND_OBJECT
/* The segment of the same module that holds the address belongs to it as well. */
static void module_widen(struct loaded_module *module, const struct link_map *map,
                         uintptr_t address)
{
    struct dl_find_object found;
    if (address - module->start < module->end - module->start ||
        _dl_find_object((void *)address, &found) != 0 || found.dlfo_link_map != map)
        return;
    uintptr_t start = (uintptr_t)found.dlfo_map_start, end = (uintptr_t)found.dlfo_map_end;
    module->start = start < module->start ? start : module->start;
    module->end = end > module->end ? end : module->end;
}

/* An executable may be told of in parts, one a segment: then its tables are in another one. */
static bool module_find_object(uintptr_t pc, struct loaded_module *module)
{
    struct dl_find_object found;
    if (_dl_find_object((void *)pc, &found) != 0)
        return false;
    const struct link_map *map = found.dlfo_link_map;
    *module = (struct loaded_module){(uintptr_t)found.dlfo_map_start, (uintptr_t)found.dlfo_map_end,
                                     map ? map->l_addr : 0, (uintptr_t)found.dlfo_eh_frame,
                                     map ? map->l_name : NULL};
    if (map && module->eh_frame_hdr - module->start >= module->end - module->start) {
        module_widen(module, map, module->eh_frame_hdr);
        module_widen(module, map, (uintptr_t)map->l_ld);
        module_widen(module, map, getauxval(AT_PHDR));
        if (!module->eh_frame_hdr && module_is_executable(module))
            module_widen(module, map, eh_frame_section(module->bias));
    }
    return true;
}
#endif

static bool module_find(uintptr_t pc, struct loaded_module *module)
{
#ifdef HAVE_DL_FIND_OBJECT
    if (_dl_find_object)
        return module_find_object(pc, module);
#endif
    *module = (struct loaded_module){.start = pc};
    return dl_iterate_phdr(phdr_visit, module) == 1;
}

static struct cfi_image module_image(const struct loaded_module *module)
{
    return (struct cfi_image){(const uint8_t *)module->start, module->end - module->start,
                              module->start};
}

/* ---- from a row to its word ---- */

/* The expression is register + *number, and then a load if `load`. */
static bool expression_is(const struct cfi_image *image, const struct cfi_rule *rule, uint8_t kind,
                          uint32_t number, bool load, int64_t *distance)
{
    enum { OP_BREG0 = 0x70, OP_DEREF = 0x06 };
    struct cfi_cursor c;
    if (rule->kind != kind || !cfi_expression(image, rule, &c) ||
        cfi_number(&c, 1) != OP_BREG0 + number)
        return false;
    *distance = cfi_sleb(&c);
    return (!load || cfi_number(&c, 1) == OP_DEREF) && !c.failed && c.at == c.end;
}

/* In struct ucontext, as the kernel lays it on the stack of a handler's caller. */
enum { UCONTEXT_BP = 120, UCONTEXT_SP = 160, UCONTEXT_PC = 168 };

static bool row_is_signal(const struct cfi_image *image, const struct cfi_row *row)
{
    int64_t sp, bp, pc;
    return expression_is(image, &row->cfa, CFI_VALUE_EXPRESSION, CFI_SP, true, &sp) &&
           expression_is(image, &row->rules[CFI_BP], CFI_EXPRESSION, CFI_SP, false, &bp) &&
           expression_is(image, &row->rules[CFI_RA], CFI_EXPRESSION, CFI_SP, false, &pc) &&
           sp == UCONTEXT_SP && bp == UCONTEXT_BP && pc == UCONTEXT_PC;
}

static uint32_t row_make(enum row_kind kind, int64_t number, int64_t slot)
{
    if (number < 0 || number % 8 != 0 || number >> (ROW_NUMBER_BITS + 3) || slot < 0 ||
        slot > ROW_SLOT_MASK)
        return ROW_SLOW;
    return (uint32_t)number / 8 << ROW_NUMBER_SHIFT | (uint32_t)slot << ROW_SLOT_SHIFT |
           (uint32_t)kind;
}

static uint32_t row_pack(const struct cfi_image *image, const struct cfi_row *row, bool signal)
{
    const struct cfi_rule *ra = &row->rules[CFI_RA], *bp = &row->rules[CFI_BP];
    int64_t number, saved;
    if (ra->kind == CFI_UNDEFINED)
        return ROW_END;
    if (signal)
        return row_is_signal(image, row) ? ROW_SIGNAL : ROW_SLOW;
    if (ra->kind != CFI_OFFSET || ra->value != -8 || row->rules[CFI_SP].kind > CFI_UNDEFINED)
        return ROW_SLOW;
    if (expression_is(image, &row->cfa, CFI_VALUE_EXPRESSION, CFI_BP, true, &number) &&
        expression_is(image, bp, CFI_EXPRESSION, CFI_BP, false, &saved) && saved == 0)
        return row_make(ROW_DRAP, -number, 0);
    bool saves = bp->kind == CFI_OFFSET;
    if (row->cfa.kind != CFI_OFFSET || bp->kind > CFI_OFFSET ||
        (saves && (bp->value >= 0 || bp->value % 8 != 0)))
        return ROW_SLOW;
    int64_t slot = saves ? -(int64_t)bp->value / 8 : 0;
    if (row->cfa_register == CFI_SP)
        return row_make(ROW_SP, row->cfa.value, slot);
    return row->cfa_register == CFI_BP ? row_make(ROW_BP, row->cfa.value, slot) : ROW_SLOW;
}

static bool module_fde(const struct loaded_module *module, const struct cfi_image *image,
                       uintptr_t pc, struct cfi_fde *fde)
{
    if (module->eh_frame_hdr)
        return cfi_find(image, module->eh_frame_hdr, pc, fde);
    if (!module_is_executable(module))
        return false;
    uintptr_t frames = eh_frame_section(module->bias);
    return frames && cfi_find_from(image, frames, pc, fde);
}

static bool module_row(const struct loaded_module *module, uintptr_t pc, struct cfi_row *row,
                       bool *signal)
{
    struct cfi_image image = module_image(module);
    struct cfi_fde fde;
    if (!module_fde(module, &image, pc, &fde) || !cfi_row_at(&image, &fde, pc, row))
        return false;
    *signal = fde.signal;
    return true;
}

bool cfi_row_full(uintptr_t pc, bool exact, struct cfi_image *image, struct cfi_row *row,
                  bool *signal)
{
    struct loaded_module module;
    if (!module_find(pc - !exact, &module))
        return false;
    *image = module_image(&module);
    return module_row(&module, pc - !exact, row, signal);
}

/* ---- the table ---- */

static void rows_forget(bool only_bare)
{
    for (uint32_t i = 0; i < STACK_ROW_LINES * 8; i++) {
        uint64_t word = __atomic_load_n(&stack_hot.rows[i], __ATOMIC_RELAXED);
        if (word && (!only_bare || (word & ROW_KIND_MASK) == ROW_BARE))
            __atomic_store_n(&stack_hot.rows[i], 0, __ATOMIC_RELAXED);
    }
}

static void generation_end(bool only_bare)
{
    __atomic_fetch_add(&stack_hot.generation, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&stack_hot.table->epoch, !only_bare, __ATOMIC_RELAXED);
    rows_forget(only_bare);
}

static uint32_t row_look_up(uintptr_t pc, bool *keep)
{
    struct loaded_module module;
    struct cfi_fde fde;
    struct cfi_row row;
    uint32_t epoch, known = __atomic_load_n(&stack_hot.table->module_count, __ATOMIC_RELAXED);
    bool unloaded, signal;
    *keep = true;
    if (!module_find(pc, &module)) {
        __atomic_store_n(&has_bare, 1, __ATOMIC_RELAXED);
        return ROW_BARE;
    }
    *keep = stack_table_module(&module, &epoch, &unloaded);
    if (unloaded) {
        generation_end(false);
    } else if (__atomic_load_n(&has_bare, __ATOMIC_RELAXED) &&
               stack_hot.table->module_count != known) {
        __atomic_store_n(&has_bare, 0, __ATOMIC_RELAXED);
        generation_end(true);
    }
    uint32_t word = ROW_BARE;
    struct cfi_image image = module_image(&module);
    if (module_row(&module, pc, &row, &signal))
        word = row_pack(&image, &row, signal);
    else if (module_fde(&module, &image, pc + 1, &fde) && fde.pc_start == pc + 1)
        word = ROW_END; /* nobody called: makecontext wrote the start of this function there */
    else
        __atomic_store_n(&has_bare, 1, __ATOMIC_RELAXED);
    return epoch ? word | ROW_EPOCHED : word;
}

/* Its own place, else one that is free, else its own place all the same. */
static void row_keep(uint64_t *line, uint64_t first, uint64_t word, uint32_t generation)
{
    uint64_t *place = &line[first];
    for (uint32_t i = 0; i < 8 && __atomic_load_n(place, __ATOMIC_RELAXED) != 0; i++)
        place = &line[(first + i + 1) % 8];
    __atomic_store_n(place, word, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&stack_hot.generation, __ATOMIC_RELAXED) != generation)
        __atomic_store_n(place, 0, __ATOMIC_RELAXED);
}

/* The rest of the line, and then the module. */
NOINLINE uint32_t cfi_row_fill(uintptr_t pc)
{
    struct row_place place = row_place(pc);
    if (pc >> ROW_PC_BITS || pc == 0)
        return ROW_BARE;
    for (uint32_t i = 0; i < 8; i++) {
        uint64_t word = __atomic_load_n(&place.line[i], __ATOMIC_RELAXED);
        if (word >> ROW_BITS == place.tag && (word & ROW_KIND_MASK) != ROW_NONE)
            return (uint32_t)word & ((1u << ROW_BITS) - 1);
    }
    uint32_t generation = __atomic_load_n(&stack_hot.generation, __ATOMIC_ACQUIRE);
    bool keep;
    uint32_t row = row_look_up(pc - 1, &keep);
    if (keep)
        row_keep(place.line, place.first, place.tag << ROW_BITS | row, generation);
    return row;
}

uint32_t cfi_row_exact(uintptr_t pc)
{
    bool keep;
    return pc >> ROW_PC_BITS ? ROW_BARE : row_look_up(pc, &keep);
}

void cfi_rows_unloaded(void)
{
    if (stack_table_sweep(module_find))
        generation_end(false);
}
