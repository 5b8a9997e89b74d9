"""What the end-to-end tests share: TAP, temporary folders, processes that are ended by pid, cores.

Every test is a process of its own; whatever it started it ends itself, also when it fails. Nothing
waits for a length of time: waits are for a condition, with a deadline.
"""
import atexit
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("BUILD", "build")).resolve()
HEAPINSPECT = str(BUILD / "heapinspect")
HIMALLOC = str(BUILD / "libhimalloc.so")
PROGRAMS = BUILD / "programs"

_LIBRARIES = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"]


def library(name):
    """The path of a library of the system, or None."""
    for folder in _LIBRARIES:
        if os.path.exists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    return None


def allocators():
    """Name -> what LD_PRELOAD needs ("" for none); only those that are here."""
    known = {
        "himalloc": HIMALLOC if os.path.exists(HIMALLOC) else None,
        "ptmalloc": "",
        "jemalloc": library("libjemalloc.so.2"),
        "tcmalloc": library("libtcmalloc_minimal.so.4"),
        "mimalloc": library("libmimalloc.so.2.0") or library("libmimalloc.so.2"),
    }
    return {name: path for name, path in known.items() if path is not None}


# ---- TAP ----

_count = 0
_failures = 0


def ok(passed, what):
    global _count, _failures
    _count += 1
    _failures += not passed
    print(f"{'' if passed else 'not '}ok {_count} - {what}", flush=True)
    return bool(passed)


def is_(got, wanted, what):
    if not ok(got == wanted, what):
        diag(f"got    {got!r}"[:2000])
        diag(f"wanted {wanted!r}"[:2000])
    return got == wanted


def skip(what, why):
    global _count
    _count += 1
    print(f"ok {_count} - {what} # SKIP {why}", flush=True)


def diag(text):
    for line in str(text).splitlines():
        print("#   " + line, flush=True)


def done():
    print(f"1..{_count}")
    raise SystemExit(1 if _failures else 0)


def skip_all(why):
    print(f"1..0 # SKIP {why}")
    raise SystemExit(0)


def need_tools():
    """Both halves must be built; without them nothing here means anything."""
    for path in (HEAPINSPECT, HIMALLOC):
        if not os.path.exists(path):
            skip_all(f"{path} is not built")


# ---- processes and folders ----

_processes = []
_folders = []


def folder():
    path = tempfile.mkdtemp(prefix="heaptest.")
    _folders.append(path)
    return path


def _clean_up():
    for process in list(_processes):
        end(process)
    for path in _folders:
        shutil.rmtree(path, ignore_errors=True)


atexit.register(_clean_up)
signal.signal(signal.SIGTERM, lambda *_: exit(1))


def end(process, how=signal.SIGKILL):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        try:
            if stream:
                stream.close()
        except OSError:
            pass  # what was still to be written has no reader
    if process in _processes:
        _processes.remove(process)


def environment(allocator="himalloc", **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HIMALLOC", "LD_"))}
    preload = allocators().get(allocator)
    if preload:
        env["LD_PRELOAD"] = preload
    env.update(more)
    return env


def _before_exec(want_core):
    def prepare():
        limit = resource.RLIM_INFINITY if want_core else 0
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
        except (ValueError, OSError):
            pass
    return prepare


def start(command, want_core=False, **more):
    """Start something that this test will end."""
    process = subprocess.Popen([str(word) for word in command],
                               preexec_fn=_before_exec(want_core), **more)
    _processes.append(process)
    return process


def run(command, timeout=120, **more):
    """Run to its end: (status, standard output, standard error). Status None: it took too long."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="replace",
                               stdin=more.pop("stdin", subprocess.DEVNULL),
                               preexec_fn=more.pop("preexec_fn", _before_exec(False)), **more)
    try:
        out, err = process.communicate(timeout=timeout)
        return process.returncode, out, err
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return None, out, err


def wait_until(condition, seconds=60):
    """The condition's value as soon as it is true, or what it is at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.005)


def stands_still(pid):
    """Every thread of pid that still runs waits in pause(2) (system call 34)."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            stat = pathlib.Path(f"/proc/{pid}/task/{task}/stat").read_text()
            if stat.rpartition(")")[2].split()[0] == "Z":
                continue
            call = pathlib.Path(f"/proc/{pid}/task/{task}/syscall").read_text()
            if not call.startswith("34 "):
                return False
        return True
    except OSError:
        return False


# ---- cores ----

def kernel_writes_core_files():
    try:
        pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip()
    except OSError:
        return False
    return pattern != "" and not pattern.startswith("|") and "/" not in pattern


def abort_for_core(process, pid, where):
    """Let pid die by SIGABRT in its folder `where`; the path of its core, or None."""
    before = set(os.listdir(where))
    os.kill(pid, signal.SIGABRT)
    process.wait(timeout=60)
    cores = [name for name in set(os.listdir(where)) - before if name.startswith("core")]
    return os.path.join(where, cores[0]) if cores else None


def gcore(pid, where):
    """The path of a core that gdb makes of pid, which goes on; or None."""
    if not shutil.which("gcore"):
        return None
    prefix = os.path.join(where, "gcore")
    run(["gcore", "-o", prefix, str(pid)], timeout=120)
    path = f"{prefix}.{pid}"
    return path if os.path.exists(path) else None


# ---- heapinspect ----

def inspect(*arguments, **more):
    return run([HEAPINSPECT, *arguments], **more)


def inspect_json(*arguments, **more):
    """(status, the object, standard error). No valid JSON: object None."""
    status, out, err = inspect(*arguments, "--json", **more)
    try:
        return status, json.loads(out), err
    except ValueError:
        return status, None, err + out[:500]


def chunks(*arguments, **more):
    """(status, list of the lines' objects or None, standard error)."""
    status, out, err = inspect("chunks", *arguments, "--json", **more)
    try:
        return status, [json.loads(line) for line in out.splitlines()], err
    except ValueError:
        return status, None, err


def disagreements(answer):
    """The checks of an answer in which the heap's own numbers and the walk differ."""
    return [check for heap in answer.get("heaps", []) for check in heap.get("checks", [])
            if not check.get("agree")]


class Truth:
    """What a truth program printed."""

    def __init__(self, lines):
        self.blocks = {}    # address -> (state, requested, usable)
        self.expected = {}
        self.pid = 0
        for line in lines:
            words = line.split()
            if words[0] == "block":
                self.blocks[int(words[2], 16)] = (words[1], int(words[3]), int(words[4]))
            elif words[0] == "expect":
                self.expected[words[1]] = int(words[2])
            elif words[0] == "ready":
                self.pid = int(words[1])

    def of(self, *states):
        return {a: b for a, b in self.blocks.items() if b[0] in states}

    def bytes(self, which, *states):
        column = {"requested": 1, "usable": 2}[which]
        return sum(block[column] for block in self.of(*states).values())


def start_truth(program, arguments=(), allocator="himalloc", where=None, **env):
    """(process, truth) of a truth program that stands still; truth None: it did not get there."""
    process = start([PROGRAMS / program, *arguments], want_core=True, cwd=where,
                    env=environment(allocator, **env), stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("ready "):
            break
    else:
        return process, None
    truth = Truth(lines)
    if not wait_until(lambda: stands_still(truth.pid)):
        diag(f"{program} never stood still")
        return process, None
    return process, truth
