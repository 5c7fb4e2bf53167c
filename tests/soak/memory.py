"""What memory a soak has, measured so that its first minute can be compared with its last.

With the GIL, objects come from an allocator of Python's own, which gives back to the system only whole megabytes in
which nothing is in use. How many of them it has varies by a twentieth from round to round, and creeps up for minutes,
while what is in use stays the same within a thousandth. So a soak runs under the C library's allocator (`plainly`),
which is told after each round to give back single pages (`give_back`), and has one heap for all threads. Without the
GIL, Python's allocator does so by itself.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Sequence

import psutil

_libc = ctypes.CDLL(None)


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of the GNU library."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keep",
        )
    ]


def plainly(arguments: Sequence[str]) -> None:
    """Begin anew under the C library's allocator, if there is another one."""
    if has_gil() and "PYTHONMALLOC" not in os.environ:
        os.environ |= {"PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "1"}
        os.execv(sys.executable, [sys.executable, "-m", "tests.soak", *arguments])


def has_gil() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def measure() -> tuple[int, int]:
    """Bytes that the process has; and what of it is in use: bytes, or (`is_counted`) the blocks that objects have."""
    gc.collect()
    give_back()
    return psutil.Process().memory_info().rss, sys.getallocatedblocks() if is_counted() else _bytes_in_use()


def is_counted() -> bool:
    """Does Python count its blocks? If not, they are the C library's."""
    return sys.getallocatedblocks() > 0 or not hasattr(_libc, "mallinfo2")


def give_back() -> None:
    """Have the C library return to the system what it keeps for later. That varies by a tenth from round to round,
    with what was freed in which order, and says nothing about what is in use."""
    trim = getattr(_libc, "malloc_trim", None)  # (only the GNU library has it)
    if trim is not None:
        trim(0)


def _bytes_in_use() -> int:
    info = _libc.mallinfo2
    info.restype = _Mallinfo
    found = info()
    return int(found.uordblks + found.hblkhd)
