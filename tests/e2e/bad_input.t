#!/usr/bin/env python3
"""What can't be inspected gets one clear line and status 2; what can in part says what is missing.

Nothing may crash, loop, or answer "no leaks" where there are some. Damage is made with a seeded
generator; the seed of a failure is in its name.
"""
import os
import random
import shutil
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import *  # noqa: E402,F403

DEADLINE = 30


def refused(what, arguments, *words, **more):
    """Status 2, nothing on standard output, one line on standard error with these words in it."""
    status, out, err = inspect(*arguments, timeout=DEADLINE, **more)
    lines = err.splitlines()
    good = status == 2 and not out and len(lines) == 1 and \
        all(word.lower() in err.lower() for word in words)
    if not ok(good, f"{what}: one line, status 2"):
        diag(f"status {status}, {len(out)} bytes of output, wanted {words}; said:\n{err}")
    else:
        diag(err)


def no_process():
    pid = 2 ** 22 - 2
    while os.path.exists(f"/proc/{pid}"):
        pid -= 1
    for command in ("summary", "leaks", "chunks", "map", "arenas", "verify"):
        refused(f"no such process, {command}", [command, "-p", str(pid)], str(pid))
    refused("pid 0", ["-p", "0"], "process id")
    refused("a pid that is a word", ["-p", "redis"], "redis")
    refused("no target at all", ["leaks"])
    refused("an unknown option", ["-p", "1", "--no-such-option"], "--no-such-option")


def not_permitted(truth):
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return skip("a process of another user", "needs root and setpriv")
    where = folder()
    os.chmod(where, 0o755)
    program = shutil.copy(HEAPINSPECT, where)
    os.chmod(program, 0o755)
    status, out, err = run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                            "--inh-caps=-all", program, "leaks", "-p", str(truth.pid)])
    good = status == 2 and not out and len(err.splitlines()) == 1 and \
        any(word in err for word in ("permi", "allowed", "user", "root"))
    ok(good, "a process of another user: one line, status 2")
    diag(err)
    ok(os.path.exists(f"/proc/{truth.pid}") and stands_still(truth.pid), "it is as it was")


def not_cores():
    where = folder()

    def file(name, content):
        path = os.path.join(where, name)
        pathlib.Path(path).write_bytes(content)
        return path
    refused("no such file", ["leaks", os.path.join(where, "nothing")], "nothing")
    refused("a folder", ["leaks", where])
    refused("an empty file", ["leaks", file("empty", b"")])
    refused("a text file", ["leaks", file("text", b"These are words.\n" * 1000)], "core")
    refused("random bytes", ["leaks", file("random", random.Random(1).randbytes(100000))])
    refused("an executable", ["leaks", HEAPINSPECT], "executable")
    refused("a shared library", ["leaks", HIMALLOC])
    refused("an ELF header alone", ["leaks", file("short", open(HIMALLOC, "rb").read(64))])
    refused("half an ELF header", ["leaks", file("shorter", open(HIMALLOC, "rb").read(30))])
    for name, magic in (("gz", b"\x1f\x8b\x08\0"), ("zst", b"\x28\xb5\x2f\xfd"),
                        ("xz", b"\xfd7zXZ\0"), ("lz4", b"\x04\x22\x4d\x18")):
        refused(f"damaged {name}", ["leaks", file(name, magic + bytes(range(200)) * 9)])


def patched(core, where, offset, content, name="patched"):
    path = os.path.join(where, name)
    shutil.copyfile(core, path)
    with open(path, "r+b") as out:
        out.seek(offset)
        out.write(content)
    return path


def other_machines(core, where):
    for name, machine in (("aarch64", 183), ("i386", 3), ("s390", 22), ("nothing", 0)):
        refused(f"a core of {name}",
                ["leaks", patched(core, where, 18, struct.pack("<H", machine))])
    refused("a core of 32 bits", ["leaks", patched(core, where, 4, b"\1")])
    refused("a core of the other byte order", ["leaks", patched(core, where, 5, b"\2")])


def segments(core):
    """(file offset of the header, type, flags, offset, address, file bytes, memory bytes)"""
    with open(core, "rb") as f:
        header = f.read(64)
        start, = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        for i in range(count):
            f.seek(start + i * size)
            kind, flags, offset, address, _, in_file, in_memory, _ = \
                struct.unpack("<IIQQQQQQ", f.read(56))
            yield start + i * size, kind, flags, offset, address, in_file, in_memory


def truncated(core, where):
    """Cut anywhere: refused with a line, or answered with what is missing said and counted."""
    whole = os.path.getsize(core)
    first = min(s[3] for s in segments(core) if s[1] == 1 and s[5])
    for part in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999):
        size = int(first + (whole - first) * part)
        path = os.path.join(where, "truncated")
        shutil.copyfile(core, path)
        os.truncate(path, size)
        name = f"a core cut at {part * 100:g} %"
        status, answer, err = inspect_json("leaks", path, timeout=DEADLINE)
        if status == 2:
            ok(answer is None and len(err.splitlines()) == 1, f"{name}: one line, status 2")
            diag(err)
            continue
        good = answer and not answer["complete"] and answer["missing"]["bytes"] > 0
        if not ok(good and status in (0, 1), f"{name}: says that it is not whole"):
            diag(f"status {status}, {err}, {answer and answer['missing']}")
        ok(any(len(note) > 10 for note in answer["notes"]), f"{name}: and why, in a note")
        text = inspect("leaks", path)[1].splitlines()[0]
        ok("incomplete" in text or "truncated" in text or "missing" in text,
           f"{name}: on the first line of text")
        diag(text)
        is_(inspect("leaks", path, "--strict")[0], 2, f"{name}: --strict is status 2")


def check_damaged(name, path):
    """An answer or a message; never a crash, and never a clean bill where blocks are lost."""
    for command in ("leaks", "verify"):
        status, answer, err = inspect_json(command, path, timeout=DEADLINE)
        if status == 2:
            good = len(err.splitlines()) == 1 and answer is None
        elif command == "leaks":
            # what is lost can't be fewer than none; a doubtful answer must say that it is one
            doubtful = answer and (not answer["complete"] or answer["notes"] or
                                   disagreements(answer))
            lost = answer and answer["totals"]["direct"]["blocks"]
            good = status == 1 and lost or status == 0 and doubtful
        else:
            good = status in (0, 1) and answer is not None
        if not ok(good, f"{name}, {command}"):
            diag(f"status {status}; {err[:500]}")


def damaged(core, where, blocks):
    """Metadata is what lies in writable segments where no block lies, and that is not a file's."""
    holds = []
    for segment in segments(core):
        _, kind, flags, _, address, in_file, in_memory = segment
        if kind != 1 or not in_file or not flags & 2:
            continue
        has_blocks = any(address <= a < address + in_memory for a in blocks)
        if not has_blocks and address > 0x7000_0000_0000 and in_file < 64 << 20:
            holds.append(segment)
    ok(holds, f"{len(holds)} writable segments without blocks")
    for number, segment in enumerate(holds):
        content = random.Random(number).randbytes(segment[5])
        check_damaged(f"segment {number} is random bytes",
                      patched(core, where, segment[3], content))
    path = shutil.copyfile(core, os.path.join(where, "all"))
    with open(path, "r+b") as out:
        for segment in holds:
            out.seek(segment[3])
            out.write(random.Random(7).randbytes(segment[5]))
    check_damaged("all of them are random bytes", path)
    scattered(core, where, holds)


def scattered(core, where, holds):
    for seed in range(int(os.environ.get("BAD_SEEDS", "25"))):
        dice = random.Random(seed)
        path = shutil.copyfile(core, os.path.join(where, "scattered"))
        with open(path, "r+b") as out:
            for _ in range(dice.choice((1, 10, 200))):
                segment = dice.choice(holds)
                out.seek(segment[3] + dice.randrange(0, segment[5], 8))
                out.write(dice.choice((dice.randbytes(8), b"\xff" * 8, b"\0" * 8,
                                       struct.pack("<Q", segment[4] + dice.randrange(1 << 20)))))
        check_damaged(f"scattered damage of seed {seed}", path)


BARE = """
void _start(void) { for (;;) __asm__ volatile("syscall" : : "a"(34) : "rcx", "r11", "memory"); }
"""


def no_allocator():
    where = folder()
    program = os.path.join(where, "bare")
    pathlib.Path(where, "bare.c").write_text(BARE)
    if run(["gcc", "-nostdlib", "-static", "-o", program, os.path.join(where, "bare.c")])[0] != 0:
        return skip("no allocator at all", "no gcc here")
    process = start([program])
    wait_until(lambda: stands_still(process.pid))
    refused("no allocator at all, leaks", ["leaks", "-p", str(process.pid)], "heap")
    status, out, _ = inspect("summary", "-p", str(process.pid))
    ok(status == 0 and "heap" in out and len(out.splitlines()) < 12,
       "no allocator at all: summary says so")
    diag(out)
    end(process)


def main():
    need_tools()
    no_process()
    not_cores()
    no_allocator()
    where = folder()
    process, truth = start_truth("truth_direct", (), "himalloc", where)
    if not ok(truth, "a truth program stands still"):
        done()
    not_permitted(truth)
    live = chunks("-p", str(truth.pid))[1]
    core = gcore(truth.pid, where)
    if kernel_writes_core_files():
        core = abort_for_core(process, truth.pid, where)
    end(process)
    if not core:
        skip("cores", "neither a kernel core nor gcore")
        done()
    other_machines(core, where)
    truncated(core, where)
    damaged(core, where, [int(line["address"], 16) for line in live])
    done()


main()
