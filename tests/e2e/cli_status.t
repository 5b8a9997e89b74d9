#!/usr/bin/env python3
"""Exit status and error lines: each failure is status 2 with one line that says why; nothing is
printed on standard output then, and the target runs on."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import heaptest as t

t.need_tools()
where = t.folder()


def refused(what, arguments, because, **more):
    status, out, err = t.inspect(*arguments, **more)
    good = status == 2 and out == "" and err.count("\n") == 1 and because in err
    if not t.ok(good and err.startswith("heapinspect: "), what):
        t.diag(f"status {status}, wanted 2 and {because!r}\nout {out[:300]!r}\nerr {err[:300]!r}")


def file(name, content):
    path = os.path.join(where, name)
    with open(path, "wb") as stream:
        stream.write(content)
    return path


# ---- usage ----
refused("nothing at all", [], "no target")
refused("an unknown option", ["-p", "1", "--frobnicate"], "--frobnicate")
refused("an unknown command", ["-p", "1", "leeks"], "leeks")
refused("an unknown command behind a core", ["core", "leeks"], "leeks")
refused("an option of another command", ["-p", "1", "leaks", "--state=live"], "--state")
refused("a pid of letters", ["-p", "abc"], "abc")
refused("pid 0", ["-p", "0"], "not a process id")
refused("a negative pid", ["-p", "-4"], "not a process id")
refused("whatis without an address", ["-p", "1", "whatis"], "ADDRESS")
refused("whatis of something else", ["-p", "1", "whatis", "main"], "hexadecimal")
refused("an allocator that is not known", ["-p", "1", "--allocator=hoard"], "himalloc")
refused("export without a format", ["-p", "1", "export"], "--format=gperftools")
refused("export to a format that there is not", ["-p", "1", "export", "--format=png"], "flamegraph")
for command in ("diff", "snapshot"):
    refused(f"{command} is not built yet", [command, "-p", "1"] if command != "diff"
            else [command, "a", "b"], "not built yet")

# ---- targets ----
refused("no such process", ["-p", "4194304"], "4194304")
refused("no such file", [os.path.join(where, "none")], "none")
refused("a text file", [file("text", b"hello\n" * 1000)], "text")
refused("an empty file", [file("empty", b"")], "empty")
refused("a directory", [where], where)
refused("an executable", ["/bin/true"], "core")
refused("zeros", [file("zeros", bytes(1 << 16))], "zeros")

sleeper = t.start(["sleep", "600"], env=t.environment("ptmalloc"), stdout=-3)
t.wait_until(lambda: "sleep" in os.readlink(f"/proc/{sleeper.pid}/exe"))
refused("leaks of a heap that is not looked for",
        ["-p", sleeper.pid, "leaks", "--allocator=himalloc"], "heap")
status, out, err = t.inspect("-p", sleeper.pid, "--allocator=himalloc")
t.ok(status == 0 and "No heap found" in out, "summary says plainly that there is no heap")
status, answer, err = t.inspect_json("-p", sleeper.pid, "--allocator=himalloc")
t.ok(status == 0 and answer and answer["heaps"] == [] and answer["totals"] is None and
     any("no allocator" in note for note in answer["notes"]), "... in JSON as well")

# ---- answers ----
process, truth = t.start_truth("truth_direct")
t.ok(truth, "a program that leaks stands still")
pid = process.pid
t.is_(t.inspect("-p", pid, "leaks")[0], 1, "leaks found: 1")
for command in ("summary", "arenas", "map", "chunks", "verify", "top"):
    status, out, err = t.inspect("-p", pid, command)
    if not t.ok(status == 0 and out and not err, f"{command}: 0, and nothing on standard error"):
        t.diag(f"{status} {err}")
refused("an arena that there is not", ["-p", pid, "map", "4711"], "4711")
refused("a map of where no heap is", ["-p", pid, "map", "0x10000000"], "0x10000000")
refused("refs of where no block is", ["-p", pid, "refs", "0x10"], "0x10")
status, out, err = t.inspect("-p", pid, "leaks", "--help")
t.ok(status == 0 and "--roots" in out and not err, "help of a command")
status, out, err = t.inspect("--version")
t.ok(status == 0 and out.startswith("heapinspect ") and not err, "--version")
status, out, err = t.inspect("--help")
t.ok(status == 0 and "summary" in out and "--json" in out and not err, "--help")

# ---- output ----
with open("/dev/full", "w") as full:
    for arguments in (["-p", pid, "leaks"], ["-p", pid, "chunks", "--json"], ["--help"]):
        child = t.start([t.HEAPINSPECT, *arguments], stdout=full, stderr=-1, text=True)
        err = child.communicate()[1]
        t.ok(child.returncode == 2 and "No space left" in err and err.count("\n") == 1,
             f"a full disk is status 2 ({arguments[-1]})")
path = os.path.join(where, "answer")
status, out, err = t.inspect("-p", pid, "leaks", "--json", "-o", path)
t.ok(status == 1 and out == "" and open(path).read().startswith('{"schema"'), "-o FILE")
status, out, err = t.inspect("-p", pid, "summary", "-o", path)
t.ok(status == 0 and open(path).read().startswith("process"), "... is emptied before")
refused("-o into no folder", ["-p", pid, "-o", "/nonexistent/file"], "/nonexistent/file")
child = t.start(["sh", "-c", f"{t.HEAPINSPECT} -p {pid} chunks --json | head -n 1; echo done"],
                stdout=-1, stderr=-1, text=True)
out, err = child.communicate()
t.ok(out.count("\n") == 2 and err == "", "a reader that stops early is no error")
t.ok(t.stands_still(pid) and process.poll() is None, "the program was let go each time")

# ---- a core, whole and cut ----
core = t.gcore(pid, where)
if core:
    t.is_(t.inspect(core, "leaks")[0], 1, "leaks of a core: 1")
    before = open(core, "rb").read(4096)
    refused("-o onto the core itself", [core, "-o", core], "the core itself")
    t.ok(open(core, "rb").read(4096) == before, "... leaves the core as it is")
    cut = os.path.join(where, "cut")
    with open(core, "rb") as whole, open(cut, "wb") as part:
        part.write(whole.read(os.path.getsize(core) * 2 // 3))
    status, out, err = t.inspect(cut, "summary")
    t.ok(status == 2 or (status == 0 and out.startswith("INCOMPLETE")),
         "a cut core: the first line says so, or it is refused")
    status, answer, err = t.inspect_json(cut, "summary")
    t.ok(status == 2 or (answer and answer["complete"] is False and
                         answer["missing"]["bytes"] > 0), "... and JSON counts what is missing")
    t.is_(t.inspect(cut, "summary", "--strict")[0], 2, "... with --strict: 2")
else:
    t.skip("cores", "no gcore here")
t.end(process)

clean, truth = t.start_truth("truth_stack")
if truth and not truth.of("direct"):
    t.is_(t.inspect("-p", clean.pid, "leaks")[0], 0, "no leak: 0")
t.done()
