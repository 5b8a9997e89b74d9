#!/usr/bin/env python3
"""The truth programs on the C library's own malloc: live and from the kernel's core."""
import os
import pathlib

TRUTH = pathlib.Path(__file__).resolve().parent / "truth.t"
os.environ.setdefault("TRUTH_ALLOCATORS", "ptmalloc")
os.environ.setdefault("TRUTH_FORMS", "live,core")
os.execv(TRUTH, [str(TRUTH)])
