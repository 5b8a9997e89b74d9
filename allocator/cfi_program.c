/*
 * cfi_program: what .eh_frame says of one instruction.
 *
 * Terms. A module describes its functions in .eh_frame: an FDE each, which leans on a CIE that many
 * share. Both hold a little program; run up to a pc, it gives a row: how to find the canonical
 * frame address (CFA, the stack pointer as it was before the call) and where each register of the
 * caller was saved. .eh_frame_hdr is a sorted table of functions and FDEs.
 *
 * This file reads bytes and trusts none: everything lies in one image, every read is checked
 * against its end, a cursor that ran out stays failed and gives zeros, counts are bounded by the
 * bytes that are left, and an instruction that is not known fails the row. It calls nothing, keeps
 * nothing and needs about 1.5 KiB of stack, so that it can run in a signal handler.
 *
 * Not read: .debug_frame; tables of .eh_frame_hdr in encodings other than that which all linkers
 * write (then .eh_frame is searched from its start); images of 2 GiB and more.
 */
#include "cfi_program.h"

#include <string.h>

enum {
    PE_ABSOLUTE = 0x00,
    PE_ULEB = 0x01,
    PE_UDATA2 = 0x02,
    PE_UDATA4 = 0x03,
    PE_UDATA8 = 0x04,
    PE_SIGNED = 0x08,
    PE_SLEB = 0x09,
    PE_SDATA2 = 0x0a,
    PE_SDATA4 = 0x0b,
    PE_SDATA8 = 0x0c,
    PE_PC_RELATIVE = 0x10,
    PE_DATA_RELATIVE = 0x30,
    PE_INDIRECT = 0x80,
    PE_OMIT = 0xff,
    HDR_TABLE = PE_DATA_RELATIVE | PE_SDATA4,
    FDE_SEARCH_MAX = 1 << 20, /* entries, where there is no table */
};

enum {
    OP_NOP = 0x00,
    OP_SET_LOC = 0x01,
    OP_ADVANCE_LOC1 = 0x02,
    OP_ADVANCE_LOC2 = 0x03,
    OP_ADVANCE_LOC4 = 0x04,
    OP_OFFSET_EXTENDED = 0x05,
    OP_RESTORE_EXTENDED = 0x06,
    OP_UNDEFINED = 0x07,
    OP_SAME_VALUE = 0x08,
    OP_REGISTER = 0x09,
    OP_REMEMBER_STATE = 0x0a,
    OP_RESTORE_STATE = 0x0b,
    OP_DEF_CFA = 0x0c,
    OP_DEF_CFA_REGISTER = 0x0d,
    OP_DEF_CFA_OFFSET = 0x0e,
    OP_DEF_CFA_EXPRESSION = 0x0f,
    OP_EXPRESSION = 0x10,
    OP_OFFSET_EXTENDED_SF = 0x11,
    OP_DEF_CFA_SF = 0x12,
    OP_DEF_CFA_OFFSET_SF = 0x13,
    OP_VAL_OFFSET = 0x14,
    OP_VAL_OFFSET_SF = 0x15,
    OP_VAL_EXPRESSION = 0x16,
    OP_GNU_ARGS_SIZE = 0x2e,
    OP_GNU_NEGATIVE_OFFSET = 0x2f,
    OP_ADVANCE_LOC = 0x40,
    OP_OFFSET = 0x80,
    OP_RESTORE = 0xc0,
};

/* ---- bytes ---- */

uint64_t cfi_number(struct cfi_cursor *c, uint32_t bytes)
{
    uint64_t value = 0;
    if (c->failed || c->end - c->at < bytes) {
        c->failed = true;
        return 0;
    }
    memcpy(&value, c->image->bytes + c->at, bytes); /* little endian, as the machine is */
    c->at += bytes;
    return value;
}

uint64_t cfi_uleb(struct cfi_cursor *c)
{
    uint64_t value = 0;
    for (uint32_t shift = 0;; shift += 7) {
        uint64_t byte = cfi_number(c, 1);
        if (shift < 64)
            value |= (byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
}

int64_t cfi_sleb(struct cfi_cursor *c)
{
    uint64_t value = 0, byte;
    uint32_t shift = 0;
    do {
        byte = cfi_number(c, 1);
        if (shift < 64)
            value |= (byte & 0x7f) << shift;
        shift += 7;
    } while (byte & 0x80);
    if (shift < 64 && (byte & 0x40))
        value |= ~0ULL << shift;
    return (int64_t)value;
}

static uint64_t cursor_address(const struct cfi_cursor *c)
{
    return c->image->address + c->at;
}

/* False: not an address of the image. */
static bool image_offset(const struct cfi_image *image, uint64_t address, size_t *offset)
{
    uint64_t distance = address - image->address;
    *offset = (size_t)distance;
    return distance < image->byte_count;
}

static int64_t pointer_value(struct cfi_cursor *c, uint8_t encoding)
{
    switch (encoding & 0x0f) {
    case PE_ABSOLUTE:
    case PE_UDATA8:
    case PE_SDATA8:
    case PE_SIGNED:
        return (int64_t)cfi_number(c, 8);
    case PE_ULEB:
        return (int64_t)cfi_uleb(c);
    case PE_SLEB:
        return cfi_sleb(c);
    case PE_UDATA2:
        return (int64_t)cfi_number(c, 2);
    case PE_SDATA2:
        return (int16_t)cfi_number(c, 2);
    case PE_UDATA4:
        return (int64_t)cfi_number(c, 4);
    case PE_SDATA4:
        return (int32_t)cfi_number(c, 4);
    default:
        c->failed = true;
        return 0;
    }
}

/* data_address is what data-relative ones count from. Indirect ones are not followed: only those
 * of personalities are, and these are of no interest. */
static uint64_t cfi_pointer(struct cfi_cursor *c, uint8_t encoding, uint64_t data_address)
{
    uint64_t base = 0;
    if (encoding == PE_OMIT)
        return 0;
    if ((encoding & 0x70) == PE_PC_RELATIVE)
        base = cursor_address(c);
    else if ((encoding & 0x70) == PE_DATA_RELATIVE)
        base = data_address;
    else if ((encoding & 0x70) != PE_ABSOLUTE)
        c->failed = true;
    return base + (uint64_t)pointer_value(c, encoding);
}

/* ---- CIE and FDE ---- */

/* The head of an entry: its body; the offset of the word that says CIE or FDE in *id. */
static bool entry_head(const struct cfi_image *image, size_t offset, struct cfi_cursor *body,
                       size_t *id)
{
    struct cfi_cursor c = {image, offset, image->byte_count, false};
    uint64_t length = cfi_number(&c, 4);
    if (length == 0xffffffff)
        length = cfi_number(&c, 8);
    if (c.failed || length < 4 || length > c.end - c.at)
        return false;
    *id = c.at;
    *body = (struct cfi_cursor){image, c.at, c.at + length, false};
    return true;
}

/* What the letters of the augmentation say; `at_data` stands at their data. */
static bool augmentation_read(struct cfi_cursor *c, size_t letters, struct cfi_fde *fde)
{
    size_t data_end = 0;
    for (size_t i = letters; c->image->bytes[i] && !c->failed; i++) {
        switch (c->image->bytes[i]) {
        case 'z': {
            uint64_t bytes = cfi_uleb(c);
            if (c->failed || i != letters || bytes > c->end - c->at)
                return false;
            data_end = c->at + bytes;
            fde->augmented = true;
            break;
        }
        case 'R':
            fde->pointer_encoding = (uint8_t)cfi_number(c, 1);
            break;
        case 'P': {
            uint8_t encoding = (uint8_t)cfi_number(c, 1);
            cfi_pointer(c, encoding & (uint8_t)~PE_INDIRECT, 0);
            break;
        }
        case 'L':
            cfi_number(c, 1);
            break;
        case 'S':
            fde->signal = true;
            break;
        default: /* its data are not known; with 'z' they can be stepped over */
            if (!data_end)
                return false;
            c->at = data_end;
            return !c->failed;
        }
    }
    if (data_end)
        c->at = data_end;
    return !c->failed;
}

static bool cie_read(const struct cfi_image *image, size_t offset, struct cfi_fde *fde)
{
    struct cfi_cursor c;
    size_t id;
    if (!entry_head(image, offset, &c, &id) || cfi_number(&c, 4) != 0)
        return false;
    uint64_t version = cfi_number(&c, 1);
    size_t letters = c.at;
    while (cfi_number(&c, 1) != 0)
        ;
    if (c.failed || (version != 1 && version != 3 && version != 4))
        return false;
    uint64_t address_bytes = version == 4 ? cfi_number(&c, 1) : 8;
    uint64_t selector_bytes = version == 4 ? cfi_number(&c, 1) : 0;
    if (address_bytes != 8 || selector_bytes != 0)
        return false;
    fde->code_factor = cfi_uleb(&c);
    fde->data_factor = cfi_sleb(&c);
    fde->ra_register = (uint32_t)(version == 1 ? cfi_number(&c, 1) : cfi_uleb(&c));
    fde->pointer_encoding = PE_ABSOLUTE;
    fde->signal = fde->augmented = false;
    if (c.failed || !augmentation_read(&c, letters, fde))
        return false;
    fde->cie_program = c.at;
    fde->cie_program_end = c.end;
    return fde->ra_register == CFI_RA;
}

bool cfi_fde_at(const struct cfi_image *image, uint64_t address, struct cfi_fde *fde,
                uint64_t *next)
{
    struct cfi_cursor c;
    size_t offset, id;
    if (next)
        *next = 0;
    if (!image_offset(image, address, &offset) || !entry_head(image, offset, &c, &id))
        return false;
    if (next)
        *next = image->address + c.end;
    uint64_t back = cfi_number(&c, 4);
    if (back == 0 || back > id || !cie_read(image, id - back, fde))
        return false;
    fde->pc_start = cfi_pointer(&c, fde->pointer_encoding, 0);
    uint64_t length = cfi_pointer(&c, fde->pointer_encoding & 0x0f, 0);
    fde->pc_end = fde->pc_start + length;
    if (c.failed || fde->pc_end < fde->pc_start || (fde->pointer_encoding & PE_INDIRECT))
        return false;
    if (fde->augmented) {
        uint64_t bytes = cfi_uleb(&c);
        if (c.failed || bytes > c.end - c.at)
            return false;
        c.at += bytes;
    }
    fde->program = c.at;
    fde->program_end = c.end;
    return !c.failed;
}

bool cfi_find_from(const struct cfi_image *image, uint64_t frames_address, uint64_t pc,
                   struct cfi_fde *fde)
{
    uint64_t address = frames_address;
    for (uint32_t i = 0; address && i < FDE_SEARCH_MAX; i++) {
        uint64_t next;
        if (cfi_fde_at(image, address, fde, &next) &&
            pc - fde->pc_start < fde->pc_end - fde->pc_start)
            return true;
        address = next;
    }
    return false;
}

/* A row of the table: distances from the header to a function and to its FDE, 4 bytes each. */
static int32_t table_number(const struct cfi_image *image, size_t table, uint64_t index,
                            uint32_t column)
{
    int32_t value;
    memcpy(&value, image->bytes + table + index * 8 + column * 4, sizeof value);
    return value;
}

bool cfi_find(const struct cfi_image *image, uint64_t hdr_address, uint64_t pc, struct cfi_fde *fde)
{
    size_t offset;
    if (!image_offset(image, hdr_address, &offset))
        return false;
    struct cfi_cursor c = {image, offset, image->byte_count, false};
    uint64_t version = cfi_number(&c, 1);
    uint8_t frame_encoding = (uint8_t)cfi_number(&c, 1),
            count_encoding = (uint8_t)cfi_number(&c, 1);
    uint8_t table_encoding = (uint8_t)cfi_number(&c, 1);
    uint64_t frames = cfi_pointer(&c, frame_encoding, hdr_address);
    if (c.failed || version != 1)
        return false;
    uint64_t count = cfi_pointer(&c, count_encoding, hdr_address);
    if (count_encoding == PE_OMIT || table_encoding != HDR_TABLE)
        return cfi_find_from(image, frames, pc, fde);
    if (c.failed || count > (c.end - c.at) / 8)
        return false;
    int64_t distance = (int64_t)(pc - hdr_address);
    uint64_t low = 0, high = count; /* the first function behind pc */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (table_number(image, c.at, middle, 0) > distance)
            high = middle;
        else
            low = middle + 1;
    }
    if (low == 0)
        return false;
    uint64_t address = hdr_address + (uint64_t)(int64_t)table_number(image, c.at, low - 1, 1);
    return cfi_fde_at(image, address, fde, NULL) &&
           pc - fde->pc_start < fde->pc_end - fde->pc_start;
}

/* ---- rows ---- */

struct row_machine {
    struct cfi_cursor c;
    const struct cfi_fde *fde;
    uint64_t location;
    struct cfi_row row;
    struct cfi_row initial; /* as the CIE left it; what RESTORE goes back to */
    bool has_initial;
    uint32_t remembered_count;
    struct cfi_row *remembered;
};

static void machine_fail(struct row_machine *m)
{
    m->c.failed = true;
}

static int32_t checked_i32(struct row_machine *m, int64_t value)
{
    if (value != (int32_t)value)
        machine_fail(m);
    return (int32_t)value;
}

/* What is said of registers that are not general ones (vectors, flags) is read and dropped. */
static void rule_set(struct row_machine *m, uint64_t number, enum cfi_kind kind, int64_t value)
{
    int32_t narrow = checked_i32(m, value);
    if (number < CFI_REGISTERS)
        m->row.rules[number] = (struct cfi_rule){(uint8_t)kind, narrow};
}

static void rule_restore(struct row_machine *m, uint64_t number)
{
    if (!m->has_initial)
        machine_fail(m);
    else if (number < CFI_REGISTERS)
        m->row.rules[number] = m->initial.rules[number];
}

static int64_t factored(struct row_machine *m, int64_t number)
{
    int64_t value;
    if (__builtin_mul_overflow(number, m->fde->data_factor, &value))
        machine_fail(m);
    return value;
}

static int64_t factored_uleb(struct row_machine *m)
{
    return factored(m, (int64_t)cfi_uleb(&m->c));
}

static int64_t factored_sleb(struct row_machine *m)
{
    return factored(m, cfi_sleb(&m->c));
}

/* Where an expression stands: at its length. */
static int64_t expression_skip(struct row_machine *m)
{
    size_t start = m->c.at;
    uint64_t bytes = cfi_uleb(&m->c);
    if (bytes > m->c.end - m->c.at)
        machine_fail(m);
    else
        m->c.at += bytes;
    return (int64_t)start;
}

static void cfa_set(struct row_machine *m, uint64_t number, int64_t offset)
{
    m->row.cfa_offset = checked_i32(m, offset);
    m->row.cfa = (struct cfi_rule){CFI_OFFSET, m->row.cfa_offset};
    m->row.cfa_register = (uint32_t)number;
    if (number >= CFI_REGISTERS)
        machine_fail(m);
}

static void state_remember(struct row_machine *m)
{
    if (m->remembered_count == CFI_REMEMBER_MAX)
        machine_fail(m);
    else
        m->remembered[m->remembered_count++] = m->row;
}

static void state_restore(struct row_machine *m)
{
    if (m->remembered_count == 0)
        machine_fail(m);
    else
        m->row = m->remembered[--m->remembered_count];
}

static void location_advance(struct row_machine *m, uint64_t units)
{
    m->location += units * m->fde->code_factor;
}

static void run_cfa(struct row_machine *m, uint8_t op)
{
    uint64_t number;
    switch (op) {
    case OP_DEF_CFA:
        number = cfi_uleb(&m->c);
        cfa_set(m, number, (int64_t)cfi_uleb(&m->c));
        break;
    case OP_DEF_CFA_SF:
        number = cfi_uleb(&m->c);
        cfa_set(m, number, factored_sleb(m));
        break;
    case OP_DEF_CFA_REGISTER:
        cfa_set(m, cfi_uleb(&m->c), m->row.cfa_offset); /* as unwinders do */
        break;
    case OP_DEF_CFA_OFFSET:
        cfa_set(m, m->row.cfa_register, (int64_t)cfi_uleb(&m->c));
        break;
    case OP_DEF_CFA_OFFSET_SF:
        cfa_set(m, m->row.cfa_register, factored_sleb(m));
        break;
    case OP_DEF_CFA_EXPRESSION:
        m->row.cfa = (struct cfi_rule){CFI_VALUE_EXPRESSION, checked_i32(m, expression_skip(m))};
        break;
    default:
        machine_fail(m);
    }
}

/* Instructions that say something of one register. */
static void run_register(struct row_machine *m, uint8_t op)
{
    uint64_t number = cfi_uleb(&m->c);
    switch (op) {
    case OP_OFFSET_EXTENDED:
        rule_set(m, number, CFI_OFFSET, factored_uleb(m));
        break;
    case OP_OFFSET_EXTENDED_SF:
        rule_set(m, number, CFI_OFFSET, factored_sleb(m));
        break;
    case OP_GNU_NEGATIVE_OFFSET:
        rule_set(m, number, CFI_OFFSET, -factored_uleb(m));
        break;
    case OP_VAL_OFFSET:
        rule_set(m, number, CFI_VALUE_OFFSET, factored_uleb(m));
        break;
    case OP_VAL_OFFSET_SF:
        rule_set(m, number, CFI_VALUE_OFFSET, factored_sleb(m));
        break;
    case OP_RESTORE_EXTENDED:
        rule_restore(m, number);
        break;
    case OP_UNDEFINED:
        rule_set(m, number, CFI_UNDEFINED, 0);
        break;
    case OP_SAME_VALUE:
        rule_set(m, number, CFI_SAME, 0);
        break;
    case OP_REGISTER:
        rule_set(m, number, CFI_REGISTER, (int64_t)(cfi_uleb(&m->c) & 0xffff));
        break;
    case OP_EXPRESSION:
        rule_set(m, number, CFI_EXPRESSION, expression_skip(m));
        break;
    case OP_VAL_EXPRESSION:
        rule_set(m, number, CFI_VALUE_EXPRESSION, expression_skip(m));
        break;
    default:
        machine_fail(m);
    }
}

static void run_extended(struct row_machine *m, uint8_t op)
{
    switch (op) {
    case OP_NOP:
        break;
    case OP_SET_LOC:
        m->location = cfi_pointer(&m->c, m->fde->pointer_encoding, 0);
        break;
    case OP_ADVANCE_LOC1:
        location_advance(m, cfi_number(&m->c, 1));
        break;
    case OP_ADVANCE_LOC2:
        location_advance(m, cfi_number(&m->c, 2));
        break;
    case OP_ADVANCE_LOC4:
        location_advance(m, cfi_number(&m->c, 4));
        break;
    case OP_REMEMBER_STATE:
        state_remember(m);
        break;
    case OP_RESTORE_STATE:
        state_restore(m);
        break;
    case OP_GNU_ARGS_SIZE:
        cfi_uleb(&m->c);
        break;
    default:
        if (op >= OP_DEF_CFA && op != OP_EXPRESSION && op <= OP_DEF_CFA_OFFSET_SF &&
            op != OP_OFFSET_EXTENDED_SF)
            run_cfa(m, op);
        else
            run_register(m, op);
    }
}

/* Up to the first instruction that is for places behind pc. */
static bool machine_run(struct row_machine *m, size_t start, size_t end, uint64_t pc)
{
    m->c = (struct cfi_cursor){m->c.image, start, end, false};
    while (m->c.at < end && !m->c.failed && m->location <= pc) {
        uint8_t op = (uint8_t)cfi_number(&m->c, 1);
        switch (op & 0xc0) {
        case OP_ADVANCE_LOC:
            location_advance(m, op & 0x3f);
            break;
        case OP_OFFSET:
            rule_set(m, op & 0x3f, CFI_OFFSET, factored_uleb(m));
            break;
        case OP_RESTORE:
            rule_restore(m, op & 0x3f);
            break;
        default:
            run_extended(m, op);
        }
    }
    return !m->c.failed;
}

bool cfi_row_at(const struct cfi_image *image, const struct cfi_fde *fde, uint64_t pc,
                struct cfi_row *row)
{
    struct cfi_row remembered[CFI_REMEMBER_MAX];
    struct row_machine m = {
        .c = {.image = image}, .fde = fde, .location = fde->pc_start, .remembered = remembered};
    if (image->byte_count > INT32_MAX || pc < fde->pc_start ||
        !machine_run(&m, fde->cie_program, fde->cie_program_end, pc))
        return false;
    m.initial = m.row;
    m.has_initial = true;
    m.location = fde->pc_start;
    m.remembered_count = 0;
    if (!machine_run(&m, fde->program, fde->program_end, pc))
        return false;
    *row = m.row;
    return true;
}

bool cfi_expression(const struct cfi_image *image, const struct cfi_rule *rule,
                    struct cfi_cursor *body)
{
    if (rule->value < 0 || (size_t)rule->value >= image->byte_count)
        return false;
    struct cfi_cursor c = {image, (size_t)rule->value, image->byte_count, false};
    uint64_t bytes = cfi_uleb(&c);
    if (c.failed || bytes > c.end - c.at)
        return false;
    c.end = c.at + bytes;
    *body = c;
    return true;
}
