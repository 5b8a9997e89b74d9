#!/usr/bin/env python3
"""What a person sees: it fits the terminal, colour only where it is wanted, nothing of the target's
strings reaches the terminal raw, SIGINT ends with an answer, pictures are true."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import heaptest as t

t.need_tools()
process, truth = t.start_truth("truth_chain")
if not truth:
    t.ok(False, "the program stands still")
    t.done()
pid = process.pid


def text(*arguments, **env):
    more = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    status, out, err = t.inspect("-p", pid, *arguments, env=more | env)
    if status == 2:
        t.diag(err)
    return out


# ---- colour ----
ESCAPE = "\x1b["
t.ok(ESCAPE not in text("summary"), "no colour into a pipe")
coloured = text("map", "--color=always")
plain = text("map", "--color=never")
t.ok(ESCAPE in coloured and ESCAPE not in plain, "--color=always and never")
without = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
t.is_(without.splitlines()[1:], plain.splitlines()[1:], "colour takes nothing away")
if shutil.which("script"):
    def on_terminal(**env):
        command = f"{t.HEAPINSPECT} -p {pid} summary"
        return t.run(["script", "-qec", command, "/dev/null"],
                     env=os.environ | {"TERM": "xterm-256color"} | env)[1]
    t.ok(ESCAPE in on_terminal(NO_COLOR=""), "colour on a terminal")
    t.ok(ESCAPE not in on_terminal(NO_COLOR="1"), "NO_COLOR is honoured")
    t.ok(ESCAPE not in on_terminal(TERM="dumb", NO_COLOR=""), "no colour on a dumb terminal")
else:
    t.skip("terminals", "no script(1) here")

# ---- the map ----
for columns, lines in ((80, 24), (40, 10), (200, 60)):
    picture = text("map", COLUMNS=str(columns), LINES=str(lines)).splitlines()
    rows = [line for line in picture if line.startswith("0x")]
    t.ok(rows and max(map(len, rows)) <= columns and len(picture) <= lines,
         f"map fits {columns} x {lines}")
t.ok(len([line for line in text("map", "--limit=5").splitlines()
          if line.startswith("0x")]) <= 5, "map: --limit sets the rows")
held = sorted(truth.of("held"))[0]
_, chunk_list, _ = t.chunks("-p", pid)
status, zoom, err = t.inspect_json("-p", pid, "map", hex(held))
cells = zoom["map"]["cells"]
states = {int(c["address"], 16): c["state"] for c in chunk_list}
known = [c for c in cells if int(c["address"], 16) in states]
t.ok(known and held in {int(c["address"], 16) for c in known},
     "map around a block shows it by itself")
looks = {"live": "#", "free": ".", "cached": "c"}
t.ok(all(c["look"] == looks.get(states[int(c["address"], 16)], c["look"]) for c in known),
     "... each block in its state")

# ---- limits ----
rows = text("chunks", "--limit=7").splitlines()
t.ok(len(rows) == 9 and "more" in rows[-1], "chunks: seven rows, and how many more there are")
count = int(re.search(r"([\d,]+) more", rows[-1]).group(1).replace(",", ""))
t.is_(count + 7, len(chunk_list), "... exactly")
t.is_(len(text("chunks").splitlines()), len(chunk_list) + 1, "all of them by default")
t.ok(len(text("summary").splitlines()) <= 45, "summary is about a screen")

# ---- names of the target are not to be trusted ----
where = t.folder()
evil = os.path.join(where, "e\x1b]0;owned\x07vil\nname")
shutil.copy("/bin/sleep", evil)
odd = t.start([evil, "600"], env=t.environment())
t.wait_until(lambda: b"himalloc" in pathlib.Path(f"/proc/{odd.pid}/maps").read_bytes() and
             pathlib.Path(f"/proc/{odd.pid}/syscall").read_text().startswith("230 "))
status, out, err = t.inspect("-p", odd.pid)
t.ok(status == 0 and "\x1b" not in out + err and "\x07" not in out + err and
     "\\x1b]0;owned" in out, "control characters in a file's name are shown, not sent")
status, answer, err = t.inspect_json("-p", odd.pid)
t.ok(answer and "\x1b]0;owned" in answer["target"]["executable"], "... and kept in JSON")
t.end(odd)

# ---- interrupts: at a known place, since it waits there for registers on standard input ----
def stopped_inspector(*arguments):
    child = t.start([t.HEAPINSPECT, "-p", pid, *arguments, "--registers-from=-"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    text=True)
    state = pathlib.Path(f"/proc/{pid}/stat")
    stopped = t.wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "t")
    t.ok(stopped, "the target is stopped while it is read")
    return child


sp = pathlib.Path(f"/proc/{pid}/syscall").read_text().split()[-2]
registers = f"Thread 1 (LWP {pid}):\nrsp {sp}\nrip 0x0\n"
inspector = stopped_inspector("leaks")
out, err = inspector.communicate(registers, timeout=60)
t.ok(inspector.returncode == 1, "registers on standard input, as a debugger gives them")
for number in (signal.SIGINT, signal.SIGTERM):
    inspector = stopped_inspector("leaks")
    inspector.send_signal(number)
    out, err = inspector.communicate(registers, timeout=60)
    t.ok(inspector.returncode == 2 and "interrupted" in (out.splitlines() or [""])[0] + err,
         f"{number.name}: status 2, and it says so first")
    t.ok(t.wait_until(lambda: t.stands_still(pid)), "... the target runs on")
inspector = stopped_inspector("leaks")
inspector.send_signal(signal.SIGINT)
while inspector.poll() is None:
    inspector.send_signal(signal.SIGINT)
    time.sleep(0.01)
t.is_(inspector.returncode, 128 + signal.SIGINT, "a second one ends at once")
t.ok(t.wait_until(lambda: t.stands_still(pid)), "... and the target runs on")
inspector = stopped_inspector("summary")
inspector.kill()
inspector.communicate()
t.ok(t.wait_until(lambda: t.stands_still(pid)), "killed while it reads: the target runs on")

# ---- progress ----
status, out, err = t.inspect("-p", pid, "leaks", "--progress=always")
t.ok(status == 1 and all("heapinspect: " in line for line in err.splitlines()),
     "progress is on standard error only")
t.done()
