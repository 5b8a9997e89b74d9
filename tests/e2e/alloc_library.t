#!/usr/bin/env python3
"""What the libraries show to the outside: exported names, dependencies, the note, a static program."""
import os
import re
import subprocess
import tempfile

BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
SHARED, STATIC = BUILD + "/libhimalloc.so", BUILD + "/libhimalloc.a"
count = 0


def ok(passed, what, detail=""):
    global count
    count += 1
    print(f"{'ok' if passed else 'not ok'} {count} - {what}")
    if not passed and detail:
        print("#   " + str(detail).replace("\n", "\n#   "))


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def promised():
    text = open("allocator/exports.map").read()
    return set(re.findall(r"\b([A-Za-z_]\w*);", text.split("global:")[1].split("local:")[0]))


def test_exports():
    shown = {line.split()[-1] for line in output("nm", "-D", "--defined-only", SHARED).splitlines()}
    ok(shown == promised(), "libhimalloc.so exports its list and nothing else",
       sorted(shown ^ promised()))
    lines = output("nm", "-g", "--defined-only", STATIC).splitlines()
    shown = {line.split()[-1] for line in lines if len(line.split()) == 3}
    wanted = promised() - {"dlclose"}
    ok(shown == wanted, "libhimalloc.a shows the same names but dlclose", sorted(shown ^ wanted))


def test_dependencies():
    needed = re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-d", SHARED))
    extra = [n for n in needed if not n.startswith(("libc.", "ld-linux"))]
    ok(not extra, "it needs nothing but the C library", needed)


def test_note():
    """The note lies in the first page; its distance leads to the anchor's place."""
    notes = output("readelf", "-nW", SHARED)
    data = re.search(r"himalloc\s+0x0*8\s[^:]*description data: ((?:[0-9a-f]{2} )+)", notes)
    section = re.search(r"\.note\.himalloc\s+NOTE\s+([0-9a-f]+)", output("readelf", "-SW", SHARED))
    anchor = re.search(r"([0-9a-f]+) \w hm_root_anchor", output("nm", SHARED))
    ok(data and section and anchor and int(section.group(1), 16) < 4000,
       "the note is in the first page")
    distance = int.from_bytes(bytes.fromhex(data.group(1).replace(" ", "")), "little", signed=True)
    place = int(section.group(1), 16) + 24
    ok(place + distance == int(anchor.group(1), 16), "and leads to the anchor")


def test_static(folder):
    source = folder + "/static.c"
    with open(source, "w") as file:
        file.write('#include <stdio.h>\n#include <stdlib.h>\n#include <malloc.h>\n'
                   '#include <pthread.h>\n'
                   'static void *give(void *p) { free(p); return malloc(77); }\n'
                   'int main(void) { pthread_t t; void *p = malloc(1000), *q;\n'
                   'pthread_create(&t, NULL, give, p); pthread_join(t, &q);\n'
                   'char *text = NULL; size_t n; FILE *f = open_memstream(&text, &n);\n'
                   'malloc_info(0, f); fclose(f); fputs(text, stdout);\n'
                   'q = realloc(q, 500000); free(q); free(aligned_alloc(4096, 1)); return 0; }\n')
    for flags in (["-static"], ["-static-pie", "-fPIE"], []):
        program = folder + "/static"
        subprocess.run([os.environ.get("CC", "gcc"), "-O1", "-fno-builtin", *flags, "-o", program,
                        source, STATIC, "-pthread"], check=True)
        subprocess.run(["strip", "-s", program], check=True)
        run = subprocess.run([program], capture_output=True, text=True)
        ok(run.returncode == 0 and 'version="himalloc' in run.stdout,
           f"a program linked with libhimalloc.a {' '.join(flags) or 'dynamically'}, stripped, runs",
           run.stderr)
        ok("himalloc" in output("readelf", "-nW", program), "and carries the note")


CXX = r"""
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>
#include <malloc.h>
struct alignas(256) wide { char c[300]; };
static int asked;
static void handler() { if (++asked == 3) std::set_new_handler(nullptr); }
int main()
{
    volatile size_t huge = static_cast<size_t>(-1) / 4 * 3;
    int bad = 0;
    for (int i = 1; i < 2000; i++) {
        std::unique_ptr<wide> w(new wide);
        bad += reinterpret_cast<size_t>(w.get()) % 256 != 0;
        std::unique_ptr<wide[]> ws(new wide[3]);
        bad += reinterpret_cast<size_t>(ws.get()) % 256 != 0;
        std::vector<std::string> v(i % 50, std::string(i, 'x'));
        bad += !v.empty() && v.back().size() != static_cast<size_t>(i);
        delete new (std::nothrow) int(i);
    }
    bad += operator new(huge, std::nothrow) != nullptr;
    std::set_new_handler(handler);
    try { operator delete(operator new(huge)); bad++; } catch (const std::bad_alloc &) { }
    bad += asked != 3;
    try { operator delete(operator new(huge, std::align_val_t(64)), std::align_val_t(64)); bad++; }
    catch (const std::bad_alloc &) { }
    void *p = operator new[](100);
    bad += malloc_usable_size(p) != 112;
    operator delete[](p, static_cast<size_t>(100));
    std::printf("bad %d\n", bad);
}
"""


def test_cxx(folder):
    source, program = folder + "/cxx.cc", folder + "/cxx"
    with open(source, "w") as file:
        file.write(CXX)
    for flags in ([], ["-static"]):
        libraries = [STATIC] if flags else ["-L" + BUILD, "-lhimalloc", "-Wl,-rpath," + BUILD]
        subprocess.run([os.environ.get("CXX", "g++"), "-O1", "-std=c++17", "-fno-builtin", *flags,
                        "-o", program, source, *libraries], check=True)
        run = subprocess.run([program], capture_output=True, text=True)
        ok(run.stdout == "bad 0\n" and run.returncode == 0,
           f"new and delete in all forms {' '.join(flags)}", run.stdout + run.stderr)


test_exports()
test_dependencies()
test_note()
with tempfile.TemporaryDirectory() as place:
    test_static(place)
    test_cxx(place)
print(f"1..{count}")
