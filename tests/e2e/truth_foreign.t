#!/usr/bin/env python3
"""The truth programs on every other allocator that is here: live and from the kernel's core."""
import os
import pathlib

TRUTH = pathlib.Path(__file__).resolve().parent / "truth.t"
os.environ.setdefault("TRUTH_ALLOCATORS", "jemalloc,tcmalloc,mimalloc")
os.environ.setdefault("TRUTH_FORMS", "live,core")
os.execv(TRUTH, [str(TRUTH)])
