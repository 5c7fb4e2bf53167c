"""Who claims tasks, and whether a claimant's process is still there. No wall clock is asked.

A process is known by its number, the time of its birth (in ticks since the boot, where the system tells; a clock that
is set does not change them), and the boot. A number means nothing outside of its own namespace (containers): of
claimants in another one only their leases tell.
"""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]


class Process(NamedTuple):
    pid: int
    born: float
    boot: str
    space: str


def this_process() -> Process:
    pid = os.getpid()
    return Process(pid, born(pid) or 0.0, boot(), _space())


def is_gone(process: Process) -> bool:
    """Certainly not running any more. (A process that is only not known to run may do so.)"""
    if process.boot != boot():
        return True
    if process.space != _space():
        return False
    now = born(process.pid)
    return now is None or abs(now - process.born) > _tolerance()


def born(pid: int) -> float | None:
    """When the process with that number was born; None if there is none, or only what its parent has not buried."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may contain anything, so count from behind it.
            state, *fields = file.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        return None if _has_proc() else _born_elsewhere(pid)
    except ProcessLookupError:
        return None
    return None if state in (b"Z", b"X") else float(fields[18])


def _born_elsewhere(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None


@functools.cache
def _has_proc() -> bool:
    return os.path.exists("/proc/self/stat")


def _tolerance() -> float:
    return 0.5 if _has_proc() else 2.0


@functools.cache
def boot() -> str:
    """Which start of the machine this is."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return f"{round(psutil.boot_time() / 10)}"


def _space() -> str:
    """Within which process numbers mean something."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
