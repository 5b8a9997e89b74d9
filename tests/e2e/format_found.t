#!/usr/bin/env python3
"""The heap is found by what the target's memory holds: without the library's file, without symbols,
in a static stripped executable, in a core with the default filter. And where its description is
overwritten or newer than we are, that is said, and nothing is guessed.
"""
import os
import pathlib
import random
import re
import shutil

import heaptest
from format_check import compare, overwrite, preamble_of
from heaptest import (diag, end, folder, inspect, inspect_json, is_, kernel_writes_core_files, ok,
                      run, skip, start_truth)


def copied_library(where):
    path = os.path.join(where, "libgone.so")
    shutil.copy(heaptest.HIMALLOC, path)
    run(["strip", "--strip-all", path])
    return path


def library_deleted():
    where = folder()
    library = copied_library(where)
    process, truth = start_truth("truth_threads", (), "himalloc", where, LD_PRELOAD=library)
    os.unlink(library)
    if ok(truth, "deleted library: program runs"):
        compare(truth, "deleted, stripped library, live", ["-p", str(truth.pid)])
        core_with_default_filter(process, truth, where, "deleted, stripped library")
    end(process)


def core_with_default_filter(process, truth, where, what):
    if not kernel_writes_core_files():
        return skip(f"{what}, core", "the kernel writes no core files here")
    pathlib.Path(f"/proc/{truth.pid}/coredump_filter").write_text("0x33\n")
    path = heaptest.abort_for_core(process, truth.pid, where)
    if ok(path, f"{what}: dumped core"):
        compare(truth, f"{what}, core", [path])


def static_and_stripped():
    where = folder()
    path = pathlib.Path(where) / "truth_static"
    archive = heaptest.BUILD / "libhimalloc.a"
    status, out, err = run(["cc", "-std=gnu11", "-O1", "-static", f"-I{heaptest.ROOT}/tests",
                            f"-I{heaptest.ROOT}", "-o", path,
                            heaptest.ROOT / "tests/programs/truth_direct.c", archive, "-pthread"])
    if status != 0:
        return ok(False, f"static executable: links\n{err[-1500:]}")
    is_(run(["strip", "--strip-all", path])[0], 0, "static executable: stripped")
    process, truth = start_truth(path, (), "ptmalloc", where)
    if ok(truth, "static, stripped executable: runs"):
        compare(truth, "static, stripped executable, live", ["-p", str(truth.pid)])
        core_with_default_filter(process, truth, where, "static, stripped executable")
    end(process)


def expect_refusal(what, target, pattern):
    status, answer, err = inspect_json("leaks", *target)
    if not ok(status == 2 and re.search(pattern, err) and err.strip().count("\n") == 0,
              f"{what}: leaks ends with 2 and one line that says why"):
        diag(f"status {status}: {err}")
    status, out, err = inspect("summary", *target)
    if not ok(re.search(pattern, out + err), f"{what}: summary says it too"):
        diag(f"status {status}: {out}\n{err}")


def damaged(what, damage, pattern):
    """A process whose description is changed from outside by damage(pid, address)."""
    where = folder()
    process, truth = start_truth("truth_direct", (), "himalloc", where)
    if not ok(truth, f"{what}: program runs"):
        return end(process)
    address = preamble_of(truth.pid)
    if not ok(address, f"{what}: the root page is where its magic is"):
        return end(process)
    damage(truth.pid, address)
    expect_refusal(what, ["-p", str(truth.pid)], pattern)
    if kernel_writes_core_files():
        path = heaptest.abort_for_core(process, truth.pid, where)
        if path:
            expect_refusal(f"{what}, core", [path], pattern)
    end(process)


def noise(count):
    return random.Random(count).randbytes(count)


def noise_behind_the_preamble():
    """Tables, maps and bitmaps are noise, the preamble stands: partial answers or refusals, no
    silence, no crash."""
    for skip_bytes in (72, 4096, 8192, 65536):
        process, truth = start_truth("truth_direct", (), "himalloc", folder())
        if not ok(truth, "noise: program runs"):
            end(process)
            continue
        address = preamble_of(truth.pid)
        try:
            overwrite(truth.pid, address + skip_bytes, noise(32768))
        except OSError:
            pass
        status, answer, err = inspect_json("leaks", "-p", str(truth.pid))
        told = status == 2 or (answer and (heaptest.disagreements(answer) or answer["notes"])) or \
            (answer and answer["totals"]["live"]["blocks"] >= len(truth.of("direct", "held")))
        if not ok(status in (0, 1, 2) and told, f"noise from byte {skip_bytes}: told, not silent"):
            diag(f"status {status}: {err} {answer and answer['totals']}")
        status, out, err = inspect("verify", "-p", str(truth.pid))
        ok(status in (0, 1, 2), f"noise from byte {skip_bytes}: verify ends")
        end(process)


heaptest.need_tools()
library_deleted()
static_and_stripped()
damaged("root page overwritten", lambda pid, at: overwrite(pid, at, noise(72)), "overwritten")
damaged("metadata overwritten", lambda pid, at: overwrite(pid, at, noise(16384)), "overwritten")
damaged("newer major version", lambda pid, at: overwrite(pid, at + 24, b"\x02\0\0\0"), r"format 2\.\d")
noise_behind_the_preamble()
heaptest.done()
