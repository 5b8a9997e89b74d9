"""Python that loses memory of a C library: results of strdup that nobody frees, one in three.

Nothing in Python tells: gc and tracemalloc see only what Python allocated itself.
"""
import ctypes
import sys
import time

libc = ctypes.CDLL(None)
libc.strdup.restype = ctypes.c_void_p
libc.strdup.argtypes = [ctypes.c_char_p]
libc.free.argtypes = [ctypes.c_void_p]


def convert(number):
    """A wrapper that returns early, and forgets the copy, when the number is divisible by 3."""
    copy = libc.strdup(b"record %06d " % number + b"x" * 200)
    if number % 3 == 0:
        return None
    text = ctypes.string_at(copy)
    libc.free(copy)
    return text


texts = [convert(number) for number in range(3000)]
print(f"lost {sum(text is None for text in texts)} copies of 214 bytes", flush=True)
while True:
    texts = [convert(number * 3 + 1) for number in range(100)]
    time.sleep(0.01)
