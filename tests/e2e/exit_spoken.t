#!/usr/bin/env python3
"""What a program says of its memory counts in the check at exit, and it can ask for the check; the
allocator's own tests hold with all stacks kept, and with samples."""
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import (BUILD, PROGRAMS, done, environment, folder, is_,  # noqa: E402
                      need_tools, ok, diag, run)

need_tools()
HERE = folder()
PROGRAM = str(PROGRAMS / "spoken")


def spoken(how, settings=",style:json"):
    """(status, output, sizes of what is lost, standard error)"""
    status, out, err = run([PROGRAM, how], env=environment(HIMALLOC="leakcheck:exit" + settings),
                           cwd=HERE)
    try:
        report = json.loads(err)
    except ValueError:
        return status, out, None, err
    return status, out, sorted(leak["bytes"] for leak in report["leaks"]), err


for kind in ("plain", "ignore", "lsan", "disable", "root", "freed"):
    status, out, sizes, err = spoken(kind)
    is_((status, sizes), (23, [720]), f"{kind}: one leak, the one that nobody spoke for")
status, out, sizes, err = spoken("tag")
is_((status, sizes), (23, [710, 720]), "a tag hides nothing")
is_(spoken("off")[0], 4, "__lsan_is_turned_off: no check")
status, out, sizes, err = spoken("now", ",style:text")
is_((status, out), (23, "now 0 1\n"), "himalloc_check_now: nothing, then a leak; the check at exit follows")
is_(err.count("910 B direct"), 2, "... both reports")
env = environment(HIMALLOC="stacks:full")
status, out, err = run([PROGRAM, "now"], env=env, cwd=HERE)
is_((status, out), (4, "now 0 1\n"), "himalloc_check_now in a program without the check at exit")
ok("910 B direct" in err, "... has its report")
status, out, sizes, err = spoken("recoverable", ",style:text")
is_((status, out), (23, "found 1\n"), "__lsan_do_recoverable_leak_check")
is_(err.count("720 B direct"), 2, "... and the check at exit")
status, out, sizes, err = spoken("asked", ",style:text")
is_((status, err.count("720 B direct")), (23, 1), "__lsan_do_leak_check ends the program, once")
status, out, err = run([PROGRAM, "asked"], env=environment(HIMALLOC="stacks:full"), cwd=HERE)
is_((status, err), (4, ""), "... not where no check is asked for")

# gperftools' heap profiles
env = environment("himalloc", HEAPPROFILE=HERE + "/made")
status, out, err = run([PROGRAM, "plain"], env=env, cwd=HERE)
ok(status == 4 and f"Dumping heap profile to {HERE}/made.0001.heap" in err, "HEAPPROFILE: a file at exit")
with open(HERE + "/made.0001.heap", encoding="utf-8") as file:
    text = file.read()
ok(text.startswith("heap profile: ") and re.search(r"^ *1: +720 \[ *1: +720\] @ 0x", text, re.M) and
   "MAPPED_LIBRARIES:" in text, "... of all that is live, exactly")
status, out, err = run(["sh", "-c", f"'{PROGRAM}' plain; kill -USR2 $$; exit 3"],
                       env=dict(env, HEAPPROFILE=HERE + "/shell", HEAPPROFILESIGNAL="12"), cwd=HERE)
names = sorted(re.sub(r"_\d+", "_PID", name) for name in os.listdir(HERE) if name.startswith("shell"))
is_((status, [name for name in names if "0002" not in name]),  # some shells end by _exit
    (3, ["shell.0001.heap", "shell_PID.0001.heap"]),
    "... on a signal; those of children have names of their own")

for setting, names in (("stacks:full", ("api", "stress", "threads", "fork_signal", "remarks")),
                       ("stacks:sampled,sample:2000", ("api", "stress", "fork_signal", "remarks")),
                       ("stacks:full,check:full", ("api", "remarks"))):
    for name in names:
        test = subprocess.run([str(BUILD / f"unit/alloc_{name}.t")], capture_output=True, text=True,
                              env=dict(os.environ, HIMALLOC=setting), timeout=120)
        if not ok(test.returncode == 0, f"alloc_{name} with {setting}"):
            diag("\n".join(line for line in test.stdout.splitlines() if not line.startswith("ok")))
done()
