/*
 * Modules and names of a live process. The process is a fork of the test, so the test knows the
 * truth: dl_iterate_phdr and dlsym in itself, and the addresses of its own functions and variables.
 */
#include "symbols/symbols.h"
#include "unit/tap.h"

#include <dlfcn.h>
#include <link.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

int symbols_live_exported = 1;
static int symbols_live_hidden = 2;
static const char symbols_live_text[] = "a constant that only rodata holds";

__attribute__((noinline)) static int symbols_live_static_function(int x)
{
    __asm__ volatile("" : "+r"(x));
    return x + symbols_live_hidden;
}

struct seen {
    struct symbols *symbols;
    size_t objects, found, in_order;
};

static size_t index_of(struct symbols *symbols, const struct module *module)
{
    for (size_t i = 0; i < symbols_module_count(symbols); i++)
        if (symbols_module(symbols, i) == module)
            return i;
    return SIZE_MAX;
}

static bool segments_agree(struct symbols *symbols, size_t index, const struct dl_phdr_info *info)
{
    size_t at = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type != PT_LOAD)
            continue;
        struct module_segment segment = symbols_segment(symbols, index, at++);
        if (segment.memory.start != info->dlpi_addr + h->p_vaddr ||
            segment.memory.end != segment.memory.start + h->p_memsz ||
            segment.file_bytes != h->p_filesz)
            return false;
    }
    return at == symbols_segment_count(symbols, index);
}

static int compare_object(struct dl_phdr_info *info, size_t size, void *context)
{
    struct seen *seen = context;
    (void)size;
    const struct module *module =
        symbols_module_at(seen->symbols, info->dlpi_addr + info->dlpi_phdr[0].p_vaddr);
    size_t index = index_of(seen->symbols, module);
    seen->objects++;
    if (!module || module->bias != info->dlpi_addr || !segments_agree(seen->symbols, index, info)) {
        printf("#   %s\n", info->dlpi_name);
        return 0;
    }
    seen->found++;
    seen->in_order += index == seen->objects - 1;
    return 0;
}

static void test_modules(struct symbols *symbols)
{
    struct seen seen = {.symbols = symbols};
    dl_iterate_phdr(compare_object, &seen);
    is_u64(seen.found, seen.objects, "every object of dl_iterate_phdr, with bias and segments");
    is_u64(seen.in_order, seen.objects, "in load order");
    is_u64(symbols_module_count(symbols), seen.objects, "and no other");
    const struct module *module = symbols_module(symbols, 0);
    ok(module->kind == MODULE_EXECUTABLE && !module->is_static, "the executable comes first");
    ok(module->has_file && module->build_id_bytes == 20, "with its file and a build-id");
    ok(module->relro.start < module->relro.end, "and RELRO");
    module = symbols_module_at(symbols, (hi_addr)(uintptr_t)dlsym(RTLD_DEFAULT, "hsearch_r"));
    ok(module && module->is_libc && !module->is_dynamic_linker && module->has_file, "libc is libc");
    module = symbols_module_at(symbols, getauxval(AT_BASE));
    ok(module && module->is_dynamic_linker && !module->is_libc, "ld.so is the dynamic linker");
    module = symbols_module_at(symbols, getauxval(AT_SYSINFO_EHDR));
    ok(module && module->kind == MODULE_VDSO, "the vdso");
    ok(!symbols_module_at(symbols, (hi_addr)(uintptr_t)&seen), "the stack is no module");
    ok(!symbols_module_at(symbols, 0) && !symbols_module_at(symbols, UINT64_MAX), "nor the ends");
}

static void find(struct symbols *symbols, const char *name, const void *wanted)
{
    struct symbol symbol = {0};
    enum hi_code code = symbols_find(symbols, SYMBOLS_ANY_MODULE, name, &symbol, NULL);
    char what[100];
    snprintf(what, sizeof what, "%s is found", name);
    is_u64(code == HI_OK ? symbol.address : 0, (hi_addr)(uintptr_t)wanted, what);
}

static void name_at(struct symbols *symbols, const void *place, uint64_t offset, const char *wanted)
{
    char text[200];
    symbols_describe(symbols, (hi_addr)(uintptr_t)place + offset, text, sizeof text);
    is_text(text, wanted, wanted);
}

static void test_names(struct symbols *symbols)
{
    struct symbol symbol;
    find(symbols, "symbols_live_exported", &symbols_live_exported);
    find(symbols, "symbols_live_hidden", &symbols_live_hidden);
    find(symbols, "environ", dlsym(RTLD_DEFAULT, "environ"));
    find(symbols, "hsearch_r", dlsym(RTLD_DEFAULT, "hsearch_r"));
    find(symbols, "pthread_cond_wait", dlvsym(RTLD_DEFAULT, "pthread_cond_wait", "GLIBC_2.3.2"));
    find(symbols, "elf_begin", dlsym(RTLD_DEFAULT, "elf_begin"));
    ok(symbols_find(symbols, SYMBOLS_ANY_MODULE, "no such name", &symbol, NULL) == HI_NOT_FOUND,
       "an unknown name is not found");
    ok(symbols_find(symbols, 9999, "malloc", &symbol, NULL) == HI_NOT_FOUND, "nor a module");
    name_at(symbols, (void *)symbols_live_static_function, 0, "symbols_live_static_function");
    name_at(symbols, (void *)symbols_live_static_function, 3, "symbols_live_static_function+0x3");
    name_at(symbols, dlsym(RTLD_DEFAULT, "hsearch_r"), 1, "hsearch_r+0x1");
    name_at(symbols, &symbols_live_hidden, 2, "symbols_live_hidden+0x2");
    name_at(symbols, (void *)8, 8, "0x10");
    ok(symbols_at(symbols, (hi_addr)(uintptr_t)&symbol, &symbol, NULL) == HI_NOT_FOUND,
       "no symbol on the stack");
}

static void test_file(struct symbols *symbols)
{
    char text[sizeof symbols_live_text] = "";
    uint64_t vaddr = (hi_addr)(uintptr_t)symbols_live_text - symbols_module(symbols, 0)->bias;
    ok(symbols_read_file(symbols, 0, vaddr, text, sizeof text, NULL) == HI_OK, "rodata by file");
    is_text(text, symbols_live_text, "is what the program has");
    ok(symbols_read_file(symbols, 0, 1ull << 40, text, 1, NULL) == HI_NOT_FOUND, "not beyond it");
    ok(symbols_read_file(symbols, 0, UINT64_MAX, text, 8, NULL) == HI_NOT_FOUND, "nor at the end");
}

static int *relocated_place = &symbols_live_exported;

static bool see_relocation(void *context, hi_addr place, hi_addr value)
{
    if (place == (hi_addr)(uintptr_t)&relocated_place)
        *(hi_addr *)context = value;
    return true;
}

static void test_relocations(struct symbols *symbols)
{
    hi_addr value = 0, place = (hi_addr)(uintptr_t)&relocated_place;
    struct hi_range places = {place, place + 8};
    ok(symbols_relocations(symbols, 0, places, see_relocation, &value, NULL) == HI_OK,
       "relocations of the program");
    is_u64(value, (hi_addr)(uintptr_t)&symbols_live_exported, "say what a static pointer holds");
}

/* Two frames of the test itself, as they were before it went on. */
static hi_addr outer_cfa, inner_return, inner_cfa;

__attribute__((noinline)) static int inner_frame(int x)
{
    inner_return = (hi_addr)(uintptr_t)__builtin_return_address(0);
    inner_cfa = (hi_addr)(uintptr_t)__builtin_dwarf_cfa();
    return x + 1;
}

/* counted from the stack pointer, whatever the rest is compiled to */
__attribute__((noinline, optimize("omit-frame-pointer"),
               no_sanitize("address", "undefined"))) static int
outer_frame(int x)
{
    volatile char room[256];
    room[x] = 1;
    outer_cfa = (hi_addr)(uintptr_t)__builtin_dwarf_cfa();
    return inner_frame(x) + room[x];
}

static void test_frames(struct symbols *symbols)
{
    hi_addr cfa = 0;
    ok(symbols_frame_cfa(symbols, inner_return, inner_cfa, &cfa, NULL) == HI_OK,
       "unwind information");
    is_u64(cfa, outer_cfa, "says where the caller's frame begins");
    ok(symbols_frame_cfa(symbols, (hi_addr)(uintptr_t)&cfa, inner_cfa, &cfa, NULL) == HI_NOT_FOUND,
       "the stack has none");
}

static void test_demangle(void)
{
    char text[64];
    symbols_demangle("_ZNSt6vectorIiSaIiEE9push_backEOi", text, sizeof text);
    is_text(text, "std::vector<int, std::allocator<int> >::push_back(int&&)", "C++ names");
    symbols_demangle("_RNvCs1234_7mycrate3foo", text, sizeof text);
    is_text(text, "mycrate::foo", "Rust v0 names");
    symbols_demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", text, sizeof text);
    is_text(text, "core::fmt::Write::write_fmt", "legacy Rust names");
    symbols_demangle("main", text, sizeof text);
    is_text(text, "main", "a plain name stays");
    symbols_demangle("_ZNSt6vectorIiSaIiEE9push_backEOi", text, 12);
    is_text(text, "std::vector", "a name that is too long is cut");
    /* each substitution doubles what is printed: 2^40 characters */
    char bomb[400] = "_Z1fI1XS0_";
    symbols_demangle(bomb, text, sizeof text);
    char hostile[1000] = "_Z1f";
    for (int i = 0; i < 40; i++)
        snprintf(hostile + strlen(hostile), sizeof hostile - strlen(hostile), "PFS%c_S%c_E",
                 "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i % 36],
                 "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i % 36]);
    symbols_demangle(hostile, text, sizeof text);
    ok(strlen(text) < sizeof text, "a hostile name ends");
}

int main(void)
{
    struct hi_err err = {0};
    struct target *target = NULL;
    struct symbols *symbols = NULL;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    ok(symbols_live_static_function(1) + outer_frame(0) == 5, "the test itself");
    if (ok(target_open_process(&target, child, NULL, &err) == HI_OK, "open: %s", err.message) &&
        ok(symbols_open(&symbols, target, NULL, &err) == HI_OK, "symbols: %s", err.message)) {
        test_modules(symbols);
        test_names(symbols);
        test_file(symbols);
        test_relocations(symbols);
        test_frames(symbols);
    }
    symbols_close(symbols);
    target_close(target);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    test_demangle();
    return done();
}
