#!/usr/bin/env python3
"""The allocator's parser of .eh_frame beside readelf: each row of each function, CFA and registers.

A few libraries of many kinds (C, C++, assembly, Rust where there is one); all of the system's with
CFI_ALL=1, which is what `make cfi` does.
"""
import glob
import os
import re
import shutil
import subprocess

BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
COMPARE = BUILD + "/programs/cfi_compare"
EVERYTHING = ["/lib/*/*.so*", "/usr/lib/*/*.so*", "/usr/lib/*/*/*.so*", "/usr/lib/*.so*",
              "/usr/lib/jvm/*/lib/*.so", "/usr/lib/jvm/*/lib/*/*.so", "/usr/lib/gcc/*/*/cc1*",
              "/usr/bin/*", "/usr/sbin/*"]
FEW = ["/lib/*/libc.so.6", "/lib/*/ld-linux-x86-64.so.2", "/usr/lib/*/libgmp.so.10",
       "/lib/*/libm.so.6", "/lib/*/libgcc_s.so.1", "/usr/lib/*/libcrypto.so.3", "/usr/bin/perl",
       "/usr/bin/bash", "/usr/lib/*/librsvg-2.so.2", "/usr/lib/*/libjemalloc.so.2",
       "/usr/bin/redis-server", BUILD + "/libhimalloc.so"]
COUNTS = re.compile(r"rows (\d+) equal (\d+) functions (\d+)")


def is_elf(path):
    try:
        with open(path, "rb") as file:
            return file.read(20)[:6] == b"\x7fELF\x02\x01" and os.path.getsize(path) < 400 << 20
    except OSError:
        return False


def files(patterns):
    found = {}
    for pattern in patterns:
        for path in glob.glob(pattern):
            real = os.path.realpath(path)
            if real not in found and is_elf(real):
                found[real] = path
    return list(found)


def compare(path):
    """Counts, and the text of what differs."""
    reader = subprocess.Popen(["readelf", "--debug-dump=frames-interp", "-wN", path],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = subprocess.run([COMPARE, path], stdin=reader.stdout, capture_output=True, text=True)
    reader.stdout.close()
    reader.wait()
    match = COUNTS.search(out.stdout)
    counts = [int(n) for n in match.groups()] if match else [0, 0, 0]
    return counts, "" if match and out.returncode == 0 else f"# died on {path}\n" + out.stdout, \
        out.stdout


def main():
    if not shutil.which("readelf"):
        print("1..0 # SKIP readelf is not here")
        return
    everything = bool(os.environ.get("CFI_ALL"))
    total, differing, deaths, used = [0, 0, 0], [], [], 0
    for path in files(EVERYTHING if everything else FEW):
        counts, death, text = compare(path)
        total = [a + b for a, b in zip(total, counts)]
        used += counts[0] > 0
        if death:
            deaths.append(death)
        if counts[0] != counts[1]:
            differing.append(text)
    print("1..2")
    print(f"{'not ok' if deaths else 'ok'} 1 - the parser lives through every file")
    print("".join(deaths), end="")
    good = not differing and total[0] > 50000
    print(f"{'ok' if good else 'not ok'} 2 - {total[1]} of {total[0]} rows of {total[2]} functions "
          f"in {used} files as readelf says")
    print("".join(differing)[:4000], end="")


main()
