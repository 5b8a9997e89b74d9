/*
 * Damaged debug information, without end: small programs of gcc (DWARF 2, 4 and 5, C and C++,
 * packed sections) and clang, if it is here. Bytes of their .debug sections are changed, cut,
 * repeated or swapped, now and then those of the ELF headers, too, and addresses all over the code
 * are named. Answers of damaged files may be wrong; they must be of bounded size, made of whole
 * strings, and there must be one for each address. Built with sanitizers; a crash or a run of more
 * than twenty seconds ends it.
 *
 *   dwarf_fuzz [SECONDS [SEED]]     prints how many files, and the seed
 */
#include "symbols/debug_info.h"
#include "fuzz.h"

#include <signal.h>

enum { SEEDS_MAX = 8, SECTIONS_MAX = 32, ADDRESSES = 300 };

#define BIAS 0x7f1000000000ull

static const char source[] =
    "#include <stdlib.h>\n"
    "static inline int one(int x) { return x * rand(); }\n"
    "static int two(int x) { int s = 0; for (int i = 0; i < x; i++) s += one(i); return s; }\n"
    "__attribute__((noinline)) int three(int x) { return two(x) + two(x + 1) + one(x); }\n"
    "int main(int c, char **v) { return three(c) + two(c) + !v; }\n";

static const char *const compilers[SEEDS_MAX] = {
    "gcc -O2 -g",          "gcc -O2 -gdwarf-4", "gcc -O2 -gdwarf-2 -gstrict-dwarf",
    "gcc -O2 -g -gz",      "g++ -O2 -g -x c++", "clang -O2 -g",
    "clang -O2 -gdwarf-4", "gcc -O2 -g -flto",
};

struct part {
    size_t offset, size;
};

struct seed {
    unsigned char *bytes;
    size_t size;
    struct part debug[SECTIONS_MAX]; /* its .debug sections */
    size_t debug_count;
};

/* ---- seeds ---- */

static bool read_seed(struct seed *seed, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    seed->bytes = malloc(1 << 20);
    seed->size = fread(seed->bytes, 1, 1 << 20, file);
    fclose(file);
    struct image image;
    void *copy = memcpy(malloc(seed->size), seed->bytes, seed->size);
    if (image_open_memory(&image, copy, seed->size, NULL) != HI_OK)
        return false;
    static const char *const names[] = {".debug_info", ".debug_abbrev",   ".debug_line",
                                        ".debug_str",  ".debug_rnglists", ".debug_ranges",
                                        ".debug_addr", ".debug_line_str", ".debug_str_offsets"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Elf64_Shdr section;
        if (image_section(&image, names[i], 0, &section) && section.sh_size > 16)
            seed->debug[seed->debug_count++] = (struct part){section.sh_offset, section.sh_size};
    }
    image_close(&image);
    return seed->debug_count > 0;
}

static size_t make_seeds(struct seed *seeds)
{
    char directory[] = "/tmp/dwarf_fuzz.XXXXXX", command[2000], path[64];
    size_t count = 0;
    if (!mkdtemp(directory))
        return 0;
    snprintf(path, sizeof path, "%s/program", directory);
    for (size_t i = 0; i < SEEDS_MAX; i++) {
        snprintf(command, sizeof command,
                 "cd %s && rm -f program && printf '%%s' '%s' | %s %s -o program - 2>/dev/null",
                 directory, source, compilers[i], strstr(compilers[i], "-x") ? "" : "-x c");
        count += system(command) == 0 && read_seed(&seeds[count], path);
    }
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command) == 0 ? count : 0;
}

/* ---- damage ---- */

static uint64_t strange(struct random *random)
{
    switch (below(random, 6)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX - below(random, 64);
    case 2:
        return 1ull << below(random, 64);
    case 3:
        return below(random, 0x3000);
    case 4:
        return 0x8080808080808080u;
    default:
        return next(random);
    }
}

static void damage_part(struct random *random, unsigned char *bytes, struct part part)
{
    static const size_t widths[] = {1, 1, 1, 2, 4, 8};
    size_t at = part.offset + below(random, part.size - 8);
    size_t other = part.offset + below(random, part.size - 8), span = 1 + below(random, 8);
    uint64_t value = strange(random);
    switch (below(random, 5)) {
    case 0:
        memmove(bytes + at, bytes + other, span);
        break;
    case 1:
        bytes[at] ^= 1u << below(random, 8);
        break;
    case 2:
        bytes[at] = (unsigned char)(bytes[at] + 1 - 2 * (int)below(random, 2));
        break;
    default:
        memcpy(bytes + at, &value, widths[below(random, 6)]);
    }
}

static size_t damage(struct random *random, const struct seed *seed, unsigned char *bytes)
{
    Elf64_Ehdr header;
    memcpy(&header, bytes, sizeof header);
    for (uint64_t times = 1 + below(random, 12); times; times--)
        damage_part(random, bytes, seed->debug[below(random, seed->debug_count)]);
    if (below(random, 8) == 0)
        damage_part(random, bytes,
                    (struct part){header.e_shoff, header.e_shnum * sizeof(Elf64_Shdr)});
    if (below(random, 16) == 0)
        damage_part(random, bytes,
                    (struct part){sizeof header, header.e_phnum * sizeof(Elf64_Phdr)});
    return below(random, 16) ? seed->size : 64 + below(random, seed->size - 64);
}

/* ---- questions ---- */

/* The file as a module that is not loaded: what an allocator's mark leads to. */
static struct module_record *add_module(struct symbols *symbols, struct image *image)
{
    Elf64_Phdr headers[IMAGE_MAX_HEADERS];
    size_t count = image_program_headers(image, headers);
    struct module_record *record = calloc(1, sizeof *record);
    *VECTOR_PUSH(&symbols->gone) = record;
    record->path = strdup("");
    record->module.path = record->path;
    record->module.bias = BIAS;
    record->file = *image;
    record->headers = memcpy(calloc(count + 1, sizeof *headers), headers, count * sizeof *headers);
    record->header_count = count;
    return module_take_segments(record) ? record : NULL;
}

static void check_frame(const struct frame_name *frame, bool is_last)
{
    size_t bytes = frame->function ? strlen(frame->function) : 0;
    bytes += frame->linkage ? strlen(frame->linkage) : 0;
    bytes += frame->file ? strlen(frame->file) : 0;
    if (bytes > 1 << 20 || frame->is_inline == is_last || !frame->module)
        abort();
}

/* Number of frames that have a function and a line. */
static size_t ask(struct symbols *symbols, struct random *random)
{
    static struct frame_place places[ADDRESSES];
    struct module_mark mark = {.path = "", .bias = BIAS};
    struct names names;
    size_t known = 0;
    for (size_t i = 0; i < ADDRESSES; i++) {
        hi_addr at = BIAS + (below(random, 16) ? 0x1000 + below(random, 0x400) : strange(random));
        places[i] = (struct frame_place){at, below(random, 2), &mark};
    }
    if (names_of(symbols, places, ADDRESSES, &names, NULL) != HI_OK)
        abort();
    for (size_t i = 0; i < ADDRESSES; i++) {
        size_t count;
        const struct frame_name *frames = names_at(&names, i, &count);
        if (count == 0 || count > FRAMES_MAX)
            abort();
        for (size_t k = 0; k < count; k++) {
            char text[64];
            check_frame(&frames[k], k + 1 == count);
            names_describe(&frames[k], text, below(random, sizeof text + 1));
            known += frames[k].function && frames[k].line;
        }
    }
    names_free(&names);
    return known;
}

static void one_run(struct random *random, const struct seed *seed, bool whole)
{
    struct target *target;
    struct symbols *symbols;
    struct image image;
    unsigned char *bytes = memcpy(malloc(seed->size), seed->bytes, seed->size);
    size_t size = whole ? seed->size : damage(random, seed, bytes);
    if (target_open_bytes(&target, NULL, 0, NULL) != HI_OK ||
        symbols_open(&symbols, target, NULL, NULL) != HI_OK)
        abort();
    /* a cut file ends where its memory does */
    unsigned char *exact = memcpy(malloc(size), bytes, size);
    free(bytes);
    if (image_open_memory(&image, exact, size, NULL) == HI_OK && add_module(symbols, &image)) {
        size_t known = ask(symbols, random) + ask(symbols, random);
        if (whole && known < ADDRESSES / 4)
            abort(); /* else the runs would prove nothing */
    }
    symbols_close(symbols);
    target_close(target);
}

int main(int argc, char **argv)
{
    static struct seed seeds[SEEDS_MAX];
    size_t count = make_seeds(seeds);
    if (!count) {
        printf("no compiler, nothing done\n");
        return 0;
    }
    for (size_t i = 0; i < count; i++)
        one_run(&(struct random){1}, &seeds[i], true);
    struct fuzz fuzz = fuzz_begin(argc, argv);
    do {
        fuzz_run(&fuzz);
        one_run(&fuzz_random, &seeds[(fuzz.seed + fuzz.runs) % count], false);
    } while (fuzz_goes_on(&fuzz));
    for (size_t i = 0; i < count; i++)
        free(seeds[i].bytes);
    return fuzz_end(&fuzz, "files");
}
