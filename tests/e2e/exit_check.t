#!/usr/bin/env python3
"""The leak check at exit: output and exit status are the program's own, however it ends; what it
lost is what it says it lost."""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import (BUILD, HEAPINSPECT, HIMALLOC, PROGRAMS, done, end, environment,  # noqa: E402
                      folder, is_, need_tools, ok, run, skip, start, start_truth, wait_until)

need_tools()
HERE = folder()
PROGRAM = str(PROGRAMS / "exit_check")


def checked(how, settings="", program=PROGRAM, where=None, **more):
    """(status, output, report) of a program with the check at its end."""
    env = environment(HIMALLOC="leakcheck:exit" + settings, **more.pop("env", {}))
    command = [program, how] if isinstance(how, str) else [program, *how]
    return run(command, env=env, cwd=where or HERE, **more)


def plain(*command, **more):
    """The same program, left alone."""
    return run(command, env=environment("ptmalloc"), cwd=HERE, **more)


def as_json(how, settings="", **more):
    """(status, output, the report's object or None)"""
    status, out, err = checked(how, ",style:json" + settings, **more)
    try:
        return status, out, json.loads(err)
    except ValueError:
        return status, out, None


def lost(out):
    """(blocks, bytes) as the program says."""
    match = re.search(r"^lost (\d+) (\d+)$", out, re.M)
    return (int(match[1]), int(match[2])) if match else None


def found(report):
    """(blocks, bytes) as the report says."""
    if not report:
        return None
    totals = report["totals"]
    return tuple(totals["direct"][k] + totals["indirect"][k] for k in ("blocks", "bytes"))


def without_bytes(text):
    return re.sub(r"^lost (\d+) \d+$", r"lost \1", text, flags=re.M)


# ---- status and output ----

def test_status():
    status, out, report = checked("clean")
    is_((status, out, report), (3, "clean\n", ""), "nothing lost: status kept, not a word")
    status, out, report = as_json("leak")
    is_(status, 23, "a leak: status 23")
    is_(found(report), lost(out), "... what the program says it lost")
    is_(report and report["totals"]["direct"]["blocks"], 1, "... one block, the other hangs off it")
    status, out, report = checked("leak", ",exitcode:77")
    is_(status, 77, "exitcode:77")
    ok("direct" in report, "... with a report")
    status, out, report = checked("leak", ",exitcode:0")
    is_(status, 3, "exitcode:0 keeps the program's")
    ok("direct" in report, "... with a report")
    is_(checked("leak", ",exitcode:256")[0], 23, "an impossible exitcode is passed over")
    is_(run([PROGRAM, "leak"], env=environment())[0], 3, "off, it does nothing")
    is_(run([PROGRAM, "leak"], env=environment(HIMALLOC="leakcheck:off"))[0], 3, "... also by name")


def test_output():
    """A program whose output goes to a file, through a buffer, loses none of it."""
    wanted = without_bytes(plain(PROGRAM, "leak")[1])
    path = os.path.join(HERE, "output")
    with open(path, "w", encoding="utf-8") as file:
        process = start([PROGRAM, "leak"], env=environment(HIMALLOC="leakcheck:exit"), stdout=file,
                        stderr=subprocess.STDOUT)
        is_(process.wait(timeout=60), 23, "output to a file: status")
    text = open(path, encoding="utf-8").read()
    ok(without_bytes(text).startswith(wanted), "... all of the program's output, before the report")
    ok("direct" in text[len(wanted):], "... and the report behind it")


def test_report_file():
    status, out, err = checked("leak", f",report:{HERE}/report.%p.%%")
    names = glob.glob(HERE + "/report.*")
    ok(len(names) == 1 and re.search(r"report\.\d+\.%$", names[0]), "a report file with its pid")
    is_((status, err), (23, ""), "... nothing on standard error")
    ok("direct" in open(names[0], encoding="utf-8").read(), "... the report is in it")
    checked("clean", ",report:relative")
    ok("No leaks" in open(HERE + "/relative", encoding="utf-8").read(),
       "a file that was asked for also says that there is nothing")
    status, out, err = checked("leak", ",report:/nonexistent/folder/x")
    ok(status == 3 and "cannot write /nonexistent/folder/x" in err and err.count("\n") == 1,
       "a file that cannot be written: status kept, one line")


# ---- ways to end ----

def test_ways():
    for how in ("thread", "threads", "quick", "child_signal", "child_ignored", "reaper",
                "undumpable", "lost_late", "leader_gone", "all_used", "vector"):
        status, out, report = as_json(how)
        is_((status, found(report)), (23, lost(out)), f"{how}: status and what is lost")
        ok("SIGCHLD" not in out, f"{how}: no child is seen")
    is_(checked("freed_late")[0], 3, "what a handler frees at the end is no leak")
    is_(checked("stdout_gone")[0], 23, "stdout that was led elsewhere is not touched")
    read_end, write_end = os.pipe()
    status, out, report = as_json("reading", stdin=read_end, timeout=60)
    os.close(read_end)
    os.close(write_end)
    is_((status, found(report)), (23, lost(out)), "a thread that reads stdin blocks nothing")
    is_(checked("abort")[0::2], (-signal.SIGABRT, ""), "abort: no check")
    is_(checked("_exit")[0::2], (3, ""), "_exit: no check")


def test_descriptors():
    for how in ("closed", "reused"):
        status, out, report = as_json(how)
        is_((status, found(report)), (23, lost(out)), f"{how}: the report comes all the same")
    is_(open(HERE + "/data", encoding="utf-8").read(), "data", "a file with number 2 is left alone")
    is_(checked("all_closed")[0], 23, "all descriptors closed: the status still tells")
    status, out, err = run(["sh", "-c", f"exec '{PROGRAM}' leak 2>&-"],
                           env=environment(HIMALLOC="leakcheck:exit"))
    is_((status, err), (23, ""), "started without standard error")
    ok(out.endswith("line 49 of the program's own output\n"), "... nothing strays into its output")


def test_fork():
    status, out, err = checked("fork", f",style:json,report:{HERE}/fork.%p")
    child = re.search(r"^child (\d+) (\d+)$", out, re.M)
    ok(child and child[2] == "23", "a forked child that loses something has the status")
    is_(status, 3, "... its parent keeps its own")
    with open(f"{HERE}/fork.{child[1]}", encoding="utf-8") as file:
        report = json.load(file)
    is_((report["target"]["pid"], found(report)), (int(child[1]), lost(out)), "... and its report")
    clean = [json.load(open(name, encoding="utf-8")) for name in glob.glob(HERE + "/fork.*")
             if name != f"{HERE}/fork.{child[1]}"]
    ok(len(clean) == 1 and found(clean[0]) == (0, 0), "... the parent's says that it lost nothing")


def serve(how, settings="", word="line 49 "):
    process = start([PROGRAM, how], env=environment(HIMALLOC="leakcheck:exit" + settings),
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out = ""
    for line in process.stdout:
        out += line
        if line.startswith(word):
            break
    return process, out


def test_sigterm():
    process, out = serve("server", ",style:json")
    process.terminate()
    report = process.communicate(timeout=60)[1]
    is_(process.returncode, -signal.SIGTERM, "a server dies of SIGTERM as ever")
    is_(found(json.loads(report)) if report else None, lost(out), "... with its report")
    process, out = serve("own_handler")
    process.terminate()
    report = process.communicate(timeout=60)[1]
    is_((process.returncode, report), (9, ""), "a handler of the program's own is left alone")
    env = environment(HIMALLOC="leakcheck:exit")
    out = run(["sh", "-c", f"trap '' TERM; exec '{PROGRAM}' ignoring"], env=env)[1]
    is_(out, "it was ignored\n", "where SIGTERM is ignored, it stays so")
    for attempt in range(5):
        process, out = serve("busy", ",style:json,say:always", word="busy")
        process.terminate()
        report = process.communicate(timeout=60)[1]
        try:
            blocks = found(json.loads(report))
        except ValueError:
            blocks = report
        is_((process.returncode, blocks), (-signal.SIGTERM, (0, 0)),
            f"terminated at work, {attempt + 1}: whole answer, nothing lost")


# ---- what is lost ----

def test_stale_words():
    """All 150 blocks of a list and a ring, whatever dead frames hold."""
    for how in ("return", "call"):
        status, out, report = as_json([how, "go"], program=str(PROGRAMS / "truth_exit"))
        states = [line.split()[1] for line in out.splitlines() if line.startswith("block ")]
        wanted = sum(state in ("direct", "indirect", "ring") for state in states)
        is_(wanted, 150, f"truth_exit {how}: the program lost 150")
        is_((status, found(report) and found(report)[0]), (23, wanted), "... and all are found")


# ---- other tools' words ----

def test_heapcheck():
    env = environment(HEAP_CHECK_DUMP_DIRECTORY=HERE, HEAPCHECK="normal")
    status, out, err = run([PROGRAM, "leak"], env=env)
    blocks, size = lost(out)
    is_(status, 23, "HEAPCHECK=normal: status")
    ok(f"Leak check _main_ detected leaks of {size} bytes in {blocks} objects\n" in err,
       "... gperftools' line")
    is_(sum(int(n) for n in re.findall(r"^Leak of (\d+) bytes", err, re.M)), size,
        "... its single leaks sum up to it")
    status, out, err = run([PROGRAM, "clean"], env=env)
    ok(status == 3 and re.fullmatch(r'No leaks found for check "_main_" \(but no 100% guarantee that '
                                    r"there aren't any\): found \d+ reachable heap objects of \d+ "
                                    r"bytes\n", err), "... and the one of a clean run")
    for mode in ("minimal", "strict", "draconian", "local", "as-is"):
        env = environment(HEAP_CHECK_DUMP_DIRECTORY=HERE, HEAPCHECK=mode)
        is_(run([PROGRAM, "leak"], env=env)[0], 23, f"HEAPCHECK={mode}")
    is_(run([PROGRAM, "leak"], env=environment(HEAP_CHECK_DUMP_DIRECTORY=HERE, HEAPCHECK=""))[0], 3, "HEAPCHECK= is off")
    status, out, err = run([PROGRAM, "leak"],
                           env=environment(HEAP_CHECK_DUMP_DIRECTORY=HERE, HEAPCHECK="normal", HIMALLOC="style:lsan,exitcode:5"))
    ok(status == 5 and "LeakSanitizer" in err, "HIMALLOC has the last word")
    status, out, err = run(["true"], env=env)
    ok(status == 0 and "No leaks found" in err, "a program that allocates nothing")


def test_lsan():
    status, out, err = checked("leak", ",style:lsan")
    blocks, size = lost(out)
    ok(re.search(r"^==\d+==ERROR: LeakSanitizer: detected memory leaks$", err, re.M), "lsan: head")
    single = re.findall(r"^(Direct|Indirect) leak of (\d+) byte\(s\) in (\d+) object\(s\) allocated "
                        r"from:$", err, re.M)
    is_([s[0] for s in single], ["Direct", "Indirect"], "... direct before indirect")
    is_(sum(int(s[1]) for s in single), size, "... their bytes")
    ok(f"SUMMARY: LeakSanitizer: {size} byte(s) leaked in {blocks} allocation(s).\n" in err,
       "... summary")


def test_suppressions():
    path = os.path.join(HERE, "suppressions")
    with open(path, "w", encoding="utf-8") as file:
        file.write("# known\nleak:matches_nothing_at_all\n")
    status, out, err = checked("leak", ",suppressions:suppressions")
    is_(status, 23, "a pattern that matches nothing suppresses nothing")
    ok(re.search(r"^ +0 +0 matches_nothing_at_all$", err, re.M), "... and is counted so")
    status, out, report = as_json("leak", f",suppressions:{path}")
    is_(found(report), lost(out), "... in JSON as well")
    is_(report["suppressions"],
        [{"blocks": 0, "bytes": 0, "pattern": "matches_nothing_at_all"}], "... counted there too")
    with open(path, "a", encoding="utf-8") as file:
        file.write("race:other\n")
    status, out, err = checked("leak", f",suppressions:{path}")
    ok(status == 3 and f"{path}:3" in err and err.count("\n") == 1,
       "a bad file: one line with its place, status kept")


# ---- finding heapinspect; who may ----

def test_inspector():
    alone = folder()
    library = shutil.copy(HIMALLOC, alone)
    env = dict(environment("ptmalloc"), LD_PRELOAD=library, HIMALLOC="leakcheck:exit")
    env.pop("HIMALLOC_INSPECTOR", None)
    status, out, err = run([PROGRAM, "leak"], env=dict(env, PATH="/nonexistent"))
    ok(status == 3 and "heapinspect was not found" in err and err.count("\n") == 1,
       "no heapinspect: one line, status kept")
    is_(run([PROGRAM, "leak"], env=dict(env, PATH=f"/x:{BUILD}"))[0], 23, "found on the PATH")
    is_(run([PROGRAM, "leak"], env=dict(env, HIMALLOC_INSPECTOR=HEAPINSPECT))[0], 23, "... by name")
    status, out, err = run([PROGRAM, "leak"], env=dict(env, HIMALLOC_INSPECTOR="/nonexistent"))
    ok(status == 3 and "/nonexistent" in err, "... by a wrong name: a line")
    os.makedirs(alone + "/bin")
    os.makedirs(alone + "/lib")
    shutil.copy(HEAPINSPECT, alone + "/bin")
    library = shutil.copy(HIMALLOC, alone + "/lib")
    is_(run([PROGRAM, "leak"], env=dict(env, LD_PRELOAD=library, PATH=""))[0], 23,
        "... as it is installed")


def test_secure():
    """A program that gains privileges is not checked, also when himalloc is linked into it."""
    program = HERE + "/linked"
    source = os.path.join(os.path.dirname(__file__), "..", "programs", "exit_check.c")
    subprocess.run([os.environ.get("CC", "gcc"), "-O1", "-static", "-o", program, source,
                    str(BUILD / "libhimalloc.a"), "-pthread"], check=True)
    env = dict(environment("ptmalloc"), HIMALLOC="leakcheck:exit", HIMALLOC_INSPECTOR=HEAPINSPECT)
    status, out, err = run([program, "leak"], env=env)
    ok(status == 23 and "direct" in err, "a static program, linked with himalloc")
    if os.geteuid() != 0:
        skip("set-user-id", "not root")
        return
    os.chmod(HERE, 0o755)
    os.chown(program, 65534, 65534)
    os.chmod(program, 0o4755)
    is_(run([program, "leak"], env=env)[0::2], (3, ""), "set-user-id: no check")


# ---- heapinspect run ----

def run_program(*words, **more):
    return run([HEAPINSPECT, "run", *words], env=environment("ptmalloc"), cwd=HERE, **more)


def test_run():
    status, out, err = run_program("--", PROGRAM, "clean")
    ok(status == 3 and out == "clean\n" and "No leaks" in err, "run: status, output, the good news")
    is_(run_program(PROGRAM, "leak")[0], 23, "run: a leak, without --")
    is_(run_program("--exitcode=9", "--", PROGRAM, "leak")[0], 9, "run --exitcode")
    status, out, err = run_program("--json", "-o", "run.json", "--", PROGRAM, "leak")
    with open(HERE + "/run.json", encoding="utf-8") as file:
        is_(found(json.load(file)), lost(out), "run --json -o FILE")
    run_program("--json", "-o", "run.json", "--", PROGRAM, "leak")
    with open(HERE + "/run.json", encoding="utf-8") as file:
        is_(found(json.load(file)), lost(out), "... again, into the same file")
    ok("LeakSanitizer" in run_program("--style=lsan", "--", PROGRAM, "leak")[2], "run --style")
    status, out, err = run_program("--", "bash", "-c", f"'{PROGRAM}' clean; exit 4")
    is_((status, err.count("No leaks")), (4, 1), "run: only the program itself says that all is well")
    is_(run_program("--", "sh", "-c", "kill -9 $$")[0], 128 + 9, "run: death by a signal")
    status, out, err = run_program("--", "./nothing")
    ok(status == 2 and "./nothing" in err and err.count("\n") == 1, "run: no such program")
    status, out, err = run_program("--", HERE + "/linked", "clean")
    ok(status == 2 and "statically linked" in err, "run: a static program is refused")
    is_(run_program("--himalloc=/nonexistent", "--", "true")[0], 2, "run: no such library")
    process = start([HEAPINSPECT, "run", "--json", "--", PROGRAM, "server"],
                    env=environment("ptmalloc"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    text=True)
    out = ""
    for line in process.stdout:
        out += line
        if line.startswith("line 49 "):
            break
    process.terminate()
    report = process.communicate(timeout=60)[1]
    is_((process.returncode, found(json.loads(report))), (128 + signal.SIGTERM, lost(out)),
        "run: SIGTERM is passed on, the report comes")


# ---- real programs ----

def test_real():
    programs = [
        ["sqlite3", ":memory:", "create table t(a); insert into t values (1),(2); select * from t"],
        ["/usr/bin/python3", "-c", "import json; print(len(json.dumps(list(range(9999)))))"],
        ["perl", "-e", "my %h = map { $_ => [1, $_] } 1..9999; print scalar(keys %h), qq(\\n)"],
        ["sort", "/proc/self/status", "-o", "/dev/null"],
        ["bash", "-c", "for i in 1 2 3; do echo $i | cat; done"],
    ]
    for command in programs:
        name = os.path.basename(command[0])
        if not shutil.which(command[0]):
            skip(name, "not here")
            continue
        report = f"{HERE}/real.{name}.%p"
        status, out, err = run(command, env=environment(
            HIMALLOC=f"leakcheck:exit,style:json,report:{report}"), cwd=HERE)
        before = plain(*command)
        is_((out, err), before[1:], f"{name}: its output")
        reports = [json.load(open(r, encoding="utf-8")) for r in glob.glob(f"{HERE}/real.{name}.*")]
        ok(reports and all(r["complete"] for r in reports), f"{name}: {len(reports)} whole reports")
        ok(status in (before[0], 23), f"{name}: status {status}")


def test_redis():
    if not shutil.which("redis-server"):
        skip("redis-server", "not here")
        return
    socket, report = HERE + "/redis.sock", HERE + "/redis.json"
    server = start(["redis-server", "--port", "0", "--unixsocket", socket, "--save", "",
                    "--dir", HERE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env=environment(HIMALLOC=f"leakcheck:exit,style:json,report:{report}"))
    if not ok(wait_until(lambda: os.path.exists(socket)), "redis-server starts"):
        return
    run(["redis-cli", "-s", socket, "eval",
         "for i = 1, 20000 do redis.call('set', 'key' .. i, 'value' .. i) end", "0"])
    server.terminate()
    status = server.wait(timeout=60)
    answer = json.load(open(report, encoding="utf-8"))
    ok(answer["complete"] and answer["totals"]["live"]["blocks"] > 40000,
       "... SIGTERM ends it by exit(), with a whole report")
    is_(status, 23 if answer["totals"]["direct"]["blocks"] else 0, "... and the status goes with it")


test_status()
test_output()
test_report_file()
test_ways()
test_descriptors()
test_fork()
test_sigterm()
test_stale_words()
test_heapcheck()
test_lsan()
test_suppressions()
test_inspector()
test_secure()
test_run()
test_real()
test_redis()
done()
