#!/usr/bin/env python3
"""How the ptmalloc reader finds its roots where there are no symbols, and where there is no file.

The C library is copied and one byte of its build-id changed, so that no debug file of this system
matches it: roots come from the file's relocations. In a core whose library file is gone they come
from patterns in memory. Under a preloaded allocator glibc's own heap is idle.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import heaptest as t

LIBC = "/lib/x86_64-linux-gnu/libc.so.6"
LOADER = "/lib64/ld-linux-x86-64.so.2"


def build_id(path):
    notes = subprocess.run(["readelf", "-n", path], capture_output=True, text=True).stdout
    found = re.search(r"Build ID: ([0-9a-f]+)", notes)
    return bytes.fromhex(found.group(1)) if found else None


def copy_of_libc(folder):
    """The library under its own name, with a build-id that nobody knows."""
    data = bytearray(pathlib.Path(LIBC).read_bytes())
    at = data.find(build_id(LIBC))
    data[at] ^= 0xFF
    path = pathlib.Path(folder) / "libc.so.6"
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def truth(folder, found, modes, remove=None):
    environment = dict(os.environ, BUILD=str(t.BUILD), PTMALLOC_FOUND=found, PTMALLOC_MODES=str(modes))
    if remove:
        environment["PTMALLOC_REMOVE"] = str(remove)
    run = subprocess.run([str(t.BUILD / "unit/ptmalloc_truth.t"), "10", LOADER, "--library-path",
                          str(folder)], env=environment, capture_output=True, text=True)
    lines = run.stdout.splitlines()
    t.ok(run.returncode == 0 and any(f"found by {found}" in line for line in lines),
         f"every live block, with roots by {found}")
    for line in lines:
        if line.startswith(("not ok", "#")):
            print("#", line)


def full_bins(folder, library):
    """A core without the library's file, of a program whose every bin has chunks."""
    program = t.BUILD / "programs/full_bins"
    process = t.start([LOADER, "--library-path", folder, program],
                      want_core=True, cwd=folder)
    process.wait()
    core = next(pathlib.Path(folder).glob("core*"), None)
    if not core:
        t.skip("an arena without an empty bin", "this system writes cores elsewhere")
        return
    library.unlink()
    status, answer, err = t.inspect_json("summary", str(core))
    heap = ((answer or {}).get("heaps") or [{}])[0]
    t.is_((heap.get("allocator"), heap.get("found_by")), ("ptmalloc", "pattern"),
          "an arena without an empty bin")
    t.is_(t.disagreements(answer or {"heaps": []}), [], "and its totals agree")
    core.unlink()


def idle_under(name):
    process = t.start(["/usr/bin/python3", "-c", "import signal; signal.pause()"],
                      env=t.environment(name, PYTHONMALLOC="malloc"))
    if not t.wait_until(lambda: t.stands_still(process.pid)):
        t.skip(f"idle under {name}", "python3 does not start under it")
        return
    status, answer, err = t.inspect_json("summary", "-p", str(process.pid), "--allocator=ptmalloc")
    heaps = (answer or {}).get("heaps", [])
    mine = [heap for heap in heaps if heap.get("allocator") == "ptmalloc"]
    t.ok(len(mine) == 1 and mine[0]["active"] is False and mine[0]["live"]["blocks"] == 0,
         f"glibc's heap is idle under {name}")
    if err.strip():
        t.diag(err)
    t.end(process)


def main():
    if not os.path.exists(LIBC) or not os.path.exists(LOADER) or not build_id(LIBC):
        print("1..0 # SKIP no glibc where this test looks")
        return
    with tempfile.TemporaryDirectory() as folder:
        truth_folder = pathlib.Path(folder)
        copy_of_libc(folder)
        truth(truth_folder, "relocation", 2)
        gone = copy_of_libc(folder)
        truth(truth_folder, "pattern", 1, gone)
        full_bins(folder, copy_of_libc(folder))
    for name in t.allocators():
        if name not in ("ptmalloc", "himalloc"):
            idle_under(name)
    t.done()


main()
