#!/usr/bin/env python3
"""gperftools samples allocations and keeps their stacks: leaks are shown with them, and with the size
that was asked for."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import heaptest as t

SAMPLE_BYTES = "64"


def main():
    t.need_tools()
    library = t.library("libtcmalloc.so.4")  # the minimal one does not sample
    if not library:
        t.skip_all("no full gperftools here")
    os.environ["TCMALLOC_SAMPLE_PARAMETER"] = SAMPLE_BYTES
    process = t.start([t.PROGRAMS / "truth_threads"], stdout=t.subprocess.DEVNULL,
                      env=dict(t.environment("ptmalloc"), LD_PRELOAD=library))
    seen = []

    def answered():
        status, answer, _ = t.inspect_json("leaks", "-p", process.pid)
        seen[:] = answer["leaks"] if answer else []
        return len(seen) > 50
    t.ok(t.wait_until(answered), "leaks are found while it runs")
    with_stack = [leak for leak in seen if leak.get("stack")]
    t.ok(len(with_stack) > len(seen) / 2, f"{len(with_stack)} of {len(seen)} have a stack")
    names = [{frame["function"] for frame in leak["stack"]} for leak in with_stack]
    wrong = [name for name in names if "one_round" not in name]
    t.is_(wrong, [], "each leads to the function that allocates")
    odd = [leak for leak in with_stack if leak["size"]["min"] % 8]
    t.ok(odd, "sizes are those that were asked for")
    t.end(process)
    t.done()


main()
