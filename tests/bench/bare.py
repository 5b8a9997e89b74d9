"""The limit of every verdict: a plain reading of the same memory."""
import concurrent.futures
import ctypes
import os
import time

PAGE = 4096
PIECE = 256 << 10
AT_ONCE = 64  # pieces a call, that the interpreter counts for nothing


class Vector(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


def _touched(pagemap, start, end):
    """The pieces in which some page is there: what is merely reserved is nobody's to read."""
    entries = os.pread(pagemap.fileno(), (end - start) // PAGE * 8, start // PAGE * 8)
    each = PIECE // PAGE * 8
    return [(start + i // 8 * PAGE, min(PIECE, end - start - i // 8 * PAGE))
            for i in range(0, len(entries), each) if any(entries[i + 7:i + each:8])]


def bare_read(pid):
    """Seconds: all that the process has written, by two threads with process_vm_readv."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/maps", encoding="ascii") as file:
        spans = [[int(x, 16) for x in line.split()[0].split("-")] for line in file if " rw-p " in line]
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        work = [piece for start, end in spans if end - start < 1 << 36
                for piece in _touched(pagemap, start, end)]

    def some(pieces):
        buffer, total = ctypes.create_string_buffer(PIECE), 0
        for i in range(0, len(pieces), AT_ONCE):
            part = pieces[i:i + AT_ONCE]
            local = (Vector * len(part))(*((ctypes.addressof(buffer), n) for _, n in part))
            remote = (Vector * len(part))(*part)
            total += max(0, libc.process_vm_readv(pid, local, len(part), remote, len(part), 0))
        return total

    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(some, (work[0::2], work[1::2])))
    return time.monotonic() - begun
