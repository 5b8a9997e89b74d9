/*
 * Damaged unwind tables: .eh_frame_hdr, CIEs and FDEs of the fuzzer's own making, and those of the
 * C library, changed at random; each is searched, read up to a row, and stepped by with registers
 * of any value and a memory that answers at random.
 *
 *   cfi_fuzz [SECONDS [SEED]]
 */
#define _GNU_SOURCE
#include "allocator/cfi_program.c"
#include "allocator/cfi_step.h"
#include "fuzz.h"

#include <dlfcn.h>
#include <link.h>

enum { IMAGE_MAX = 4096, SAMPLE_MAX = 2048 };

static bool read_anything(uint64_t address, uint64_t *word)
{
    *word = next_random() >> (next_random() % 64);
    return address % 11 != 3;
}

/* ---- what to damage ---- */

struct maker {
    uint8_t bytes[IMAGE_MAX];
    size_t count;
};

static void put(struct maker *m, uint64_t value, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes && m->count < IMAGE_MAX; i++)
        m->bytes[m->count++] = (uint8_t)(value >> 8 * i);
}

static void put_at(struct maker *m, size_t at, uint32_t value)
{
    if (at + 4 <= m->count)
        memcpy(m->bytes + at, &value, 4);
}

static void put_leb(struct maker *m)
{
    uint64_t value = next_random() >> (next_random() % 64);
    while (value > 127 && next_random() % 50) {
        put(m, (value & 127) | 128, 1);
        value >>= 7;
    }
    put(m, value & 127, 1);
}

static void put_expression(struct maker *m)
{
    size_t length = next_random() % 24;
    put(m, length, 1);
    for (size_t i = 0; i < length; i++)
        put(m, next_random() % 4 ? 0x06 + next_random() % 0x90 : next_random(), 1);
}

static void put_program(struct maker *m)
{
    for (uint64_t i = next_random() % 12; i > 0; i--) {
        uint8_t op = (uint8_t)(next_random() % 3 ? next_random() % 0x17 : next_random());
        put(m, op, 1);
        if (op == OP_DEF_CFA_EXPRESSION) {
            put_expression(m);
        } else if (op == OP_EXPRESSION || op == OP_VAL_EXPRESSION) {
            put(m, next_random() % 17, 1);
            put_expression(m);
        } else if (op >= OP_SET_LOC && op < OP_NOP + 0x17 && op != OP_REMEMBER_STATE &&
                   op != OP_RESTORE_STATE) {
            put(m, next_random() % 18, 1);
            if (next_random() % 2)
                put_leb(m);
        } else if (op >> 6 == 2) {
            put_leb(m);
        }
    }
}

/* An entry with its length put in afterwards. */
static void entry_end(struct maker *m, size_t start)
{
    while ((m->count - start) % 4)
        put(m, 0, 1);
    put_at(m, start, (uint32_t)(m->count - start - 4));
}

/* Header, one CIE, some FDEs with functions of 64 bytes from address + 0x100000 on. */
static void make_image(struct maker *m, uint64_t address)
{
    static const char *const letters[] = {"zR", "zPLR", "zRS", "z", "", "zRX", "eh"};
    uint32_t fde_count = (uint32_t)(next_random() % 6 + 1);
    size_t starts[6];
    put(m, 0x3b031b01, 4);
    put(m, 0, 4);
    put(m, fde_count, 4);
    put(m, 0, 1), m->count += 8 * (size_t)fde_count - 1;
    put_at(m, 4, (uint32_t)(m->count - 4));
    size_t cie = m->count;
    put(m, 0, 8);
    put(m, next_random() % 8 ? 1 : next_random() % 5, 1);
    const char *word = letters[next_random() % 7];
    for (size_t i = 0; i <= strlen(word); i++)
        put(m, (uint8_t)word[i], 1);
    put(m, 0x107801, 3); /* factors 1 and -8, return address in 16 */
    if (word[0] == 'z')
        put(m, word[1] == 'P' ? 7 : strlen(word) - 1, 1);
    if (word[0] == 'z' && word[1] == 'P')
        put(m, 0x9b, 1), put(m, next_random(), 4), put(m, 0x1b, 1);
    if (strchr(word, 'R'))
        put(m, next_random() % 8 ? 0x1b : next_random(), 1);
    put(m, 0x0190080c0710 >> 8, 5);
    entry_end(m, cie);
    for (uint32_t i = 0; i < fde_count; i++) {
        starts[i] = m->count;
        put(m, 0, 4);
        put(m, m->count - cie, 4);
        put(m, address + 0x100000 + 64 * i - (address + m->count), 4);
        put(m, 64, 4);
        put(m, 0, 1);
        put_program(m);
        entry_end(m, starts[i]);
        put_at(m, 12 + 8 * i, 0x100000 + 64 * i);
        put_at(m, 16 + 8 * i, (uint32_t)starts[i]);
    }
    put(m, 0, 4);
}

/* Part of the C library's own table: FDEs as they are, read as entries alone. */
static const uint8_t *sample;
static size_t sample_bytes;

static int sample_find(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size, (void)argument;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME && strstr(info->dlpi_name, "libc.so")) {
            const uint8_t *hdr = (const uint8_t *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
            int32_t distance;
            memcpy(&distance, hdr + 4, 4);
            sample = hdr + 4 + distance;
            sample_bytes = 100000;
        }
    return sample != NULL;
}

static void damage(uint8_t *bytes, size_t *count)
{
    for (uint64_t i = next_random() % 8; i > 0; i--) {
        uint64_t pick = next_random();
        size_t at = (pick >> 16) % *count;
        if (pick % 16 == 0)
            *count = at + 1;
        else if (pick % 16 == 1)
            memset(bytes + at, pick & 256 ? 0xff : 0, *count - at < 8 ? *count - at : 8);
        else
            bytes[at] = (uint8_t)(pick >> 40);
    }
}

/* ---- what is done with it ---- */

static void use(const struct cfi_image *image, const struct cfi_fde *fde, uint64_t pc)
{
    struct cfi_row row;
    struct cfi_registers registers = {.known = (uint32_t)next_random()};
    if (!cfi_row_at(image, fde, pc, &row))
        return;
    for (int i = 0; i < CFI_REGISTERS; i++)
        registers.value[i] = next_random() >> (next_random() % 64);
    if (row.cfa.kind == CFI_OFFSET && row.cfa_register >= CFI_REGISTERS)
        abort();
    enum cfi_end end = cfi_step(image, &row, read_anything, &registers);
    if (end == CFI_STEPPED && !(registers.known >> CFI_RA & 1))
        abort();
}

static void use_all(const struct cfi_image *image, uint64_t frames)
{
    struct cfi_fde fde;
    for (int i = 0; i < 8; i++) {
        uint64_t pc = image->address + 0x100000 + next_random() % 512;
        if (cfi_find(image, image->address, pc, &fde)) {
            if (pc < fde.pc_start || pc >= fde.pc_end)
                abort();
            use(image, &fde, pc);
        }
    }
    uint64_t next, at = frames;
    for (int i = 0; at && i < 100; i++, at = next) {
        if (cfi_fde_at(image, at, &fde, &next))
            use(image, &fde, fde.pc_start + next_random() % 64);
        if (next && next <= at)
            abort(); /* it would go round */
    }
}

static void one_run(void)
{
    static struct maker m;
    uint64_t address = next_random() >> (next_random() % 40);
    m.count = 0;
    size_t count;
    bool of_libc = sample && next_random() % 4 == 0;
    if (of_libc) {
        size_t at = next_random() % (sample_bytes - SAMPLE_MAX);
        m.count = SAMPLE_MAX;
        memcpy(m.bytes, sample + (next_random() % 2 ? 0 : at & ~(size_t)3), SAMPLE_MAX);
    } else {
        make_image(&m, address);
    }
    count = m.count;
    uint8_t *bytes = malloc(count); /* exactly: a step too far is seen */
    memcpy(bytes, m.bytes, count);
    if (next_random() % 4)
        damage(bytes, &count);
    uint8_t *exact = malloc(count);
    memcpy(exact, bytes, count);
    free(bytes);
    struct cfi_image image = {exact, count, address};
    use_all(&image, of_libc ? address : address + 20);
    free(exact);
}

int main(int argc, char **argv)
{
    struct fuzz fuzz = fuzz_begin(argc, argv);
    dl_iterate_phdr(sample_find, NULL);
    do {
        fuzz_run(&fuzz);
        one_run();
    } while (fuzz_goes_on(&fuzz));
    return fuzz_end(&fuzz, "tables");
}
