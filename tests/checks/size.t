#!/usr/bin/env python3
"""Functions fit on a screen, files stay under 800 lines or say in their first paragraph why not.

Measured on the text that clang-format leaves: a function starts at a line that begins with a
letter and is followed by a lone '{', and ends at a lone '}'.
"""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGEST_FUNCTION = 100
LONGEST_FILE = 800


def functions(lines):
    start = None
    for number, line in enumerate(lines):
        if line == "{":
            start = number
        elif line == "}" and start is not None:
            yield start + 1, number - start - 1
            start = None


def main():
    failures, lengths = [], []
    for path in sorted(p for d in ("inspector", "allocator") for p in (ROOT / d).rglob("*.[ch]")):
        text = path.read_text()
        lines = text.splitlines()
        name = path.relative_to(ROOT)
        for start, length in functions(lines):
            lengths.append(length)
            if length > LONGEST_FUNCTION:
                failures.append(f"{name}:{start}: a function of {length} lines")
        head = text.split("*/")[0]
        if len(lines) > LONGEST_FILE and not re.search(r"\blines\b", head):
            failures.append(f"{name}: {len(lines)} lines, and its head does not say why")
    print("1..1")
    print(("not " if failures else "") + "ok 1 - functions and files are of readable size")
    for failure in failures:
        print("#", failure)
    if lengths:
        lengths.sort()
        print(f"# {len(lengths)} functions, median {lengths[len(lengths) // 2]}, "
              f"nine of ten under {lengths[len(lengths) * 9 // 10] + 1}, longest {lengths[-1]}")


main()
