#!/usr/bin/env python3
"""Heap profiles for other tools: google-pprof (and go's, where it is) read the .heap file, collapsed
stacks sum up to what is live, profile.proto is decoded here by its own rules; all held against what
the program knows of itself. Samples are scaled to what was allocated, within what chance allows."""
import gzip
import math
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import (PROGRAMS, diag, done, end, environment, folder, gcore, inspect,  # noqa: E402
                      inspect_json, is_, need_tools, ok, run, skip, stands_still, start, wait_until)

need_tools()
HERE = folder()


def start_program(name, **env):
    process = start([PROGRAMS / name], env=environment(**env), stdout=-1, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("ready "):
            break
    if not wait_until(lambda: stands_still(process.pid)):
        diag(f"{name} never stood still")
    return process, lines


def stacks_of(lines):
    """(kind, bytes, frames (function, line) innermost first)"""
    return [(words[1], int(words[3]), [(f.rsplit(":", 1)[0], int(f.rsplit(":", 1)[1])) for f in words[4:]])
            for words in (line.split() for line in lines if line.startswith("stack "))]


def export(form, target, *options):
    path = os.path.join(HERE, form)
    status, out, err = inspect(*target, "export", f"--format={form}", "-o", path, *options)
    if status != 0:
        diag(f"export {form}: status {status}: {err}")
        return None
    with open(path, "rb") as file:
        return file.read()


# ---- gperftools ----

def read_heap(text):
    """(type, header numbers, [(objects, bytes, addresses)], mapped lines)"""
    lines = text.splitlines()
    head = re.fullmatch(r"heap profile: +(\d+): +(\d+) \[ *(\d+): +(\d+)\] @ (\S+)", lines[0])
    blank = lines.index("")
    entries = []
    for line in lines[1:blank]:
        match = re.fullmatch(r" *(\d+): +(\d+) \[ *(\d+): +(\d+)\] @((?: 0x[0-9a-f]{8,})+)", line)
        if not match:
            raise ValueError(line)
        numbers = [int(match[i]) for i in range(1, 5)]
        if numbers[:2] != numbers[2:]:
            raise ValueError(line)
        entries.append((numbers[0], numbers[1], tuple(int(a, 16) for a in match[5].split())))
    return head[5], [int(head[i]) for i in range(1, 5)], entries, lines[blank + 1:]


def check_heap(name, target, stacks, lost):
    kinds = ("direct", "indirect") if lost else ("direct", "indirect", "live")
    data = export("gperftools", target, *(["--leaks"] if lost else []))
    if not ok(data, f"{name}: a .heap file"):
        return
    kind, head, entries, mapped = read_heap(data.decode())
    is_(kind, "heapprofile", f"{name}: exact")
    is_(head, [sum(e[0] for e in entries), sum(e[1] for e in entries)] * 2, f"{name}: header is the sum")
    is_(len({e[2] for e in entries}), len(entries), f"{name}: one line a call stack")
    is_(mapped[0], "MAPPED_LIBRARIES:", f"{name}: mappings")
    maps = [re.match(r"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]{8,}) ([0-9a-f]{2,}):([0-9a-f]{2,}) (\d+) *(\S*)", line)
            for line in mapped[1:]]
    ok(all(maps) and any(m[8].endswith("/stacks_truth") and "x" in m[3] for m in maps),
       f"{name}: ... in the shape of /proc/PID/maps")
    code = [(int(m[1], 16), int(m[2], 16)) for m in maps if "x" in m[3]]
    inner = [a for e in entries for a in e[2][:1]]
    gone = sum(not any(start <= a < stop for start, stop in code) for a in inner)
    ok(gone <= (not lost), f"{name}: ... addresses lie in code, but for the library that is gone")
    mine = sum(size for k, size, frames in stacks if k in kinds)
    ok(head[1] == mine if lost else head[1] >= mine, f"{name}: as many bytes as the program knows")
    return data


def check_google_pprof(stacks, path):
    """What perl's pprof says of functions and lines."""
    program = str(PROGRAMS / "stacks_truth")
    if not shutil.which("google-pprof"):
        return skip("google-pprof", "not here")
    status, out, err = run(["google-pprof", "--text", "--lines", "--show_bytes", program, path])
    flat = {}
    for line in out.splitlines():
        match = re.match(r" *(\d+) +[\d.]+% +[\d.]+% +(\d+) +[\d.]+% (\S+) (\S+):(\d+)$", line)
        if match and int(match[1]):
            flat[(match[3], os.path.basename(match[4]), int(match[5]))] = int(match[1])
    wanted = {}
    for kind, size, frames in stacks:
        if kind in ("direct", "indirect"):
            place = (frames[0][0], "stacks_truth.c", frames[0][1])
            wanted[place] = wanted.get(place, 0) + size
    if not is_(flat, wanted, "google-pprof: bytes by function, file and line"):
        diag(out + err)


def check_go_pprof(path):
    if not shutil.which("go"):
        return skip("go tool pprof", "not here")
    status, out, err = run(["go", "tool", "pprof", "-top", "-sample_index=inuse_space", path])
    return ok(status == 0 and "make_outer" in out, "go tool pprof reads it")


# ---- profile.proto ----

def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def message(data):
    """field -> list of values: numbers or bytes."""
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
            if len(value) != size:
                raise ValueError("cut")
        else:
            raise ValueError(f"wire type {key & 7}")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def packed(values):
    out = []
    for value in values:
        at = 0
        while at < len(value):
            number, at = varint(value, at)
            out.append(number)
    return out


class Proto:
    def __init__(self, data):
        top = message(gzip.decompress(data))
        self.strings = [s.decode() for s in top[6]]
        text = self.strings.__getitem__
        self.types = [(text(m[1][0]), text(m[2][0])) for m in map(message, top[1])]
        self.default = text(top[14][0])
        self.period = top[12][0]
        functions = {m[1][0]: (text(m.get(2, [0])[0]), text(m.get(4, [0])[0]))
                     for m in map(message, top.get(5, []))}
        self.mappings = {m[1][0]: (m[2][0], m[3][0], text(m.get(5, [0])[0]), text(m.get(6, [0])[0]))
                         for m in map(message, top.get(3, []))}
        self.locations = {}
        for m in map(message, top.get(4, [])):
            lines = [(functions[line[1][0]], line.get(2, [0])[0]) for line in map(message, m.get(4, []))]
            self.locations[m[1][0]] = (m.get(2, [0])[0], m[3][0], lines)
        self.samples = []
        for m in map(message, top.get(2, [])):
            labels = {text(label[1][0]): text(label[2][0]) if 2 in label else label.get(3, [0])[0]
                      for label in map(message, m.get(3, []))}
            self.samples.append((packed(m.get(1, [])), packed(m[2]), labels))


def check_proto(name, target, stacks, lost):
    data = export("pprof", target, *(["--leaks"] if lost else []))
    if not ok(data, f"{name}: profile.proto"):
        return
    proto = Proto(data)
    is_((proto.strings[0], len(set(proto.strings)) == len(proto.strings)), ("", True), f"{name}: strings")
    is_((proto.types, proto.default),
        ([("inuse_objects", "count"), ("inuse_space", "bytes")], "inuse_space"), f"{name}: sample types")
    found = {}
    for ids, values, labels in proto.samples:
        frames = []
        for i in ids:
            frames += [(function, line) for (function, file), line in proto.locations[i][2]]
        key = next((tuple(f) for k, size, f in stacks if frames[:len(f)] == f), None)
        if key:
            total = found.setdefault(key, [0, 0, set(), set()])
            total[0] += values[0]
            total[1] += values[1]
            total[2].add(labels["bytes"])
            total[3].add(labels.get("kind"))
    wanted = {}
    for kind, size, frames in stacks:
        if kind in ("direct", "indirect") or (kind == "live" and not lost):
            total = wanted.setdefault(tuple(frames), [0, 0, set(), set()])
            total[0] += 1
            total[1] += size
            total[2].add(size)
            total[3].add(kind if lost else None)
    is_(found, wanted, f"{name}: objects, bytes and labels of each call stack")
    ok(all(proto.mappings[m][0] <= address < proto.mappings[m][1]
           for m, address, lines in proto.locations.values() if m), f"{name}: addresses in mappings")
    program = proto.mappings[1]
    ok(program[2].endswith("/stacks_truth"), f"{name}: the program is the first mapping")
    notes = run(["readelf", "-n", PROGRAMS / "stacks_truth"])[1]
    build_id = re.search(r"Build ID: (\w+)", notes)
    is_(program[3], build_id[1] if build_id else "", f"{name}: its build-id")
    if not lost:
        modules = {os.path.basename(m[2]) for m in proto.mappings.values()}
        ok("stacks_gone.so" in modules, f"{name}: a library that is gone has a mapping")
    return data


# ---- collapsed stacks ----

def check_flamegraph(name, target, stacks):
    data = export("flamegraph", target)
    if not ok(data, f"{name}: collapsed stacks"):
        return
    lines = [re.fullmatch(r"(.+) (\d+)", line) for line in data.decode().splitlines()]
    ok(all(lines), f"{name}: ... each with a number")
    status, answer, err = inspect_json(*target, "summary")
    live = next(h for h in answer["heaps"] if h["allocator"] == "himalloc")["live"]["bytes"]
    is_(sum(int(m[2]) for m in lines), live, f"{name}: ... their sum is all that is live")
    found = {m[1].split(";main;", 1)[-1]: int(m[2]) for m in lines}
    wanted = {}
    for kind, size, frames in stacks:
        if kind in ("direct", "indirect", "live"):
            key = ";".join(f[0] for f in reversed(frames[:-1]))
            wanted[key] = wanted.get(key, 0) + size
    is_({k: found.get(k) for k in wanted}, wanted, f"{name}: ... outermost first, inlined calls too")


def test_exact():
    process, lines = start_program("stacks_truth", HIMALLOC="stacks:full")
    stacks, target = stacks_of(lines), ["-p", str(process.pid)]
    check_heap("live", target, stacks, False)
    check_proto("live", target, stacks, False)
    check_flamegraph("live", target, stacks)
    check_heap("leaks", target, stacks, True)
    check_google_pprof(stacks, os.path.join(HERE, "gperftools"))
    check_proto("leaks", target, stacks, True)
    check_go_pprof(os.path.join(HERE, "pprof"))
    status, out, err = inspect(*target, "export", "--format=gperftools")
    ok(status == 0 and out.startswith("heap profile:"), "without -o: standard output")
    status, out, err = inspect(*target, "leaks", "--style=gperftools", f"--profile={HERE}/end.heap")
    ok(status == 1 and f'"{HERE}/end.heap" --inuse_objects --lines --heapcheck' in out,
       "leaks --profile: the command that reads the file is said")
    entries = read_heap(open(f"{HERE}/end.heap", encoding="utf-8").read())[2]
    is_(sum(e[1] for e in entries), sum(s[1] for s in stacks if s[0] in ("direct", "indirect")),
        "... and what is lost is in it")
    core = gcore(process.pid, HERE)
    end(process)
    if not core:
        return skip("core", "no gcore here")
    check_heap("core", [core], stacks, True)
    check_google_pprof(stacks, os.path.join(HERE, "gperftools"))
    check_proto("core", [core], stacks, False)
    check_flamegraph("core", [core], stacks)


# ---- samples ----

def chance(blocks, size, period):
    """Standard deviation of an estimate of blocks * size bytes."""
    p = -math.expm1(-size / period)
    return math.sqrt(blocks * (1 - p) / p) * size


def test_sampled():
    period = 4096
    process, lines = start_program("sampled_truth", HIMALLOC=f"stacks:sampled,sample:{period}")
    sites = {w[1]: (int(w[2]), int(w[3])) for w in (l.split() for l in lines) if w[0] == "site"}
    target = ["-p", str(process.pid)]
    status, answer, err = inspect_json(*target, "top", "--by=stack")
    ok(answer and answer["basis"]["estimated"] and answer["basis"]["sample_bytes"] == period,
       "samples: top says that it is an estimate")
    top = {g["stack"][0]["function"]: g["bytes"] for g in answer["groups"] if g["stack"]}
    status, data = 0, export("gperftools", target)
    kind, head, entries, mapped = read_heap(data.decode())
    is_(kind, f"heap_v2/{period}", "samples: the .heap file leaves the scaling to its readers")
    ok(head[0] < 0.2 * sum(blocks for blocks, size in sites.values()), "... which have a part of the blocks")
    proto = Proto(export("pprof", target))
    is_(proto.period, period, "samples: the period of profile.proto")
    by_proto, flame = {}, {}
    for ids, values, labels in proto.samples:
        function = proto.locations[ids[0]][2][0][0][0] if ids else None
        by_proto[function] = by_proto.get(function, 0) + values[1]
    for line in export("flamegraph", target).decode().splitlines():
        names, size = line.rsplit(" ", 1)
        flame[names.split(";")[-1]] = flame.get(names.split(";")[-1], 0) + int(size)
    perl = google_pprof_bytes("sampled_truth")
    for function, (blocks, size) in sites.items():
        most = 6 * chance(blocks, size // blocks, period) + 1 # one in half a thousand million
        for how, sums in (("top", top), ("pprof", by_proto), ("flamegraph", flame), ("google-pprof", perl)):
            if sums is not None:
                got = sums.get(function, 0)
                if not ok(abs(got - size) <= most, f"samples: {how} estimates {function}"):
                    diag(f"{got}, in truth {size}, chance allows {most:.0f}")
    end(process)


def google_pprof_bytes(program):
    if not shutil.which("google-pprof"):
        return skip("google-pprof", "not here")
    out = run(["google-pprof", "--text", "--show_bytes", PROGRAMS / program, os.path.join(HERE, "gperftools")])[1]
    return {m[2]: float(m[1]) for m in
            re.finditer(r"^ *([\d.]+) +[\d.]+% +[\d.]+% +[\d.]+ +[\d.]+% (\S+)$", out, re.M)}


def test_refused():
    process, lines = start_program("stacks_truth", HIMALLOC="stacks:off")
    target = ["-p", str(process.pid)]
    path = os.path.join(HERE, "untouched")
    with open(path, "w", encoding="utf-8") as file:
        file.write("mine")
    status, out, err = inspect(*target, "export", "--format=pprof", "-o", path)
    ok(status == 2 and "stacks:full" in err and err.count("\n") == 1, "no stacks: status 2, what would help")
    is_(open(path, encoding="utf-8").read(), "mine", "... and a file that was there is left alone")
    status, out, err = inspect(*target, "top", "--by=stack")
    ok(status == 0 and "stacks:full" in out, "no stacks: top says what would help")
    end(process)
    process, lines = start_program("truth_direct", allocator="ptmalloc")
    status, out, err = inspect("-p", process.pid, "export", "--format=flamegraph")
    ok(status == 2 and "stacks:full" in err, "another allocator: the same")
    end(process)


test_exact()
test_sampled()
test_refused()
done()
