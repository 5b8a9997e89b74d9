#!/usr/bin/env python3
"""The heap is walkable at every instruction: the short run of the stepper, and its teeth.

Sound: some hundred thousand boundaries, one thread and several, with small address space too; no
wrong answer, and everything that matters was stepped through. Teeth: the allocator with one pair of
stores exchanged or one left out, a mutant a rule of himalloc_format.h section 5, must be caught.
"""
import re
import subprocess

import heaptest
from allocator_copy import AllocatorCopy

STEPPER = heaptest.BUILD / "step/step"
VICTIM = heaptest.BUILD / "step/victim"


def step(options, victim, arguments, stacks="off"):
    """(numbers of the last line, functions stepped through, output)"""
    done = subprocess.run([STEPPER, "--whole", "call_stack_capture", *options, victim,
                           *map(str, arguments)], capture_output=True, text=True, timeout=300,
                          env={"HIMALLOC": f"background:off,stacks:{stacks}"})
    numbers = {}
    for line in done.stdout.splitlines():
        if line.startswith("boundaries "):
            words = line.split()
            numbers = dict(zip(words[::2], words[1::2]))
    functions = set(re.findall(r"^in ([^ .]+)", done.stdout, re.M))
    return numbers, functions, done.stdout + done.stderr


WRONG = ("live_called_free", "free_called_live", "too_small", "strange", "wrong_notes")


def check_sound(what, options, arguments, least, stacks="off"):
    numbers, functions, output = step(["--coverage", *options], VICTIM, arguments, stacks)
    wrong = {k: numbers.get(k) for k in WRONG}
    if not heaptest.ok(all(v == "0" for v in wrong.values()) and numbers["ended"] == "well" and
                       int(numbers["boundaries"]) >= least, f"{what}: every answer is right"):
        heaptest.diag(output[-3000:])
    heaptest.diag(" ".join(f"{k} {numbers.get(k)}" for k in ("boundaries", "calls", "reallocs",
                                                             "moved", "switches", "notes")))
    if stacks != "off":
        heaptest.ok(int(numbers["notes"]) > 10000, f"{what}: notes were seen")
    return functions


MUTANTS = {
    "a fill from slabs without pend": (
        "slab.c", "            *pend = low;\n", ""),
    "a fill from the stash without pend": (
        "thread_cache.c", "    *pend = low - n;\n", "    (void)pend;\n"),
    "a free that stores head before the block": (
        "fast_path.h", "    slot[-1] = (uintptr_t)p;\n    STORE_ORDER();\n"
        "    window_set_word(&bin->window, word - 1);\n",
        "    window_set_word(&bin->window, word - 1);\n    STORE_ORDER();\n"
        "    slot[-1] = (uintptr_t)p;\n"),
    "a flush that stores head before the shift": (
        "thread_cache.c", "    STORE_ORDER();\n    for (volatile uint64_t *from = to - n;",
        "    bin->window.head = head + n;\n    STORE_ORDER();\n"
        "    for (volatile uint64_t *from = to - n;"),
    "a flush that leaves the cache before it is in the stash": (
        "thread_cache.c", "    central->stash_count += n;\n    STORE_ORDER();\n"
        "    bin_drop_oldest(t, bin, n);\n", "    bin_drop_oldest(t, bin, n);\n    STORE_ORDER();\n"
        "    central->stash_count += n;\n"),
    "a slab whose code comes before its bitmap": (
        "slab.c", "    uint64_t bitmap = range_bitmap(r, span->unit, class->block_count);\n",
        "    uint64_t bitmap = range_bitmap(r, span->unit, class->block_count);\n"
        "    range_codes(r)[span->unit] = (uint8_t)(CODE_SLAB + class_index - 1);\n"
        "    STORE_ORDER();\n"),
    "a large block whose code comes before its record": (
        "large.c", "    head->head = span->unit;\n",
        "    range_codes(span->range)[span->unit] = CODE_LARGE_HEAD;\n"
        "    STORE_ORDER();\n    head->head = span->unit;\n"),
    "a note that comes after its block": (
        "malloc_entry.c", "    note_set(note_near(p - hm_hot.base, class_index), &note);\n"
        "    STORE_ORDER();\n    window_set_word(&bin->window, word + 1);\n",
        "    window_set_word(&bin->window, word + 1);\n    STORE_ORDER();\n"
        "    note_set(note_near(p - hm_hot.base, class_index), &note);\n"),
    "a sample's note that comes after its bit": (
        "slab.c", "    take_note(central->partial_first, slab, index, note);\n    STORE_ORDER();\n"
        "    bitmap[w] &= bitmap[w] - 1;\n", "    bitmap[w] &= bitmap[w] - 1;\n    STORE_ORDER();\n"
        "    take_note(central->partial_first, slab, index, note);\n"),
}
STACKS = {"a note that comes after its block": "full",
          "a sample's note that comes after its bit": "sampled,sample:20000"}


def check_mutant(name, file, old, new):
    copy = AllocatorCopy()
    try:
        copy.change(file, old, new)
        victim, = copy.build("step/victim")
    except (LookupError, RuntimeError) as error:
        heaptest.ok(False, f"mutant: {name}")
        heaptest.diag(error)
        return
    for seed, threads, mode in ((1, 1, "waves"), (2, 2, "any"), (3, 1, "any"), (4, 3, "waves"),
                                (5, 2, "any"), (6, 1, "waves"), (7, 3, "any")):
        numbers, _, output = step(["--stop-at-first", "--boundaries", "50000"], victim,
                                  [seed, 5, threads, 60, mode], STACKS.get(name, "off"))
        wrong = [int(numbers.get(k, 0)) for k in WRONG]
        if any(wrong):
            heaptest.ok(True, f"mutant is caught: {name}")
            heaptest.diag(f"at boundary {numbers['boundaries']} of {mode}, {threads} threads")
            heaptest.diag("\n".join(re.findall(r"# (first .*)", output)))
            return
    heaptest.ok(False, f"mutant is caught: {name}")
    heaptest.diag(output[-1000:])


heaptest.need_tools()
if not STEPPER.exists() or not VICTIM.exists():
    heaptest.skip_all("the stepper is not built")
seen = check_sound("one thread", ["--boundaries", "40000"], [1, 6, 1, 60], 40000)
seen |= check_sound("three threads in turns", ["--boundaries", "70000"], [2, 12, 3, 30], 70000)
seen |= check_sound("threads that start and end", ["--boundaries", "70000"], [3, 8, 3, 4], 40000)
seen |= check_sound("little address space", ["--boundaries", "40000", "--address-space", "400000000"],
                    [6, 6, 2, 60, "big"], 40000)
seen |= check_sound("waves", ["--boundaries", "30000"], [7, 3, 2, 20, "waves"], 30000)
seen |= check_sound("named arenas", ["--boundaries", "30000"], [5, 3, 2, 60, "named"], 30000)
seen |= check_sound("all stacks, three threads", ["--boundaries", "30000"], [8, 8, 3, 40], 30000, "full")
seen |= check_sound("all stacks, waves", ["--boundaries", "20000"], [9, 3, 2, 20, "waves"], 20000, "full")
seen |= check_sound("samples", ["--boundaries", "45000"], [5, 3, 2, 60, "named"], 45000,
                    "sampled,sample:20000")
seen |= check_sound("stacks switched on and off", ["--boundaries", "40000"],
                    [6, 6, 1, 60, "switching"], 40000, "full")
for needed in ("thread_cache_malloc", "thread_cache_free", "slab_fill", "slab_give", "bin_grow",
               "bin_flush", "slab_make", "slab_release_spare", "large_malloc", "large_free",
               "large_resize", "realloc_copy", "pocket_malloc", "pocket_free", "span_take", "span_give",
               "thread_cache_start", "thread_cache_flush", "lock_wait", "arena_start", "calloc", "memalign",
               "himalloc_arena_malloc", "central_malloc", "central_free", "big_find", "pages_resize",
               "sweep_all"):
    heaptest.ok(needed in seen, f"stepped through {needed}")
for mutant, change in MUTANTS.items():
    check_mutant(mutant, *change)
heaptest.done()
