#!/usr/bin/env python3
"""whatis, refs and path against a program that says where its words lie: live and in a core."""
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import heaptest as t

t.need_tools()
process = t.start([t.PROGRAMS / "places"], env=t.environment(), stdout=subprocess.PIPE, text=True)
said = {}
for line in process.stdout:
    word, value = line.split()
    said[word] = int(value, 0)
    if word == "ready":
        break
t.wait_until(lambda: any(
    pathlib.Path(f"/proc/{process.pid}/task/{task.name}/syscall").read_text().startswith("34 ")
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir()))
SOURCE = (t.ROOT / "tests/programs/places.c").read_text().splitlines()
PLACES = ("data", "tls", "stack", "mapping")


def check(target, how):
    status, answer, err = t.inspect_json(*target, "whatis", hex(said["block"] + 8),
                                         *(hex(said[place]) for place in PLACES))
    if not t.ok(status == 0 and answer and answer["complete"], f"{how}: whatis"):
        t.diag(err)
        return
    block, *places = answer["answers"]
    t.is_((int(block["block"]["address"], 16), block["block"]["offset"], block["block"]["state"]),
          (said["block"], 8, "live"), f"{how}: the block, and the offset in it")
    t.is_(block["block"]["mark"], "reachable", f"{how}: it is reachable")
    t.is_([place["where"] for place in places], list(PLACES), f"{how}: where each word lies")
    names = dict(zip(PLACES, (place["name"] for place in places)))
    t.ok("place_in_data" in (names["data"] or ""), f"{how}: data by its symbol")
    t.ok("stand_still" in (names["stack"] or ""), f"{how}: a stack word by its function")
    line = re.search(r"stand_still \(places\.c:(\d+)\)", names["stack"] or "")
    t.is_(SOURCE[int(line[1]) - 1].strip() if line else None, "pause();", f"{how}: ... and its line")
    t.ok("thread" in (names["tls"] or ""), f"{how}: thread-local storage by its thread")

    status, refs, err = t.inspect_json(*target, "refs", hex(said["block"]), "--limit=0")
    found = refs["references"] if refs else []
    where = {(r["where"], int(r["address"] or "0", 16)) for r in found}
    t.ok({("data", said["data"]), ("stack", said["stack"]), ("tls", said["tls"]),
          ("block", said["holder"])} <= where, f"{how}: refs has every word that holds it")
    t.ok(any(r["where"] == "mapping" for r in found), f"{how}: ... the mapping too")
    t.is_(refs and refs["count"], len(found), f"{how}: and counts them")
    t.is_(block["referrers"], len(found), f"{how}: as whatis does")
    status, to, err = t.inspect_json(*target, "refs", "--to", hex(said["holder"]))
    t.ok(to and said["block"] in [int(r["address"], 16) for r in to["references"]],
         f"{how}: refs --to")
    status, path, err = t.inspect_json(*target, "path", hex(said["block"]))
    t.ok(path and path["found"] and int(path["blocks"][-1]["address"], 16) == said["block"] and
         path["length"] == 1 and path["root"]["where"] in ("data", "stack", "tls", "register"),
         f"{how}: the path from a root")
    status, out, err = t.inspect(*target, "whatis", hex(said["data"]), "0")
    t.ok(status == 0 and "place_in_data" in out and ": nothing" in out, f"{how}: in text")


check(["-p", process.pid], "live")
core = t.gcore(process.pid, t.folder())
if core:
    check([core], "core")
else:
    t.skip("core", "no gcore here")
t.done()
