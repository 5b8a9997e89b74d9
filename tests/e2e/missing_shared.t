#!/usr/bin/env python3
"""Memory that a core has left out and that no file can give back: said, and counted in ranges and
bytes, though nothing in the core's headers tells it from memory that a file has."""
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import heaptest as t


def main():
    t.need_tools()
    where = t.folder()
    process = t.start([t.PROGRAMS / "shared_gone"], want_core=True, cwd=where,
                      stdout=subprocess.PIPE, text=True, env=t.environment("ptmalloc"))
    process.stdout.read()
    process.wait()
    core = next(pathlib.Path(where).glob("core*"), None)
    if process.returncode == 77 or not core:
        t.skip_all("no shared memory, or cores are written elsewhere")
    status, answer, err = t.inspect_json("leaks", str(core))
    if t.ok(answer, "leaks --json"):
        t.ok(answer["complete"] is False, "it is not complete")
        t.is_(answer["missing"], {"ranges": 1, "bytes": 1 << 20}, "one range of a mebibyte")
    out = t.inspect(str(core), "leaks")[1]
    t.ok(out.startswith("INCOMPLETE: 1 range of memory, 1048576 bytes, is missing;"),
         "the first line says so")
    t.ok(t.inspect(str(core), "leaks", "--strict")[0] == 2, "--strict: status 2")
    t.done()


main()
