#!/usr/bin/env python3
"""The gdb commands: on a process that gdb holds and on a core, with Python and without.

Without Python means: heap.gdb alone (set $heap_python = 0), and in a gdb that was built without it
where there is one (gdb-minimal; GDB_MINIMAL names another). What gdb's commands say is compared with
what the program booked.
"""
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import *  # noqa: E402,F403

SCRIPT = ROOT / "gdb-scripts" / "heap.gdb"


def gdb(program, target, *commands, python=True, **env):
    words = [program, "-nx", "-batch", "-ex", "set confirm off"]
    if not python:
        words += ["-ex", "set $heap_python = 0"]
    words += ["-ex", f'set $heapinspect = "{HEAPINSPECT}"', "-ex", f"source {SCRIPT}"]
    for command in commands:
        words += ["-ex", command]
    status, out, err = run([*words, *target], env={**os.environ, "DEBUGINFOD_URLS": "", **env})
    return out, err


def like(text, pattern, what):
    if not ok(re.search(pattern, text, re.M), what):
        diag(f"wanted {pattern}")
        diag(text[-3000:])


def counts(text):
    """Blocks by verdict, as the table of totals has them."""
    found = {}
    for kind in ("direct", "indirect", "possible"):
        match = re.search(rf"^ +{kind} +([\d,]+) blocks", text, re.M)
        found[kind] = match and int(match[1].replace(",", ""))
    return found


def on_target(name, program, target, truth, python, prepare=()):
    """target: what gdb is called with. truth: what the program booked."""
    held = next(iter(truth.of("held")))
    lost = next(iter(truth.of("direct", "ring")))
    requested, usable = truth.blocks[held][1:]
    out, err = gdb(program, target, *prepare, "heap", "heap arenas", "heap leaks --limit=3",
                   f"heap whatis {held:#x} + 8", f"heap whatis {lost:#x}", "heap chunks --limit=5",
                   "heap map", "help heap", python=python)
    is_(counts(out), truth.expected, f"{name}: heap, the totals")
    like(out, r"himalloc .*arena", f"{name}: heap names the allocator")
    like(out, rf"{held + 8:#x}: 8 bytes into a live block at {held:#x} of ({requested}|{usable})",
         f"{name}: heap whatis with an expression")
    like(out, rf"{lost:#x}: .*direct", f"{name}: heap whatis of a lost block")
    like(out, r"leaks? lose", f"{name}: heap leaks")
    like(out, r"^heap whatis EXPRESSION", f"{name}: help heap")
    if not ok("Python Exception" not in err and "Error in sourced" not in err and
              "ndefined" not in err, f"{name}: no complaint"):
        diag(err)
    return held, usable


def with_python(name, program, target, truth, prepare=()):
    held, usable = on_target(name, program, target, truth, True, prepare)
    out, err = gdb(program, target, *prepare, f"print $heap_size({held:#x} + 1)",
                   f"print $heap_block({held:#x} + 1)", "print $heap_size(8)",
                   "complete heap le", "complete heap chunks --st", "help heap leaks")
    sizes = "|".join(str(n) for n in truth.blocks[held][1:])
    like(out, rf"^\$1 = ({sizes})$", f"{name}: $heap_size")
    like(out, rf"^\$2 = \(void \*\) {held:#x}", f"{name}: $heap_block")
    like(out, r"^\$3 = 0$", f"{name}: $heap_size of nothing")
    like(out, r"^heap leaks$", f"{name}: a command is completed")
    like(out, r"^heap chunks --state=live$", f"{name}: an option is completed")
    like(out, r"^Usage: heap leaks", f"{name}: help of one command")
    if "Error" in err:
        diag(err)
    del usable


def registers_count(program, python):
    """A block that only a register holds is no leak under gdb either; in a thread as well."""
    process, truth = start_truth("truth_registers")
    name = f"registers as gdb has them{'' if python else ', no Python'}"
    if ok(truth, f"{name}: stands still"):
        # another frame selected: its registers are not the thread's
        out, err = gdb(program, ["-p", str(truth.pid)], "heap", python=python)
        is_(counts(out), truth.expected, name)
    end(process)


def nothing_held(program):
    out, err = gdb(program, [], "heap", "heap whatis")
    like(out + err, r"neither a process nor a core", "without a target: it says so")
    like(out + err, r"Usage: heap whatis EXPRESSION", "without an expression: usage")


def started_by_gdb(program):
    """run, stop at a breakpoint, look with an expression of the program's own."""
    out, err = gdb(program, [PROGRAMS / "truth_chain"], f"set environment LD_PRELOAD {HIMALLOC}",
                   "set environment HIMALLOC stacks:full",
                   "set startup-with-shell off", "break truth_stand", "run",
                   "heap whatis truth_kept[0]", "up", "heap", "frame", "heap top --by=stack")
    like(out, r": 0 bytes into a live block", "under gdb from the start: an expression")
    like(out, r"^ +live +[\d,]+ blocks", "under gdb from the start: heap")
    like(out, r"^#1 .*truth_ready", "the selected frame is still the same")
    like(out, r"^  allocated by\n        #0 truth_malloc truth\.h:\d+ \(truth_chain\)$",
         "under gdb: who allocated it")
    like(out, r"^        #0 truth_malloc truth\.h:\d+ \(truth_chain\)\n        #1 truth_chain truth\.h:\d+ ",
         "under gdb: heap top --by=stack")
    del err


def both_ways(program, minimal):
    where = folder()
    process, truth = start_truth("truth_ring_tail", (), "himalloc", where)
    if not ok(truth, "a truth program stands still"):
        return end(process)
    live = ["-p", str(truth.pid)]
    with_python("live", program, live, truth)
    on_target("live, no Python", program, live, truth, False)
    if minimal:
        on_target("live, gdb-minimal", minimal, live, truth, True)
    else:
        skip("live, gdb-minimal", "no gdb without Python here")
    ok(stands_still(truth.pid), "the process stands as it was")
    path = gcore(truth.pid, where)
    if path:
        with_python("core", program, [str(PROGRAMS / "truth_ring_tail"), path], truth)
        on_target("core, no Python", program, [str(PROGRAMS / "truth_ring_tail"), path], truth,
                  False)
        if minimal:
            on_target("core, gdb-minimal", minimal, [PROGRAMS / "truth_ring_tail", path], truth,
                      True)
    else:
        skip("core", "no gcore here")
    end(process)


def main():
    need_tools()
    program = shutil.which("gdb")
    if not program:
        skip_all("gdb is not here")
    minimal = os.environ.get("GDB_MINIMAL") or shutil.which("gdb-minimal")
    if "Python scripting is not supported" in run([program, "-nx", "-batch", "-ex",
                                                   "python 1"])[2]:
        skip_all("this gdb has no Python: the commands are tested where both are")
    both_ways(program, minimal)
    registers_count(program, True)
    registers_count(program, False)
    started_by_gdb(program)
    nothing_held(program)
    ok(not [f for f in os.listdir("/tmp") if f.startswith("heap.gdb.")], "no file is left behind")
    done()


main()
