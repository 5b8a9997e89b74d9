/*
 * cfi_step: from a frame to its caller's with all registers.
 *
 * The slow half of unwinding, for the few rows that the fast one (cfi_rows.c) has no word for: CFA
 * from a register other than rsp and rbp, return addresses in odd places, expressions, frames of
 * signals. Registers whose value is not known stay so, and only a rule that needs one fails; so a
 * walk that knows rsp, rbp and the pc alone gets as far as it can.
 *
 * Expressions are programs of a stack machine. They run for a bounded number of operations on a
 * bounded stack; an operation that is not known, a division by zero, or a word that cannot be read
 * ends them. The CFA must lie above the stack pointer, or the walk would go round in circles; not
 * so for signal frames, which change stacks.
 */
#include "cfi_step.h"

enum { STACK_WORDS = 16, OPERATIONS_MAX = 200 };

enum {
    OP_ADDR = 0x03,
    OP_DEREF = 0x06,
    OP_CONST1U = 0x08,
    OP_CONST1S,
    OP_CONST2U,
    OP_CONST2S,
    OP_CONST4U,
    OP_CONST4S,
    OP_CONST8U,
    OP_CONST8S,
    OP_CONSTU,
    OP_CONSTS,
    OP_DUP,
    OP_DROP,
    OP_OVER,
    OP_PICK,
    OP_SWAP,
    OP_ROT,
    OP_ABS = 0x19,
    OP_AND,
    OP_DIV,
    OP_MINUS,
    OP_MOD,
    OP_MUL,
    OP_NEG,
    OP_NOT,
    OP_OR,
    OP_PLUS,
    OP_PLUS_UCONST,
    OP_SHL,
    OP_SHR,
    OP_SHRA,
    OP_XOR,
    OP_BRA,
    OP_EQ,
    OP_GE,
    OP_GT,
    OP_LE,
    OP_LT,
    OP_NE,
    OP_SKIP,
    OP_LIT0 = 0x30,
    OP_LIT31 = 0x4f,
    OP_REG0 = 0x50,
    OP_REG31 = 0x6f,
    OP_BREG0 = 0x70,
    OP_BREG31 = 0x8f,
    OP_BREGX = 0x92,
    OP_DEREF_SIZE = 0x94,
    OP_NOP = 0x96,
};

struct machine {
    struct cfi_cursor c;
    size_t start;
    cfi_read *read;
    const struct cfi_registers *registers;
    uint64_t stack[STACK_WORDS];
    uint32_t depth;
    enum cfi_end end; /* CFI_STEPPED while all is well */
};

static void fail(struct machine *m, enum cfi_end end)
{
    if (m->end == CFI_STEPPED)
        m->end = end;
}

static void push(struct machine *m, uint64_t value)
{
    if (m->depth == STACK_WORDS)
        fail(m, CFI_BAD);
    else
        m->stack[m->depth++] = value;
}

static uint64_t pop(struct machine *m)
{
    if (m->depth == 0) {
        fail(m, CFI_BAD);
        return 0;
    }
    return m->stack[--m->depth];
}

static uint64_t peek(struct machine *m, uint64_t below)
{
    if (below >= m->depth) {
        fail(m, CFI_BAD);
        return 0;
    }
    return m->stack[m->depth - 1 - below];
}

static uint64_t register_get(struct machine *m, uint64_t number)
{
    if (number >= CFI_REGISTERS || !(m->registers->known >> number & 1)) {
        fail(m, CFI_UNKNOWN);
        return 0;
    }
    return m->registers->value[number];
}

static void dereference(struct machine *m, uint64_t bytes)
{
    uint64_t word = 0, address = pop(m);
    if (m->end != CFI_STEPPED)
        return;
    if (bytes == 0 || bytes > 8 || !m->read(address, &word))
        fail(m, CFI_BAD);
    push(m, bytes < 8 ? word & ((1ULL << bytes * 8) - 1) : word);
}

static void jump(struct machine *m, bool taken)
{
    int64_t distance = (int16_t)cfi_number(&m->c, 2);
    int64_t target = (int64_t)m->c.at + distance;
    if (!taken)
        return;
    if (target < (int64_t)m->start || target > (int64_t)m->c.end)
        fail(m, CFI_BAD);
    else
        m->c.at = (size_t)target;
}

static void run_constant(struct machine *m, uint8_t op)
{
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 8, 8};
    uint32_t bytes = sizes[op - OP_CONST1U];
    uint64_t value = cfi_number(&m->c, bytes);
    if ((op - OP_CONST1U) % 2 == 1 && bytes < 8) {
        uint32_t shift = 64 - 8 * bytes;
        value = (uint64_t)((int64_t)(value << shift) >> shift);
    }
    push(m, value);
}

static uint64_t shifted(uint8_t op, uint64_t value, uint64_t by)
{
    if (op == OP_SHRA)
        return (uint64_t)((int64_t)value >> (by < 63 ? by : 63));
    if (by > 63)
        return 0;
    return op == OP_SHL ? value << by : value >> by;
}

static uint64_t divided(struct machine *m, uint8_t op, uint64_t a, uint64_t b)
{
    if (b == 0) {
        fail(m, CFI_BAD);
        return 0;
    }
    if (op == OP_MOD)
        return a % b;
    return b == UINT64_MAX ? 0 - a : (uint64_t)((int64_t)a / (int64_t)b);
}

static bool compared(uint8_t op, int64_t a, int64_t b)
{
    switch (op) {
    case OP_EQ:
        return a == b;
    case OP_GE:
        return a >= b;
    case OP_GT:
        return a > b;
    case OP_LE:
        return a <= b;
    case OP_LT:
        return a < b;
    default:
        return a != b;
    }
}

static void run_binary(struct machine *m, uint8_t op)
{
    uint64_t b = pop(m), a = pop(m), value;
    switch (op) {
    case OP_AND:
        value = a & b;
        break;
    case OP_OR:
        value = a | b;
        break;
    case OP_XOR:
        value = a ^ b;
        break;
    case OP_PLUS:
        value = a + b;
        break;
    case OP_MINUS:
        value = a - b;
        break;
    case OP_MUL:
        value = a * b;
        break;
    case OP_DIV:
    case OP_MOD:
        value = divided(m, op, a, b);
        break;
    case OP_SHL:
    case OP_SHR:
    case OP_SHRA:
        value = shifted(op, a, b);
        break;
    default:
        value = compared(op, (int64_t)a, (int64_t)b);
    }
    push(m, value);
}

static void run_stack(struct machine *m, uint8_t op)
{
    uint64_t a, b, c;
    switch (op) {
    case OP_DUP:
        push(m, peek(m, 0));
        break;
    case OP_DROP:
        pop(m);
        break;
    case OP_OVER:
        push(m, peek(m, 1));
        break;
    case OP_PICK:
        push(m, peek(m, cfi_number(&m->c, 1)));
        break;
    case OP_SWAP:
        a = pop(m), b = pop(m);
        push(m, a), push(m, b);
        break;
    default: /* ROT: the top goes to third place */
        a = pop(m), b = pop(m), c = pop(m);
        push(m, a), push(m, c), push(m, b);
    }
}

static void run_other(struct machine *m, uint8_t op)
{
    int64_t value;
    switch (op) {
    case OP_ADDR:
        push(m, cfi_number(&m->c, 8));
        break;
    case OP_DEREF:
        dereference(m, 8);
        break;
    case OP_DEREF_SIZE:
        dereference(m, cfi_number(&m->c, 1));
        break;
    case OP_CONSTU:
        push(m, cfi_uleb(&m->c));
        break;
    case OP_CONSTS:
        push(m, (uint64_t)cfi_sleb(&m->c));
        break;
    case OP_ABS:
        value = (int64_t)pop(m);
        push(m, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
        break;
    case OP_NEG:
        push(m, 0 - pop(m));
        break;
    case OP_NOT:
        push(m, ~pop(m));
        break;
    case OP_PLUS_UCONST:
        push(m, pop(m) + cfi_uleb(&m->c));
        break;
    case OP_SKIP:
        jump(m, true);
        break;
    case OP_BRA:
        jump(m, pop(m) != 0);
        break;
    case OP_NOP:
        break;
    default:
        fail(m, CFI_BAD);
    }
}

static void run_one(struct machine *m)
{
    uint8_t op = (uint8_t)cfi_number(&m->c, 1);
    if (op >= OP_LIT0 && op <= OP_LIT31) {
        push(m, op - OP_LIT0);
    } else if (op >= OP_BREG0 && op <= OP_BREG31) {
        uint64_t base = register_get(m, op - OP_BREG0);
        push(m, base + (uint64_t)cfi_sleb(&m->c));
    } else if (op == OP_BREGX) {
        uint64_t base = register_get(m, cfi_uleb(&m->c));
        push(m, base + (uint64_t)cfi_sleb(&m->c));
    } else if (op >= OP_REG0 && op <= OP_REG31) {
        push(m, register_get(m, op - OP_REG0));
    } else if (op >= OP_CONST1U && op <= OP_CONST8S) {
        run_constant(m, op);
    } else if (op >= OP_DUP && op <= OP_ROT) {
        run_stack(m, op);
    } else if (op == OP_AND || (op >= OP_DIV && op <= OP_MUL) || op == OP_OR || op == OP_PLUS ||
               (op >= OP_SHL && op <= OP_XOR) || (op >= OP_EQ && op <= OP_NE)) {
        run_binary(m, op);
    } else {
        run_other(m, op);
    }
    if (m->c.failed)
        fail(m, CFI_BAD);
}

/* The value of a rule's expression; `initial`, when not NULL, stands on the stack at first. */
static enum cfi_end evaluate(const struct cfi_image *image, const struct cfi_rule *rule,
                             cfi_read *read, const struct cfi_registers *registers,
                             const uint64_t *initial, uint64_t *value)
{
    struct machine m = {.read = read, .registers = registers};
    if (!cfi_expression(image, rule, &m.c))
        return CFI_BAD;
    m.start = m.c.at;
    if (initial)
        push(&m, *initial);
    for (uint32_t i = 0; m.c.at < m.c.end && m.end == CFI_STEPPED; i++) {
        if (i == OPERATIONS_MAX)
            return CFI_BAD;
        run_one(&m);
    }
    *value = pop(&m);
    return m.end;
}

/* The value that a rule gives to register `number` of the caller; *known: it has one. */
static enum cfi_end rule_apply(const struct cfi_image *image, const struct cfi_rule *rule,
                               uint64_t cfa, cfi_read *read, const struct cfi_registers *old,
                               uint32_t number, uint64_t *value, bool *known)
{
    enum cfi_end end = CFI_STEPPED;
    uint64_t address = cfa + (uint64_t)(int64_t)rule->value;
    *known = true;
    switch (rule->kind) {
    case CFI_OFFSET:
        return read(address, value) ? CFI_STEPPED : CFI_BAD;
    case CFI_VALUE_OFFSET:
        *value = address;
        return CFI_STEPPED;
    case CFI_EXPRESSION:
        end = evaluate(image, rule, read, old, &cfa, &address);
        return end == CFI_STEPPED && !read(address, value) ? CFI_BAD : end;
    case CFI_VALUE_EXPRESSION:
        return evaluate(image, rule, read, old, &cfa, value);
    case CFI_REGISTER:
        *known = (uint32_t)rule->value < CFI_REGISTERS && (old->known >> rule->value & 1);
        *value = *known ? old->value[rule->value] : 0;
        return CFI_STEPPED;
    default: /* libgcc takes what is lost for what is the same, and so must be taken here */
        *known = old->known >> number & 1;
        *value = old->value[number];
        return CFI_STEPPED;
    }
}

static enum cfi_end cfa_get(const struct cfi_image *image, const struct cfi_row *row,
                            cfi_read *read, const struct cfi_registers *old, uint64_t *cfa)
{
    if (row->cfa.kind == CFI_VALUE_EXPRESSION)
        return evaluate(image, &row->cfa, read, old, NULL, cfa);
    if (row->cfa.kind != CFI_OFFSET || row->cfa_register >= CFI_REGISTERS)
        return CFI_BAD;
    if (!(old->known >> row->cfa_register & 1))
        return CFI_UNKNOWN;
    *cfa = old->value[row->cfa_register] + (uint64_t)(int64_t)row->cfa.value;
    return CFI_STEPPED;
}

enum cfi_end cfi_step(const struct cfi_image *image, const struct cfi_row *row, cfi_read *read,
                      struct cfi_registers *registers)
{
    const struct cfi_registers old = *registers;
    uint64_t cfa;
    if (row->rules[CFI_RA].kind == CFI_UNDEFINED)
        return CFI_OUTERMOST;
    enum cfi_end end = cfa_get(image, row, read, &old, &cfa);
    registers->known = 0;
    for (uint32_t r = 0; r < CFI_REGISTERS && end == CFI_STEPPED; r++) {
        const struct cfi_rule *rule = &row->rules[r];
        bool known = true;
        if (r == CFI_SP && rule->kind <= CFI_UNDEFINED)
            registers->value[r] = cfa;
        else
            end = rule_apply(image, rule, cfa, read, &old, r, &registers->value[r], &known);
        if (end != CFI_STEPPED && r != CFI_SP && r != CFI_RA) { /* that one alone is lost */
            end = CFI_STEPPED;
            known = false;
        }
        if (known)
            registers->known |= 1u << r;
    }
    if (end == CFI_STEPPED && !(registers->known >> CFI_RA & 1))
        return CFI_UNKNOWN;
    /* the return address that nobody speaks of is no return address */
    return end == CFI_STEPPED && row->rules[CFI_RA].kind <= CFI_SAME ? CFI_BAD : end;
}
