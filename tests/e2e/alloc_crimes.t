#!/usr/bin/env python3
"""Each crime against the heap: one line on standard error that names the address, then SIGABRT."""
import os
import signal
import subprocess

BUILD = os.path.abspath(os.environ.get("BUILD", "build"))
# crime: (modes that must stop it, what the line says after the address)
CRIMES = {
    "double_free": ("fast full", "himalloc: double free of {} (a block of 64 bytes, arena 0)"),
    "double_free_between": ("fast full", "himalloc: double free of {} (a block of 64 bytes, arena 0)"),
    "double_free_later": ("full", "himalloc: double free of {} (a block of 64 bytes, arena 0)"),
    "double_free_threads": ("full", "himalloc: double free of {} (a block of 512 bytes, arena 0)"),
    "double_free_large": ("fast full", "himalloc: free of {}, which is no block"),
    "free_interior": ("fast full", "himalloc: free of {}, 16 bytes into a block of 208 bytes, arena 0 at "),
    "free_unaligned": ("fast full", "himalloc: free of {}, 3 bytes into a block of 208 bytes, arena 0 at "),
    "free_interior_large": ("fast full", "himalloc: free of {}, 65536 bytes into a block of 303104 bytes"),
    "free_stack": ("fast full", "himalloc: free of {}, which is not from this heap"),
    "free_static": ("fast full", "himalloc: free of {}, which is not from this heap"),
    "free_wild": ("fast full", "himalloc: free of {}, which is not from this heap"),
    "realloc_freed": ("fast full", "himalloc: free of {}, which is no block"),
    "realloc_freed_small": ("full", "himalloc: free of {}, which is free already (a block of 112 bytes"),
    "realloc_interior": ("fast full", "himalloc: free of {}, 32 bytes into a block of 1024 bytes"),
    "free_named_twice": ("fast full", "himalloc: double free of {} (a block of 64 bytes, arena 1)"),
}
count = 0


def ok(passed, what, detail=""):
    global count
    count += 1
    print(f"{'ok' if passed else 'not ok'} {count} - {what}")
    if not passed and detail:
        print("#   " + detail.replace("\n", "\n#   "))


def commit(crime, mode):
    environment = dict(os.environ, LD_PRELOAD=BUILD + "/libhimalloc.so", HIMALLOC="check:" + mode)
    return subprocess.run([BUILD + "/programs/alloc_crimes", crime], env=environment, timeout=60,
                          capture_output=True, text=True)


for crime, (modes, line) in CRIMES.items():
    for mode in modes.split():
        run = commit(crime, mode)
        address = run.stdout.strip()
        lines = run.stderr.splitlines()
        ok(run.returncode == -signal.SIGABRT and len(lines) == 1 and address
           and lines[0].startswith(line.format(address)),
           f"{crime} under check:{mode}", f"status {run.returncode}, said: {run.stderr!r}")
    run = commit(crime, "off")
    ok("himalloc" not in run.stderr, f"{crime} under check:off is not mentioned", run.stderr)
print(f"1..{count}")
