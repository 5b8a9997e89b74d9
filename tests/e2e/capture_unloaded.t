#!/usr/bin/env python3
"""Blocks that were allocated through a library which is gone, and whose place another one took."""
import os
import re
import subprocess

BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
LIBRARIES = ["plugin_one.so", "plugin_two.so", "plugin_one.so"]


def main():
    process = subprocess.Popen(
        [f"{BUILD}/programs/plugin_host", *(f"{BUILD}/programs/{name}" for name in LIBRARIES)],
        env=dict(os.environ, LD_PRELOAD=f"{BUILD}/libhimalloc.so", HIMALLOC="stacks:full"),
        stdout=subprocess.PIPE, text=True)
    try:
        places, line = [], ""
        while not line.startswith("ready"):
            line = process.stdout.readline()
            if not line:
                break
            if line.startswith("place"):
                places.append(line.split()[1])
        run = subprocess.run([f"{BUILD}/heapinspect", "-p", str(process.pid), "top", "--by=stack",
                              "--limit=0"], capture_output=True, text=True)
    finally:
        process.kill()
        process.wait()
    print("1..4")
    print(f"{'ok' if line == 'ready 0' + chr(10) else 'not ok'} 1 - libraries were opened and closed")
    same = "" if len(set(places)) == 1 else " (not at the same address here)"
    # one block a stack: the two calls of each library return to different places
    groups = re.split(r"\n(?=    +\d)", run.stdout)
    for number, name in enumerate(LIBRARIES, 1):
        wanted = [g for g in groups if re.search(r"#1 plugin_call\b.*\(" + re.escape(name), g)
                  and re.match(rf" +{[0, '2.0 KiB', '3.9 KiB', '5.9 KiB'][number]} in +2 blocks"
                               rf"|^ +{[0, '1000', '2.0', '2.9'][number]} (B|KiB) in +1 blocks", g)]
        print(f"{'ok' if wanted else 'not ok'} {number + 1} - what came through {name}, now gone, "
              f"is told by its name{same}")
        if not wanted:
            print("# " + run.stdout[-6000:].replace("\n", "\n# "))


main()
