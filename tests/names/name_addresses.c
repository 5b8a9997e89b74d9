/*
 * Names of addresses of one ELF file, in the way of `addr2line -a -f -i -C`: for each hexadecimal
 * address (as in the file) on standard input a line with the address, then two lines a frame.
 *
 *   name_addresses [-t] [-l] [-d DEBUG_DIRECTORY] FILE
 *
 * -l: names as the linker has them, not demangled.
 * -t: instead of names print seconds: of the first address alone, then of all together, each in a
 * symbols object of its own; the same in processor time; and the number of addresses and of frames.
 * What a run of heapinspect would pay is what is timed: opening, indexing, naming.
 *
 * The file is named through the public side only: it is a module that a holding child never loaded.
 */
#include "symbols/image.h"
#include "symbols/names.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct tool {
    struct target_options options;
    struct module_mark mark;
    unsigned char build_id[BUILD_ID_MAX_BYTES];
    pid_t child;
    bool is_timed, is_linkage;
    VECTOR(struct frame_place) places;
};

static void fail(const char *what)
{
    fprintf(stderr, "name_addresses: %s\n", what);
    exit(2);
}

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void take_file(struct tool *tool, const char *path)
{
    struct image image;
    struct hi_err err;
    Elf64_Phdr headers[IMAGE_MAX_HEADERS];
    tool->mark.path = realpath(path, NULL);
    if (!tool->mark.path)
        fail("no such file");
    if (image_open_path(&image, tool->mark.path, &err) != HI_OK)
        fail(err.message);
    size_t count = image_program_headers(&image, headers);
    tool->mark.start = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        if (headers[i].p_type != PT_LOAD)
            continue;
        uint64_t start = headers[i].p_vaddr, end = start + headers[i].p_memsz;
        tool->mark.start = start < tool->mark.start ? start : tool->mark.start;
        tool->mark.end = end > tool->mark.end ? end : tool->mark.end;
    }
    tool->mark.build_id = tool->build_id;
    tool->mark.build_id_bytes = image_build_id(&image, tool->build_id);
    image_close(&image);
}

static void take_addresses(struct tool *tool)
{
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        struct frame_place *place = VECTOR_PUSH(&tool->places);
        if (!place)
            fail("no memory");
        place->address = strtoull(line, NULL, 16);
        place->exact = true;
        place->module = &tool->mark;
    }
}

static struct target *open_child(struct tool *tool)
{
    struct target *target;
    struct hi_err err;
    tool->child = fork();
    if (tool->child == 0)
        for (;;)
            pause();
    if (target_open_process(&target, tool->child, &tool->options, &err) != HI_OK)
        fail(err.message);
    target_release(target);
    return target;
}

struct cost {
    double seconds, processor_seconds;
};

/* What naming takes. */
static struct cost name_all(struct tool *tool, struct target *target, size_t count,
                            struct symbols **symbols, struct names *names)
{
    struct hi_err err;
    if (symbols_open(symbols, target, &tool->options, &err) != HI_OK)
        fail(err.message);
    double start = now(CLOCK_MONOTONIC), work = now(CLOCK_PROCESS_CPUTIME_ID);
    if (names_of(*symbols, tool->places.items, count, names, &err) != HI_OK)
        fail(err.message);
    return (struct cost){now(CLOCK_MONOTONIC) - start, now(CLOCK_PROCESS_CPUTIME_ID) - work};
}

static void print_names(const struct tool *tool, const struct names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        size_t count;
        const struct frame_name *frames = names_at(names, i, &count);
        printf("0x%016" PRIx64 "\n", tool->places.items[i].address);
        for (size_t k = 0; k < count; k++)
            printf("%s\n%s:%" PRIu32 "\n",
                   tool->is_linkage && frames[k].linkage ? frames[k].linkage
                   : frames[k].function                  ? frames[k].function
                                                         : "??",
                   frames[k].file ? frames[k].file : "??", frames[k].line);
    }
}

int main(int argc, char **argv)
{
    static struct tool tool;
    struct symbols *symbols;
    struct names names;
    for (int option; (option = getopt(argc, argv, "tld:")) != -1;) {
        if (option == 't')
            tool.is_timed = true;
        else if (option == 'd')
            tool.options.debug_directory = optarg;
        else if (option == 'l')
            tool.is_linkage = true;
        else
            fail("usage: name_addresses [-t] [-l] [-d DIRECTORY] FILE");
    }
    if (optind + 1 != argc)
        fail("which file?");
    take_file(&tool, argv[optind]);
    take_addresses(&tool);
    struct target *target = open_child(&tool);
    if (tool.is_timed && tool.places.count) {
        struct cost first = name_all(&tool, target, 1, &symbols, &names);
        names_free(&names);
        symbols_close(symbols);
        struct cost all = name_all(&tool, target, tool.places.count, &symbols, &names);
        printf("%.6f %.6f %.6f %.6f %zu %zu\n", first.seconds, all.seconds, first.processor_seconds,
               all.processor_seconds, tool.places.count, names.frame_count);
    } else {
        name_all(&tool, target, tool.places.count, &symbols, &names);
        print_names(&tool, &names);
    }
    names_free(&names);
    symbols_close(symbols);
    target_close(target);
    kill(tool.child, SIGKILL);
    waitpid(tool.child, NULL, 0);
    return 0;
}
