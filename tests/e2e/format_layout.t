#!/usr/bin/env python3
"""The reader decodes by the schema in the target, not by offsets of its own.

The allocator is built with its structures shuffled and padded, and as a newer minor version with
structures and fields that nobody knows; the unchanged heapinspect must read both exactly. The
counter-test writes another schema over that of a running process, and must be believed.
"""
import random
import re
import struct

import heaptest
from allocator_copy import AllocatorCopy
from format_check import compare_program, overwrite, preamble_of
from heaptest import diag, end, inspect_json, is_, ok, start_truth

LIST = re.compile(r"(#define HM_(\w+)_FIELDS\(F, A, S\)[ \t]*\\\n)(.*?)([ \t]*/\* end \*/)", re.S)
VARIANT = ("CFLAGS=-O2 -g -DHM_LAYOUT_VARIANT",)


def header_of(copy):
    return copy.root / "allocator/himalloc_format.h"


def rewrite_lists(copy, rewrite):
    """Each field list through rewrite(name, lines); how many lists there were."""
    text, lists = header_of(copy).read_text(), []

    def one(match):
        lines = [line for line in match.group(3).splitlines() if re.search(r"\b[FA]\(S,", line)]
        lists.append(match.group(2))
        return match.group(1) + "\n".join(rewrite(match.group(2), lines)) + "\n" + match.group(4)

    header_of(copy).write_text(LIST.sub(one, text))
    return lists


def shuffled(seed):
    dice = random.Random(seed)

    def rewrite(name, lines):
        lines = lines[:]
        dice.shuffle(lines)
        padded = []
        for i, line in enumerate(lines):
            if dice.random() < 0.4:
                kind = dice.choice(("uint64_t", "uint32_t", "uint16_t", "uint8_t"))
                padded.append(f"    F(S, UINT, {kind}, padding_{i}) \\")
            if dice.random() < 0.2:
                padded.append(f"    A(S, UINT, uint64_t, paddings_{i}, {dice.randint(1, 5)}) \\")
            padded.append(line)
        return padded

    return rewrite


def build(copy, what):
    try:
        return copy.build("libhimalloc.so", flags=VARIANT)[0]
    except RuntimeError as error:
        ok(False, f"{what}: builds")
        diag(error)
        return None


def layouts_shuffled():
    for seed in (1, 2):
        copy = AllocatorCopy(with_objects=False)
        lists = rewrite_lists(copy, shuffled(seed))
        ok(len(lists) >= 10, f"shuffled {seed}: {len(lists)} structures are changed")
        library = build(copy, f"shuffled {seed}")
        if library:
            for program in ("truth_direct", "truth_threads", "truth_large"):
                compare_program(library, f"shuffled {seed}", program)


def newer_minor():
    copy = AllocatorCopy(with_objects=False)
    text = header_of(copy).read_text()
    text, bumped = re.subn(r"(HM_MINOR\s*=\s*)0", r"\g<1>7", text)
    text, added = re.subn(r"#define HM_STRUCTURES\(S\)\s*\\\n",
                          "#define HM_PROFILE_FIELDS(F, A, S) \\\n"
                          "    A(S, ADDRESS, uint64_t, stacks, 9) \\\n"
                          "    A(S, TEXT, char, colour, 24) \\\n    /* end */\n"
                          "#define HM_STRUCTURES(S) \\\n    S(profile, HM_PROFILE_FIELDS) \\\n", text)
    header_of(copy).write_text(text)
    is_((bumped, added), (1, 1), "newer minor version: the header is changed")
    rewrite_lists(copy, lambda name, lines: lines + [
        "    F(S, ADDRESS, uint64_t, stack_ids) \\"] + (
        ["    F(S, RECORD, struct hm_profile, profile) \\"] if name == "ROOT" else []))
    library = build(copy, "newer minor version")
    if library:
        for program in ("truth_direct", "truth_realloc"):
            compare_program(library, "newer minor version", program)


def schema_records(pid):
    """(structure, field) -> address of its record in the process."""
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(preamble_of(pid))
        preamble = memory.read(72)
        address, size, count = struct.unpack_from("<QII", preamble, 48)
        memory.seek(address)
        table = memory.read(size * count)
    names = {}
    for i in range(count):
        structure, field = struct.unpack_from("<16s24s", table, i * size)
        names[structure.rstrip(b"\0").decode(), field.rstrip(b"\0").decode()] = address + i * size
    return names


def schema_decides():
    """The same heap with another schema written over its own: a field that is needed and missing is
    named; a field that is said to lie elsewhere is read there, so the answer is no longer right."""
    process, truth = start_truth("truth_direct", (), "himalloc", heaptest.folder())
    if not ok(truth, "schema written over: program runs"):
        return end(process)
    target, records = ["-p", str(truth.pid)], schema_records(truth.pid)
    status, lines, err = heaptest.chunks(*target)
    exact = {int(line["address"], 16): line["usable"] for line in lines if line["state"] == "live"}
    overwrite(truth.pid, records["unit", "bitmap"] + 16, b"Bitmap")
    status, answer, err = inspect_json("leaks", *target)
    if not ok(status == 2 and "unit.bitmap" in err, "a field that is needed and missing is named"):
        diag(f"{status} {err}")
    overwrite(truth.pid, records["unit", "bitmap"] + 16, b"bitmap")
    overwrite(truth.pid, records["class", "block_bytes"] + 16, b"block_count\0")
    overwrite(truth.pid, records["class", "block_count"] + 16, b"block_bytes\0")
    status, lines, err = heaptest.chunks(*target)
    live = {int(line["address"], 16): line["usable"] for line in lines or ()
            if line["state"] == "live"}
    ok(exact and live != exact, "a field that is said to lie elsewhere is read there")
    overwrite(truth.pid, records["class", "block_bytes"] + 16, b"block_bytes\0")
    overwrite(truth.pid, records["class", "block_count"] + 16, b"block_count\0")
    status, lines, err = heaptest.chunks(*target)
    is_({int(line["address"], 16): line["usable"] for line in lines or ()
         if line["state"] == "live"}, exact, "and with the right schema all is as before")
    end(process)


heaptest.need_tools()
layouts_shuffled()
newer_minor()
schema_decides()
heaptest.done()
