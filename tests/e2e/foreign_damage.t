#!/usr/bin/env python3
"""Cores of every allocator with words changed at random: an answer or a message, in bounded time,
never a crash. DAMAGE_SEED repeats a run, DAMAGE_ROUNDS (default 40) says how many an allocator."""
import os
import random
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from heaptest import *  # noqa: E402,F403

SEED = int(os.environ.get("DAMAGE_SEED", random.SystemRandom().randrange(1 << 32)))
ROUNDS = int(os.environ.get("DAMAGE_ROUNDS", "40"))


def writable_parts(image):
    """(file offset, bytes) of what the core has of writable memory."""
    offset, = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    for i in range(count):
        kind, flags, start, _, _, file_bytes = struct.unpack_from("<IIQQQQ", image,
                                                                  offset + i * size)
        if kind == 1 and flags & 2 and file_bytes >= 4096:
            yield start, file_bytes


def damage(image, places, rng):
    """Change words that are not 0: pointers, counts, bitmaps."""
    copy = bytearray(image)
    for _ in range(rng.choice((1, 4, 64, 2000))):
        at = rng.choice(places)
        word, = struct.unpack_from("<Q", copy, at)
        other, = struct.unpack_from("<Q", copy, rng.choice(places))
        word = rng.choice((0, (1 << 64) - 1, word ^ 1 << rng.randrange(64), word + 8, word - 16,
                           other, rng.getrandbits(64)))
        struct.pack_into("<Q", copy, at, word & (1 << 64) - 1)
    return copy


def one(allocator, rng):
    where = folder()
    process, truth = start_truth("truth_chain", (), allocator, where)
    if not ok(truth, f"{allocator}: stands still"):
        return end(process)
    path = abort_for_core(process, truth.pid, where)
    end(process)
    if not path:
        return skip(allocator, "no core")
    with open(path, "rb") as file:
        image = file.read()
    places = [at for start, count in writable_parts(image)
              for at in range(start, start + count - 7, 8) if image[at:at + 8] != bytes(8)]
    wrong = []
    for i in range(ROUNDS):
        with open(path, "wb") as file:
            file.write(damage(image, places, rng))
        for command in ("leaks", "verify"):
            status, _, err = inspect(path, command, "--json", timeout=60)
            if status not in (0, 1, 2) or (status == 2 and not err.strip()):
                wrong.append((i, command, status, err[:200]))
    is_(wrong, [], f"{allocator}: {ROUNDS} damaged cores, status 0, 1, or 2 with a message")


def main():
    need_tools()
    if not kernel_writes_core_files():
        skip_all("core_pattern is not a plain file name")
    diag(f"DAMAGE_SEED={SEED}")
    rng = random.Random(SEED)
    for allocator in allocators():
        one(allocator, rng)
    done()


main()
