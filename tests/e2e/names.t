#!/usr/bin/env python3
"""Functions, inlined calls, files and lines of code addresses, against other tools' answers.

Small programs are compiled in the ways that compilers and packagers have; every few bytes of their
functions are named by us, by llvm-symbolizer (chains, linker's names, files, lines: all of it must
be equal) and by addr2line (functions and lines). Where a file says the same in another way (packed,
split, stripped with a debug file somewhere, shared parts moved out), the answer must be that of the
file it was made from. What differs, and is left out of the comparison:
  - .cold, .part.0 and the like, which llvm-symbolizer takes from the symbol table in place of DWARF
    (gcc calls large.cold __second_sect_of_large in DWARF 2)
  - of two symbols at one address (identical code folded) each may take another
  - addr2line's file: of inlined code it names the unit's file at times, with the line of the header;
    and DWARF 2's second sections, clang's DWARF 5 and split units, which it does not read
"""
import os
import re
import resource
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import *  # noqa: E402,F403

TOOL = str(BUILD / "names/name_addresses")
SOURCES = ROOT / "tests/names"
CLONE = re.compile(r"(\.(cold|part|constprop|isra|lto_priv|localalias|llvm)(\.\d+)*)+$")
MOST = 1500

where = folder()


def shell(command):
    """Run in the tests' folder; True: it did."""
    done_ = subprocess.run(command, shell=True, cwd=where, capture_output=True, text=True)
    if done_.returncode:
        diag(f"{command}: {done_.stderr[-500:]}")
    return done_.returncode == 0


def has(tool):
    return shutil.which(tool) is not None


def addresses(file):
    """Every few bytes of the functions of a file."""
    out = subprocess.run(["nm", "-S", "--defined-only", file], cwd=where, capture_output=True,
                         text=True).stdout
    spans = {(int(p[0], 16), int(p[1], 16)) for p in map(str.split, out.splitlines())
             if len(p) == 4 and p[2] in "tTwW"}
    total = sum(size for _, size in spans)
    step = max(1, total // MOST)
    return sorted({a for start, size in spans for a in range(start, start + size, step)})


def parse(text):
    """The lines of addr2line -a -f -i: address -> [(function, file, line)]."""
    answers, frames, lines = {}, None, iter(text.splitlines())
    for line in lines:
        if line.startswith("0x"):
            frames = answers.setdefault(int(line, 16), [])
        elif line:
            path, _, number = next(lines).split(" (discriminator")[0].rpartition(":")
            path = "??" if path in ("", "??") else os.path.normpath(os.path.join(where, path))
            frames.append((line, path, int(number) if number.isdigit() else 0))
    return answers


def ask(command, asked):
    text = "".join(f"{a:#x}\n" for a in asked)
    done_ = subprocess.run(command, input=text, cwd=where, capture_output=True, text=True)
    if done_.returncode:
        diag(f"{command}: {done_.returncode} {done_.stderr[-500:]}")
    return parse(done_.stdout)


def ours(file, asked, *flags):
    return ask([TOOL, *flags, file], asked)


def known(answer):
    return bool(answer) and answer[0][2] > 0


def compare(what, asked, left, right, least):
    """left and right are equal at each address, and there was enough to compare."""
    wrong = [a for a in asked if left.get(a) != right.get(a)]
    chains = sum(len(left.get(a, [])) > 1 for a in asked)
    if not ok(not wrong and len(asked) >= least,
              f"{what}: {len(asked) - len(wrong)} of {len(asked)} equal, {chains} inlined"):
        for a in wrong[:3]:
            diag(f"{a:#x}\n  {left.get(a)}\n  {right.get(a)}")


def twins(file):
    """Name -> the first of the names of its address."""
    out = subprocess.run(["nm", "--defined-only", file], cwd=where, capture_output=True,
                         text=True).stdout
    by_address = {}
    for parts in map(str.split, out.splitlines()):
        by_address.setdefault(parts[0], []).append(parts[2])
    return {name: min(names) for names in by_address.values() for name in names}


def plain(answers, same):
    """Without what llvm-symbolizer takes from the symbol table."""
    return {a: [(CLONE.sub("", same.get(f, f)).removeprefix("__second_sect_of_"), p, n)
                for f, p, n in frames] for a, frames in answers.items()}


def without_files(answers):
    return {a: [(CLONE.sub("", f), n) for f, _, n in frames] for a, frames in answers.items()}


def against_llvm(file, least=300):
    if not has("llvm-symbolizer"):
        return skip(f"{file} against llvm-symbolizer", "there is none")
    asked = addresses(file)
    theirs = ask(["llvm-symbolizer", "--output-style=GNU", "-a", "-f", "-i", "--no-demangle", "-e",
                  file], asked)
    mine = ours(file, asked, "-l")
    asked = [a for a in asked if known(mine.get(a)) or known(theirs.get(a))]
    same = twins(file)
    compare(f"{file} against llvm-symbolizer", asked, plain(mine, same), plain(theirs, same), least)


def against_addr2line(file, least=300):
    asked = addresses(file)
    theirs = ask(["addr2line", "-a", "-f", "-i", "-C", "-e", file], asked)
    mine = ours(file, asked)
    asked = [a for a in asked if known(mine.get(a)) or known(theirs.get(a))]
    compare(f"{file} against addr2line", asked, without_files(mine), without_files(theirs), least)


def same_as(file, base, what, *flags, least=300):
    asked = [a for a, frames in ours(base, addresses(base)).items() if known(frames)]
    compare(f"{file}: {what}", asked, ours(file, asked, *flags), ours(base, asked), least)


def build_c():
    c = f"{SOURCES}/shapes.c {SOURCES}/shapes_other.c"
    both = {"o0": "-O0 -g", "dwarf4": "-O2 -gdwarf-4", "dwarf5": "-O2 -gdwarf-5",
            "fixed": "-O2 -gdwarf-3 -gstrict-dwarf -no-pie",
            "sections": "-O2 -g -ffunction-sections -Wl,--gc-sections"}
    llvm = {"dwarf2": "-O2 -gdwarf-2 -gstrict-dwarf", "lto": "-O2 -g -flto"}
    for name, flags in (both | llvm).items():
        if ok(shell(f"gcc {flags} {c} -o {name}"), f"{name} is compiled"):
            against_llvm(name)
            if name in both:
                against_addr2line(name)
    for name, flags, base in (("packed", "-gdwarf-5 -gz", "dwarf5"),
                              ("packed_gnu", "-gdwarf-5 -gz=zlib-gnu", "dwarf5"),
                              ("split5", "-gdwarf-5 -gsplit-dwarf", "dwarf5"),
                              ("split4", "-gdwarf-4 -gsplit-dwarf", "dwarf4")):
        if ok(shell(f"gcc -O2 {flags} {c} -o {name}"), f"{name} is compiled"):
            same_as(name, base, flags)
    zstd = "objcopy --compress-debug-sections=zstd dwarf5 packed_zstd 2>/dev/null"
    if subprocess.run(zstd, shell=True, cwd=where).returncode:
        skip("sections packed by zstd", "objcopy cannot")
    else:
        same_as("packed_zstd", "dwarf5", "packed by zstd")


def build_others():
    cxx, c = f"{SOURCES}/shapes.cc", f"{SOURCES}/shapes.c {SOURCES}/shapes_other.c"
    for name, flags in (("cxx", "-O2 -g"), ("cxx_lto", "-O2 -g -flto")):
        if ok(shell(f"g++ {flags} {cxx} -o {name}"), f"{name} is compiled"):
            against_llvm(name, 800)
    if not has("clang"):
        skip("clang's programs", "there is no clang")
    else:
        for name, command in (("clang5", f"clang -O2 -g {c}"), ("clangxx", f"clang++ -O2 -g {cxx}"),
                              ("clang_split", f"clang++ -O2 -g -gsplit-dwarf {cxx}")):
            if ok(shell(f"{command} -o {name}"), f"{name} is compiled"):
                against_llvm(name)
        is_(subprocess.run(["readelf", "-SW", "clang5"], cwd=where, capture_output=True,
                           text=True).stdout.count(".debug_aranges"), 0, "clang writes no aranges")
    if not has("rustc"):
        return skip("rustc's programs", "there is no rustc")
    if ok(shell(f"rustc -g -O {SOURCES}/shapes.rs -o rust"), "rust is compiled"):
        against_llvm("rust")


def build_id(file):
    notes = subprocess.run(["readelf", "-n", file], cwd=where, capture_output=True, text=True).stdout
    return re.search(r"Build ID: ([0-9a-f]+)", notes).group(1)


def debug_files():
    """What packagers do to a file: the names stay the same."""
    base = "dwarf5"
    digits = build_id(base)
    linked = (f"mkdir -p linked && cp {base} linked/program && cd linked && "
              "objcopy --only-keep-debug program program.debug && "
              "objcopy --strip-all --add-gnu-debuglink=program.debug program")
    if ok(shell(linked), "stripped, with a debuglink"):
        same_as("linked/program", base, "by .gnu_debuglink")
    hidden = "mkdir -p linked/.debug && mv linked/program.debug linked/.debug/"
    if ok(shell(hidden), "the debug file moves to .debug"):
        same_as("linked/program", base, "by .gnu_debuglink in .debug")
    foreign = "gcc -O1 -g -x c /dev/null -shared -o linked/.debug/program.debug"
    if ok(shell(foreign), "another file takes its place"):
        answers = ours("linked/program", addresses(base))
        ok(not any(known(frames) for frames in answers.values()), "a foreign debug file is not used")
    store = f"store/.build-id/{digits[:2]}"
    stored = (f"mkdir -p {store} && objcopy --only-keep-debug {base} {store}/{digits[2:]}.debug && "
              f"objcopy --strip-all {base} stripped")
    if ok(shell(stored), "stripped, with a debug file by build-id"):
        same_as("stripped", base, "by --debug-dir", "-d", f"{where}/store")
        answers = ours("stripped", addresses(base))
        ok(not any(known(frames) for frames in answers.values()), "without it there are no lines")
    served = (f"mkdir -p served/buildid/{digits} && "
              f"mv {store}/{digits[2:]}.debug served/buildid/{digits}/debuginfo")
    if not library("libdebuginfod.so.1"):
        return skip("by a debuginfod server", "there is no client library")
    if ok(shell(served), "the debug file goes to a server"):
        os.environ.update(DEBUGINFOD_URLS=f"file://{where}/served",
                          DEBUGINFOD_CACHE_PATH=f"{where}/cache")
        same_as("stripped", base, "by debuginfod")
        del os.environ["DEBUGINFOD_URLS"]


def mini_debug_info():
    """Symbols only, packed into the file."""
    base = "dwarf5"
    made = (f"objcopy --only-keep-debug {base} mini.debug && strip -g mini.debug && xz -k mini.debug "
            f"&& objcopy --strip-all {base} mini && "
            "objcopy --add-section .gnu_debugdata=mini.debug.xz mini")
    if not ok(shell(made), "stripped, with .gnu_debugdata"):
        return
    asked = addresses(base)
    symbols = {a: [(frames[-1][0], "??", 0)] for a, frames in ours(base, asked).items()}
    mini = {a: [(CLONE.sub("", frames[-1][0]), "??", 0)] for a, frames in ours("mini", asked).items()}
    compare("functions by .gnu_debugdata", asked, mini, symbols, 300)


def shared_parts():
    if not has("dwz"):
        return skip("files of dwz", "there is no dwz")
    for base in ("dwarf4", "dwarf5"):
        one, two = f"dwz_{base}", f"twin_{base}"
        if ok(shell(f"dwz {base} -o {one}"), "dwz shares the parts within a file"):
            same_as(one, base, "by dwz")
        twin = (f"cp {base} {one} && gcc -O2 -g{base[:5]}-{base[5:]} {SOURCES}/shapes.c "
                f"{SOURCES}/shapes_other.c -o {two} && dwz -m {base}.alt {one} {two}")
        if ok(shell(twin), "dwz moves parts out of two files"):
            same_as(one, base, "by an alternate file")
            digits = build_id(f"{base}.alt")
            moved = f"store/.build-id/{digits[:2]}"
            shell(f"mkdir -p {moved} && mv {base}.alt {moved}/{digits[2:]}.debug")
            same_as(one, base, "by an alternate file's build-id", "-d", f"{where}/store")


def lost_parts():
    """Without the .dwo there are still lines and symbols."""
    base = {a: f for a, f in ours("split5", addresses("split5")).items() if known(f)}
    shell("rm -f split5-*.dwo")
    left = {a: (CLONE.sub("", f[-1][0]), f[0][1:]) for a, f in ours("split5", list(base)).items()}
    whole = {a: (f[-1][0], f[0][1:]) for a, f in base.items()}
    is_(left, whole, "without the .dwo: lines of the skeleton, functions of the symbols")


def hostile():
    """A chain for each address, in little time: walked level by level it would take half a minute."""
    if not ok(shell(f"gcc {SOURCES}/hostile.s -o hostile"), "hostile is assembled"):
        return
    out = subprocess.run(["nm", "hostile"], cwd=where, capture_output=True, text=True).stdout
    main = next(int(line.split()[0], 16) for line in out.splitlines() if line.endswith(" T main"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    answers = ours("hostile", [main + at for at in (4, 12, 20, 28, 60)])
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    calls = [[(f, n) for f, _, n in answers[main + at]] for at in (4, 12, 20, 28, 60)]
    is_(calls, [[("function", 0)], [("??", 0), ("function", 1)], [("??", 0), ("function", 2)],
                [("??", 0), ("function", 3)], [("function", 0)]], "origins in circles have no name")
    if not ok(spent < 3, "deep nesting is walked once"):
        diag(f"{spent} s")


if not os.path.exists(TOOL):
    skip_all(f"{TOOL} is not built")
build_c()
build_others()
debug_files()
mini_debug_info()
shared_parts()
lost_parts()
hostile()
done()
