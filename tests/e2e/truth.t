#!/usr/bin/env python3
"""Truth programs against heapinspect: live, in gdb's core and in the kernel's core.

Each program of tests/programs/truth_*.c books every block that it holds, loses and frees, prints
the book, and stands still. The counts must be exactly those; no address or size is asserted that
the program did not print. TRUTH_ALLOCATORS names the allocators (default: himalloc).
"""
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import *  # noqa: E402,F403

PROGRAM_LIST = [
    ("truth_direct",), ("truth_chain",), ("truth_ring",), ("truth_ring_tail",),
    ("truth_rings_joined",), ("truth_interior",), ("truth_tls",), ("truth_stack",),
    ("truth_registers",), ("truth_freed",), ("truth_realloc",), ("truth_entries",),
    ("truth_large",), ("truth_threads",), ("truth_thread_end",), ("truth_leader_gone",),
    ("truth_mapping",), ("truth_libc",), ("truth_cxx",), ("truth_fork",),
    ("truth_exit", "return"), ("truth_exit", "call"),
    ("truth_signal_stack", "data"), ("truth_signal_stack", "heap"), ("truth_signal_stack", "map"),
    ("truth_context", "saved"), ("truth_context", "running"),
]
LOST = ("direct", "indirect", "ring")


def compare_leaks(truth, what, target):
    status, answer, err = inspect_json("leaks", *target, "--limit=1000000")
    if not ok(answer is not None, f"{what}: leaks --json is JSON"):
        diag(err)
        return
    totals = answer["totals"]
    counts = {kind: totals[kind]["blocks"] for kind in ("direct", "indirect", "possible")}
    if not is_(counts, truth.expected, f"{what}: direct, indirect, possible"):
        name_differences(truth, answer)
    is_(status, 1 if truth.expected["direct"] else 0, f"{what}: exit status")
    ok(answer["complete"], f"{what}: complete")
    is_(disagreements(answer), [], f"{what}: checks agree")
    compare_groups(truth, what, answer)


def compare_groups(truth, what, answer):
    kinds = {heap["bytes_are"] for heap in answer["heaps"] if heap["live"]["blocks"]}
    which = "requested" if kinds == {"requested"} else "usable"
    totals = answer["totals"]
    is_(totals["direct"]["bytes"] + totals["indirect"]["bytes"], truth.bytes(which, *LOST),
        f"{what}: lost bytes")
    is_(totals["possible"]["bytes"], truth.bytes(which, "possible"), f"{what}: possible bytes")
    allowed = {"direct": truth.of("direct", "ring"), "possible": truth.of("possible")}
    wrong, blocks = [], {"direct": 0, "possible": 0}
    for group in answer["leaks"]:
        blocks[group["kind"]] += group["blocks"]
        for example in group["examples"]:
            block = allowed[group["kind"]].get(int(example, 16))
            size = block and block[1 if which == "requested" else 2]
            if not block or not group["size"]["min"] <= size <= group["size"]["max"]:
                wrong.append((example, block))
    is_(wrong, [], f"{what}: examples are of the kind and size that their group says")
    is_(blocks, {kind: totals[kind]["blocks"] for kind in blocks}, f"{what}: groups add up")


def name_differences(truth, answer):
    for group in answer["leaks"]:
        for example in group["examples"]:
            state = truth.blocks.get(int(example, 16), ("unbooked",))[0]
            if state != group["kind"] and not (state == "ring" and group["kind"] == "direct"):
                diag(f"{group['kind']} group of {group['blocks']}: {example} is {state}")


def compare_chunks(truth, what, target):
    status, lines, err = chunks(*target)
    if not ok(status == 0 and lines, f"{what}: chunks --json"):
        diag(err)
        return
    live = {int(line["address"], 16) for line in lines if line["state"] == "live"}
    booked_live = {a for a, block in truth.blocks.items() if block[0] != "freed"}
    missed = sorted(booked_live - live)
    wrongly = sorted(set(truth.of("freed")) & live)
    is_([hex(a) for a in missed[:10]], [], f"{what}: every live block is live")
    is_([hex(a) for a in wrongly[:10]], [], f"{what}: no freed block is live")
    usable = {int(line["address"], 16): line["usable"] for line in lines}
    other = [(hex(a), truth.blocks[a][2], usable[a]) for a in booked_live & live
             if usable[a] != truth.blocks[a][2]]
    is_(other[:10], [], f"{what}: usable sizes")


def compare(truth, what, target):
    compare_leaks(truth, what, target)
    compare_chunks(truth, what, target)


def one(allocator, program, *arguments):
    name = " ".join((program,) + arguments)
    if allocator != "himalloc":
        name = f"{allocator}: {name}"
    if not (PROGRAMS / program).exists():
        return skip(name, "not built")
    where = folder()
    process, truth = start_truth(program, arguments, allocator, where)
    if not ok(truth, f"{name}: stands still"):
        return end(process)
    compare(truth, f"{name}, live", ["-p", str(truth.pid)])
    path = gcore(truth.pid, where)
    if path:
        compare(truth, f"{name}, gcore", [path])
        os.unlink(path)
    else:
        skip(f"{name}, gcore", "no gcore here")
    if kernel_writes_core_files():
        path = abort_for_core(process, truth.pid, where)
        if ok(path, f"{name}: dumped core"):
            compare(truth, f"{name}, core", [path])
    else:
        skip(f"{name}, core", "core_pattern is not a plain file name")
    end(process)
    shutil.rmtree(where, ignore_errors=True)


def main():
    need_tools()
    only = sys.argv[1:]
    present = allocators()
    for allocator in os.environ.get("TRUTH_ALLOCATORS", "himalloc").split(","):
        if allocator not in present:
            skip(allocator, "not here")
            continue
        for entry in PROGRAM_LIST:
            if not only or entry[0] in only:
                one(allocator, *entry)
    done()


main()
