#!/usr/bin/env python3
"""Truth programs against heapinspect: live, in gdb's core and in the kernel's core.

Each program of tests/programs/truth_*.c books every block that it holds, loses and frees, prints
the book, and stands still. The counts must be exactly those; no address or size is asserted that
the program did not print. TRUTH_ALLOCATORS names the allocators (default: himalloc), TRUTH_FORMS
the forms of the target (default: live,gcore,core).
"""
import bisect
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
    ("truth_clone",), ("truth_clone", "tls"), ("truth_mapping",), ("truth_libc",), ("truth_cxx",), ("truth_fork",),
    ("truth_exit", "return"), ("truth_exit", "call"),
    ("truth_signal_stack", "data"), ("truth_signal_stack", "heap"), ("truth_signal_stack", "map"),
    ("truth_context", "saved"), ("truth_context", "running"),
]
# with the allocator in a static, stripped executable (nothing says there which frame is exit's)
STATIC_LIST = [(f"static/truth_{name}", *rest) for name, *rest in (
    ("chain",), ("freed",), ("interior",), ("large",), ("registers",), ("ring",), ("stack",),
    ("threads",), ("thread_end",), ("signal_stack", "heap"))]
LOST = ("direct", "indirect", "ring")
FORMS = os.environ.get("TRUTH_FORMS", "live,gcore,core").split(",")


def compare_leaks(truth, what, target, sizes):
    status, answer, err = inspect_json("leaks", *target, "--limit=0")
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
    compare_groups(truth, what, answer, sizes)


def total_size(truth, sizes, *states):
    return sum(sizes.get(address, 0) for address in truth.of(*states))


def compare_groups(truth, what, answer, sizes):
    """sizes: what `chunks` says of each block; it was compared with the book."""
    totals = answer["totals"]
    is_(totals["direct"]["bytes"] + totals["indirect"]["bytes"],
        total_size(truth, sizes, *LOST), f"{what}: lost bytes")
    is_(totals["possible"]["bytes"], total_size(truth, sizes, "possible"),
        f"{what}: possible bytes")
    allowed = {"direct": truth.of("direct", "ring"), "possible": truth.of("possible")}
    wrong, blocks = [], {"direct": 0, "possible": 0}
    for group in answer["leaks"]:
        blocks[group["kind"]] += group["blocks"]
        for example in group["examples"]:
            size = sizes.get(int(example, 16), -1)
            if int(example, 16) not in allowed[group["kind"]] or \
                    not group["size"]["min"] <= size <= group["size"]["max"]:
                wrong.append((example, size))
    is_(wrong, [], f"{what}: examples are of the kind and size that their group says")
    is_(blocks, {kind: totals[kind]["blocks"] for kind in blocks}, f"{what}: groups add up")


def name_differences(truth, answer):
    for group in answer["leaks"]:
        for example in group["examples"]:
            state = truth.blocks.get(int(example, 16), ("unbooked",))[0]
            if state != group["kind"] and not (state == "ring" and group["kind"] == "direct"):
                diag(f"{group['kind']} group of {group['blocks']}: {example} is {state}")


def containing(lines):
    """A function: the line whose block an address lies in, or None."""
    starts = sorted((int(line["address"], 16), line) for line in lines)
    keys = [start for start, _ in starts]

    def line_of(address):
        index = bisect.bisect_right(keys, address) - 1
        if index < 0 or address >= keys[index] + max(starts[index][1]["usable"], 1):
            return None
        return starts[index][1]
    return line_of


def is_kept(address, target):
    """A block that libc or the allocator has for itself: a dtv, a cache."""
    return any(line.startswith("    kept ")
               for line in inspect(*target, "refs", hex(address))[1].splitlines())


def compare_chunks(truth, what, target, inside):
    """Size of each live block as `chunks` has it. inside: the allocator hands out pointers into
    its blocks where they are aligned."""
    status, lines, err = chunks(*target)
    if not ok(status == 0 and lines, f"{what}: chunks --json"):
        diag(err)
        return {}, {}
    live = {int(line["address"], 16): line for line in lines if line["state"] == "live"}
    booked = {a: block for a, block in truth.blocks.items() if block[0] != "freed"}
    around = blocks_around(booked, live) if inside else {}
    missed = sorted(set(booked) - set(live))
    # what was freed may have become the dtv or the cache of a thread that began later
    wrongly = [a for a in sorted(set(truth.of("freed")) & set(live)) if not is_kept(a, target)]
    is_([hex(a) for a in missed[:10]], [], f"{what}: every live block is live")
    is_([hex(a) for a in wrongly[:10]], [], f"{what}: no freed block is live")
    # the size is the one asked for where the allocator knows it, else the usable one
    other = [(hex(a), block, live[a]) for a, block in booked.items() if a in live and
             (live[a]["usable"] != block[2] or live[a]["size"] not in block[1:])]
    is_(other[:5], [], f"{what}: sizes")
    return {address: line["size"] for address, line in live.items()}, around


def blocks_around(booked, live):
    """Start of a block -> the address that was handed out of its middle; put into live instead."""
    line_of = containing(live.values())
    around = {}
    for address in set(booked) - set(live):
        line = line_of(address)
        start = int(line["address"], 16) if line else 0
        if line and address - start + booked[address][2] == line["usable"]:
            live[address] = dict(line, size=booked[address][2], usable=booked[address][2])
            live.pop(start, None)
            around[start] = address
    return around


def compare_leaks_around(truth, what, target, around):
    """The head of such a block, before what was handed out, still has the allocator's old link to
    the next free block: it may hold that one. Nothing else may be wrong."""
    status, answer, err = inspect_json("leaks", *target, "--limit=0")
    if not ok(answer is not None, f"{what}: leaks --json is JSON"):
        return diag(err)
    wrong = [example for group in answer["leaks"] for example in group["examples"]
             if around.get(int(example, 16), int(example, 16)) not in truth.of(*LOST)]
    is_(wrong, [], f"{what}: whatever is called a leak is one")
    lost = answer["totals"]["direct"]["blocks"] + answer["totals"]["indirect"]["blocks"]
    wanted = len(truth.of(*LOST))
    ok(wanted - len(around) <= lost <= wanted, f"{what}: {lost} of {wanted} lost blocks, "
       f"{len(around)} blocks were handed out from their middle")
    is_(status, 1, f"{what}: exit status")
    is_(disagreements(answer), [], f"{what}: checks agree")


def compare(truth, what, target, inside):
    sizes, around = compare_chunks(truth, what, target, inside)
    if around:
        compare_leaks_around(truth, what, target, around)
    else:
        compare_leaks(truth, what, target, sizes)


def from_gcore(truth, name, where, inside):
    path = gcore(truth.pid, where)
    if not path:
        return skip(f"{name}, gcore", "no gcore here")
    compare(truth, f"{name}, gcore", [path], inside)
    os.unlink(path)


def from_kernel_core(process, truth, name, where, inside):
    if not kernel_writes_core_files():
        return skip(f"{name}, core", "core_pattern is not a plain file name")
    path = abort_for_core(process, truth.pid, where)
    if ok(path, f"{name}: dumped core"):
        compare(truth, f"{name}, core", [path], inside)


def one(allocator, program, *arguments):
    name = " ".join((program,) + arguments)
    if allocator != "himalloc":
        name = f"{allocator}: {name}"
    if not (PROGRAMS / program).exists():
        return skip(name, "not built")
    where = folder()
    inside = allocator == "mimalloc"
    process, truth = start_truth(program, arguments, allocator, where)
    if not ok(truth, f"{name}: stands still"):
        return end(process)
    if "live" in FORMS:
        compare(truth, f"{name}, live", ["-p", str(truth.pid)], inside)
    if "gcore" in FORMS:
        from_gcore(truth, name, where, inside)
    if "core" in FORMS:
        from_kernel_core(process, truth, name, where, inside)
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
        for entry in PROGRAM_LIST + (STATIC_LIST if allocator == "himalloc" else []):
            if not only or entry[0] in only:
                one(allocator, *entry)
    done()


main()
