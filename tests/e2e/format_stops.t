#!/usr/bin/env python3
"""A program whose threads allocate, free and reallocate without pause is stopped wherever it happens
to be, again and again: no rule of the format is broken, and the accounts agree."""
import heaptest
from heaptest import diag, end, inspect, inspect_json, is_, ok, start

STOPS = 40
VICTIM = heaptest.BUILD / "step/victim"


def one_program(mode):
    process = start([VICTIM, 3, 1000000, 4, 3000, mode], env={})
    broken, disagreeing, counts = [], [], set()
    for _ in range(STOPS):
        status, out, err = inspect("verify", "-p", str(process.pid))
        if status != 0:
            broken.append((status, (out + err)[-600:]))
        status, answer, err = inspect_json("summary", "-p", str(process.pid))
        if answer:
            disagreeing += heaptest.disagreements(answer)
            counts.add(answer["totals"]["live"]["blocks"])
    if not is_(len(broken), 0, f"{mode}: {STOPS} stops, and no rule is broken"):
        diag(broken[0])
    is_(disagreeing[:3], [], f"{mode}: accounts agree")
    ok(len(counts) > 3, f"{mode}: it was stopped at different times")
    ok(process.poll() is None, f"{mode}: and runs on")
    end(process)


heaptest.need_tools()
if not VICTIM.exists():
    heaptest.skip_all("the victim is not built")
for mode in ("any", "named", "waves", "big"):
    one_program(mode)
heaptest.done()
