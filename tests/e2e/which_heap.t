#!/usr/bin/env python3
"""Which allocators a process has: the one it runs on is active and no other is seen; a process on
an allocator that we do not know has no heap that we know, and no leaks are claimed for it."""
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import *  # noqa: E402,F403


def heaps_of(pid):
    status, answer, err = inspect_json("summary", "-p", str(pid))
    if not ok(answer is not None, "summary --json"):
        diag(err)
        return None
    return answer


def ready(command, allocator):
    """A process that has said so, by one line."""
    process = start(command, env=environment(allocator), stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, text=True)
    return process, process.stdout.readline().strip() == "ready"


def one(program, command, allocator):
    name = f"{program} on {allocator}"
    process, runs = ready(command, allocator)
    if ok(runs, f"{name}: runs"):
        answer = heaps_of(process.pid)
        found = [heap["allocator"] for heap in answer["heaps"] if heap["live"]["blocks"]]
        is_(found, [allocator], f"{name}: the only heap with live blocks")
        is_(disagreements(answer), [], f"{name}: checks agree")
    end(process)


def unknown_allocator():
    process, runs = ready([PROGRAMS / "own_malloc"], "ptmalloc")
    if ok(runs, "own allocator: runs"):
        answer = heaps_of(process.pid)
        found = [heap["allocator"] for heap in answer["heaps"] if heap["live"]["blocks"]]
        is_(found, [], "own allocator: no heap with live blocks")
        status, out, err = inspect("leaks", "-p", str(process.pid))
        is_(status, 2, "own allocator: leaks is status 2")
        ok("0 leaks" not in out and (out + err).strip(), "own allocator: says why, claims nothing")
    end(process)


LOADED = "import ctypes, sys, time; ctypes.CDLL(sys.argv[1]); print('ready', flush=True); time.sleep(600)"


def loaded_and_unused():
    """mimalloc in the process, and nobody asked it for anything: idle, and no reason to give up."""
    library = allocators().get("mimalloc")
    if not library:
        return skip("loaded and unused", "no mimalloc here")
    process, runs = ready(["/usr/bin/python3", "-c", LOADED, library], "ptmalloc")
    if ok(runs, "loaded and unused: runs"):
        answer = heaps_of(process.pid)
        found = {heap["allocator"]: heap["active"] for heap in answer["heaps"]}
        is_(found, {"mimalloc": False, "ptmalloc": True}, "loaded and unused: idle")
        status, out, err = inspect("leaks", "-p", str(process.pid))
        ok(status in (0, 1) and "not understood" not in out + err, "loaded and unused: leaks answers")
    end(process)


PYTHON = ("import json; keep = [json.loads('{\"a\": [1, 2, {\"b\": null}]}') for _ in range(20000)];"
          "print('ready', flush=True); import time; time.sleep(600)")
NODE = ("let keep = []; for (let i = 0; i < 20000; i++) keep.push(Buffer.alloc(i % 3000));"
        "console.log('ready'); setTimeout(() => keep, 600000)")


def main():
    need_tools()
    for allocator in allocators():
        for program, command in (("python3", ["python3", "-c", PYTHON]),
                                 ("node", ["node", "-e", NODE])):
            if shutil.which(program):
                one(program, command, allocator)
            else:
                skip(f"{program} on {allocator}", f"no {program} here")
    unknown_allocator()
    loaded_and_unused()
    done()


main()
