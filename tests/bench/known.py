"""The programs that allocators are usually compared with, as the collection mimalloc-bench has them.

Nothing of it is here: rows of these programs appear for whoever has a checkout with its programs
built (out/bench). They run with the collection's own arguments, shorter where time is an argument;
2 and 4 are threads. Those that run for a given time print what they did in it: then the time of a
fixed amount of that is taken.
"""
import os
import re

import commands

CFRAC = "17545186520507317056371138836327483792789528"
RPTEST = "0 1 2 500 1000 100 8 16000"
# name: (command, by the clock, amount and how its rate is printed; or seconds, amount 0)
PROGRAMS = {
    "cfrac": (f"cfrac {CFRAC}", False, None),
    "espresso": ("espresso {inputs}/espresso/largest.espresso", False, None),
    "barnes": ("barnes", False, None),
    "alloc-test 1": ("alloc-test 1", False, None),
    "alloc-test 2": ("alloc-test 2", True, None),
    "glibc-simple": ("glibc-simple", False, None),
    "glibc-thread 2": ("glibc-thread 2", True, (1e8, r"^(\d+) iterations")),
    "glibc-thread 4": ("glibc-thread 4", True, (1e8, r"^(\d+) iterations")),
    "larson 4": ("larson 2 8 1000 5000 100 4141 4", True, (1e8, r"Throughput = +(\d+)")),
    "xmalloc-test 2": ("xmalloc-test -w 2 -t 2 -s 64", True, (0, r"rtime: ([0-9.]+)")),
    "mstress 2": ("mstress 2 50 25", True, None),
    "mstress 4": ("mstress 4 50 25", True, None),
    "rptest 2": (f"rptest 2 {RPTEST}", True, (1e6, r"\.\.\.(\d+) memory ops")),
    "rptest 4": (f"rptest 4 {RPTEST}", True, (1e6, r"\.\.\.(\d+) memory ops")),
    "cache-scratch 2": ("cache-scratch 2 1000 1 2000000 2", True, None),
    "cache-thrash 2": ("cache-thrash 2 1000 1 2000000 2", True, None),
    "mleak 50": ("mleak 50", True, None),
    "malloc-large": ("malloc-large", False, None),
}


def _measured(library, command, rate, where, options):
    printed = os.path.join(where, "printed")
    answer = commands.measure(library, command, options=[*options, "-o", printed],
                              where=where)
    if not answer or not rate:
        return answer
    with open(printed, encoding="utf-8", errors="replace") as file:
        found = re.search(rate[1], file.read(), re.MULTILINE)
    if not found:
        return None
    seconds = rate[0] / float(found[1]) if rate[0] else float(found[1])
    return seconds, seconds, answer[2]


def rows(checkout, where):
    """Name -> (function of a library that answers as commands.measure() does, by the clock)"""
    inputs, every = os.path.join(checkout, "bench"), {}
    for name, (words, by_clock, rate) in PROGRAMS.items():
        command = words.format(inputs=inputs).split()
        command[0] = os.path.join(checkout, "out", "bench", command[0])
        options = ["-i", os.path.join(inputs, "barnes", "input")] if name == "barnes" else []
        if os.path.exists(command[0]):
            every[name] = (lambda lib, c=command, r=rate, o=options: _measured(lib, c, r, where, o),
                           by_clock)
    if not every:
        raise SystemExit(f"{checkout}/out/bench has none of the programs")
    return every
