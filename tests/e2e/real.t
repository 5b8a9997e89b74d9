#!/usr/bin/env python3
"""Real programs on himalloc: they behave as on glibc, and are inspected under load and from cores.

Each program runs a job with a known end on both allocators: status and output must be the same. Then
a long job of it is inspected while it works, at instants that nobody chose, and from cores: the
answer must be complete, with no finding, and with every one of the heap's own totals equal to what
the walk counted. Whether a program that is not ours leaks is not for us to say: it is printed only.
REAL_INSPECTIONS sets how often a program is looked at (redis: four times as often).
"""
import os
import random
import shutil
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import *  # noqa: E402,F403

INSPECTIONS = int(os.environ.get("REAL_INSPECTIONS", "5"))
COMMANDS = ("verify", "leaks", "summary")


def problems(target, command):
    """What is wrong with an answer; and the answer."""
    status, answer, err = inspect_json(command, *target)
    if answer is None:
        return [f"{command}: status {status}, no JSON: {err}"], None
    wrong = []
    direct = answer.get("totals", {}).get("direct", {}).get("blocks", 0)
    if status != (1 if command == "leaks" and direct else 0):
        wrong.append(f"{command}: status {status}, {direct} direct leaks")
    if not answer["complete"]:
        wrong.append(f"{command}: not complete: {answer['notes']}")
    if answer.get("findings"):
        wrong.append(f"{command}: {answer['findings'][:5]}")
    if disagreements(answer):
        wrong.append(f"{command}: {disagreements(answer)}")
    heaps = [heap for heap in answer["heaps"] if heap["allocator"] == "himalloc"]
    if not heaps or not heaps[0]["live"]["blocks"]:
        wrong.append(f"{command}: no himalloc heap with live blocks")
    return wrong, answer


def inspect_under_load(name, process, times):
    wrong, direct, live = [], set(), []
    for i in range(times):
        time.sleep(random.uniform(0, 0.06))  # any instant will do
        if process.poll() is not None:
            wrong.append("it ended")
            break
        found, answer = problems(["-p", str(process.pid)], COMMANDS[i % len(COMMANDS)])
        wrong += found
        if answer:
            live.append(sum(heap["live"]["blocks"] for heap in answer["heaps"]))
        if answer and "totals" in answer:
            direct.add(answer["totals"]["direct"]["blocks"])
    ok(not wrong, f"{name}: looked at {times} times under load")
    for text in wrong[:5]:
        diag(text)
    if live:
        diag(f"{min(live)} to {max(live)} live blocks, direct leaks {sorted(direct)}")


def inspect_cores(name, process, where, deadly=signal.SIGQUIT):
    """deadly: a signal that the program leaves to the kernel."""
    path = gcore(process.pid, where)
    if path:
        wrong = [text for command in COMMANDS for text in problems([path], command)[0]]
        is_(wrong, [], f"{name}: gcore")
        os.unlink(path)
    else:
        skip(f"{name}: gcore", "no gcore here")
    if not kernel_writes_core_files():
        return skip(f"{name}: core", "core_pattern is not a plain file name")
    before = set(os.listdir(where))
    process.send_signal(deadly)
    process.wait(timeout=60)
    cores = [c for c in set(os.listdir(where)) - before if c.startswith("core")]
    if ok(cores, f"{name}: dumped core"):
        path = os.path.join(where, cores[0])
        wrong = [text for command in COMMANDS for text in problems([path], command)[0]]
        is_(wrong, [], f"{name}: core")
        os.unlink(path)


def same_on_both(name, command, files=(), **env):
    """files: written by the job in its folder, compared as well."""
    results = []
    for allocator in ("ptmalloc", "himalloc"):
        where = folder()
        status, out, err = run(command, cwd=where, env=environment(allocator, **env))
        read = [pathlib.Path(where, f).read_bytes() if os.path.exists(os.path.join(where, f))
                else None for f in files]
        results.append((status, out, err, read))
    ok(results[0][0] == 0, f"{name}: the job runs on glibc")
    is_(results[1], results[0], f"{name}: the same on himalloc")


def under_load(name, command, times=INSPECTIONS, **env):
    """command works until it is ended, and says so with a line when it has begun."""
    where = folder()
    process = start(command, want_core=True, cwd=where, env=environment("himalloc", **env),
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if ok(process.stdout.readline(), f"{name}: begins its work"):
        inspect_under_load(name, process, times)
        if ok(process.poll() is None, f"{name}: goes on working"):
            inspect_cores(name, process, where)
    end(process)


# ---- the programs ----

PYTHON_JOB = """
import json, re, sqlite3, threading
def work(n):
    data = [{"k%d" % (i % 97): [i, str(i) * 3, {"x": i / 7}]} for i in range(n)]
    text = json.dumps(data)
    return len(text), len(json.loads(text)), len(re.findall(r"\\d+", text))
"""


def python3():
    same_on_both("python3", [sys.executable, "-c", PYTHON_JOB + """
results = []
threads = [threading.Thread(target=lambda: results.append(work(3000))) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sorted(results))
"""], PYTHONMALLOC="malloc")
    under_load("python3", [sys.executable, "-u", "-c", PYTHON_JOB + """
threading.Thread(target=lambda: [work(500) for _ in iter(int, 1)], daemon=True).start()
print("begun")
while True: work(1000)
"""], PYTHONMALLOC="malloc")


SQL = """
create table t(a integer primary key, b text, c real);
with recursive n(x) as (select 1 union all select x + 1 from n where x < 20000)
  insert into t select x, hex(x * 7919 % 10007), x / 3.0 from n;
create index i on t(b);
select count(*), sum(c), min(b), max(b) from t;
select b, count(*) from t group by b order by 2 desc, 1 limit 5;
delete from t where a % 3 = 0;
select count(*) from t where b like '%A%';
"""


def sqlite3():
    same_on_both("sqlite3", ["sqlite3", ":memory:", SQL])
    forever = SQL + "select 'begun';" + """
with recursive n(x) as (select 1 union all select x + 1 from n)
  select count(*) from (select hex(x) || (select max(b) from t where a < x % 5000) from n);
"""
    under_load("sqlite3", ["stdbuf", "-oL", "sqlite3", ":memory:", forever])


def git():
    where = folder()
    for command in (["git", "init", "-q", "."], ["git", "config", "user.email", "a@example.org"],
                    ["git", "config", "user.name", "A"]):
        run(command, cwd=where)
    text = "\n".join(str(i * 7919 % 1000) for i in range(2000))
    for i in range(30):
        pathlib.Path(where, f"file{i % 7}").write_text(text[i * 20:] + f"\n{i}\n")
        run(["git", "add", "-A"], cwd=where)
        run(["git", "commit", "-q", "-m", f"commit {i}"], cwd=where)
    same_on_both("git log", ["git", "-C", where, "log", "-p", "--stat"])
    same_on_both("git fsck", ["git", "-C", where, "fsck", "--full", "--no-progress"])
    same_on_both("git repack", ["git", "-C", where, "repack", "-adfq", "--threads=2"])
    # serves batch requests until it is ended
    process = start(["git", "-C", where, "cat-file", "--batch"], want_core=True, cwd=folder(),
                    env=environment("himalloc"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    objects = run(["git", "-C", where, "rev-list", "--all", "--objects"])[1].split("\n")
    feeder = threading.Thread(target=feed_git, args=(process, objects), daemon=True)
    feeder.start()
    inspect_under_load("git cat-file", process, INSPECTIONS)
    end(process)


def feed_git(process, objects):
    drain = threading.Thread(target=lambda: [None for _ in iter(
        lambda: process.stdout.read1(1 << 16), b"")], daemon=True)
    drain.start()
    try:
        while process.poll() is None:
            for line in objects:
                process.stdin.write(line.split(" ")[0].encode() + b"\n")
                process.stdin.flush()
    except (OSError, ValueError):
        pass  # it was ended


def c_source(path, functions):
    with open(path, "w") as out:
        out.write("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n")
        for i in range(functions):
            out.write(f"static int f{i}(int x, char *p) {{ for (int i = 0; i < x; i++) "
                      f"p[i] += (char)(x * {i} + i % {i + 3}); return p[x / 2] + {i}; }}\n")
        out.write("int main(void) { static char b[4096]; int s = 0;\n")
        out.write("".join(f"s += f{i}(s % 4000 & 2047, b);\n" for i in range(functions)))
        out.write('printf("%d\\n", s); return 0; }\n')


def gcc():
    source = os.path.join(folder(), "job.c")
    c_source(source, 100)
    same_on_both("gcc", ["gcc", "-O2", "-c", "-o", "job.o", source], files=["job.o"])
    cc1 = run(["gcc", "-print-prog-name=cc1"])[1].strip()
    where = folder()
    c_source(source, 1500)
    run(["gcc", "-E", "-o", os.path.join(where, "job.i"), source])
    process = start([cc1, "-quiet", "-fpreprocessed", "-O2", "job.i", "-o", "/dev/null"], want_core=True, cwd=where,
                    env=environment("himalloc"), stdin=subprocess.DEVNULL)
    inspect_under_load("cc1", process, INSPECTIONS)
    end(process)


def perl():
    job = """my %h; for my $i (1 .. 60000) { $h{$i % 977} .= "x$i,"; }
my @k = sort { length $h{$a} <=> length $h{$b} || $a <=> $b } keys %h;
my $t = join "|", map { scalar reverse $h{$_} } @k[0 .. 50]; $t =~ s/(\\d)x/<$1>/g;
print length $t, " ", unpack("%32C*", $t), "\\n";"""
    same_on_both("perl", ["perl", "-e", job], PERL_HASH_SEED="0")
    under_load("perl", ["perl", "-e", "$| = 1; print qq(begun\\n); while (1) { my @l = map "
                        "{ { name => \"n$_\", list => [1 .. $_ % 9] } } 1 .. 2000; "
                        "my %h = map { $_->{name} => $_ } @l; delete $h{\"n$_\"} for 1 .. 999; }"])


def node():
    job = """const crypto = require('crypto');
let m = new Map(); for (let i = 0; i < 30000; i++) m.set('k' + i, { i, s: 'v'.repeat(i % 50) });
let t = JSON.stringify([...m.values()]);
console.log(t.length, crypto.createHash('sha1').update(Buffer.from(t)).digest('hex'));
console.log(require('zlib').gzipSync(t).length);"""
    same_on_both("node", ["node", "-e", job])
    under_load("node", ["node", "-e", """console.log('begun');
const z = require('zlib');
function turn() { let b = []; for (let i = 0; i < 200; i++) b.push(Buffer.alloc(1000 + i * 37, i));
  z.gzip(Buffer.concat(b), () => setImmediate(turn)); }
turn(); turn(); turn();"""])


def redis():
    where = folder()
    path = os.path.join(where, "socket")
    process = start(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir",
                     where, "--enable-debug-command", "yes"], want_core=True, cwd=where,
                    env=environment("himalloc"), stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL)

    def cli(*words):
        return run(["redis-cli", "-s", path, *words])[1].strip()
    if not ok(wait_until(lambda: os.path.exists(path) and cli("ping") == "PONG"),
              "redis-server: answers"):
        return end(process)
    load = start(["redis-benchmark", "-s", path, "-q", "-n", "100000000", "-c", "20", "-P", "4",
                  "-r", "20000", "-d", "120", "-t", "set,get,incr,lpush,rpop,sadd,hset,zadd"],
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ok(wait_until(lambda: int(cli("dbsize") or 0) > 1000), "redis-server: works under load")
    inspect_under_load("redis-server", process, max(20, 4 * INSPECTIONS))
    is_(cli("ping"), "PONG", "redis-server: still answers")
    end(load)
    # the same keys after a restart of the data by its own format: nothing was damaged
    before = cli("debug", "digest")
    cli("debug", "reload")
    is_(cli("debug", "digest"), before, "redis-server: its data is whole")
    inspect_cores("redis-server", process, where)
    end(process)


def nginx():
    where = folder()
    os.chmod(where, 0o755)
    page = "".join(f"line {i}\n" for i in range(3000))
    pathlib.Path(where, "page.txt").write_text(page)
    os.chmod(os.path.join(where, "page.txt"), 0o644)
    path = os.path.join(where, "socket")
    pathlib.Path(where, "nginx.conf").write_text(f"""
daemon off; master_process off; pid {where}/pid; error_log {where}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; gzip on; gzip_types text/plain; gzip_min_length 1;
  client_body_temp_path {where}/a; proxy_temp_path {where}/b; fastcgi_temp_path {where}/c;
  uwsgi_temp_path {where}/d; scgi_temp_path {where}/e; types {{ text/plain txt; }}
  server {{ listen unix:{path}; root {where}; }} }}
""")
    process = start([shutil.which("nginx") or "/usr/sbin/nginx", "-p", where, "-c",
                     os.path.join(where, "nginx.conf")], want_core=True, cwd=where,
                    env=environment("himalloc"), stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL)

    def get(encoding="identity"):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
            s.sendall(f"GET /page.txt HTTP/1.0\r\nAccept-Encoding: {encoding}\r\n\r\n".encode())
            return b"".join(iter(lambda: s.recv(1 << 16), b""))
    if not ok(wait_until(lambda: os.path.exists(path) and get()), "nginx: answers"):
        return end(process)
    is_(get().split(b"\r\n\r\n", 1)[1].decode(), page, "nginx: serves the page")
    stop = threading.Event()

    def requests():
        while not stop.is_set():
            try:
                get("gzip")
            except OSError:
                return
    threads = [threading.Thread(target=requests, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    inspect_under_load("nginx", process, INSPECTIONS)
    stop.set()
    for thread in threads:
        thread.join()
    is_(get().split(b"\r\n\r\n", 1)[1].decode(), page, "nginx: still serves the page")
    inspect_cores("nginx", process, where, signal.SIGABRT)
    end(process)


NEEDS = {
    "python3": [], "sqlite3": ["sqlite3"], "git": ["git"], "gcc": ["gcc"], "perl": ["perl"],
    "node": ["node"], "redis": ["redis-server", "redis-benchmark", "redis-cli"], "nginx": ["nginx"],
}


def main():
    need_tools()
    os.environ["PATH"] += ":/usr/sbin"
    for name in sys.argv[1:] or NEEDS:
        missing = [tool for tool in NEEDS[name] if not shutil.which(tool)]
        if missing:
            skip(name, f"{missing[0]} is not here")
        else:
            globals()[name]()
    done()


main()
