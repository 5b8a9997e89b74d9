#!/usr/bin/env python3
"""Every schema: valid JSON, each key that is promised, of the type that is promised, and the same
numbers as in text and in the other commands."""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import heaptest as t

t.need_tools()
process, truth = t.start_truth("truth_chain")
if not truth:
    t.ok(False, "the program stands still")
    t.done()
pid = process.pid
HEX = re.compile(r"^0x[0-9a-f]+$")
TOTAL = {"blocks": int, "bytes": int}
FRAME = {"address": HEX, "function": str, "file": str, "line": int, "module": str}
HEAP = {"allocator": str, "version": str, "found_by": str, "arenas": int, "bytes_are": str,
        "live": TOTAL, "free": TOTAL, "cached": TOTAL, "metadata_bytes": int, "system_bytes": int,
        "checks": [{"name": str, "reported": int, "walked": int, "agree": bool}]}
LEAK = {"blocks": int, "bytes": int, "kind": {"direct", "possible"}, "indirect": TOTAL,
        "size": {"min": int, "max": int}, "stack": [FRAME], "type": (str, None), "examples": [HEX]}
HEAD = {"schema": str,
        "target": {"kind": {"process", "core", "snapshot"}, "pid": int, "executable": str,
                   "file": (str, None), "threads": int},
        "complete": bool, "notes": [str], "heaps": [HEAP]}
TOTALS = {name: TOTAL for name in ("live", "reachable", "direct", "indirect", "possible")}
MARK = {"words": int, "outside_heap": int, "not_a_block": int, "repeated": int, "followed": int,
        "seconds": (float, int)}
STATES = {"live", "free", "cached", "in flight", "suspect"}
BLOCK = {"address": HEX, "size": int, "offset": int, "state": STATES, "arena": (int, None)}
SCHEMAS = {
    "summary": HEAD | {"totals": TOTALS, "leaks": [LEAK]},
    "leaks": HEAD | {"totals": TOTALS, "leaks": [LEAK], "mark": MARK},
    "arenas": HEAD | {"arenas": [{"id": int, "allocator": str, "address": HEX, "threads": [int],
                                  "system_bytes": int, "live": TOTAL, "free": TOTAL,
                                  "cached": TOTAL, "state": {"ok", "in flux", "damaged"}}]},
    "map": HEAD | {"map": {"cell_bytes": int, "cells": [{"address": HEX, "live": int,
                                                         "free": int, "cached": int}]}},
    "top": HEAD | {"by": str, "groups": [{"blocks": int, "bytes": int}]},
    "verify": HEAD | {"broken": int, "findings": [{"address": HEX, "rule": str, "detail": str}]},
}


def complaints(value, shape, where):
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where} is no object"]
        found = [f"{where} lacks {key}" for key in shape if key not in value]
        return found + [c for key in shape if key in value
                        for c in complaints(value[key], shape[key], f"{where}.{key}")]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [c for i, item in enumerate(value)
                for c in complaints(item, shape[0], f"{where}[{i}]")]
    if isinstance(shape, re.Pattern):
        return [] if isinstance(value, str) and shape.match(value) else [f"{where} is {value!r}"]
    if isinstance(shape, set):
        return [] if value in shape else [f"{where} is {value!r}"]
    kinds = shape if isinstance(shape, tuple) else (shape,)
    right = any(value is None if kind is None else
                isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
                for kind in kinds)
    return [] if right else [f"{where} is {value!r}"]


def conforms(answer, shape, what):
    found = complaints(answer, shape, "answer")
    if not t.ok(not found, what):
        t.diag("\n".join(found[:20]))


answers = {}
for command, shape in SCHEMAS.items():
    status, answer, err = t.inspect_json("-p", pid, command)
    answers[command] = answer
    if not t.ok(status in (0, 1) and answer is not None and err == "", f"{command}: one object"):
        t.diag(err)
        continue
    t.is_(answer["schema"], f"heapinspect.{command}.v1", f"{command}: its schema")
    conforms(answer, shape, f"{command}: every key that is promised")
    t.ok(answer["complete"] is True, f"{command}: complete")
if any(answer is None for answer in answers.values()):
    t.done()

leaks = answers["leaks"]
t.is_(leaks["target"]["pid"], pid, "the target's pid")
t.is_(leaks["target"]["kind"], "process", "... and kind")
t.is_(sum(leak["blocks"] for leak in leaks["leaks"] if leak["kind"] == "direct"),
      leaks["totals"]["direct"]["blocks"], "groups sum up to the direct total")
t.is_(sum(leak["indirect"]["blocks"] for leak in leaks["leaks"]),
      leaks["totals"]["indirect"]["blocks"], "... and to the indirect one")
t.is_(sum(leaks["totals"][kind]["blocks"] for kind in ("reachable", "direct", "indirect",
                                                       "possible")),
      leaks["totals"]["live"]["blocks"], "all kinds sum up to what is live")
t.is_(leaks["totals"]["live"]["blocks"], sum(h["live"]["blocks"] for h in leaks["heaps"]),
      "heaps and totals say the same")
sizes = [leak["bytes"] + leak["indirect"]["bytes"] for leak in leaks["leaks"]
         if leak["kind"] == "direct"]
t.ok(sizes == sorted(sizes, reverse=True), "largest first")
t.ok(len(answers["summary"]["leaks"]) <= 5, "summary has the first leaks only")
t.is_(answers["summary"]["totals"], leaks["totals"], "summary and leaks agree")
for kind in ("live", "free", "cached"):
    t.is_(sum(a[kind]["blocks"] for a in answers["arenas"]["arenas"]),
          sum(h[kind]["blocks"] for h in leaks["heaps"]), f"arenas sum up to the heaps: {kind}")

status, lines, err = t.chunks("-p", pid)
if t.ok(lines is not None and err == "", "chunks: one object a line"):
    CHUNK = {"address": HEX, "size": int, "usable": int, "state": STATES, "arena": (int, None),
             "thread": (int, None), "stack": (int, None)}
    conforms(lines, [CHUNK], "chunks: every key on every line")
    live = {int(c["address"], 16): c for c in lines if c["state"] in ("live", "in flight")}
    t.is_(len(live), leaks["totals"]["live"]["blocks"], "chunks: as many live ones as in totals")
    booked = truth.of("held", "direct", "indirect")
    t.ok(booked and all(a in live and live[a]["usable"] >= booked[a][1] for a in booked),
         "chunks: every block of the program, with room for what it asked for")
    addresses = [int(c["address"], 16) for c in lines]
    t.ok(addresses == sorted(addresses), "chunks: in address order")
    status, some, err = t.chunks("-p", pid, "--state=live", "--min-size=64", "--max-size=128")
    wanted = [c for c in lines if c["state"] == "live" and 64 <= c["size"] <= 128]
    t.is_(some, wanted, "chunks: filters")
    t.is_(t.chunks("-p", pid, "--limit=3")[1], lines[:3], "chunks: a limit")
    arena = lines[0]["arena"]
    t.is_(t.chunks("-p", pid, f"--arena={arena}")[1], [c for c in lines if c["arena"] == arena],
          "chunks: one arena")

direct = sorted(truth.of("direct"))[0]
held = sorted(truth.of("held"))[0]
status, answer, err = t.inspect_json("-p", pid, "whatis", hex(direct), f"{held + 3:x}", "0x10")
ANSWER = {"address": HEX, "where": {"block", "stack", "tls", "data", "mapping", "nothing"},
          "name": (str, None), "allocated_by": (None, list), "freed_by": (None, list),
          "referrers": int}
if t.ok(status == 0 and answer, "whatis: one object"):
    conforms(answer, {"answers": [ANSWER]}, "whatis: every key")
    lost, inner, nothing = answer["answers"]
    conforms([lost["block"], inner["block"]], [BLOCK], "whatis: blocks")
    t.ok(lost["where"] == "block" and int(lost["block"]["address"], 16) == direct and
         lost["referrers"] == 0, "whatis: a lost block, to which nothing points")
    t.ok(int(inner["block"]["address"], 16) == held and inner["block"]["offset"] == 3,
         "whatis: an address inside a block")
    t.ok(nothing["where"] == "nothing" and nothing["block"] is None, "whatis: nothing")

# ---- text says the same ----
number = re.compile(r"^  (\w+) +([\d,]+) blocks", re.M)
status, out, err = t.inspect("-p", pid, "leaks")
said = {}
for name, count in number.findall(out):
    said[name] = int(count.replace(",", ""))
t.is_({kind: said.get(kind) for kind in leaks["totals"]},
      {kind: total["blocks"] for kind, total in leaks["totals"].items()}, "text has the totals")
t.ok(all(hex(int(a, 16)) in out for leak in leaks["leaks"][:3] for a in leak["examples"]),
     "text has the examples")
t.done()
