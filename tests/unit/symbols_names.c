/*
 * Names of code addresses, of a forked child of this program that holds still: a function of ours,
 * the C library's, a library that is not loaded (by an allocator's mark), memory that is no code,
 * and batches with repetitions.
 */
#include "symbols/image.h"
#include "symbols/names.h"
#include "unit/tap.h"

#include <dlfcn.h>
#include <link.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((noinline)) static int plain_function(int x)
{
    __asm__ volatile("" : "+r"(x));
    return x + 1;
}

struct view {
    pid_t pid;
    struct target *target;
    struct symbols *symbols;
};

static bool view_open(struct view *view)
{
    struct target_options options = {0};
    struct hi_err err;
    fflush(stdout);
    view->pid = fork();
    if (view->pid == 0)
        for (;;)
            pause();
    if (target_open_process(&view->target, view->pid, &options, &err) != HI_OK ||
        symbols_open(&view->symbols, view->target, &options, &err) != HI_OK) {
        printf("# %s\n", err.message);
        return false;
    }
    target_release(view->target);
    return true;
}

static void view_close(struct view *view)
{
    symbols_close(view->symbols);
    target_close(view->target);
    kill(view->pid, SIGKILL);
    waitpid(view->pid, NULL, 0);
}

static const struct frame_name *name_one(struct view *view, struct names *names,
                                         struct frame_place place)
{
    size_t count = 0;
    if (names_of(view->symbols, &place, 1, names, NULL) != HI_OK)
        abort();
    const struct frame_name *frames = names_at(names, 0, &count);
    return &frames[count - 1]; /* the outermost */
}

static void test_loaded(struct view *view)
{
    struct names names;
    hi_addr at = (hi_addr)(uintptr_t)plain_function;
    const struct frame_name *name =
        name_one(view, &names, (struct frame_place){.address = at, .exact = true});
    is_text(name->function, "plain_function", "the first instruction of a function");
    ok(name->module && strstr(name->module, "symbols_names") && name->build_id, "in this program");
    names_free(&names);
    name = name_one(view, &names, (struct frame_place){.address = at});
    ok(!name->function || strcmp(name->function, "plain_function") != 0,
       "as a return address it belongs to what lies before");
    names_free(&names);
    name = name_one(view, &names, (struct frame_place){.address = at + 1});
    is_text(name->function, "plain_function", "a return address behind the first byte is inside");
    names_free(&names);
    name = name_one(view, &names,
                    (struct frame_place){.address = (hi_addr)(uintptr_t)getenv, .exact = true});
    is_text(name->function, "getenv", "a function of the C library, without its version");
    ok(strstr(name->module, "libc"), "and its module");
    names_free(&names);
    name = name_one(view, &names, (struct frame_place){.address = 0x1234, .exact = true});
    ok(!name->function && !name->module && name->offset == 0x1234, "no module, no name");
    names_free(&names);
}

/* Function at p_vaddr of a library's dynamic symbol table. */
static uint64_t find_exported(const struct image *image, const char *wanted)
{
    Elf64_Shdr table, names;
    if (!image_section(image, NULL, SHT_DYNSYM, &table) ||
        !image_section_at(image, table.sh_link, &names))
        return 0;
    const Elf64_Sym *symbols = image_section_bytes(image, &table);
    const char *text = image_section_bytes(image, &names);
    for (size_t i = 0; i < table.sh_size / sizeof *symbols; i++)
        if (strcmp(text + symbols[i].st_name, wanted) == 0)
            return symbols[i].st_value;
    return 0;
}

static void test_gone(struct view *view)
{
    /* loaded after the fork: the child never had it */
    struct link_map *map = NULL;
    void *library = dlopen("libresolv.so.2", RTLD_NOW | RTLD_LOCAL);
    struct image image;
    unsigned char id[BUILD_ID_MAX_BYTES];
    if (!library || dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 ||
        image_open_path(&image, map->l_name, NULL) != HI_OK) {
        ok(true, "a library that is gone # SKIP there is none to open");
        return;
    }
    struct module_mark mark = {.path = map->l_name, .bias = 0x7123450000, .build_id = id};
    mark.start = mark.bias;
    mark.end = mark.bias + 0x20000;
    mark.build_id_bytes = image_build_id(&image, id);
    uint64_t vaddr = find_exported(&image, "ns_parserr");
    struct names names;
    struct frame_place place = {.address = mark.bias + vaddr + 5, .exact = true, .module = &mark};
    const struct frame_name *name = name_one(view, &names, place);
    is_text(name->function, "ns_parserr", "a function of a library that is gone");
    is_u64(name->offset, vaddr + 5, "its offset");
    names_free(&names);
    id[0] ^= 1;
    name = name_one(view, &names, place);
    ok(!name->function && name->build_id && name->offset == vaddr + 5,
       "not of a file with another build-id");
    char text[200];
    names_describe(name, text, sizeof text);
    ok(strstr(text, "libresolv") && strstr(text, name->build_id), "%s", text);
    names_free(&names);
    image_close(&image);
    dlclose(library);
}

static void test_batch(struct view *view)
{
    enum { COUNT = 1000 };
    static struct frame_place places[COUNT];
    struct names names;
    size_t count, wrong = 0;
    hi_addr ours = (hi_addr)(uintptr_t)plain_function, theirs = (hi_addr)(uintptr_t)getenv;
    for (size_t i = 0; i < COUNT; i++) {
        places[i].address = i % 3 == 0 ? ours : i % 3 == 1 ? theirs : 0x1000 + i;
        places[i].exact = true;
    }
    if (names_of(view->symbols, places, COUNT, &names, NULL) != HI_OK)
        abort();
    for (size_t i = 0; i < COUNT; i++) {
        const struct frame_name *name = names_at(&names, i, &count);
        const char *wanted = i % 3 == 0 ? "plain_function" : i % 3 == 1 ? "getenv" : NULL;
        name += count - 1;
        wrong += wanted ? !name->function || strcmp(name->function, wanted) != 0
                        : name->function || name->offset != 0x1000 + i;
    }
    is_u64(wrong, 0, "a thousand at once, each with its own name");
    names_free(&names);
    ok(names_of(view->symbols, NULL, 0, &names, NULL) == HI_OK && names.count == 0, "none at all");
    names_free(&names);
}

int main(void)
{
    struct view view;
    if (plain_function(1) != 2 || !ok(view_open(&view), "a child holds still"))
        return done();
    test_loaded(&view);
    test_gone(&view);
    test_batch(&view);
    view_close(&view);
    return done();
}
