"""What is measured, and with what: allocators, commands of real programs, and redis-server.

Programs that are not here are left out.
"""
import os
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import heaptest  # noqa: E402

PYTHON = """import json
data = [{"id": i, "name": "n%d" % i, "tags": ["a%d" % (i % 97), "b"], "x": i / 7} for i in range(60000)]
for _ in range(2):
    data = json.loads(json.dumps(data))
"""
PERL = """my %h; for my $i (0..150000) { $h{"key$i"} = [ $i, "value" x ($i % 5), { a => $i } ]; }
my $n = 0; for my $k (sort keys %h) { $n += length $h{$k}[1]; delete $h{$k} if $n % 3; } print $n;"""
LUA = """local t = {} for r = 1, 3 do for i = 1, 100000 do t[i] = { i, tostring(i), { x = i } } end
local s = {} for i = 1, 100000 do s[i] = t[i][2] .. r end t.s = table.concat(s) end print(#t.s)"""
SQL = """create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
insert into t select i, hex(i * 7919) || 'text' || i, i / 3.0 from n;
create index b on t(b); select count(*), sum(length(b)) from t where b > 'A';
select substr(b, 1, 2) k, count(*), group_concat(a) from t group by k order by 2 desc limit 3;"""
NODE = """let d = []; for (let i = 0; i < 150000; i++) d.push({ id: i, name: 'n' + i, tags: ['a', 'b' + i] });
for (let r = 0; r < 2; r++) d = JSON.parse(JSON.stringify(d)); console.log(d.length);"""
POSTSCRIPT = """/Times-Roman findfont 9 scalefont setfont 1 1 60 { pop 1 1 500 { dup 7 mod 70 mul 40 add
exch dup 70 mod 10 mul 40 add moveto 20 string cvs show 0 0 moveto 30 30 rlineto stroke } for showpage } for
"""
CXX = """#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>
template <int N> struct table { std::map<std::string, std::vector<int>> rows[N % 3 + 1];
    std::function<int(int)> f = [](int i) { return i * N; };
    int sum(const std::string &k) { auto &r = rows[0][k]; r.push_back(N);
        std::sort(r.begin(), r.end()); return f(r.back()) + table<N - 1>().sum(k); } };
template <> struct table<0> { int sum(const std::string &k) { return (int)k.size(); } };
int use(const std::string &k) { return table<20>().sum(k); }
"""
SHELL = "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done"
C_HEAD = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
C_FUNCTION = """struct s{i} {{ int a, b[{n}]; char *t; struct s{i} *next; }};
int f{i}(struct s{i} *s, int n)
{{
    int k = n;
    for (; s; s = s->next) {{
        k += s->a * {i} + s->b[k & {m}];
        if (s->t && strlen(s->t) > (size_t)n) k ^= atoi(s->t + {m});
        switch (k % 5) {{ case 0: k++; break; case 1: k -= n; break; case 3: printf("%d\\n", k); }}
    }}
    return k;
}}
"""


def _write(where, name, text):
    path = os.path.join(where, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


def programs(where):
    """Name -> command; what they read is written to the folder, and so is what they write."""
    c = _write(where, "large.c", C_HEAD + "".join(
        C_FUNCTION.format(i=i, n=i % 9 + 1, m=i % 4) for i in range(300)))
    cxx = _write(where, "templates.cc", CXX)
    pages = _write(where, "pages.ps", POSTSCRIPT)
    every = {
        "python3 json": [os.path.realpath(sys.executable), "-S", "-c", PYTHON],
        "perl hashes": ["perl", "-e", PERL],
        "lua tables": ["lua", "-e", LUA],
        "sqlite3": ["sqlite3", ":memory:", SQL],
        "ghostscript": ["gs", "-q", "-dNOPAUSE", "-dBATCH", "-sDEVICE=pdfwrite",
                        "-sOutputFile=" + os.path.join(where, "pages.pdf"), pages],
        "gcc -O1": ["gcc", "-O1", "-S", "-o", os.path.join(where, "large.s"), c],
        "clang++ -O1": ["clang++", "-O1", "-S", "-o", os.path.join(where, "templates.s"), cxx],
        "node json": ["node", "-e", NODE],
        "fork-sh": ["sh", "-c", SHELL],
    }
    return {name: command for name, command in every.items() if shutil.which(command[0])}


def allocators(more):
    """Name -> library: what is here, and those in `more` and $PEERS, NAME=LIBRARY or a path."""
    known = {"glibc" if n == "ptmalloc" else n: p for n, p in heaptest.allocators().items()}
    for peer in os.environ.get("PEERS", "").split() + more:
        name, _, path = peer.rpartition("=")
        if not os.path.exists(path):
            raise SystemExit(f"{path} is not here")
        known[name or os.path.basename(path).split(".so")[0]] = os.path.abspath(path)
    return known


def environment(library):
    env = heaptest.environment("ptmalloc")
    if library:
        env["LD_PRELOAD"] = library
    return env


def measure(library, command, times=1, options=(), where=None):
    """(seconds by the clock, of processor time, peak MiB) of a command and all it starts, which
    writes to the folder, if anywhere."""
    out = subprocess.run([heaptest.BUILD / "bench" / "measure", "-n", str(times), *options, library,
                          *command],
                         stdout=subprocess.PIPE, check=True, text=True, env=environment(""),
                         cwd=where).stdout
    status, wall, processor, peak = out.split()
    return (float(wall), float(processor), float(peak)) if status == "0" else None


# ---- redis-server brings its own allocator: that of glibc is libc.so.6 preloaded before it ----


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _answers(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def redis_is_here():
    return bool(shutil.which("redis-server") and shutil.which("redis-benchmark"))


def redis(library, where):
    """As measure(), of the server alone."""
    port = _free_port()
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--dir", where, "--bind", "127.0.0.1"],
        env=environment(library or heaptest.library("libc.so.6")), stdout=subprocess.DEVNULL)
    try:
        if not heaptest.wait_until(lambda: _answers(port)):
            return None
        begun = time.monotonic()
        for test in ("set,get", "lpush,lrange_100"):
            subprocess.run(["redis-benchmark", "-p", str(port), "-q", "-n", "60000", "-r", "60000",
                            "-d", "100", "-P", "16", "-t", test], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall = time.monotonic() - begun
        with open(f"/proc/{server.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        with open(f"/proc/{server.pid}/status", encoding="ascii") as file:
            peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
        ticks = int(fields[11]) + int(fields[12])
        return wall, ticks / os.sysconf("SC_CLK_TCK"), int(peak) / 1024
    finally:
        server.kill()
        server.wait()
