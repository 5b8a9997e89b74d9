#!/usr/bin/env python3
"""Real programs as they are, and on other allocators: looked at while they work, from cores, damaged.

Nobody prepared them and nobody knows what they leak. What must hold: the answer is complete, has no
finding, names the allocators that are there and no other, agrees with the allocator's own totals;
a program that is killed, stopped or damaged gets one clear line or a partial answer that says so.
REAL_INSPECTIONS sets how often a program is looked at.
"""
import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import *  # noqa: E402,F403

INSPECTIONS = int(os.environ.get("REAL_INSPECTIONS", "4"))
COMMANDS = ("summary", "verify", "leaks", "arenas", "top", "map")
PYTHON = "/usr/bin/python3"  # not a wrapper of it

WORK = """
import json, threading
def work(n):
    data = [{"k%d" % (i % 97): [i, str(i) * 3, {"x": i / 7}]} for i in range(n)]
    return len(json.loads(json.dumps(data)))
threading.Thread(target=lambda: [work(500) for _ in iter(int, 1)], daemon=True).start()
print("begun", flush=True)
while True: work(1000)
"""
SQL = """create table t(a integer primary key, b text);
with recursive n(x) as (select 1 union all select x + 1 from n where x < 9000)
  insert into t select x, hex(x * 7919 % 10007) from n;
select 'begun';
with recursive n(x) as (select 1 union all select x + 1 from n)
  select count(*) from (select hex(x) || (select max(b) from t where a < x % 5000) from n);"""
PERL = """$| = 1; print qq(begun\\n); while (1) { my @l = map { { name => "n$_", list => [1 .. $_ % 9] }
  } 1 .. 2000; my %h = map { $_->{name} => $_ } @l; delete $h{"n$_"} for 1 .. 999; }"""
NODE = """console.log('begun'); const z = require('zlib');
function turn() { let b = []; for (let i = 0; i < 99; i++) b.push(Buffer.alloc(1000 + i * 37, i));
  z.gzip(Buffer.concat(b), () => setImmediate(turn)); }
turn(); turn(); turn();"""

# program -> command, environment, allocators that it brings along
PROGRAM_TABLE = {
    "python3": ([PYTHON, "-c", WORK], {"PYTHONMALLOC": "malloc"}, set()),
    "python3 with its own pools": ([PYTHON, "-c", WORK], {}, set()),
    "sqlite3": (["stdbuf", "-oL", "sqlite3", ":memory:", SQL], {}, set()),
    "perl": (["perl", "-e", PERL], {}, set()),
    "node": (["node", "-e", NODE], {}, set()),
    # says so when it is ready; Debian's is linked with jemalloc
    "redis-server": (["redis-server", "--port", "0", "--unixsocket", "socket", "--save", ""], {},
                     {"jemalloc"}),
}


def begin(name, allocator, where):
    """The program at work, or None."""
    command, env, _ = PROGRAM_TABLE[name]
    tool = PYTHON if command[0] == PYTHON else command[2 if command[0] == "stdbuf" else 0]
    if not shutil.which(tool):
        skip(name, f"{tool} is not here")
        return None
    process = start(command, want_core=True, cwd=where, env=environment(allocator, **env),
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    text=True)
    for line in process.stdout:
        if "begun" in line or "ready to accept" in line.lower():
            return process
    ok(False, f"{name} on {allocator}: begins its work")
    return None


def problems(answer, status, err, command, wanted, allowed):
    if answer is None:
        return [f"{command}: status {status}, no JSON: {err}"]
    wrong = [] if answer["complete"] else [f"{command}: not complete: {answer['notes']}"]
    active = {heap["allocator"] for heap in answer["heaps"] if heap["live"]["blocks"]}
    claimed = {heap["allocator"] for heap in answer["heaps"] if heap.get("active")}
    if not wanted <= active or not claimed <= wanted | allowed:
        wrong.append(f"{command}: {active} in use, {claimed} claimed; wanted {wanted}")
    if answer.get("findings"):
        wrong.append(f"{command}: {answer['findings'][:3]}")
    if disagreements(answer):
        wrong.append(f"{command}: {disagreements(answer)}")
    direct = answer.get("totals", {}).get("direct", {}).get("blocks", 0)
    if status != (1 if command == "leaks" and direct else 0):
        wrong.append(f"{command}: status {status}")
    return wrong


def at_work(name, allocator):
    process = begin(name, allocator, folder())
    if not process:
        return
    own = PROGRAM_TABLE[name][2]
    wanted = own if own and allocator == "ptmalloc" else {allocator}
    # glibc's arena may have been used before the program's own allocator took over
    allowed = own | {"ptmalloc"}
    wrong, stopped = [], []
    for i in range(INSPECTIONS):
        time.sleep(random.uniform(0, 0.05))  # any instant will do
        command = COMMANDS[(i + len(name)) % len(COMMANDS)]
        status, answer, err = inspect_json(command, "-p", process.pid)
        wrong += problems(answer, status, err, command, wanted, allowed)
        stopped.append(answer["target"]["stopped_seconds"] if answer else 0)
    is_(wrong, [], f"{name} on {allocator}: looked at {INSPECTIONS} times")
    ok(process.poll() is None, f"{name} on {allocator}: goes on working")
    diag(f"stopped for up to {max(stopped):.3f} s")
    end(process)


# ---- what the allocators say themselves ----

SELF = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None)
value, size, epoch = ctypes.c_size_t(), ctypes.c_size_t(8), ctypes.c_uint64(1)
def grow(n): return [{"k%d" % (i % 97): [i, str(i) * 3, b"x" * (i % 3000)]} for i in range(n)]
kept = grow(3000)
threads = [threading.Thread(target=grow, args=(400,)) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
while len(os.listdir("/proc/self/task")) > 1: pass  # join() returns before caches are given back
some = kept[::3]; del kept
class Info(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in ("arena ordblks smblks hblks hblkhd usmblks "
                                               "fsmblks uordblks fordblks keepcost").split()]
def ptmalloc():
    libc.mallinfo2.restype = Info
    info = libc.mallinfo2()
    return info.uordblks + info.fsmblks + info.hblkhd, info.arena + info.hblkhd
def jemalloc():
    libc.mallctl(b"epoch", None, None, ctypes.byref(epoch), size)
    libc.mallctl(b"stats.allocated", ctypes.byref(value), ctypes.byref(size), None,
                 ctypes.c_size_t(0))
    return value.value, 0
def tcmalloc():
    both = []
    for name in (b"generic.current_allocated_bytes", b"generic.heap_size"):
        libc.MallocExtension_GetNumericProperty(name, ctypes.byref(value))
        both.append(value.value)
    return both
for _ in range(2): answer = globals()[sys.argv[1]]()
os.write(1, b"%d %d\\n" % tuple(answer))
while True: libc.pause()
"""
NEAR_BYTES = 16384  # what printing the answer may have allocated


def own_totals(allocator):
    process = start([PYTHON, "-c", SELF, allocator], stdout=subprocess.PIPE, text=True,
                    env=environment(allocator, PYTHONMALLOC="malloc"))
    words = process.stdout.readline().split()
    name = f"{allocator}'s own totals"
    if not ok(len(words) == 2 and wait_until(lambda: stands_still(process.pid)), f"{name}: known"):
        return end(process)
    used, system = (int(word) for word in words)
    answer = inspect_json("arenas", "-p", process.pid)[1]
    end(process)
    heaps = [heap for heap in (answer or {"heaps": []})["heaps"] if heap["allocator"] == allocator]
    if not ok(len(heaps) == 1, f"{name}: one heap"):
        return
    heap = heaps[0]
    ours = heap["live"]["bytes"]
    if allocator != "tcmalloc":  # what threads cache is allocated for them (fast bins: added above)
        ours += heap["cached"]["bytes"]
    if allocator == "ptmalloc":  # it counts headers
        ours += 8 * (heap["live"]["blocks"] + heap["cached"]["blocks"])
    ok(abs(ours - used) < NEAR_BYTES, f"{name}: {used} in use, the walk found {ours}")
    if system:
        is_(heap["system_bytes"], system, f"{name}: from the system")


# ---- sabotage ----

def one_clear_line(status, err):
    lines = err.splitlines()
    return status == 2 and len(lines) == 1 and lines[0].startswith("heapinspect: ")


def runs(pid):
    """No thread is stopped or traced."""
    try:
        texts = [pathlib.Path(f"/proc/{pid}/task/{task}/status").read_text()
                 for task in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return False
    return all("TracerPid:\t0" in text and "State:\tt" not in text and "State:\tT" not in text
               for text in texts)


def killed(allocator):
    where = folder()
    process = begin("python3", allocator, where)
    stuck = 0
    for _ in range(8):
        reader = start([HEAPINSPECT, "-p", process.pid, "leaks"], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, 0.08))
        end(reader)
        stuck += not wait_until(lambda: runs(process.pid))
    is_(stuck, 0, f"{allocator}: runs on when heapinspect is killed")
    end(process)
    wrong = []
    for _ in range(6):
        process = begin("perl", allocator, where)
        reader = start([HEAPINSPECT, "-p", process.pid, "leaks", "--json", "-q"],
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(random.uniform(0, 0.03))
        process.kill()
        try:
            out, err = reader.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            out, err = "", "hangs"
        whole = json.loads(out) if reader.returncode in (0, 1) else None
        said = whole and (whole["complete"] and reader.returncode == 0 or
                          any("ended" in note for note in whole["notes"]))
        if not said and not one_clear_line(reader.returncode, err):
            wrong.append((reader.returncode, out[:200], err))
        end(process)
        end(reader)
    is_(wrong, [], f"{allocator}: killed while it is read")


def stopped():
    process = begin("perl", "ptmalloc", folder())
    process.send_signal(signal.SIGSTOP)

    def state():
        return pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    ok(wait_until(lambda: state() == "T"), "a stopped program")
    status, answer, err = inspect_json("leaks", "-p", process.pid)
    is_(problems(answer, status, err, "leaks", {"ptmalloc"}, set()), [], "is read")
    ok(wait_until(lambda: state() == "T"), "and stays stopped")
    process.send_signal(signal.SIGCONT)
    ok(wait_until(lambda: state() in "RS"), "and goes on when told")
    process.kill()
    ok(wait_until(lambda: state() == "Z"), "a zombie")
    status, out, err = inspect("-p", process.pid)
    ok(one_clear_line(status, err) and "zombie" in err and not out, "is called one")
    end(process)


def damaged(allocator):
    where = folder()
    process = begin("python3", allocator, where)
    path = abort_for_core(process, process.pid, where) if kernel_writes_core_files() else None
    if not path:
        return skip(f"{allocator}: damaged cores", "the kernel writes no core files here")
    status, answer, err = inspect_json("verify", path)
    is_(problems(answer, status, err, "verify", {allocator}, {"ptmalloc"}), [],
        f"{allocator}: its core")
    whole = pathlib.Path(path).read_bytes()
    bad = os.path.join(where, "bad")
    wrong = []
    for percent in (10, 50, 90):
        pathlib.Path(bad).write_bytes(whole[:len(whole) * percent // 100])
        for command in ("summary", "leaks", "verify"):
            status, out, err = inspect(command, bad, "-q")
            if not (status in (0, 1) and out.startswith("INCOMPLETE") or
                    one_clear_line(status, err)):
                wrong.append((percent, command, status, out[:100], err))
    is_(wrong, [], f"{allocator}: truncated cores")
    wrong = []
    for i in range(12):
        at = random.randrange(0, len(whole) - 4096)
        pathlib.Path(bad).write_bytes(whole[:at] + random.randbytes(4096) + whole[at + 4096:])
        command = COMMANDS[i % len(COMMANDS)]
        status, out, err = inspect(command, bad, "-q", timeout=60)
        if status not in (0, 1) and not one_clear_line(status, err):
            wrong.append((hex(at), command, status, err))
    is_(wrong, [], f"{allocator}: 4 KiB of random bytes somewhere in its core")
    os.unlink(bad)
    os.unlink(path)


def main():
    need_tools()
    for name in PROGRAM_TABLE:
        for allocator in allocators():
            at_work(name, allocator)
    for allocator in ("ptmalloc", "jemalloc", "tcmalloc"):
        if allocator in allocators():
            own_totals(allocator)
    for allocator in allocators():
        damaged(allocator)
    killed("ptmalloc")
    killed("himalloc")
    stopped()
    done()


main()
