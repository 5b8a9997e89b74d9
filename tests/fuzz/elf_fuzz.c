/*
 * Damaged modules and thread records, without end: a small shared library stands in a target's
 * memory and behind it as a file, a thread with struct pthread, dtv and lists beside it. Words of
 * both are changed, and everything that symbols and roots can be asked is asked. Built with
 * sanitizers; a crash or a run of more than twenty seconds ends it.
 *
 *   elf_fuzz [SECONDS [SEED]]     prints how many modules, and the seed
 */
#include "symbols/internal.h"
#include "symbols/roots.h"
#include "fuzz.h"

#include <signal.h>

enum { AREA_BYTES = 64 << 10, RECORD = 0xe000, DTV = 0x1010 };

#define MODULE_AT 0x7f1000000000ull
#define AREA_AT   0x7f2000000000ull

static const char source[] =
    "int word = 1; static int hidden = 2; int *place = &hidden; int *places[90] = {&word};\n"
    "__thread int tls = 5; void g(int *); int f(int x) { int y[x]; g(y); return *y + hidden; }\n"
    "int exit(int x) { g(&x); return f(x) + 1; } const char text[] = \"text\";\n"
    "static int loop(int x) { return x ? f(x) : 0; } int (*pointer)(int) = loop;\n"
    "void _ZN3abc3defEv(void) {} void _ZN3abc3defEvx(void) {}\n";

struct seed {
    unsigned char *bytes;
    size_t size;
};

static bool make_seed(struct seed *seed)
{
    char directory[] = "/tmp/elf_fuzz.XXXXXX", command[2000], path[64];
    if (!mkdtemp(directory))
        return false;
    snprintf(path, sizeof path, "%s/seed.so", directory);
    snprintf(command, sizeof command,
             "cd %s && cat > seed.c <<'end'\n%s\nend\n"
             "cc -O1 -shared -fPIC -nostdlib -fno-builtin -w -Wl,-soname,libc.so.6 "
             "-Wl,--build-id=sha1 -Wl,--hash-style=both -o seed.so seed.c && "
             "objcopy --only-keep-debug seed.so symbols && xz symbols && "
             "objcopy --add-section .gnu_debugdata=symbols.xz seed.so",
             directory, source);
    bool built = system(command) >= 0 && access(path, R_OK) == 0;
    FILE *file = built ? fopen(path, "r") : NULL;
    if (file) {
        seed->bytes = malloc(1 << 20);
        seed->size = fread(seed->bytes, 1, 1 << 20, file);
        fclose(file);
    }
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command) == 0 && seed->size > 0;
}

/* ---- what the target looks like ---- */

struct scene {
    unsigned char *file, *memory;
    size_t file_bytes, memory_bytes;
    uint64_t area[AREA_BYTES / 8];
};

static void load_segments(struct scene *scene)
{
    Elf64_Ehdr header;
    memcpy(&header, scene->file, sizeof header);
    for (int i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr h;
        memcpy(&h, scene->file + header.e_phoff + (size_t)i * sizeof h, sizeof h);
        if (h.p_type == PT_LOAD)
            memcpy(scene->memory + h.p_vaddr, scene->file + h.p_offset, h.p_filesz);
        if (h.p_type == PT_LOAD && h.p_vaddr + h.p_memsz > scene->memory_bytes)
            scene->memory_bytes = (h.p_vaddr + h.p_memsz + 0xfff) & ~0xfffull;
    }
}

static uint64_t *area_word(struct scene *scene, uint64_t offset)
{
    return &scene->area[offset / 8];
}

/* Lists: main's record on one, its head and two empty neighbours in the module's last page. */
static void make_thread(struct scene *scene)
{
    const hi_addr record = AREA_AT + RECORD;
    const uint64_t head = scene->memory_bytes - 0x200;
    uint64_t heads[6];
    memset(scene->area, 0, sizeof scene->area);
    *area_word(scene, RECORD) = *area_word(scene, RECORD + 16) = record;
    *area_word(scene, RECORD + 8) = AREA_AT + DTV;
    *area_word(scene, DTV - 16) = 4;
    *area_word(scene, DTV + 16) = record - 64;
    *area_word(scene, DTV + 32) = *area_word(scene, DTV + 40) = AREA_AT + 0x2000;
    *area_word(scene, RECORD + 0x2c0) = *area_word(scene, RECORD + 0x2c8) = MODULE_AT + head;
    *area_word(scene, RECORD + 0x2d0) = 7;
    *area_word(scene, RECORD + 1680) = AREA_AT;
    *area_word(scene, RECORD + 1688) = AREA_BYTES;
    *area_word(scene, RECORD + 1696) = 4096;
    for (int i = 0; i < 6; i += 2)
        heads[i] = heads[i + 1] = MODULE_AT + head - 16 + (uint64_t)i * 8;
    heads[2] = heads[3] = record + 0x2c0;
    memcpy(scene->memory + head - 16, heads, sizeof heads);
}

static uint64_t strange(struct random *random)
{
    switch (below(random, 9)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX - below(random, 64);
    case 2:
        return 1ull << below(random, 64);
    case 3:
        return MODULE_AT + below(random, 0x6000);
    case 4:
        return AREA_AT + (below(random, AREA_BYTES) & ~7ull);
    case 5:
        return below(random, 0x6000);
    case 6:
        return below(random, 64);
    case 7:
        return AREA_AT + RECORD + (below(random, 2) ? 0x2c0 : 0);
    default:
        return next(random);
    }
}

static void damage(struct random *random, unsigned char *bytes, size_t size, size_t unit)
{
    static const size_t widths[] = {1, 2, 4, 8};
    uint64_t value = strange(random);
    size_t width = unit ? unit : widths[below(random, 4)];
    size_t at = below(random, size - 8) / width * width;
    memcpy(bytes + at, &value, width);
}

static void damage_file(struct random *random, struct scene *scene)
{
    Elf64_Ehdr header;
    memcpy(&header, scene->file, sizeof header);
    for (uint64_t times = below(random, 6); times; times--) {
        switch (below(random, 4)) {
        case 0:
            damage(random, scene->file, sizeof header, 0);
            break;
        case 1:
            damage(random, scene->file, sizeof header + header.e_phnum * sizeof(Elf64_Phdr), 0);
            break;
        case 2:
            damage(random, scene->file + header.e_shoff, header.e_shnum * sizeof(Elf64_Shdr), 0);
            break;
        default:
            damage(random, scene->file, scene->file_bytes, 0);
        }
    }
    if (below(random, 8) == 0)
        scene->file_bytes = 64 + below(random, scene->file_bytes - 64);
}

static void damage_memory(struct random *random, struct scene *scene)
{
    unsigned char *area = (unsigned char *)scene->area;
    for (uint64_t times = below(random, 6); times; times--) {
        switch (below(random, 5)) {
        case 0:
            damage(random, scene->memory, 0x400, 0);
            break;
        case 1:
            damage(random, scene->memory, scene->memory_bytes, 0);
            break;
        case 2:
            damage(random, area + RECORD, 0x940, 8);
            break;
        case 3:
            damage(random, scene->memory + scene->memory_bytes - 0x210, 64, 8);
            break;
        default:
            damage(random, area + DTV - 16, 160, 8);
        }
    }
}

static struct target *open_target(const struct scene *scene)
{
    struct target *target = NULL;
    const struct target_segment segments[] = {
        {MODULE_AT, scene->memory, scene->memory_bytes, 7, "/lib/libc.so.6"},
        {AREA_AT, scene->area, AREA_BYTES, 3, NULL}};
    struct thread thread = {.tid = 7, .has_registers = true, .name = "t"};
    unsigned char vectors[2696];
    memset(vectors, 0x5a, sizeof vectors);
    thread.sp = AREA_AT + 0x8000;
    thread.pc = MODULE_AT + 0x1010;
    thread.fs_base = AREA_AT + RECORD;
    thread.vector_state = vectors;
    thread.vector_state_bytes = sizeof vectors;
    if (target_open_bytes(&target, segments, 2, NULL) != HI_OK ||
        target_add_registers(target, &thread, NULL) != HI_OK)
        abort();
    return target;
}

/* ---- questions ---- */

static bool see_relocation(void *context, hi_addr place, hi_addr value)
{
    uint64_t *count = context;
    return ++*count < 1u << 20 && place != value + 1;
}

/* Names of what mangled names are made of. */
static void ask_demangle(struct random *random)
{
    static const char *const parts[] = {"_Z", "_R",   "N",  "E",   "S_", "S0_", "T_", "I",
                                        "1a", "3abc", "Pf", "i",   "v",  "St",  "C1", "cv",
                                        "L",  "J",    "Dp", "sr",  "X",  "B_",  "C3", "17h",
                                        "u4", "Cs_",  "Nv", "NvC", "p",  "R",   "O",  "F"};
    char name[600], text[120];
    size_t used = (size_t)snprintf(name, sizeof name, "%s", parts[below(random, 2)]);
    for (uint64_t count = below(random, 100); count; count--)
        used += (size_t)snprintf(name + used, sizeof name - used, "%s",
                                 parts[below(random, sizeof parts / sizeof *parts)]);
    symbols_demangle(name, text, 1 + below(random, sizeof text));
}

static void ask_symbols(struct symbols *symbols, struct random *random)
{
    struct symbol symbol;
    char text[100];
    uint64_t count = 0;
    hi_addr cfa;
    static const char *const names[] = {"exit", "hidden", "f", "no such name", "_DYNAMIC"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        (void)!symbols_find(symbols, SYMBOLS_ANY_MODULE, names[i], &symbol, NULL);
    for (int i = 0; i < 20; i++) {
        hi_addr at = below(random, 4) ? MODULE_AT + below(random, 0x5000) : strange(random);
        symbols_describe(symbols, at, text, sizeof text);
        if (symbols_at(symbols, at, &symbol, NULL) == HI_OK && strlen(symbol.name) > 1u << 20)
            abort();
        (void)!symbols_frame_cfa(symbols, at, AREA_AT + 0x8000, &cfa, NULL);
        (void)!symbols_read_file(symbols, 0, at - MODULE_AT, text, sizeof text, NULL);
    }
    for (size_t i = 0; i < symbols_module_count(symbols); i++)
        (void)!symbols_relocations(symbols, i, (struct hi_range){0, UINT64_MAX}, see_relocation,
                                   &count, NULL);
}

static void ask_roots(struct target *target, struct symbols *symbols)
{
    struct roots roots;
    if (roots_collect(&roots, target, symbols, NULL, NULL) != HI_OK)
        return;
    for (size_t i = 1; i < roots.ranges.count; i++)
        if (roots.ranges.items[i].start < roots.ranges.items[i - 1].end)
            abort();
    if (roots.words.count > 100000 || roots.missing_bytes)
        abort();
    roots_free(&roots);
}

/* Undamaged, all of it is found: else the runs would prove nothing. */
static void check_scene(struct target *target, struct symbols *symbols)
{
    struct roots roots;
    struct symbol symbol;
    hi_addr cfa;
    bool kept = false;
    if (symbols_find(symbols, 0, "exit", &symbol, NULL) != HI_OK ||
        symbols_find(symbols, 0, "hidden", &symbol, NULL) != HI_OK ||
        symbols_frame_cfa(symbols, symbols_segment(symbols, 0, 1).memory.start + 0x20, AREA_AT,
                          &cfa, NULL) == HI_NO_MEMORY ||
        roots_collect(&roots, target, symbols, NULL, NULL) != HI_OK)
        abort();
    for (size_t i = 0; i < roots.words.count; i++)
        kept |= roots.words.items[i].value == AREA_AT + 0x2000;
    const struct root_range *stack = roots_range_at(&roots, AREA_AT + 0x8000);
    const struct root_range *tls = roots_range_at(&roots, AREA_AT + RECORD - 64);
    if (!kept || !stack || stack->class != ROOT_STACK || !tls || tls->class != ROOT_TLS)
        abort();
    roots_free(&roots);
}

static void one_run(struct random *random, const struct seed *seed, bool whole)
{
    static struct scene scene;
    scene.file_bytes = seed->size;
    scene.memory_bytes = 0;
    scene.file = malloc(seed->size);
    scene.memory = calloc(1, 1 << 20);
    memcpy(scene.file, seed->bytes, seed->size);
    load_segments(&scene);
    make_thread(&scene);
    bool same = below(random, 2);
    if (!whole)
        damage_file(random, &scene);
    if (!same && !whole)
        damage_memory(random, &scene);
    struct target *target = open_target(&scene);
    struct symbols *symbols;
    struct image image;
    if (!whole && below(random, 4) == 0)
        target_bytes_fail_read(target, 1 + below(random, 400));
    if (symbols_open(&symbols, target, NULL, NULL) != HI_OK)
        abort(); /* damage in the target is never a failure of the run */
    if (symbols->modules.count && (whole || below(random, 4)) &&
        image_open_memory(&image, memcpy(malloc(scene.file_bytes), scene.file, scene.file_bytes),
                          scene.file_bytes, NULL) == HI_OK)
        symbols->modules.items[0].file = image;
    if (whole)
        check_scene(target, symbols);
    ask_demangle(random);
    ask_symbols(symbols, random);
    ask_roots(target, symbols);
    symbols_close(symbols);
    target_close(target);
    free(scene.file);
    free(scene.memory);
}

int main(int argc, char **argv)
{
    struct seed seed = {NULL, 0};
    if (!make_seed(&seed)) {
        printf("no compiler, nothing done\n");
        return 0;
    }
    one_run(&(struct random){1}, &seed, true);
    struct fuzz fuzz = fuzz_begin(argc, argv);
    do {
        fuzz_run(&fuzz);
        one_run(&fuzz_random, &seed, false);
    } while (fuzz_goes_on(&fuzz));
    free(seed.bytes);
    return fuzz_end(&fuzz, "modules");
}
