#!/usr/bin/env python3
"""Real programs give the same answers on himalloc as without it; a server survives its load."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import HIMALLOC  # noqa: E402

PYTHON = """
import json, re, threading, zlib
rows = [{"k%d" % i: [i, str(i), None, {"x": i * 1.5}]} for i in range(40000)]
text = json.dumps(rows)
assert json.loads(text) == rows
def work(n, out):
    s = "".join(chr(97 + (i * n) % 26) for i in range(20000))
    out.append((n, len(re.findall("a.c", s)), zlib.crc32(zlib.decompress(zlib.compress(s.encode())))))
out = []
threads = [threading.Thread(target=work, args=(n, out)) for n in range(1, 9)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(text), sorted(out))
"""
SQL = """
create table t(a integer primary key, b text, c blob);
with recursive n(i) as (select 1 union all select i+1 from n where i<60000)
insert into t select i, printf('row %d of many', i), zeroblob(i % 700) from n;
create index tb on t(b);
delete from t where a % 3 = 0;
update t set b = b || b where a % 5 = 0;
select count(*), sum(length(b)), sum(length(c)) from t;
select b from t order by b desc limit 5;
"""
PERL = r"""
my %h; for my $i (1..60000) { $h{"key$i"} = [ $i, "v" x ($i % 60) ]; }
my $n = 0; for (sort keys %h) { $n += length($h{$_}[1]) if /7$/; delete $h{$_} if $h{$_}[0] % 2; }
print scalar(keys %h), " $n\n";
"""
NODE = """
const a = []; for (let i = 0; i < 50000; i++) a.push({k: i, s: 'x'.repeat(i % 50), b: Buffer.alloc(i % 90)});
const t = JSON.stringify(a.map(o => [o.k, o.s, o.b.length])); console.log(t.length, JSON.parse(t).length);
"""
C_SOURCE = "#include <stdio.h>\n" + "".join(
    f"int f{i}(int n) {{ int s = {i}; for (int k = 0; k < n; k++) s += k * {i} ^ s; return s; }}\n"
    for i in range(300)) + "int main(void) { printf(\"%d\\n\", f7(9) + f250(3)); return 0; }\n"
count = 0


def report(passed, what, detail=""):
    global count
    count += 1
    print(f"{'ok' if passed else 'not ok'} {count} - {what}")
    if not passed and detail:
        print("#   " + detail.replace("\n", "\n#   "))


def skip(what):
    global count
    count += 1
    print(f"ok {count} # skip {what} is not installed")


def run(command, himalloc, given=None, folder=None):
    environment = dict(os.environ, PYTHONMALLOC="malloc", LC_ALL="C")
    environment.pop("LD_PRELOAD", None)
    if himalloc:
        environment["LD_PRELOAD"] = HIMALLOC
    done = subprocess.run(command, env=environment, input=given, cwd=folder, capture_output=True,
                          timeout=300)
    return done.returncode, done.stdout, done.stderr


def same(name, command, given=None, folder=None):
    if not shutil.which(command[0]):
        skip(command[0])
        return
    plain, ours = (run(command, h, given, folder) for h in (False, True))
    report(plain == ours and plain[0] == 0, f"{name} gives the same answer",
           f"without: {plain}\nwith: {ours}"[:2000])


def compiled(folder):
    """gcc's output file is the same to the byte."""
    objects = []
    for himalloc in (False, True):
        with open(folder + "/a.c", "w") as file:
            file.write(C_SOURCE)
        code = run(["gcc", "-O2", "-c", "-o", "a.o", "a.c"], himalloc, folder=folder)
        objects.append((code, open(folder + "/a.o", "rb").read() if code[0] == 0 else None))
    report(objects[0] == objects[1] and objects[0][1], "gcc compiles to the same object")


def repository(folder):
    for command in (["git", "init", "-q"], ["git", "add", "."],
                    ["git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "one"]):
        code = run(command, True, folder=folder)
        if code[0] != 0:
            break
    report(code[0] == 0 and run(["git", "fsck", "--strict"], False, folder=folder)[0] == 0,
           "git makes a repository that git accepts", repr(code))
    same("git log", ["git", "log", "--stat", "-p"], folder=folder)


def redis(folder):
    if not shutil.which("redis-server") or not shutil.which("redis-benchmark"):
        skip("redis")
        return
    socket = folder + "/redis.sock"
    environment = dict(os.environ, LD_PRELOAD=HIMALLOC)
    server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", socket, "--save", "",
                               "--dir", folder, "--appendonly", "no", "--activedefrag", "no"],
                              env=environment, stdout=subprocess.PIPE, text=True)
    try:
        for line in server.stdout:
            if "ready to accept connections" in line.lower() or "Ready to accept" in line:
                break
        load = subprocess.run(["redis-benchmark", "-s", socket, "-n", "40000", "-r", "20000", "-q",
                               "-P", "16", "-d", "200", "-t", "set,get,lpush,lpop,hset,zadd"],
                              capture_output=True, text=True, timeout=120)
        saved = subprocess.run(["redis-cli", "-s", socket, "save"], capture_output=True, text=True,
                               timeout=60)
        alive = server.poll() is None
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
        report(load.returncode == 0 and "OK" in saved.stdout and alive and code == 0,
               "redis-server takes a load, saves and ends in peace",
               f"{load.stderr} {saved.stdout}{saved.stderr} {alive} {code}")
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


with tempfile.TemporaryDirectory() as place:
    same("python3", [sys.executable, "-c", PYTHON])
    same("sqlite3", ["sqlite3", ":memory:"], given=SQL.encode())
    same("perl", ["perl", "-e", PERL])
    same("node", ["node", "-e", NODE])
    compiled(place)
    repository(place)
    redis(place)
print(f"1..{count}")
