#!/usr/bin/env python3
"""Captured stacks of real programs beside backtrace(), one in some: all must be the same.

Where a program runs code that it made itself, backtrace() ends there and the capture may go on;
then what comes before that code must be the same (tests/programs/modules/capture_check.c).
"""
import os
import re
import shutil
import subprocess
import tempfile
import time

BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
CHECK = BUILD + "/programs/capture_check.so"
LINE = re.compile(r"(\S+) captures (\d+) compared (\d+) equal (\d+) guessed (\d+) cut (\d+)")
count = 0


def ok(passed, what, detail=""):
    global count
    count += 1
    print(f"{'ok' if passed else 'not ok'} {count} - {what}", flush=True)
    if not passed and detail:
        print("#   " + str(detail).replace("\n", "\n#   "))


def skip(what):
    global count
    count += 1
    print(f"ok {count} # SKIP {what} is not here", flush=True)


def environment(out, every, **more):
    return dict(os.environ, LD_PRELOAD=CHECK, CAPTURE_CHECK=f"{out},{every}", **more)


def judge(out, what, program, least, may_be_cut=False):
    text = open(out).read() if os.path.exists(out) else ""
    found = [tuple(map(int, m.groups()[1:])) for m in LINE.finditer(text)
             if m.group(1) == program]
    compared = sum(line[1] for line in found)
    same = sum(line[2] for line in found)
    cut = sum(line[4] for line in found)
    ok(compared >= least and same == compared and (cut == 0 or may_be_cut),
       f"{what}: {same} of {compared} as backtrace() says", text[:3000])


def run(what, command, every, least, folder, program=None, may_be_cut=False, needs=None, **more):
    needs = needs or command[0]
    if not shutil.which(needs):
        return skip(needs)
    out = f"{folder}/{what.replace(' ', '_')}"
    with open(f"{folder}/log", "w") as log:
        subprocess.run(command, env=environment(out, every, **more), cwd=folder, stdout=log,
                       stderr=log, timeout=120)
    judge(out, what, program or os.path.basename(command[0]), least, may_be_cut)


PYTHON = """
import json, re
rows = [{"a": [1, 2, i], "b": str(i) * 3} for i in range(300)]
text = json.dumps(rows)
assert json.loads(text) == rows
print(len(re.findall("1[0-9]+", text)), sorted(rows, key=lambda r: r["b"])[0])
try:
    [].pop()
except IndexError as e:
    print(e)
"""
SQL = """create table t(a, b); create index i on t(b);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 3000)
insert into t select x, hex(x * 7) from c;
select count(*), max(b) from t group by a % 7 order by 2;
select json_group_array(b) from t where a < 20;"""
CPLUSPLUS = """#include <map>
#include <string>
template <int n> struct f { static int v() { return f<n - 1>::v() + n; } };
template <> struct f<0> { static int v() { return 0; } };
int main() { std::map<std::string, int> m; m["a"] = f<30>::v(); return m.size(); }
"""
PERL = "my %h; $h{$_} = [1 .. 3] for 1 .. 300; print join ',', sort map { s/1/x/r } keys %h"
NODE = "let a = []; for (let i = 0; i < 3000; i++) a.push({i}); JSON.parse(JSON.stringify(a))"
JAVA = """public class T { public static void main(String[] a) { StringBuilder b = new StringBuilder();
for (int i = 0; i < 100; i++) b.append(i); System.out.println(b.length()); } }"""


def test_redis(folder):
    if not (shutil.which("redis-server") and shutil.which("redis-benchmark")):
        return skip("redis-server")
    out, socket = folder + "/redis", folder + "/redis.socket"
    with open(f"{folder}/log", "w") as log:
        server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", socket, "--save",
                                   "", "--dir", folder], env=environment(out, 10), stdout=log)
    try:
        for _ in range(1000):
            if os.path.exists(socket):
                break
            time.sleep(0.01)
        subprocess.run(["redis-benchmark", "-s", socket, "-n", "1500", "-q", "-t",
                        "set,get,lpush,sadd,mset"], stdout=subprocess.DEVNULL, timeout=60)
        subprocess.run(["redis-cli", "-s", socket, "shutdown", "nosave"], timeout=60)
        server.wait(60)
    finally:
        if server.poll() is None:
            server.kill()
    judge(out, "redis-server", "redis-server", 300)


def main():
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("t.py", PYTHON), ("t.cc", CPLUSPLUS), ("T.java", JAVA)):
            with open(f"{folder}/{name}", "w") as file:
                file.write(text)
        run("python3", ["/usr/bin/python3", "t.py"], 7, 1000, folder, PYTHONMALLOC="malloc")
        run("sqlite3", ["sqlite3", ":memory:", SQL], 3, 500, folder)
        run("perl", ["perl", "-e", PERL], 3, 300, folder)
        run("cc1plus", ["g++", "-O1", "-c", "-o", "t.o", "t.cc"], 60, 1000, folder,
            program="cc1plus")
        run("a shell and its children", ["bash", "-c", "for i in 1 2 3; do x=$(ls /); done"], 3,
            200, folder, program="bash")
        run("node", ["node", "-e", NODE], 15, 1000, folder, may_be_cut=True)
        run("java", ["java", "-Xshare:off", "T.java"], 60, 500, folder, may_be_cut=True)
        test_redis(folder)
    print(f"1..{count}")


main()
