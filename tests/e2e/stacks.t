#!/usr/bin/env python3
"""Who allocated: functions, files and lines of leaks, live and freed blocks, held against what the
program noted on its way (stacks_truth): live, from a core, at exit, under suppressions, and in
LeakSanitizer's and gperftools' words."""
import json
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import (HEAPINSPECT, PROGRAMS, chunks, diag, done, end, environment,  # noqa: E402
                      folder, gcore, inspect, inspect_json, is_, need_tools, ok, run, skip,
                      stands_still, start, wait_until)

need_tools()
HERE = folder()
SOURCES = {"stacks_gone.c": {"gone_allocate"}}


def source_of(function):
    return next((file for file, names in SOURCES.items() if function in names), "stacks_truth.c")


class Stack:
    def __init__(self, words):
        self.kind, self.address, self.bytes = words[1], int(words[2], 16), int(words[3])
        self.frames = [(name, int(line)) for name, line in
                       (word.rsplit(":", 1) for word in words[4:])]


def stacks_of(text):
    return [Stack(line.split()) for line in text.splitlines() if line.startswith("stack ")]


def known(frames, count):
    """The innermost count frames of an answer as (function, line), files checked."""
    for frame in frames[:count]:
        if frame["function"] and os.path.basename(frame["file"] or "") != source_of(frame["function"]):
            return f"{frame['function']} in {frame['file']}"
    return [(frame["function"], frame["line"]) for frame in frames[:count]]


def same_stack(frames, stack, what):
    return is_(known(frames or [], len(stack.frames)), stack.frames, what)


def start_program(**env):
    process = start([PROGRAMS / "stacks_truth"], env=environment(**env), stdout=-1, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("ready "):
            break
    if not wait_until(lambda: stands_still(process.pid)):
        diag("the program never stood still")
    return process, stacks_of("".join(lines))


def by_stack(stacks, *kinds):
    """frames -> [blocks, bytes] of these kinds."""
    sums = {}
    for stack in stacks:
        if stack.kind in kinds:
            total = sums.setdefault(tuple(stack.frames), [0, 0])
            total[0] += 1
            total[1] += stack.bytes
    return sums


def check_leaks(name, target, stacks, wanted_status=1, answer=None):
    if answer is None:
        status, answer, err = inspect_json("leaks", *target)
        if not ok(status == wanted_status and answer, f"{name}: leaks"):
            return diag(err)
    heap = next(h for h in answer["heaps"] if h["allocator"] == "himalloc")
    is_((heap["bytes_are"], heap["stacks"]["mode"]), ("requested", "full"), f"{name}: exact sizes")
    wanted = by_stack(stacks, "direct")
    found = {}
    for group in answer["leaks"]:
        depth = next((len(s.frames) for s in stacks if s.address == int(group["examples"][0], 16)), 0)
        found[tuple(known(group["stack"], depth))] = [group["blocks"], group["bytes"]]
    is_(found, wanted, f"{name}: a group for each call stack, with its blocks and requested bytes")
    pair = next((g for g in answer["leaks"] if g["bytes"] == 568), None)
    if ok(pair and pair["indirect"] == {"blocks": 1, "bytes": 568}, f"{name}: what hangs off it"):
        inner = next(s for s in stacks if s.kind == "indirect")
        same_stack(pair["holds"][0]["stack"], inner, f"{name}: ... and who allocated that")
        is_(int(pair["holds"][0]["example"], 16), inner.address, f"{name}: ... and where it is")
    totals = answer["totals"]
    is_([totals[k]["bytes"] for k in ("direct", "indirect")],
        [sum(s.bytes for s in stacks if s.kind == k) for k in ("direct", "indirect")],
        f"{name}: totals")
    return answer


def check_blocks(name, target, stacks):
    """whatis and chunks: live blocks, and freed ones with who freed them."""
    for stack in (s for s in stacks if s.kind in ("live", "freed")):
        status, answer, err = inspect_json(*target, "whatis", hex(stack.address))
        if not ok(answer, f"{name}: whatis of a {stack.kind} block"):
            diag(err)
            continue
        block = answer["answers"][0]
        same_stack(block["allocated_by"], stack, f"{name}: ... allocated by {stack.frames[0][0]}")
        if stack.kind == "live":
            is_((block["block"]["size"], block["freed_by"]), (stack.bytes, None),
                f"{name}: ... its size, and nobody freed it")
        else:
            same_stack(block["freed_by"], next(s for s in stacks if s.kind == "freed_by"),
                       f"{name}: ... freed by")
    status, lines, err = chunks(*target)
    numbers = {int(line["address"], 16): line["stack"] for line in lines or []}
    many = {numbers.get(s.address) for s in stacks if s.frames[0][0] == "lose_many"}
    ok(len(many) == 1 and None not in many, f"{name}: chunks: one number for one call stack")


def check_top(name, target, stacks):
    status, answer, err = inspect_json("top", "--by=stack", *target)
    if not ok(status == 0 and answer, f"{name}: top --by=stack"):
        return diag(err)
    wanted = by_stack(stacks, "direct", "indirect", "live")
    found = {}
    for group in answer["groups"]:
        for frames in wanted:
            if tuple(known(group["stack"], len(frames))) == frames:
                found[frames] = [group["blocks"], group["bytes"]]
    is_(found, wanted, f"{name}: ... every call stack with its blocks and bytes")
    live = next(h for h in answer["heaps"] if h["allocator"] == "himalloc")["live"]
    is_([sum(g[k] for g in answer["groups"]) for k in ("blocks", "bytes")],
        [live["blocks"], live["bytes"]], f"{name}: ... all live memory in sum")
    ok(not answer["basis"]["estimated"], f"{name}: ... exact")


def test_everything():
    process, stacks = start_program(HIMALLOC="stacks:full")
    target = ["-p", str(process.pid)]
    check_leaks("live", target, stacks)
    check_blocks("live", target, stacks)
    check_top("live", target, stacks)
    inlined = next(s for s in stacks if s.frames[0][0] == "inlined_inner")
    status, answer, err = inspect_json(*target, "whatis", hex(inlined.address))
    frames = answer["answers"][0]["allocated_by"]
    is_([frame["inline"] for frame in frames[:3]], [True, True, False], "calls that are inlined")
    is_(len({frame["address"] for frame in frames[:3]}), 1, "... have one address")
    text = inspect("leaks", *target)[1]
    match = re.search(r"568 B direct.*\n((?:        #.*\n)+)", text)
    lines = match[1].splitlines() if match else []
    pair = next(s for s in stacks if s.kind == "direct" and s.bytes == 568)
    is_([re.match(rf"        #{i} (\w+) stacks_truth\.c:(\d+) \(stacks_truth\)$", line).groups()
         for i, line in enumerate(lines[:len(pair.frames)])],
        [(name, str(line)) for name, line in pair.frames], "in text: function, file, line, module")
    check_suppressions(target, stacks)
    check_styles(target, stacks)
    core = gcore(process.pid, HERE)
    if core:
        check_leaks("core", [core], stacks)
        check_blocks("core", [core], stacks)
    else:
        skip("core", "no gcore here")
    end(process)


# ---- suppressions ----

def suppressed(target, *patterns):
    path = os.path.join(HERE, "suppressions")
    with open(path, "w", encoding="utf-8") as file:
        file.write("# what is known\n" + "".join(f"leak:{p}\n" for p in patterns))
    status, answer, err = inspect_json("leaks", f"--suppressions={path}", *target)
    if not answer:
        diag(err)
        return status, None, None, None
    lost = [sum(answer["totals"][k][what] for k in ("direct", "indirect"))
            for what in ("blocks", "bytes")]
    table = {s["pattern"]: [s["blocks"], s["bytes"]] for s in answer["suppressions"]}
    return status, lost, table, answer


def check_suppressions(target, stacks):
    kinds = ("direct", "indirect")
    whole = [sum(1 for s in stacks if s.kind in kinds), sum(s.bytes for s in stacks if s.kind in kinds)]
    status, lost, table, _ = suppressed(target, "nowhere_at_all", "^ose_many", "lose_man$", "x*lose")
    is_((status, lost), (1, whole), "patterns that match nothing suppress nothing")
    is_(set(map(tuple, table.values())), {(0, 0)}, "... and say so")
    for pattern in ("lose_many", "^lose_many$", "lose*many", "^lose_m*"):
        status, lost, table, _ = suppressed(target, pattern)
        is_((status, lost, table), (1, [whole[0] - 10, whole[1] - 1000], {pattern: [10, 1000]}),
            f"a function, {pattern}")
    status, lost, table, answer = suppressed(target, "^make_outer$")
    is_((lost, table["^make_outer$"]), ([whole[0] - 2, whole[1] - 1136], [2, 1136]),
        "what hangs off a suppressed leak goes with it")
    ok(all(not group["holds"] for group in answer["leaks"]), "... from the lists, too")
    for pattern, what in (("stacks_truth.c", "a source file"), ("/stacks_truth$", "a module"),
                          ("^main$", "the outermost function of all")):
        is_(suppressed(target, pattern)[:2], (0, [0, 0]), f"{what}, {pattern}: all of it; status 0")
    text = inspect("leaks", f"--suppressions={HERE}/suppressions", *target)[1]
    ok(re.search(rf"^ +{whole[0]} +{whole[1]} \^main\$$", text, re.M), "the table in text")


# ---- other tools' words ----

def check_styles(target, stacks):
    status, text, err = inspect("leaks", "--style=lsan", *target)
    groups = re.findall(r"^(Direct|Indirect) leak of (\d+) byte\(s\) in (\d+) object\(s\) allocated "
                        r"from:\n((?:    #.*\n)+)\n", text, re.M)
    found = {}
    for kind, size, count, frames in groups:
        parsed = re.findall(r"^    #\d+ 0x[0-9a-f]{12} in (\w+) \S*/(stacks_\w+\.c):(\d+)$", frames, re.M)
        found[tuple((name, int(line)) for name, file, line in parsed)] = (kind, int(count), int(size))
    wanted = {frames: ("Direct", *total) for frames, total in by_stack(stacks, "direct").items()}
    wanted.update({frames: ("Indirect", *total)
                   for frames, total in by_stack(stacks, "indirect").items()})
    is_(found, wanted, "lsan: each call stack, with files and lines")
    last = re.findall(r"^    #(\d+) 0x[0-9a-f]{12} in _start \(\S+/stacks_truth\+0x[0-9a-f]+\)$", text, re.M)
    is_(len(last), len(groups), "lsan: functions without a line have module and offset")
    status, text, err = inspect("leaks", "--style=gperftools", *target)
    kinds = ("direct", "indirect")
    ok(text.startswith(f"Leak check _main_ detected leaks of {sum(s.bytes for s in stacks if s.kind in kinds)}"
                       f" bytes in {sum(1 for s in stacks if s.kind in kinds)} objects\n"),
       "gperftools: its first line")
    groups = re.findall(r"^Leak of (\d+) bytes in (\d+) objects allocated from:\n((?:\t@ [0-9a-f]+ .*\n)+)",
                        text, re.M)
    found = {tuple(re.findall(r"^\t@ [0-9a-f]+ (\S+)$", frames, re.M)): [int(count), int(size)]
             for size, count, frames in groups}
    wanted = {tuple(name for name, line in frames): total
              for frames, total in by_stack(stacks, *kinds).items()}
    is_({frames[:frames.index("main") + 1]: total for frames, total in found.items()}, wanted,
        "gperftools: what each call stack lost, functions named")


# ---- at the end of a program ----

def test_exit():
    report = os.path.join(HERE, "report.json")
    status, out, err = run([HEAPINSPECT, "run", "--json", "-o", report, "--",
                            PROGRAMS / "stacks_truth", "exit"], env=environment(None))
    is_(status, 23, "run: a leak")
    answer = json.load(open(report, encoding="utf-8"))
    check_leaks("run", [], stacks_of(out), answer=answer)
    env = environment(HEAPCHECK="normal", HEAP_CHECK_DUMP_DIRECTORY=HERE)
    status, out, err = run([PROGRAMS / "stacks_truth", "exit"], env=env)
    is_(status, 23, "HEAPCHECK: a leak")
    lost = [s.bytes for s in stacks_of(out) if s.kind in ("direct", "indirect")]
    ok(err.startswith(f"Leak check _main_ detected leaks of {sum(lost)} bytes in {len(lost)} objects\n")
       and re.search(r"^\t@ [0-9a-f]+ make_outer$", err, re.M), "... in gperftools' words, with names")
    match = re.search(rf'^pprof (\S+) "({HERE}/stacks_truth\.\d+\._main_-end\.heap)" --inuse_objects --lines '
                      "--heapcheck  --edgefraction=1e-10 --nodefraction=1e-10 --gv$", err, re.M)
    if not ok(match and os.path.exists(match[2]), "... and the command for its heap profile"):
        return diag(err)
    if shutil.which("google-pprof"):
        top = run(["google-pprof", "--text", "--inuse_objects", "--lines", "--heapcheck", match[1], match[2]])[1]
        many = next(s for s in stacks_of(out) if s.frames[0][0] == "lose_many")
        ok(re.search(rf"^ +10 .* lose_many \S+/stacks_truth\.c:{many.frames[0][1]}$", top, re.M),
           "... which google-pprof reads")


def test_embedded():
    """Suppressions in the program, by the name that LeakSanitizer asks for."""
    program = PROGRAMS / "embedded_suppressions"
    status, out, err = run([program], env=environment(HIMALLOC="leakcheck:exit"))
    is_((status, err), (3, ""), "the program's own suppressions are honoured")
    status, out, err = run([program, "other"], env=environment(HIMALLOC="leakcheck:exit,style:lsan"))
    ok(status == 23 and "in lose_other " in err and "in lose_known " not in err
       and "SUMMARY: LeakSanitizer: 50 byte(s) leaked in 1 allocation(s)." in err
       and re.search(r"^ +1 +40 lose_known$", err, re.M), "... and what they do not name is told")


# ---- samples ----

def test_sampled():
    """Without a word on stacks some blocks are known; with samples of one byte all are."""
    process, stacks = start_program()
    target = ["-p", str(process.pid)]
    status, answer, err = inspect_json("leaks", *target)
    is_((status, answer["heaps"][0]["bytes_are"]), (1, "usable"), "sampled: leaks are found")
    text = inspect("leaks", *target)[1]
    if all(group["stack"] for group in answer["leaks"]):
        ok("sampled blocks only" not in text, "sampled: all happened to be picked")
    else:
        ok(not answer["heaps"][0]["stacks"]["blocks"] or "sampled blocks only" in text,
           "sampled: that not all stacks are known is said")
    large = next(s for s in stacks if s.bytes == 3000000)
    status, answer, err = inspect_json(*target, "whatis", hex(large.address))
    frames = answer["answers"][0]["allocated_by"]
    if frames:  # with a probability of 99.7%
        same_stack(frames, large, "sampled: a large block is known")
    end(process)


test_everything()
test_exit()
test_embedded()
test_sampled()
done()
