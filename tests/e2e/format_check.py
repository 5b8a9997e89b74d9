"""Reads a program's heap with heapinspect and compares it with what the program booked."""
import json
import pathlib

from heaptest import chunks, diag, end, folder, inspect_json, is_, ok, start_truth

MAGIC = b"himalloc heap 1\0"


def is_thread_table(address, target):
    """The C library's table of a thread's variables: it may get a block that the program gave back."""
    status, answer, err = inspect_json("whatis", *target, hex(address))
    return bool(answer) and "dtv" in json.dumps(answer["answers"])


def compare(truth, what, target):
    """Every live block live with its usable size, no freed one live, no damage found."""
    status, lines, err = chunks(*target)
    if not ok(status == 0 and lines, f"{what}: is read"):
        return diag(f"status {status}: {err}")
    live = {int(line["address"], 16): line["usable"] for line in lines if line["state"] == "live"}
    booked = {a: block[2] for a, block in truth.blocks.items() if block[0] != "freed"}
    is_([hex(a) for a in booked if live.get(a) != booked[a]][:5], [],
        f"{what}: all {len(booked)} blocks are live, with their sizes")
    again = [a for a in truth.of("freed") if a in live and not is_thread_table(a, target)]
    is_([hex(a) for a in again][:5], [], f"{what}: no freed one is")
    status, answer, err = inspect_json("summary", *target)
    if not ok(answer, f"{what}: summary"):
        return diag(err)
    heaps = [heap for heap in answer["heaps"] if heap["allocator"] == "himalloc"]
    is_([heap["found_by"] for heap in heaps], ["native"], f"{what}: one heap, by its own description")
    for heap in heaps:
        is_([check for check in heap["checks"] if not check["agree"]], [], f"{what}: accounts agree")


def compare_program(library, what, program, *arguments):
    """A truth program on that library, live."""
    process, truth = start_truth(program, arguments, "himalloc", folder(), LD_PRELOAD=library)
    if ok(truth, f"{what}: {program} runs"):
        compare(truth, f"{what}: {program}", ["-p", str(truth.pid)])
    end(process)


def preamble_of(pid):
    """Where the root page is, by its magic."""
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, mode = int(line.split("-")[0], 16), line.split()[1]
            if mode.startswith("rw"):
                try:
                    memory.seek(start)
                    if memory.read(len(MAGIC)) == MAGIC:
                        return start
                except OSError:
                    continue
    return None


def overwrite(pid, address, data):
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        memory.write(data)
