#!/usr/bin/env python3
"""Totals of the readers of jemalloc, tcmalloc and mimalloc against what the allocators say of themselves.

tests/programs/heap_accounts asks them in the target (mallctl, MallocExtension, mi_heap_visit_blocks)
while every thread is at rest, and stands still. Numbers that mean the same must be the same.
ACCOUNTS_SEED repeats a run; ACCOUNTS_LIBRARY="jemalloc=PATH" tries another build.
"""
import os
import pathlib
import random
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import heaptest as t



def start(library, threads, seed):
    """The program, and what it printed: name -> number."""
    process = t.start([t.PROGRAMS / "heap_accounts", seed, threads], stdout=subprocess.PIPE, text=True,
                      env=dict(t.environment("ptmalloc"), LD_PRELOAD=library))
    said = {}
    for line in process.stdout:
        found = re.match(r"([a-z]+\.[a-z_.]+) (\d+)$", line)
        if found:
            said[found[1]] = int(found[2])
        if line.startswith("ready"):
            return process, said
    return process, None


def jemalloc(what, said, heap):
    # what threads cache is allocated for it
    t.is_(heap["live"]["bytes"] + heap["cached"]["bytes"], said["stats.allocated"],
          f"{what}: live and cached is stats.allocated")
    t.is_(heap["system_bytes"], said["stats.mapped"], f"{what}: from the system is stats.mapped")


def tcmalloc(what, said, heap):
    t.is_(heap["live"]["bytes"], said["generic.current_allocated_bytes"],
          f"{what}: live is current_allocated_bytes")
    t.is_(heap["cached"]["bytes"], said["tcmalloc.current_total_thread_cache_bytes"] +
          said["tcmalloc.transfer_cache_free_bytes"],
          f"{what}: cached is thread caches and transfer cache")
    t.is_(heap["system_bytes"], said["generic.heap_size"], f"{what}: from the system is heap_size")


def mimalloc(what, said, heap):
    live = heap["live"]
    t.is_((live["blocks"], live["bytes"]), (said["mi.blocks"], said["mi.bytes"]),
          f"{what}: live is what mi_heap_visit_blocks visits")


def one(name, library, threads, seed):
    what = f"{name}, {threads} threads"
    process, said = start(library, threads, seed)
    if t.ok(said, f"{what}: says its numbers"):
        status, answer, err = t.inspect_json("arenas", "-p", process.pid)
        heaps = [heap for heap in answer["heaps"] if heap["allocator"] == name] if answer else []
        if t.ok(len(heaps) == 1, f"{what}: is walked {err}"):
            {"jemalloc": jemalloc, "tcmalloc": tcmalloc, "mimalloc": mimalloc}[name](
                what, said, heaps[0])
            t.is_(t.disagreements(answer), [], f"{what}: checks agree")
    t.end(process)


def main():
    t.need_tools()
    seed = int(os.environ.get("ACCOUNTS_SEED", random.randrange(1 << 30)))
    t.diag(f"ACCOUNTS_SEED={seed}")
    libraries = t.allocators()
    if "ACCOUNTS_LIBRARY" in os.environ:
        name, _, path = os.environ["ACCOUNTS_LIBRARY"].partition("=")
        libraries = {name: path}
    for name in ("jemalloc", "tcmalloc", "mimalloc"):
        for threads in (0, 3, 12):
            if libraries.get(name):
                one(name, libraries[name], threads, seed + threads)
    t.done()


main()
