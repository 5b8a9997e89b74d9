#!/usr/bin/env python3
"""Totals of the ptmalloc reader against what the C library says of itself.

tests/programs/heap_accounts calls mallinfo2() and malloc_info() in the target, and stands still. Each
number there that has a counterpart here must be the same one: free chunks and fast chunks of each
arena, bytes from the system, mapped chunks; under the tunables that change how malloc works.
ACCOUNTS_SEED repeats a run, ACCOUNTS_LOADER="LD.SO --library-path DIR" is another release (2.33 on).
"""
import os
import pathlib
import random
import re
import subprocess
import sys
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import heaptest as t

HEADER = 8       # of a chunk, that its user may not write
TOP_HEADER = 16  # of a top: it has no next chunk whose prev_size its user could write
THRESHOLD = "glibc.malloc.mmap_threshold=131072"
WIDE = "glibc.malloc.mmap_threshold=1000000"
# name, tunables, threads, and arguments
KINDS = [
    ("defaults", "", 3),
    ("fixed threshold", THRESHOLD, 3),
    ("one arena", f"glibc.malloc.arena_max=1:{THRESHOLD}", 3),
    ("no thread cache", f"glibc.malloc.tcache_count=0:{THRESHOLD}", 2),
    ("large cache, large fast chunks",
     f"glibc.malloc.tcache_count=127:glibc.malloc.mxfast=160:{THRESHOLD}", 2),
    ("huge pages advised", f"glibc.malloc.hugetlb=1:{THRESHOLD}", 2),
    ("huge pages mapped", f"glibc.malloc.hugetlb=2:{THRESHOLD}", 2),
    ("mappings only", "glibc.malloc.mmap_threshold=0:glibc.malloc.mmap_max=1000000", 1),
    ("no mappings", "glibc.malloc.mmap_max=0", 2),
    ("break blocked, 32 bytes left", WIDE, 1, 32),
    ("break blocked, 48 bytes left", WIDE, 1, 48),
    ("break blocked, 64 bytes left", WIDE, 1, 64),
    ("break blocked, 1040 bytes left", WIDE, 1, 1040),
]


class Accounts:
    """What heap_accounts printed."""

    def __init__(self, lines):
        self.info = {}
        document = []
        for line in lines:
            found = re.match(r"(\w+) (\d+)$", line)
            if found:
                self.info[found[1]] = int(found[2])
            elif line.startswith("<") or document:
                document.append(line)
        root = xml.etree.ElementTree.fromstring("".join(document))
        self.heaps = [self.totals(heap) for heap in root.findall("heap")]
        self.all = self.totals(root)

    @staticmethod
    def totals(node):
        found = {total.get("type"): (int(total.get("count")), int(total.get("size")))
                 for total in node.findall("total")}
        found["system"] = next(int(system.get("size")) for system in node.findall("system")
                               if system.get("type") == "current")
        found["subheaps"] = sum(int(space.get("size")) for space in node.findall("aspace")
                                if space.get("type") == "subheaps")
        return found


def start(tunables, seed, arguments):
    environment = t.environment("ptmalloc")
    if tunables:
        environment["GLIBC_TUNABLES"] = tunables
    loader = os.environ.get("ACCOUNTS_LOADER", "").split()
    process = t.start(loader + [t.PROGRAMS / "heap_accounts", seed, *arguments], env=environment,
                      stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        if line.startswith("ready"):
            return process, Accounts(lines)
        lines.append(line.strip())
    return process, None


def check_named(heap, name):
    return next((check["walked"] for check in heap["checks"] if check["name"] == name), 0)


def free_chunks(heap):
    """An arena that has no memory yet counts its empty top."""
    return heap["rest"][0] if heap["system"] else 0


def compare_arenas(what, said, arenas):
    own = [arena for arena in arenas if arena["name"] != "mapped"]
    t.is_([arena["free"]["blocks"] for arena in own], [free_chunks(heap) for heap in said.heaps],
          f"{what}: free chunks of each arena")
    t.is_([arena["system_bytes"] for arena in own], [heap["system"] for heap in said.heaps],
          f"{what}: bytes from the system of each arena")
    # malloc_info() adds the flags of sizes to sizes: at most 7 bytes a chunk
    free = [arena["free"]["bytes"] + HEADER * arena["free"]["blocks"] for arena in own]
    rest = [heap["rest"][1] for heap in said.heaps]
    over = [has - got for has, got in zip(rest, free)]
    t.ok(all(0 <= more <= 7 * heap["rest"][0] + TOP_HEADER
             for more, heap in zip(over, said.heaps)), f"{what}: free bytes of each arena")


def compare_totals(what, said, heap, arenas):
    own = [arena for arena in arenas if arena["name"] != "mapped"]
    mapped = [arena for arena in arenas if arena["name"] == "mapped"]
    info = said.info
    fast = heap["cached"]["blocks"] - check_named(heap, "tcache entries")
    t.is_(fast, info["smblks"], f"{what}: fast chunks")
    empty = sum(1 for one in said.heaps if not one["system"])
    t.is_(heap["free"]["blocks"], info["ordblks"] - empty, f"{what}: free chunks")
    tops = sum(1 for arena in own if arena["free"]["blocks"])
    free = heap["free"]["bytes"] + HEADER * (heap["free"]["blocks"] + tops)
    t.is_(free, info["fordblks"] - info["fsmblks"], f"{what}: free bytes, to the byte")
    t.is_(sum(arena["system_bytes"] for arena in own), info["arena"], f"{what}: bytes of arenas")
    t.is_((sum(arena["live"]["blocks"] for arena in mapped),
           sum(arena["system_bytes"] for arena in mapped)), (info["hblks"], info["hblkhd"]),
          f"{what}: mapped chunks, and their bytes")
    # what is in use: live, cached by threads, and heads, ends and alignment of heaps
    used = sum(arena[state]["bytes"] + HEADER * arena[state]["blocks"]
               for arena in own for state in ("live", "cached")) - info["fsmblks"]
    heaps = 1 + sum(one["subheaps"] for one in said.heaps)
    t.ok(0 <= info["uordblks"] - used <= 4096 * heaps, f"{what}: bytes in use "
         f"({info['uordblks']}, {used} in chunks, {heaps} heaps)")


def compare(what, said, target):
    status, answer, err = t.inspect_json("arenas", *target)
    if not t.ok(status == 0 and answer, f"{what}: arenas"):
        return t.diag(err)
    heap = next(one for one in answer["heaps"] if one["allocator"] == "ptmalloc")
    compare_arenas(what, said, answer["arenas"])
    compare_totals(what, said, heap, answer["arenas"])
    t.is_(t.disagreements(answer), [], f"{what}: totals agree")
    states = {arena["state"] for arena in answer["arenas"]}
    t.is_(states, {"ok"}, f"{what}: nothing in flux, nothing damaged")


def main():
    t.need_tools()
    seed = int(os.environ.get("ACCOUNTS_SEED", random.randrange(1 << 31)))
    t.diag(f"ACCOUNTS_SEED={seed}")
    for name, tunables, *arguments in KINDS:
        process, said = start(tunables, seed, arguments)
        if t.ok(said, f"{name}: stands still"):
            compare(name, said, ["-p", str(process.pid)])
            if name in ("fixed threshold", "break blocked, 48 bytes left"):
                core = t.gcore(process.pid, t.folder())
                if core:
                    compare(f"{name}, gcore", said, [core])
                    os.unlink(core)
        t.end(process)
    t.done()


main()
